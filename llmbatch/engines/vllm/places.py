"""How many engines, and a machine, in; which GPUs, or which processors, each of them has out."""

from __future__ import annotations

import math

from llmbatch.core.errors import JobError
from llmbatch.engines.devices import VISIBLE, Machine, Place
from llmbatch.engines.settings import EngineSettings

_PARALLEL = ("tensor_parallel_size", "pipeline_parallel_size")
_BIND = "VLLM_CPU_OMP_THREADS_BIND"


def devices(settings: EngineSettings) -> int:
    """GPUs that one engine runs on."""
    sizes = [settings.args.get(name) for name in _PARALLEL]
    return math.prod(size for size in sizes if isinstance(size, int) and size > 0)


def places(settings: EngineSettings, machine: Machine) -> list[Place]:
    """The place of each engine: a slice of the visible GPUs, or where there are none of the processors. Raises ``JobError``."""
    return _on_gpus(settings, machine) if machine.gpus else _on_cpus(settings, machine)


def _on_gpus(settings: EngineSettings, machine: Machine) -> list[Place]:
    engines, each, gpus = settings.engines, devices(settings), machine.gpus
    if engines * each > len(gpus):
        what = f"{engines} engines" if each == 1 else f"{engines} engines of {each} GPUs each"
        raise JobError(
            f"engine.replicas={engines}: {what} need {engines * each} GPUs, and {len(gpus)} are visible ({machine.seen}): give "
            f"--replicas {max(1, len(gpus) // each)}, or auto"
        )
    return [Place({VISIBLE: ",".join(gpus[n * each : (n + 1) * each])}) for n in range(engines)]


def _on_cpus(settings: EngineSettings, machine: Machine) -> list[Place]:
    engines, ranks, cpus = settings.engines, devices(settings), machine.cpus
    if engines * ranks > len(cpus):
        raise JobError(
            f"engine.replicas={engines}: there is no GPU ({machine.seen}), and engines on the processor need one each at least, of "
            f"which this run may use {len(cpus)}: give --replicas {max(1, len(cpus) // ranks)}, or auto"
        )
    found = []
    for number in range(engines):
        own = cpus[number * len(cpus) // engines : (number + 1) * len(cpus) // engines]
        lists = [own[rank * len(own) // ranks : (rank + 1) * len(own) // ranks] for rank in range(ranks)]
        # vLLM binds the threads of workers in processes of their own by the first, an engine in its own process takes the second
        bound = {_BIND: "|".join(",".join(map(str, each)) for each in lists), "OMP_NUM_THREADS": str(len(lists[0]))}
        found.append(Place(bound, own))
    return found


__all__ = ["devices", "places"]
