"""What of vLLM's settings is tried, and what is left out and why: known without vLLM."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmbatch.engines.base import EngineInfo
from llmbatch.engines.devices import Machine
from llmbatch.engines.kinds import Around, Candidate, kind_of
from llmbatch.engines.settings import EngineSettings
from llmbatch.engines.vllm.candidates import batch_size, kv_cache, kv_offload, parallel, quantization, speculation

INFO = EngineInfo("vllm", "0.32", "m", 4096, 256, max_num_batched_tokens=8192, device="NVIDIA H200")
ON_CPU = EngineInfo("vllm", "0.32", "m", 4096, 256, max_num_batched_tokens=8192, device="cpu")
GPUS = Machine(gpus=("0", "1", "2", "3"), seen="nvidia-smi -L")


@pytest.fixture
def model(tmp_path: Path) -> Any:
    def write(**config: Any) -> str:
        (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": 8, "hidden_size": 512, **config}))
        return str(tmp_path)

    return write


def found(kind: Any, around: Around, **args: Any) -> dict[str, Candidate]:
    return {each.name: each for each in kind.candidates(EngineSettings(args=args), around)}


def why(kind: Any, around: Around, **args: Any) -> str:
    (only,) = found(kind, around, **args).values()
    assert only.why_not is not None
    assert only.changes == {}
    return only.why_not


def test_vllm_is_tried_with_twice_and_half_of_each_batch_size() -> None:
    tried = found(batch_size, Around(INFO), dtype="half")
    assert list(tried) == [
        "max_num_seqs=512", "max_num_seqs=128", "max_num_batched_tokens=16384", "max_num_batched_tokens=4096",
    ]  # fmt: skip
    assert all(each.changes["args"]["dtype"] == "half" and each.exact for each in tried.values())


def test_a_batch_size_that_the_job_sets_is_left_alone() -> None:
    assert list(found(batch_size, Around(INFO), max_num_seqs=256)) == [
        "max_num_batched_tokens=16384", "max_num_batched_tokens=4096",
    ]  # fmt: skip


def test_over_several_gpus_engines_are_held_against_one_that_is_spread(model: Any) -> None:
    tried = found(parallel, Around(INFO, GPUS, model()))
    assert list(tried) == ["replicas=4", "replicas=2, tensor_parallel_size=2", "tensor_parallel_size=4"]
    assert tried["replicas=2, tensor_parallel_size=2"].changes == {"replicas": 2, "args": {"tensor_parallel_size": 2}}
    assert not any(each.exact for each in tried.values())


def test_heads_that_the_gpus_cannot_share_are_a_reason(model: Any) -> None:
    tried = found(parallel, Around(INFO, GPUS, model(num_attention_heads=14)))
    assert tried["replicas=2, tensor_parallel_size=2"].why_not is None
    assert "14 attention heads cannot be divided among 4" in (tried["tensor_parallel_size=4"].why_not or "")


def test_one_gpu_leaves_nothing_to_spread() -> None:
    assert "one GPU is visible (nvidia-smi -L)" in why(
        parallel, Around(INFO, Machine(gpus=("0",), seen="nvidia-smi -L"))
    )


def test_on_cores_engines_are_tried_by_twos_and_by_memory_nodes() -> None:
    assert list(found(parallel, Around(ON_CPU, Machine(cpus=tuple(range(64)), nodes=8)))) == [
        "replicas=2", "replicas=4", "replicas=8",
    ]  # fmt: skip
    assert list(found(parallel, Around(ON_CPU, Machine(cpus=(0, 1))))) == ["replicas=2"]
    assert "one core" in why(parallel, Around(ON_CPU, Machine()))


def test_how_many_engines_there_are_may_be_the_jobs_to_say() -> None:
    (left,) = parallel.candidates(EngineSettings(replicas=2), Around(INFO, GPUS))
    assert left.why_not == "the job says how many engines there are"
    assert "engine.args.tensor_parallel_size" in why(parallel, Around(INFO, GPUS), tensor_parallel_size=2)


def test_speculation_by_n_grams_is_tried_and_what_it_needs_else_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speculation, "find_spec", lambda _: None)
    tried = found(speculation, Around(ON_CPU))
    assert tried["speculation: n-gram"].changes["args"]["speculative_config"]["method"] == "ngram"
    assert "pip install arctic-inference" in (tried["suffix"].why_not or "")
    assert "--draft-model" in (tried["draft model"].why_not or "")
    assert "speculation: n-gram on the GPU" not in tried


def test_suffixes_are_tried_where_the_library_is_there_and_a_draft_model_that_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(speculation, "find_spec", lambda _: SimpleNamespace())
    tried = found(speculation, Around(INFO, draft="small"))
    assert tried["speculation: suffix"].changes["args"]["speculative_config"]["method"] == "suffix"
    assert tried["speculation: draft model small"].changes["args"]["speculative_config"]["model"] == "small"
    assert "speculation: n-gram on the GPU" in tried
    assert "no such folder" in (found(speculation, Around(INFO, draft="./nowhere"))["draft model"].why_not or "")


def test_settings_without_speculation_are_the_others() -> None:
    settings = EngineSettings(args={"speculative_config": {"method": "ngram"}, "dtype": "half"})
    without = kind_of("vllm").unspeculating(settings)
    assert without is not None
    assert without.args == {"dtype": "half"}
    assert kind_of("vllm").unspeculating(without) is None


def test_an_8_bit_cache_is_tried_where_a_cpu_can(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "kv_cache_dtype=fp8" in found(kv_cache, Around(INFO, model=model()))
    monkeypatch.setattr(kv_cache, "lacks_instructions", lambda *_: False)
    assert found(kv_cache, Around(ON_CPU, model=model()))["kv_cache_dtype=fp8"].why_not is None
    assert "multiple of 32" in why(kv_cache, Around(ON_CPU, model=model(num_attention_heads=32)))
    monkeypatch.setattr(kv_cache, "lacks_instructions", lambda *_: True)
    assert "AVX-512 or AMX" in why(kv_cache, Around(ON_CPU, model=model()))
    assert "the job sets engine.args.kv_cache_dtype" in why(kv_cache, Around(INFO), kv_cache_dtype="auto")


def test_a_cache_outside_of_the_gpu_needs_memory_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=100 << 30))
    assert found(kv_offload, Around(INFO))["kv_offloading_size=25"].changes == {"args": {"kv_offloading_size": 25}}
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=8 << 30))
    assert "8 GiB of memory free" in why(kv_offload, Around(INFO))
    assert "as it is" in why(kv_offload, Around(ON_CPU))


def test_weights_are_quantized_that_are_not(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(quantization, Around(INFO, model=model()))["quantization=fp8"].why_not is None
    awq = model(quantization_config={"quant_method": "awq"})
    assert "quantized already (awq)" in why(quantization, Around(INFO, model=awq))
    monkeypatch.setattr(quantization, "lacks_instructions", lambda *_: True)
    assert "AMX" in why(quantization, Around(ON_CPU, model=model()))


def test_every_kind_in_the_table_says_what_it_is_of_and_why_it_is_left_out() -> None:
    tried = kind_of("vllm").candidates(EngineSettings(), Around(ON_CPU, Machine(cpus=(0, 1))))
    assert {each.kind for each in tried} == {
        "batch size", "speculation", "replicas", "kv cache", "kv offload", "performance mode", "quantization",
    }  # fmt: skip
    assert all(each.changes or each.why_not for each in tried)
