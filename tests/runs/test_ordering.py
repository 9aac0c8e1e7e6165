"""Runs that ask the rows of the whole input in an order of their own: the same records as in the order of the input."""

from __future__ import annotations

import functools
import gzip
import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import zstandard

from llmbatch.audit.audit import audit
from llmbatch.core.errors import EngineError, InputChanged, ReadError, RunError
from llmbatch.core.events import EngineReady, Sealed
from llmbatch.folder.folder import RunFolder
from llmbatch.folder.order import read_order
from llmbatch.runs import order_making, ordering
from llmbatch.runs.asked_process import AskedProcess
from llmbatch.runs.brakes import Stop
from llmbatch.runs.order_pass import read_block
from llmbatch.runs.retry_failed import retry_failed
from llmbatch.runs.session import run_job

pytestmark = pytest.mark.usefixtures("forked")
WINDOW = 32
PATIENCE_SECONDS = 120.0
PROMPT = "Read: {{ document }} Now say: {{ text }}"
BROKEN = ["{not json", '{"id": "no text"}', '{"text": 7, "document": "a"}', "[1]"]
SOME_FAIL = {
    "rules": [{"when": {"attempt": 1, "matches": "[05]$"}, "answer": ""}, {"when": {"matches": "03$"}, "answer": ""}]
}


def rows(groups: int = 40, each: int = 6, seed: int = 0) -> list[dict[str, Any]]:
    """Shuffled: so many questions about each of the documents, every tenth of them asked before."""
    draw = random.Random(seed)
    texts = [" ".join(f"{draw.randrange(10**6)}" for _ in range(40)) for _ in range(groups)]
    found = [{"document": text, "text": f"number {i * 100 + n}"} for i, text in enumerate(texts) for n in range(each)]
    found += found[::10]
    draw.shuffle(found)
    return [{"id": f"r{i}", **row} for i, row in enumerate(found)]


def job(
    jobs: Any,
    path: Path,
    name: str = "out",
    order: str = "corpus",
    script: Mapping[str, Any] = SOME_FAIL,
    **sections: Any,
) -> Any:
    sections = {"prompt": {"path": PROMPT}, **sections}
    run = {"window": WINDOW, "order": order, **sections.pop("run", {})}
    return jobs.job(path, script, output=str(jobs.path / name), run=run, **sections)


def as_in_input_order(jobs: Any, path: Path, **sections: Any) -> bytes:
    jobs.run(job(jobs, path, "plain", "input", **sections))
    results: bytes = jobs.results("plain")
    return results


def asked(jobs: Any, name: str = "out") -> list[int]:
    """The indexes of the rows in the order in which windows have them."""
    order = read_order(jobs.path / name)
    assert order is not None
    return [place.cursor.index for place in order.places(0, order.rows)]


# every source


