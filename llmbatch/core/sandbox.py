"""The text of a Jinja template or expression in, compiled once; a function from values to text or a value out, sandboxed, bounded.

Trusted: the author of the prompt. Not trusted: the values, which come from rows. A value is only ever data: it is never
parsed as a template, its methods and attributes are limited to harmless ones, and it cannot make the text explode
through what the author wrote: ``range`` is bounded (by Jinja, to 100,000 items), so are repetition and powers; ``%``
and ``str.format`` on text, padding methods and ``lipsum`` are out; no text grows beyond ``MAX_CHARACTERS``.

Not limited: the time that an author's own nested loops take while they write nothing, how far lines such as
``{% set a = a ~ a %}`` double a value before it is written, and a filter's width that the author takes from a row.
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, TypeVar

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, Undefined, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from llmbatch.core.errors import PromptError
from llmbatch.core.words import is_encodable, near

MAX_CHARACTERS = 64 * 2**20
_MAX_EXPONENT = 1024
_MAX_BITS = 2**16
_PADDING = frozenset({"format", "format_map", "ljust", "rjust", "center", "zfill", "expandtabs", "translate", "encode"})
_PLAIN = frozenset({"string", "integer", "number"})  # types whose str() is what Jinja writes
_PLAIN_OR_ANY = _PLAIN | {"any"}
_Render = Callable[[Mapping[str, Any]], str]
_Value = TypeVar("_Value")
_FOR_WHAT_IS_MISSING = frozenset({"defined", "undefined", "default", "d"})


class TooLargeError(TemplateError):
    """A template that makes more text than ``MAX_CHARACTERS``."""


class RenderError(Exception):
    """Rendering a text with these values failed: ``str`` says how, ``line`` is the line of the prompt file."""

    def __init__(self, line: int, reason: Exception) -> None:
        super().__init__(_in_words(reason))
        self.line = line


@dataclass(frozen=True, slots=True)
class Text:
    """A compiled text. ``names`` are the variables that it uses; with none of them, ``constant`` is what it says.

    ``render`` takes the values of at least these variables and raises ``RenderError``. ``parts`` are what it needs inside of
    variables: of ``{{ question.text }}`` the pair of question and text.
    """

    names: frozenset[str]
    render: Callable[[Mapping[str, Any]], str]
    constant: str | None = None
    parts: frozenset[tuple[str, str]] = frozenset()

    def given(self, values: Mapping[str, Any]) -> Text:
        """The text with these values known: constant, where they are all it needs. Raises ``RenderError``."""
        if self.constant is not None or not self.names <= values.keys():
            return self
        constant = self.render(values)
        return Text(frozenset(), lambda _values: constant, constant)


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression, such as ``critique.score >= 4``. ``names`` and ``parts`` as those of a text.

    ``value`` takes the values of at least these variables; what is not there is null, and what it gives is JSON or raises
    ``RenderError``.
    """

    source: str
    names: frozenset[str]
    parts: frozenset[tuple[str, str]]
    value: Callable[[Mapping[str, Any]], Any]


def compile_text(source: str, kinds: Mapping[str, str], name: str, line: int) -> Text:
    """Compile a text that may use the variables in ``kinds``, a mapping from name to declared type.

    A line break at the very end of the text is not part of it, nor is one after a ``{% ... %}``. ``name`` and ``line``
    (of the text's first line) are for messages. Raises ``PromptError`` for a mistake or a variable not in ``kinds``.
    """
    try:
        tree = _ENVIRONMENT.parse(source)
        used = meta.find_undeclared_variables(tree)
        template = _ENVIRONMENT.from_string(tree)
    except TemplateSyntaxError as error:
        raise PromptError(f"{name}:{line + error.lineno - 1}: the template is wrong: {error.message}") from error
    except (RecursionError, SyntaxError, MemoryError):  # of Python's compiler, on what Jinja made of the template
        raise PromptError(f"{name}:{line}: the template is nested too deeply") from None
    if reference := next(tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)), None):
        at = line + reference.lineno - 1
        raise PromptError(f"{name}:{at}: a prompt is one file: include, import and extends are not available")
    if unknown := sorted(used - kinds.keys()):
        raise _undeclared(unknown[0], kinds, f"{name}:{line + _line_of(tree, unknown[0]) - 1}")
    general = _general(template, line)
    return Text(frozenset(used), _plain_text(tree, kinds, line, general) or general, parts=_parts(tree))


def compile_condition(source: str) -> Callable[[Mapping[str, Any]], bool]:
    """Compile an expression over fields, such as ``output.score >= 4``. Raises ``PromptError`` for a mistake.

    The function says whether it is true. It raises ``RenderError`` where that cannot be said: a field is not there, or of another
    type.
    """
    evaluate = _evaluating(source, "condition")
    return lambda values: _told(lambda: bool(evaluate(values)))


