"""The lines of a batch of OpenAI's: its input checked before anything runs, its output and its errors written when it is over."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from llmbatch.core.files import atomic
from llmbatch.core.types import Row
from llmbatch.folder.folder import read_manifest
from llmbatch.formats.base import Answered
from llmbatch.formats.openai.lines import NotRun, line_not_run, line_of
from llmbatch.formats.openai.validation import problems
from llmbatch.job.swept import recipe_of
from llmbatch.server.base import Checked, Ended, Finished
from llmbatch.server.store import Batch, StoredFile
from llmbatch.sources.lines import Lines

_ERRORS_SHOWN = 100
_LOOK_EVERY = 1000  # lines, to see whether it is to stop
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_NOT_RUN: Mapping[str, NotRun] = {"expired": "batch_expired", "cancelled": "batch_cancelled"}
_FAILED = {"code": "server_error", "message": "This request was not executed, as the batch failed before."}


def check_lines(
    path: Path, endpoint: str, models: Collection[str], max_lines: int, stopped: Callable[[], bool]
) -> Checked | None:
    """Read all of an input; ``None`` where ``stopped`` says so. Raises ``ReadError``."""
    with path.open("rb") as stream:
        seen = _Seen(Lines(stream, path.name, blank=True), stopped)
        found = problems(seen, endpoint=endpoint, models=models, most=max_lines)
        errors = [each._asdict() for each in islice(found, _ERRORS_SHOWN)]
    return None if seen.stopped else Checked(seen.rows, seen.model, errors)


class _Seen:
    """Passes lines on, and knows how many they were and which model the first one names."""

    def __init__(self, lines: Lines, stopped: Callable[[], bool]) -> None:
        self.rows = 0
        self.model: str | None = None
        self.stopped = False
        self._lines = lines
        self._stop = stopped

    def __iter__(self) -> Iterator[bytes]:
        for raw in self._lines:
            if not raw.isspace():
                self.rows += 1
                if self.rows == 1:
                    self.model = _model_of(raw)
                elif self.rows % _LOOK_EVERY == 0 and self._stop():
                    self.stopped = True
                    return
            yield raw


def _model_of(raw: bytes) -> str | None:
    try:
        model = json.loads(raw)["body"]["model"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    return model if isinstance(model, str) else None


def write_results(ended: Ended, *, keep_empty_errors: bool) -> Finished:
    """Answers into one file, all else into another; one that would be empty is not there, unless it is kept."""
    batch, store = ended.batch, ended.store
    files = {role: _result_file(batch, role) for role in ("output", "error")}
    count = dict.fromkeys(files, 0)
    usage = dict.fromkeys(("input", "cached", "output"), 0)
    with ExitStack() as stack:
        streams = {role: stack.enter_context(atomic(store.content(file.id))) for role, file in files.items()}
        for role, line, record in _lines(ended):
            streams[role].write(_encode(line).encode() + b"\n")
            count[role] += 1
            if record is not None:
                usage["input"] += record["usage"]["prompt_tokens"]
                usage["cached"] += record["usage"]["cached_tokens"]
                usage["output"] += record["usage"]["completion_tokens"]
    kept: dict[str, StoredFile] = {}
    for role, file in files.items():
        place = store.content(file.id)
        if count[role] or (keep_empty_errors and role == "error"):
            kept[role] = replace(file, bytes=place.stat().st_size)
        else:
            place.unlink()
    return Finished(kept, count["output"], count["error"], usage)


def _lines(ended: Ended) -> Iterator[tuple[str, dict[str, Any], Mapping[str, Any] | None]]:
    """(role of its file, line, record) of each row of the batch, in input order."""
    batch, recipe = ended.batch, recipe_of(ended.job)
    manifest = read_manifest(ended.job.output)
    created = int(manifest.created) if manifest is not None else batch.created
    for row, record in ended.pairs():
        name = f"{batch.id.removeprefix('batch_')}{row.index:08x}"  # that no line of any other batch has
        if record is None:
            yield "error", {**_not_run(row, ended), "id": f"batch_req_{name}"}, None
            continue
        answered = Answered(record, row.data, recipe.asked(row), batch.facts.model or "", created, row.cursor.line)
        ok, line = line_of(answered)
        line |= {"id": f"batch_req_{name}", "response": {**line["response"], "request_id": f"req_{name}"}}
        yield "output" if ok else "error", line, record


def _not_run(row: Row, ended: Ended) -> dict[str, Any]:
    custom_id = row.data.get("custom_id", row.id)
    if (code := _NOT_RUN.get(ended.state)) is not None:
        return line_not_run(row.index, custom_id, ended.batch.created, code)
    return {"id": "", "custom_id": str(custom_id), "response": None, "error": _FAILED}


def _result_file(batch: Batch, role: str) -> StoredFile:
    """A file of results has the same id however often it is written."""
    name = hashlib.sha256(f"{batch.id} {role}".encode()).hexdigest()[:24]
    now, seconds = int(time.time()), batch.given["output_seconds"]
    return StoredFile(
        f"file-{name}", batch.owner, "batch_output", f"{batch.id}_{role}.jsonl", 0, now, seconds and now + seconds
    )


__all__ = ["check_lines", "write_results"]
