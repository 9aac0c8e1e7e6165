"""Run folders: whatever the bytes of a journal, a part's meta file, a manifest or a lock, it is read or refused, never misread."""

from __future__ import annotations

import contextlib
import json

import atheris
from harness import JSON_LINES, fuzz, scratch

with atheris.instrument_imports(include=["llmbatch"]):
    from llmbatch.core.errors import FolderError
    from llmbatch.core.ledger import Ledger
    from llmbatch.core.record import record_from_dict, record_to_line
    from llmbatch.core.types import Completion, Failure, FailureKind, Record, Refusal, RequestKey, Reused, Status, Usage
    from llmbatch.folder.folder import read_manifest
    from llmbatch.folder.journal import outcome_entry, read_journal, record_entry
    from llmbatch.folder.lock import read_lock
    from llmbatch.folder.parts import Parts

FOLDER = scratch()
PARTS = Parts(FOLDER / "parts")
PARTS.folder.mkdir()


def target(data: bytes) -> None:
    journal(data)
    for place, read in (
        (FOLDER / "run.json", lambda: read_manifest(FOLDER)),
        (FOLDER / "lock", lambda: read_lock(FOLDER / "lock")),
        (PARTS.folder / "part-00000.meta.json", lambda: Ledger.from_dict(PARTS.meta(0).ledger)),
    ):
        place.write_bytes(data)
        # what a ledger promises of its JSON form
        promised = (
            (FolderError, KeyError, TypeError, ValueError, AttributeError) if "meta" in place.name else FolderError
        )
        with contextlib.suppress(promised):
            read()


def journal(data: bytes) -> None:
    path = PARTS.folder / "part-00000.journal"
    path.write_bytes(data)
    try:
        replay, good = read_journal(path)
    except FolderError:
        return
    assert good <= len(data)
    assert data[:good].endswith(b"\n") or good == 0
    if replay is None:
        assert good == 0
        return
    for index, line in replay.lines.items():
        assert isinstance(index, int)
        assert line.endswith(b"\n")
        try:
            record = record_from_dict(json.loads(line))
        except (KeyError, TypeError, ValueError):
            continue
        assert record.index == index or isinstance(record.index, float | bool | str)
    # what is whole is read the same again, and cut off anywhere it is a beginning of itself
    path.write_bytes(data[:good])
    assert read_journal(path)[1] == good
    path.write_bytes(data[: good // 2])
    shorter, _ = read_journal(path)
    assert shorter is None or len(shorter.lines) <= len(replay.lines)


def journals() -> list[bytes]:
    header = {
        "llmbatch_journal": 1,
        "window": 0,
        "start": [0, 0, 0, 0],
        "last": [4, 0, 9, 4],
        "stop": None,
        "rows": 5,
        "input_sha256": "a",
    }
    key = RequestKey(1, attempt=1)
    entries = [
        record_entry(
            record_to_line(Record(0, "a", Status.OK, "x", "stop", 1, Usage(1, 2, 0))), Reused(Usage(1, 2, 0), False)
        ),
        outcome_entry(Completion(key, "y", "length", Usage(3, 4, 1), (1, 2), None, None, None)),
        outcome_entry(Refusal(key, Failure(FailureKind.ENGINE, "no"))),
        record_entry(record_to_line(Record(1, "b", Status.FAILED, failure=Failure(FailureKind.ENGINE, "no")))),
    ]
    head = json.dumps(header).encode() + b"\n"
    return [head + b"".join(entries), head + b"".join(entries)[:-7], head, head[:-1], head.replace(b": 1", b": 2", 1)]


def metas() -> list[bytes]:
    ledger = Ledger()
    ledger.add(Record(0, "a", Status.OK, "x", "stop", 2, Usage(1, 2, 0)))
    ledger.add(Record(1, "b", Status.FAILED, failure=Failure(FailureKind.ENGINE, "no")))
    bounds = {"window": 0, "start": [0, 0, 0, 0], "last": [1, 0, 9, 4], "stop": [2, 0, 20, 5], "rows": 2}
    meta = {"llmbatch_part": 1, **bounds, "sha256": "00", "input_sha256": None, "ledger": ledger.as_dict()}
    manifest = {
        "llmbatch_run": 1,
        "created": 1.5,
        "identity": {"model": "m"},
        "fingerprint": [{"file": "a", "size": 1}],
        "sessions": [],
    }
    lock = {"host": "h", "pid": 1, "process_started": 1.0, "since": "now", "token": "t"}
    return [json.dumps(body).encode() for body in (meta, manifest, lock)]


if __name__ == "__main__":
    seeds = journals() + metas()
    words = [
        '{"record":', '{"reused":{', '{"outcome":{"key":[0,0,0,1]', "llmbatch_journal", "llmbatch_part",
        "llmbatch_run", "window", "start", "stop", "last", "rows", "input_sha256", "null", "1e999", "[0,0,0,0]",
        "token_ids", "usage", '"index":', '"ledger":{', "}\n", "\\ud800",
    ]  # fmt: skip
    fuzz(target, seeds, words, FOLDER, JSON_LINES)
