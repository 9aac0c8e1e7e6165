"""The model that MLflow loads, on the scripted engine. What needs MLflow itself is in ``eval/systems/mlflow.py``."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from llmbatch.core.errors import JobError, RunError
from llmbatch.integrations.mlflow_models import LlmbatchModel, load_model, save_model
from llmbatch.integrations.spark.wire import Answer
from llmbatch.job.job import Job

RULES = [{"when": {"contains": "bad"}, "fail": "no such luck"}]
JOB: dict[str, Any] = {
    "model": "any", "engine": {"name": "scripted", "args": {"rules": RULES}}, "prompt": "{{ text }}",
}  # fmt: skip
TWO = {**JOB, "prompt": "{{ a }}-{{ b }}"}


def test_a_list_of_texts_gives_a_list_and_a_row_that_fails_none_and_an_error(caplog: pytest.LogCaptureFixture) -> None:
    model = LlmbatchModel(JOB)  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING, "llmbatch.mlflow"):
        assert model.predict(["one", "bad", None]) == ["one", None, None]
    assert model.errors[0] is None
    assert "no such luck" in str(model.errors[1])
    assert "2 of 3 rows have no output: row 1: engine: no such luck" in caplog.text
    model.close()


def test_a_frame_gives_a_frame_under_its_index() -> None:
    index = pd.Index(["x", "x"])
    found = LlmbatchModel(TWO).predict(pd.DataFrame({"a": ["1", "2"], "b": ["3", "bad"]}, index=index))  # type: ignore[arg-type]
    assert found.index.equals(index)
    assert found["output"].tolist() == ["1-3", None]
    assert found["error"].tolist()[0] is None
    assert LlmbatchModel(JOB).predict(pd.DataFrame({"any name": ["a"]}))["output"].tolist() == ["a"]  # type: ignore[arg-type]


def test_rows_may_be_mappings_and_values_alone_need_one_variable() -> None:
    model = LlmbatchModel(TWO)  # type: ignore[arg-type]
    assert model.predict([{"a": "1", "b": "2"}]) == ["1-2"]
    with pytest.raises(JobError, match="has the variables a, b: give rows as mappings"):
        model.predict(["1"])


def test_it_raises_where_it_is_to() -> None:
    model = LlmbatchModel(JOB, raise_on_error=True)  # type: ignore[arg-type]
    assert model.predict(["one"]) == ["one"]
    with pytest.raises(RunError, match="1 of 2 rows have no output: row 1: engine: no such luck"):
        model.predict(["one", "bad"])


def test_a_call_is_not_told_the_failures_of_another_that_came_in_between() -> None:
    model = LlmbatchModel(JOB, raise_on_error=True)  # type: ignore[arg-type]
    turn, others = model._turn, [["bad"]]

    class Turn:
        """The lock; whoever lets it go finds that another call was faster."""

        def __enter__(self) -> None:
            turn.acquire()

        def __exit__(self, *exception: object) -> None:
            turn.release()
            if others:
                with pytest.raises(RunError, match="1 of 1 rows"):
                    model.predict(others.pop())

    model._turn = Turn()  # type: ignore[assignment]
    assert model.predict(["one"]) == ["one"]


def test_parameters_of_a_call_go_over_the_jobs_and_the_engine_stays(tmp_path: Path) -> None:
    (tmp_path / "script.yaml").write_text("starts: 1\n")
    model = LlmbatchModel({**JOB, "engine": {"name": "scripted", "script": str(tmp_path / "script.yaml")}})  # type: ignore[typeddict-item]
    long = "many words that are more than three tokens"
    assert model.predict([long]) == [long]
    assert model.predict([long], params={"max_tokens": 3, "temperature": None}) == [None]
    assert "truncated" in str(model.errors[0])
    with pytest.raises(JobError, match="temprature"):
        model.predict([long], params={"temprature": 1})


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ({"column": "x"}, "column: a model of MLflow gives output and error"),
        ({"program": print}, "put the function into a module"),
    ],
    ids=["column", "function"],
)
def test_what_a_model_cannot_be_made_of_is_said(tmp_path: Path, job: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError, match=said):
        save_model(tmp_path / "model", **{**JOB, **job})


@pytest.mark.skipif(
    importlib.util.find_spec("mlflow") is None, reason="mlflow is not installed here: make systems tries it"
)
def test_a_saved_model_is_loaded_by_mlflow_and_by_us(tmp_path: Path) -> None:
    import mlflow

    save_model(tmp_path / "model", **JOB)
    assert mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(["one", "bad"]) == ["one", None]
    assert load_model(str(tmp_path / "model")).predict(["one"]) == ["one"]


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is not None, reason="mlflow is installed")
def test_without_mlflow_it_is_said_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"pip install 'llmbatch\[mlflow\]'"):
        save_model(tmp_path / "model", **JOB)


def test_in_a_task_of_spark_the_executor_s_engine_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(job: Job, rows: list[dict[str, Any]]) -> list[Answer]:
        assert job.sampling["temperature"] == 0.5
        return [
            Answer(f"elsewhere {row['text']}", None) if row["text"] else Answer(None, "prompt: blank") for row in rows
        ]

    monkeypatch.setattr("llmbatch.integrations.mlflow_models.in_task", lambda: True)
    monkeypatch.setattr("llmbatch.integrations.mlflow_models.executor_answers", answers)
    model = LlmbatchModel(JOB)  # type: ignore[arg-type]
    assert model.predict(["one", ""], {"temperature": 0.5}) == ["elsewhere one", None]
    assert model.errors == [None, "prompt: blank"]
    found = model.predict(
        pd.DataFrame({0: ["one", ""]}), {"temperature": 0.5}
    )  # as MLflow makes it of a column of Spark's
    assert found.to_dict("list") == {"output": ["elsewhere one", None], "error": [None, "prompt: blank"]}
