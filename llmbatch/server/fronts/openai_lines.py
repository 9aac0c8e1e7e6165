"""The lines of a batch of OpenAI's: its input checked before anything runs, its output and its errors written when it is over."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from llmbatch.core.errors import SourceError
from llmbatch.core.files import atomic
from llmbatch.core.types import Row
from llmbatch.core.words import clip
from llmbatch.folder.folder import read_manifest
from llmbatch.formats.base import Answered, wire_format
from llmbatch.formats.outcome import code_of
from llmbatch.job.swept import recipe_of
from llmbatch.server.base import Checked, Ended, Finished
from llmbatch.server.store import Batch, StoredFile
from llmbatch.sources.base import SourceSettings
from llmbatch.sources.opening import open_source

_ERRORS_SHOWN = 100
_LOOK_EVERY = 1000  # rows, to see whether it is to stop
_LONGEST_ID = 512
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
NOT_RUN = {
    "expired": ("batch_expired", "This request could not be executed before the completion window expired."),
    "cancelled": ("batch_cancelled", "This request was not executed, as the batch was cancelled before."),
    "failed": ("server_error", "This request was not executed, as the batch failed before."),
}
"""What is said of a row that has no record, by how its batch ended."""


class _Problem(NamedTuple):
    code: str
    message: str
    param: str | None = None


def check_lines(
    path: Path, endpoint: str, models: Collection[str], max_lines: int, stopped: Callable[[], bool]
) -> Checked | None:
    """Read all of an input as the run will read it; ``None`` where ``stopped`` says so. Raises ``ReadError``."""
    seen = _Seen(_path_of(endpoint), endpoint, models)
    errors: list[dict[str, Any]] = []
    rows = 0
    for row in _rows(path):
        rows += 1
        if rows % _LOOK_EVERY == 0 and stopped():
            return None
        if rows > max_lines:
            said = f"The file has more than {max_lines:,} lines, the most that a batch may have here."
            return Checked(rows, seen.model, [_error(_Problem("too_many_tasks", said), None)])
        problem = seen.problem(row)
        if problem is not None and len(errors) < _ERRORS_SHOWN:
            errors.append(_error(problem, row.cursor.line + 1))
    if not rows:
        errors.append(_error(_Problem("empty_file", "The file has no line that is a request."), None))
    return Checked(rows, seen.model, errors)


def _rows(path: Path) -> Iterator[Row]:
    try:
        source = open_source(SourceSettings(path=str(path), format="jsonl"))
    except SourceError:  # as it is empty
        return iter(())
    return source.rows()


class _Seen:
    """What the lines up to now have in common, and had to have."""

    def __init__(self, path: str, endpoint: str, models: Collection[str]) -> None:
        self.model: str | None = None
        self._path = path
        self._endpoint = endpoint
        self._models = models
        self._ids: set[bytes] = set()

    def problem(self, row: Row) -> _Problem | None:
        """Why a line cannot be part of this batch."""
        if row.failure is not None:
            return _Problem("invalid_json_line", "This line is not a JSON object.")
        data = row.data
        custom_id, url, body = data.get("custom_id"), data.get("url"), data.get("body")
        if not isinstance(custom_id, str) or not 0 < len(custom_id) <= _LONGEST_ID:
            return _Problem("invalid_request", "custom_id is missing, or is no text of a usual length.", "custom_id")
        if data.get("method") != "POST":
            return _Problem("invalid_request", "The method must be POST.", "method")
        if not isinstance(body, Mapping):
            return _Problem("invalid_request", "The body is missing, or is not an object.", "body")
        if not isinstance(url, str) or _path_of(url) != self._path:
            said = f"The URL {clip(str(url), 100)!r} is not the batch's endpoint, {self._endpoint!r}."
            return _Problem("url_mismatch", said, "url")
        digest = hashlib.blake2b(custom_id.encode(), digest_size=12).digest()
        if digest in self._ids:
            return _Problem("duplicate_custom_id", "The custom_id is that of an earlier line.", "custom_id")
        self._ids.add(digest)
        return self._model_problem(body.get("model"))

    def _model_problem(self, model: Any) -> _Problem | None:
        if not isinstance(model, str):
            return _Problem("invalid_request", "The body names no model.", "body.model")
        if self.model is not None and model != self.model:
            said = f"The model {clip(model, 100)!r} is not the one of the first line, {clip(self.model, 100)!r}."
            return _Problem("model_mismatch", said, "body.model")
        if self.model is None:
            self.model = model
            if model not in self._models:
                known = ", ".join(self._models)
                said = f"The model {clip(model, 100)!r} is not served here; there is {known}."
                return _Problem("model_not_found", said, "body.model")
        return None


def _path_of(url: str) -> str:
    """An endpoint without what OpenAI or Azure put before it."""
    for prefix in ("/openai/v1/", "/openai/", "/v1/"):
        if url.startswith(prefix):
            return "/" + url[len(prefix) :]
    return url


def _error(problem: _Problem, line: int | None) -> dict[str, Any]:
    return {"code": problem.code, "line": line, "message": problem.message, "param": problem.param}


def write_results(ended: Ended, *, keep_empty_errors: bool) -> Finished:
    """Answers into one file, all else into another; one that would be empty is not there, unless it is kept."""
    batch, store = ended.batch, ended.store
    files = {role: _result_file(batch, role) for role in ("output", "error")}
    count = dict.fromkeys(files, 0)
    usage = dict.fromkeys(("input", "cached", "output"), 0)
    with ExitStack() as stack:
        streams = {role: stack.enter_context(atomic(store.content(file.id))) for role, file in files.items()}
        for record, line in _lines(ended):
            role = "output" if (line["response"] or {}).get("status_code") == 200 else "error"
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
            kept[role] = _sized(file, place.stat().st_size)
        else:
            place.unlink()
    return Finished(kept, count["output"], count["error"], usage)


def _lines(ended: Ended) -> Iterator[tuple[Mapping[str, Any] | None, dict[str, Any]]]:
    """(record, line) of each row of the batch, in input order."""
    batch, recipe, result = ended.batch, recipe_of(ended.job), wire_format("openai").result
    manifest = read_manifest(ended.job.output)
    created = int(manifest.created) if manifest is not None else batch.created
    for row, record in ended.pairs():
        if record is None:
            yield None, _not_run(row, ended)
            continue
        answered = Answered(record, row.data, recipe.asked(row), batch.facts.model or "", created, row.cursor.line)
        yield record, _named(_with_status(result(answered), record), row, batch)


def _with_status(line: dict[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """A request that got no answer has the HTTP error that it would have got by itself."""
    if line["response"] is not None:
        return line
    error = record.get("error") or {"kind": record["status"], "message": ""}
    code = code_of(error["kind"])
    body = {"error": {"message": error["message"], "type": code.openai, "param": None, "code": error["kind"]}}
    return {**line, "response": {"status_code": code.http, "request_id": "", "body": body}, "error": None}


def _named(line: dict[str, Any], row: Row, batch: Batch) -> dict[str, Any]:
    """With ids that no other line of any batch has."""
    name = _line_id(batch, row)
    return {**line, "id": name, "response": {**line["response"], "request_id": f"req_{name[10:]}"}}


def _not_run(row: Row, ended: Ended) -> dict[str, Any]:
    code, message = NOT_RUN[ended.state]
    custom_id = row.data.get("custom_id", str(row.id))
    error = {"code": code, "message": message}
    return {"id": _line_id(ended.batch, row), "custom_id": custom_id, "response": None, "error": error}


def _line_id(batch: Batch, row: Row) -> str:
    return f"batch_req_{batch.id.removeprefix('batch_')}{row.index:08x}"


def _result_file(batch: Batch, role: str) -> StoredFile:
    """A file of results has the same id however often it is written."""
    name = hashlib.sha256(f"{batch.id} {role}".encode()).hexdigest()[:24]
    now, seconds = int(time.time()), batch.given["output_seconds"]
    return StoredFile(
        f"file-{name}", batch.owner, "batch_output", f"{batch.id}_{role}.jsonl", 0, now, seconds and now + seconds
    )


def _sized(file: StoredFile, size: int) -> StoredFile:
    return StoredFile(file.id, file.owner, file.purpose, file.filename, size, file.created, file.expires)


__all__ = ["NOT_RUN", "check_lines", "write_results"]