def compile_expression(source: str) -> Expression:
    """Compile an expression over variables, whose value is null where it leads nowhere. Raises ``PromptError`` for a mistake."""
    evaluate = _evaluating(source, "expression")
    tree = _ENVIRONMENT.parse("{{ (" + source + ") }}")
    names = frozenset(meta.find_undeclared_variables(tree))
    return Expression(source, names, _parts(tree), lambda values: _told(lambda: _json_value(evaluate(values))))


def _evaluating(source: str, called: str) -> Callable[[Mapping[str, Any]], Any]:
    try:
        return _ENVIRONMENT.compile_expression(source, undefined_to_none=False)
    except TemplateSyntaxError as error:
        raise PromptError(f"the {called} {source!r} is wrong: {error.message}") from error
    except (RecursionError, SyntaxError, MemoryError):
        raise PromptError(f"the {called} {source!r} is nested too deeply") from None


def _told(evaluate: Callable[[], _Value]) -> _Value:
    """What an expression gives. It may raise anything; that becomes a ``RenderError``."""
    try:
        return evaluate()
    except Exception as error:
        raise RenderError(1, error) from error


def used_variables(source: str, name: str) -> list[str]:
    """The variables that a text uses, sorted. Raises ``PromptError`` for one that cannot be parsed."""
    try:
        return sorted(meta.find_undeclared_variables(_ENVIRONMENT.parse(source)))
    except TemplateSyntaxError as error:
        raise PromptError(f"{name}:{error.lineno}: the template is wrong: {error.message}") from error
    except RecursionError:
        raise PromptError(f"{name}: the template is nested too deeply") from None


def pieces_in_order(source: str) -> Iterator[str | int]:
    """A text's pieces in the order written: the name of a variable, or the length of constant text.

    The text must be one that ``compile_text`` accepts.
    """
    tree = _ENVIRONMENT.parse(source)
    used = meta.find_undeclared_variables(tree)
    for node in tree.find_all((nodes.TemplateData, nodes.Name)):
        if isinstance(node, nodes.TemplateData):
            yield len(node.data)
        elif isinstance(node, nodes.Name) and node.name in used:
            yield node.name


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**", "%"})

    def getattr(self, obj: Any, attribute: str) -> Any:
        # rows are full of keys such as "items" and "values": in an object, the row's key goes before Python's method
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return super().is_safe_attribute(obj, attr, value) and not (isinstance(obj, str) and attr in _PADDING)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        method = isinstance(value, (types.MethodType, types.BuiltinMethodType)) and isinstance(value.__self__, str)
        if method and value.__name__ in ("format", "format_map"):
            raise SecurityError("str.format is not available: join texts with ~, or use the format filter")
        return None

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "*":
            _check_repetition(left, right)
            _check_repetition(right, left)
        elif operator == "**" and (abs(right) > _MAX_EXPONENT or _bits(left) * abs(right) > _MAX_BITS):
            raise TooLargeError(f"the power {left} ** {right} is too large")
        elif operator == "%" and isinstance(left, (str, bytes)):
            raise SecurityError("% on text is not available: join texts with ~, or use the format filter")
        return super().call_binop(context, operator, left, right)


def _check_repetition(repeated: Any, times: Any) -> None:
    if (
        isinstance(repeated, (str, bytes, list, tuple))
        and isinstance(times, int)
        and len(repeated) * times > MAX_CHARACTERS
    ):
        raise TooLargeError(f"repeating {len(repeated)} items {times} times makes more than {MAX_CHARACTERS}")
    if isinstance(repeated, int) and isinstance(times, int) and _bits(repeated) + _bits(times) > _MAX_BITS:
        raise TooLargeError(f"a product of more than {_MAX_BITS} bits")


def _bits(value: Any) -> int:
    return value.bit_length() if isinstance(value, int) else 1


def _to_json(value: Any, indent: int | None = None) -> str:
    # default=str writes dates as they are, and makes an undefined value say its name
    return json.dumps(value, ensure_ascii=False, indent=indent, default=str)


def _written(value: Any) -> Any:
    """What ``{{ value }}`` writes: text and numbers as they are, other JSON values as JSON."""
    if value.__class__ is str or isinstance(value, (str, Undefined)):
        return value
    if isinstance(value, (bool, list, tuple, dict)):
        return _to_json(value)
    if value is None:
        raise TemplateError("the value written here is null: test it with {% if %}, or write {{ value or '' }}")
    if callable(value) or isinstance(value, Iterator):
        raise TemplateError(f"the value written here is a Python {type(value).__name__}: call it, or end with | list")
    return value


