"""A job's engine section in; what of it is for vLLM and what its answers depend on out, known without vLLM."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from llmbatch.engines.settings import EngineSettings

# arguments that have a setting of their own, and its name
_ELSEWHERE = {
    "model": "model",
    "chat_template": "chat.template",
    "trust_remote_code": "engine.trust_remote_code",
    "reasoning_parser": "engine.reasoning_parser",
    "tool_call_parser": "engine.tool_call_parser",
    "lora_modules": "engine.lora",
}
# Engine arguments that change how fast answers come, and the answers at most by the rounding of their arithmetic.
SPEED_ARGS = frozenset(
    {
        "aggregate_engine_logging", "all2all_backend", "async_scheduling", "block_size", "compilation_config",
        "cp_kv_cache_interleave_size", "cpu_distributed_timeout_seconds", "cpu_offload_gb", "cpu_offload_params",
        "cudagraph_capture_sizes", "data_parallel_address", "data_parallel_backend", "data_parallel_rpc_port", "data_parallel_size",
        "data_parallel_size_local", "dcp_kv_cache_interleave_size", "decode_context_parallel_size", "device_ids",
        "disable_custom_all_reduce", "disable_log_stats", "distributed_executor_backend", "distributed_timeout_seconds",
        "download_dir", "enable_chunked_prefill", "enable_dbo", "enable_expert_parallel", "enable_prefix_caching", "enforce_eager",
        "gpu_memory_utilization", "hf_token", "kv_cache_memory_bytes", "kv_cache_metrics", "long_prefill_token_threshold",
        "master_addr", "master_port", "max_cpu_loras", "max_cudagraph_capture_size", "max_loras", "max_num_batched_tokens",
        "max_num_scheduled_tokens", "max_num_seqs", "max_parallel_loading_workers", "mm_processor_cache_gb",
        "mm_processor_cache_type", "mm_shm_cache_max_object_size_mb", "nnodes", "node_rank",
        "num_gpu_blocks_override", "numa_bind", "numa_bind_cpus", "numa_bind_nodes", "offload_backend", "otlp_traces_endpoint",
        "pipeline_parallel_size", "prefill_context_parallel_size", "prefix_caching_hash_algo", "ray_workers_use_nsight",
        "renderer_num_workers", "safetensors_load_strategy", "scheduling_policy",
        "show_hidden_metrics_for_version", "skip_mm_profiling", "swap_space",
        "tensor_parallel_size", "ubatch_size", "use_tqdm_on_load",
    }
)  # fmt: skip


class VllmSettings(EngineSettings):
    """The engine section of a job on vLLM. The names in ``args`` are held against vLLM's own once that is imported."""

    @model_validator(mode="after")
    def _of_this_engine(self) -> VllmSettings:
        if self.script is not None:
            raise ValueError("engine.script is for the scripted engine alone: give --engine scripted, or take it out")
        for name, value in self.args.items():
            if problem := argument_problem(name, value):
                raise ValueError(problem)
        return self


def argument_problem(name: str, value: Any) -> str | None:
    """Why an engine argument that vLLM knows cannot be given, and what to give instead; ``None`` where it can."""
    if name in _ELSEWHERE:
        return f"engine.args.{name} has a setting of its own: {_ELSEWHERE[name]}"
    if name == "data_parallel_size" and value != 1:
        return (
            f"engine.args.data_parallel_size={value}: vLLM's offline engine, which llmbatch drives, takes no data parallelism. One "
            "model over several GPUs: engine.args.tensor_parallel_size. A model on each of several GPUs: --replicas auto"
        )
    return None


def identity(settings: EngineSettings) -> dict[str, Any]:
    """Those of the arguments that the answers depend on."""
    return {name: value for name, value in settings.args.items() if not _is_speed(name, value)}


def _is_speed(name: str, value: Any) -> bool:
    if name == "load_format":
        return bool(value != "dummy")  # how the weights are read, unless they are made up
    return name in SPEED_ARGS
