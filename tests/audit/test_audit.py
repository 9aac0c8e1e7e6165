from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmbatch.audit.audit import AuditReport, audit
from llmbatch.audit.finding import Finding
from llmbatch.core.errors import FolderError
from llmbatch.folder.folder import RunFolder, read_manifest
from llmbatch.job.job import job_from
from llmbatch.runs.retry_failed import retry_failed
from llmbatch.runs.session import run_job

SCRIPT = "rules: [{when: {contains: bad}, answer: wrong}, {answer: blue}]"
BETTER = "rules: [{answer: green}]"
ROWS = 11
WINDOW = 3  # four windows: 0-2, 3-5, 6-8, 9-10


class Case:
    """Eleven rows in windows of three: row 4 is no row, rows 5 and 7 get no valid answer."""

    def __init__(self, base: Path, kill_at: Callable[[str, Callable[[], object]], None]) -> None:
        self._kill_at = kill_at
        self.base = base
        self.folder = base / "out"
        self.rows = base / "rows.jsonl"
        (base / "script.yaml").write_text(SCRIPT)
        (base / "better.yaml").write_text(BETTER)
        (base / "ask.yaml").write_text(
            "name: ask\nvariables: {text: {}}\nmessages: [{role: user, content: '{{ text }}'}]\n"
        )
        self.write(range(ROWS))

    def write(self, rows: Any) -> None:
        lines = [
            "{no row" if i == 4 else json.dumps({"id": f"r{i}", "text": "bad" if i in (5, 7) else f"text {i}"})
            for i in rows
        ]
        self.rows.write_text("\n".join(lines) + "\n")

    def sections(self, **sections: Any) -> dict[str, Any]:
        return {
            "model": "any",
            "prompt": str(self.base / "ask.yaml"),
            "input": str(self.rows),
            "output": str(self.folder),
            "engine": {"name": "scripted", "script": str(self.base / "script.yaml")},
            "answer": {"choice": ["blue", "green"]},
            "retry": {"max_attempts": 2, "feedback": False},
            "run": {"window": WINDOW},
            **sections,
        }

    def run(self, *, extend: bool = False, **sections: Any) -> Case:
        run_job(job_from(self.sections(**sections)), extend=extend)
        return self

    def killed(self, fault: str, **sections: Any) -> Case:
        """A run that was killed at a fault point."""
        self._kill_at(fault, lambda: self.run(**sections))
        return self

    def part(self, window: int, suffix: str = "jsonl") -> Path:
        return self.folder / "parts" / f"part-{window:05d}.{suffix}"

    def fill(self, words: str) -> str:
        """The words with the names of files in braces made their paths."""
        names = {"rows": self.rows, "job": self.folder / "job.yaml", "report": self.folder / "report.json"}
        names |= {name: self.folder / f"{name}.jsonl" for name in ("results", "errors")}
        for window in range(4):
            names |= {f"part {window}": self.part(window), f"meta {window}": self.part(window, "meta.json")}
        for name, path in names.items():
            words = words.replace(f"{{{name}}}", str(path))
        return words

    def audit(self) -> AuditReport:
        """The audit; that it writes nothing is seen to each time."""
        before = tree(self.base)
        report = audit(self.folder)
        assert tree(self.base) == before
        return report


def tree(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def case(tmp_path: Path, kill_at: Any) -> Case:
    return Case(tmp_path, kill_at)


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory, kill_at: Any) -> Path:
    """A finished run that nobody touches."""
    return Case(tmp_path_factory.mktemp("pristine"), kill_at).run().base


def copy_of(pristine: Path, tmp_path: Path) -> Case:
    """The finished run at another place, its input and prompt with it."""
    shutil.copytree(pristine, tmp_path, dirs_exist_ok=True, copy_function=shutil.copy2)
    case = Case.__new__(Case)
    case.base, case.folder, case.rows = tmp_path, tmp_path / "out", tmp_path / "rows.jsonl"
    job = case.folder / "job.yaml"
    job.write_text(job.read_text().replace(str(pristine), str(tmp_path)))
    return case


@pytest.fixture
def finished(pristine: Path, tmp_path: Path) -> Case:
    return copy_of(pristine, tmp_path)


