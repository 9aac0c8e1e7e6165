from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmbatch.core.errors import FolderError, WriteError
from llmbatch.core.types import Completion, Cursor, Failure, FailureKind, Refusal, RequestKey, Reused, Usage
from llmbatch.folder.bounds import Bounds
from llmbatch.folder.journal import outcome_entry, read_journal, record_entry
from llmbatch.folder.parts import Parts

BOUNDS = Bounds(3, Cursor(6, 0, 60, 6), Cursor(8, 0, 80, 8), Cursor(9, 0, 90, 9), 3)
LINES = [b'{"id":"r%d","index":%d}\n' % (i, i) for i in (6, 7, 8)]
ANSWER = Completion(
    RequestKey(6, attempt=2), "ja \udc80", "length", Usage(3, 2, 1), (5, 6), "because", 7, [{"token": "j"}],
    tool_calls=[{"type": "function", "function": {"name": "f", "arguments": "{}"}}],
)  # fmt: skip
REFUSAL = Refusal(RequestKey(7), Failure(FailureKind.ENGINE, "no"))


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    folder = tmp_path / "parts"
    folder.mkdir()
    return Parts(folder)


def names_in(parts: Parts) -> list[str]:
    return sorted(path.name for path in parts.folder.iterdir())


def journal_of(parts: Parts) -> Path:
    return parts.folder / "part-00003.journal"


def test_a_journal_gives_back_what_was_appended_to_it(parts: Parts) -> None:
    parts.open(BOUNDS, "digest")
    parts.append(3, [outcome_entry(ANSWER), outcome_entry(REFUSAL), record_entry(LINES[2])])
    parts.close()
    replay, good = read_journal(journal_of(parts))
    assert replay is not None
    assert (replay.bounds, replay.input_sha256) == (BOUNDS, "digest")
    assert replay.lines == {8: LINES[2]}
    assert replay.outcomes == {6: [ANSWER], 7: [REFUSAL]}
    assert good == journal_of(parts).stat().st_size


def test_what_of_a_record_was_not_computed_for_it_is_kept(parts: Parts) -> None:
    parts.open(BOUNDS, None)
    reused = Reused(Usage(4, 2, 0), cached=True)
    parts.append(3, [record_entry(LINES[0], reused), record_entry(LINES[1])])
    parts.close()
    replay = parts.replay(3)
    assert replay is not None
    assert replay.reused == {6: reused}
    assert replay.lines == {6: LINES[0], 7: LINES[1]}


def test_the_outcomes_of_a_row_that_is_finished_are_no_longer_needed(parts: Parts) -> None:
    parts.open(BOUNDS, None)
    parts.append(3, [outcome_entry(ANSWER), record_entry(LINES[0])])
    replay = parts.replay(3)
    assert replay is not None
    assert replay.outcomes == {}


def test_what_was_appended_is_there_for_others_at_once(parts: Parts) -> None:
    parts.open(BOUNDS, None)
    parts.append(3, [record_entry(LINES[0])])
    assert journal_of(parts).read_bytes().endswith(record_entry(LINES[0]))


@pytest.mark.parametrize("lost", range(1, 60, 7))
def test_a_torn_last_entry_is_owed_again_and_what_follows_is_appended_behind_the_whole_ones(
    parts: Parts, lost: int
) -> None:
    parts.open(BOUNDS, None)
    parts.append(3, [record_entry(LINES[0]), record_entry(LINES[1])])
    parts.close()
    whole = journal_of(parts).read_bytes()
    journal_of(parts).write_bytes(whole[:-lost])
    replay = parts.reopen(3)
    assert replay is not None
    missing = [record_entry(line) for i, line in zip((6, 7), LINES, strict=False) if i not in replay.lines]
    assert missing
    parts.append(3, missing)
    parts.close()
    assert journal_of(parts).read_bytes() == whole


