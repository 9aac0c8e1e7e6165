"""Several engines against one that is spread: over the GPUs that are visible, or over the cores where there are none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from llmbatch.engines.kinds import Around, Candidate
from llmbatch.engines.settings import EngineSettings
from llmbatch.engines.vllm.candidates.base import config_of, left_out, set_by_the_job

_KIND = "replicas"
_TENSORS = "tensor_parallel_size"
_MOST_ON_CORES = 4


def candidates(settings: EngineSettings, around: Around) -> Iterable[Candidate]:
    if given := set_by_the_job(_KIND, settings, _TENSORS, "pipeline_parallel_size"):
        return given
    if settings.replicas != 1 or settings.cluster is not None:
        return [left_out(_KIND, _KIND, "the job says how many engines there are")]
    if settings.hosted is False or settings.in_process:
        return [left_out(_KIND, _KIND, "the job keeps the engine in its own process, and several need one each")]
    return list(_on_gpus(settings, around) if around.machine.gpus else _on_cores(settings, around))


def _on_gpus(settings: EngineSettings, around: Around) -> Iterator[Candidate]:
    """All GPUs, as engines of one GPU, of two, ... and as one engine of all."""
    gpus = len(around.machine.gpus)
    if gpus < 2:
        yield left_out(_KIND, _KIND, f"one GPU is visible ({around.machine.seen})")
        return
    heads = config_of(settings, around).get("num_attention_heads")
    for size in (size for size in range(1, gpus + 1) if gpus % size == 0):
        engines = gpus // size
        parts = [*([f"replicas={engines}"] if engines > 1 else []), *([f"{_TENSORS}={size}"] if size > 1 else [])]
        name = ", ".join(parts)
        if isinstance(heads, int) and heads % size:
            yield left_out(_KIND, name, f"the model's {heads} attention heads cannot be divided among {size} GPUs")
            continue
        args = settings.args if size == 1 else {**settings.args, _TENSORS: size}
        yield Candidate(name, {"replicas": engines, "args": args}, _KIND, exact=False)


def _on_cores(settings: EngineSettings, around: Around) -> Iterator[Candidate]:
    """One engine for each memory node, and two and four; each has its own cores."""
    cores, nodes = len(around.machine.cpus), around.machine.nodes
    counts = sorted({2, _MOST_ON_CORES, nodes} - {1})
    if cores < counts[0]:
        yield left_out(_KIND, _KIND, "there is one core to run on")
        return
    for count in counts:
        if count <= cores:
            yield Candidate(f"replicas={count}", {"replicas": count, "args": settings.args}, _KIND, exact=False)
