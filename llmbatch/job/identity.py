"""A job in, what its results depend on out: flat text by setting, compared to tell what changed between two runs.

Two jobs with the same identity give the same results. What changes speed alone is not part of it, nor is where a file lies:
of the files that a job names it is their content that counts. The prompt's text and the sampling after all defaults are added by
``stages.py``, which knows them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmbatch.core.errors import JobError
from llmbatch.core.settings import Counts, is_there, marked
from llmbatch.engines.base import kind_of
from llmbatch.job.job import Job

_ENDS = 1 << 16  # bytes at each end of a weights file that are looked at; these files are too long to be read for this


def identity_of(job: Job) -> dict[str, str]:
    """The identity, as ``section.key -> value`` in short text. Raises ``JobError`` for a file that cannot be read."""
    data = job.model_dump(mode="json", by_alias=True, include={"engine", "chat", "sampling", "answer", "retry"})
    data["model"] = _where(job.model)
    data["prompt"] = job.prompt.model_dump(mode="json", exclude={"path"}) if job.prompt is not None else None
    # not limit: it may be raised to go on with more rows
    data["input"] = job.input.model_dump(
        mode="json", include={"format", "id_field", "columns", "delimiter", "config", "split", "revision"}
    )
    for place, *_ in marked(Job, Counts.NOTHING):
        section, key = place.split(".")
        if isinstance(data.get(section), dict):
            data[section].pop(key, None)
    data["engine"]["args"] = dict(kind_of(job.engine.name).identity(job.engine))
    data["engine"]["lora"] = {name: _where(path) for name, path in job.engine.lora.items()}
    data["program"] = job.program.model_dump(mode="json", exclude={"prompts"}, exclude_defaults=True)
    data["plan"] = {"overflow": job.plan.overflow}
    data["sinks"] = {"keep": data_of_keep(job)}
    for section, key, _ in _named_files(job):
        if isinstance(data.get(section), dict):
            data[section].pop(key, None)
    flat = _flatten(data)
    for section, key, path in _named_files(job):
        flat[f"{section}.{key} (content)"] = _digest(path)
    for name, digest in _model_files(Path(job.model_path)):
        flat[f"model {name}"] = digest
    return flat


def model_identity(job: Job) -> dict[str, str]:
    """The part of the identity that decides, with a request's tokens and sampling, about its answer: the model and its engine."""
    return {
        key: value
        for key, value in identity_of(job).items()
        if key.partition(" ")[0].partition(".")[0] in ("model", "engine")
    }


def data_of_keep(job: Job) -> Any:
    """Which input fields a record carries, as JSON data."""
    keep = job.sinks.keep
    return keep if isinstance(keep, str) else list(keep)


def _where(name: str) -> str:
    """A local model by its absolute path, any other by its name."""
    return str(Path(name).expanduser().absolute()) if is_there(name) else name


def _named_files(job: Job) -> Iterator[tuple[str, str, Path]]:
    """The files that settings name, by section and key: what is in them counts, not where they lie."""
    for setting in marked(Job, Counts.CONTENT):
        section, key = setting.place.split(".")
        value = setting.value_in(job)
        if isinstance(value, str | Path) and is_there(str(value)) and (path := Path(value).expanduser()).is_file():
            yield section, key, path


def _model_files(model: Path) -> Iterator[tuple[str, str]]:
    """(name, digest) of what a local model is made of; none for a name on the hub."""
    if model.is_file():
        yield model.name, _digest_of_ends(model)
    for name in (
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    ):
        if (model / name).is_file():
            yield name, _digest(model / name)
    for path in sorted(p for suffix in ("safetensors", "bin", "gguf") for p in model.glob(f"*.{suffix}")):
        yield path.name, _digest_of_ends(path)


def _flatten(data: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(data, dict):
        flat: dict[str, str] = {}
        for key, value in sorted(data.items()):
            flat.update(_flatten(value, f"{prefix}.{key}" if prefix else str(key)))
        return flat
    return {} if data is None else {prefix: json.dumps(data, ensure_ascii=False, sort_keys=True)}


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise JobError(f"{path}: cannot be read: {error.strerror}") from error


def _digest_of_ends(path: Path) -> str:
    """Of size, beginning and end: weights that were trained further differ there."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            digest = hashlib.sha256(f"{size}:".encode() + file.read(_ENDS))
            file.seek(max(0, size - _ENDS))
            digest.update(file.read(_ENDS))
    except OSError as error:
        raise JobError(f"{path}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()[:16]


__all__ = ["identity_of", "model_identity"]
