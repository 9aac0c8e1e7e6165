"""The text of a job file in, plain data out, and back. Paths in a job file are relative to its own folder.

A job file is YAML as prompt files are: by the rules of YAML 1.2, without tags and aliases, and no key twice.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from llmbatch.core.errors import JobError, PromptError
from llmbatch.core.settings import IsPath, marked
from llmbatch.job.sweep import normal
from llmbatch.prompt.document import read_document

DEMO = "demo"
"""The name of the model that comes with llmbatch."""


def read_job_file(path: Path, settings: Callable[[Mapping[str, Any]], type[BaseModel]]) -> dict[str, Any]:
    """A job file as plain data with absolute paths, by what ``settings`` of such data say is one. Raises ``JobError``."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise JobError(f"{path}: there is no such job file") from None
    except IsADirectoryError:
        hint = f"; to go on with a run, give {path / 'job.yaml'}" if (path / "job.yaml").is_file() else ""
        raise JobError(f"{path}: is a folder, not a job file{hint}") from None
    except (OSError, ValueError) as error:
        raise JobError(f"{path}: cannot be read: {error}") from error
    try:
        data = read_document(text, str(path)).value
    except PromptError as error:
        raise JobError(str(error)) from error
    if not isinstance(data, dict):
        raise JobError(f"{path}: a job file is a mapping with keys such as model, prompt, input and output")
    return resolve_paths(data, path.parent, settings(data))


def job_text(data: Mapping[str, Any], folder: Path | None, settings: type[BaseModel]) -> str:
    """The text of a job file. One that is to lie in ``folder`` has relative paths for what lies there too."""
    if folder is not None:
        data = _with_paths(data, settings, lambda _path, value: _inside(value, folder))
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


def resolve_paths(data: Mapping[str, Any], base: Path, settings: type[BaseModel]) -> dict[str, Any]:
    """The same data with the paths in it made absolute from ``base``; names of models, prompts and data sets stay."""

    def change(path: IsPath, value: str) -> str:
        return _absolute(value, base) if path.when(value, base) else value

    return _with_paths(data, settings, change)


def home_filled_in(data: Mapping[str, Any], settings: type[BaseModel]) -> dict[str, Any]:
    """The same data with ``~`` filled in where it begins a path, for what opens files by their names. Inputs do it themselves."""

    def fill(path: IsPath, value: str) -> str:
        if not value.startswith("~") or not path.when(value, Path()):
            return value
        return os.path.expanduser(value)  # noqa: PTH111 - of a user that is not known it leaves the text as it is

    return {**data, **_with_paths({key: value for key, value in data.items() if key != "input"}, settings, fill)}


def _with_paths(
    data: Mapping[str, Any], settings: type[BaseModel], change: Callable[[IsPath, str], str]
) -> dict[str, Any]:
    """A copy of the data, changed where a path can stand; ``change`` is given the mark of the place and the text that is there."""
    changed: Any = dict(data)
    for place, _, path in marked(settings, IsPath):
        changed = _changed(changed, place.split("."), path, change)
    if changed.get("sweep"):
        changed["sweep"] = normal(changed["sweep"], partial(_swept, settings, change))
    return changed  # type: ignore[no-any-return]


def _swept(settings: type[BaseModel], change: Callable[[IsPath, str], str], place: str, value: Any) -> Any:
    """A value that a sweep has for a place, changed as it is at that place itself."""
    if place != "prompt":
        return value
    return _with_paths({"prompt": value}, settings, change)["prompt"]


def _changed(value: Any, place: list[str], path: IsPath, change: Callable[[IsPath, str], str]) -> Any:
    """A copy of ``value``, changed at one place in it."""
    if not place or (place == ["path"] and isinstance(value, str)):  # a section given as one text, which is its path
        if isinstance(value, Mapping) and path.each:
            return {key: _changed(item, [], path, change) for key, item in value.items()}
        if isinstance(value, list | tuple) and path.each:
            return [_changed(item, [], path, change) for item in value]
        return change(path, value) if isinstance(value, str) and value else value
    if not isinstance(value, Mapping):
        return value
    key, *rest = place
    if key == "*":
        return {name: _changed(item, rest, path, change) for name, item in value.items()}
    return {**value, key: _changed(value[key], rest, path, change)} if key in value else value


def _absolute(value: str, base: Path) -> str:
    try:
        return str((base / Path(value).expanduser()).absolute())
    except RuntimeError:  # ~user of a user that is not known
        return str((base / value).absolute())


def _inside(value: str, folder: Path) -> str:
    path = Path(value)
    return str(path.relative_to(folder)) if path.is_absolute() and path.is_relative_to(folder) else value


class _Dumper(yaml.SafeDumper):
    """Writes what ``read_document`` reads: YAML 1.2 takes some texts for numbers that PyYAML leaves bare."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    if not text.replace("\n", "").isprintable():
        style: str | None = '"'
    else:
        style = "|" if "\n" in text else "'" if text[:1] in "+-.0123456789" else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)

__all__ = ["DEMO", "home_filled_in", "job_text", "read_job_file", "resolve_paths"]
