"""A run folder in; its parameters, metrics, tags and files in a run of MLflow out. All of it may raise what MLflow's client raises.

Which run of MLflow it is is written into the folder (``mlflow.json``), so that a run that goes on goes on there too.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from llmbatch import __version__
from llmbatch.core.digest import short_digest
from llmbatch.core.errors import LlmbatchError
from llmbatch.core.events import Snapshot
from llmbatch.core.files import atomic_write
from llmbatch.core.imports import extra
from llmbatch.core.types import Status
from llmbatch.core.words import clip
from llmbatch.folder.folder import ERRORS, JOB_FILE, PAGE, REPORT, RESULTS, read_manifest, read_results
from llmbatch.job.job import load_job_data
from llmbatch.prompt.library import read_prompt

STATE = "mlflow.json"
TABLE = "eval_results_table.json"
_FILES = (JOB_FILE, REPORT, PAGE, ERRORS, "task.yaml", "scores.json")
_LARGEST_FILE = 64 << 20  # bytes; of a larger one its place is a tag
_LARGEST_TABLE = 1000  # rows
_VALUE = 6000  # characters of a parameter
_AT_ONCE = 100  # parameters of one request
_NOT_IN_KEYS = re.compile(r"[^\w./: -]")
_STATUS = {"finished": "FINISHED", "stopped": "KILLED", "broken": "FAILED"}
_SHORT = {"prompt.path": "prompt", "input.path": "input"}
_OF_REPORT = ("rows", "attempts", "tokens", "seconds", "speed", "cost")

Point = tuple[Mapping[str, float], int, int]
"""Metrics, the step, and the time in milliseconds since 1970."""


def library() -> Any:
    """MLflow's module. Raises ``JobError`` where it is not installed."""
    # a server that is away is to be noticed in seconds, and is tried again by the tracker
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    return extra("mlflow", "mlflow", "MLflow's tracking")


class MlflowRun:
    """The run of MLflow that shows what is in a run folder."""

    def __init__(self, folder: Path, experiment: str | None = None) -> None:
        self._folder = folder
        self._wanted = experiment
        self._mlflow: Any = library()
        self._client: Any = None
        self._state: dict[str, Any] = _read(folder / STATE)
        self.begun = False

    @property
    def is_whole(self) -> bool:
        """Whether all of a finished run is there already."""
        return bool(self._state.get("whole"))

    @property
    def place(self) -> str:
        """Which run it is, for a person."""
        where = _without_key(self._mlflow.get_tracking_uri())
        return f"run {self._state['run_id']} of experiment {self._state['experiment_id']} at {where}"

    def begin(self) -> None:
        """Go on with the run of MLflow that the folder names, or make one, with its parameters and tags."""
        self._client = self._mlflow.MlflowClient()
        if not self._goes_on():
            experiment = self._experiment()
            run = self._client.create_run(experiment, run_name=self._folder.resolve().name, tags=self._tags())
            self._state = {"experiment_id": experiment, "run_id": run.info.run_id}
            self._keep()
        if not self._state.get("parameters"):
            for some in _some(sorted(_parameters(self._folder).items())):
                params = [self._mlflow.entities.Param(key, value) for key, value in some]
                self._client.log_batch(self._state["run_id"], params=params)
            self._state["parameters"] = True
            self._keep()
        self.begun = True

    def log(self, points: Sequence[Point]) -> None:
        """Metrics at their steps."""
        entity = self._mlflow.entities.Metric
        found = [entity(key, value, when, step) for metrics, step, when in points for key, value in metrics.items()]
        for some in _some(found):
            self._client.log_batch(self._state["run_id"], metrics=some)

    def end(self, outcome: str) -> None:
        """Log the files that are there now, and how the run ended."""
        run_id = self._state["run_id"]
        for name in _FILES:
            self._file(self._folder / name)
        prompt = _prompt(self._folder)
        if prompt is not None:
            self._client.log_text(run_id, prompt, "prompt.yaml" if ":" in prompt.partition("\n")[0] else "prompt.txt")
        if outcome == "finished":
            self._scores()
            self._results()
        self._client.set_terminated(run_id, _STATUS[outcome])
        if outcome == "finished":
            self._state["whole"] = True
            self._keep()

    def _goes_on(self) -> bool:
        """Whether the run that the folder names is on this server, where it counts as running again."""
        run_id = self._state.get("run_id")
        if run_id is None:
            return False
        try:
            self._client.update_run(run_id, status="RUNNING")
        except self._mlflow.exceptions.MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
        return True

    def _experiment(self) -> str:
        if self._wanted is None and (known := os.environ.get("MLFLOW_EXPERIMENT_ID")):
            return known
        name = self._wanted or os.environ.get("MLFLOW_EXPERIMENT_NAME", "Default")
        found = self._client.get_experiment_by_name(name)
        return str(self._client.create_experiment(name) if found is None else found.experiment_id)

    def _tags(self) -> dict[str, str]:
        manifest = read_manifest(self._folder)
        identity = {} if manifest is None else manifest.identity
        return {
            "llmbatch.run_folder": str(self._folder.resolve()),
            "llmbatch.digest": short_digest(json.dumps(identity, sort_keys=True)),
            "llmbatch.version": __version__,
            "mlflow.source.name": "llmbatch",
            "mlflow.source.type": "LOCAL",
        }

    def _file(self, path: Path) -> None:
        if not path.exists():
            return
        if path.stat().st_size > _LARGEST_FILE:
            self._client.set_tag(self._state["run_id"], f"llmbatch.{path.name}", str(path.resolve()))
        else:
            self._client.log_artifact(self._state["run_id"], str(path))

    def _scores(self) -> None:
        """The figures of an evaluation."""
        scores = _read(self._folder / "scores.json")
        figures = scores.get("overall", {}).get("figures", {})
        for name, figure in figures.items():
            if isinstance(value := figure.get("value"), int | float):
                self._client.log_metric(self._state["run_id"], f"scores.{name}", value)

    def _results(self) -> None:
        """The records of a small run as a table; of a larger one, where they are. The table of an earlier end is not added to."""
        path = self._folder / RESULTS
        records = list(islice(read_results(self._folder), _LARGEST_TABLE + 1))
        self._client.set_tag(self._state["run_id"], "llmbatch.results", str(path.resolve()))
        if len(records) > _LARGEST_TABLE or any(
            each.path == TABLE for each in self._client.list_artifacts(self._state["run_id"])
        ):
            return
        columns = {
            "id": [record.id for record in records],
            "status": [str(record.status) for record in records],
            "output": [_text(record.output) for record in records],
            "error": [record.failure.message if record.failure else None for record in records],
        }
        self._client.log_table(self._state["run_id"], columns, TABLE)

    def _keep(self) -> None:
        atomic_write(self._folder / STATE, json.dumps(self._state).encode() + b"\n")


