from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from llmbatch.core.errors import InputChanged, ReadError, SourceError
from llmbatch.core.types import Cursor
from llmbatch.folder.bounds import Bounds
from llmbatch.folder.folder import RunFolder
from llmbatch.folder.input import check_input, input_digest, open_input
from llmbatch.sources import input_files
from llmbatch.sources.base import Source, SourceSettings
from llmbatch.sources.documents import source as documents_source
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


# very many files


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six files of one row each; three are the most that have an entry each."""
    monkeypatch.setattr(input_files, "_LISTED", 3)
    for number, line in enumerate(LINES):
        (tmp_path / f"{number}.jsonl").write_bytes(line)
    return tmp_path


def test_very_many_files_have_one_entry_together_and_the_last_its_own(many: Path) -> None:
    together, last = known(many)[0]
    assert (together["files"], together["first"], together["last"]) == (5, "0.jsonl", "4.jsonl")
    assert together["bytes"] == 5 * len(LINES[0])
    assert last["file"] == str(many / "5.jsonl")


def test_very_many_files_that_were_touched_pass(many: Path) -> None:
    before = known(many)
    os.utime(many / "2.jsonl", (1, 1))
    assert check(many, before) != before[0]


def test_a_file_that_came_behind_very_many_is_growth(many: Path) -> None:
    before = known(many)
    (many / "6.jsonl").write_bytes(LINES[0])
    with pytest.raises(InputChanged, match=r"had 6 files, now 7.*--extend"):
        check(many, before)
    check(many, before, extend=True)


def test_files_that_come_to_be_very_many_are_growth(many: Path) -> None:
    for number in (3, 4, 5):
        (many / f"{number}.jsonl").unlink()
    at = source(many)
    before = at.fingerprint(), []
    assert len(before[0]) == 3
    (many / "3.jsonl").write_bytes(LINES[3])
    check(many, before, extend=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda many: (many / "00.jsonl").write_bytes(LINES[0]), "rows 0 to 1 differ|names or sizes changed"),
        (lambda many: (many / "1.jsonl").write_bytes(b'{"text": "longer"}\n'), "70 bytes then, 75 now"),
        (lambda many: (many / "1.jsonl").write_bytes(b'{"text": "x"}\n'), "rows 0 to 1 differ"),
        (lambda many: (many / "1.jsonl").rename(many / "11.jsonl"), "names or sizes changed"),
        (lambda many: (many / "3.jsonl").unlink(), "had 6 files, now 5"),
    ],
)
@pytest.mark.parametrize("extend", [False, True])
def test_what_changed_among_very_many_files_is_said(
    many: Path, change: Callable[[Path], None], said: str, extend: bool
) -> None:
    before = known(many)
    change(many)
    with pytest.raises(InputChanged, match=said):
        check(many, before, extend=extend)


# documents


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    folder = tmp_path / "documents"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.txt").write_text(f"text {number}")
    return folder


def of_documents(folder: Path) -> tuple[Source, list[dict[str, Any]], list[Any]]:
    at = open_source(SourceSettings(path=str(folder)))
    places = [row.cursor for row in at.rows(Cursor(0))]
    bounds = [Bounds(i, places[2 * i], places[2 * i + 1], places[2 * i + 2] if i < 2 else None, 2) for i in range(3)]
    return at, at.fingerprint(), [(each, input_digest(at, each)) for each in bounds]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "0.txt").write_text("test 0"), "rows 0 to 1 differ"),
        (lambda folder: (folder / "5.txt").write_text("text 5 and more"), "rows 4 to 5 differ"),
        (lambda folder: (folder / "00.txt").write_text("text 0"), "rows 0 to 1 differ"),
        (lambda folder: (folder / "1.txt").rename(folder / "11.txt"), "rows 0 to 1 differ"),
        (lambda folder: (folder / "3.txt").unlink(), "had 6 files, now 5"),
    ],
)
def test_a_document_that_changed_is_found(documents: Path, change: Callable[[Path], None], said: str) -> None:
    _, before, windows = of_documents(documents)
    change(documents)
    with pytest.raises(InputChanged, match=said):
        check_input(open_source(SourceSettings(path=str(documents))), before, windows, extend=True)


def test_documents_read_with_another_package_than_before_are_refused(
    documents: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (documents / "6.html").write_text("<p>text 6</p>")
    _, before, windows = of_documents(documents)
    monkeypatch.setattr(documents_source, "version", lambda _: "0.1")
    with pytest.raises(
        InputChanged, match=r"were read with trafilatura \d.*, and are now with trafilatura 0\.1: install"
    ):
        check_input(open_source(SourceSettings(path=str(documents))), before, windows, extend=False)


# formats whose bytes on disk are not those of the rows


def write_packed(path: Path, texts: Sequence[str]) -> None:
    content = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    match path.suffix:
        case ".gz":
            path.write_bytes(gzip.compress(content))
        case ".zst":
            path.write_bytes(zstandard.compress(content))
        case ".parquet":
            pyarrow.parquet.write_table(pyarrow.table({"text": list(texts)}), path, row_group_size=4)


TEXTS = [f"a text of some length, number {i}" for i in range(10)]
MORE = [f"another text, number {i}" for i in range(30)]


@pytest.mark.parametrize("suffix", ["gz", "zst", "parquet"])
@pytest.mark.parametrize("changed", [0, 3, 9])
def test_packed_rows_are_held_against_what_was_read_when_the_file_has_grown(
    jobs: Any, suffix: str, changed: int
) -> None:
    path = jobs.path / f"rows.{suffix}"
    write_packed(path, TEXTS)
    job = jobs.job(path, input={"format": None if suffix == "parquet" else "jsonl"}, run={"window": 4})
    jobs.run(job)
    write_packed(path, [*TEXTS[:changed], "other", *TEXTS[changed + 1 :], *MORE])
    with pytest.raises(InputChanged, match=r"rows (0 to 3|8 to 9) differ"):
        jobs.run(job, extend=True)
    write_packed(path, [*TEXTS, *MORE])
    jobs.run(job, extend=True)
    assert [record["output"] for record in jobs.records()] == [*TEXTS, *MORE]


@pytest.mark.parametrize("suffix", ["gz", "zst", "parquet"])
def test_the_digests_of_windows_are_the_same_in_whatever_order_they_are_asked_for(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows.{suffix}"
    write_packed(path, TEXTS)

    def opened() -> Source:
        return open_source(SourceSettings(path=str(path), format=None if suffix == "parquet" else "jsonl"))

    cursors = [row.cursor for row in opened().rows(Cursor(0))]
    spans = [(cursors[0], cursors[4]), (cursors[4], cursors[6]), (cursors[8], None)]
    in_order, backwards = opened(), opened()
    digests = [in_order.digest(*span) for span in spans]
    assert None not in digests
    assert digests == [backwards.digest(*span) for span in reversed(spans)][::-1]
    assert digests == [opened().digest(*span) for span in spans]


# an input that grows while it is read


@pytest.mark.parametrize("begun", ["", '{"text": "te'], ids=["whole", "half"])
def test_what_is_appended_while_a_run_reads_is_for_the_next(jobs: Any, begun: str) -> None:
    texts = [f"text {i}" for i in range(12)]
    rows = jobs.rows([{"text": text} for text in texts[:10]])
    appended = False

    def append(_: object) -> None:
        nonlocal appended
        if not appended:
            with rows.open("a") as file:
                file.write(json.dumps({"text": texts[10]}) + "\n" + begun)
        appended = True

    job = jobs.job(rows, run={"window": 4})
    jobs.run(job, append)
    assert [record["output"] for record in jobs.records()] == texts[:10]
    with rows.open("a") as file:
        file.write((json.dumps({"text": texts[11]}) + "\n").removeprefix(begun))
    with pytest.raises(InputChanged, match="has grown"):
        jobs.run(job)
    jobs.run(job, extend=True)
    assert [record["output"] for record in jobs.records()] == texts


# a limit


def test_a_limit_below_what_was_read_is_refused_by_its_name_and_a_higher_one_goes_on(jobs: Any, ten: Path) -> None:
    jobs.run(jobs.job(ten, input={"limit": 6}, run={"window": 4}))
    with pytest.raises(InputChanged, match=r"input\.limit is 5, and this run has read 6 rows already: give --limit 6"):
        jobs.run(jobs.job(ten, input={"limit": 5}, run={"window": 4}))
    jobs.run(jobs.job(ten, input={"limit": 9}, run={"window": 4}))
    assert len(jobs.records()) == 9


# stdin


class Terminal(io.BytesIO):
    """A stdin at which nobody types anything; reading it would wait for ever."""

    def isatty(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        raise AssertionError(f"{size} bytes were waited for")


class Breaks(io.BytesIO):
    """A stdin that gives a row and then fails."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell():
            raise OSError(5, "Input/output error")
        return super().read(20 if size else 0)