def lines(jobs: Any, data: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    mixed = [line for i, row in enumerate(data) for line in ([row, BROKEN[i // 50 % 4], ""] if i % 50 == 7 else [row])]
    return {"path": str(jobs.rows(mixed))}


def several_files(jobs: Any, data: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    for number in range(3):
        jobs.rows(data[number::3], f"part-{number}.jsonl")
    return {"path": str(jobs.path / "part-*.jsonl")}


def gz(jobs: Any, data: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    path = jobs.path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(Path(lines(jobs, data)["path"]).read_bytes()))
    return {"path": str(path)}


def zst(jobs: Any, data: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    path = jobs.path / "rows.jsonl.zst"
    path.write_bytes(zstandard.compress(Path(lines(jobs, data)["path"]).read_bytes()))
    return {"path": str(path)}


def csv(jobs: Any, data: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    text = [f'{row["id"]},"{row["document"]}\n\n",{row["text"]}' for row in data]
    text[20:20] = ['x,"broken" quotes,1', "too,many,fields,here"]
    (jobs.path / "rows.csv").write_text("\n".join(["id,document,text", *text]))
    return {"path": str(jobs.path / "rows.csv")}


def parquet(jobs: Any, data: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist([dict(row) for row in data]), jobs.path / "rows.parquet", row_group_size=50)
    return {"path": str(jobs.path / "rows.parquet")}


def dataset(jobs: Any, data: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    import datasets

    datasets.Dataset.from_list([dict(row) for row in data]).save_to_disk(str(jobs.path / "data"))
    return {"path": str(jobs.path / "data")}


def first_rows(jobs: Any, data: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {**lines(jobs, data), "limit": 101}


KINDS = (lines, several_files, gz, zst, csv, parquet, dataset, first_rows)


@pytest.mark.parametrize("kind", KINDS)
def test_records_are_those_of_the_order_of_the_input_whatever_the_source(
    jobs: Any, kind: Callable[[Any, Sequence[Mapping[str, Any]]], dict[str, Any]]
) -> None:
    given = kind(jobs, rows())
    whole = as_in_input_order(jobs, Path(given["path"]), input=given)
    result = jobs.run(job(jobs, Path(given["path"]), input=given))
    assert asked(jobs) != sorted(asked(jobs))
    assert sorted(asked(jobs)) == list(range(len(jobs.records())))
    assert jobs.results() == whole
    assert (jobs.path / "out" / "errors.jsonl").read_bytes() == (jobs.path / "plain" / "errors.jsonl").read_bytes()
    assert audit(jobs.path / "out").complete, audit(jobs.path / "out")
    assert result.report["rows"]["total"] == len(jobs.records())


def test_what_came_through_stdin_is_ordered_too(jobs: Any) -> None:
    data = rows()
    whole = as_in_input_order(jobs, jobs.rows(data))
    given = jobs.data(Path("-"), SOME_FAIL, prompt={"path": PROMPT}, run={"window": WINDOW, "order": "corpus"})
    text = "".join(json.dumps(row) + "\n" for row in data)
    process = jobs.start(given, "--quiet", stdin=-1)
    _, complaint = process.communicate(text, timeout=120)
    assert process.returncode == 3, complaint
    assert jobs.results() == whole
    assert asked(jobs) != sorted(asked(jobs))


def test_rows_are_asked_group_by_group(jobs: Any) -> None:
    data = rows()
    jobs.run(job(jobs, jobs.rows(data)))
    documents = [data[index]["document"] for index in asked(jobs)]
    turns = 1 + sum(before != after for before, after in pairwise(documents))
    assert turns == 40


def test_windows_are_slices_of_the_order(jobs: Any) -> None:
    jobs.run(job(jobs, jobs.rows(rows())))
    order = asked(jobs)
    parts = RunFolder(jobs.path / "out").parts
    for number in range(len(order) // WINDOW):
        indexes = [json.loads(line)["index"] for line in parts.path(number).read_text().splitlines()]
        assert indexes == sorted(order[number * WINDOW : (number + 1) * WINDOW])


def test_windows_of_an_order_hold_a_quarter_of_the_characters(jobs: Any) -> None:
    path, most = jobs.rows(data := rows()), {"window": 1000, "window_characters": 8_000}
    for name, order in (("windows", "window"), ("ordered", "corpus")):
        jobs.run(job(jobs, path, name, order, run=most))

    def largest(name: str) -> int:
        parts = RunFolder(jobs.path / name).parts
        sealed, _ = parts.scan()
        lines = [parts.path(number).read_text().splitlines() for number in sealed]
        return max(len(part) for part in lines)

    row = sum(len(value) for value in data[0].values())
    assert 8_000 / row <= largest("windows") + 1 and largest("windows") > 3 * largest("ordered") > 3
    assert jobs.results("windows") == jobs.results("ordered")


def test_other_outputs_are_in_input_order_too(jobs: Any) -> None:
    import pyarrow.parquet as pq

    path = jobs.rows(rows())
    jobs.run(job(jobs, path, sinks={"formats": ["parquet", "by_file"], "keep": "all"}))
    assert pq.read_table(jobs.path / "out" / "results.parquet")["index"].to_pylist() == list(range(264))


def test_a_sweep_is_ordered_with_every_setting_of_a_row(jobs: Any) -> None:
    path, sweep = jobs.rows(rows(20)), {"sampling": {"max_tokens": [5, 50]}}
    whole = as_in_input_order(jobs, path, sweep=sweep)
    jobs.run(job(jobs, path, sweep=sweep))
    assert asked(jobs) != sorted(asked(jobs))
    assert jobs.results() == whole


# kills, stops, growth

FAULTS = (
    "order-block:1", "temp-written/places:1", "renamed/places:1", "order-sorted:1", "order-placed:1", "temp-written/order.json:1",
    "renamed/order.json:1", "journal-opened:1", "journal-torn:1", "journal-append:1", "part-sealed:2", "journal-removed:3",
    "temp-written/results.jsonl:1", "renamed/results.jsonl:1", "results-written:1",
)  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_that_was_killed_comes_to_the_same_bytes(jobs: Any, fault: str) -> None:
    path = jobs.rows([*rows(12), *BROKEN])
    whole = as_in_input_order(jobs, path)
    ordered = job(jobs, path, script=SOME_FAIL | {"latency": 0.05, "concurrency": 12})
    jobs.killed(ordered.data(), fault)
    before = read_order(jobs.path / "out")
    jobs.run(ordered)
    assert jobs.results() == whole
    after = read_order(jobs.path / "out")
    assert before is None or before == after
    assert audit(jobs.path / "out").complete
    assert [path.name for path in (jobs.path / "out" / "order").glob(".work-*")] == []


def test_where_the_pass_was_killed_another_job_may_begin(jobs: Any) -> None:
    path = jobs.rows(rows(12))
    jobs.killed(job(jobs, path).data(), "renamed/order.json:1")
    made_of = read_order(jobs.path / "out").made_of  # type: ignore[union-attr]
    jobs.run(job(jobs, path, prompt={"path": "Other: {{ text }} {{ document }}"}))
    after = read_order(jobs.path / "out")
    assert after is not None
    assert after.made_of["job"] != made_of["job"]


def test_a_run_goes_on_in_the_order_that_it_was_begun_in_whatever_is_asked_for_then(jobs: Any) -> None:
    path = jobs.rows(rows(12))
    whole = as_in_input_order(jobs, path)
    jobs.killed(job(jobs, path).data(), "part-sealed:1")
    jobs.run(job(jobs, path, order="input"))
    assert jobs.results() == whole
    jobs.killed(job(jobs, path, "other", "window").data(), "part-sealed:1")
    jobs.run(job(jobs, path, "other"))
    assert read_order(jobs.path / "other") is None
    assert jobs.results("other") == whole
    assert "order: this run was begun in windows of the input, and goes on so" in jobs.notes()


def test_records_so_far_are_in_input_order(jobs: Any) -> None:
    path = jobs.rows(rows(12))
    whole = as_in_input_order(jobs, path).splitlines(keepends=True)
    jobs.killed(job(jobs, path).data(), "part-sealed:2")
    so_far = list(RunFolder(jobs.path / "out").record_lines())
    assert WINDOW <= len(so_far) < len(whole)
    assert so_far == [line for line in whole if line in set(so_far)]
    found = audit(jobs.path / "out")
    assert found.ok, found
    assert found.rows_owed == len(whole) - len(so_far)


def test_an_input_that_has_grown_is_gone_on_with_behind_the_order(jobs: Any) -> None:
    data = rows(30)
    path = jobs.rows(data[:100])
    jobs.run(job(jobs, path))
    jobs.rows(data)
    with pytest.raises(InputChanged, match="has grown"):
        jobs.run(job(jobs, path))
    jobs.run(job(jobs, path), extend=True)
    assert len(asked(jobs)) == 100
    assert jobs.results() == as_in_input_order(jobs, path)
    assert audit(jobs.path / "out").complete


def test_a_row_that_was_changed_meanwhile_is_noticed(jobs: Any) -> None:
    path = jobs.rows(data := rows(12))
    jobs.killed(job(jobs, path).data(), "part-sealed:1")
    middle = data[30]["document"]
    text = path.read_text()
    path.write_text(text.replace(middle, middle[::-1], 1))
    with pytest.raises(InputChanged, match=r"rows 0 to \d+ differ"):
        jobs.run(job(jobs, path))
    path.write_text(text)
    os.utime(path, (1, 1))  # a file that was merely touched passes
    assert jobs.run(job(jobs, path)).outcome == "finished"


def test_copies_that_are_gone_are_an_error_that_names_them(jobs: Any) -> None:
    given = gz(jobs, rows(12))
    path = Path(given["path"])
    jobs.killed(job(jobs, path).data(), "part-sealed:1")
    copy = jobs.path / "out" / "order" / "rows-00000"
    content = copy.read_bytes()
    copy.unlink()
    with pytest.raises(ReadError, match="rows-00000: the copy of the input's rows cannot be read"):
        jobs.run(job(jobs, path))
    copy.write_bytes(content)
    assert jobs.run(job(jobs, path)).outcome == "finished"


def test_rows_that_failed_are_tried_again(jobs: Any) -> None:
    path = jobs.rows([*rows(20), *BROKEN])
    jobs.run(job(jobs, path))
    before = jobs.records()
    retry_failed(jobs.path / "out", {"engine": {"name": "scripted", "script": None}}, [jobs.events.append])
    after = jobs.records()
    assert [record["index"] for record in after] == [record["index"] for record in before]
    assert sum(record["status"] != "ok" for record in after) < sum(record["status"] != "ok" for record in before)
    assert audit(jobs.path / "out").complete


def test_an_audit_tells_an_order_that_was_changed(jobs: Any) -> None:
    jobs.run(job(jobs, jobs.rows(rows(12))))
    places = jobs.path / "out" / "order" / "places"
    content = bytearray(places.read_bytes())
    content[:48], content[-48:] = content[-48:], content[:48]
    places.write_bytes(bytes(content))
    problems = [problem for check in audit(jobs.path / "out").checks for problem in check.problems]
    assert any("its checksum is not what was written" in problem for problem in problems)
    assert any("has other rows than the order" in problem or "its meta file says" in problem for problem in problems)


# how it is decided


def test_an_input_of_one_window_needs_no_order(jobs: Any) -> None:
    jobs.run(job(jobs, jobs.rows(rows(4, 6)), run={"window": 1000}))
    assert read_order(jobs.path / "out") is None
    assert jobs.notes() == []


SHARED = 700


@pytest.fixture(scope="module")
def many() -> list[dict[str, Any]]:
    return rows(SHARED, 7)


def test_auto_orders_a_corpus_whose_groups_are_spread_and_says_why(jobs: Any, many: list[dict[str, Any]]) -> None:
    path = jobs.rows(many)
    jobs.run(job(jobs, path, order="auto", run={"window": 1024}))
    assert read_order(jobs.path / "out") is not None
    said, done = jobs.notes()
    assert "as a sample shows" in said
    assert "the input is read once before anything is asked" in said
    assert f"{len(many):,} rows were read by 1 process in" in done


def test_auto_leaves_a_corpus_alone_whose_groups_stand_together(jobs: Any, many: list[dict[str, Any]]) -> None:
    path = jobs.rows(sorted(many, key=lambda row: row["document"]))
    jobs.run(job(jobs, path, order="auto", run={"window": 1024}))
    assert read_order(jobs.path / "out") is None
    (said,) = jobs.notes()
    assert said.endswith("rows are asked in windows")


def test_auto_copies_what_cannot_be_entered_at_any_row_only_where_there_is_room(
    jobs: Any, many: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(gz(jobs, many)["path"])

    class Usage:
        free = 1 << 20

    monkeypatch.setattr(ordering.shutil, "disk_usage", lambda _: Usage)
    jobs.run(job(jobs, path, "full", "auto", run={"window": 1024}))
    assert read_order(jobs.path / "full") is None
    assert "has too little room (1 MiB): rows are asked in windows" in jobs.notes()[-1]
    Usage.free = 1 << 40
    jobs.run(job(jobs, path, "free", "auto", run={"window": 1024}))
    assert "its rows are copied into" in jobs.notes()[-2]
    assert jobs.results("free") == jobs.results("full")


@pytest.mark.parametrize(
    ("sections", "why"),
    [
        ({"input": {"shard": "1/2"}}, "of a slice"),
        ({"accept": {"rows": 5}}, "the run may end before its input"),
    ],
    ids=["shard", "accept"],
)
def test_why_there_is_no_order_is_said_where_one_was_asked_for(jobs: Any, sections: dict[str, Any], why: str) -> None:
    jobs.run(job(jobs, jobs.rows(rows(20)), **sections))
    assert any(note.startswith(f"order: rows are asked in windows of the input: {why}") for note in jobs.notes())
    assert read_order(jobs.path / "out") is None


def test_several_processes_make_the_order_that_one_makes(
    jobs: Any, many: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = jobs.rows([*many[:1500], *BROKEN])
    monkeypatch.setattr(order_making, "_BLOCK", 400)
    jobs.run(job(jobs, path, "one", run={"window": 512}))
    monkeypatch.setattr(order_making, "_WORTH_A_PROCESS", 1)
    monkeypatch.setattr(order_making, "processors", lambda: (0, 1, 2))
    # each of the others reads one block at least
    asked = AskedProcess.ask
    everyone = threading.Barrier(3)

    def ask(process: AskedProcess, message: Mapping[str, Any]) -> dict[str, Any]:
        if message.get("window", 9) < 3:
            everyone.wait(PATIENCE_SECONDS)
        return asked(process, message)

    def here(with_: Any, task: Any) -> Any:
        if task.window < 3:
            everyone.wait(PATIENCE_SECONDS)
        return read_block(with_, task)

    monkeypatch.setattr(AskedProcess, "ask", ask)
    monkeypatch.setattr(order_making, "read_block", here)
    jobs.run(job(jobs, path, "three", run={"window": 512}))
    one, three = read_order(jobs.path / "one"), read_order(jobs.path / "three")
    assert one is not None and three is not None
    assert (three.facts["processes"], one.facts["processes"]) == (3, 1)
    assert (one.read, one.facts["sha256"]) == (three.read, three.facts["sha256"])
    assert jobs.results("one") == jobs.results("three")


def test_what_lies_in_the_current_folder_hides_no_library_from_what_makes_the_order(
    jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json.py", "random.py", "duckdb.py"):
        (jobs.path / name).write_text("raise SystemExit('the user has a file of this name')")
    monkeypatch.chdir(jobs.path)
    jobs.run(job(jobs, jobs.rows(rows())))
    assert read_order(jobs.path / "out") is not None


def test_an_input_that_changes_while_it_is_read_is_told(
    jobs: Any, many: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order_making, "_WORTH_A_PROCESS", 1)
    monkeypatch.setattr(order_making, "processors", lambda: (0, 1))
    path = jobs.rows(many[:200])

    def cut(marks: Iterator[Any]) -> Iterator[Any]:
        found = list(marks)
        path.write_bytes(path.read_bytes()[:50])
        yield from tasks(iter(found))

    tasks = order_making._Tasks._of
    monkeypatch.setattr(order_making._Tasks, "_of", staticmethod(cut))
    with pytest.raises(RunError, match="the input changed while it was read"):
        jobs.run(job(jobs, path))
    assert read_order(jobs.path / "out") is None


def when_the_engine_is_up(jobs: Any, *arguments: Any) -> Any:
    """Makes the order once the engine has started, which nothing but the order waits for."""
    go_on = arguments[-1]
    end = time.monotonic() + PATIENCE_SECONDS
    while not any(isinstance(event, EngineReady) for event in jobs.events) and time.monotonic() < end:
        time.sleep(0.01)
    go_on()
    return order_making.make_order(*arguments)


def test_the_engine_starts_while_the_order_is_made(jobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = jobs.rows(rows(12))
    monkeypatch.setattr(ordering, "make_order", functools.partial(when_the_engine_is_up, jobs))
    jobs.run(job(jobs, path))
    assert read_order(jobs.path / "out") is not None
    events = [type(event) for event in jobs.events if isinstance(event, EngineReady | Sealed)]
    assert events[0] is EngineReady
    assert jobs.results() == as_in_input_order(jobs, path)


@pytest.mark.parametrize("order", ["auto", "corpus"])
def test_auto_makes_no_order_where_the_cache_holds_all_prompts(
    jobs: Any, many: list[dict[str, Any]], order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordering, "make_order", functools.partial(when_the_engine_is_up, jobs))
    large = SOME_FAIL | {"kv_cache_tokens": 10**9}
    jobs.run(job(jobs, jobs.rows(many), order=order, script=large, run={"window": 1024}))
    assert (read_order(jobs.path / "out") is None) == (order == "auto")
    assert jobs.notes()[-1].startswith("order: none is needed") == (order == "auto")
    assert [record["index"] for record in jobs.records()] == list(range(len(many)))


def never(*arguments: Any) -> None:
    """An order that takes for ever."""
    while True:
        arguments[-1]()
        time.sleep(0.01)


def test_a_run_that_is_stopped_while_its_order_is_made_ends_and_goes_on(
    jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, stop = jobs.rows(rows(12)), Stop()

    def stopped(*arguments: Any) -> None:
        stop.ask("enough")
        never(*arguments)

    monkeypatch.setattr(ordering, "make_order", stopped)
    assert run_job(job(jobs, path), stop=stop).outcome == "stopped"
    monkeypatch.undo()
    jobs.run(job(jobs, path))
    assert read_order(jobs.path / "out") is not None
    assert jobs.results() == as_in_input_order(jobs, path)


def test_an_engine_that_cannot_start_does_not_wait_for_the_order(jobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordering, "make_order", never)
    with pytest.raises(EngineError, match="the scripted engine has no memory"):
        jobs.run(job(jobs, jobs.rows(rows(12)), script={"concurrency": 1, "out_of_memory_above": 0}))


def test_windows_complete_in_the_order_of_the_corpus_and_the_input_is_not_held(
    jobs: Any, many: list[dict[str, Any]]
) -> None:
    """What is in memory is bounded by the windows that are open, whatever the order."""
    held: list[int] = []
    job_ = job(jobs, jobs.rows(many[:1500]), run={"window": 100, "windows_open": 2})

    def watch(event: object) -> None:
        if isinstance(event, Sealed):
            held.append(event.rows)

    jobs.run(job_, watch)
    assert max(held) == 100
    assert len(held) == 15