def metrics_of(snapshot: Snapshot) -> dict[str, float]:
    """Where a run stands, by the names that ``final_metrics`` has for the same."""
    found: dict[str, Any] = {
        "rows.done": snapshot.rows,
        **{f"rows.by_status.{status}": snapshot.by_status.get(status, 0) for status in Status},
        **{f"failures.{kind}": number for kind, number in snapshot.by_failure.items()},
        "session.prompt_tokens": snapshot.usage.prompt_tokens,
        "session.completion_tokens": snapshot.usage.completion_tokens,
        "session.cached_tokens": snapshot.usage.cached_tokens,
        "session.seconds": snapshot.elapsed,
        "session.rows_per_s": snapshot.rows_per_s,
        "session.prompt_tokens_per_s": snapshot.prompt_tokens_per_s,
        "session.completion_tokens_per_s": snapshot.completion_tokens_per_s,
        "session.idle_share": snapshot.idle_share,
    }
    return {name: float(value) for name, value in found.items()}


def final_metrics(report: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a report, by where they stand in it."""
    found = dict(_flat({key: report.get(key) for key in _OF_REPORT}))
    found |= {f"failures.{kind}": failure["rows"] for kind, failure in report.get("failures", {}).items()}
    return {name: float(v) for name, v in found.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def _parameters(folder: Path) -> dict[str, str]:
    """The job as it is in the folder, flat, and of what it leaves open what the run goes by; a long value is cut."""
    data = dict(_flat(load_job_data(folder / JOB_FILE)))
    found = {_SHORT.get(key, key): _text(value) for key, value in data.items() if value is not None}
    manifest = read_manifest(folder)
    for key, value in {} if manifest is None else manifest.identity.items():
        found.setdefault(_SHORT.get(key, key), value)
    cut = f" [cut: the whole is in {JOB_FILE}]"
    return {_NOT_IN_KEYS.sub("", key): clip(value or "", _VALUE, cut) for key, value in found.items()}


def _prompt(folder: Path) -> str | None:
    """The prompt's text, as far as it can still be read."""
    try:
        prompt = load_job_data(folder / JOB_FILE).get("prompt")
        path = prompt if isinstance(prompt, str) or prompt is None else prompt.get("path")
        return None if path is None else read_prompt(path).text
    except LlmbatchError:
        return None


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _some(items: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (items[start : start + _AT_ONCE] for start in range(0, len(items), _AT_ONCE))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _without_key(uri: str) -> str:
    """A tracking server's address without a name and password in it."""
    return re.sub(r"//[^/@]*@", "//", uri)


__all__ = ["STATE", "MlflowRun", "final_metrics", "library", "metrics_of"]
