from __future__ import annotations

import contextlib
import datetime
import gc
import shutil
import tempfile
import threading
import tracemalloc
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import BaseModel, ValidationError, field_validator

import llmbatch
from llmbatch import FailureKind, Record, RunError, Status, Stopped, UsageError
from llmbatch.core import record as record_module
from llmbatch.core.errors import FolderError, JobError, Locked, PromptError, ReadError, SourceError
from llmbatch.core.events import Event, Finished
from llmbatch.core.types import Outcome
from llmbatch.engines.base import Engine, EngineFactory
from llmbatch.engines.feed import Feed
from llmbatch.engines.kinds import make_engine
from llmbatch.runs.session import open_session

ROWS = [{"id": f"r{i}", "text": f"text {i}"} for i in range(10)]
SCRIPTED: Any = {"name": "scripted"}
PROMPT = "{{ text }}"


class Answer(BaseModel):
    value: int

    @field_validator("value")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("must be even")
        return value


def run(folder: Path, **arguments: Any) -> llmbatch.Run:
    settings = {"model": "any", "prompt": PROMPT, "input": ROWS, "output": folder / "out", "engine": SCRIPTED}
    return llmbatch.run(**{**settings, **arguments})


def generate(rows: Any = ROWS, **arguments: Any) -> Iterator[Record]:
    return llmbatch.generate(rows, **{"model": "any", "prompt": PROMPT, "engine": SCRIPTED, **arguments})


def script(folder: Path, text: str) -> dict[str, Any]:
    (folder / "script.yaml").write_text(text)
    return {"name": "scripted", "script": str(folder / "script.yaml")}


# run


def test_a_run_gives_one_record_for_each_row_in_the_order_of_the_rows(tmp_path: Path) -> None:
    done = run(tmp_path, run={"window": 3})
    assert [record.id for record in done] == [row["id"] for row in ROWS]
    assert [record.output for record in done] == [row["text"] for row in ROWS]
    assert done.exit_code == 0
    assert done.report["rows"]["done"] == 10
    assert done.folder == tmp_path / "out"


def test_the_input_can_be_a_path_or_a_section(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"key": "a", "text": "x"}\n')
    (record,) = run(tmp_path, input=path)
    assert record.id == 0
    (record,) = run(tmp_path, input={"path": path, "id_field": "key"}, output=tmp_path / "other")
    assert record.id == "a"


