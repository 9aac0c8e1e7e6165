"""A job in; a model of MLflow (``python_function``) that answers rows as the job does, out, and back.

The model is a folder with the job and its prompt: nothing is pickled, and no code is in it. Its weights are where the job names
them, on the hub or in a folder. Its signature has the prompt's variables as inputs, and the job's sampling as parameters with their
defaults.

    llmbatch.mlflow.log_model(name="translator", model="demo", prompt="translate")
    mlflow.pyfunc.load_model("models:/translator/1").predict(["two"], params={"temperature": 0.5})
"""

from __future__ import annotations

import json
import logging
import tempfile
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Unpack, cast

import pandas as pd

from llmbatch import __version__
from llmbatch.core.errors import JobError, RunError
from llmbatch.core.files import atomic_write
from llmbatch.core.imports import extra
from llmbatch.engines.keeper import EngineKeeper
from llmbatch.integrations.frames import JobArguments, TableJob
from llmbatch.integrations.frames_pandas import rows_of
from llmbatch.integrations.spark.tables import executor_answers, in_task
from llmbatch.job.job import load_job_data
from llmbatch.prompt.library import read_prompt

LOADER = "llmbatch.mlflow"
_JOB, _PROMPT, _SETTINGS = "job.yaml", "prompt.yaml", "llmbatch.json"
_OUTPUT, _ERROR = "output", "error"
_FAILED_SHOWN = 3
_SAMPLINGS_KEPT = 64
_WHOLE, _REAL = "long", "double"
# what a call may say by itself, by vLLM's names, and of which type it is for MLflow
PARAMETERS = {
    "temperature": _REAL, "top_p": _REAL, "top_k": _WHOLE, "min_p": _REAL, "max_tokens": _WHOLE, "min_tokens": _WHOLE,
    "seed": _WHOLE, "presence_penalty": _REAL, "frequency_penalty": _REAL, "repetition_penalty": _REAL,
}  # fmt: skip
_TYPES = {"string": "string", "integer": _WHOLE, "number": _REAL, "boolean": "boolean"}

_logger = logging.getLogger("llmbatch.mlflow")


class LlmbatchModel:
    """The model as MLflow loads it. One engine, started by the first rows, serves all calls, one after another.

    In tasks of Spark (``mlflow.pyfunc.spark_udf``) it is the executor's, and serves all of its Python workers: each of these loads
    the model.
    """

    def __init__(self, job: JobArguments, *, raise_on_error: bool = False) -> None:
        self._job = job
        self._raises = raise_on_error
        self._keeper = EngineKeeper()
        self._turn = threading.Lock()
        self._tables: dict[str, TableJob] = {}
        self._table({})  # says what is wrong with the job
        self.errors: list[str | None] = []
        """Of the last call: why a row has no output, None where it has one."""
        self.close = weakref.finalize(self, self._keeper.close)
        """End the engine; it also ends with this object."""

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> Any:
        """An output for each row: a list for a list, for a DataFrame one with ``output`` and ``error`` under its index.

        A list has values of the prompt's one variable, or rows as mappings; a DataFrame's one column is it under any name. A row
        that fails has None, and ``errors`` says why; or the call raises ``RunError`` (``raise_on_error``).
        ``params`` go over the job's sampling, where they are not None.
        """
        with self._turn:
            table = self._table({name: value for name, value in (params or {}).items() if value is not None})
            frame = isinstance(model_input, pd.DataFrame)
            rows = list(_rows(model_input, list(table.facts.needs)))
            for_spark = in_task()
            answers = _of_executor(table, rows) if for_spark else table.answers(rows, len(rows), ())
            self.errors = answers[_ERROR]
        self._see(answers[_ERROR])
        if frame and (for_spark or not _is_list(model_input)):
            return pd.DataFrame(answers, index=model_input.index, dtype=object)
        return answers[_OUTPUT]

    def _table(self, sampling: Mapping[str, Any]) -> TableJob:
        """The job with this sampling; all of them share the engine."""
        key = json.dumps(sampling, sort_keys=True, default=_number)
        if key not in self._tables:
            if len(self._tables) >= _SAMPLINGS_KEPT:
                self._tables.clear()
            given = json.loads(key)
            changed = {**self._job, "sampling": {**self._job.get("sampling", {}), **given}}
            self._tables[key] = TableJob(cast(JobArguments, changed), self._keeper)
        return self._tables[key]

    def _see(self, errors: Sequence[str | None]) -> None:
        """Tell of this call's failures: ``self.errors`` may be another call's by now."""
        failed = [(number, error) for number, error in enumerate(errors) if error is not None]
        if not failed:
            return
        shown = "; ".join(f"row {number}: {error}" for number, error in failed[:_FAILED_SHOWN])
        message = f"{len(failed):,} of {len(errors):,} rows have no output: {shown}"
        if self._raises:
            raise RunError(message)
        _logger.warning(message)


def save_model(
    path: str | Path,
    *,
    raise_on_error: bool = False,
    mlflow: Mapping[str, Any] | None = None,
    **job: Unpack[JobArguments],
) -> None:
    """Save a job as a model of MLflow. ``mlflow`` are further arguments of ``mlflow.pyfunc.save_model``.

    Raises ``UsageError`` for what is wrong with the job.
    """
    with _content(job, raise_on_error) as content:
        _library().pyfunc.save_model(path=str(path), **{**content, **(mlflow or {})})


