"""A stand-in server of the V2 protocol, and jobs on it. What real servers do is shown by ``make engines``."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

STAND_IN = Path(__file__).parents[3] / "eval" / "peers" / "stand_in_v2.py"


@pytest.fixture(scope="session")
def v2() -> Any:
    """The module of the stand-in."""
    if not STAND_IN.is_file():  # a source distribution has the tests without eval/
        pytest.skip("eval/ is not part of this distribution")
    spec = importlib.util.spec_from_file_location("stand_in_v2", STAND_IN)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def serve(v2: Any) -> Iterator[Callable[..., tuple[Any, str]]]:
    """Starts a stand-in that behaves as said: (it, its URL)."""
    with ExitStack() as stack:

        def serve(tls: Any = None, **behaviour: Any) -> tuple[Any, str]:
            server = v2.StandIn(**behaviour)
            return server, stack.enter_context(v2.serving(server, tls))

        yield serve