def test_a_dataset_is_an_input(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    done = run(tmp_path, input=datasets.Dataset.from_list(ROWS))
    assert [record.output for record in done] == [row["text"] for row in ROWS]


def test_the_same_call_again_does_nothing(tmp_path: Path) -> None:
    first = run(tmp_path)
    before = (tmp_path / "out" / "report.json").read_bytes()
    again = run(tmp_path)
    assert list(again) == list(first)
    assert (tmp_path / "out" / "report.json").read_bytes() == before


def test_other_rows_in_the_same_folder_are_refused(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(JobError, match=r"holds other rows in input\.jsonl; give the same rows, or another output"):
        run(tmp_path, input=[*ROWS[:-1], {"text": "other"}])
    with pytest.raises(JobError, match="holds other rows"):
        run(tmp_path, input=ROWS[:-1])
    assert run(tmp_path).exit_code == 0


def test_more_rows_in_the_same_folder_need_extend(tmp_path: Path) -> None:
    run(tmp_path)
    more = [*ROWS, {"id": "new", "text": "more"}]
    with pytest.raises(JobError, match="give extend=True to run the new ones too"):
        run(tmp_path, input=more)
    done = run(tmp_path, input=iter(more), extend=True)
    assert [record.output for record in done] == [row["text"] for row in more]


def test_a_folder_at_home_is_found_by_its_short_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "script.yaml").write_text("rules: [{answer: blue}]")
    for rows in (ROWS, {"path": "~/out/input.jsonl", "format": "jsonl"}):
        done = run(tmp_path, output="~/out", input=rows, engine={"name": "scripted", "script": "~/script.yaml"})
        assert [record.output for record in done] == ["blue"] * len(ROWS)
        assert done.folder == tmp_path / "out"
    assert not (tmp_path / "~").exists()


def test_no_rows_leave_nothing_that_stands_in_the_way_of_the_right_ones(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there are no rows in the input: give at least one"):
        run(tmp_path, input=[])
    assert run(tmp_path).exit_code == 0
    with pytest.raises(JobError, match="holds other rows"):
        run(tmp_path, input=[])


def test_a_file_of_the_user_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    theirs = tmp_path / "out" / "input.jsonl"
    theirs.write_text("mine\n")
    with pytest.raises(JobError, match="holds other rows"):
        run(tmp_path)
    (tmp_path / "out" / "thesis.txt").write_text("mine\n")
    with pytest.raises(FolderError, match="holds files that are not llmbatch's"):
        run(tmp_path)
    assert theirs.read_text() == "mine\n"


def test_a_job_that_is_wrong_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(PromptError):
        run(tmp_path, prompt="{{ text")
    with pytest.raises(JobError, match=r"unknown key 'retries': did you mean retry\?"):
        run(tmp_path, retries={})
    with pytest.raises(JobError, match=r"unknown key 'retry.max_atempts'"):
        run(tmp_path, retry={"max_atempts": 3})
    with pytest.raises(JobError, match="prompt is missing"):
        run(tmp_path, prompt=None)
    with pytest.raises(UsageError, match="answer"):
        run(tmp_path, schema=Answer, answer="text")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("rows", [b"bytes", 5, None])
def test_what_is_no_collection_of_rows_is_refused(tmp_path: Path, rows: Any) -> None:
    with pytest.raises(JobError, match="rows are mappings, one a row, not a"):
        run(tmp_path, input=rows)


def test_a_text_among_the_rows_is_a_malformed_row_and_rows_that_are_all_texts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="all of these are texts, as 'one'"):
        run(tmp_path, input=["one", "two"])
    assert [record.status for record in run(tmp_path, input=iter(["one", ROWS[0]]))] == [Status.FAILED, Status.OK]


def test_a_series_of_mappings_is_rows(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    assert [record.output for record in run(tmp_path, input=pandas.Series(ROWS))] == [row["text"] for row in ROWS]


def test_a_row_that_json_cannot_hold_is_a_malformed_row(tmp_path: Path) -> None:
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    rows = [
        ROWS[0],
        5,
        {"text": object()},
        {"text": "\ud800"},
        ["text"],
        loop,
        {("a",): 1},
        {"text": 10**5000},
        ROWS[1],
    ]
    done = run(tmp_path, input=rows)
    records = list(done)
    assert [r.status for r in records] == [Status.OK, *[Status.FAILED] * 7, Status.OK]
    assert {r.failure.kind for r in records if r.failure} == {FailureKind.MALFORMED_ROW}
    assert "a value of type builtins.object, which JSON cannot hold" in str(records[2].failure)
    assert done.exit_code == 3


def test_dates_numbers_and_the_like_become_what_json_has(tmp_path: Path) -> None:
    row = {"text": "x", "day": datetime.date(2020, 1, 2), "nan": float("nan"), "raw": b"abc", "items": (1, 2)}
    (record,) = run(tmp_path, input=[row], sinks={"keep": "all"})
    assert record.input == {"text": "x", "day": "2020-01-02", "nan": None, "raw": "abc", "items": [1, 2]}


def test_an_error_of_the_callers_own_generator_comes_out_as_it_is(tmp_path: Path) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield ROWS[0]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(tmp_path, input=rows())

    def broken() -> Iterator[dict[str, Any]]:
        yield ROWS[0]
        raise OSError("no route to host")

    with pytest.raises(ReadError, match="reading the rows failed: no route to host"):
        run(tmp_path, input=broken())
    assert run(tmp_path).exit_code == 0


def test_a_folder_that_another_run_has_is_refused(tmp_path: Path) -> None:
    with_records = generate_into(tmp_path)
    next(with_records)
    with pytest.raises(Locked, match="another run has this folder"):
        run(tmp_path)
    with_records.close()


def generate_into(folder: Path) -> Any:
    from llmbatch.job.job import job_from
    from llmbatch.runs.session import open_session

    (folder / "rows.jsonl").write_text('{"text": "a"}\n')
    data = {
        "model": "any",
        "prompt": PROMPT,
        "input": str(folder / "rows.jsonl"),
        "output": str(folder / "out"),
        "engine": SCRIPTED,
    }
    with open_session(job_from(data)) as session:
        yield from session.windows()


def test_watchers_are_told_how_it_goes(tmp_path: Path) -> None:
    seen: list[Event] = []
    run(tmp_path, watchers=[seen.append])
    assert isinstance(seen[-1], Finished)
    assert seen[-1].outcome == "finished"


def test_a_run_that_was_stopped_has_no_records_and_the_same_call_goes_on(tmp_path: Path) -> None:
    stopped = run(
        tmp_path,
        run={"max_total_tokens": 1, "window": 2, "windows_open": 1, "grace": 0},
        engine={**SCRIPTED, "args": {"latency": 0.3}},
    )
    assert stopped.exit_code == 130
    with pytest.raises(RunError, match="the run did not finish"):
        list(stopped)
    with pytest.raises(RunError, match="the run did not finish"):
        stopped.to_dataset()
    assert [record.id for record in run(tmp_path)] == [row["id"] for row in ROWS]


# what comes out


def test_a_schema_from_a_pydantic_model_gives_typed_results(tmp_path: Path) -> None:
    rules = "rules: [{when: {index: 1}, answer: '{\"value\": 3}'}, {answer: '{\"value\": 4}'}]"
    done = run(tmp_path, input=ROWS[:3], schema=Answer, engine=script(tmp_path, rules), retry={"max_attempts": 1})
    assert list(done.parsed(Answer)) == [Answer(value=4), None, Answer(value=4)]
    failed = list(done)[1]
    assert failed.failure is not None
    assert failed.failure.kind is FailureKind.SCHEMA
    assert "must be even" in failed.failure.message


def test_a_model_that_cannot_be_imported_is_used_by_its_schema(tmp_path: Path) -> None:
    class Local(BaseModel):
        value: int

    done = run(tmp_path, input=ROWS[:1], schema=Local, engine=script(tmp_path, "rules: [{answer: '{\"value\": 3}'}]"))
    assert list(done.parsed(Local)) == [Local(value=3)]
    with pytest.raises(ValidationError):
        list(done.parsed(Answer))


def test_a_json_schema_is_a_schema_too(tmp_path: Path) -> None:
    (record,) = run(tmp_path, input=ROWS[:1], schema={"type": "integer"})
    assert record.output == 0


def test_results_become_a_dataset(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    done = run(tmp_path)
    assert done.to_dataset()["output"][:] == [row["text"] for row in ROWS]


def test_results_become_a_dataset_when_the_prompt_is_not_there_any_more(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    prompt = tmp_path / "prompt.yaml"
    prompt.write_text("name: echo\ntext: '{{ text }}'\nvariables: {text: {type: string}}\n")
    done = run(tmp_path, prompt=prompt)
    prompt.unlink()
    assert done.to_dataset()["output"][:] == [row["text"] for row in ROWS]


def test_the_dataset_is_made_anew_when_the_results_changed(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    run(tmp_path).to_dataset()
    more = [*ROWS, {"id": "new", "text": "more"}]
    assert len(run(tmp_path, input=more, extend=True).to_dataset()) == 11


def test_the_dataset_has_the_columns_of_now_also_where_an_older_version_wrote_the_table(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    pq = pytest.importorskip("pyarrow.parquet")
    done = run(tmp_path, sinks={"formats": ["parquet"]})
    path = done.folder / "results.parquet"
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["stop_reason"]).replace_schema_metadata(None), path)
    assert done.to_dataset()["stop_reason"][:] == [None] * len(ROWS)


def test_results_that_are_damaged_are_an_error_that_names_the_audit(tmp_path: Path) -> None:
    done = run(tmp_path)
    (done.folder / "results.jsonl").write_text("{}\n")
    with pytest.raises(FolderError, match="see llmbatch audit"):
        list(done)


# generate


@pytest.fixture
def nothing_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files that is empty afterwards, and no thread or process more than before."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    threads, processes = set(threading.enumerate()), set(psutil.Process().children(recursive=True))
    yield place
    gc.collect()
    assert list(place.iterdir()) == []
    assert set(threading.enumerate()) <= threads
    assert set(psutil.Process().children(recursive=True)) <= processes


@pytest.mark.usefixtures("nothing_left")
def test_records_come_in_the_order_of_the_rows_and_nothing_is_left() -> None:
    assert [record.output for record in generate(run={"window": 3})] == [row["text"] for row in ROWS]


@pytest.mark.usefixtures("nothing_left")
def test_records_come_in_the_order_of_the_rows_when_later_windows_are_done_first(tmp_path: Path) -> None:
    engine = script(tmp_path, "latency: 0.05\njitter: 1\nconcurrency: 20")
    rows = [{"id": i, "text": str(i)} for i in range(60)]
    assert [record.id for record in generate(rows, engine=engine, run={"window": 1})] == list(range(60))


def first_row_last(rows: int) -> EngineFactory:
    """Makes scripted engines that give the answer of row 0 when those of all the others are there."""

    def make(*arguments: Any) -> Engine:
        engine: Any = make_engine(*arguments)
        inner = engine.stream

        def stream(feed: Feed) -> Iterator[list[Outcome]]:
            held: list[Outcome] = []
            others = 0
            for outcomes in inner(feed):
                ready = [outcome for outcome in outcomes if outcome.key.index > 0]
                held += [outcome for outcome in outcomes if outcome.key.index == 0]
                others += len(ready)
                yield ready if others < rows - 1 else ready + held
                held = held if others < rows - 1 else []

        engine.stream = stream
        return engine  # type: ignore[no-any-return]

    return make


@pytest.mark.usefixtures("nothing_left")
def test_records_that_wait_behind_a_slow_row_wait_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 0 is answered when all the others are: by then memory holds few of their answers."""
    monkeypatch.setattr("llmbatch.api.open_session", partial(open_session, make=first_row_last(40)))
    settings: dict[str, Any] = {
        "engine": script(tmp_path, f"rules: [{{answer: '{'x' * 200_000}'}}]"),
        "run": {"window": 1, "windows_open": 4},
        "reuse": {"memory_rows": 0},
        "sampling": {"max_tokens": 300_000},
    }
    rows = [{"id": i, "text": str(i)} for i in range(40)]
    tracemalloc.start()
    try:
        with contextlib.closing(llmbatch.generate(rows, model="any", prompt=PROMPT, **settings)) as records:
            first = next(records)
            texts = tracemalloc.take_snapshot().filter_traces(
                [tracemalloc.Filter(True, str(Path(record_module.__file__)))]
            )
            held = sum(trace.size for trace in texts.traces)
            assert [first.id, *(r.id for r in records)] == list(range(40))
    finally:
        tracemalloc.stop()
    assert held < 4_000_000, "of the 8 million bytes of all records"


def test_records_abandoned_half_way_leave_nothing(nothing_left: Path) -> None:
    records = generate(run={"window": 2})
    assert next(records).id == "r0"
    assert list(nothing_left.iterdir()) != []
    records.close()  # type: ignore[attr-defined]


@pytest.mark.usefixtures("nothing_left")
def test_records_forgotten_half_way_leave_nothing() -> None:
    seen = []
    for record in generate(run={"window": 2}):
        seen.append(record.id)
        break
    assert seen == ["r0"]


def test_records_never_asked_for_cost_nothing(nothing_left: Path) -> None:
    threads = set(threading.enumerate())
    records = generate()
    assert list(nothing_left.iterdir()) == []
    assert set(threading.enumerate()) <= threads
    del records


@pytest.mark.usefixtures("nothing_left")
def test_an_error_in_the_callers_loop_leaves_nothing() -> None:
    def broken() -> None:
        for _ in generate(run={"window": 2}):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()


def test_what_is_wrong_with_the_job_is_said_before_the_first_record() -> None:
    with pytest.raises(PromptError):
        generate(prompt="{{ text")
    with pytest.raises(JobError, match="did you mean retry"):
        generate(retries={})


@pytest.mark.usefixtures("nothing_left")
def test_a_generator_that_was_stopped_says_so_instead_of_ending_early() -> None:
    with pytest.raises(Stopped, match="max_total_tokens"):
        list(
            generate(
                run={"max_total_tokens": 1, "window": 1, "windows_open": 1, "grace": 0},
                engine={**SCRIPTED, "args": {"latency": 0.3}},
            )
        )


@pytest.mark.usefixtures("nothing_left")
def test_too_many_failures_end_a_generator_with_that_error(tmp_path: Path) -> None:
    engine = script(tmp_path, "rules: [{fail: broken}]\nlatency: 0.3")
    with pytest.raises(RunError, match="more than max_failures=0 allows"):
        list(
            generate(engine=engine, run={"max_failures": 0, "window": 1, "windows_open": 1}, retry={"max_attempts": 1})
        )


def test_no_rows_are_no_input() -> None:
    with pytest.raises(SourceError, match="there are no rows in the input: give at least one"):
        list(generate([]))


def test_the_field_that_names_a_row_can_be_said() -> None:
    assert [r.id for r in generate([{"key": "k", "text": "x"}], input={"id_field": "key"})] == ["k"]


def test_a_run_folder_that_was_moved_goes_on(tmp_path: Path) -> None:
    from llmbatch.job.job import job_from, load_job_data
    from llmbatch.runs.session import run_job

    run(tmp_path)
    shutil.move(tmp_path / "out", tmp_path / "moved")
    result = run_job(job_from(load_job_data(tmp_path / "moved" / "job.yaml")))
    assert result.exit_code == 0
    assert result.folder == tmp_path / "moved"
