"""Settings in; vLLM's engine arguments out, checked against vLLM's own list, with defaults for offline work.

On a GPU batch sizes are left to vLLM where nothing is said: its ``LLM`` class knows the hardware and takes offline sizes (1024
sequences and 16,384 tokens a step on an H100). On a CPU it takes 256 and 4,096 whatever the model; see ``_cpu_batch``. And there it
takes as much memory for its KV cache as it may, whatever the sequences need; see ``_cpu_cache``.
"""

from __future__ import annotations

import difflib
import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any

from llmbatch.core.errors import JobError
from llmbatch.core.types import Constraint
from llmbatch.core.words import short
from llmbatch.engines.settings import EngineSettings
from llmbatch.engines.vllm.compiled import can_load
from llmbatch.engines.vllm.sampling import xgrammar_takes
from llmbatch.engines.vllm.settings import argument_problem
from llmbatch.model.memory import cache_bytes_per_token
from llmbatch.model.tokenizer import ChatSettings, context_length, model_config
from llmbatch.model.vision import takes_text_alone

_LISTED = "vLLM lists them under Engine Arguments on docs.vllm.ai; those of the installed version are the fields of vllm.EngineArgs"
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
_LORAS_AT_ONCE = 8
_TOKENS_PER_SEQUENCE = 256  # prompt and answer of a short row; more sequences than fit would push each other out
_CACHED_TOKENS_PER_SEQUENCE = 512  # and as much again for prefixes that stay
_CACHED_CONTEXTS = 4  # rows of the greatest length that run at a time at least
_CPU_SEQUENCES = 256  # vLLM's max_num_seqs on a CPU
_CPU_WORKER = "llmbatch.engines.vllm.cpu_worker.Worker"
_LOGITS_BYTES = 12  # float32, and the copies that sampling makes
# unless the user says otherwise: nothing is told to vLLM's makers, and how much memory a GPU has for the cache is measured by the
# first start and taken over by later ones as long as nothing changed
_WHILE_STARTING = {"VLLM_NO_USAGE_STATS": "1", "VLLM_ENABLE_STARTUP_PLAN": "1"}
# what the prompt's ids depend on, for a renderer without an engine
_RENDER_ARGS = (
    "code_revision", "config_format", "convert", "download_dir", "hf_config_path", "hf_overrides", "hf_token",
    "interleave_mm_strings", "limit_mm_per_prompt", "max_model_len", "mm_processor_cache_gb", "mm_processor_kwargs", "revision",
    "runner", "skip_tokenizer_init", "tokenizer", "tokenizer_mode", "tokenizer_revision", "trust_remote_code",
)  # fmt: skip


def engine_args(model: str, settings: EngineSettings, chat: ChatSettings) -> dict[str, Any]:
    """Keyword arguments for ``vllm.LLM``. Raises ``JobError`` for names that vLLM does not know."""
    given = dict(settings.args)
    _check_names(given)
    args: dict[str, Any] = {
        "model": model,
        "trust_remote_code": settings.trust_remote_code,
        # which models that give numbers can share prefixes vLLM knows
        **({} if given.get("runner") == "pooling" else {"enable_prefix_caching": True}),
        "disable_log_stats": given.get("speculative_config") is None,  # its counts tell whether guessing pays
        **(_cpu_defaults(model, given, settings.engines) if is_cpu() else {}),
    }
    if chat.template is not None:
        from llmbatch.model.tokenizer import load_template

        args["chat_template"] = load_template(chat.template)
    if settings.reasoning_parser is not None:
        args["reasoning_parser"] = settings.reasoning_parser  # a grammar then begins after the thinking part
    if settings.lora:
        args |= _lora_defaults(settings.lora)
    if not takes_text_alone(model, given.get("revision")):
        # what its processor made of images: gigabytes, and wrong in the engine core once a prompt is refused after it was processed
        args["mm_processor_cache_gb"] = 0
    structured = given.pop("structured_outputs_config", None)
    args |= given
    # Without it a weak model fills the answer with white space until it is cut off. vLLM wants the backend named for it.
    args["structured_outputs_config"] = {
        "backend": "xgrammar",
        "disable_any_whitespace": True,
        **_structured(structured),
    }
    return args


