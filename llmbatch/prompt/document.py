"""The text of a YAML file in; plain values out, with the place in the file of each.

Only what JSON can say is read, by the rules of YAML 1.2: ``no``, ``on``, ``12:30``, ``010`` and ``2024-01-01`` stay
text, so a label called ``no`` is not ``false``. A key that is given twice, an alias and a tag are errors: the first
hides one of two values, the others have no place in a file this small, and aliases let a short text unfold into a huge
one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from llmbatch.core.errors import PromptError

_TAG = "tag:yaml.org,2002:"
_TAGS = frozenset(_TAG + kind for kind in ("str", "int", "float", "bool", "null", "map", "seq"))
_RESOLVERS = (
    ("null", r"(?:~|null|Null|NULL|)$", "~nN"),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:[0-9]*\.[0-9]+|[0-9]+\.|[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+|\.[0-9]+[eE][-+]?[0-9]+)$",
        "-+.0123456789",
    ),
)


@dataclass(frozen=True, slots=True)
class Document:
    """What a YAML text says. ``name`` is the file as messages call it; ``node`` is the tree that knows the places."""

    name: str
    value: Any
    node: yaml.Node | None = None

    def where(self, path: Sequence[str | int] = ()) -> str:
        """``file:line:column`` of the key or item at ``path``, or of its nearest ancestor that is there."""
        if self.node is None:
            return self.name
        mark = _follow(self.node, path)[0].start_mark
        return f"{self.name}:{mark.line + 1}:{mark.column + 1}"

    def line(self, path: Sequence[str | int] = ()) -> int:
        """The line, from 1, on which the text at ``path`` begins: for a block scalar the one below its ``|``."""
        if self.node is None:
            return 1
        node = _follow(self.node, path)[1]
        block = isinstance(node, yaml.ScalarNode) and node.style in ("|", ">")
        return int(node.start_mark.line) + (2 if block else 1)

    def error(self, path: Sequence[str | int], problem: str) -> PromptError:
        """The error to raise for what is wrong at ``path``."""
        return PromptError(f"{self.where(path)}: {problem}")


def read_document(text: str, name: str) -> Document:
    """Parse one YAML document. Raises ``PromptError`` with file, line and column."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            raise PromptError(f"{name}: the file is empty")
        _check_node(node, name)
        return Document(name, loader.construct_document(node), node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        words = ", ".join(part for part in (error.context, error.problem) if part)
        tab = "; YAML is indented with spaces, not with tabs" if "'\\t'" in words else ""
        raise PromptError(f"{place}: not valid YAML: {words}{tab}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise PromptError(f"{name}:{line}: not valid YAML: the character U+{ord(text[error.position]):04X}") from error
    except RecursionError:
        raise PromptError(f"{name}: nested too deeply") from None
    except ValueError as error:  # a number with thousands of digits
        raise PromptError(f"{name}: {error}") from error


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (the base class's shape)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.get_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                None, None, f"the alias *{event.anchor} is not allowed here: write the value out", event.start_mark
            )
        return super().compose_node(parent, index)


for _kind, _pattern, _first in _RESOLVERS:
    _Loader.add_implicit_resolver(_TAG + _kind, re.compile(_pattern), [*_first, *([""] if _kind == "null" else [])])


def _check_node(node: yaml.Node, name: str) -> None:
    place = f"{name}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"
    if node.tag not in _TAGS:
        raise PromptError(f"{place}: the tag {node.tag.replace(_TAG, '!!')} is not allowed here")
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _check_node(child, name)
    elif isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            at = f"{name}:{line}:{key.start_mark.column + 1}"
            if isinstance(key, yaml.MappingNode):
                raise PromptError(
                    f'{at}: YAML takes braces for a mapping of its own: put the text in quotes, as "{{{{ text }}}}"'
                )
            if key.tag != _TAG + "str":
                raise PromptError(f"{at}: the key {getattr(key, 'value', key.tag)!r} is not text: put it in quotes")
            if key.value in seen:
                raise PromptError(f"{at}: the key {key.value!r} is given twice, first on line {seen[key.value]}")
            seen[key.value] = line
            _check_node(value, name)


def _follow(node: yaml.Node, path: Sequence[str | int]) -> tuple[yaml.Node, yaml.Node]:
    """The key, or the value itself where it has none, and the value, as far along ``path`` as the tree goes."""
    key = node
    for step in path:
        if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            key = node = node.value[step]
        elif isinstance(node, yaml.MappingNode):
            found = next((pair for pair in node.value if pair[0].value == step), None)
            if found is None:
                break
            key, node = found
        else:
            break
    return key, node
