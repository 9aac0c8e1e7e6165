"""Runs as MLflow is told of them, by a stand-in of its client that keeps what it is told, and can be away.

Against a real server: ``eval/systems/mlflow.py``.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from llmbatch.cli.main import main
from llmbatch.core.errors import TooManyFailures
from llmbatch.core.events import Event, Finished, Note, Planned, Sealed, Snapshot, Started
from llmbatch.integrations import mlflow_run, mlflow_tracking
from llmbatch.integrations.mlflow_run import final_metrics
from llmbatch.integrations.mlflow_tracking import track_mlflow
from llmbatch.runs.session import run_job


class Away(Exception):
    error_code = "INTERNAL_ERROR"


class Gone(Away):
    error_code = "RESOURCE_DOES_NOT_EXIST"


@dataclass
class StandIn:
    """What a tracking server has been told. ``away`` is asked before each call whether it is not there."""

    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    experiments: dict[str, str] = field(default_factory=lambda: {"Default": "0"})
    away: Callable[[], bool] = lambda: False
    calls: int = 0

    def __getattribute__(self, name: str) -> Any:
        if name in ("runs", "experiments", "away", "calls", "run") or name.startswith("__"):
            return object.__getattribute__(self, name)
        self.calls += 1
        if self.away():
            raise Away("connection refused")
        return object.__getattribute__(self, name)

    @property
    def run(self) -> dict[str, Any]:
        """The only run there is."""
        (found,) = self.runs.values()
        return found

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id=self.experiments[name]) if name in self.experiments else None

    def create_experiment(self, name: str) -> str:
        return self.experiments.setdefault(name, str(len(self.experiments)))

    def create_run(self, experiment_id: str, run_name: str, tags: dict[str, str]) -> Any:
        run_id = f"run-{len(self.runs)}"
        self.runs[run_id] = {
            "experiment": experiment_id, "name": run_name, "tags": dict(tags), "params": {}, "metrics": [], "files": {},
            "status": "RUNNING", "tables": {},
        }  # fmt: skip
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id))

    def update_run(self, run_id: str, status: str) -> None:
        if run_id not in self.runs:
            raise Gone(run_id)
        self.runs[run_id]["status"] = status

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
        assert len(params) <= 100
        self.runs[run_id]["params"].update(params)
        self.runs[run_id]["metrics"] += list(metrics)

    def log_metric(self, run_id: str, key: str, value: float) -> None:
        self.runs[run_id]["metrics"].append((key, value, 0, 0))

    def log_artifact(self, run_id: str, path: str) -> None:
        self.runs[run_id]["files"][Path(path).name] = Path(path).read_bytes()

    def log_text(self, run_id: str, text: str, name: str) -> None:
        self.runs[run_id]["files"][name] = text.encode()

    def log_table(self, run_id: str, data: Any, name: str) -> None:
        assert name not in self.runs[run_id]["tables"], "MLflow adds to a table that is there"
        self.runs[run_id]["tables"][name] = data

    def list_artifacts(self, run_id: str) -> list[Any]:
        return [SimpleNamespace(path=name) for name in (*self.runs[run_id]["files"], *self.runs[run_id]["tables"])]

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        self.runs[run_id]["tags"][key] = value

    def set_terminated(self, run_id: str, status: str) -> None:
        self.runs[run_id]["status"] = status


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn()
    entities = SimpleNamespace(Param=lambda key, value: (key, value), Metric=lambda *given: given)
    module = SimpleNamespace(
        MlflowClient=lambda: stand_in, entities=entities, exceptions=SimpleNamespace(MlflowException=Away),
        get_tracking_uri=lambda: "http://me:secret@host:5000",
    )  # fmt: skip
    for user in (mlflow_run, mlflow_tracking):
        monkeypatch.setattr(user, "library", lambda: module)
    monkeypatch.setattr(mlflow_tracking, "_FIRST_PAUSE", 0.01)
    for name in ("MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    return stand_in


def metrics(run: dict[str, Any]) -> dict[str, float]:
    """The last value of each."""
    return {key: value for key, value, _, _ in run["metrics"]}


def test_a_run_is_there_with_parameters_metrics_tags_and_files(jobs: Any, ten: Path, mlflow: StandIn) -> None:
    rules = [{"when": {"index": 3}, "fail": "no such luck"}]
    job = jobs.job(ten, {"rules": rules}, sampling={"temperature": 0, "max_tokens": 7})
    said: list[Event] = []
    with track_mlflow(said.append) as tracker:
        run_job(job, [tracker])
    run, report = mlflow.run, jobs.report()
    assert run["status"] == "FINISHED"
    assert run["params"]["model"] == job.model
    assert run["params"]["sampling.max_tokens"] == "7"
    assert run["params"]["engine.name"] == "scripted"
    assert run["params"]["prompt"] == "{{ text }}"
    assert metrics(run).items() >= final_metrics(report).items()
    assert metrics(run)["rows.by_status.ok"] == 9 == report["rows"]["by_status"]["ok"]
    assert metrics(run)["failures.engine"] == 1
    assert run["tags"]["llmbatch.run_folder"] == str(jobs.path / "out")
    assert run["tags"]["mlflow.source.name"] == "llmbatch"
    for name in ("job.yaml", "report.json", "errors.jsonl"):
        assert run["files"][name] == (jobs.path / "out" / name).read_bytes()
    assert run["files"]["prompt.txt"] == b"{{ text }}"
    table = run["tables"]["eval_results_table.json"]
    assert table["id"] == [record["id"] for record in jobs.records()]
    assert table["output"][3] is None
    assert "no such luck" in table["error"][3]
    assert any(
        "run run-0 of experiment 0 at http://host:5000" in note.message for note in said if isinstance(note, Note)
    )


def test_metrics_come_while_it_runs_with_the_sealed_windows_as_steps(
    tmp_path: Path, mlflow: StandIn, snapshot: Snapshot
) -> None:
    (tmp_path / "job.yaml").write_text("model: any\n")
    with track_mlflow(lambda _: None) as tracker:
        tracker(Started(tmp_path, 0, 1))
        for window in (2, 0):
            tracker(snapshot)
            tracker(snapshot)
            tracker(Sealed(window, 5))
        tracker(snapshot)
    steps = [step for key, _, _, step in mlflow.run["metrics"] if key == "rows.done"]
    assert steps == [0, 1, 2]
    assert mlflow.run["status"] == "FAILED"  # it was left before the run had finished


def test_a_run_that_was_killed_goes_on_in_the_same_run(jobs: Any, ten: Path, mlflow: StandIn, kill_at: Any) -> None:
    job, state = jobs.job(ten, run={"window": 3}), jobs.path / "out" / "mlflow.json"

    def wait(event: Event) -> None:
        while isinstance(event, Started) and not state.exists():
            time.sleep(0.01)

    def work() -> None:
        with track_mlflow(lambda _: None) as tracker:
            run_job(job, [tracker, wait])

    kill_at("part-sealed", work)  # with its process its stand-in is gone; ours is told of the run that was made there
    run_id = mlflow.create_run("0", "out", {}).info.run_id
    assert json.loads(state.read_bytes())["run_id"] == run_id
    work()
    assert mlflow.run["status"] == "FINISHED"
    assert metrics(mlflow.run)["rows.done"] == 10
    assert "secret" not in state.read_text()


def test_a_run_whose_run_is_not_on_this_server_begins_another(jobs: Any, ten: Path, mlflow: StandIn) -> None:
    job = jobs.job(ten)
    run_job(job)
    (jobs.path / "out" / "mlflow.json").write_text('{"run_id": "elsewhere", "experiment_id": "9"}')
    with track_mlflow(lambda _: None) as tracker:
        run_job(job, [tracker])
    assert mlflow.run["experiment"] == "0"


def test_a_server_that_is_away_is_told_once_and_gets_the_rest_at_the_end(jobs: Any, ten: Path, mlflow: StandIn) -> None:
    mlflow.away = lambda: True
    said: list[Event] = []

    def watch(event: Event) -> None:
        if isinstance(event, Finished):
            mlflow.away = lambda: False

    with track_mlflow(said.append) as tracker:
        run_job(jobs.job(ten, {"latency": 0.05, "concurrency": 1}, run={"window": 3}), [tracker, watch])
    warnings = [event.message for event in said if isinstance(event, Note) and event.level == "warning"]
    assert len(warnings) == 1
    assert warnings[0].startswith("MLflow: connection refused; the run goes on")
    assert mlflow.run["status"] == "FINISHED"
    assert metrics(mlflow.run)["rows.done"] == 10


def test_what_never_got_there_the_same_command_logs_once(jobs: Any, ten: Path, mlflow: StandIn) -> None:
    job, said = jobs.job(ten), []
    mlflow.away = lambda: True
    with track_mlflow(said.append) as tracker:
        result = run_job(job, [tracker])
    assert result.outcome == "finished"
    assert "given again, logs the rest" in [event for event in said if isinstance(event, Note)][-1].message
    assert not mlflow.runs
    mlflow.away = lambda: False
    for _ in range(2):
        with track_mlflow(lambda _: None) as tracker:
            run_job(job, [tracker])
    assert mlflow.run["status"] == "FINISHED"
    assert len([key for key, *_ in mlflow.run["metrics"] if key == "rows.done"]) == 1


def test_results_are_those_of_a_run_that_nobody_tracks(jobs: Any, ten: Path, mlflow: StandIn) -> None:
    run_job(jobs.job(ten, output=str(jobs.path / "plain")))
    mlflow.away = lambda: True
    with track_mlflow(lambda _: None) as tracker:
        run_job(jobs.job(ten), [tracker])
    assert jobs.results() == jobs.results("plain")


@pytest.mark.parametrize(
    ("script", "status"),
    [({"rules": [{"fail": "no such luck"}]}, "FAILED"), ({"latency": 0.2}, "KILLED")],
    ids=["broken", "stopped"],
)
def test_how_it_ended_is_told(jobs: Any, ten: Path, mlflow: StandIn, script: dict[str, Any], status: str) -> None:
    def stop(event: Event) -> None:
        if status == "KILLED" and isinstance(event, Planned):
            os.kill(os.getpid(), signal.SIGTERM)

    def work() -> None:
        with track_mlflow(lambda _: None) as tracker:
            run_job(jobs.job(ten, script, run={"max_failures": 1}), [tracker, stop])

    if status == "FAILED":
        with pytest.raises(TooManyFailures):
            work()
    else:
        work()
    assert mlflow.run["status"] == status


def test_a_long_value_is_cut_with_a_notice_and_keys_are_as_mlflow_takes_them(
    jobs: Any, ten: Path, mlflow: StandIn
) -> None:
    with track_mlflow(lambda _: None) as tracker:
        run_job(jobs.job(ten, prompt={"path": "{{ text }}" + "x" * 7000}), [tracker])
    value = mlflow.run["params"]["prompt"]
    assert len(value) <= 6000
    assert value.endswith("[cut: the whole is in job.yaml]")
    assert "prompt text" in mlflow.run["params"]


@pytest.mark.parametrize("given", ["name", "id", "argument"])
def test_the_experiment_is_the_one_that_is_named(
    jobs: Any, ten: Path, mlflow: StandIn, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    mlflow.experiments["mine"] = "7"
    if given != "argument":
        monkeypatch.setenv(f"MLFLOW_EXPERIMENT_{given.upper()}", {"name": "mine", "id": "7"}[given])
    with track_mlflow(lambda _: None, "mine" if given == "argument" else None) as tracker:
        run_job(jobs.job(ten), [tracker])
    assert mlflow.run["experiment"] == "7"


def test_the_command_tracks_a_run_and_an_evaluation_with_its_scores(
    tmp_path: Path, mlflow: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text('{"text": "two"}\n')
    shared = ["--model", "demo", "--engine", "scripted", "--track", "mlflow"]
    done = CliRunner().invoke(
        main, ["run", *shared, "--prompt", "{{ text }}", "--input", "rows.jsonl", "--output", "out"]
    )
    assert done.exit_code == 0, done.output
    assert "MLflow: this run is run run-0" in done.output
    done = CliRunner().invoke(main, ["eval", "demo-numbers", *shared, "--limit", "3", "--output", "scores"])
    assert done.exit_code == 0, done.output
    assert metrics(mlflow.runs["run-1"])["scores.exact_match"] == 0
    assert {"scores.json", "task.yaml"} <= mlflow.runs["run-1"]["files"].keys()


def test_an_unknown_tracker_is_refused_with_the_known_ones() -> None:
    done = CliRunner().invoke(main, ["run", "--track", "notebook"])
    assert done.exit_code == 2
    assert "'mlflow'" in done.output
