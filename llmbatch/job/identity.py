"""A job in, what its results depend on out: flat text by setting, compared to tell what changed between two runs.

Two jobs with the same identity give the same results. What changes speed alone is not part of it, nor is where a file lies:
of the files that a job names, models and adapters included, it is their content that counts. The prompt's text, the sampling after
all defaults and the author's code are added by the ``Recipe``, which knows them. What a job leaves to
the hub, the engine and the machine is no setting of it: that is ``came_out``, which a run compares besides.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llmbatch.core.digest import short_digest
from llmbatch.core.errors import JobError
from llmbatch.core.machine import machine
from llmbatch.core.settings import Counts, is_there, marked
from llmbatch.core.versions import versions
from llmbatch.engines.base import EngineInfo
from llmbatch.engines.kinds import NamedModel, kind_of
from llmbatch.folder.folder import ENGINE_VERSION
from llmbatch.job.job import Job
from llmbatch.job.sweep import SweepSettings, label
from llmbatch.model.contents import commit_of, contents

_SETTINGS_SHOWN = 100


def identity_of(job: Job) -> dict[str, str]:
    """The identity, as ``section.key -> value`` in short text. Raises ``JobError`` for a file that cannot be read."""
    data = job.model_dump(mode="json", by_alias=True, exclude={"model", "output", "program", "reuse", "run", "sweep"})
    data["model"] = _where(job.model)
    data["program"] = job.program.model_dump(mode="json", exclude={"prompts"}, exclude_defaults=True)
    data["sweep"] = None if job.sweep is None else {"settings": _swept(job.sweep)}
    for place, *_ in marked(type(job), Counts.NOTHING):
        _remove(data, place.split("."))
    data["engine"]["args"] = dict(kind_of(job.engine.name).identity(job.engine))
    data["engine"]["lora"] = {name: _where(path) for name, path in job.engine.lora.items()}
    flat = _flatten(data)
    for place, path in _named_files(job):
        flat.pop(place, None)
        flat[f"{place} (content)"] = _digest(path)
    for named in _models(job):
        if is_there(named.place):
            found = contents(Path(named.place).expanduser())
            flat |= {f"{named.setting} {name}": digest for name, digest in found.items()}
    return flat


def model_identity(identity: Mapping[str, str]) -> dict[str, str]:
    """The part of an identity that decides, with a request's tokens and sampling, about its answer: the model and its engine."""
    return {
        key: value for key, value in identity.items() if key.partition(" ")[0].partition(".")[0] in ("model", "engine")
    }


def left_open(job: Job) -> dict[str, str]:
    """What models that the job names on the hub stand for here and now: commits, by the setting that would pin them.

    A model of which nothing is here yet is left out: what it stands for is known when the engine has loaded it.
    """
    commits = {
        named.pin: commit
        for named in _models(job)
        if not is_there(named.place) and (commit := commit_of(named.place, named.revision, named.folder)) is not None
    }
    return {setting: json.dumps(commit) for setting, commit in commits.items()}


def came_out(job: Job, info: EngineInfo) -> dict[str, str]:
    """What the job leaves open and results depend on, as it came out with an engine that is up; keys as in the identity."""
    settled = {f"engine.args.{name}": json.dumps(value) for name, value in info.settled.items()}
    return {**left_open(job), **settled, ENGINE_VERSION: json.dumps(f"{info.name} {info.version}")}


def engine_before_start(job: Job, identity: Mapping[str, str]) -> dict[str, str]:
    """All that decides, before the engine is up, what it will come out as: on this machine, with what is installed here."""
    return {**model_identity(identity), **left_open(job), **versions(), "machine": machine()}


def _swept(sweep: SweepSettings) -> Any:
    """The settings of a sweep, in whichever form they were given; of very many a digest."""
    settings = [label(setting) for setting in sweep.each()]
    if len(settings) <= _SETTINGS_SHOWN:
        return settings
    return short_digest(json.dumps(settings, sort_keys=True))


def _remove(data: Any, place: list[str]) -> None:
    """Take what is at a place out of the data, where it is there."""
    key, *rest = place
    if not isinstance(data, dict):
        return
    if not rest:
        data.pop(key, None)
        return
    for inner in data.values() if key == "*" else [data.get(key)]:
        _remove(inner, rest)


def _where(name: str) -> str:
    """A local model by its absolute path, any other by its name."""
    return str(Path(name).expanduser().absolute()) if is_there(name) else name


def _named_files(job: Job) -> Iterator[tuple[str, Path]]:
    """The files that settings name, by their place: what is in them counts, not where they lie."""
    for setting in marked(type(job), Counts.CONTENT):
        value = setting.value_in(job)
        if isinstance(value, str | Path) and is_there(str(value)) and (path := Path(value).expanduser()).is_file():
            yield setting.place, path


def _models(job: Job) -> list[NamedModel]:
    return kind_of(job.engine.name).models(job.engine, job.model_path)


def _flatten(data: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(data, dict):
        flat: dict[str, str] = {}
        for key, value in sorted(data.items()):
            flat.update(_flatten(value, f"{prefix}.{key}" if prefix else str(key)))
        return flat
    return {} if data is None else {prefix: json.dumps(data, ensure_ascii=False, sort_keys=True)}


def _digest(path: Path) -> str:
    try:
        return short_digest(path.read_bytes())
    except OSError as error:
        raise JobError(f"{path}: cannot be read: {error.strerror}") from error


__all__ = ["came_out", "engine_before_start", "identity_of", "left_open", "model_identity"]
