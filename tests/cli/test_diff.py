from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def two(commands: Any, tmp_path: Path) -> tuple[Any, Path, Path]:
    """The command, and two runs: in the second one row has another answer, one another status, one is new, one is gone."""
    arguments = [each for each in commands.run if each not in ("--choice", "blue,green")]
    rows, script = tmp_path / "rows.jsonl", tmp_path / "script.yaml"

    def run(name: str, texts: dict[str, str], rules: list[dict[str, Any]]) -> Path:
        rows.write_text("".join(json.dumps({"id": key, "text": text}) + "\n" for key, text in texts.items()))
        script.write_text(json.dumps({"rules": rules}))
        folder = tmp_path / name
        commands(*arguments, "--output", str(folder))
        return folder

    same = {"answer": "the sky is blue today"}
    first = run("first", {"a": "one", "b": "two", "c": "three", "d": "four"}, [same])
    other = {"when": {"contains": "one"}, "answer": "the sky is \x1b[31mgreen today"}
    fails = {"when": {"contains": "two"}, "fail": "not this one"}
    second = run("second", {"a": "one", "b": "two", "c": "three", "e": "five"}, [other, fails, same])
    return commands, first, second


def test_counts_come_first_and_then_each_row_with_what_changed_in_its_words(two: tuple[Any, Path, Path]) -> None:
    commands, first, second = two
    result = commands("diff", first, second)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[:4] == [
        f"A  {first}: 4 rows",
        f"B  {second}: 4 rows",
        "same 1 · ended otherwise 1 · another answer 1 · only in A 1 · only in B 1",
        "  ok -> failed (engine): 1",
    ]
    assert lines[5:7] == ["row a (index 0): another answer", "the sky is [-blue-]{+\\x1b[31mgreen+} today"]
    assert lines[8].startswith("row b (index 1): ok -> failed (engine)")
    assert lines[9].startswith("B, why: ") and "not this one" in lines[9]
    assert lines[10] == "[-the sky is blue today-]"
    assert [line for line in lines if line.startswith("row")][2:] == [
        "row d (index 3): only in A",
        "row e (index 3): only in B",
    ]


def test_the_exit_code_says_whether_anything_of_what_was_asked_for_differs(two: tuple[Any, Path, Path]) -> None:
    commands, first, second = two
    assert commands("diff", first, first).exit_code == 0
    assert commands("diff", first, first, "--json").exit_code == 0
    for kind, rows in (("status", "b"), ("answer", "a"), ("missing", "de")):
        result = commands("diff", first, second, "--only", kind, "--json")
        assert result.exit_code == 1
        assert [json.loads(line)["id"] for line in result.stdout.splitlines()[1:]] == list(rows)
    (first / "results.jsonl").unlink()  # what is read are the parts
    assert commands("diff", first, second, "--only", "answer", "--only", "status").stdout.count("\nrow ") == 2


def test_as_json_the_counts_are_the_first_line_and_every_row_is_one(two: tuple[Any, Path, Path]) -> None:
    commands, first, second = two
    counts, *rows = map(json.loads, commands("diff", first, second, "--json").stdout.splitlines())
    assert counts == {
        "rows_a": 4, "rows_b": 4, "same": 1, "status": 1, "answer": 1, "only_a": 1, "only_b": 1,
        "changes": [{"a": "ok", "b": "failed (engine)", "rows": 1}],
    }  # fmt: skip
    assert [(row["id"], row["differs"]) for row in rows] == [
        ("a", "answer"),
        ("b", "status"),
        ("d", "only_a"),
        ("e", "only_b"),
    ]
    assert (rows[0]["a"]["output"], rows[0]["b"]["output"]) == (
        "the sky is blue today",
        "the sky is \x1b[31mgreen today",
    )
    assert rows[2]["b"] is None


def test_of_many_rows_a_few_are_shown_and_the_rest_counted(two: tuple[Any, Path, Path]) -> None:
    commands, first, second = two
    text = commands("diff", first, second, "--limit", "1").stdout
    assert text.count("\nrow ") == 1
    assert "and 3 more; --limit 0 shows all" in text
    assert commands("diff", first, second, "--limit", "0").stdout.count("\nrow ") == 4


def test_on_a_terminal_what_changed_has_colours(two: tuple[Any, Path, Path], terminal: Any) -> None:
    _, first, second = two
    code, seen = terminal(["diff", str(first), str(second), "--only", "answer"])
    assert code == 1
    assert "the sky is \x1b[31mblue\x1b[0m\x1b[32m\\x1b[31mgreen\x1b[0m today" in seen


def test_what_is_no_run_folder_is_trouble_and_not_a_difference(two: tuple[Any, Path, Path], tmp_path: Path) -> None:
    commands, first, _ = two
    for wrong, said in (
        (tmp_path, "no run has begun here"),
        (tmp_path / "nowhere", "no run has begun here"),
        (first / "results.jsonl", f"is a file; give the run folder, the --output of a run: {first}"),
    ):
        result = commands("diff", first, wrong)
        assert result.exit_code == 2
        assert said in result.stderr
    (first / "parts" / "part-00000.jsonl").write_text("{}\n")
    result = commands("diff", first, first.with_name("second"))
    assert result.exit_code == 2
    assert "not a record" in result.stderr or "no record" in result.stderr
