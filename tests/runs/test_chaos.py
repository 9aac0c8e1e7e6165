"""Runs that are killed again and again; ``make chaos`` does the same for longer, and on the real engine too."""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmbatch.job.job import Job

CHAOS = Path(__file__).parents[2] / "eval" / "reliability"
ROWS = 160  # of a run: enough for all windows to open, more than `die_after` counts; make chaos has more


@pytest.fixture
def chaos(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports a module of ``make chaos``."""
    if not CHAOS.is_dir():  # a source distribution has the tests without eval/
        pytest.skip("eval/ is not part of this distribution")
    monkeypatch.syspath_prepend(str(CHAOS))
    monkeypatch.setattr(importlib.import_module("corpora"), "ROWS", ROWS)
    yield importlib.import_module
    for name in ("corpora", "sessions", "kills", "publications", "real_engine", "side_by_side"):
        sys.modules.pop(name, None)


@pytest.fixture
def forked_below(forked: None, fork_servers: Any) -> None:
    """Sessions are forks of this process, and what they start is forked from a server of its: else each would start its own."""
    fork_servers.of("llmbatch")


@pytest.mark.usefixtures("forked_below")
def test_no_number_of_kills_at_random_moments_loses_doubles_or_changes_a_row(chaos: Any, tmp_path: Path) -> None:
    scenarios = len(chaos("corpora").SCENARIOS)
    figures = chaos("kills").random_kills(tmp_path, kills=2 * scenarios, seed=7, at_once=2)
    assert figures.kills >= 2 * scenarios
    assert figures.ok, figures


@pytest.mark.usefixtures("forked_below")
def test_a_kill_at_every_fault_point_is_survived(chaos: Any, tmp_path: Path) -> None:
    figures, missed = chaos("kills").fault_points(tmp_path)
    assert missed == []
    assert figures.ok, figures


def test_runs_that_share_an_engine_which_dies_and_are_killed_come_to_the_bytes_that_they_have_alone(
    chaos: Any, tmp_path: Path
) -> None:
    figures = chaos("side_by_side").killed(tmp_path, kills=4, seed=3, at_once=2)
    assert (figures.kills, figures.runs) == (4, 4)
    assert figures.ok, figures


def test_a_publication_is_whole_after_a_kill_at_every_fault_point(chaos: Any, tmp_path: Path) -> None:
    figures, missed = chaos("publications").killed(tmp_path, count=0)
    assert missed == []
    assert figures.ok, figures


def test_little_is_computed_again_after_a_kill(chaos: Any, tmp_path: Path) -> None:
    redone = chaos("kills").tokens_redone(tmp_path)
    assert 0 <= redone.share <= 0.02, redone


def in_float32(job: Job) -> Job:
    """In bf16, which the engine takes where the processor has it, an answer may depend on what was computed beside it.

    More at a time than in ``make chaos``, where there must be time to kill it.
    """
    args = {**job.engine.args, "dtype": "float32", "max_num_seqs": 16}
    return job.model_copy(update={"engine": job.engine.model_copy(update={"args": args, "in_flight": 24})})


@pytest.mark.vllm
@pytest.mark.usefixtures("forked")
def test_a_run_on_vllm_that_is_killed_twice_comes_to_the_same_bytes(chaos: Any, tmp_path: Path) -> None:
    """Killed at points that it is sure to reach, however fast it is: a random moment would be the machine's, not the test's."""
    real = chaos("real_engine")
    rows, figures = real.write_input(tmp_path / "rows.jsonl", 250), real.Real()
    whole, killed = (
        in_float32(real.make_job(rows, tmp_path / name, in_process=True, prefix_cache=False))
        for name in ("whole", "killed")
    )
    assert real.session(whole, figures) == 0
    assert real.session(killed, figures, fault="journal-append") == -signal.SIGKILL
    assert real.session(killed, figures, fault="journal-torn") == -signal.SIGKILL
    assert real.session(killed, figures) == 0
    real.take(figures, killed.output, whole.output, byte_for_byte=True)
    assert (figures.runs, figures.lost, figures.doubled, figures.different, figures.orphans) == (1, 0, 0, 0, 0)
    assert figures.problems == []
