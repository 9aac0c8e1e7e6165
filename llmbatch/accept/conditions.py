"""The conditions of a job in, compiled; what a row's value is lacking, if anything, out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from llmbatch.accept.base import Fell
from llmbatch.core.errors import JobError, PromptError, RunError
from llmbatch.core.imports import is_import_path, load_object, source_of
from llmbatch.core.sandbox import RenderError, compile_condition, used_variables
from llmbatch.core.types import RowId
from llmbatch.core.words import near, quote

_NAMES = ("output", "row", "input", "details", "id")
_OF_THE_ROW = frozenset({"row", "input"})

Holds = Callable[[Mapping[str, Any]], bool]
"""The values by name -> whether the condition holds. Raises ``RenderError`` where that cannot be said."""


class Conditions:
    """The conditions of one job. Raises ``JobError`` for one that is wrong."""

    def __init__(self, conditions: Sequence[str]) -> None:
        self.needs_row = False
        self._holds: dict[str, Holds] = {}
        for condition in conditions:
            make = _predicate if is_import_path(condition) else _expression
            names, self._holds[condition] = make(condition)
            self.needs_row = self.needs_row or bool(_OF_THE_ROW & names)

    def __bool__(self) -> bool:
        return bool(self._holds)

    def identity(self) -> dict[str, str]:
        """Digests of the sources of predicates: their import paths stay when the code is changed."""
        found = {
            name: source_of(load_object(name), name.partition(":")[0]) for name in self._holds if is_import_path(name)
        }
        return {
            f"accept.when ({name})": blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()
            for name, text in found.items()
        }

    def judge(
        self, row_id: RowId, data: Mapping[str, Any], output: Any, details: Mapping[str, Any] | None
    ) -> Fell | None:
        """The first condition that a row with this output does not meet. ``data`` may be empty unless ``needs_row``.

        One that cannot be told, as a field is not there, is not met. Raises ``RunError`` where a predicate fails.
        """
        values = {"output": output, "row": data, "input": data, "details": details or {}, "id": row_id}
        for condition, holds in self._holds.items():
            try:
                if not holds(values):
                    return Fell(condition)
            except RenderError as error:
                return Fell(condition, f"it cannot be told: {error}")
        return None


def _expression(condition: str) -> tuple[frozenset[str], Holds]:
    where = f"accept.when: {condition}"
    try:
        names = used_variables("{{ (" + condition + ") }}", where)
        holds = compile_condition(condition)
    except PromptError as error:
        raise JobError(f"accept.when: {error}") from None
    if unknown := [name for name in names if name not in _NAMES]:
        raise JobError(
            f"{where}: there is no {unknown[0]!r}{near(unknown[0], _NAMES)}: a condition is over {', '.join(_NAMES)}, such as "
            "output.score >= 4; a predicate of your own is an import path (module:function)"
        )
    return frozenset(names), holds


def _predicate(path: str) -> tuple[frozenset[str], Holds]:
    """A function of the output, and of what else it names among its arguments."""
    predicate = load_object(path)
    if not callable(predicate):
        raise JobError(f"accept.when: {path} is not a function but {quote(repr(predicate), 80)}")
    names = _arguments(predicate, path)

    def holds(values: Mapping[str, Any]) -> bool:
        first, *others = names
        try:
            return bool(predicate(values[first], **{name: values[name] for name in others}))
        except Exception as error:
            # not a failure of the row: every row may be judged wrongly, and the author would not be told
            raise RunError(
                f"accept.when: the predicate {path} raised {type(error).__name__}: {error}, on the output "
                f"{quote(repr(values['output']), 200)}; correct it and run the same command again to go on"
            ) from error

    return frozenset(names), holds


def _arguments(predicate: Callable[..., Any], path: str) -> list[str]:
    """What a predicate is given: the output first, whatever it calls that, then by the names of its other arguments."""
    try:
        parameters = list(inspect.signature(predicate).parameters.values())
    except ValueError:  # some built-in functions do not tell
        return ["output"]
    first = parameters[0] if parameters else None
    named = [p for p in parameters[1:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    wrong = [p.name for p in parameters[1:] if p.default is p.empty and p in named and p.name not in _NAMES]
    if first is None or first.kind in (first.KEYWORD_ONLY, first.VAR_KEYWORD) or wrong:
        raise JobError(
            f"accept.when: the predicate {path} must take the output, and else only arguments that are called "
            f"{', '.join(_NAMES[1:])}"
        )
    return ["output", *(p.name for p in named if p.name in _NAMES[1:])]


__all__ = ["Conditions"]
