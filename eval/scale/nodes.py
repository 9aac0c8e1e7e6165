"""A number of nodes in; a real Ray cluster of so many, all on this machine, out. Their processors are logical."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil

sys.path.append(str(Path(__file__).parents[2] / "tests"))
import ray_nodes

_TRIES = 10  # Ray's own limits for a node to start are short where much else runs
WORKER = "llmbatch.engines.worker"


class Nodes(ray_nodes.Nodes):
    """A head without processors, and nodes; each is tried several times."""

    def __init__(self) -> None:
        _tried(partial(super().__init__, num_cpus=0, ray_client_server_port=None))
        self.address: str = self.cluster.address

    def add(self, **given: Any) -> None:
        _tried(partial(super().add, **given))


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
            found.add(num_cpus=cpus)
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