@pytest.fixture
def journal(parts: Parts) -> bytes:
    """The content of a whole one."""
    parts.open(BOUNDS, None)
    parts.append(3, [outcome_entry(ANSWER), record_entry(LINES[1]), record_entry(LINES[2])])
    parts.close()
    return journal_of(parts).read_bytes()


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=200, deadline=None
)
@given(data=st.data())
def test_no_damage_to_a_journal_makes_up_a_record_or_an_answer(
    parts: Parts, journal: bytes, data: st.DataObject
) -> None:
    damaged = bytearray(journal)
    at = data.draw(st.integers(0, len(damaged) - 1))
    kind = data.draw(st.sampled_from(["cut", "zeros", "newline"]))
    if kind == "cut":
        del damaged[at:]
    elif kind == "zeros":
        damaged[at:] = bytes(len(damaged) - at)
    else:
        damaged[at:at] = b"\n"
    journal_of(parts).write_bytes(damaged)
    replay, good = read_journal(journal_of(parts))
    assert good <= len(damaged)
    if replay is not None:
        assert set(replay.lines.items()) <= {(7, LINES[1]), (8, LINES[2])}
        assert replay.outcomes in ({}, {6: [ANSWER]})


@pytest.mark.parametrize(
    "header", [b"", b"{", b"[]\n", b'{"llmbatch_journal": 1}\n', b'{"llmbatch_journal": "x"}\n', b"\xff\n"]
)
def test_a_journal_without_a_whole_header_is_removed_when_it_is_opened_again(parts: Parts, header: bytes) -> None:
    journal_of(parts).write_bytes(header)
    assert parts.reopen(3) is None
    assert not journal_of(parts).exists()


def test_a_journal_of_a_newer_version_is_refused_and_left_alone(parts: Parts) -> None:
    journal_of(parts).write_bytes(b'{"llmbatch_journal": 2, "unknown": []}\n')
    with pytest.raises(FolderError, match="newer llmbatch"):
        parts.reopen(3)
    assert journal_of(parts).exists()


def test_a_sealed_part_holds_the_lines_in_order_and_its_journal_is_gone(parts: Parts) -> None:
    parts.open(BOUNDS, "digest")
    parts.append(3, [record_entry(LINES[2])])
    parts.seal(BOUNDS, LINES, ledger={"n": 1}, input_sha256="digest")
    assert parts.path(3).read_bytes() == b"".join(LINES)
    assert parts.scan() == ({3}, set())
    meta = parts.meta(3)
    assert (meta.bounds, meta.input_sha256, meta.ledger) == (BOUNDS, "digest", {"n": 1})
    assert names_in(parts) == ["part-00003.jsonl", "part-00003.meta.json"]


@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b'{"llmbatch_part": null}'])
def test_a_damaged_meta_file_is_an_error_that_points_to_the_audit(parts: Parts, damage: bytes) -> None:
    (parts.folder / "part-00003.meta.json").write_bytes(damage)
    with pytest.raises(FolderError, match="llmbatch audit"):
        parts.meta(3)


def test_a_part_of_a_newer_version_is_refused(parts: Parts) -> None:
    (parts.folder / "part-00003.meta.json").write_bytes(b'{"llmbatch_part": 2}')
    with pytest.raises(FolderError, match="newer llmbatch"):
        parts.meta(3)


def test_tidying_removes_journals_of_sealed_windows_and_temporary_files_only(parts: Parts) -> None:
    parts.seal(BOUNDS, LINES, ledger={}, input_sha256=None)
    for name in ("part-00003.journal", "part-00004.journal", ".part-00005.jsonl.tmp"):
        (parts.folder / name).write_bytes(b"")
    parts.tidy()
    assert names_in(parts) == ["part-00003.jsonl", "part-00003.meta.json", "part-00004.journal"]


def seal(parts: Parts, window: int, first: int, last: int) -> None:
    bounds = Bounds(window, Cursor(first), Cursor(last), Cursor(last + 1), last - first + 1)
    parts.seal(bounds, [], ledger={}, input_sha256=None)


