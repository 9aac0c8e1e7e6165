from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any


def test_the_demo_runs_both_corpora_and_says_how_many_answers_are_right(commands: Any, tmp_path: Path) -> None:
    result = commands("demo", "--output", tmp_path / "demo", "--engine", "scripted")
    assert result.exit_code == 0
    assert re.search(r"numbers .* 0 of 292 .* 0%", result.stdout)
    assert re.search(r"orders .* 0 of 196 .* 0%", result.stdout)
    for name in ("numbers", "orders"):
        assert (tmp_path / "demo" / name / "results.jsonl").exists()


def test_the_demo_says_what_to_look_at_next(commands: Any, tmp_path: Path) -> None:
    folder = tmp_path / "a demo"
    said = commands("demo", "--output", folder, "--engine", "scripted").stdout
    lines = [line.partition("  # ")[0].strip() for line in said.splitlines() if "  # " in line]
    for line in lines:
        command, *arguments = shlex.split(line)
        if command == "less":
            assert Path(arguments[0]).is_file()
        else:
            assert commands(*arguments).exit_code == 0
    assert len(lines) == 4


def test_a_demo_with_an_engine_that_is_not_known_is_wrong_usage(commands: Any, tmp_path: Path) -> None:
    assert commands("demo", "--output", tmp_path / "demo", "--engine", "none").exit_code == 2
