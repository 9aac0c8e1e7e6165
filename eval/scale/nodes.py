"""A number of nodes in; a real Ray cluster of so many, all on this machine, out. Their processors are logical."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.cluster_utils import Cluster

sys.path.append(str(Path(__file__).parents[2] / "tests"))
from ray_nodes import wait_for_no_agent

_LIGHT = {"object_store_memory": 80 << 20, "include_log_monitor": False}
_TRIES = 10  # Ray's own limits for a node to start are short where much else runs
_HEALTH = {
    "health_check_initial_delay_ms": 1000, "health_check_period_ms": 1000, "health_check_timeout_ms": 10_000,
    "health_check_failure_threshold": 2,
}  # fmt: skip
WORKER = "llmbatch.engines.worker"


class Nodes:
    """A head without processors, and nodes."""

    def __init__(self) -> None:
        wait_for_no_agent()
        head = {**_LIGHT, "num_cpus": 0, "include_dashboard": False, "no_monitor": True, "_system_config": _HEALTH}
        self._cluster = _tried(lambda: Cluster(initialize_head=True, head_node_args=head))
        self.address: str = self._cluster.address
        self.nodes: list[Any] = []

    def add(self, cpus: int = 1) -> None:
        self.nodes.append(_tried(lambda: self._cluster.add_node(num_cpus=cpus, wait=False, **_LIGHT)))

    def kill(self, node: Any) -> None:
        """As a machine that loses its power."""
        self.nodes.remove(node)
        self._cluster.remove_node(node, allow_graceful=False)

    def close(self) -> None:
        ray.shutdown()
        self._cluster.shutdown()


@contextlib.contextmanager
def nodes_of(count: int, cpus: int = 1) -> Iterator[Nodes]:
    """So many nodes, to which ``--cluster ray`` leads."""
    # an engine in an actor would stand back behind whatever else computes on the machine (niceness 15)
    os.environ |= {
        "RAY_USAGE_STATS_ENABLED": "0", "RAY_prestart_worker_first_driver": "0", "RAY_worker_niceness": "0",
    }  # fmt: skip
    found = Nodes()
    try:
        for _ in range(count):
            found.add(cpus)
        os.environ["RAY_ADDRESS"] = found.address
        yield found
    finally:
        os.environ.pop("RAY_ADDRESS", None)
        found.close()


def actors() -> list[psutil.Process]:
    """The processes of actors with an engine."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.NoSuchProcess):  # one that ends meanwhile, or a zombie, is none of them
            if WORKER in (process.info["cmdline"] or ()):
                parent = process.parent()
                if parent is not None and "ray::" in " ".join(parent.cmdline()):
                    found.append(parent)
    return found


def _tried(start: Callable[[], Any]) -> Any:
    for _ in range(_TRIES - 1):
        before = set(psutil.Process().children())
        try:
            return start()
        except Exception as error:
            print(f"a node did not start: {error!r}", file=sys.stderr)
            for process in set(psutil.Process().children()) - before:
                process.kill()
            time.sleep(1)
    return start()
