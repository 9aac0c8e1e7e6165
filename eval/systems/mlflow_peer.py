"""Run in MLflow's environment: a real ``mlflow server`` on SQLite, the command's runs in it, and models that it logs and loads.

The engine is the scripted one, but for one claim: what is tried is MLflow.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow

sys.path.append(str(Path(__file__).parent))
from shown import tried, version_of

_START_SECONDS = 180.0
_ROWS = 60
_SLOW = 2.0  # seconds of an answer: the run takes a minute
_ASKED = 20  # of the demo model
_RULES = [{"when": {"index": [7]}, "fail": "no such luck"}]


@contextmanager
def server(folder: Path, port: int) -> Iterator[str]:
    """A tracking server; its URL."""
    url = f"http://127.0.0.1:{port}"
    arguments = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(arguments, stdout=log, stderr=log, start_new_session=True)
        try:
            _wait(f"{url}/health", process)
            yield url
        finally:
            _end(process)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        try:
            urllib.request.urlopen(url, timeout=5).close()  # noqa: S310
            return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError("the server did not start")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
    process.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Trial:
    """A folder, a server's URL and the command."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.environment = {**os.environ, "MLFLOW_TRACKING_URI": url, "LLMBATCH_FAULT": ""}

    def command(
        self, output: str, *, url: str | None = None, fault: str = "", latency: float = 0.05
    ) -> subprocess.CompletedProcess[str]:
        job = self.folder / f"{output}.yaml"
        rows = self.folder / "rows.jsonl"
        rows.write_text("".join(json.dumps({"id": f"r{i}", "text": f"text {i}"}) + "\n" for i in range(_ROWS)))
        engine = {"name": "scripted", "args": {"rules": _RULES, "latency": latency, "concurrency": 2}}
        job.write_text(
            json.dumps(
                {
                    "model": "any", "prompt": "{{ text }}", "input": str(rows), "output": str(self.folder / output),
                    "engine": engine, "run": {"window": 10, "windows_open": 2}, "sampling": {"temperature": 0},
                }
            )
        )  # fmt: skip
        environment = {**self.environment, "LLMBATCH_FAULT": fault}
        if url is not None:
            environment["MLFLOW_TRACKING_URI"] = url
        return subprocess.run(
            [sys.executable, "-m", "llmbatch.cli", "run", str(job), "--track", "mlflow"],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def report(self, output: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / output / "report.json").read_bytes())
        return found

    def run(self, output: str) -> Any:
        """The only run of a run folder."""

        found = mlflow.MlflowClient().search_runs(
            ["0"], f"tags.`llmbatch.run_folder` = '{(self.folder / output).resolve()}'"
        )
        assert len(found) == 1, f"{len(found)} runs"
        return found[0]


def tracked(trial: Trial) -> str:

    from llmbatch.integrations.mlflow_run import final_metrics

    done = trial.command("whole")
    assert done.returncode == 3, done.stderr
    run, report = trial.run("whole"), trial.report("whole")
    expected = final_metrics(report)
    assert {name: run.data.metrics[name] for name in expected} == expected
    assert run.info.status == "FINISHED"
    assert run.data.params["sampling.temperature"] == "0"
    assert run.data.tags["mlflow.source.name"] == "llmbatch"
    client = mlflow.MlflowClient()
    files = {each.path for each in client.list_artifacts(run.info.run_id)}
    assert {"job.yaml", "report.json", "errors.jsonl", "prompt.txt", "eval_results_table.json"} <= files, files
    table = mlflow.load_table("eval_results_table.json", run_ids=[run.info.run_id])
    assert len(table) == _ROWS
    history = client.get_metric_history(run.info.run_id, "rows.done")
    steps = [each.step for each in history]
    assert steps == sorted(steps)
    return f"{len(run.data.params)} parameters, {len(expected)} metrics equal to report.json, steps {steps}, {len(files)} files"


def scored(trial: Trial) -> str:
    output = trial.folder / "scored"
    done = subprocess.run(
        [
            sys.executable, "-m", "llmbatch.cli", "eval", "demo-choice", "--model", "demo", "--engine", "scripted", "--limit", "5",
            "--output", str(output), "--track", "mlflow",
        ],
        env=trial.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 3), done.stderr
    figures = json.loads((output / "scores.json").read_bytes())["overall"]["figures"]
    run = trial.run("scored")
    found = {name: run.data.metrics[f"scores.{name}"] for name in figures}
    assert found == {name: figure["value"] for name, figure in figures.items()}, found
    return f"scores as in scores.json: {found}"


def resumed(trial: Trial) -> str:
    killed = trial.command("killed", fault="part-sealed:3")
    assert killed.returncode == -signal.SIGKILL, killed.returncode
    before = trial.run("killed")
    done = trial.command("killed")
    assert done.returncode == 3, done.stderr
    after = trial.run("killed")
    assert after.info.run_id == before.info.run_id
    assert (before.info.status, after.info.status) == ("RUNNING", "FINISHED")
    whole = (trial.folder / "whole" / "results.jsonl").read_bytes()
    assert (trial.folder / "killed" / "results.jsonl").read_bytes() == whole
    return f"run {after.info.run_id} went from RUNNING to FINISHED; the same bytes in results.jsonl"


