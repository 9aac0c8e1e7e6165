"""Exceptions of torch and transformers in; ours out, in one place: what was seen, and what to try."""

from __future__ import annotations

import re
from pathlib import Path

from llmbatch.core.errors import EngineDied, EngineError, JobError, LlmbatchError, OutOfMemory
from llmbatch.core.words import one_line

# torch has a class of its own for a GPU's memory; of the processor's it raises a RuntimeError
_OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|std::bad_alloc", re.IGNORECASE)
_WIDTH = 600


def is_out_of_memory(error: BaseException | None, said: str = "") -> bool:
    """Whether memory was the reason. Of an error in another thread there may be only what it ``said``."""
    if error is None:
        return bool(_OUT_OF_MEMORY.search(said))
    return isinstance(error, MemoryError | OutOfMemory) or (
        isinstance(error, RuntimeError) and bool(_OUT_OF_MEMORY.search(str(error)))
    )


def start_failure(error: BaseException, model: str, log: Path) -> LlmbatchError:
    """What to raise for an exception while the engine started."""
    if isinstance(error, LlmbatchError):
        return error
    reason = one_line(str(error) or type(error).__name__, _WIDTH).rstrip(".")
    if is_out_of_memory(error):
        hint = "Try a smaller engine.args.max_num_seqs or num_blocks, a smaller dtype, or a quantized model"
        return OutOfMemory(f"not enough memory for model {model!r}: {reason}. {hint}")
    if isinstance(error, OSError):
        return EngineError(
            f"model {model!r} cannot be loaded: {reason}. Check the name or path; a gated model needs HF_TOKEN"
        )
    if isinstance(error, ImportError):
        return JobError(f"model {model!r} needs a package that is not installed: {reason}")
    return EngineError(f"transformers could not start with model {model!r}: {reason}. The whole log is in {log}")


def death(error: BaseException | None, seen: str, log: Path) -> EngineDied:
    """An ``EngineDied`` that says what was seen; its cause is an ``OutOfMemory`` where memory was the reason."""
    reason = "" if error is None else one_line(str(error) or type(error).__name__, _WIDTH)
    died = EngineDied(f"{seen}: {reason} (log: {log})" if reason else f"{seen} (log: {log})")
    died.__cause__ = OutOfMemory(reason) if is_out_of_memory(error, reason) else error
    return died
