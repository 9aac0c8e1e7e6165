"""Nodes of a real Ray cluster that are unlike each other: in their GPUs, which are logical, in the llmbatch that they have, and in
the models; one cluster on this machine for the whole file."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import llmbatch
from llmbatch.core.errors import JobError
from llmbatch.core.events import Event, Snapshot
from llmbatch.engines.cluster.link import ActorLink
from llmbatch.engines.cluster.parcels import CHUNK_BYTES, listing_of
from llmbatch.engines.cluster.ray_cluster import Need, RayCluster, _versions
from llmbatch.engines.settings import EngineSettings
from llmbatch.job.job import DEMO_MODEL

sys.path.insert(0, str(Path(__file__).parents[1]))

from ray_nodes import Nodes, a_cluster, wait_for, workers

pytestmark = pytest.mark.cluster

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def setup_module() -> None:
    """Ray takes seconds to import, and each of pytest's workers reads every test file."""
    global ray
    ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def made() -> Iterator[Nodes]:
    with a_cluster() as nodes:
        yield nodes


@pytest.fixture
def head(made: Nodes) -> Iterator[Nodes]:
    """The head alone; what is added goes after the test."""
    made.have(0)
    yield made
    ray.shutdown()
    for node in list(made.nodes):
        made.kill(node)


def both_at_work(do: Callable[[], None]) -> Callable[[Event], None]:
    """A watcher that does something once two engines are up."""
    left = [do]

    def watch(event: Event) -> None:
        if isinstance(event, Snapshot) and event.rows and left:
            wait_for(lambda: len(workers()) == 2)  # the run does not go on meanwhile
            left.pop()()

    return watch


def ran(jobs: Any, rows: int, watch: Callable[[Event], None] = lambda _: None, **engine: Any) -> Any:
    """A run on the cluster whose rows are all answered."""
    path = jobs.rows({"text": f"text {n}"} for n in range(rows))
    script = {"concurrency": 2, "latency": 0.05}
    result = jobs.run(jobs.job(path, script, engine={"cluster": "ray", **engine}, plan={"fold": False}), watch)
    assert [record["output"] for record in jobs.records()] == [f"text {n}" for n in range(rows)]
    return result


# GPUs


def joined(**given: Any) -> RayCluster:
    """The cluster, for engines of vLLM, of which none is made."""
    return RayCluster("ray", EngineSettings.model_validate({"name": "vllm", "cluster": "ray", **given}), "any")


def test_each_engine_has_a_gpu_of_its_own_and_no_more_than_there_are(jobs: Any, head: Nodes) -> None:
    head.add(num_cpus=2, num_gpus=2)
    wait_for(lambda: head.free().get("GPU") == 2)
    seen: list[str] = []
    see = both_at_work(lambda: seen.extend(worker.environ()["CUDA_VISIBLE_DEVICES"] for worker in workers()))
    result = ran(jobs, 100, see)
    assert sorted(seen) == ["0", "1"]
    assert len(result.report["sessions"][0]["replicas"]) == 2
    wait_for(lambda: head.free().get("GPU") == 2)
    with pytest.raises(JobError, match=r"engine\.replicas=3: the cluster has room for 2 of an engine of 1 GPU \("):
        joined(replicas=3)
    large = joined(args={"tensor_parallel_size": 2})
    assert (large.need, large.engines) == (Need(2, 1), 1)
    with pytest.raises(JobError, match="one engine needs 4 GPUs of one node, and no node has more than 2"):
        joined(args={"tensor_parallel_size": 4})


# whether there is a cluster


def test_auto_joins_the_cluster_that_is_there(jobs: Any, head: Nodes) -> None:
    seen: list[int] = []
    ran(jobs, 30, lambda _: seen.append(len(workers())), cluster="auto")
    assert 1 in seen, "an engine below an actor"


# llmbatch


def package(folder: Path, text: str) -> str:
    """A folder in which this is llmbatch."""
    (folder / "llmbatch").mkdir(parents=True)
    (folder / "llmbatch" / "__init__.py").write_text(text)
    return str(folder)


