"""A program that is given as a function, in Python, in; the name that a job has for it, and its source, out.

A function that can be imported is named by its import path. Any other (of a script, of a notebook, one that a function made) is
known by its name here, as long as whoever gave it holds on to it: what such a job is, only the same call in Python knows.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from collections.abc import Callable
from functools import partial
from types import CodeType
from typing import Any
from weakref import WeakValueDictionary

from llmbatch.core.errors import JobError
from llmbatch.core.words import short

_MARK = " (a function given in Python, "
_given: WeakValueDictionary[str, Callable[..., Any]] = WeakValueDictionary()


def name_of_given(program: Callable[..., Any]) -> str:
    """The name of a function for a job: its import path, or one under which it is found as long as it lives.

    Raises ``JobError`` for what is no function.
    """
    if isinstance(program, type) or not callable(program):
        raise JobError(
            f"program: is {short(program)}, and a program is a generator function, an import path or a section"
        )
    module, path = getattr(program, "__module__", None), getattr(program, "__qualname__", "")
    if module is not None and module != "__main__" and path and "<" not in path:
        found: Any = sys.modules.get(module)
        for part in path.split("."):
            found = getattr(found, part, None)
        if found is program:
            return f"{module}:{path}"
    called = getattr(_function(program), "__name__", type(program).__name__)
    digest = hashlib.sha256(source_of_given(program).encode("utf-8", "replace")).hexdigest()[:8]
    name = f"{called}{_MARK}{digest})"
    _given[name] = program
    return name


def is_given(name: str) -> bool:
    """Whether a name is one of those that ``name_of_given`` makes where there is no import path."""
    return _MARK in name


def given(name: str) -> Callable[..., Any]:
    """The function that has the name. Raises ``JobError`` where nobody gave it, or whoever did let it go."""
    found = _given.get(name)
    if found is None:
        called = name.partition(_MARK)[0]
        raise JobError(
            f"the program {called} was given to llmbatch in Python, as a function that cannot be imported, so only the Python code "
            f"that has it can go on: make the same call again, or put {called} into a module and name it as module:{called}"
        )
    return found


def source_of_given(program: Callable[..., Any]) -> str:
    """What a function does, as text: its source, or where there is none its compiled code, and the values that it holds."""
    if isinstance(program, partial):
        held: dict[str, Any] = {str(place): value for place, value in enumerate(program.args)} | program.keywords
        return f"{source_of_given(program.func)}\n{_as_text(held)}"
    function = _function(program)
    if not inspect.isfunction(function):
        return f"{_source(type(program))}\n{_as_text(getattr(program, '__dict__', {}))}"
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    held = {name: value for name, cell in cells if (value := _content(cell)) is not program}
    return f"{_source(function)}\n{_as_text([held, function.__defaults__, function.__kwdefaults__])}"


def _function(program: Any) -> Any:
    return inspect.unwrap(program.func if isinstance(program, partial) else program)


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is filled later
        return None


def _source(part: Any) -> str:
    code = getattr(part, "__code__", None)
    compiled = _code(code) if code is not None else str(getattr(part, "__qualname__", part))
    try:
        text = inspect.getsource(part)
    except (OSError, TypeError):  # typed into an interpreter, or given to python -c
        return compiled
    # the source of a lambda is the line that it stands in, where there may be another
    return f"{text}\n{compiled}" if getattr(part, "__name__", "") == "<lambda>" else text


def _code(code: CodeType) -> str:
    """Compiled code as text, the same for the same source in the same version of Python."""
    return f"{sys.version_info[:2]} {code.co_code.hex()} {code.co_names} {[_constant(each) for each in code.co_consts]}"


def _constant(value: Any) -> str:
    if isinstance(value, CodeType):
        return _code(value)
    return repr(sorted(map(repr, value)) if isinstance(value, frozenset) else value)


def _as_text(held: Any) -> str:
    """Values as text that is the same in another process: functions by their source, what only has an address by its type."""

    def plain(value: Any) -> str:
        if inspect.isfunction(value):
            return _source(value)
        text = repr(value)
        return type(value).__qualname__ if " at 0x" in text else text

    return json.dumps(held, sort_keys=True, default=plain, skipkeys=True)


__all__ = ["given", "is_given", "name_of_given", "source_of_given"]