def away(trial: Trial) -> str:
    nobody = f"http://127.0.0.1:{_free_port()}"
    began = time.monotonic()
    done = trial.command("away", url=nobody)
    took = time.monotonic() - began
    assert done.returncode == 3, done.stderr
    assert done.stderr.count("warning: MLflow") == 2, done.stderr  # once while it ran, once at its end
    assert (trial.folder / "away" / "results.jsonl").read_bytes() == (
        trial.folder / "whole" / "results.jsonl"
    ).read_bytes()
    again = trial.command("away")
    assert again.returncode == 3, again.stderr
    run = trial.run("away")
    assert run.data.metrics["rows.done"] == _ROWS
    return f"the run took {took:.1f} s with its start and gave the same bytes; the command given again logged it"


def comes_back(folder: Path) -> str:
    """A server that is away when the run begins, and comes while it goes on."""
    port = _free_port()
    late = folder / "late"
    late.mkdir()
    trial = Trial(late, f"http://127.0.0.1:{port}")
    with server(late, port):
        pass  # its tables are made: the second start is a quick one
    result: list[subprocess.CompletedProcess[str]] = []
    job = threading.Thread(target=lambda: result.append(trial.command("run", latency=_SLOW)))
    job.start()
    while not (late / "run" / "run.json").exists():
        time.sleep(0.1)
    with server(late, port) as url:
        assert job.is_alive(), "the run was over before the server was there"
        job.join()
        mlflow.set_tracking_uri(url)
        run = trial.run("run")
        done = result[0]
        assert done.returncode == 3, done.stderr
        assert done.stderr.count("warning: MLflow") == 1, done.stderr
        history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "rows.done")
    assert run.info.status == "FINISHED"
    rows = [f"{each.value:.0f}" for each in history]
    return f"it was away when the run began, which said so once; rows.done is logged as {', '.join(rows)}"


def logged_model(trial: Trial) -> str:
    import pandas as pd

    import llmbatch
    import llmbatch.mlflow

    prompt = trial.folder / "ask.yaml"
    prompt.write_text(
        "name: ask\nvariables: {text: {type: string}}\nmessages: [{role: user, content: 'Say {{ text }}'}]\n"
        "sampling: {temperature: 0, max_tokens: 50}\n"
    )
    rules = [{"when": {"contains": "bad"}, "fail": "no such luck"}]
    job: dict[str, Any] = {
        "model": "any",
        "prompt": str(prompt),
        "engine": {"name": "scripted", "args": {"rules": rules}},
    }
    texts = ["one", "two", "bad"]
    expected = [
        record.output
        for record in llmbatch.run(input=[{"text": t} for t in texts], output=trial.folder / "plain", **job)
    ]
    with mlflow.start_run():
        info = llmbatch.mlflow.log_model("asker", **job)
    prompt.unlink()  # the model has its own copy
    model = mlflow.pyfunc.load_model(info.model_uri)
    assert model.predict(texts) == expected == ["Say one", "Say two", None]
    frame = model.predict(pd.DataFrame({"text": texts}, index=[7, 7, 8]))
    assert frame.index.tolist() == [7, 7, 8]
    assert frame["output"].tolist() == expected
    assert model.predict(["many words that are cut " * 5], params={"max_tokens": 4}) == [None]
    params = {spec.name: spec.default for spec in model.metadata.get_params_schema()}
    assert (params["max_tokens"], params["temperature"]) == (50, 0.0), params
    assert llmbatch.mlflow.load_model(info.model_uri).predict(["one"]) == ["Say one"]
    return f"{len(texts)} rows as `llmbatch run` gives them; inputs {model.metadata.get_input_schema()}, {len(params)} parameters"


def on_a_model(trial: Trial) -> str:
    """The same on the demo model, by the transformers engine."""
    import pandas as pd

    import llmbatch
    import llmbatch.mlflow
    from llmbatch.job.job import DEMO_MODEL

    corpus = (DEMO_MODEL.parent / "corpus" / "numbers.jsonl").read_bytes().splitlines()[:_ASKED]
    rows = [json.loads(line) for line in corpus]
    args = {"page_size": 32, "num_blocks": 64, "max_batch_tokens": 256, "device": "cpu"}
    job: dict[str, Any] = {
        "model": "demo", "prompt": str(DEMO_MODEL.parent / "prompts" / "translate-number.yaml"),
        "engine": {"name": "transformers", "args": args}, "sampling": {"temperature": 0},
    }  # fmt: skip
    expected = [record.output for record in llmbatch.run(input=rows, output=trial.folder / "demo", **job)]
    with mlflow.start_run():
        info = llmbatch.mlflow.log_model("translator", **job)
    model = mlflow.pyfunc.load_model(info.model_uri)
    asked = [{name: row[name] for name in ("text", "language")} for row in rows]
    found = model.predict(pd.DataFrame(asked))["output"].tolist()
    assert found == expected, [pair for pair in zip(found, expected, strict=True) if pair[0] != pair[1]][:3]
    return f"{len(found)} texts, such as {found[0]!r}"


