"""The stage in pipelines of a real Ray Data, on the scripted engine: one record a row, in order."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from typing import Any

import pytest

import llmbatch
from llmbatch.core.errors import JobError

COMMON: dict[str, Any] = {"model": "any", "engine": {"name": "scripted"}, "sampling": {"temperature": 0}}


def setup_module() -> None:
    """Ray takes seconds to import, and each of pytest's workers reads every test file."""
    global ray
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")


@pytest.fixture(scope="module")
def data() -> Iterator[Any]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    for _ in range(5):  # Ray gives itself half a minute to start, which is short where much else runs
        try:
            ray.init(
                address="local", num_cpus=2, include_dashboard=False, object_store_memory=80 << 20, log_to_driver=False,
                configure_logging=False,
            )  # fmt: skip
            break
        except Exception:
            ray.shutdown()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True  # of blocks: else they come back as they are finished
    yield ray.data
    context.execution_options.preserve_order = False
    ray.shutdown()


def test_each_row_comes_back_in_order_with_what_became_of_it(data: Any) -> None:
    rows = [{"id": i, "text": f"text {i}", "deep": {"a": [i]}} for i in range(50)]
    del rows[7]["text"]
    rules = [{"when": {"matches": "9$"}, "answer": ""}, {"when": {"matches": "5$"}, "answer": '{"five": 5}'}]
    late = {"latency": 0.01, "jitter": 1.0}  # no answer comes in its turn
    job = {**COMMON, "prompt": "{{ text }}", "engine": {"name": "scripted", "args": {"rules": rules, **late}}}
    ds = data.from_items(rows, override_num_blocks=3).map_batches(
        llmbatch.ray.Stage, fn_constructor_kwargs=job, batch_size=20, concurrency=1, num_cpus=1
    )
    found = ds.take_all()
    assert [row["id"] for row in found] == list(range(50))
    assert [row["deep"]["a"][0] for row in found] == list(range(50))
    assert {row["id"]: row["error_kind"] for row in found if row["status"] != "ok"} == {
        7: "prompt", **dict.fromkeys((9, 19, 29, 39, 49), "empty")
    }  # fmt: skip
    assert all(row["output"] == f"text {row['id']}" for row in found if row["status"] == "ok" and row["id"] % 10 != 5)
    assert found[5]["output"] == '{"five": 5}'
    assert {row["attempts"] for row in found if row["error_kind"] == "empty"} == {3}


@pytest.mark.parametrize("kind", ["numpy", "pandas", "pyarrow"])
def test_a_batch_of_any_format_comes_back_as_a_table(kind: str) -> None:
    import pandas
    import pyarrow

    columns = {"text": ["a", "b"], "n": [1, 2]}
    frame = pandas.DataFrame(columns)
    batch = {"numpy": {name: frame[name].to_numpy() for name in columns}, "pandas": frame}.get(
        kind, pyarrow.table(columns)
    )
    table = llmbatch.ray.Stage(**COMMON, prompt="{{ n }}: {{ text }}", prefix="said_")(batch)
    assert table.column("said_output").to_pylist() == ["1: a", "2: b"]
    assert table.column("n").to_pylist() == [1, 2]
    assert table.column_names == ["text", "n", *(f"said_{name}" for name in llmbatch.ray.COLUMNS)]


def test_the_rows_of_a_batch_are_in_its_order_however_their_answers_come() -> None:
    engine = {"name": "scripted", "args": {"latency": 0.01, "jitter": 1.0}}
    table = llmbatch.ray.Stage(**{**COMMON, "engine": engine}, prompt="{{ n }}")({"n": list(range(40, 0, -1))})
    assert table.column("n").to_pylist() == list(range(40, 0, -1))
    assert table.column("output").to_pylist() == [str(n) for n in range(40, 0, -1)]


def test_a_batch_without_rows_has_the_same_columns() -> None:
    import pyarrow

    stage = llmbatch.ray.Stage(**COMMON, prompt="{{ text }}")
    assert (
        stage(pyarrow.table({"text": pyarrow.array([], pyarrow.string())})).schema
        == stage(pyarrow.table({"text": ["a"]})).schema
    )


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"engine": {"name": "scripted", "cluster": "ray"}}, "Ray Data places this stage itself"),
        ({"accept": {"rows": 3}}, "one record for every row"),
        ({"sweep": {"sampling.temperature": [0, 1]}}, "every row comes once"),
        ({"input": {"limit": 1}}, "of input only id_field counts"),
        ({"output": "out"}, "a run folder"),
        ({"engine": {"name": "no"}}, "no"),
    ],
    ids=["cluster", "accept", "sweep", "input", "output", "engine"],
)
def test_what_is_wrong_with_a_stage_is_said_when_it_is_made(more: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError, match=said):
        llmbatch.ray.Stage(**{**COMMON, "prompt": "{{ text }}", **more})


def test_columns_that_are_there_already_are_not_overwritten() -> None:
    stage = llmbatch.ray.Stage(**COMMON, prompt="{{ text }}")
    with pytest.raises(JobError, match="columns of these names already: output; give the stage a prefix"):
        stage({"text": ["a"], "output": ["b"]})


def test_a_program_that_is_a_function_lasts_as_long_as_the_stage() -> None:
    def made() -> Any:
        def twice(row: llmbatch.RowAsk) -> llmbatch.Program:
            first = yield row.ask()
            return None if first is None else 2 * str(first.value)

        return twice

    stage = llmbatch.ray.Stage(**COMMON, prompt="{{ text }}", program=made())
    gc.collect()
    assert stage({"text": ["a", "b"]}).column("output").to_pylist() == ["aa", "bb"]


@pytest.mark.parametrize(
    "engine", [{"replicas": 2}, {"hosted": True}, {"replicas": "auto"}], ids=["two", "apart", "auto"]
)
def test_engines_that_cannot_be_kept_answer_each_batch_anew(engine: dict[str, Any]) -> None:
    stage = llmbatch.ray.Stage(**{**COMMON, "engine": {"name": "scripted", **engine}}, prompt="{{ text }}")
    for text in ("a", "b"):
        assert stage({"text": [text]}).column("output").to_pylist() == [text]