Piped = Callable[..., list[Any]]


@pytest.fixture
def piped(tmp_path: Path) -> Piped:
    """The texts of the rows that a run would read after these lines were piped into it (``None``: stdin is closed)."""

    def pipe(lines: Sequence[bytes] | io.BytesIO | None, *, extend: bool = False, **settings: Any) -> list[Any]:
        folder = RunFolder(tmp_path / "out")
        folder.open()
        stream = lines if lines is None or isinstance(lines, io.BytesIO) else io.BytesIO(b"".join(lines))
        try:
            found = open_input(SourceSettings(path="-", **settings), folder, stream, extend=extend)
            return [row.data.get("text") for row in found.rows()]
        finally:
            folder.close()

    return pipe


def begin(tmp_path: Path, *, done: bool = True) -> None:
    """A session on the folder; ``done`` says whether a row was finished in it."""
    folder = RunFolder(tmp_path / "out")
    folder.open()
    folder.begin_session({}, [], 0)
    if done:
        here = Cursor(0)
        folder.parts.seal(Bounds(0, here, here, None, 1), [b""], ledger={}, input_sha256=None)
    folder.close()


def test_stdin_is_kept_in_the_run_folder_and_read_from_there_later(piped: Piped, tmp_path: Path) -> None:
    texts = [str(i) for i in range(6)]
    assert piped(LINES) == texts
    begin(tmp_path)
    assert [piped(LINES), piped([]), piped(None), piped(Terminal())] == [texts] * 4