def test_a_whole_run_is_its_parts_in_order(parts: Parts) -> None:
    for window in (1, 0):
        seal(parts, window, window * 5, window * 5 + 4)
    assert parts.whole() == [parts.path(0), parts.path(1)]


def test_a_run_with_a_missing_window_an_open_one_or_missing_rows_is_not_whole(parts: Parts) -> None:
    seal(parts, 0, 0, 4)
    seal(parts, 2, 10, 14)
    with pytest.raises(FolderError, match="from row 5 on"):
        parts.whole()
    (parts.folder / "part-00001.journal").write_bytes(b"")
    with pytest.raises(FolderError, match="from row 5 on"):
        parts.whole()
    seal(parts, 1, 5, 8)
    with pytest.raises(FolderError, match="from row 9 on"):
        parts.whole()
    assert len(parts.whole(gaps=True)) == 3


FAULTY = """
import sys
from pathlib import Path
from llmbatch.folder.bounds import Bounds; from llmbatch.folder.journal import record_entry; from llmbatch.folder.parts import Parts
from llmbatch.core.types import Cursor
parts = Parts(Path(sys.argv[1]))
bounds = Bounds(0, Cursor(0), Cursor(2), None, 3)
lines = [b'{"id":%d,"index":%d}\\n' % (i, i) for i in range(3)]
parts.open(bounds, None)
for line in lines:
    parts.append(0, [record_entry(line)])
parts.seal(bounds, lines, ledger={}, input_sha256=None)
"""


@pytest.mark.parametrize(
    ("fault", "left", "replayed"),
    [
        ("journal-opened", ["part-00000.journal"], 0),
        ("journal-torn:1", ["part-00000.journal"], 0),
        ("journal-torn:3", ["part-00000.journal"], 2),
        ("journal-append:2", ["part-00000.journal"], 2),
        ("meta-written", ["part-00000.journal", "part-00000.meta.json"], 3),
        ("temp-written/part-00000.jsonl", [".part-00000.jsonl.tmp", "part-00000.journal", "part-00000.meta.json"], 3),
        ("renamed/part-00000.jsonl", ["part-00000.journal", "part-00000.jsonl", "part-00000.meta.json"], None),
        ("part-sealed", ["part-00000.journal", "part-00000.jsonl", "part-00000.meta.json"], None),
        ("journal-removed", ["part-00000.jsonl", "part-00000.meta.json"], None),
    ],
)
def test_a_kill_at_each_point_leaves_either_the_journal_or_the_whole_part(
    parts: Parts, fault: str, left: list[str], replayed: int | None
) -> None:
    command = [sys.executable, "-c", FAULTY, str(parts.folder)]
    assert (
        subprocess.run(command, env={**os.environ, "LLMBATCH_FAULT": fault}, check=False).returncode == -signal.SIGKILL
    )
    assert names_in(parts) == left
    sealed, journals = parts.scan()
    if replayed is None:
        assert (sealed, journals) == ({0}, set())
        assert parts.path(0).read_bytes().count(b"\n") == 3
    else:
        assert (sealed, journals) == (set(), {0})
        replay = parts.reopen(0)
        assert replay is not None
        assert len(replay.lines) == replayed


def test_a_file_that_cannot_be_written_is_a_write_error(parts: Parts) -> None:
    journal_of(parts).mkdir()
    with pytest.raises(WriteError, match=r"part-00003\.journal"):
        parts.open(BOUNDS, None)


def test_a_full_device_is_a_write_error_for_journal_and_commit(parts: Parts) -> None:
    journal_of(parts).symlink_to("/dev/full")
    with pytest.raises(WriteError, match="ENOSPC"):
        parts.open(BOUNDS, None)


def test_a_journals_lines_are_json_that_other_tools_read(parts: Parts) -> None:
    parts.open(BOUNDS, None)
    parts.append(3, [outcome_entry(ANSWER), record_entry(LINES[0])])
    entries: list[Any] = [json.loads(line) for line in journal_of(parts).read_bytes().splitlines()]
    assert [next(iter(entry)) for entry in entries] == ["llmbatch_journal", "outcome", "record"]
