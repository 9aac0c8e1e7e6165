"""Scripted engines in the actors of a real Ray cluster of several nodes on this machine: whole runs in which engines, actors and
nodes are killed, and nodes join; one cluster for the whole file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from llmbatch.core.errors import EngineError, JobError
from llmbatch.core.events import Event, Snapshot
from llmbatch.engines.cluster import ray_cluster
from llmbatch.engines.cluster.host import About

sys.path.insert(0, str(Path(__file__).parents[1]))

from ray_nodes import Nodes, a_cluster, none_lives, wait_for, workers

RETRIED = {"when": {"attempt": 1, "matches": "[05]$"}, "answer": ""}
SHAPE: dict[str, Any] = {"run": {"window": 60}, "plan": {"fold": False}}


def setup_module() -> None:
    """Ray takes seconds to import, and each of pytest's workers reads every test file."""
    global ray
    ray = pytest.importorskip("ray")


pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def made() -> Iterator[Nodes]:
    with a_cluster() as nodes:
        yield nodes


@pytest.fixture
def nodes(made: Nodes) -> Nodes:
    """The head and one node."""
    made.have(1)
    return made


def text_rows(count: int) -> list[dict[str, Any]]:
    return [{"id": f"r{i}", "text": f"text {i % 90}"} for i in range(count)]


def plain(jobs: Any, rows: Path) -> bytes:
    """The results of one engine in the run's own process."""
    jobs.run(jobs.job(rows, {"rules": [RETRIED]}, output=str(jobs.path / "plain"), **SHAPE))
    return bytes(jobs.results("plain"))


def once(do: Callable[[], None], rows: int) -> Callable[[Event], None]:
    """A watcher that does something when so many rows are there."""
    left = [do]

    def watch(event: Event) -> None:
        if isinstance(event, Snapshot) and event.rows >= rows and left:
            left.pop()()

    return watch


def in_flight(note: str) -> int:
    """How many requests a death cost."""
    return int(note.rpartition(" requests were in flight")[0].rpartition(" ")[2])


def run(jobs: Any, rows: Path, watch: Callable[[Event], None] = lambda _: None, **engine: Any) -> Any:
    script = {"rules": [RETRIED], "concurrency": 4, "latency": 0.02}
    return jobs.run(jobs.job(rows, script, engine={"cluster": "ray", **engine}, **SHAPE), watch)


def test_a_node_that_joins_gets_an_engine_and_one_that_leaves_costs_what_was_in_flight(jobs: Any, made: Nodes) -> None:
    """The node comes and goes while a run goes on, which neither ends before."""
    made.have(0)
    rows = jobs.rows(text_rows(300))
    done: list[str] = []

    def watch(event: Event) -> None:
        if not isinstance(event, Snapshot):
            return
        if event.rows > 20 and not done:
            assert len(workers()) == 1
            made.add()
            done.append("joined")
        elif len(event.replicas) == 2 and event.replicas[1].usage.completion_tokens and len(done) == 1:
            made.kill(made.nodes[0])
            done.append("left")

    result = run(jobs, rows, watch, args={"latency": 0.4})
    assert done == ["joined", "left"]
    assert any("there is room for more engines: 1 besides, 2 in all" in note for note in jobs.notes())
    (lost,) = [note for note in jobs.notes() if "in flight and go again" in note]
    assert lost.startswith("replica 1: ")
    assert in_flight(lost) <= 4 + 16
    assert result.report["sessions"][0]["replicas"][0]["deaths"] == 0
    assert jobs.results() == plain(jobs, rows)


def test_engines_and_actors_that_are_killed_cost_what_was_in_flight(jobs: Any, nodes: Nodes) -> None:
    rows = jobs.rows(text_rows(900))
    engines: list[psutil.Process] = []

    def kill(engine: bool) -> None:
        wait_for(lambda: len(workers()) == 2)  # the run does not go on meanwhile: what waits is pushed by this thread
        engines.extend(workers())
        process = workers()[0]
        actor = process.parent()
        assert actor is not None
        (process if engine else actor).send_signal(signal.SIGKILL)

    first, second = once(lambda: kill(True), 30), once(lambda: kill(False), 60)
    result = run(jobs, rows, lambda event: (first(event), second(event))[0])
    assert result.report["sessions"][0]["engine_restarts"] == 2
    assert len(result.report["sessions"][0]["replicas"]) == 2, "as many as the cluster has room for"
    process, actor = [note for note in jobs.notes() if "in flight and go again" in note]
    assert "the engine's process" in process and "was killed by SIGKILL" in process
    assert "the engine's actor" in actor
    for said in (process, actor):
        assert in_flight(said) <= 4 + 16
    assert jobs.results() == plain(jobs, rows)
    assert len(engines) == 4
    wait_for(lambda: not workers() and none_lives(engines))


