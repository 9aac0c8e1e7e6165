from __future__ import annotations

import json
from typing import Any


def test_a_run_becomes_a_dataset_in_its_folder(commands: Any) -> None:
    commands(*commands.run)
    result = commands("publish", commands.folder, "--license", "mit")
    assert result.exit_code == 0
    assert "rows: train 2 (2 in all, of 5 records)" in result.stdout
    assert "1 left out: status invalid" in result.stdout
    assert "1 left out: exact_duplicate" in result.stdout
    assert (commands.folder / "dataset" / "README.md").read_text().startswith("---\nlicense: mit\n")
    assert commands("audit", commands.folder).exit_code == 0


def test_options_are_settings(commands: Any, tmp_path: Any) -> None:
    commands(*commands.run)
    result = commands(
        "publish", commands.folder, "--output", tmp_path / "set", "--json", "--layout", "raw", "--no-input", "--columns", "output",
        "--columns", "attempts", "--status", "ok", "--status", "invalid", "--where", "attempts > 1", "--duplicates", "keep",
    )  # fmt: skip
    done = json.loads(result.stdout)
    assert done == {
        "folder": str(tmp_path / "set"), "records": 5, "rows": 2, "splits": {"train": 2},
        "dropped": {"not attempts > 1": 2, "status failed": 1}, "url": None,
    }  # fmt: skip


def test_what_is_wrong_with_options_is_wrong_usage(commands: Any, tmp_path: Any) -> None:
    commands(*commands.run)
    for options, said in (
        (["--split", "test"], "--split takes NAME=SHARE"),
        (["--layout", "chart"], "layout: unknown layout (did you mean 'chat'?)"),
        (["--where", "output ="], "the condition 'output =' is wrong"),
        (["--push-to", "nobody"], "push_to: 'nobody' is to be owner/name"),
    ):
        result = commands("publish", commands.folder, *options)
        assert (result.exit_code, said in result.stderr) == (2, True), result.stderr
    result = commands("publish", commands.folder, commands.folder)
    assert "--output is missing: of several runs" in result.stderr
    assert not (commands.folder / "dataset").exists()
