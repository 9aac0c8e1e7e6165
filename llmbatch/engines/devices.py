"""The environment in; what engines of this machine can be put on, out: the GPUs that are visible, and the processors.

Nothing here loads CUDA: a process that did would hold memory on a GPU that is another's.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llmbatch.core.machine import processors

VISIBLE = "CUDA_VISIBLE_DEVICES"
_GPU = re.compile(r"GPU (\d+):.*")
_MIG = re.compile(r"\s+MIG .*\(UUID: (MIG-[^)]+)\)")
_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Machine:
    """What is there. ``gpus`` are names that ``CUDA_VISIBLE_DEVICES`` takes; ``seen`` says in words where they are known from.

    ``nodes`` are the memory nodes (NUMA), among which the processors are divided.
    """

    gpus: tuple[str, ...] = ()
    cpus: tuple[int, ...] = (0,)
    seen: str = "no GPU"
    nodes: int = 1


@dataclass(frozen=True, slots=True)
class Place:
    """Where one of several engines runs: variables of its process's environment, and the processors it may use (empty: all)."""

    environment: Mapping[str, str] = field(default_factory=dict)
    cpus: tuple[int, ...] = ()


def nvidia_smi() -> str:
    """What ``nvidia-smi -L`` prints; empty where there is none."""
    if shutil.which("nvidia-smi") is None:
        return ""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def this_machine(
    environment: Mapping[str, str] | None = None, list_gpus: Callable[[], str] = nvidia_smi, cpus: Sequence[int] = ()
) -> Machine:
    """What this process may use, as its environment says. ``list_gpus`` prints the machine's GPUs as ``nvidia-smi -L`` does."""
    given = os.environ if environment is None else environment
    usable = tuple(cpus) or processors()
    visible = given.get(VISIBLE)
    if visible is not None:
        gpus = _named(visible)
        return Machine(gpus, usable, f"{VISIBLE}={visible}", _nodes())
    gpus = _listed(list_gpus())
    return Machine(gpus, usable, "nvidia-smi -L" if gpus else "no GPU: nvidia-smi lists none", _nodes())


def _named(visible: str) -> tuple[str, ...]:
    """As CUDA reads it: what comes after a name that is none is not seen."""
    names: list[str] = []
    for name in (part.strip() for part in visible.split(",")):
        if not name or name.startswith("-"):
            break
        names.append(name)
    return tuple(names)


def _listed(text: str) -> tuple[str, ...]:
    """Each GPU by its number; one that is divided (MIG) by the UUIDs of its parts, as it cannot be used whole."""
    found: list[list[str]] = []
    for line in text.splitlines():
        if gpu := _GPU.fullmatch(line.rstrip()):
            found.append([gpu[1]])
        elif (mig := _MIG.match(line)) and found:
            found[-1].append(mig[1])
    return tuple(name for gpu in found for name in (gpu[1:] or gpu))


def _nodes() -> int:
    return max(1, sum(1 for _ in Path("/sys/devices/system/node").glob("node[0-9]*")))


__all__ = ["VISIBLE", "Machine", "Place", "this_machine"]
