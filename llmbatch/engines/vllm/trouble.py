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
_SET = "--set engine.args."
_MEMORY = (
    (
        "less than desired (GPU|CPU) memory utilization",
        "Other processes hold memory (nvidia-smi names them, or top on a CPU): end them, or ask for less than is free, as with "
        f"{_SET}gpu_memory_utilization=0.8",
    ),
    (
        "No available memory for the cache blocks",
        f"The weights leave no room for the cache: give more with {_SET}gpu_memory_utilization=0.95, or take a smaller or a "
        "quantized model, or tensor_parallel_size over several GPUs",
    ),
    (
        "",
        f"Try a quantized or a smaller model, tensor_parallel_size over several GPUs, or a smaller max_model_len; {_SET}"
        "gpu_memory_utilization=0.8 if another process uses the device",
    ),
)
"""What vLLM says where memory is the reason, and what to try; the first that fits."""
_KNOWN = (
    (
        "larger than the available KV cache memory|estimated maximum model length",
        "the KV cache cannot hold one prompt of the full context length of model {model}",
        f"Give a smaller context with {_SET}max_model_len=N, or more memory to the cache",
    ),
    (
        "greater than the derived max_model_len",
        "engine.args.max_model_len is more than model {model} can see",
        "Leave it out, or give no more than that; how a model can be stretched its authors say (engine.args.hf_overrides)",
    ),
    (
        "Bfloat16 is only supported on GPUs",
        "model {model} has a type of numbers that this GPU does not know",
        f"Give {_SET}dtype=half",
    ),
    (
        "larger than the number of available GPUs",
        "there are too few GPUs for model {model} as it is to be divided",
        f"Give {_SET}tensor_parallel_size=N with no more than there are (see nvidia-smi, and CUDA_VISIBLE_DEVICES)",
    ),
    (
        "must be divisible by tensor parallel size",
        "model {model} cannot be divided over so many GPUs",
        f"Give {_SET}tensor_parallel_size=N by which the number can be divided, often 1, 2, 4 or 8; the other "
        "GPUs are used with engine.replicas",
    ),
    (
        "architectures? .* (is|are) not supported",
        "this vLLM does not know model {model}",
        "A newer vLLM that llmbatch allows may (README says which), or another engine: --engine transformers",
    ),
    (
        "trust_remote_code=True|contains custom code",
        "model {model} comes with code of its own",
        "Read it, and if you trust it give --set engine.trust_remote_code=true",
    ),
    (
        "NVIDIA driver on your system is too old|CUDA driver version is insufficient",
        "vLLM cannot use this GPU",
        "Update the driver, or install a vLLM that was built for an older CUDA; llmbatch doctor says what is there",
    ),
    (
        "Failed to infer device type",
        "vLLM sees no device",
        "See whether nvidia-smi lists a GPU and CUDA_VISIBLE_DEVICES hides none; for a CPU docs/install.md says what to install in "
        "a new environment",
    ),
    (
        r"operator torchvision::|undefined symbol|lib(?:torch|c10|cudart)\w*\.so",
        "vLLM cannot be imported",
        "A library is of another build than torch: a model of text alone does without these, so pip uninstall torchvision "
        "torchaudio torchcodec, or install llmbatch anew as its page on installing says",
    ),
    (
        "cannot open shared object file",
        "vLLM cannot be imported",
        "A library of the system is missing: install the one that it names",
    ),
    (
        "not a valid model identifier|Repository Not Found|is not a local folder|Cannot find any model weights|GatedRepoError"
        "|Can't load the configuration|couldn't connect to|No such file or directory",
        "model {model} cannot be loaded",
        "Check the name or path; a gated model needs HF_TOKEN",
    ),
)
"""What vLLM says where something else is, what that means, and what to try."""
# where vLLM's own advice begins: its flags are not ours
_ADVICE = re.compile(
    r",? (You can use float16|Try increasing|Decrease GPU memory|On the CPU backend|If this is intentional|To allow overriding"
    r"|Supported architectures:|Please pass the argument|Please update your GPU driver|please set the environment|See https://docs\.vllm).*"
)
# a ``ValueError`` that was raised while pydantic looked
_WRAPPED = re.compile(r"\A\d+ validation errors? for \w+\n\s*Value error, (.*?)(?: \[type=value_error.*)?\Z", re.DOTALL)
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
    reason = _reason(error, log, begin)
    seen = _ADVICE.sub("", reason).rstrip(" .,")
    if _OUT_OF_MEMORY.search(reason) or isinstance(error, MemoryError):
        hint = next(hint for words, hint in _MEMORY if re.search(words, reason, re.IGNORECASE))
        return OutOfMemory(f"not enough memory for model {model!r}: {seen}. {hint}")
    for words, said, hint in _KNOWN:
        if re.search(words, reason, re.IGNORECASE):
            return EngineError(f"{said.format(model=repr(model))}: {seen}. {hint}")
    return EngineError(f"vLLM could not start with model {model!r}: {reason}. The whole log is in {log}")


def death(error: BaseException | None, seen: str, log: Path, begin: int) -> EngineDied:
    """An ``EngineDied`` that says what was seen; its cause is an ``OutOfMemory`` where memory was the reason."""
    reason = _reason(error, log, begin)
    died = EngineDied(f"{seen}: {reason} (log: {log})" if reason else f"{seen} (log: {log})")
    died.__cause__ = OutOfMemory(reason) if _OUT_OF_MEMORY.search(reason) or isinstance(error, MemoryError) else error
    return died


def refusals() -> tuple[type[Exception], ...]:
    """What vLLM raises where one request, not the engine, is at fault. Its own errors are no ``ValueError``."""
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
    own = _one_line(_WRAPPED.sub(r"\1", str(error)) or type(error).__name__)
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