def problems(report: AuditReport) -> str:
    return "\n".join(f"{check.name}: {problem}" for check in report.checks for problem in check.problems)


# what is whole


def test_a_finished_run_is_whole_and_complete(finished: Case) -> None:
    report = finished.audit()
    assert problems(report) == ""
    assert report.complete
    assert report.exit_code == 0
    assert (report.rows_done, report.rows_owed) == (ROWS, 0)
    assert [check.name for check in report.checks] == [
        "job",
        "parts",
        "windows",
        "input",
        "rows",
        "results",
        "errors",
        "report",
    ]


def test_a_run_that_was_stopped_is_whole_and_its_rows_are_owed(case: Case) -> None:
    case.run(
        engine={"name": "scripted", "script": str(case.base / "script.yaml"), "args": {"latency": 0.3}},
        run={"max_total_tokens": 1, "window": WINDOW, "windows_open": 1, "grace": 0},
    )
    report = case.audit()
    assert problems(report) == ""
    assert not report.complete
    assert report.exit_code == 3
    assert report.rows_owed is not None
    assert report.rows_done + report.rows_owed == ROWS
    assert report.rows_owed > 0


FAULTS = [
    "temp-written/run.json",
    "renamed/run.json",
    "temp-written/job.yaml",
    "journal-opened",
    "journal-opened:3",
    "journal-torn:2",
    "journal-append:2",
    "meta-written",
    "temp-written/part-00001.jsonl",
    "renamed/part-00001.jsonl",
    "part-sealed:2",
    "journal-removed:3",
    "temp-written/errors.jsonl",
    "renamed/errors.jsonl",
    "renamed/results.jsonl",
    "results-written",
    "renamed/report.json",
    "report-written",
    "renamed/run.json:2",
]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_that_was_killed_anywhere_is_whole_before_and_after_it_goes_on(case: Case, fault: str) -> None:
    # slow enough that journals are written
    """That of a run that was killed after three appends: answers come one by one, farther apart than entries wait."""
    slow = {"name": "scripted", "script": str(case.base / "script.yaml"), "args": {"latency": 0.15, "concurrency": 1}}
    case.killed(fault, engine=slow if fault.startswith("journal-") else case.sections()["engine"])
    if (case.folder / "run.json").exists():
        report = case.audit()
        assert problems(report) == ""
        assert report.rows_owed is None or report.rows_done + report.rows_owed == ROWS
    case.run()
    report = case.audit()
    assert problems(report) == ""
    assert report.complete


def test_a_run_that_was_retried_is_whole_and_complete(finished: Case) -> None:
    retry_failed(finished.folder, {"engine": {"script": str(finished.base / "better.yaml")}})
    report = finished.audit()
    assert problems(report) == ""
    assert report.complete
    assert [check.seen for check in report.checks if check.name == "retry 001"] == ["3 rows tried again"]
    assert audit(finished.folder / "retries" / "001").complete


def test_a_run_that_was_extended_is_whole_and_complete(case: Case) -> None:
    case.run()
    case.write(range(ROWS + 4))
    grown = case.audit()
    assert problems(grown) == ""
    assert (grown.rows_owed, grown.exit_code) == (4, 3)
    case.run(extend=True)
    report = case.audit()
    assert problems(report) == ""
    assert report.complete
    assert report.rows_done == ROWS + 4


def test_a_run_that_was_stopped_while_it_was_extended_is_whole(case: Case) -> None:
    case.run()
    case.write(range(ROWS + 9))
    slow = {"name": "scripted", "script": str(case.base / "script.yaml"), "args": {"latency": 0.3}}
    case.run(extend=True, engine=slow, run={"max_total_tokens": 1, "window": WINDOW, "windows_open": 1, "grace": 0})
    report = case.audit()
    assert problems(report) == ""
    assert report.exit_code == 3


def test_a_run_with_folded_rows_is_whole_and_complete(case: Case) -> None:
    case.rows.write_text('{"text": "same"}\n{"text": "bad"}\n' * 6)
    case.run(sampling={"temperature": 0})
    assert json.loads((case.folder / "report.json").read_bytes())["rows"]["folded"] > 0
    assert case.audit().complete


