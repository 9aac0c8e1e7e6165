from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def test_the_demo_runs_both_corpora_and_says_how_many_answers_are_right(commands: Any, tmp_path: Path) -> None:
    result = commands("demo", "--output", tmp_path / "demo", "--engine", "scripted")
    assert result.exit_code == 0
    assert "numbers: 0 of " in result.stdout
    assert "orders: 0 of " in result.stdout
    for name in ("numbers", "orders"):
        assert (tmp_path / "demo" / name / "results.jsonl").exists()


@pytest.mark.vllm
def test_with_the_real_model_most_answers_are_right(commands: Any, tmp_path: Path) -> None:
    process = commands.start("demo", "--output", str(tmp_path / "demo"))
    stdout, stderr = process.communicate(timeout=600)
    assert process.returncode == 0, stderr
    shares = [line.rpartition("(")[2] for line in stdout.splitlines() if "exactly right" in line]
    assert [float(share.rstrip("%)")) > 90 for share in shares] == [True, True], stdout
