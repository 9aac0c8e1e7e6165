"""The requests of a measured run in; the report of ``trtllm-bench`` out, as its ``--report_json`` has it and as it prints it.

Only requests that were answered count; how many were not stands beside them (``failed_requests``, which is ours).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

_PERCENTS = (50, 90, 95, 99)
_RULE = "=" * 59
_UNDER = "-" * 59
_WIDTH = 50


class Request(NamedTuple):
    """One that was answered. Times in seconds of one clock, lengths in tokens."""

    start: float
    end: float
    prompt_tokens: int
    completion_tokens: int

    @property
    def latency(self) -> float:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Bench:
    """What was measured, and on what. ``machine`` is None without a GPU; of the engine None is what it does not tell."""

    requests: Sequence[Request]
    failed: int
    dataset: str
    model: str
    model_path: str | None
    version: str | None
    backend: str
    machine: Mapping[str, Any] | None = None
    dtype: str | None = None
    kv_cache_dtype: str | None = None
    quantization: str | None = None
    tp_size: int = 1
    pp_size: int = 1
    max_batch_size: int | None = None
    max_num_tokens: int | None = None
    kv_cache_percentage: float | None = None


def report_of(bench: Bench) -> dict[str, Any]:
    """The object that is written as JSON."""
    requests, world = bench.requests, bench.tp_size * bench.pp_size
    count = len(requests)
    total = max((r.end for r in requests), default=0.0) - min((r.start for r in requests), default=0.0)
    prompt_tokens = sum(r.prompt_tokens for r in requests)
    output_tokens = sum(r.completion_tokens for r in requests)
    latencies = [1000 * r.latency for r in requests]
    each_user = [r.completion_tokens / r.latency for r in requests if r.latency > 0]
    return {
        "engine": {
            "model": bench.model,
            "model_path": bench.model_path,
            "engine_dir": None,
            "version": bench.version,
            "backend": bench.backend,
            "dtype": bench.dtype,
            "kv_cache_dtype": bench.kv_cache_dtype,
            "quantization": bench.quantization,
        },
        "machine": bench.machine,
        "world_info": {
            "tp_size": bench.tp_size,
            "pp_size": bench.pp_size,
            "ep_size": None,
            "world_size": world,
            "max_batch_size": bench.max_batch_size,
            "max_num_tokens": bench.max_num_tokens,
            "scheduling_policy": None,
            "kv_cache_percentage": bench.kv_cache_percentage,
            "issue_rate": 0.0,
        },
        "request_info": {
            "num_requests": count,
            "failed_requests": bench.failed,
            "avg_num_concurrent_requests": _per(sum(r.latency for r in requests), total),
            "avg_input_length": _per(prompt_tokens, count),
            "avg_output_length": _per(output_tokens, count),
        },
        "performance": {
            "total_latency_ms": 1000 * total,
            "avg_request_latency_ms": _mean(latencies),
            "request_throughput_req_s": _per(count, total),
            "system_output_throughput_tok_s": _per(output_tokens, total),
            "system_total_throughput_tok_s": _per(prompt_tokens + output_tokens, total),
            "output_throughput_per_user_tok_s": _mean(each_user),
            "output_throughput_per_gpu_tok_s": _per(output_tokens, total) / world,
            "request_latency_percentiles_ms": _statistics(latencies),
        },
        "dataset": _dataset(bench),
    }


def _dataset(bench: Bench) -> dict[str, Any]:
    lengths = {
        "isl": [r.prompt_tokens for r in bench.requests],
        "osl": [r.completion_tokens for r in bench.requests],
        "sequence_length": [r.prompt_tokens + r.completion_tokens for r in bench.requests],
    }
    return {
        "isl_stats": _statistics(lengths["isl"]),
        "osl_stats": _statistics(lengths["osl"]),
        "seq_len_stats": _statistics(lengths["sequence_length"]),
        "num_requests": len(bench.requests),
        "dataset_path": bench.dataset,
        **{f"max_{name}": max(values, default=0) for name, values in lengths.items()},
        **{f"avg_{name}": _mean(values) for name, values in lengths.items()},
    }


def _statistics(values: Sequence[float]) -> dict[str, float]:
    """A percentile of n sorted values is the one at index int(n p), as that tool has it."""
    ordered = sorted(values)
    if not ordered:
        return dict.fromkeys((*(f"p{percent}" for percent in _PERCENTS), "minimum", "maximum", "average"), 0.0)
    found = {f"p{percent}": float(ordered[len(ordered) * percent // 100]) for percent in _PERCENTS}
    return {**found, "minimum": float(ordered[0]), "maximum": float(ordered[-1]), "average": _mean(ordered)}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _per(amount: float, by: float) -> float:
    return amount / by if by else 0.0


def printed(report: Mapping[str, Any]) -> str:
    """The report for a person, and for scripts that look for its lines."""
    return "\n".join(
        line for block in (_engine, _machine, _world, _requests, _performance, _lengths) for line in block(report)
    )


def _headed(title: str) -> list[str]:
    return [_RULE, f"= {title}", _RULE]


def _shown(label: str, value: Any) -> str:
    return f"{label:<{_WIDTH}}{'N/A' if value is None else value}"


def _figures(*labelled: tuple[str, float]) -> list[str]:
    return [f"{label:<{_WIDTH}}{value:.4f}" for label, value in labelled]


def _engine(report: Mapping[str, Any]) -> Iterator[str]:
    engine = report["engine"]
    yield from _headed("ENGINE DETAILS")
    yield _shown("Model:", engine["model"])
    yield _shown("Model Path:", engine["model_path"])
    yield _shown("Backend:", engine["backend"])
    yield _shown("Version:", engine["version"])
    yield _shown("Dtype:", engine["dtype"])
    yield _shown("KV Cache Dtype:", engine["kv_cache_dtype"])
    yield _shown("Quantization:", engine["quantization"])
    yield ""


def _machine(report: Mapping[str, Any]) -> Iterator[str]:
    machine = report["machine"]
    yield from _headed("MACHINE DETAILS")
    if machine is None:
        yield "No GPU"
    else:
        yield f"{machine['name']}, memory {machine['memory.total']:.2f} GB, {machine['clocks.mem'] or 0:.2f} GHz"
    yield ""


def _world(report: Mapping[str, Any]) -> Iterator[str]:
    world = report["world_info"]
    yield from _headed("WORLD + RUNTIME INFORMATION")
    for label, key in (
        ("TP Size:", "tp_size"),
        ("PP Size:", "pp_size"),
        ("EP Size:", "ep_size"),
        ("Max Runtime Batch Size:", "max_batch_size"),
        ("Max Runtime Tokens:", "max_num_tokens"),
        ("Scheduling Policy:", "scheduling_policy"),
        ("KV Memory Percentage:", "kv_cache_percentage"),
    ):
        yield _shown(label, world[key])
    yield from _figures(("Issue Rate (req/sec):", world["issue_rate"]))
    yield ""


def _requests(report: Mapping[str, Any]) -> Iterator[str]:
    info = report["request_info"]
    yield from _headed("REQUEST DETAILS")
    yield _shown("Number of requests:", info["num_requests"])
    yield _shown("Failed requests:", info["failed_requests"])
    yield from _figures(
        ("Number of concurrent requests:", info["avg_num_concurrent_requests"]),
        ("Average Input Length (tokens):", info["avg_input_length"]),
        ("Average Output Length (tokens):", info["avg_output_length"]),
    )


def _performance(report: Mapping[str, Any]) -> Iterator[str]:
    performance = report["performance"]
    yield from _headed("PERFORMANCE OVERVIEW")
    yield from _figures(
        ("Request Throughput (req/sec):", performance["request_throughput_req_s"]),
        ("Total Output Throughput (tokens/sec):", performance["system_output_throughput_tok_s"]),
        ("Total Token Throughput (tokens/sec):", performance["system_total_throughput_tok_s"]),
        ("Total Latency (ms):", performance["total_latency_ms"]),
        ("Average request latency (ms):", performance["avg_request_latency_ms"]),
        ("Per User Output Throughput [w/ ctx] (tps/user):", performance["output_throughput_per_user_tok_s"]),
        ("Per GPU Output Throughput (tps/gpu):", performance["output_throughput_per_gpu_tok_s"]),
    )
    yield ""
    yield "-- Request Latency Breakdown (ms) -----------------------"
    yield ""
    found = performance["request_latency_percentiles_ms"]
    names = {**{f"p{percent}": f"P{percent}" for percent in _PERCENTS}, "minimum": "MINIMUM", "maximum": "MAXIMUM"}
    for key, name in {**names, "average": "AVERAGE"}.items():
        yield f"[Latency] {name:<7}: {found[key]:.4f}"
    yield ""


def _lengths(report: Mapping[str, Any]) -> Iterator[str]:
    dataset = report["dataset"]
    yield from _headed("DATASET DETAILS")
    yield _shown("Dataset Path:", dataset["dataset_path"])
    yield _shown("Number of Sequences:", dataset["num_requests"])
    yield ""
    yield "-- Percentiles statistics ---------------------------------"
    yield ""
    columns = (("Input", "isl_stats"), ("Output", "osl_stats"), ("Seq. Length", "seq_len_stats"))
    yield " " * 10 + "".join(f"{name:>14}" for name, _ in columns)
    yield _UNDER
    for key, name in (
        ("minimum", "MIN:"),
        ("maximum", "MAX:"),
        ("average", "AVG:"),
        *((f"p{p}", f"P{p}:") for p in _PERCENTS),
    ):
        yield f"{name:<10}" + "".join(f"{dataset[block][key]:>14.4f}" for _, block in columns)
    yield _RULE


__all__ = ["Bench", "Request", "printed", "report_of"]
