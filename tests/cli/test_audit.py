from __future__ import annotations

import json
from typing import Any


def test_a_run_that_is_whole_passes(commands: Any) -> None:
    commands(*commands.run)
    result = commands("audit", commands.folder)
    assert result.exit_code == 0, result.output
    assert "whole and complete; 5 rows are done, 0 are owed" in result.stdout


def test_a_damaged_part_is_named(commands: Any) -> None:
    commands(*commands.run)
    part = next((commands.folder / "parts").glob("*.jsonl"))
    part.write_bytes(part.read_bytes().replace(b"blue", b"pink"))
    result = commands("audit", commands.folder)
    assert result.exit_code == 1
    assert "DAMAGED" in result.stdout
    assert part.name in result.stdout


def test_as_json_each_check_says_what_it_saw(commands: Any) -> None:
    commands(*commands.run)
    report = json.loads(commands("audit", commands.folder, "--json").stdout)
    assert report["complete"] is True
    assert all(check["problems"] == [] for check in report["checks"])
