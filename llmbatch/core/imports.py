"""An import path ``package.module:Name`` in, the object out.

Importing runs code, so an import path comes only from the job's author (job file, flags, prompt file), never from a
row.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from llmbatch.core.errors import JobError

_IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def is_import_path(text: str) -> bool:
    """Whether the text has the form ``package.module:Name``; the object need not exist."""
    return _IMPORT_PATH.fullmatch(text) is not None


def load_object(path: str) -> Any:
    """Import what ``package.module:Name`` names; the current folder is searched first.

    Raises ``JobError`` that says which part is missing and what is near, or what the module raised on import.
    """
    if not is_import_path(path):
        raise JobError(f"{path!r} is not an import path: it has the form package.module:Name")
    module_name, _, attributes = path.partition(":")
    found: Any = _import(module_name, path)
    for attribute in attributes.split("."):
        try:
            found = getattr(found, attribute)
        except AttributeError:
            names = [name for name in dir(found) if not name.startswith("_")]
            raise JobError(f"{path}: {_name(found)} has no {attribute!r}{_near(attribute, names)}") from None
    return found


def extra(module: str, name: str, what: str) -> Any:
    """A module of one of the package's extras. Raises ``JobError`` that says how to install it, for ``what`` needs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise JobError(f"{what} needs {error.name}, which is not installed: pip install 'llmbatch[{name}]'") from error


def source_of(part: Any, module: str) -> str:
    """The source of a class or function; of anything else, such as a partial or what a factory made, all of its module."""
    plain = inspect.unwrap(part) if callable(part) else part
    if isinstance(plain, type | FunctionType) and "<locals>" not in plain.__qualname__:
        try:
            return inspect.getsource(plain)
        except (OSError, TypeError):
            pass
    file = getattr(sys.modules.get(module), "__file__", None)
    try:
        return Path(file).read_text(encoding="utf-8", errors="replace") if file else ""
    except OSError:
        return ""


def wants_row(function: Callable[..., Any], called: str) -> bool:
    """Whether an author's function of a checked value is to be given the row too, as it takes two arguments.

    Raises ``JobError`` for one that can be given neither; ``called`` is how the message calls it.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # some built-in functions do not tell
        return False
    by_position = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = sum(p.default is p.empty for p in by_position)
    keyword_only = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    takes_any = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if required > 2 or keyword_only or not (by_position or takes_any):
        raise JobError(f"{called} must take the value, or the value and the row; its arguments are otherwise")
    return required == 2 or (len(by_position) > 1 and by_position[1].name == "row")


def _import(name: str, path: str) -> ModuleType:
    try:
        with _current_folder_first():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name != missing and not name.startswith(missing + "."):
            raise JobError(
                f"{path}: importing {name} failed: it needs the module {missing!r}, which is not installed"
            ) from error
        parent, _, last = missing.rpartition(".")
        where = f"in the package {parent}" if parent else f"in {Path.cwd()} or among the installed packages"
        raise JobError(f"{path}: there is no module {missing!r} {where}{_near(last, _modules(parent))}") from error
    except Exception as error:
        raise JobError(f"{path}: importing {name} failed: {type(error).__name__}: {error}") from error


@contextmanager
def _current_folder_first() -> Iterator[None]:
    """Search the current folder first for the author's module, and last from then on: it must not hide libraries."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(folder)
        if folder not in sys.path and "" not in sys.path:
            sys.path.append(folder)


def environment() -> dict[str, str]:
    """That of another Python which is to find what this one finds, started with ``-P``: what lies in a folder hides no library.

    So the current folder, which stands first in a session that was not started with a file, comes last.
    """
    paths = [part for part in sys.path if part] + [os.getcwd()] * ("" in sys.path)  # noqa: PTH109 - as text
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _modules(package: str) -> list[str]:
    if not package:
        return [module.name for module in pkgutil.iter_modules([str(Path.cwd()), *sys.path])]
    return [module.name for module in pkgutil.iter_modules(getattr(sys.modules.get(package), "__path__", []))]


def _name(thing: Any) -> str:
    return (
        f"the module {thing.__name__}"
        if isinstance(thing, ModuleType)
        else str(getattr(thing, "__qualname__", repr(thing)))
    )


def _near(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3)
    return f"; did you mean {' or '.join(near)}?" if near else ""