def log_model(
    name: str, *, raise_on_error: bool = False, mlflow: Mapping[str, Any] | None = None, **job: Unpack[JobArguments]
) -> Any:
    """Log a job as a model of MLflow; returns what ``mlflow.pyfunc.log_model`` does, whose further arguments ``mlflow`` are.

    Raises ``UsageError`` for what is wrong with the job.
    """
    with _content(job, raise_on_error) as content:
        return _library().pyfunc.log_model(name=name, **{**content, **(mlflow or {})})


def load_model(model_uri: str) -> LlmbatchModel:
    """The model itself, as it was logged or saved; ``mlflow.pyfunc.load_model`` gives it behind its signature."""
    mlflow = _library()
    folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=str(model_uri)))
    flavor = mlflow.models.Model.load(str(folder)).flavors.get("python_function", {})
    if flavor.get("loader_module") != LOADER:
        raise JobError(f"{model_uri}: is no model of llmbatch's: it is loaded by {flavor.get('loader_module')}")
    return load_pyfunc(str(folder / flavor["data"]))


def load_pyfunc(data_path: str) -> LlmbatchModel:
    """What MLflow calls to load the model from its folder."""
    folder = Path(data_path)
    settings = json.loads((folder / _SETTINGS).read_bytes())
    data = {name: value for name, value in load_job_data(folder / _JOB).items() if name not in ("input", "output")}
    return LlmbatchModel(cast(JobArguments, data), raise_on_error=settings["raise_on_error"])


@contextmanager
def _content(job: JobArguments, raise_on_error: bool) -> Iterator[dict[str, Any]]:
    """The arguments of ``mlflow.pyfunc.save_model``, with a folder of the model's data that lasts as long as the block."""
    for name in ("column", "error", "expand"):
        if name in job:
            raise JobError(f"{name}: a model of MLflow gives output and error: leave it out")
    if callable(job.get("program")):
        raise JobError(
            "program: a model of MLflow is loaded elsewhere: put the function into a module, and give its import path"
        )
    with tempfile.TemporaryDirectory(prefix="llmbatch-") as name:
        folder = Path(name) / "llmbatch"
        folder.mkdir()
        table = TableJob(_with_prompt_in(folder, job))
        atomic_write(folder / _JOB, table.job.to_yaml(folder).encode())
        atomic_write(folder / _SETTINGS, json.dumps({"raise_on_error": raise_on_error}).encode())
        yield {
            "loader_module": LOADER,
            "data_path": str(folder),
            "signature": _signature(table),
            "pip_requirements": [f"llmbatch[mlflow]=={__version__}"],
        }


def _with_prompt_in(folder: Path, job: JobArguments) -> JobArguments:
    """The job whose prompt is a file in the folder, be it one elsewhere, a shipped one or a text."""
    given = job.get("prompt")
    section: dict[str, Any] = dict(given) if isinstance(given, Mapping) else {"path": given}
    if section.get("path") is None:
        return job
    prompt = read_prompt(str(section["path"]))
    if prompt.source == "inline":
        return job
    path = folder / _PROMPT
    atomic_write(path, prompt.text.encode())
    return cast(JobArguments, {**job, "prompt": {**section, "path": str(path)}})


def _signature(table: TableJob) -> Any:
    mlflow = _library()
    types = mlflow.types
    needs = table.facts.needs
    kinds = {name: _TYPES.get(str(need.type)) for name, need in needs.items()}
    if len(needs) == 1 and set(kinds.values()) <= {"string", None}:
        inputs = [types.ColSpec("string")]  # without a name, so that a list of texts is one too
    else:
        inputs = [
            types.ColSpec(kinds[name] or types.schema.AnyType(), name, required=need.required)
            for name, need in needs.items()
        ]
    outputs = [types.ColSpec("string", _OUTPUT), types.ColSpec("string", _ERROR, required=False)]
    sampling = table.facts.sampling
    params = [types.ParamSpec(name, kind, _default(sampling.get(name), kind)) for name, kind in PARAMETERS.items()]
    return mlflow.models.ModelSignature(
        types.Schema(inputs) if inputs else None, types.Schema(outputs), types.ParamSchema(params)
    )


def _default(value: Any, kind: str) -> Any:
    return None if not isinstance(value, int | float) else float(value) if kind == _REAL else int(value)


def _rows(given: Any, needs: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """Rows as mappings; a value by itself is that of the one variable."""
    if isinstance(given, pd.DataFrame):
        only = needs[0] if len(needs) == 1 and len(given.columns) == 1 else None
        for row in rows_of(given):
            yield row if only is None or only in row else {only: next(iter(row.values()))}
        return
    if isinstance(given, str | Mapping):
        given = [given]
    for value in given:
        if isinstance(value, Mapping):
            yield value
        elif len(needs) == 1:
            yield {needs[0]: value}
        else:
            raise JobError(
                f"the prompt has the variables {', '.join(needs)}: give rows as mappings, or a DataFrame with these columns"
            )


def _of_executor(table: TableJob, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """As ``TableJob.answers``, in a task of Spark's."""
    found = executor_answers(table.job, rows)
    return {_OUTPUT: [answer.text for answer in found], _ERROR: [answer.error for answer in found]}


def _is_list(frame: pd.DataFrame) -> bool:
    """Whether MLflow made the frame of a list of values, or of a column for Spark, which is to get both columns."""
    return list(frame.columns) == [0]


def _number(value: Any) -> Any:
    """NumPy's numbers, as MLflow gives them, as Python's."""
    return value.item() if hasattr(value, "item") else value.tolist()


def _library() -> Any:
    return extra("mlflow", "mlflow", "llmbatch.mlflow")


__all__ = ["LlmbatchModel", "load_model", "load_pyfunc", "log_model", "save_model"]
