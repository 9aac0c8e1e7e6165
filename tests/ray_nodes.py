"""A Ray cluster of several nodes on this machine, on which much else may run.

A node ends by itself where its agent for the dashboard has not said within 15 s on which ports it listens. Here the agent is one
without a dashboard, which listens on none, and that is said before the node starts.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil

HEALTH = {
    "health_check_initial_delay_ms": 1000, "health_check_period_ms": 1000, "health_check_timeout_ms": 10_000,
    "health_check_failure_threshold": 2,
}  # fmt: skip
LIGHT = {"object_store_memory": 80 << 20, "include_log_monitor": False}


def wait_for_no_agent() -> None:
    """For all nodes that this process starts."""
    from ray import _raylet
    from ray._private import services, utils

    utils.get_dashboard_dependency_error = lambda: ImportError("left out")
    start = services.start_raylet
    silent = (
        _raylet.METRICS_AGENT_PORT_NAME, _raylet.METRICS_EXPORT_PORT_NAME, _raylet.DASHBOARD_AGENT_LISTEN_PORT_NAME,
    )  # fmt: skip

    def start_raylet(*given: Any, **named: Any) -> Any:
        node, folder = given[2], given[11]
        for name in silent:
            _raylet.persist_port(folder, node, name, -1)
        with socket.create_server(("", 0)) as free:
            named["runtime_env_agent_port"] = free.getsockname()[1]
        return start(*given, **named)

    services.start_raylet = start_raylet


class Nodes:
    """A cluster of a head and nodes, each with one processor, which is logical."""

    def __init__(self, **head: Any) -> None:
        """``head`` is what the head has besides, or otherwise."""
        from ray.cluster_utils import Cluster

        wait_for_no_agent()
        self.port = free_port()
        usual = {
            **LIGHT, "num_cpus": 1, "include_dashboard": False, "no_monitor": True, "_system_config": HEALTH,
            "ray_client_server_port": self.port,
        }  # fmt: skip
        self.cluster = Cluster(initialize_head=True, head_node_args={**usual, **head})
        self.nodes: list[Any] = []

    def add(self, **given: Any) -> None:
        """One more node; ``given`` is what it has besides, or otherwise: ``num_gpus``, ``env_vars``, ..."""
        self.nodes.append(self.cluster.add_node(**{"num_cpus": 1, "wait": False, **LIGHT, **given}))

    def have(self, count: int) -> None:
        """There is the head and so many others, and nothing runs on them."""
        while len(self.nodes) < count:
            self.add()
        while len(self.nodes) > count:
            self.kill(self.nodes[-1])
        wait_for(lambda: self.free().get("CPU") == 1 + count and len(self.alive()) == 1 + count)

    def free(self) -> dict[str, float]:
        import ray

        if not ray.is_initialized():
            ray.init(address=self.cluster.address, log_to_driver=False, configure_logging=False)
        free: dict[str, float] = ray.available_resources()
        return free

    def alive(self) -> list[Any]:
        import ray

        return [node for node in ray.nodes() if node["Alive"]]

    def kill(self, node: Any) -> None:
        """As a machine that loses its power."""
        self.nodes.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)

    def close(self) -> None:
        import ray

        ray.shutdown()
        self.cluster.shutdown()


@contextmanager
def a_cluster() -> Iterator[Nodes]:
    """To which ``--cluster ray`` leads."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_prestart_worker_first_driver": "0"}
    nodes = Nodes()
    os.environ["RAY_ADDRESS"] = nodes.cluster.address
    try:
        yield nodes
    finally:
        del os.environ["RAY_ADDRESS"]
        nodes.close()


def free_port() -> int:
    """One below those that Ray takes for its workers."""
    for port in range(9000, 10_000):
        with socket.socket() as one:
            try:
                one.bind(("", port))
            except OSError:
                continue
            return port
    raise AssertionError("all ports from 9000 to 10000 are taken")


def wait_for(there: Callable[[], Any]) -> None:
    for _ in range(6000):
        if there():
            return
        time.sleep(0.1)
    raise AssertionError("it did not come to that within ten minutes")


def workers() -> list[psutil.Process]:
    """The processes of engines of this process's cluster, each below an actor; that which is there for longest is the first."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it ended meanwhile
            parent = process.parent() if "llmbatch.engines.worker" in process.cmdline() else None
            if parent is not None and "ray::" in " ".join(parent.cmdline()):
                found.append(process)
    return sorted(found, key=psutil.Process.create_time)


def none_lives(processes: list[psutil.Process]) -> bool:
    """Also of such as are below no actor any more, which ``workers`` does not find. What ended may wait for who started it."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                return False
    return True


__all__ = ["Nodes", "a_cluster", "free_port", "none_lives", "wait_for", "wait_for_no_agent", "workers"]
