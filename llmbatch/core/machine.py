"""What of this machine an engine decides by which numbers it calculates with, where the job leaves that open; its processors."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

_FLAGS = ("avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16")  # x86 and Arm
_GPUS = ("0x03", "0x12")  # PCI classes: displays, and what only calculates


@cache
def machine() -> str:
    """The processor's 16-bit instructions and the kinds of GPU, in short text. Read from Linux's own files; no driver is asked."""
    words = set(_text(Path("/proc/cpuinfo")).split())
    found = {flag for flag in _FLAGS if flag in words}
    for device in Path("/sys/bus/pci/devices").glob("*"):
        if _text(device / "class").startswith(_GPUS):
            found.add(f"pci {_text(device / 'vendor')}:{_text(device / 'device')}")
    for gpu in Path("/proc/driver/nvidia/gpus").glob("*/information"):
        found |= {line.partition(":")[2].strip() for line in _text(gpu).splitlines() if line.startswith("Model:")}
    return ", ".join(sorted(found)) or "plain"


def processors() -> tuple[int, ...]:
    """The numbers of the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


__all__ = ["machine", "processors"]
