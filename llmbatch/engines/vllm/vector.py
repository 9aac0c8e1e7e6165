"""A start of vLLM on a CPU in; which vector instructions torch compiles for, looked up beside the imports of the start, out.

Before torch loads what it compiled for a CPU it asks the compiler for its version and has a process of its own load a library, at
every start: a third of a second and more, in which nothing else is done. Here a thread asks for it while vLLM is still being
imported; torch keeps the answer, and it is torch's own.
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
        from torch._inductor.cpu_vec_isa import pick_vec_isa
    except ImportError:
        return None

    def pick() -> None:
        try:
            pick_vec_isa()
        except Exception as error:  # torch will meet it again, where it belongs
            logging.getLogger(__name__).info("torch could not tell its vector instructions: %s", error)

    thread = threading.Thread(target=pick, name="llmbatch-vector", daemon=True)
    thread.start()
    return thread


__all__ = ["look"]
