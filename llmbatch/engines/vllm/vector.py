"""A start of vLLM on a CPU in; what torch must know before it loads what it compiled, looked up beside the imports, out.

At every start torch asks the compiler for its version, has a process of its own load a library, to see which vector instructions it
may compile for, and reads its own source, to see whether it is what it was: half a second, in which nothing else is done. Here a
thread asks for it while vLLM is still being imported; torch keeps the answers, and they are torch's own.

For a third of a second it reads all of Triton too, though nothing that is compiled for a CPU is made by it. In place of a digest of
its bytes it gets what tells one Triton from another at a glance.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import threading
from collections.abc import Callable
from pathlib import Path

_NEEDED = ("torch._inductor.codecache", "torch._inductor.cpp_builder", "torch.utils._filelock")


def look() -> threading.Thread | None:
    """Begin to look; the thread is to be waited for before torch compiles or loads anything. None for a torch that has no such."""
    try:
        for module in _NEEDED:  # here, and not in the thread: two threads that import what needs each other get halves
            importlib.import_module(module)
        from torch._inductor.codecache import torch_key
        from torch._inductor.cpu_vec_isa import pick_vec_isa
    except ImportError:
        return None
    know_triton()

    def pick() -> None:
        try:
            pick_vec_isa()
            torch_key()
        except Exception as error:  # torch will meet it again, where it belongs
            logging.getLogger(__name__).info("torch could not tell what it compiles for: %s", error)

    thread = threading.Thread(target=pick, name="llmbatch-vector", daemon=True)
    thread.start()
    return thread


def know_triton() -> None:
    """Give torch a key of Triton that needs no reading, unless it has one; nothing where there is no Triton or it takes none."""
    try:
        from torch._inductor.codecache import triton_key
    except ImportError:
        return
    take: Callable[[str], None] | None = getattr(triton_key, "set", None)
    seen = _triton_at_a_glance()
    if take is None or seen is None:
        return
    try:
        take(seen)
    except RuntimeError:  # it was asked for before
        return


def _triton_at_a_glance() -> str | None:
    """Size and time of each file of its compiler; None where there is none."""
    spec = importlib.util.find_spec("triton")
    if spec is None or spec.origin is None:
        return None
    files = sorted(file for file in (Path(spec.origin).parent / "_C").glob("*") if file.is_file())
    stats = [(file.name, file.stat()) for file in (Path(spec.origin), *files)]
    return " ".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats) if files else None


__all__ = ["know_triton", "look"]
