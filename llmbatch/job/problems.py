"""What pydantic found wrong with a job's data in; the same in words for a person, with what is known or near, out."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from llmbatch.core.sampling import SAMPLING
from llmbatch.core.words import short


def explain(
    error: ValidationError, data: Mapping[str, Any], settings: type[BaseModel], *, options: bool = False
) -> list[str]:
    """pydantic's problems with ``settings`` in words, one for each place: where, what was seen, and what is known or near.

    ``options``: what is at the top can be given by options of the command line that are called so.
    """
    problems: dict[str, list[str]] = {}
    listed: set[tuple[str, ...]] = set()
    for problem in error.errors(include_url=False):
        where = _place(problem["loc"], data)
        if problem["type"] == "extra_forbidden":
            said = _unknown(where, settings, tell_known=tuple(where[:-1]) not in listed)
            listed.add(tuple(where[:-1]))
        elif problem["type"] in ("model_type", "model_attributes_type") and where:
            said = f"{'.'.join(where)}: is a mapping of settings, not {short(problem['input'])}"
            if known := _known_keys(where, settings):
                said = f"{said}; known keys: {', '.join(known)}"
        else:
            said = _problem(problem, where, options)
        problems.setdefault(".".join(where), []).append(said)
    return [" or ".join(dict.fromkeys(said)) for said in problems.values()]


def _unknown(where: list[str], settings: type[BaseModel], *, tell_known: bool) -> str:
    """An unknown key: the near one, be it in another section, and what is known there unless another problem told it."""
    *section, key = where
    known = _known_keys(section, settings)
    near = [".".join([*section, name]) for name in difflib.get_close_matches(key, known, n=1)]
    if not near and not section:
        near = _elsewhere(key, settings)
    hints = [f"did you mean {' or '.join(near)}?"] if near else []
    if not near and where[:-1] in ([], ["engine"]) and "engine" in settings.model_fields:
        hints.append(f"an argument of the engine's own is engine.args.{key}")
    if tell_known:
        hints.append(f"known keys: {', '.join(known)}")
    text = " ".join(hints) if near else "; ".join(hints)
    return f"unknown key {'.'.join(where)!r}" + (f": {text}" if text else "")


def _elsewhere(key: str, settings: type[BaseModel]) -> list[str]:
    """Where a key that was given at the top belongs, as ``max_tokens`` does below ``sampling``."""
    places = [f"{name}.{inner}" for name in settings.model_fields for inner in _known_keys([name], settings)]
    if "sampling" in settings.model_fields:
        places += [f"sampling.{name}" for name in SAMPLING]
    return [place for place in places if place.partition(".")[2] == key]


def _problem(problem: Any, where: list[str], options: bool) -> str:
    name = ".".join(where)
    if problem["type"] == "missing":
        given = f": give --{name} or the key {name!r} in the job file" if options and len(where) == 1 else ""
        return f"{name} is missing{given}"
    said: str = problem["msg"].removeprefix("Value error, ")
    if name and said.startswith(f"{name}."):  # a section says which of its keys it is about
        return said
    return f"{name}: {said} (got {short(problem.get('input'))})"


def _place(path: Sequence[str | int], data: Any) -> list[str]:
    """A problem's place by the keys of the data, without the names that pydantic has for the variants of a type."""
    where: list[str] = []
    for step in path:
        if isinstance(step, str) and isinstance(data, Mapping):
            data = data.get(step)
        elif isinstance(step, int) and isinstance(data, list) and step < len(data):
            data = data[step]
        else:
            continue
        where.append(str(step))
    return where


def _known_keys(path: list[str], settings: type[BaseModel]) -> list[str]:
    model: Any = settings
    for part in path:
        fields = {f.alias or name: f for name, f in model.model_fields.items()}
        annotation = fields[part].annotation if part in fields else None
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
        if model is None:
            return []
    return [f.alias or name for name, f in model.model_fields.items()]