def several_columns(trial: Trial) -> str:
    import pandas as pd

    import llmbatch.mlflow

    job: dict[str, Any] = {"model": "any", "prompt": "{{ a }}-{{ b }}", "engine": {"name": "scripted"}}
    path = trial.folder / "two"
    llmbatch.mlflow.save_model(path, raise_on_error=True, **job)
    model = mlflow.pyfunc.load_model(str(path))
    assert model.predict(pd.DataFrame({"b": ["2"], "a": ["1"], "c": [0]}))["output"].tolist() == ["1-2"]
    try:
        model.predict(pd.DataFrame({"a": ["1"]}))
    except mlflow.exceptions.MlflowException as error:
        return f"a frame without a variable is refused by its signature: {str(error).splitlines()[0][:120]}"
    raise AssertionError("a missing column was not refused")


def served(trial: Trial) -> str:
    """``mlflow models serve`` with the environment that is there."""
    import llmbatch.mlflow

    path, port = trial.folder / "served", _free_port()
    llmbatch.mlflow.save_model(path, model="any", prompt="{{ text }}", engine={"name": "scripted"})
    arguments = [
        sys.executable, "-m", "mlflow", "models", "serve", "-m", str(path), "--env-manager", "local", "--port", str(port),
    ]  # fmt: skip
    with (trial.folder / "serve.log").open("ab") as log:
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }  # uvicorn's
        process = subprocess.Popen(arguments, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            _wait(f"http://127.0.0.1:{port}/health", process)
            body = json.dumps({"inputs": ["one", "two"], "params": {"temperature": 0.0}}).encode()
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=120) as reply:  # noqa: S310
                found = json.load(reply)
        finally:
            _end(process)
    assert found == {"predictions": ["one", "two"]}, found
    return json.dumps(found)


def evaluated(trial: Trial) -> str:

    import llmbatch.mlflow

    truth = {f"r{i}": f"text {i}" for i in range(_ROWS)}
    table = llmbatch.mlflow.evaluation_table(trial.folder / "whole", truth)
    with mlflow.start_run():
        found = mlflow.models.evaluate(
            data=table, predictions="output", targets="expected", extra_metrics=[mlflow.metrics.exact_match()]
        )
    share = found.metrics["exact_match/v1"]
    assert abs(share - (_ROWS - 1) / _ROWS) < 1e-9, found.metrics
    return f"exact_match/v1 {share:.4f}: one of {_ROWS} rows failed"


def judged(trial: Trial) -> str:
    from mlflow.genai.scorers import scorer

    import llmbatch.mlflow

    @scorer
    def exact(outputs: Any, expectations: dict[str, Any]) -> bool:
        return bool(outputs == expectations["expected_response"])

    truth = {f"r{i}": f"text {i}" for i in range(_ROWS)}
    found = mlflow.genai.evaluate(data=llmbatch.mlflow.genai_data(trial.folder / "whole", truth), scorers=[exact])
    share = float(found.metrics["exact/mean"])
    assert abs(share - (_ROWS - 1) / _ROWS) < 1e-9, found.metrics
    return f"exact/mean {share:.4f}"


def main() -> None:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    number = version_of("mlflow")
    folder = Path(tempfile.mkdtemp(prefix="llmbatch-"))
    try:
        with server(folder, _free_port()) as url:
            os.environ["MLFLOW_TRACKING_URI"] = url
            trial = Trial(folder, url)
            claims = {
                "--track mlflow: parameters, metrics equal to report.json, tags, files, a table of the results": tracked,
                "eval --track mlflow: the scores are metrics": scored,
                "a run that was killed goes on in the same run of MLflow": resumed,
                "a server that is away neither ends nor changes a run, and gets it later": away,
                "a logged model gives what `llmbatch run` gives, by pyfunc and by llmbatch.mlflow": logged_model,
                "a logged model gives what `llmbatch run` gives, on the demo model by the transformers engine": on_a_model,
                "a prompt of several variables is a signature with their columns": several_columns,
                "mlflow models serve answers with the model": served,
                "results and truth are a table for mlflow.models.evaluate": evaluated,
                "and data for mlflow.genai.evaluate": judged,
            }
            for claim, show in claims.items():
                row = tried("MLflow", claim, "mlflow server on SQLite", number, lambda show=show: show(trial))
                print(row.as_line(), flush=True)
        row = tried(
            "MLflow",
            "a server that comes back while a run goes on gets all of it",
            "mlflow server on SQLite",
            number,
            lambda: comes_back(folder),
        )
        print(row.as_line(), flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
