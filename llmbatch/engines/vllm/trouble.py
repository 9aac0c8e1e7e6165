"""vLLM's exceptions in; ours out, in one place: what was seen, why as far as the log tells, and what to try."""

from __future__ import annotations

import re
from pathlib import Path

from llmbatch.core.errors import EngineDied, EngineError, JobError, LlmbatchError, OutOfMemory
from llmbatch.engines.vllm.log import tail

_OUT_OF_MEMORY = re.compile(
    r"out of memory|OutOfMemoryError|No available memory for the cache blocks|less than desired (GPU|CPU) memory utilization"
    r"|is less than requested memory for kv|Cannot allocate memory|MemoryError|std::bad_alloc",
    re.IGNORECASE,
)
_CONTEXT_TOO_LONG = re.compile(
    r"larger than the available KV cache memory|estimated maximum model length", re.IGNORECASE
)
_NO_MODEL = re.compile(
    r"not a valid model identifier|Repository Not Found|is not a local folder|Cannot find any model weights|GatedRepoError"
    r"|Can't load the configuration|couldn't connect to|No such file or directory",
    re.IGNORECASE,
)
_WRONG_BUILD = re.compile(r"operator torchvision::|undefined symbol|lib(?:torch|c10|cudart)\w*\.so")
_ERROR_LINE = re.compile(r"^(?:\(.*?\)\s*)?(?:ERROR .*?\] )?((?:[\w.]+\.)?\w*(?:Error|Exception)\b: .+)$", re.MULTILINE)
_ELSEWHERE = re.compile(
    r"Engine core initialization failed|EngineCore encountered an issue|See .*stack trace|EngineDeadError"
)
# Python's own word for it, and the traceback of a process that ran the program's file again and so came to llmbatch again: there
# it finds the run folder taken, by the run that started it
_NO_GUARD = re.compile(
    r"before the current process has finished its bootstrapping phase"
    r'|in _fixup_main_from_\w+\n[\s\S]*[\\/]llmbatch[\\/](?:api|runs[\\/]\w+)\.py", line'
)


def start_failure(error: BaseException, model: str, log: Path, begin: int) -> LlmbatchError:
    """What to raise for an exception while the engine started; ``begin`` is where in the log this start begins.

    An engine in its own process tells its reason only in the log.
    """
    if isinstance(error, LlmbatchError):
        return error
    reason = _reason(error, log, begin)
    if _CONTEXT_TOO_LONG.search(reason):
        hint = "Give a smaller context with --set engine.args.max_model_len=N, or more memory to the cache"
        return EngineError(f"the KV cache cannot hold one prompt of the model's full context length: {reason}. {hint}")
    if _OUT_OF_MEMORY.search(reason) or isinstance(error, MemoryError):
        hint = (
            "Try --set engine.args.gpu_memory_utilization=0.8 if another process uses the device, a smaller max_model_len, "
            "a quantized model, or tensor_parallel_size over several GPUs"
        )
        return OutOfMemory(f"not enough memory for model {model!r}: {reason}. {hint}")
    if _NO_MODEL.search(reason):
        return EngineError(
            f"model {model!r} cannot be loaded: {reason}. Check the name or path; a gated model needs HF_TOKEN"
        )
    if _WRONG_BUILD.search(reason):
        hint = (
            "A library is of another build than torch: a model of text alone does without these, so "
            "pip uninstall torchvision torchaudio torchcodec, or install llmbatch anew as its page on installing says"
        )
        return EngineError(f"vLLM cannot be imported: {reason}. {hint}")
    return EngineError(f"vLLM could not start with model {model!r}: {reason}. The whole log is in {log}")


def death(error: BaseException | None, seen: str, log: Path, begin: int) -> EngineDied:
    """An ``EngineDied`` that says what was seen; its cause is an ``OutOfMemory`` where memory was the reason."""
    reason = _reason(error, log, begin)
    died = EngineDied(f"{seen}: {reason} (log: {log})" if reason else f"{seen} (log: {log})")
    died.__cause__ = OutOfMemory(reason) if _OUT_OF_MEMORY.search(reason) or isinstance(error, MemoryError) else error
    return died


def refusals() -> tuple[type[Exception], ...]:
    """What vLLM raises where one request, not the engine, is at fault. From 0.25 or so its own errors are no ``ValueError``."""
    from vllm import exceptions

    return (ValueError, TypeError, exceptions.VLLMValidationError)


def deaths() -> tuple[type[Exception], ...]:
    """What vLLM raises where the engine, not the request that is handed to it, is at fault."""
    from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError
    from zmq import ZMQError

    return (EngineDeadError, EngineGenerateError, ZMQError, MemoryError)


def check_model(model: str) -> None:
    """Raises ``JobError`` for a folder that holds no model, before anything heavy is imported."""
    path = Path(model).expanduser()
    if path.is_dir() and not (
        any((path / name).is_file() for name in ("config.json", "params.json")) or list(path.glob("*.gguf"))
    ):
        raise JobError(f"model {model!r} is a folder without config.json: it holds no model")


def _reason(error: BaseException | None, log: Path, begin: int) -> str:
    """The exception's message, or where it only points to one in the engine's own process, that one's, from the log."""
    if error is None or isinstance(error, TimeoutError):
        return ""
    own = _one_line(str(error) or type(error).__name__)
    if not _ELSEWHERE.search(own):
        return own
    text = tail(log, begin)
    if _NO_GUARD.search(text):
        return 'the program starts processes, so its code must be under `if __name__ == "__main__":`'
    causes = [line for line in _ERROR_LINE.findall(text) if not _ELSEWHERE.search(line)]
    memory = [line for line in causes if _OUT_OF_MEMORY.search(line)]
    return _one_line((memory or causes or [own])[-1])


def _one_line(text: str) -> str:
    return " ".join(text.split())[:600].rstrip(".")
