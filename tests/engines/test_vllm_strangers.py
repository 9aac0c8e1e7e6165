"""vLLM's search for kernels, with values among what is imported that can be asked nothing, as Flask's stand-ins."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from typing import Any

import pytest

from llmbatch.engines.vllm.strangers import ask_safely


class StandIn:
    """As ``flask.request`` outside of a request: even whether it has attributes cannot be asked."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("Working outside of application context.")


@pytest.mark.vllm
def test_vllm_finds_kernels_beside_values_that_can_be_asked_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("vllm.triton_utils.dispatcher") is None:
        pytest.skip("this vLLM does not look")  # then there is nothing to be mended
    from vllm.triton_utils import dispatcher

    def kernel(x: int) -> int:
        return x

    stranger, owner, holder = (types.ModuleType(name) for name in ("a_stranger", "an_owner", "a_holder"))
    stranger.__dict__["request"] = StandIn()
    owner.__dict__["kernel"] = holder.__dict__["other_name"] = kernel
    for module in (stranger, owner, holder):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(dispatcher, "_registry", {})
    monkeypatch.delattr(dispatcher, "hasattr", raising=False)
    with pytest.raises(RuntimeError, match="application context"):  # else there is nothing left to be mended
        dispatcher.register_kernels({"an_owner.kernel": lambda x: 2 * x})
    monkeypatch.setattr(dispatcher, "_registry", {})
    ask_safely()
    dispatcher.register_kernels({"an_owner.kernel": lambda x: 2 * x})
    assert owner.__dict__["kernel"](3) == holder.__dict__["other_name"](3) == 6


@pytest.mark.vllm
def test_vllm_looks_into_its_own_modules_and_a_users_and_not_into_those_that_know_nothing_of_it() -> None:
    dispatcher = pytest.importorskip("vllm.triton_utils.dispatcher")
    importlib.import_module("vllm.v1.worker.block_table")
    ask_safely()
    looked = {id(module) for module in dispatcher.sys.modules.values()}
    for name in ("vllm", "vllm.v1.worker.block_table", __name__, "pytest"):
        assert id(sys.modules[name]) in looked
    for name in ("torch.nn", "transformers", "json", "llmbatch"):
        assert id(sys.modules[name]) not in looked
    assert len(looked) < len(sys.modules) / 2
    assert dispatcher.sys.modules["torch"] is sys.modules["torch"]
