"""What torch compiles for is looked up beside the imports of a start."""

from __future__ import annotations

import pytest

from llmbatch.engines.vllm.vector import look

pytestmark = pytest.mark.vllm  # imports torch's compiler


def test_what_torch_picks_is_known_once_the_thread_is_at_its_end() -> None:
    """Fails where a new torch keeps it elsewhere: then every start waits for it again, and nothing else."""
    from torch._inductor.cpu_vec_isa import valid_vec_isa_list

    valid_vec_isa_list.cache_clear()
    thread = look()
    assert thread is not None
    thread.join()
    assert valid_vec_isa_list.cache_info().currsize == 1


def test_what_torch_is_was_read_once_the_thread_is_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails where a new torch does not keep it: then every start reads its source again, and nothing else."""
    from torch._inductor import codecache

    thread = look()
    assert thread is not None
    thread.join()
    monkeypatch.setattr(codecache, "build_code_hash", None)  # nothing is read any more
    assert len(codecache.torch_key()) == 32
