"""Never run: the public API as a typed caller uses it, checked by mypy --strict as part of ``make check``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, assert_type

from pydantic import BaseModel

import llmbatch
import llmbatch.huggingface
from llmbatch import (
    Ask,
    Branches,
    Complete,
    Failure,
    FailureKind,
    Incomplete,
    Program,
    Record,
    RowAsk,
    Run,
    Status,
    Usage,
)
from llmbatch.core.events import Event, Finished


class City(BaseModel):
    name: str
    people: int


def watch(event: Event) -> None:
    if isinstance(event, Finished):
        assert_type(event.outcome, Literal["finished", "stopped", "broken"])


# a run, from a path, a section or rows
run = llmbatch.run(model="demo", prompt="summarize", input="rows.jsonl", output="out")
assert_type(run, Run)
assert_type(run.folder, Path)
assert_type(run.exit_code, int)
assert_type(run.report["exit_code"], int)
assert_type(run.report["tokens"]["useful"]["prompt_tokens"], int)

llmbatch.run(
    model=Path("models/small"),
    prompt={"path": "translate.yaml", "variables": {"language": "French"}},
    input={"path": "rows.csv", "id_field": "key"},
    output=Path("out"),
    schema=City,
    watchers=[watch],
    extend=True,
    engine={"args": {"tensor_parallel_size": 2}},
    sampling={"temperature": 0},
    retry={"max_attempts": 3},
    sinks={"keep": "all", "formats": ["parquet"]},
)
llmbatch.run(model="demo", prompt="{{ text }}", input=[{"text": "one"}], output="out", schema={"type": "object"})
llmbatch.run(model="demo", prompt="{{ text }}", input=({"text": str(i)} for i in range(3)), output="out", schema="a:B")
llmbatch.run(model="demo", input="requests.jsonl", output="out")


# a program of one's own
def ask_side_by_side(row: RowAsk) -> Program:
    first, second = yield Branches([ask_twice(row), ask_twice(row)])
    return Complete([first, second])


def ask_twice(row: RowAsk) -> Program:
    ask = row.ask()
    assert_type(ask, Ask | Failure)
    draft = yield ask
    if draft is None:
        return Incomplete(failure=ask if isinstance(ask, Failure) else None)
    better = yield [row.ask("better", draft=draft.value)]
    return Complete(better, {"draft": draft.value})


llmbatch.run(model="demo", prompt="{{ text }}", input="rows.jsonl", output="out", program=ask_twice)
section = {"name": ask_twice, "prompts": {"better": "Better: {{ draft }}"}, "settings": {"times": 2}}
llmbatch.run(model="demo", prompt="{{ text }}", input="rows.jsonl", output="out", program=section)
llmbatch.generate([{"text": "one"}], model="demo", prompt="{{ text }}", program="mymodule:ask_twice")
llmbatch.generate([{"text": "one"}], model="demo", prompt="{{ text }}", program={"name": "chain"})

# its records
for record in run:
    assert_type(record, Record)
    assert_type(record.id, str | int)
    assert_type(record.status, Status)
    assert_type(record.usage, Usage)
    if record.failure is not None:
        assert_type(record.failure.kind, FailureKind)
        assert_type(record.failure.message, str)
for city in run.parsed(City):
    assert_type(city, City | None)
run.to_dataset()
for vector in run.vectors():
    assert vector is None or vector.shape

# records without a run folder
records = llmbatch.generate([{"text": "one"}], model="demo", prompt="{{ text }}", schema=City)
with contextlib.closing(records):
    assert_type(next(records), Record)
plain: Iterator[Record] = llmbatch.generate([{"text": "one"}], model="demo", prompt="{{ text }}")

# a dataset of runs
published = llmbatch.publish(run, "dataset", layout="chat", where=["output.score >= 4"], split={"test": 0.1})
assert_type(published, llmbatch.Published)
assert_type(published.folder, Path)
assert_type(published.rows, int)
llmbatch.publish([Path("one"), "two"], Path("dataset"), push_to="owner/name", private=True, license="apache-2.0")

# a model scored on a task
evaluated = llmbatch.evaluate("demo-numbers", model="demo", output="scores", limit=10, engine={"name": "scripted"})
if evaluated.scores is not None:
    assert_type(evaluated.scores.overall.figures["exact_match"].value, float | None)
llmbatch.evaluate({"name": "mine"}, model="demo", output=Path("scores"), until_interval=0.02)

# errors
try:
    llmbatch.run(model="demo", prompt="{{ text }}", input="rows.jsonl", output="out")
except llmbatch.UsageError as usage_error:
    assert_type(usage_error.exit_code, int)
except (llmbatch.RunError, llmbatch.Stopped) as error:
    assert_type(str(error), str)
except llmbatch.LlmbatchError:
    pass

# what a type checker is to refuse (an ignore that is not needed is an error under --strict)
llmbatch.run(model="demo", prompt="x", output="out")  # type: ignore[call-arg]
llmbatch.run("demo", prompt="x", input="y", output="out")  # type: ignore[call-arg]
llmbatch.run(model="demo", prompt="x", input="y", output="out", engine="vllm")  # type: ignore[arg-type]
llmbatch.run(model="demo", prompt="x", input=5, output="out")  # type: ignore[arg-type]
llmbatch.generate(["text"], model="demo", prompt="x")  # type: ignore[list-item]
llmbatch.generate([{"text": "one"}], model="demo", prompt="x", program=lambda: None)  # type: ignore[arg-type]
run.parsed(dict)  # type: ignore[type-var]
record.status = Status.OK  # type: ignore[misc]

# in other people's programs the arguments of a job are typed too
llmbatch.huggingface.Map(model="demo", prompt="x", schema=City, expand=True, sampling={"temperature": 0})
llmbatch.huggingface.Map(prompt="x")  # type: ignore[call-arg]
llmbatch.huggingface.Map(model="demo", prompts="x")  # type: ignore[call-arg]