def test_of_a_strict_input_through_stdin_the_first_malformed_row_is_named(piped: Piped, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"^stdin:2: not JSON.*With input\.strict such a row ends the job"):
        piped([LINES[0], b"{broken\n"], strict=True)
    assert [path.name for path in (tmp_path / "out").glob("*input*")] == []


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ([b'{"text": "x"}\n', *LINES[1:]], "is not what this run began with"),
        (LINES[:-1], "is not what this run began with"),
        (LINES[:1], "is not what this run began with"),
        ([*LINES, b'{"text": "6"}\n'], "has grown.*Give --extend"),
    ],
)
def test_other_rows_through_stdin_are_refused_and_change_nothing(
    piped: Piped, tmp_path: Path, other: list[bytes], said: str
) -> None:
    piped(LINES)
    begin(tmp_path)
    with pytest.raises(InputChanged, match=said):
        piped(other)
    assert (tmp_path / "out" / "input.jsonl").read_bytes() == b"".join(LINES)


def test_more_rows_through_stdin_are_taken_with_extend(piped: Piped, tmp_path: Path) -> None:
    piped(LINES)
    begin(tmp_path)
    assert piped([*LINES, b'{"text": "6"}\n'], extend=True) == [str(i) for i in range(7)]
    with pytest.raises(InputChanged, match="is not what this run began with"):
        piped(LINES, extend=True)


def test_a_last_line_through_stdin_that_goes_on_is_no_growth(piped: Piped, tmp_path: Path) -> None:
    piped([*LINES, b'{"text": 1}'])
    begin(tmp_path)
    with pytest.raises(InputChanged, match="is not what this run began with"):
        piped([*LINES, b'{"text": 1} \n'], extend=True)
    assert piped([*LINES, b'{"text": 1}\n', LINES[0]], extend=True)[-2:] == [1, "0"]


@pytest.mark.parametrize("nothing", [[], [b"\n", b"  \n"], None])
def test_a_pipe_without_rows_leaves_nothing_that_stands_in_the_way(
    piped: Piped, tmp_path: Path, nothing: list[bytes] | None
) -> None:
    with pytest.raises(SourceError, match="stdin"):
        piped(nothing)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["parts"]
    assert piped(LINES) == [str(i) for i in range(6)]


def test_a_pipe_that_breaks_leaves_nothing(piped: Piped, tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="stdin: cannot be read beyond byte 20"):
        piped(Breaks(b"".join(LINES)))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["parts"]


def test_as_long_as_no_row_is_done_other_rows_may_come_through_stdin(piped: Piped, tmp_path: Path) -> None:
    piped(LINES)
    begin(tmp_path, done=False)
    assert piped(LINES[3:]) == ["3", "4", "5"]
    assert piped([*LINES[3:], LINES[0]]) == ["3", "4", "5", "0"]


def test_a_file_of_the_user_is_not_taken_for_the_copy_of_stdin(piped: Piped, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "input.jsonl").write_bytes(LINES[0])
    for extend in (False, True):
        with pytest.raises(InputChanged, match="is not what this run began with"):
            piped(LINES, extend=extend)
    assert (tmp_path / "out" / "input.jsonl").read_bytes() == LINES[0]


def test_another_corpus_piped_into_a_finished_run_is_refused(jobs: Any) -> None:
    data = jobs.data(jobs.path / "-", input={"path": "-"})
    rows, other = (jobs.rows([{"text": text}], text) for text in ("one", "two"))
    for said, code in ((rows, 0), (rows, 0), (other, 1)):
        with said.open("rb") as stdin:
            ended, _, err = jobs.finish(data, stdin=stdin)
        assert (ended, "not what this run began with" in err) == (code, bool(code)), err
    ended, _, err = jobs.finish(data, stdin=subprocess.DEVNULL)
    assert (ended, jobs.records()[0]["output"]) == (0, "one"), err