def _build_environment() -> _Environment:
    environment = _Environment(
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
        finalize=_written,
        cache_size=0,
    )
    environment.filters["tojson"] = _to_json  # Jinja's own writes < and ' as \u003c and \u0027, for HTML
    for name in ("center", "urlize", "xmlattr", "forceescape", "escape", "e"):
        del environment.filters[name]
    for name in ("lipsum", "cycler", "joiner"):
        del environment.globals[name]
    return environment


_ENVIRONMENT = _build_environment()


def _general(template: Template, line: int) -> _Render:
    def render(values: Mapping[str, Any]) -> str:
        pieces: list[str] = []
        left = MAX_CHARACTERS
        try:
            for piece in template.generate(values):
                left -= len(piece)
                if left < 0:
                    break
                pieces.append(piece)
        except Exception as error:  # a template may raise anything
            raise RenderError(line + _line_in_template(error) - 1, error) from error
        return _sound("".join(pieces), left, line)

    return render


def _plain_text(tree: nodes.Template, kinds: Mapping[str, str], line: int, general: _Render) -> _Render | None:
    """A quick way for the usual text, constants and plain variables: what Jinja makes of it, in a fifth of the time.

    Of a variable of any type it is known only when it is there: where it is no text, the general way is taken.
    """
    form: list[str] = []
    names: list[str] = []
    unsure: list[str] = []
    for output in tree.body:
        if not isinstance(output, nodes.Output):
            return None
        for node in output.nodes:
            if isinstance(node, nodes.TemplateData):
                form.append(node.data.replace("%", "%%"))
            elif isinstance(node, nodes.Name) and (kind := kinds.get(node.name)) in _PLAIN_OR_ANY:
                form.append("%s")
                names.append(node.name)
                if kind not in _PLAIN:
                    unsure.append(node.name)
            else:
                return None
    layout = "".join(form)
    if not names:
        return general
    given = itemgetter(*names)  # of one name its value, which is no tuple

    def render(values: Mapping[str, Any]) -> str:
        for name in unsure:
            if values.get(name).__class__ is not str:
                return general(values)
        text = layout % given(values)
        return (
            text if text.isascii() and len(text) <= MAX_CHARACTERS else _sound(text, MAX_CHARACTERS - len(text), line)
        )

    return render


def _sound(text: str, left: int, line: int) -> str:
    if left < 0:
        raise RenderError(line, TooLargeError(f"the text is longer than {MAX_CHARACTERS} characters"))
    if not is_encodable(text):
        raise RenderError(line, ValueError("the text holds half a surrogate pair, which is no character"))
    return text


def _line_in_template(error: Exception) -> int:
    line, trace = 1, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _in_words(reason: Exception) -> str:
    if isinstance(reason, (TemplateError, ValueError)):
        return str(reason)
    return f"{type(reason).__name__}: {reason}"


def _parts(tree: nodes.Template) -> frozenset[tuple[str, str]]:
    """What is read inside of variables, but for what may be missing: ``x.y is defined`` and ``x.y | default('')``."""
    asked_for = {
        id(node.node)
        for node in tree.find_all((nodes.Test, nodes.Filter))
        if isinstance(node, nodes.Test | nodes.Filter) and node.name in _FOR_WHAT_IS_MISSING
    }
    found = set()
    for node in tree.find_all((nodes.Getattr, nodes.Getitem)):
        if id(node) in asked_for or not isinstance(node, nodes.Getattr | nodes.Getitem):
            continue
        key = node.attr if isinstance(node, nodes.Getattr) else getattr(node.arg, "value", None)
        if isinstance(node.node, nodes.Name) and isinstance(key, str):
            found.add((node.node.name, key))
    return frozenset(found)


def _json_value(value: Any) -> Any:
    """What an expression gave, as JSON has it. Raises ``TemplateError`` for what it does not have."""
    if isinstance(value, Iterator | tuple):
        value = list(value)
    if isinstance(value, list):
        return [_json_value(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _json_value(item) for key, item in value.items()}
    if isinstance(value, Undefined):
        return None
    if value is None or isinstance(value, str | int | float):
        return value
    raise TemplateError(f"it gives a Python {type(value).__name__}, which JSON does not have")


def _undeclared(unknown: str, kinds: Mapping[str, str], place: str) -> PromptError:
    declared = f"declared are {', '.join(kinds)}" if kinds else "none is declared"
    return PromptError(
        f"{place}: the variable {unknown!r} is not declared under variables{near(unknown, kinds)}; {declared}"
    )


def _line_of(tree: nodes.Template, name: str) -> int:
    return min((node.lineno for node in tree.find_all(nodes.Name) if node.name == name), default=1)
