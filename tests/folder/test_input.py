from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.errors import InputChanged
from llmbatch.core.types import Cursor
from llmbatch.folder.bounds import Bounds
from llmbatch.folder.input import check_input, input_digest, open_input
from llmbatch.sources.base import Source, SourceSettings
from llmbatch.sources.opening import open_source

LINES = [b'{"text": "%d"}\n' % i for i in range(6)]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Two files of three rows each."""
    (tmp_path / "a.jsonl").write_bytes(b"".join(LINES[:3]))
    (tmp_path / "b.jsonl").write_bytes(b"".join(LINES[3:]))
    return tmp_path


def source(files: Path) -> Source:
    return open_source(SourceSettings(path=str(files / "*.jsonl")))


def known(files: Path) -> tuple[list[dict[str, Any]], list[Any]]:
    """What a run that read all of the input in windows of two rows remembers of it."""
    at = source(files)
    starts = [row.cursor for row in at.rows(Cursor(0))]
    bounds = [Bounds(i, starts[2 * i], starts[2 * i + 1], starts[2 * i + 2] if i < 2 else None, 2) for i in range(3)]
    return at.fingerprint(), [(each, input_digest(at, each)) for each in bounds]


def check(files: Path, before: tuple[list[dict[str, Any]], list[Any]], *, extend: bool = False) -> list[dict[str, Any]]:
    return check_input(source(files), *before, extend=extend)


def test_the_same_input_passes(files: Path) -> None:
    before = known(files)
    assert check(files, before) == before[0]


def test_a_file_that_was_touched_or_copied_passes(files: Path) -> None:
    before = known(files)
    content = (files / "a.jsonl").read_bytes()
    (files / "a.jsonl").unlink()
    (files / "a.jsonl").write_bytes(content)
    os.utime(files / "b.jsonl", (1, 1))
    assert check(files, before) != before[0]


@pytest.mark.parametrize(("line", "rows"), [(0, "0 to 1"), (2, "2 to 3"), (3, "2 to 3"), (5, "4 to 5")])
def test_a_row_that_changed_is_found_wherever_it_is(files: Path, line: int, rows: str) -> None:
    before = known(files)
    name = "a.jsonl" if line < 3 else "b.jsonl"
    (files / name).write_bytes((files / name).read_bytes().replace(b'"%d"' % line, b'"X"'))
    if line == 5:  # the last row of the input may be gone on from, so it is told by the ends of the file alone
        rows = "ends changed|rows 4 to 5"
    with pytest.raises(InputChanged, match=rows):
        check(files, before)


def test_rows_that_were_appended_are_growth(files: Path) -> None:
    before = known(files)
    with (files / "b.jsonl").open("ab") as file:
        file.write(b'{"text": "new"}\n')
    with pytest.raises(InputChanged, match=r"b\.jsonl had 42 bytes, now 58.*Give --extend"):
        check(files, before)
    check(files, before, extend=True)


def test_a_file_that_came_behind_the_others_is_growth(files: Path) -> None:
    before = known(files)
    (files / "c.jsonl").write_bytes(LINES[0])
    with pytest.raises(InputChanged, match=r"had 2 files, now 3.*--extend"):
        check(files, before)
    check(files, before, extend=True)


@pytest.mark.parametrize("extend", [False, True])
def test_a_file_that_came_before_the_others_is_a_change(files: Path, extend: bool) -> None:
    before = known(files)
    (files / "A.jsonl").write_bytes(LINES[0])
    with pytest.raises(InputChanged):
        check(files, before, extend=extend)


@pytest.mark.parametrize("extend", [False, True])
def test_growth_of_a_file_that_is_not_the_last_is_a_change(files: Path, extend: bool) -> None:
    before = known(files)
    with (files / "a.jsonl").open("ab") as file:
        file.write(b'{"text": "new"}\n')
    with pytest.raises(InputChanged):
        check(files, before, extend=extend)


def test_a_file_that_is_gone_is_a_change(files: Path) -> None:
    before = known(files)
    (files / "b.jsonl").unlink()
    with pytest.raises(InputChanged):
        check(files, before, extend=True)


def test_stdin_is_kept_in_the_run_folder_and_read_from_there_later(jobs: Any) -> None:
    job = jobs.job(jobs.path / "-", input={"path": "-"})
    folder = jobs.path / "out"
    folder.mkdir()
    first = open_input(job.input, folder, io.BytesIO(b"".join(LINES)))
    again = open_input(job.input, folder, io.BytesIO(b""))
    assert [row.data for row in first.rows()] == [row.data for row in again.rows()]
    assert first.fingerprint() == again.fingerprint()