def test_a_run_of_some_rows_is_whole_and_complete(case: Case) -> None:
    (case.base / "some.txt").write_text("0 1 5 6 7 10")
    case.run(run={"window": 2, "rows": str(case.base / "some.txt")})
    report = case.audit()
    assert problems(report) == ""
    assert (report.rows_done, report.rows_owed) == (6, 0)


def test_a_run_over_compressed_input_is_whole_and_complete(case: Case) -> None:
    packed = case.base / "rows.jsonl.gz"
    packed.write_bytes(gzip.compress(case.rows.read_bytes()))
    case.run(input=str(packed))
    assert case.audit().complete


def test_a_run_that_was_moved_with_its_input_is_whole(finished: Case) -> None:
    # the fixture is such a move
    assert str(finished.base) not in (finished.folder / "run.json").read_text()
    assert finished.audit().complete


def test_that_a_run_is_going_on_is_said(finished: Case) -> None:
    with_lock = RunFolder(finished.folder)
    with_lock.open()
    try:
        report = audit(finished.folder)
    finally:
        with_lock.close()
    assert f"a run is going on (process {os.getpid()}" in report.checks[0].seen
    assert report.ok


# what is damaged


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(bytes(content))


def lines(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))


def edit(path: Path, old: str, new: str, count: int = 1) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def edit_meta(case: Case, **changes: Any) -> None:
    path = case.part(1, "meta.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_ledger(case: Case, **changes: Any) -> None:
    ledger = json.loads(case.part(1, "meta.json").read_text())["ledger"]
    edit_meta(case, ledger={**ledger, **changes})


def edit_total(case: Case, tokens: int) -> None:
    path = case.folder / "report.json"
    report = json.loads(path.read_text())
    report["tokens"]["total"]["prompt_tokens"] += tokens
    path.write_text(json.dumps(report))


def reseal(case: Case, change: Callable[[list[bytes]], list[bytes]]) -> None:
    """Change a part and make its checksum right."""
    import hashlib

    lines(case.part(1), change)
    edit_meta(case, sha256=hashlib.sha256(case.part(1).read_bytes()).hexdigest())


def remove_window(case: Case, window: int) -> None:
    case.part(window).unlink()
    case.part(window, "meta.json").unlink()


DAMAGES: dict[str, tuple[Callable[[Case], Any], str]] = {
    "a byte of a part": (lambda c: flip(c.part(1), 40), "parts: {part 1}: its checksum is not what was sealed"),
    "the last byte of a part": (lambda c: flip(c.part(3), -1), "parts: {part 3}: its checksum is not what was sealed"),
    "a line of a part": (lambda c: lines(c.part(1), lambda x: x[:1] + x[2:]), "parts: {part 1}: its checksum"),
    "a line of a part twice": (lambda c: lines(c.part(1), lambda x: [x[0], *x]), "parts: {part 1}: its checksum"),
    "lines of a part exchanged": (lambda c: lines(c.part(1), lambda x: x[::-1]), "parts: {part 1}: its checksum"),
    "a part cut off": (lambda c: os.truncate(c.part(2), 100), "parts: {part 2}: its checksum"),
    "an empty part": (lambda c: os.truncate(c.part(2), 0), "parts: {part 2}: its checksum"),
    "a line lost and the checksum right": (
        lambda c: reseal(c, lambda x: x[:1] + x[2:]),
        "parts: {part 1}: has 2 records up to row 5; its meta file says 3 up to row 5",
    ),
    "a line twice and the checksum right": (
        lambda c: reseal(c, lambda x: [x[0], *x]),
        "parts: {part 1}:2: row 3 comes twice or out of order",
    ),
    "no record and the checksum right": (
        lambda c: reseal(c, lambda x: [b"{}\n", *x[1:]]),
        "parts: {part 1}:1: is no record",
    ),
    "an answer changed and the checksum right": (
        lambda c: reseal(c, lambda x: [x[0].replace(b"blue", b"green"), *x[1:]]),
        "results.jsonl:4: is not the record that was sealed",
    ),
    "a part gone": (lambda c: c.part(1).unlink(), "windows: {part 1}: is gone; its meta file is still there"),
    "the last part gone": (lambda c: c.part(3).unlink(), "windows: {part 3}: is gone"),
    "a meta file gone": (
        lambda c: c.part(1, "meta.json").unlink(),
        "parts: {meta 1}: the meta file of a sealed part cannot be read",
    ),
    "a meta file broken": (
        lambda c: c.part(1, "meta.json").write_text("{"),
        "parts: {meta 1}: the meta file of a sealed part cannot be read",
    ),
    "a window gone": (lambda c: remove_window(c, 1), "windows: windows 1 have neither a part nor a journal"),
    "the last window gone": (
        lambda c: remove_window(c, 3),
        "windows: the run is finished, but the parts after window 2 are gone",
    ),
    "every part gone": (
        lambda c: shutil.rmtree(c.folder / "parts"),
        "results.jsonl: goes on after line 0; no more records were sealed",
    ),
    "a count in a ledger": (
        lambda c: edit_ledger(c, attempts=99),
        "parts: {part 1}: the ledger in its meta file is not the sum of its records",
    ),
    "tokens in a ledger": (
        lambda c: edit_ledger(c, useful={"prompt_tokens": 1, "completion_tokens": 1, "cached_tokens": 1}),
        "parts: {part 1}: the ledger",
    ),
    "an example in a ledger": (lambda c: edit_ledger(c, examples={}), "parts: {part 1}: the ledger"),
    "a ledger gone": (lambda c: edit_meta(c, ledger={}), "parts: {part 1}: cannot be read: KeyError"),
    "bounds of a window": (
        lambda c: edit_meta(c, start=[2, 0, 0, 0]),
        "windows: window 0 ends before row 3, window 1 begins at row 2",
    ),
    "rows of a window": (
        lambda c: edit_meta(c, rows=4),
        "parts: {part 1}: has 3 records up to row 5; its meta file says 4",
    ),
    "the digest of a window's input": (
        lambda c: edit_meta(c, input_sha256="0"),
        "input: rows 3 to 5 (from {rows}:4 on) are not what the run read",
    ),
    "a newer part": (
        lambda c: edit_meta(c, llmbatch_part=99),
        "parts: {meta 1}: written by a newer llmbatch (part version 99)",
    ),
    "a byte of the results": (
        lambda c: edit(c.folder / "results.jsonl", "blue", "BLUE"),
        "results: {results}:1: is not the record that was sealed",
    ),
    "a line of the results": (
        lambda c: lines(c.folder / "results.jsonl", lambda x: x[:-1]),
        "results: {results}: ends before line 11; more records were sealed",
    ),
    "a line of the results twice": (
        lambda c: lines(c.folder / "results.jsonl", lambda x: [*x, x[-1]]),
        "results: {results}: goes on after line 11",
    ),
    "the results": (lambda c: (c.folder / "results.jsonl").unlink(), "results: {results}: No such file"),
    "a line of the errors": (
        lambda c: lines(c.folder / "errors.jsonl", lambda x: x[1:]),
        "errors: {errors}:1: is not the record that was sealed",
    ),
    "the errors": (lambda c: (c.folder / "errors.jsonl").unlink(), "errors: {errors}: No such file"),
    "a count in the report": (
        lambda c: edit(c.folder / "report.json", '"ok": 8', '"ok": 9'),
        "report: {report}: says by status",
    ),
    "tokens in the report": (lambda c: edit_total(c, 1), "report: {report}: says tokens"),
    "the report": (
        lambda c: (c.folder / "report.json").unlink(),
        "report: {report}: cannot be read: FileNotFoundError",
    ),
    "a report that is none": (
        lambda c: (c.folder / "report.json").write_text("[]"),
        "report: {report}: cannot be read",
    ),
    "a row of the input gone": (
        lambda c: lines(c.rows, lambda x: x[:5] + x[6:]),
        "input: rows 3 to 5 (from {rows}:4 on) are not what the run read",
    ),
    "the last row of the input gone": (
        lambda c: lines(c.rows, lambda x: x[:-1]),
        "rows: there is a record for row 10, which the input does not have",
    ),
    "an id in the input": (
        lambda c: edit(c.rows, '"r3"', '"x3"'),
        "rows: {rows}:4: the row's id is 'x3', its record's 'r3'",
    ),
    "a text in the input": (
        lambda c: edit(c.rows, "text 8", "TEXT 8"),
        "input: rows 6 to 8 (from {rows}:7 on) are not what the run read",
    ),
    "the input": (lambda c: c.rows.unlink(), "rows: not every row can be accounted for: {rows}"),
    "a row put before the input": (lambda c: lines(c.rows, lambda x: [b"{}\n", *x]), "input: rows 0 to 2"),
    "the prompt": (lambda c: edit(c.base / "ask.yaml", "{{ text }}", "Please: {{ text }}"), "job: prompt (text) was"),
    "the script": (lambda c: edit(c.base / "script.yaml", "blue", "green"), "job: engine.script (content) was"),
    "a setting of the job": (
        lambda c: edit(c.folder / "job.yaml", "max_attempts: 2", "max_attempts: 3"),
        "job: retry.max_attempts was 2, now 3",
    ),
    "a job that is none": (
        lambda c: (c.folder / "job.yaml").write_text("model: [\n"),
        "job: {job}:2:1: not valid YAML",
    ),
    "the job": (lambda c: (c.folder / "job.yaml").unlink(), "job: {job}: there is no such job file"),
    "the identity in the manifest": (
        lambda c: edit(c.folder / "run.json", '"retry.max_attempts": "2"', '"retry.max_attempts": "5"'),
        "job: retry.max_attempts was 5, now 2",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damage_is_found_and_named(finished: Case, damage: str) -> None:
    do, words = DAMAGES[damage]
    do(finished)
    report = finished.audit()
    assert finished.fill(words) in problems(report)
    assert not report.ok
    assert not report.complete
    assert report.exit_code == 1


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_no_flipped_bit_of_parts_results_or_errors_goes_unseen(
    pristine: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    case = copy_of(pristine, tmp_path_factory.mktemp("flipped"))
    files = [
        *sorted((case.folder / "parts").glob("*.jsonl")),
        case.folder / "results.jsonl",
        case.folder / "errors.jsonl",
    ]
    path = data.draw(st.sampled_from(files))
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, 10**6)) % len(content)] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(content))
    report = audit(case.folder)
    assert not report.ok
    assert str(path) in problems(report)
    shutil.rmtree(case.base)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_no_damage_of_any_file_breaks_the_audit(
    pristine: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    case = copy_of(pristine, tmp_path_factory.mktemp("damaged"))
    path = data.draw(st.sampled_from([path for path in sorted(case.folder.rglob("*")) if path.is_file()]))
    content = path.read_bytes()
    start = data.draw(st.integers(0, 10**6)) % (len(content) + 1)
    path.write_bytes(
        content[:start] + data.draw(st.binary(max_size=8)) + content[start + data.draw(st.integers(0, 8)) :]
    )
    if unreadable(case.folder):
        with pytest.raises(FolderError, match=r"run\.json"):
            audit(case.folder)
    else:
        assert audit(case.folder).checks, "it has looked at everything there is"
    shutil.rmtree(case.base)


def unreadable(folder: Path) -> bool:
    try:
        read_manifest(folder)
    except FolderError:
        return True
    return False


def journal(case: Case) -> Path:
    """That of a run that was killed after three appends: answers come one by one, farther apart than entries wait."""
    slow = {"name": "scripted", "script": str(case.base / "script.yaml"), "args": {"latency": 0.15, "concurrency": 1}}
    case.killed("journal-append:3", engine=slow, run={"window": ROWS})
    return case.part(0, "journal")


def test_a_torn_journal_is_no_damage(case: Case) -> None:
    path = journal(case)
    whole = case.audit()
    os.truncate(path, path.stat().st_size - 5)
    torn = case.audit()
    assert problems(torn) == problems(whole) == ""
    assert torn.rows_done <= whole.rows_done
    assert torn.rows_owed is not None
    assert torn.rows_done + torn.rows_owed == ROWS


def test_a_damage_in_the_middle_of_a_journal_is_named(case: Case) -> None:
    path = journal(case)
    lines(path, lambda x: [x[0], x[1][:-9] + b"\n", *x[2:]])
    report = case.audit()
    assert f"windows: {path}: from byte" in problems(report)
    assert "owed again" in problems(report)


def test_a_newer_journal_is_named(case: Case) -> None:
    path = journal(case)
    edit(path, '"llmbatch_journal": 1', '"llmbatch_journal": 9')
    assert f"windows: {path}: written by a newer llmbatch (journal version 9)" in problems(case.audit())


def test_a_journal_with_rows_of_another_window_is_named(case: Case) -> None:
    path = journal(case)
    lines(path, lambda x: [*x, b'{"record":{"id":"z","index":99}}\n'])
    assert f"windows: {path}: has records of rows that its window does not have: 99" in problems(case.audit())


def test_a_record_in_a_journal_under_another_id_is_named(case: Case) -> None:
    path = journal(case)
    content = path.read_text()
    seen = next(f"r{i}" for i in range(ROWS) if f'{{"record":{{"id":"r{i}"' in content)
    path.write_text(content.replace(f'{{"record":{{"id":"{seen}"', '{"record":{"id":"zz"'))
    assert f"the row's id is '{seen}', its record's 'zz'" in problems(case.audit())


def test_a_run_folder_of_a_newer_version_is_refused(finished: Case) -> None:
    edit(finished.folder / "run.json", '"llmbatch_run": 1', '"llmbatch_run": 2')
    with pytest.raises(FolderError, match=r"run\.json: written by a newer llmbatch \(version 2\)"):
        audit(finished.folder)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "{}", '{"llmbatch_run": "x"}', '{"llmbatch_run": 1, "identity": 5}']
)
def test_a_run_folder_without_a_readable_manifest_is_refused(finished: Case, content: str) -> None:
    (finished.folder / "run.json").write_text(content)
    with pytest.raises(FolderError, match=r"run\.json: cannot be read as a run's manifest"):
        audit(finished.folder)


