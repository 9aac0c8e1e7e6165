"""What the machine has: GPUs and processors, memory, room on its disks, limits, a clock."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from llmbatch.core.words import count
from llmbatch.doctor.base import GIB, Finding, gib
from llmbatch.doctor.hub import cache_folder
from llmbatch.doctor.software import Version, version_of
from llmbatch.engines.devices import Machine, this_machine

_LEAST_MEMORY = 4 * GIB
_LEAST_SHARED = 1 * GIB
_LEAST_DISK = 10 * GIB
_HARDLY_ANY = 100 << 20
_LEAST_FILES = 4_096
_CLOCK_SECONDS = 5.0  # a run that is silent for a minute counts as dead
_USED = 0.1
_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")


def devices(
    machine: Machine | None = None, listed: str | None = None, version: Version = version_of
) -> Iterator[Finding]:
    """GPUs, each with what is used of its memory, and processors. ``listed`` is what ``nvidia-smi`` says of them."""
    found = this_machine() if machine is None else machine
    if not found.gpus:
        yield Finding(
            "GPU",
            "note",
            found.seen,
            "engines run on the processors; a GPU needs its driver, and a container --gpus all",
        )
    else:
        yield Finding("GPU", "ok", f"{len(found.gpus)} to be used: {', '.join(found.gpus)} ({found.seen})")
        yield from _of_gpus(_nvidia_smi() if listed is None else listed)
        if (build := version("torch") or "").endswith("+cpu"):
            yield Finding(
                "torch",
                "warning",
                f"{build} is a build for the CPU: the GPUs lie idle",
                "in a new environment, in the folder of llmbatch's sources: pip install '.[gpu]'",
            )
    flags = [name for name in _INSTRUCTIONS if name in _cpu_flags()]
    few = not flags and not found.gpus and bool(_cpu_flags())
    said = f"{len(found.cpus)} usable of {os.cpu_count() or 1}" + (f", with {', '.join(flags)}" if flags else "")
    advice = "vLLM on a CPU needs AVX2 at least" if few else ""
    yield Finding("processors", "warning" if few else "ok", said, advice)


def _of_gpus(listed: str) -> Iterator[Finding]:
    for number, line in enumerate(listed.splitlines()):
        name, total, used, driver = (part.strip() for part in (*line.split(","), "", "", "")[:4])
        seen = f"{name}, {total}, {used} of it used, driver {driver}"
        held = _mib(used) > _USED * _mib(total) > 0
        advice = (
            "something else holds memory: see nvidia-smi, or lower engine.args.gpu_memory_utilization" if held else ""
        )
        yield Finding(f"GPU {number}", "warning" if held else "ok", seen, advice)


def _mib(text: str) -> float:
    number = text.partition(" ")[0]
    return float(number) if number.replace(".", "", 1).isdigit() else 0.0


def _nvidia_smi() -> str:
    asked = ["nvidia-smi", "--query-gpu=name,memory.total,memory.used,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _cpu_flags() -> frozenset[str]:
    """What an x86 processor can do; nothing of any other."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return frozenset()
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return frozenset(flags.partition(":")[2].split())


def memory(shared: Path = Path("/dev/shm")) -> Iterator[Finding]:  # noqa: S108 - it is looked at, nothing is written
    """The machine's memory, or a container's share of it, and what of it processes can share."""
    there = psutil.virtual_memory()
    limit = _container_limit()
    total = min(there.total, limit) if limit else there.total
    free = min(there.available, total)
    within = f", of which this container may have {gib(limit)}" if limit and limit < there.total else ""
    few = free < _LEAST_MEMORY
    advice = "a model and its cache may not fit: end other programs, or take a smaller model" if few else ""
    yield Finding("memory", "warning" if few else "ok", f"{gib(free)} free of {gib(there.total)}{within}", advice)
    if shared.exists():
        size = shutil.disk_usage(shared)
        small = size.total < _LEAST_SHARED
        advice = "engines of several processes need more: docker run --ipc=host, or --shm-size=8g" if small else ""
        yield Finding(
            "shared memory",
            "warning" if small else "ok",
            f"{gib(size.free)} free of {gib(size.total)} in {shared}",
            advice,
        )


def _container_limit() -> int | None:
    try:
        text = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def disk(places: Sequence[tuple[str, Path]] | None = None) -> Iterator[Finding]:
    """Room where run folders, temporary files and models go."""
    known = [("here", Path.cwd()), ("temporary files", Path(tempfile.gettempdir())), ("models", cache_folder())]
    for name, folder in known if places is None else places:
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        try:
            free = shutil.disk_usage(there).free
        except OSError as error:
            yield Finding(f"disk: {name}", "warning", f"{folder}: cannot be looked at: {error.strerror}")
            continue
        seen = f"{gib(free)} free in {folder}"
        if not os.access(there, os.W_OK):
            yield Finding(
                f"disk: {name}",
                "warning",
                f"{seen}, which this user may not write to",
                "choose another folder, or change its permissions",
            )
        elif free < _HARDLY_ANY:
            yield Finding(f"disk: {name}", "wrong", seen, "free some space")
        elif free < _LEAST_DISK:
            yield Finding(f"disk: {name}", "warning", seen, "models and results may need more")
        else:
            yield Finding(f"disk: {name}", "ok", seen)


def limits(files: int | None = None) -> Iterator[Finding]:
    """What the system lets a process have. ``files``: how many files may be open, by default as it is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = soft if files is None else files
    unlimited = most == resource.RLIM_INFINITY
    few = not unlimited and most < _LEAST_FILES
    more = "unlimited" if hard == resource.RLIM_INFINITY else count(hard)
    advice = (
        f"ulimit -n {65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)}, before the run" if few else ""
    )
    seen = "no limit" if unlimited else f"{count(most)} may be open, of at most {more}"
    yield Finding("open files", "warning" if few else "ok", seen, advice)
    room, _ = resource.getrlimit(resource.RLIMIT_AS)
    if room != resource.RLIM_INFINITY:
        yield Finding(
            "address space",
            "warning",
            f"limited to {gib(room)} (ulimit -v)",
            "ulimit -v unlimited: engines reserve far more than they use",
        )


def clock(folder: Path | None = None) -> Iterator[Finding]:
    """The time, held against the files of the package and against the clock of the file system that runs are written to."""
    now = time.time()
    said = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(now))
    newest = Path(sys.modules["llmbatch"].__file__ or "").stat().st_mtime
    if now < newest - 86_400:
        yield Finding(
            "clock",
            "warning",
            f"{said}, which is before llmbatch was installed",
            "set the clock: certificates and tokens depend on it",
        )
    else:
        yield Finding("clock", "ok", said)
    try:
        with tempfile.NamedTemporaryFile(dir=folder or Path.cwd(), prefix=".llmbatch-doctor-") as file:
            off = abs(os.fstat(file.fileno()).st_mtime - time.time())
    except OSError:  # said by ``disk``
        return
    if off > _CLOCK_SECONDS:
        yield Finding(
            "clock of the disk", "warning", f"{off:.0f} s apart from this machine's",
            "set both by NTP: whether a run on another machine still lives is told by the time of its last sign",
        )  # fmt: skip
