"""What a start of vLLM in this process goes without."""

from __future__ import annotations

import gc
import importlib
import sys
import threading
from collections.abc import Iterator

import pytest

from llmbatch.engines.vllm.haste import no_search, without

ABSENT = "colorsys"  # a module of Python's own that nothing here imports


@pytest.fixture
def not_imported() -> Iterator[None]:
    before = sys.modules.pop(ABSENT, None)
    yield
    sys.modules.pop(ABSENT, None)
    if before is not None:
        sys.modules[ABSENT] = before


class Cycle:
    """An object that only a search for garbage takes away."""

    def __init__(self, gone: list[str]) -> None:
        self.itself = self
        self.gone = gone

    def __del__(self) -> None:
        self.gone.append("gone")


def test_no_garbage_is_searched_for_until_the_last_has_no_haste_any_more() -> None:
    gone: list[str] = []
    with no_search():
        with no_search():
            assert not gc.isenabled()
        Cycle(gone)
        gc.collect()
        gc.collect(2)
        assert not gone
    gc.collect()
    assert gone == ["gone"]
    assert gc.isenabled()


def test_what_was_frozen_before_stays_so_and_nothing_more_is() -> None:
    before = gc.get_freeze_count()
    with no_search():
        gc.freeze()
        assert gc.get_freeze_count() <= before  # what was frozen may have ended


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with no_search():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.usefixtures("not_imported")
def test_a_package_is_not_there_for_this_thread_and_then_it_is_again() -> None:
    found: list[object] = []
    with without(ABSENT):
        with pytest.raises(ModuleNotFoundError, match=ABSENT):
            importlib.import_module(ABSENT)
        thread = threading.Thread(target=lambda: found.append(importlib.import_module(ABSENT)))
        thread.start()
        thread.join()
        assert len(found) == 1
    assert importlib.import_module(ABSENT) is found[0]


@pytest.mark.usefixtures("not_imported")
def test_a_package_that_was_imported_before_is_there() -> None:
    known = importlib.import_module(ABSENT)
    with without(ABSENT):
        assert importlib.import_module(ABSENT) is known


def test_what_stays_is_looked_at_by_no_later_search_until_it_is_let_go() -> None:
    gone: list[str] = []
    with no_search(keeps=True):
        Cycle(gone)
    gc.collect()
    assert not gone
    gc.unfreeze()
    gc.collect()
    assert gone == ["gone"]