def test_what_is_no_run_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match=r"is no run folder: there is no run\.json in it"):
        audit(tmp_path)


@pytest.mark.parametrize("gone", ["a", "b"])
def test_of_several_files_one_that_is_gone_is_named(case: Case, gone: str) -> None:
    for name, rows in (("a", range(5)), ("b", range(5, ROWS))):
        (case.base / f"{name}.jsonl").write_text("".join(json.dumps({"id": i, "text": "x"}) + "\n" for i in rows))
    case.run(input=str(case.base / "[ab].jsonl"))
    assert case.audit().complete
    (case.base / f"{gone}.jsonl").unlink()
    report = case.audit()
    assert not report.ok
    assert {check.name for check in report.checks if not check.ok} <= {"input", "rows"}


# damaged retries

RETRY_DAMAGES: dict[str, tuple[Callable[[Case], Any], str]] = {
    "a byte of its part": (lambda c: flip(c.folder / "retries/001/parts/part-00000.jsonl", 9), "retry 001: "),
    "its results": (lambda c: (c.folder / "retries/001/results.jsonl").unlink(), "retry 001: "),
    "its rows": (lambda c: (c.folder / "retries/001.rows").write_text("1 2 3"), "retry 001: "),
    "its mark": (lambda c: (c.folder / "retries/001/done").unlink(), ""),
    "all of it": (lambda c: shutil.rmtree(c.folder / "retries"), "results: "),
    "the run's results": (lambda c: edit(c.folder / "results.jsonl", "green", "GREEN"), "results: "),
    "the run's report": (lambda c: edit(c.folder / "report.json", '"attempts": ', '"attempts": 1'), "report: "),
}


@pytest.mark.parametrize("damage", RETRY_DAMAGES)
def test_a_damage_of_a_retry_is_found_and_named(finished: Case, damage: str) -> None:
    retry_failed(finished.folder, {"engine": {"script": str(finished.base / "better.yaml")}})
    do, words = RETRY_DAMAGES[damage]
    do(finished)
    report = finished.audit()
    assert not report.complete
    assert words in problems(report)
    if not words:
        assert report.exit_code == 3
        assert "run the same llmbatch retry-failed command again" in str(report.pending)


def test_of_many_problems_the_first_few_are_told_and_the_rest_counted() -> None:
    check = Finding("rows")
    for number in range(1000):
        check.problem(f"problem {number}")
    assert check.problems == [*(f"problem {n}" for n in range(5)), "and 995 more"]
