"""What an engine is given of a cluster's nodes, told from what they say of themselves; and a cluster that is not there."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import pytest

from llmbatch.core.errors import JobError
from llmbatch.engines.cluster.ray_cluster import Need, _need
from llmbatch.engines.settings import EngineSettings

NODE = {"CPU": 8.0, "GPU": 2.0}


def need(*nodes: Mapping[str, float], replicas: int | str = "auto", **args: Any) -> Need:
    return _need(EngineSettings(name="vllm", cluster="ray", replicas=replicas, args=args), list(nodes))


@pytest.mark.parametrize(
    ("args", "gpus"),
    [({}, 1), ({"tensor_parallel_size": 2}, 2), ({"tensor_parallel_size": 2, "pipeline_parallel_size": 2}, 4)],
    ids=["one", "two", "four"],
)
def test_an_engine_is_given_the_gpus_that_it_is_spread_over(args: dict[str, int], gpus: int) -> None:
    assert need({"CPU": 8.0, "GPU": 4.0}, {"CPU": 8.0}, **args) == Need(gpus, 1)


def test_its_gpus_are_those_of_one_node() -> None:
    two = need(NODE, NODE, tensor_parallel_size=2)
    assert [two.fits({"GPU": gpus}) for gpus in (1, 2, 3, 4)] == [0, 1, 1, 2]
    with pytest.raises(JobError, match=r"one engine needs 4 GPUs of one node, and no node has more than 2: lower"):
        need(NODE, NODE, tensor_parallel_size=4)


@pytest.mark.parametrize(
    ("replicas", "cpus"), [("auto", 4), (1, 4), (2, 4), (3, 4), (6, 2), (99, 1)], ids=lambda given: str(given)
)
def test_without_gpus_the_engines_share_the_processors(replicas: int | str, cpus: int) -> None:
    assert need({"CPU": 4.0}, {"CPU": 8.0}, {"memory": 1.0}, replicas=replicas) == Need(0, cpus)


@pytest.fixture(params=["none", "gone"])
def without(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """No cluster: none runs here, whatever runs here; or it is not where the environment says. What joining it comes to."""
    pytest.importorskip("ray")
    from ray._private import services

    if request.param == "gone":
        monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
        return "there is no Ray cluster at 127.0.0.1:9: nothing answers there"
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(services, "find_gcs_addresses", functools.cache(set))
    monkeypatch.setattr(services, "find_bootstrap_address", lambda *_: None)
    return "this machine belongs to no Ray cluster: Could not find any running Ray instance"


def test_a_cluster_that_is_not_there_is_refused(jobs: Any, without: str) -> None:
    with pytest.raises(JobError, match=without):
        jobs.run(jobs.job(jobs.rows([{"text": "a"}]), engine={"cluster": "ray"}))
    assert not list((jobs.path / "out" / "parts").iterdir())


@pytest.mark.usefixtures("without")
def test_auto_without_a_cluster_is_the_gpus_of_this_machine(jobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    script = {"concurrency": 1, "latency": 0.001}
    result = jobs.run(jobs.job(jobs.rows([{"text": "a"}, {"text": "b"}]), script, engine={"cluster": "auto"}))
    assert [record["output"] for record in jobs.records()] == ["a", "b"]
    assert len(result.report["sessions"][0]["replicas"]) == 2
