"""What torch compiles for is looked up beside the imports of a start."""

from __future__ import annotations

from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from llmbatch.engines.vllm.vector import know_triton, look

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


def test_of_triton_nothing_is_read_and_another_one_has_another_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails where a new torch takes no key: then every start reads all of Triton again, and nothing else."""
    from torch._inductor import codecache

    library = tmp_path / "triton" / "_C" / "libtriton.so"
    library.parent.mkdir(parents=True)
    (tmp_path / "triton" / "__init__.py").write_text("")
    spec = ModuleSpec("triton", None, origin=str(tmp_path / "triton" / "__init__.py"))
    monkeypatch.setattr("importlib.util.find_spec", {"triton": spec}.get)
    key: Any = codecache.triton_key
    seen = []
    try:
        for content in ("one", "another"):
            library.write_text(content)
            key.clear()
            know_triton()
            know_triton()  # which changes nothing
            seen.append(key())
    finally:
        key.clear()
    assert "libtriton.so 3 " in seen[0]
    assert "libtriton.so 7 " in seen[1]
