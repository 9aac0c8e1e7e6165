"""A start of vLLM on a CPU in; what torch must know before it loads what it compiled, looked up beside the imports, out.

At every start torch asks the compiler for its version, has a process of its own load a library, to see which vector instructions it
may compile for, and reads its own source, to see whether it is what it was: half a second, in which nothing else is done. Here a
thread asks for it while vLLM is still being imported; torch keeps the answers, and they are torch's own.
"""

from __future__ import annotations

import importlib
import logging
import threading

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

    def pick() -> None:
        try:
            pick_vec_isa()
            torch_key()
        except Exception as error:  # torch will meet it again, where it belongs
            logging.getLogger(__name__).info("torch could not tell what it compiles for: %s", error)

    thread = threading.Thread(target=pick, name="llmbatch-vector", daemon=True)
    thread.start()
    return thread


__all__ = ["look"]
