from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llmbatch.report.trtllm_bench import Bench, Request, printed, report_of

EXAMPLE = Path(__file__).parents[1] / "examples" / "nvidia" / "report.example.json"
REQUESTS = [Request(10.0, 10.6, 12, 6), Request(10.0, 10.9, 16, 8), Request(10.1, 11.0, 8, 4)]


def report(**changes: Any) -> dict[str, Any]:
    given = {"failed": 1, "dataset": "d.jsonl", "model": "demo", "model_path": None, "version": "1", "backend": "vllm"}
    return report_of(Bench(**{"requests": REQUESTS, **given, **changes}))


def keys(value: Any, place: str = "") -> set[str]:
    if not isinstance(value, dict) or not value:
        return {place}
    return {deep for key, inner in value.items() for deep in keys(inner, f"{place}.{key}")}


def test_every_key_of_the_example_is_there() -> None:
    ours = keys(report())
    expected = {key for key in keys(json.loads(EXAMPLE.read_text())) if "_stats" not in key}  # which it leaves empty
    assert expected - ours == set()
    assert {key for key in ours - expected if "_stats" not in key} == {".request_info.failed_requests"}


def test_throughput_is_what_was_done_in_the_time_from_the_first_start_to_the_last_end() -> None:
    performance = report(tp_size=2)["performance"]
    assert performance["total_latency_ms"] == 1000
    assert performance["request_throughput_req_s"] == 3
    assert performance["system_output_throughput_tok_s"] == 18
    assert performance["system_total_throughput_tok_s"] == 54
    assert performance["output_throughput_per_gpu_tok_s"] == 9
    assert round(performance["output_throughput_per_user_tok_s"], 4) == round((6 / 0.6 + 8 / 0.9 + 4 / 0.9) / 3, 4)


def test_a_percentile_is_the_value_at_the_index_that_is_the_share_of_their_number() -> None:
    requests = [Request(0.0, float(n), 1, 1) for n in range(1, 101)]
    found = report(requests=requests)["performance"]["request_latency_percentiles_ms"]
    assert [found[key] for key in ("p50", "p90", "p95", "p99", "minimum", "maximum")] == [
        51_000, 91_000, 96_000, 100_000, 1000, 100_000
    ]  # fmt: skip


def test_what_failed_stands_beside_and_is_in_no_figure() -> None:
    info = report(failed=7)["request_info"]
    assert (info["num_requests"], info["failed_requests"]) == (3, 7)
    assert report(requests=[], failed=2)["performance"]["request_throughput_req_s"] == 0


def test_the_printed_form_has_the_lines_that_scripts_look_for() -> None:
    lines = printed(report()).splitlines()
    for line in (
        "Request Throughput (req/sec):                     3.0000",
        "Total Output Throughput (tokens/sec):             18.0000",
        "Total Token Throughput (tokens/sec):              54.0000",
        "Total Latency (ms):                               1000.0000",
        "Average request latency (ms):                     800.0000",
        "Per GPU Output Throughput (tps/gpu):              18.0000",
        "[Latency] P50    : 900.0000",
        "= ENGINE DETAILS",
        "= MACHINE DETAILS",
        "= WORLD + RUNTIME INFORMATION",
        "= REQUEST DETAILS",
        "= PERFORMANCE OVERVIEW",
        "= DATASET DETAILS",
    ):
        assert line in lines
