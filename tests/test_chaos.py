"""Runs that are killed again and again; ``make chaos`` does the same for longer, and on the real engine too."""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

CHAOS = Path(__file__).parents[1] / "eval" / "reliability"


@pytest.fixture
def chaos(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports a module of ``make chaos``."""
    if not CHAOS.is_dir():
        pytest.skip("eval/ is not part of this distribution")
    monkeypatch.syspath_prepend(str(CHAOS))
    yield importlib.import_module
    for name in ("corpora", "sessions", "kills", "real_engine"):
        sys.modules.pop(name, None)


def test_no_number_of_kills_at_random_moments_loses_doubles_or_changes_a_row(chaos: Any, tmp_path: Path) -> None:
    figures = chaos("kills").random_kills(tmp_path, kills=25, seed=7)
    assert figures.kills >= 25
    assert figures.ok, figures


def test_a_kill_at_every_fault_point_is_survived(chaos: Any, tmp_path: Path) -> None:
    figures, missed = chaos("kills").fault_points(tmp_path)
    assert missed == []
    assert figures.ok, figures


def test_little_is_computed_again_after_a_kill(chaos: Any, tmp_path: Path) -> None:
    redone = chaos("kills").tokens_redone(tmp_path)
    assert 0 <= redone.share <= 0.02, redone


@pytest.mark.vllm
def test_a_real_run_survives_a_kill_of_its_engine_and_of_itself_and_leaves_no_process(
    chaos: Any, tmp_path: Path
) -> None:
    real = chaos("real_engine")
    rows = real.write_input(tmp_path / "rows.jsonl", rows=2500)  # many enough that the kill comes in the middle
    figures = real.Real()
    plain = real.make_job(rows, tmp_path / "plain", in_process=True)
    assert real.session(plain, figures) == 0
    job = real.make_job(rows, tmp_path / "out", in_process=False)
    acts: list[int] = []

    def kill_core_then_run(process: psutil.Process, below: list[psutil.Process]) -> None:
        acts.append(process.pid)
        real.kill_core(process, below)

    assert real.session(job, figures, 30, kill_core_then_run) == 0
    assert len(acts) == 1
    assert figures.restarts == 1
    real._take(figures, job.output, plain.output, byte_for_byte=False)
    other = real.make_job(rows, tmp_path / "other", in_process=False)
    assert real.session(other, figures, 60, real.kill_run) == -signal.SIGKILL
    assert real.session(other, figures) == 0
    real._take(figures, other.output, plain.output, byte_for_byte=False)
    assert (figures.lost, figures.doubled, figures.different, figures.orphans, figures.problems) == (0, 0, 0, 0, [])
