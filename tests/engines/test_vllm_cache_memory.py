"""The KV cache on a CPU is of memory that holds zeros by itself; all else that is zero is torch's own."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import psutil
import pytest

from llmbatch.engines.vllm.cache_memory import cleared_by_use

pytestmark = pytest.mark.vllm  # imports vLLM
SIZE = 256 << 20


@pytest.fixture
def utils() -> Any:
    import vllm.v1.worker.utils

    return vllm.v1.worker.utils


def test_it_is_zero_and_takes_no_memory_before_it_is_used(utils: Any) -> None:
    import torch

    before = psutil.Process().memory_info().rss
    with cleared_by_use():
        cache = utils.torch.zeros(SIZE, dtype=torch.int8, device=torch.device("cpu"))
    assert psutil.Process().memory_info().rss - before < SIZE / 4
    assert (cache.shape, cache.dtype, cache.device.type) == ((SIZE,), torch.int8, "cpu")
    part = cache.view(torch.float32)[1 << 20 : 2 << 20]
    assert not part.any()
    part += 1.5
    assert float(part.sum()) == 1.5 * (1 << 20)
    assert not cache[: 4 << 20].any()
    assert not cache[8 << 20 : 64 << 20].any()


@pytest.mark.parametrize(
    "asked",
    [
        lambda torch: torch.zeros(100, dtype=torch.int8, device="cpu"),
        lambda torch: torch.zeros(SIZE // 64, dtype=torch.int32, device="cpu"),
        lambda torch: torch.zeros((2, SIZE // 64), dtype=torch.int8, device="cpu"),
        lambda torch: torch.zeros(2, 3),
        lambda torch: torch.zeros(SIZE // 64, dtype=torch.int8),
        lambda torch: torch.zeros(SIZE // 64, dtype=torch.int8, device="cpu", requires_grad=False),
        lambda torch: torch.zeros(SIZE // 64, dtype=torch.int8, device="meta"),
    ],
    ids=["small", "of integers", "of two dimensions", "by dimensions", "anywhere", "with more", "elsewhere"],
)
def test_whatever_else_is_asked_of_torch_it_gives_itself(utils: Any, asked: Any) -> None:
    import torch

    theirs = asked(torch)
    with cleared_by_use():
        assert utils.torch.int8 is torch.int8
        ours = asked(utils.torch)
    assert (ours.shape, ours.dtype, ours.device) == (theirs.shape, theirs.dtype, theirs.device)
    assert ours.untyped_storage().resizable() == theirs.untyped_storage().resizable()


def test_afterwards_vllm_has_its_own_torch_however_it_went(utils: Any) -> None:
    import torch

    for raised in (False, True):
        with pytest.raises(ZeroDivisionError) if raised else nullcontext(), cleared_by_use():
            assert utils.torch is not torch
            _ = 1 / (not raised)
    assert utils.torch is torch


def test_a_vllm_that_allocates_it_elsewhere_is_left_alone(utils: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.delattr(utils, "allocate_kv_cache")
    with cleared_by_use():
        assert utils.torch is torch
