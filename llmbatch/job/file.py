"""The text of a job file in, plain data out, and back. Paths in a job file are relative to its own folder.

A job file is YAML as prompt files are: by the rules of YAML 1.2, without tags and aliases, and no key twice.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from llmbatch.core.errors import JobError, PromptError
from llmbatch.prompt.document import read_document
from llmbatch.prompt.library import shipped_prompts

DEMO = "demo"
"""The name of the model that comes with llmbatch."""

_EXPLICIT = ("./", "../", "/", "~")
_DATA_FILE = re.compile(r".*\.(jsonl|ndjson|json|csv|tsv|parquet|pq)(\.(gz|zst|bz2|xz))?", re.DOTALL | re.IGNORECASE)


def read_job_file(path: Path) -> dict[str, Any]:
    """A job file as plain data with absolute paths. Raises ``JobError``."""
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
    return resolve_paths(data, path.parent)


def job_text(data: Mapping[str, Any], folder: Path | None) -> str:
    """The text of a job file. One that is to lie in ``folder`` has relative paths for what lies there too."""
    if folder is not None:
        data = _with_paths(data, lambda _place, value: _inside(value, folder))
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


def resolve_paths(data: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """The same data with the paths in it made absolute from ``base``; names of models, prompts and data sets stay."""
    return _with_paths(data, lambda place, value: _absolute(value, base) if _PATHS[place](value, base) else value)


def home_filled_in(data: Mapping[str, Any]) -> dict[str, Any]:
    """The same data with ``~`` filled in where it begins a path, for what opens files by their names. Inputs do it themselves."""

    def fill(place: str, value: str) -> str:
        if not value.startswith("~") or place.startswith("input") or not _PATHS[place](value, Path()):
            return value
        return os.path.expanduser(value)  # noqa: PTH111 - of a user that is not known it leaves the text as it is

    return _with_paths(data, fill)


def is_there(value: str, base: Path = Path()) -> bool:
    """Whether a text that need not be a path is that of a file or folder."""
    try:
        return value != "" and "\n" not in value and (base / Path(value).expanduser()).exists()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL in it, a home that is not known
        return False


def _always(_value: str, _base: Path) -> bool:
    return True


def _model(value: str, base: Path) -> bool:
    return value != DEMO and (value.startswith(_EXPLICIT) or is_there(value, base))


def _prompt(value: str, base: Path) -> bool:
    if "{{" in value or "{%" in value or "\n" in value:
        return False
    named = value.startswith(_EXPLICIT) or value.endswith((".yaml", ".yml"))
    return named or (value not in shipped_prompts() and is_there(value, base))


def _input(value: str, base: Path) -> bool:
    if value == "-" or "://" in value or "\n" in value:
        return False
    named = value.startswith(_EXPLICIT) or glob.has_magic(value) or _DATA_FILE.fullmatch(value) is not None
    return named or is_there(value, base)


def _template(value: str, _base: Path) -> bool:
    return "{" not in value and "\n" not in value


def _schema(value: str, base: Path) -> bool:
    return value.endswith(".json") or is_there(value, base)


_PATHS: dict[str, Callable[[str, Path], bool]] = {
    "model": _model,
    "prompt": _prompt,
    "prompt.path": _prompt,
    "input": _input,
    "input.path": _input,
    "output": _always,
    "engine.script": _always,
    "program.prompts": _prompt,
    "engine.lora": is_there,
    "chat.template": _template,
    "answer.schema": _schema,
    "answer.grammar": is_there,
    "reuse.cache": _always,
    "run.rows": _always,
}
"""Which settings can be paths, and when a text there is one."""


def _with_paths(data: Mapping[str, Any], change: Callable[[str, str], str]) -> dict[str, Any]:
    """A copy of the data, changed where a path can stand; ``change`` is given the place and the text that is there."""
    changed = {key: dict(value) if isinstance(value, Mapping) else value for key, value in data.items()}
    for place in _PATHS:
        section, _, key = place.rpartition(".")
        holder: Any = changed.get(section) if section else changed
        if not isinstance(holder, dict):
            continue
        value = holder.get(key)
        if isinstance(value, str) and value:
            holder[key] = change(place, value)
        elif isinstance(value, Mapping) and place in ("engine.lora", "program.prompts"):
            holder[key] = {k: change(place, v) if isinstance(v, str) and v else v for k, v in value.items()}
    return changed


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

__all__ = ["DEMO", "home_filled_in", "is_there", "job_text", "read_job_file", "resolve_paths"]