def render_args(args: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the engine's arguments that matter to a renderer alone."""
    return {"model": args["model"], **{name: args[name] for name in _RENDER_ARGS if name in args}}


def is_cpu() -> bool:
    """Whether vLLM will run on the CPU."""
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def with_backend_for(args: Mapping[str, Any], constraints: Sequence[Constraint]) -> dict[str, Any]:
    """The same arguments, with guidance as grammar backend where xgrammar cannot take a constraint and nothing was asked for."""
    structured = args["structured_outputs_config"]
    if structured["backend"] == "xgrammar" and not all(map(xgrammar_takes, constraints)):
        return {**args, "structured_outputs_config": {**structured, "backend": "guidance"}}
    return dict(args)


@contextmanager
def environment(*, in_process: bool) -> Iterator[None]:
    """The environment variables that vLLM reads while it starts; as before afterwards."""
    wanted = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0" if in_process else "1"}
    wanted |= {name: value for name, value in _WHILE_STARTING.items() if name not in os.environ}
    if is_cpu() and "VLLM_USE_AOT_COMPILE" not in os.environ:
        # what a start compiled is loaded by the next one; else not even compiled so, as torch's own cache is then quicker
        wanted["VLLM_USE_AOT_COMPILE"] = "1" if can_load() else "0"
    if threading.active_count() > 1 and "VLLM_WORKER_MULTIPROC_METHOD" not in os.environ:
        wanted["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"  # a fork would copy the locks that other threads hold
    before = {name: os.environ.get(name) for name in wanted}
    _forget_cached_environment()
    _let_llvmlite_be_looked_at()
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _forget_cached_environment() -> None:
    """vLLM keeps the variables' values once an engine has started; a second engine may want others."""
    from vllm import envs

    forget = getattr(envs, "disable_envs_cache", None)
    if forget is not None:
        forget()


def _let_llvmlite_be_looked_at() -> None:
    """Speculation by n-grams imports numba, after which vLLM 0.32 starts no further engine on the CPU in the same process.

    As it starts it looks at what is in all modules, and llvmlite's handle of its library, asked for its ``__dict__``, gives a
    function of that name ("'_lib_fn_wrapper' object has no attribute 'get'"). With this it gives a mapping.
    """
    if (module := sys.modules.get("llvmlite.binding.ffi")) is not None:
        getattr(module.lib, "_fntab", {})["__dict__"] = {}


def _check_names(given: Mapping[str, Any]) -> None:
    from vllm import LLM
    from vllm.engine.arg_utils import EngineArgs

    own = {name for name, p in signature(LLM.__init__).parameters.items() if p.kind is p.KEYWORD_ONLY}
    known = own | {f.name for f in fields(EngineArgs)}
    for name, value in given.items():
        if problem := argument_problem(name, value):
            raise JobError(problem)
        if name not in known:
            near = difflib.get_close_matches(name, sorted(n for n in known if not n.startswith("_")), n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else _LISTED
            raise JobError(f"engine.args.{name}: vLLM has no engine argument {name!r}; {hint}")


def _cpu_defaults(model: str, given: Mapping[str, Any], engines: int) -> dict[str, Any]:
    """``engines`` share the machine's memory."""
    defaults: dict[str, Any] = {
        "block_size": 32,  # vLLM's 128 never shares a shorter prefix
        "worker_cls": _CPU_WORKER,
    }
    if not _has_bf16():
        defaults["dtype"] = "float32"  # 2.4 times as fast as bfloat16 that is emulated
    size_is_given = bool({"kv_cache_memory_bytes", "gpu_memory_utilization"} & given.keys())
    if not size_is_given and not os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
        defaults["kv_cache_memory_bytes"] = _free_memory() // 4 // engines
    # without chunked prefill, which encoders have not, vLLM wants a step to hold max_model_len, and sizes it itself
    sized = {"max_num_seqs", "max_num_batched_tokens", "enable_chunked_prefill"} & given.keys()
    if not sized and given.get("runner") != "pooling":
        defaults |= _cpu_batch(model, {**defaults, **given})
    if "kv_cache_memory_bytes" in defaults:
        defaults["kv_cache_memory_bytes"] = _cpu_cache(model, {**defaults, **given})
    return defaults


def _cpu_cache(model: str, args: Mapping[str, Any]) -> int:
    """Bytes of KV cache: a quarter of the memory, as it is in ``args``, or less where the sequences can never fill that.

    The demo model's would be 3 million tokens; where ``cache_memory`` does not spare it, to clear them takes 14 seconds.
    """
    most = int(args["kv_cache_memory_bytes"])
    config = _config(model, args)
    token = None if config is None else _token_bytes(config, args)
    if token is None:
        return most
    sequences = args.get("max_num_seqs", _CPU_SEQUENCES)
    context = args.get("max_model_len") or context_length(model, args.get("revision"))
    if not isinstance(sequences, int) or not isinstance(context, int):  # "auto", or what vLLM will refuse
        return most
    return min(most, token * max(sequences * _CACHED_TOKENS_PER_SEQUENCE, context * _CACHED_CONTEXTS))


def _cpu_batch(model: str, args: Mapping[str, Any]) -> dict[str, int]:
    """Larger batches than vLLM's for a CPU, where memory has room for them; nothing where it has not.

    A step has costs of its own, some milliseconds, which a small model's sums do not cover: with 1,024 instead of 256 sequences
    the demo model is a fifth faster (``eval/bench``). A sequence needs room in the KV cache, and a row of logits in each step.
    """
    cache = args.get("kv_cache_memory_bytes")
    config = _config(model, args)
    if config is None or not isinstance(cache, int):
        return {}
    token, vocabulary = _token_bytes(config, args), config.get("vocab_size")
    if token is None or not isinstance(vocabulary, int):
        return {}
    in_cache = cache // (token * _TOKENS_PER_SEQUENCE)
    in_logits = _free_memory() // 16 // (vocabulary * _LOGITS_BYTES)
    fitting = [size for size in (1024, 512) if size <= min(in_cache, in_logits)]
    return {"max_num_seqs": fitting[0], "max_num_batched_tokens": 8 * fitting[0]} if fitting else {}


def _token_bytes(config: Mapping[str, Any], args: Mapping[str, Any]) -> int | None:
    """Bytes of a token in the KV cache, whose numbers are those of the model: on a CPU they may have 32 bits."""
    token = cache_bytes_per_token(config)
    return 2 * token if token is not None and args.get("dtype") in ("float32", "float") else token


def _config(model: str, args: Mapping[str, Any]) -> Mapping[str, Any] | None:
    try:
        return model_config(model, args.get("revision"))
    except (OSError, ValueError):  # vLLM will say what is wrong with it
        return None


def _has_bf16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    # x86 and Arm
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", "avx_ne_convert", " bf16"))


def _free_memory() -> int:
    """Bytes that can be had without swapping, on the memory node with the least: vLLM binds itself to one."""
    import psutil

    free = int(psutil.virtual_memory().available)
    for path in Path("/sys/devices/system/node").glob("node[0-9]*/meminfo"):
        lines = dict(line.split(":", 1) for line in path.read_text(encoding="utf-8").splitlines() if ":" in line)
        numbers = {
            name.split()[-1]: int(value.split()[0]) * 1024
            for name, value in lines.items()
            if value.split()[0].isdigit()
        }
        if numbers.get("MemTotal"):
            free = min(free, numbers.get("MemFree", 0) + numbers.get("FilePages", 0))
    return max(free, 4 << 28)


def _lora_defaults(adapters: Mapping[str, str]) -> dict[str, Any]:
    """LoRA on, with room for the adapters' ranks; all of them stay in memory."""
    ranks = [_lora_rank(name, path) for name, path in adapters.items()]
    fitting = next((rank for rank in _LORA_RANKS if rank >= max(ranks)), max(ranks))
    at_once = min(len(adapters), _LORAS_AT_ONCE)
    return {
        "enable_lora": True,
        "max_lora_rank": max(fitting, 16),
        "max_loras": at_once,
        "max_cpu_loras": len(adapters),
    }


def _lora_rank(name: str, path: str) -> int:
    config = Path(path) / "adapter_config.json"
    if not Path(path).exists() and path.count("/") == 1:
        return 16  # a hub name; vLLM says if its rank is higher
    try:
        return int(json.loads(config.read_text(encoding="utf-8"))["r"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise JobError(
            f"engine.lora.{name}: {path!r} is no LoRA adapter: {config.name} cannot be read: {error}"
        ) from error


def _structured(given: Any) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise JobError(f"engine.args.structured_outputs_config must be a mapping, not {short(given)}")
    backend = given.get("backend")
    if backend not in (None, "xgrammar", "guidance") and "disable_any_whitespace" not in given:
        return {**given, "disable_any_whitespace": False}  # the other backends cannot
    return dict(given)