def test_what_a_node_has_not_is_sent_to_it(jobs: Any, nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of the script leads to it from the driver's own folder alone, as one on another machine's disk does."""
    rows = jobs.rows([{"id": "a", "text": "one"}, {"id": "b", "text": "two"}])
    (jobs.path / "told.yaml").write_text(f"rules: [{{answer: '{jobs.path.name} {{text}}'}}]")
    monkeypatch.chdir(jobs.path)
    script = "/proc/self/cwd/told.yaml"
    jobs.run(jobs.job(rows, engine={"cluster": "ray", "script": script}))
    assert [record["output"] for record in jobs.records()] == [f"{jobs.path.name} one", f"{jobs.path.name} two"]


def test_nodes_without_llmbatch_are_given_this_one(jobs: Any, nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(ray_cluster, "_versions", lambda *_: [("there", None)])
    rows = jobs.rows(text_rows(200))
    run(jobs, rows, once(lambda: seen.extend(p.environ()["PYTHONPATH"] for p in workers()), 20))
    assert seen
    for path in seen:  # before it is only the driver's folder, which another machine has not
        given = next(folder for folder in path.split(os.pathsep) if "runtime_resources" in folder)
        assert (Path(given) / "llmbatch" / "engines" / "worker.py").exists()
    assert jobs.results() == plain(jobs, rows)
    ray.shutdown()


def test_another_version_on_a_node_is_refused_before_anything_is_done(
    jobs: Any, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "_versions", lambda *_: [("there", "0.0.1"), ("here", None)])
    with pytest.raises(JobError, match=r"this is llmbatch \S+, and there has 0\.0\.1: install the same version"):
        run(jobs, jobs.rows(text_rows(3)))
    assert not (jobs.path / "out" / "parts").exists() or not list((jobs.path / "out" / "parts").iterdir())


def test_a_node_of_another_version_that_joins_later_is_left_out(
    jobs: Any, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmbatch.engines.cluster.link import ActorLink

    placed, seen = ActorLink._placed, list[About]()

    def first_is_old(link: ActorLink) -> About:
        found = placed(link)
        seen.append(found)
        return found._replace(version="0.0.1", machine="old") if len(seen) == 1 else found

    monkeypatch.setattr(ActorLink, "_placed", first_is_old)
    rows = jobs.rows(text_rows(60))
    assert run(jobs, rows, restarts=0).exit_code == 0
    assert any("node old has llmbatch 0.0.1" in note and "is left out" in note for note in jobs.notes())
    assert jobs.results() == plain(jobs, rows)


def test_more_engines_than_there_is_room_for_are_refused(jobs: Any, nodes: Nodes) -> None:
    with pytest.raises(JobError, match=r"engine\.replicas=3: the cluster has room for 2 of an engine of 1 processor"):
        run(jobs, jobs.rows(text_rows(3)), replicas=3)


def test_an_engine_that_cannot_start_says_why_and_where(jobs: Any, nodes: Nodes) -> None:
    engine = {"cluster": "ray", "replicas": 2, "in_flight": 8}
    with pytest.raises(EngineError, match=r"node .*no memory"):
        jobs.run(jobs.job(jobs.rows(text_rows(4)), {"out_of_memory_above": 0}, engine=engine))


def written(parts: Path) -> int:
    """Lines of journals: one for each that is open, and one for each row."""
    return sum(path.read_bytes().count(b"\n") for path in parts.glob("*.journal"))


def test_a_killed_run_leaves_no_engine_and_goes_on_without_a_cluster(jobs: Any, nodes: Nodes) -> None:
    rows = jobs.rows(text_rows(300))
    script = {"rules": [RETRIED], "concurrency": 4}
    shape = {**SHAPE, "run": {"window": 60, "commit_seconds": 0.01}}
    data = jobs.data(rows, script, engine={"cluster": "ray", "args": {"latency": 0.2}}, **shape)
    process: subprocess.Popen[str] = jobs.start(data)
    parts = jobs.path / "out" / "parts"
    wait_for(lambda: process.poll() is not None or written(parts) > 10)
    assert process.poll() is None, process.communicate()
    engines = workers()
    assert engines
    process.kill()
    process.wait()
    wait_for(lambda: not workers() and none_lives(engines))
    assert jobs.run(jobs.job(rows, script, **shape)).outcome == "finished"
    assert jobs.results() == plain(jobs, rows)


def test_stdout_is_events_alone_also_where_ray_tells_of_a_node_that_died(jobs: Any, nodes: Nodes) -> None:
    nodes.have(2)
    engine = {"cluster": "ray", "args": {"latency": 0.5, "concurrency": 4}}
    process: subprocess.Popen[str] = jobs.start(
        jobs.data(jobs.rows(text_rows(200)), {}, engine=engine, **SHAPE), "--json"
    )
    assert process.stdout is not None
    told = []
    for line in process.stdout:
        told.append(json.loads(line)["event"])
        if told[-1] == "snapshot" and len(nodes.nodes) == 2 and len(workers()) > 1:
            nodes.kill(nodes.nodes[0])
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert told[-1] == "finished"
    assert "(raylet)" in err  # Ray did tell of it


def started_as_client(jobs: Any, nodes: Nodes, rows: Path, latency: float) -> Any:
    """A run outside of the cluster, some of whose rows are written."""
    ray.shutdown()
    script = {"rules": [RETRIED], "concurrency": 4}
    engine = {"cluster": f"ray://127.0.0.1:{nodes.port}", "args": {"latency": latency}}
    shape = {**SHAPE, "run": {"window": 60, "commit_seconds": 0.01}}
    process: subprocess.Popen[str] = jobs.start(jobs.data(rows, script, engine=engine, **shape))
    parts = jobs.path / "out" / "parts"
    wait_for(lambda: process.poll() is not None or written(parts) > 10)
    assert process.poll() is None, process.communicate()
    return process


def test_a_client_outside_of_the_cluster_goes_on_when_an_actor_dies(jobs: Any, nodes: Nodes) -> None:
    rows = jobs.rows(text_rows(200))
    process = started_as_client(jobs, nodes, rows, 0.5)
    wait_for(lambda: len(workers()) == 2)
    parts = jobs.path / "out" / "parts"
    wait_for(lambda: written(parts) > 20)  # both have answered
    actor = workers()[0].parent()
    assert actor is not None
    actor.kill()
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, (process.returncode, out, err)
    (session,) = json.loads((jobs.path / "out" / "report.json").read_text())["sessions"]
    assert session["engine_restarts"] == 1
    assert jobs.results() == plain(jobs, rows)


def test_a_client_whose_server_in_the_cluster_dies_ends_with_a_word_about_it_and_goes_on_without(
    jobs: Any, nodes: Nodes
) -> None:
    rows = jobs.rows(text_rows(200))
    process = started_as_client(jobs, nodes, rows, 1.0)
    wait_for(lambda: len(workers()) == 2)
    engines = workers()
    for server in psutil.process_iter(["cmdline"]):
        said = " ".join(server.info["cmdline"] or ())
        if "ray.util.client.server" in said and nodes.cluster.address in said and "specific-server" in said:
            server.kill()
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1, (process.returncode, out, err)
    assert "the Ray cluster" in err + out and "Traceback" not in err + out
    wait_for(lambda: not workers() and none_lives(engines))
    assert jobs.run(jobs.job(rows, {"rules": [RETRIED], "concurrency": 4}, **SHAPE)).outcome == "finished"
    assert jobs.results() == plain(jobs, rows)


@pytest.mark.parametrize("mode", ["disabled", "token"])
def test_a_cluster_that_wants_a_token_says_how_to_give_it(
    jobs: Any, nodes: Nodes, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """The refusal is a stand-in: the cluster of these tests has no token. Ray hands it on as the text of a traceback alone."""
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(jobs.path / "no token"))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)

    def refused(**_: Any) -> None:
        cause = RuntimeError(
            f"Failed to connect to GCS: {ray.exceptions.AuthenticationError.__module__}.AuthenticationError: x"
        )
        raise ConnectionError("Failed to connect") from cause

    ray.shutdown()
    monkeypatch.setattr(ray, "init", refused)
    lacks = {"disabled": "RAY_AUTH_MODE is not token", "token": "no RAY_AUTH_TOKEN, no file .*no token"}[mode]
    with pytest.raises(JobError, match=rf"lets in only who has its token.*{lacks}.*~/\.ray/auth_token"):
        run(jobs, jobs.rows(text_rows(3)))


def test_a_cluster_that_goes_away_ends_the_run_with_a_word_about_it(jobs: Any, nodes: Nodes) -> None:
    """The last test: the cluster is gone."""
    ray.shutdown()
    rows = jobs.rows(text_rows(4000))
    data = jobs.data(rows, {"concurrency": 4, "latency": 0.5}, engine={"cluster": "ray"}, run={"commit_seconds": 0.01})
    process: subprocess.Popen[str] = jobs.start(data)
    parts = jobs.path / "out" / "parts"
    wait_for(lambda: process.poll() is not None or any(path.stat().st_size for path in parts.glob("*.journal")))
    assert process.poll() is None, process.communicate()
    nodes.cluster.head_node.kill_gcs_server(check_alive=False)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1, (process.returncode, out, err)
    assert "the Ray cluster is gone" in err + out


@pytest.mark.parametrize(
    ("address", "said"), [("ray://127.0.0.1:9", "nothing answers there"), ("ray://127.0.0.1", "is ray,")]
)
def test_a_cluster_that_is_not_there_is_wrong_usage(jobs: Any, address: str, said: str) -> None:
    code, out, err = jobs.finish(jobs.data(jobs.rows(text_rows(3)), {}, engine={"cluster": address}))
    assert code == 2, (out, err)
    assert said in err
