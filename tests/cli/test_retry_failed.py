from __future__ import annotations

import json
from typing import Any


def statuses(commands: Any) -> dict[Any, str]:
    lines = (commands.folder / "results.jsonl").read_bytes().splitlines()
    return {record["id"]: record["status"] for record in map(json.loads, lines)}


def test_the_rows_that_are_not_ok_run_again_with_the_settings_given(commands: Any) -> None:
    commands(*commands.run)
    before = statuses(commands)
    result = commands("retry-failed", commands.folder, "--choice", "blue,wrong")
    assert result.exit_code == 3
    assert "finished: 1 of 5 rows are not ok" in result.stdout
    assert statuses(commands) == {**before, 7: "ok"}


def test_a_folder_without_results_is_refused(commands: Any, tmp_path: Any) -> None:
    result = commands("retry-failed", tmp_path)
    assert result.exit_code == 1
    assert "no run has begun here" in result.stderr
