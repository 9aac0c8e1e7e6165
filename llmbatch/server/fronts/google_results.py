"""A batch whose run is over in; its output as Google's APIs have it out: a file of ours, or a folder where its document says.

Rows that were not run have a line of an error, which says why.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from llmbatch.core.files import atomic_folder, atomic_write
from llmbatch.job.swept import recipe_of
from llmbatch.server.base import Ended, Finished
from llmbatch.server.store import Batch, Store, StoredFile
from llmbatch.sinks import base as sinks
from llmbatch.sinks.layouts.base import Written, layout_of
from llmbatch.sinks.upload import plan_upload, upload
from llmbatch.sources.opening import open_source

_RECORDS = "records.jsonl"  # beside the run folder, as long as the output is written
_WHY = {
    "expired": ("expired", "This request was not executed: the time of the batch was over."),
    "cancelled": ("cancelled", "This request was not executed: the batch was cancelled before."),
}
_FAILED = ("engine", "This request was not executed: the batch failed before.")
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def write_file(ended: Ended, layout: sinks.LayoutSettings, keep_seconds: int) -> Finished:
    """The layout's one file, into the store."""
    batch, store = ended.batch, ended.store
    written, usage = _laid_out(ended, layout)
    [path] = written.files
    name = hashlib.sha256(f"{batch.id} output".encode()).hexdigest()[:24]  # the same however often it is written
    place = store.content(name)
    atomic_write(place, _chunks(path))
    now = int(time.time())
    file = StoredFile(
        name, batch.owner, "batch_output", f"{batch.id}.jsonl", place.stat().st_size, now, now + keep_seconds
    )
    done, failed = written.lines
    return Finished({"output": file}, done, failed, usage)


def write_folder(ended: Ended, settings: sinks.SinkSettings, layout: sinks.LayoutSettings) -> Finished:
    """The layout's folder, copied to where the settings say."""
    folder = ended.store.batch_folder(ended.batch.id)
    written, usage = _laid_out(ended, layout)
    plan_upload(settings, folder, written.files)
    upload(settings, folder, lambda _: None)
    done, failed = written.lines
    return Finished({}, done, failed, usage)


def inlined(batch: Batch, store: Store) -> list[dict[str, Any]] | None:
    """The responses of a batch whose requests came in its own creation, each with what the request had as its metadata.

    ``None`` as long as there are none, and once they were deleted or are expired.
    """
    if "output" not in batch.facts.results:
        return None
    try:
        answers = store.content(batch.facts.results["output"]).read_text(encoding="utf-8").splitlines()
        asked = store.input(batch.id).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    made = []
    for answer, request in zip(map(json.loads, answers), map(json.loads, asked), strict=True):
        metadata = {"metadata": request["metadata"]} if "metadata" in request else {}
        made.append({**{key: value for key, value in answer.items() if key != "key"}, **metadata})
    return made


def _laid_out(ended: Ended, layout: sinks.LayoutSettings) -> tuple[Written, dict[str, int]]:
    """What a layout writes below the batch's folder of all of its rows, and the tokens that they took."""
    batch = ended.batch
    folder = ended.store.batch_folder(batch.id)
    records, place = folder / _RECORDS, folder / sinks.LAYOUT_FOLDER
    usage = Counter(input=0, cached=0, output=0)
    try:
        atomic_write(records, _records(ended, usage))
        finished = sinks.Finished(
            [records],
            partial(open_source, ended.job.input),
            recipe_of(ended.job).asked,
            batch.given["name"],
            batch.created,
        )
        with atomic_folder(place) as temporary:
            written = layout_of(layout).write(finished, temporary)
            names = [path.relative_to(temporary) for path in written.files]
    finally:
        records.unlink(missing_ok=True)
    return replace(written, files=[place / name for name in names]), dict(usage)


def _records(ended: Ended, usage: Counter[str]) -> Iterator[bytes]:
    """A record for every row, in input order, also for those that were not run."""
    kind, message = _WHY.get(ended.state, _FAILED)
    nothing = {"prompt_tokens": 0, "completion_tokens": 0, "cached_tokens": 0}
    for row, record in ended.pairs():
        line: Mapping[str, Any] = record or {
            "id": row.id, "index": row.index, "status": "failed", "output": None, "finish_reason": None, "attempts": 0,
            "usage": {**nothing, "wasted": nothing}, "error": {"kind": kind, "message": message},
        }  # fmt: skip
        usage["input"] += line["usage"]["prompt_tokens"]
        usage["cached"] += line["usage"]["cached_tokens"]
        usage["output"] += line["usage"]["completion_tokens"]
        yield _encode(line).encode() + b"\n"


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            yield chunk


__all__ = ["inlined", "write_file", "write_folder"]
