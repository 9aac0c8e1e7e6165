"""A row's program in; the same program, with more to say of how it came to the row's value, out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from llmbatch.programs.base import Complete, Incomplete, Program

Note = Callable[[Complete | Incomplete], Mapping[str, Any]]
"""What a program returned -> what is to be in the record's ``details`` besides what the program itself says."""


def noted(program: Program, note: Note) -> Program:
    """The program, whose record's details have the note over its own."""
    value = yield from program
    done = value if isinstance(value, Complete | Incomplete) else Complete(value)
    more = note(done)
    return replace(done, details={**(done.details or {}), **more}) if more else value


__all__ = ["Note", "noted"]
