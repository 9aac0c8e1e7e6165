from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch.audit.audit import audit
from llmbatch.core.errors import FolderError, InputChanged, JobError, Locked, UsageError
from llmbatch.core.events import Note
from llmbatch.core.ledger import Ledger
from llmbatch.core.record import record_from_dict, record_to_line
from llmbatch.core.types import Attempt, Failure, FailureKind, Record, RequestKey, Status, Usage
from llmbatch.folder.folder import RunFolder
from llmbatch.folder.overlay import combine, overlay
from llmbatch.job.job import job_from
from llmbatch.runs.retry_failed import retry_failed
from llmbatch.runs.session import RunResult, run_job

TEXTS = ["fine", "hard", "fine", "very hard", "hard"]
RULES = """
rules:
  - when: {{contains: very hard}}
    answer: {very_hard}
  - when: {{contains: hard}}
    answer: {hard}
  - answer: blue
"""


class Corpus:
    """A run of six lines, of which one is no row, two are "hard", one is "very hard"; the scripts say who can do what."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.folder = base / "out"
        self.rows = base / "rows.jsonl"
        lines = [json.dumps({"id": f"r{i}", "text": text}) for i, text in enumerate(TEXTS)]
        self.rows.write_text("\n".join([*lines[:3], "{broken", *lines[3:]]) + "\n")
        self.weak = self.script("weak", hard="wrong", very_hard="wrong")
        self.better = self.script("better", hard="green", very_hard="wrong")
        self.best = self.script("best", hard="green", very_hard="green")

    def script(self, name: str, **answers: str) -> str:
        path = self.base / f"{name}.yaml"
        path.write_text(RULES.format(**answers))
        return str(path)

    def job(self, **sections: Any) -> dict[str, Any]:
        return {
            "model": "any",
            "prompt": "Say: {{ text }}",
            "input": str(self.rows),
            "output": str(self.folder),
            "engine": {"name": "scripted", "script": self.weak},
            "answer": {"choice": ["blue", "green"]},
            "retry": {"max_attempts": 2, "feedback": False},
            "run": {"window": 2},
            **sections,
        }

    def run(self, **sections: Any) -> RunResult:
        return run_job(job_from(self.job(**sections)))

    def retry(self, script: str | None = None, **overrides: Any) -> RunResult:
        engine = {"engine": {"script": script}} if script else {}
        return retry_failed(self.folder, {**engine, **overrides})

    def records(self, name: str = "results.jsonl") -> list[Record]:
        return [record_from_dict(json.loads(line)) for line in (self.folder / name).read_bytes().splitlines()]

    @property
    def statuses(self) -> str:
        return " ".join(record.status for record in self.records())

    @property
    def report(self) -> Any:
        return json.loads((self.folder / "report.json").read_bytes())


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus(tmp_path)


@pytest.fixture
def done(corpus: Corpus) -> Corpus:
    corpus.run()
    assert corpus.statuses == "ok invalid ok failed invalid invalid"
    return corpus


def assert_holds(corpus: Corpus) -> None:
    """All that must be true of a run folder whatever was tried again."""
    records, ledger = corpus.records(), Ledger()
    for record in records:
        ledger.add(record)
    assert [record.index for record in records] == list(range(len(records)))
    assert corpus.records("errors.jsonl") == [record for record in records if record.status is not Status.OK]
    report = corpus.report
    assert report["rows"]["by_status"] == {status: ledger.by_status.get(status, 0) for status in Status}
    assert report["rows"]["retried"] == ledger.rows_retried
    assert report["attempts"] == ledger.attempts
    assert report["tokens"]["total"] == ledger.total.as_dict()
    assert {kind: failure["rows"] for kind, failure in report["failures"].items()} == ledger.by_failure
    assert report["exit_code"] == (0 if corpus.records("errors.jsonl") == [] else 3)
    found = audit(corpus.folder)
    assert found.complete, [problem for check in found.checks for problem in check.problems]


def test_rows_that_are_not_ok_run_again_with_the_settings_given(done: Corpus) -> None:
    result = done.retry(done.better)
    assert done.statuses == "ok ok ok failed invalid ok"
    assert result.exit_code == 3
    assert result.folder == done.folder
    assert result.report == done.report
    assert_holds(done)


def test_only_rows_that_are_not_ok_run_again(done: Corpus) -> None:
    before = (done.folder / "results.jsonl").read_bytes().splitlines()
    done.retry(done.better)
    after = (done.folder / "results.jsonl").read_bytes().splitlines()
    assert [after[i] for i in (0, 2)] == [before[i] for i in (0, 2)]
    assert (done.folder / "retries" / "001.rows").read_text().split() == ["1", "3", "4", "5"]


def test_a_record_keeps_the_attempts_and_tokens_of_both(done: Corpus) -> None:
    before = done.records()[1]
    done.retry(done.better)
    after = done.records()[1]
    assert after.attempts == before.attempts + 1 == 3
    assert [attempt.text for attempt in after.history] == ["wrong", "wrong"]
    assert [attempt.key.attempt for attempt in after.history] == [1, 2]
    assert after.wasted == before.usage
    assert after.usage.completion_tokens == before.usage.completion_tokens + len("green")


def test_a_second_retry_works_on_what_is_still_not_ok(done: Corpus) -> None:
    done.retry(done.better)
    done.retry(done.best)
    assert done.statuses == "ok ok ok failed ok ok"
    assert (done.folder / "retries" / "002.rows").read_text().split() == ["3", "4"]
    assert [attempt.text for attempt in done.records()[4].history] == ["wrong"] * 4
    assert_holds(done)


def test_where_every_row_is_ok_there_is_nothing_to_do(corpus: Corpus) -> None:
    corpus.rows.write_text('{"text": "fine"}\n')
    corpus.run()
    notes: list[Any] = []
    result = retry_failed(corpus.folder, {}, [notes.append])
    assert result.exit_code == 0
    assert [note.message for note in notes if isinstance(note, Note)] == [
        f"{corpus.folder}: every row is ok, nothing is to be tried again"
    ]
    assert not (corpus.folder / "retries").exists()


def test_tokens_of_duplicates_are_still_counted_apart(corpus: Corpus) -> None:
    corpus.run(sampling={"temperature": 0}, run={"window": 6})
    before = corpus.report["tokens"]
    assert before["folded"]["prompt_tokens"] > 0
    corpus.retry(corpus.best)
    assert_holds(corpus)
    after = corpus.report["tokens"]
    retry = json.loads((corpus.folder / "retries/001/report.json").read_bytes())["tokens"]
    for name in ("prompt_tokens", "completion_tokens"):
        assert after["useful"][name] + after["wasted"][name] + after["folded"][name] == after["total"][name]
        computed = after["useful"][name] + after["wasted"][name]
        assert computed == sum(tokens[kind][name] for tokens in (before, retry) for kind in ("useful", "wasted"))


def test_other_outputs_are_written_anew(corpus: Corpus) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    corpus.run(sinks={"formats": ["parquet"]})
    corpus.retry(corpus.best)
    assert parquet.read_table(corpus.folder / "results.parquet")["status"].to_pylist() == corpus.statuses.split()


def test_running_the_job_again_keeps_what_was_tried_again(done: Corpus) -> None:
    done.retry(done.better)
    before = (done.folder / "results.jsonl").read_bytes()
    done.run(run={"window": 2, "max_failures": 99})
    assert (done.folder / "results.jsonl").read_bytes() == before
    assert_holds(done)


def test_extending_the_run_keeps_what_was_tried_again(done: Corpus) -> None:
    done.retry(done.better)
    before = (done.folder / "results.jsonl").read_bytes()
    with done.rows.open("a") as file:
        file.write('{"id": "new", "text": "hard"}\n')
    run_job(job_from(done.job()), extend=True)
    assert (done.folder / "results.jsonl").read_bytes().startswith(before)
    assert done.statuses == "ok ok ok failed invalid ok invalid"
    done.retry(done.best)
    assert done.statuses == "ok ok ok failed ok ok ok"
    assert_holds(done)


@pytest.mark.parametrize(
    "fault",
    ["renamed/errors.jsonl:1", "results-written", "report-written", "renamed/results.jsonl:2", "renamed/report.json:2"],
)
def test_a_kill_while_a_retried_run_is_finished_anew_loses_nothing(done: Corpus, fault: str, kill_at: Any) -> None:
    done.retry(done.better)
    before = (done.folder / "results.jsonl").read_bytes()
    again = done.job(run={"window": 2, "max_failures": 99})
    kill_at(fault, lambda: run_job(job_from(again)))
    assert audit(done.folder).ok
    run_job(job_from(again))
    assert (done.folder / "results.jsonl").read_bytes() == before
    assert_holds(done)


# what is refused


def test_a_folder_without_results_is_refused(corpus: Corpus) -> None:
    with pytest.raises(FolderError, match="there is no such folder"):
        corpus.retry()
    corpus.run(
        run={"max_total_tokens": 1, "window": 1, "windows_open": 1, "grace": 0},
        engine={"name": "scripted", "args": {"latency": 0.3}},
    )
    with pytest.raises(FolderError, match="there are no results yet to try again"):
        corpus.retry()


@pytest.mark.parametrize("fault", ["journal-opened", "part-sealed"])
def test_a_run_that_owes_rows_is_refused_though_it_was_finished_before_it_was_extended(
    done: Corpus, fault: str, kill_at: Any
) -> None:
    before = (done.folder / "results.jsonl").read_bytes()
    with done.rows.open("a") as file:
        file.write('{"text": "fine"}\n' * 30)
    kill_at(fault, lambda: run_job(job_from(done.job()), extend=True))
    with pytest.raises(FolderError, match=r"the run is not finished, rows of it are owed .*finish it first"):
        done.retry(done.better)
    assert (done.folder / "results.jsonl").read_bytes() == before
    run_job(job_from(done.job()), extend=True)
    done.retry(done.better)
    assert done.statuses == "ok ok ok failed invalid ok" + " ok" * 30
    assert_holds(done)


@pytest.mark.parametrize(
    "overrides", [{"input": "other.jsonl"}, {"input": {"limit": 1}}, {"output": "x"}, {"run": {"rows": "x"}}], ids=str
)
def test_a_retry_has_the_rows_of_its_run(done: Corpus, overrides: dict[str, Any]) -> None:
    with pytest.raises(JobError, match=r"a retry runs the rows of .* from its own input: leave it out"):
        done.retry(**overrides)


@pytest.mark.parametrize(
    "overrides", [{"prompt": {"path": "{{ text"}}, {"engin": {}}, {"sampling": {"tmperature": 0}}], ids=str
)
def test_settings_that_are_wrong_are_refused_before_anything_is_written(
    done: Corpus, overrides: dict[str, Any]
) -> None:
    with pytest.raises(UsageError):
        done.retry(**overrides)
    assert not (done.folder / "retries").exists()


def test_an_input_that_changed_is_refused(done: Corpus) -> None:
    done.rows.write_text(done.rows.read_text().replace("very hard", "VERY HARD"))
    with pytest.raises(InputChanged, match="the input is not what this run began with"):
        done.retry(done.better)


def test_an_input_that_has_grown_is_no_hindrance(done: Corpus) -> None:
    with done.rows.open("a") as file:
        file.write('{"id": "new", "text": "hard"}\n')
    done.retry(done.better)
    assert done.statuses == "ok ok ok failed invalid ok"


def test_a_folder_that_a_run_has_is_refused(done: Corpus) -> None:
    other = RunFolder(done.folder)
    other.open()
    try:
        with pytest.raises(Locked):
            done.retry(done.better)
    finally:
        other.close()


# from elsewhere


def test_a_run_with_relative_paths_is_retried_from_another_folder(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(corpus.base)
    corpus.run(input="rows.jsonl", output="out", engine={"name": "scripted", "script": "weak.yaml"})
    monkeypatch.chdir("/")
    corpus.retry(corpus.better)
    assert_holds(corpus)


def test_a_run_whose_input_came_through_stdin_is_retried_from_its_copy(corpus: Corpus) -> None:
    command = [sys.executable, "-c", RUN, json.dumps(corpus.job(input="-"))]
    subprocess.run(command, stdin=corpus.rows.open("rb"), check=True)
    corpus.rows.unlink()
    corpus.retry(corpus.better)
    assert corpus.statuses == "ok ok ok failed invalid ok"
    assert_holds(corpus)


def test_a_folder_that_was_moved_is_retried(done: Corpus) -> None:
    done.folder = shutil.move(done.folder, done.base / "moved")
    done.retry(done.better)
    assert_holds(done)


# interrupted


def stop(corpus: Corpus, script: str) -> RunResult:
    """Begin a retry, and stop it when its first answer is there."""
    budget = {"max_total_tokens": 1, "window": 1, "windows_open": 1, "grace": 0}
    return corpus.retry(run=budget, engine={"script": script, "args": {"latency": 0.3}})


def test_a_retry_that_was_stopped_goes_on_with_the_same_settings(done: Corpus) -> None:
    assert stop(done, done.better).exit_code == 130
    assert done.statuses == "ok invalid ok failed invalid invalid"
    assert_holds(done)
    done.retry(done.better)
    assert done.statuses == "ok ok ok failed invalid ok"
    assert [path.name for path in (done.folder / "retries").iterdir() if path.is_dir()] == ["001"]
    assert_holds(done)


def test_a_retry_that_was_stopped_is_not_mixed_with_other_settings(done: Corpus) -> None:
    stop(done, done.better)
    with pytest.raises(
        FolderError, match=r"an earlier retry with other settings is not finished; they differ in engine\.script"
    ) as error:
        done.retry(done.best)
    shutil.rmtree(str(error.value).rpartition("or remove ")[2])
    done.retry(done.best)
    assert done.statuses == "ok ok ok failed ok ok"


RUN = """
import json, sys
from llmbatch.job.job import job_from
from llmbatch.runs.session import run_job
run_job(job_from(json.loads(sys.argv[1])))
"""
FAULTS = [
    "temp-written/001.rows",
    "renamed/001.rows",
    "temp-written/run.json",
    "journal-opened:2",
    "part-sealed:2",
    "temp-written/errors.jsonl:1",
    "renamed/results.jsonl:1",
    "renamed/report.json:1",
    "renamed/run.json:1",
    "renamed/run.json:2",
    "temp-written/merged.jsonl",
    "renamed/merged.jsonl",
    "temp-written/errors.jsonl:2",
    "renamed/errors.jsonl:2",
    "temp-written/results.jsonl:2",
    "renamed/results.jsonl:2",
    "temp-written/report.json:2",
    "renamed/report.json:2",
    "temp-written/done",
]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_retry_that_was_killed_anywhere_ends_as_one_that_was_not(done: Corpus, fault: str, kill_at: Any) -> None:
    untouched = done.base / "untouched"
    shutil.copytree(done.folder, untouched)
    overrides = {"engine": {"script": done.better}}
    kill_at(fault, lambda: retry_failed(done.folder, overrides))
    assert audit(done.folder).ok
    done.retry(done.better)
    assert_holds(done)
    retry_failed(untouched, overrides)
    for name in ("results.jsonl", "errors.jsonl"):
        assert (done.folder / name).read_bytes() == (untouched / name).read_bytes()
    assert not (done.folder / "retries" / "002").exists()


def test_a_retry_that_was_killed_at_its_very_end_is_completed_before_the_next(done: Corpus, kill_at: Any) -> None:
    kill_at("renamed/errors.jsonl:2", lambda: done.retry(done.better))
    done.retry(done.best)
    assert done.statuses == "ok ok ok failed ok ok"
    assert (done.folder / "retries" / "002.rows").read_text().split() == ["3", "4"]
    assert_holds(done)


# records over records

usages = st.builds(Usage, st.integers(0, 99), st.integers(0, 99), st.integers(0, 9))
failures = st.builds(
    Failure, st.sampled_from([k for k in FailureKind if k is not FailureKind.TRUNCATED]), st.just("no")
)


@st.composite
def records(draw: st.DrawFn, *, ok: bool | None = None) -> Record:
    """A record of one row whose books are in order, as ``Work`` makes them."""
    tries = draw(st.lists(st.tuples(failures, usages), max_size=3))
    is_ok = draw(st.booleans()) if ok is None else ok
    last = draw(usages) if is_ok else Usage()
    failure = None
    history = [Attempt(RequestKey(7, attempt=n), f, u, "text") for n, (f, u) in enumerate(tries, 1)]
    wasted = sum((attempt.usage for attempt in history), Usage())
    if not is_ok:
        failure = history[-1].failure if history else draw(failures)
        wasted = sum((attempt.usage for attempt in history[:-1]), Usage())
        last, history = (history[-1].usage if history else Usage()), history[:-1]
    return Record(
        7,
        "id",
        Status.OK if failure is None else failure.kind.status,
        output="x" if is_ok else None,
        finish_reason="stop",
        attempts=len(tries) + is_ok,
        usage=wasted + last,
        wasted=wasted,
        failure=failure,
        history=tuple(history),
    )


@given(records(ok=False), records())
def test_no_attempt_and_no_token_of_two_records_is_lost(before: Record, after: Record) -> None:
    both = combine(before, after)
    assert (both.status, both.output, both.failure) == (after.status, after.output, after.failure)
    assert both.usage == before.usage + after.usage
    assert both.attempts == before.attempts + after.attempts
    assert both.wasted == sum((attempt.usage for attempt in both.history), Usage())
    assert [attempt.key.attempt for attempt in both.history] == list(range(1, len(both.history) + 1))
    assert len(both.history) == both.attempts - (1 if after.attempts else 0)
    assert record_from_dict(json.loads(record_to_line(both))) == both


@given(records(ok=False), records())
def test_the_tokens_of_two_records_together_are_the_sum_of_theirs(before: Record, after: Record) -> None:
    summed, both = Ledger(), Ledger()
    summed.add(before)
    summed.add(after)
    both.add(combine(before, after))
    assert both.total == summed.total
    assert both.useful == summed.useful
    assert both.wasted == summed.wasted
    assert both.attempts == summed.attempts
    assert both.sent_back_tokens == summed.sent_back_tokens


def test_a_retry_of_other_rows_is_refused(done: Corpus) -> None:
    retry = done.base / "retry"
    retry.mkdir()
    lines = (done.folder / "results.jsonl").read_bytes().splitlines(keepends=True)
    (retry / "results.jsonl").write_bytes(lines[5])
    with pytest.raises(FolderError, match=r"has a row \(index 5\) that the run does not have"):
        list(overlay(lines[:5], [retry]))
    (retry / "results.jsonl").write_bytes(lines[1].replace(b"r1", b"r9"))
    with pytest.raises(FolderError, match="has the id 'r9', in the run it is 'r1'"):
        list(overlay(lines, [retry]))
