"""The import path of the author's own function on an answer in; the function, ready to be called, out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llmbatch.core.errors import JobError, RunError
from llmbatch.core.imports import load_object, wants_row
from llmbatch.core.types import Row
from llmbatch.core.words import quote


@dataclass(frozen=True, slots=True)
class Own:
    """A function that is given an answer's value and, if it takes two arguments, the row's data."""

    path: str
    _function: Callable[..., Any]
    _wants_row: bool

    def __call__(self, value: Any, row: Row) -> Any:
        """What the function says. Raises ``RunError``, naming the row, where it fails."""
        try:
            return self._function(value, row.data) if self._wants_row else self._function(value)
        except Exception as error:
            raise RunError(
                f"row {row.id!r}: {self.path} raised {type(error).__name__}: {error}, on {quote(repr(value), 200)}; correct it and "
                "run the same command again to go on"
            ) from error


def own(path: str) -> Own:
    """The function that an import path names. Raises ``JobError`` for what is no function of a value, or of a value and a row."""
    function = load_object(path)
    if not callable(function):
        raise JobError(f"{path} is no function but {quote(repr(function), 80)}")
    return Own(path, function, wants_row(function, path))


__all__ = ["Own", "own"]