@pytest.fixture
def beside(jobs: Any, head: Nodes, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Adds a node on which this is llmbatch."""

    def add(text: str) -> None:
        head.add(env_vars={"PYTHONPATH": package(jobs.path / "there", text)})
        wait_for(lambda: len(head.alive()) == 2)
        ray.shutdown()
        # Ray has workers look for packages in the driver's folder first, which may be that of llmbatch
        monkeypatch.chdir(jobs.path)

    return add


def test_a_node_with_another_version_is_found_and_refused(
    jobs: Any, head: Nodes, beside: Callable[[str], None]
) -> None:
    beside('__version__ = "0.0.1"')
    with pytest.raises(JobError, match=rf"is llmbatch {llmbatch.__version__}, and \S+ has 0\.0\.1: install the same"):
        ran(jobs, 3)
    assert {version for _, version in _versions(ray, head.alive())} == {llmbatch.__version__, "0.0.1"}


def test_a_node_without_llmbatch_is_found_and_given_this_one(jobs: Any, beside: Callable[[str], None]) -> None:
    beside("raise ImportError('as if it were not there')")
    seen: list[str] = []
    ran(jobs, 100, both_at_work(lambda: seen.extend(worker.environ()["PYTHONPATH"] for worker in workers())))
    assert len(seen) == 2
    for path in seen:
        first = next(folder for folder in path.split(os.pathsep) if (Path(folder) / "llmbatch").exists())
        assert "runtime_resources" in first


# models


def test_a_node_that_cannot_have_the_model_is_left_out_by_name_and_the_others_finish(jobs: Any, head: Nodes) -> None:
    """The model is one of the hub, which nobody asks; one of the two nodes has it already."""
    models = jobs.path / "hub" / "models--demo--translator"
    (models / "refs").mkdir(parents=True)
    (models / "refs" / "main").write_text(COMMIT)
    shutil.copytree(DEMO_MODEL, models / "snapshots" / COMMIT)
    has_it = {"HF_HUB_CACHE": str(jobs.path / "hub"), "HF_HUB_OFFLINE": "1"}
    head.add(env_vars=has_it)
    wait_for(lambda: len(head.alive()) == 2)
    ray.shutdown()
    args = {"device": "cpu", "batching": "plain", "max_model_len": 256}
    data = jobs.data(
        jobs.rows({"text": text} for text in ("one", "two", "three")), model="demo/translator",
        engine={"name": "transformers", "cluster": "ray", "restarts": 0, "args": args}, sampling={"max_tokens": 8},
        answer={"allow_truncated": True, "allow_empty": True},
    )  # fmt: skip
    code, out, err = jobs.finish(data, environment=has_it)
    assert code == 0, (out, err)
    assert [record["status"] for record in jobs.records()] == ["ok"] * 3
    said = " ".join(note["message"] for note in jobs.report()["notes"])
    assert "is left out, and 1 replica goes on without it: node " in said
    assert "model 'demo/translator' is not on this machine" in said


def test_a_model_that_nodes_have_not_is_sent_once_for_the_engines_of_a_machine(
    jobs: Any, head: Nodes, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """The path of the model leads to it from the driver's own folder alone, as one on another machine's disk does."""
    head.add()
    wait_for(lambda: len(head.alive()) == 2)
    shutil.copytree(DEMO_MODEL, jobs.path / "a model", copy_function=shutil.copyfile)  # new, so that no node has had it
    monkeypatch.chdir(jobs.path)
    model = "/proc/self/cwd/a model"
    listing = listing_of(Path(model))
    shelves = partial(Path(tempfile.gettempdir()).glob, f"llmbatch-models-*/{listing.key}")
    request.addfinalizer(lambda: [shutil.rmtree(shelf) for shelf in shelves()])
    asked: list[str] = []
    ask = ActorLink._ask

    def counted(link: ActorLink, method: str, *arguments: Any) -> Any:
        asked.append(method)
        return ask(link, method, *arguments)

    monkeypatch.setattr(ActorLink, "_ask", counted)
    path = jobs.rows({"text": f"text {n}"} for n in range(60))
    script = {"concurrency": 2, "latency": 0.05}
    result = jobs.run(jobs.job(path, script, model=model, engine={"cluster": "ray"}), both_at_work(lambda: None))
    assert len(result.report["sessions"][0]["replicas"]) == 2
    pieces = sum(max(1, -(-size // CHUNK_BYTES)) for _, size, _ in listing.files)
    assert asked.count("add") == pieces
    assert asked.count("complete") == 1
    there = next(shelves()) / "a model"
    assert {p.relative_to(there): p.read_bytes() for p in there.rglob("*") if p.is_file()} == {
        p.relative_to(DEMO_MODEL): p.read_bytes() for p in DEMO_MODEL.rglob("*") if p.is_file()
    }
