"""How large the transformers engine makes its cache, on a machine whose memory is given."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from llmbatch.engines.settings import EngineSettings
from llmbatch.engines.transformers.sizes import continuous_sizes

A_TOKEN = 2 * 2 * 2 * 16 * 4  # layers, keys and values, heads, the width of one, bytes of a number
PLENTY = 1 << 40


def sizes(
    monkeypatch: pytest.MonkeyPatch,
    *,
    free: int = PLENTY,
    device: str = "cpu",
    context: int = 512,
    engines: int = 1,
    **args: Any,
) -> dict[str, Any]:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free))
    config = transformers.LlamaConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
    model = SimpleNamespace(config=config, dtype=torch.float32)
    loaded: Any = SimpleNamespace(model=model, device=SimpleNamespace(type=device), context_length=context)
    settings: Any = EngineSettings(name="transformers", args=args, replicas=engines)
    return continuous_sizes(loaded, settings)


def test_on_a_processor_the_cache_holds_a_few_hundred_tokens_a_row_however_much_memory_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert sizes(monkeypatch) == {
        "page_size": 32, "max_requests_per_batch": 64, "max_batch_tokens": 2048, "num_blocks": 64 * 512 // 32,
    }  # fmt: skip
    assert sizes(monkeypatch, max_num_seqs=8)["num_blocks"] == 8 * 512 // 32


def test_two_rows_of_the_greatest_length_fit_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sizes(monkeypatch, context=40_000)["num_blocks"] == 2 * 40_000 // 32


def test_of_little_memory_it_takes_a_quarter_and_several_engines_share_that(monkeypatch: pytest.MonkeyPatch) -> None:
    free = 4 * 320 * A_TOKEN
    assert sizes(monkeypatch, free=free)["num_blocks"] == 10
    assert sizes(monkeypatch, free=free, engines=5)["num_blocks"] == 2
    assert sizes(monkeypatch, free=1)["num_blocks"] == 2, "the least with which anything runs"


@pytest.mark.parametrize("given", [{"num_blocks": 7}, {"max_memory_percent": 0.3}], ids=str)
def test_what_the_job_says_of_its_size_stays(monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]) -> None:
    found = sizes(monkeypatch, **given)
    assert {name: found[name] for name in ("num_blocks", "max_memory_percent") if name in found} == given


def test_on_a_gpu_the_library_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sizes(monkeypatch, device="cuda") == {"max_memory_percent": 0.8}
