"""A YAML file of Azure ML in; its values, checked, out. What is wrong with them is said with file and line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from llmbatch.core.errors import JobError, PromptError
from llmbatch.core.words import near, type_name
from llmbatch.job.problems import explain
from llmbatch.prompt.document import Document, read_document

S = TypeVar("S", bound=BaseModel)


def read_yaml(path: Path) -> Document:
    """A YAML file that is a mapping. Raises ``JobError``."""
    try:
        document = read_document(path.read_text(encoding="utf-8-sig"), str(path))
    except FileNotFoundError:
        raise JobError(f"{path}: there is no such file") from None
    except (OSError, ValueError) as error:
        raise JobError(f"{path}: cannot be read: {error}; give the YAML file of a batch deployment") from error
    except PromptError as error:
        raise JobError(str(error)) from error
    if not isinstance(document.value, dict):
        raise JobError(f"{path}: the file of a deployment is a mapping, and this is a {type_name(document.value)}")
    return document


def checked(settings: type[S], document: Document, at: tuple[str, ...] = ()) -> S:
    """The settings that stand at a place of the document. Raises ``JobError`` that says file, line and what is known."""
    value = document.value
    for key in at:
        value = value[key]
    try:
        return settings.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = document.where([*at, *_in_document(first["loc"], value)])
        said = "; ".join(explain(error, value, settings))
        raise JobError(f"{where}: {said.replace(_OF_JOBS, '')}") from error


_OF_JOBS = " in the job file"


def _in_document(place: tuple[str | int, ...], value: Any) -> list[str | int]:
    """A place that pydantic names, without what it has of its own in it."""
    found: list[str | int] = []
    for key in place:
        if isinstance(value, Mapping) and key in value:
            found.append(key)
            value = value[key]
    return found


def no_effect(document: Document, keys: Mapping[str, str], at: tuple[str, ...] = ()) -> list[str]:
    """One sentence for each of the keys that is there."""
    value = document.value
    for key in at:
        value = value[key]
    place = ".".join(at)
    return [
        f"{place}.{key}: {why}" if place else f"{key}: {why}" for key, why in keys.items() if value.get(key) is not None
    ]


WITHOUT_EFFECT = {
    "compute": "no effect, the script runs on this machine",
    "resources": "no effect, this machine is the only node",
    "environment": "no effect, the script runs in the Python of llmbatch, or in that of --python",
    "tags": "no effect, there is no workspace",
    "properties": "no effect, there is no workspace",
    "identity": "no effect, the script runs as you do",
    "experiment_name": "no effect, there is no workspace",
}
"""Keys about machines, money and access, or about the workspace."""


def script_file(document: Document, code: Path, name: str, where: tuple[str, ...]) -> Path:
    """The folder of a script, which has to be there. Raises ``JobError``."""
    if not code.is_dir():
        raise JobError(
            f"{document.where(where)}: there is no folder {code}; it is looked for from the document's own folder"
        )
    if not (code / name).is_file():
        there = sorted(path.name for path in code.glob("*.py"))
        hint = near(name, there) or (f"; there are {', '.join(there)}" if there else "")
        raise JobError(f"{document.where(where)}: there is no script {name} in {code}{hint}")
    return code
