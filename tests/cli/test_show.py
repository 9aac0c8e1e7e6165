from __future__ import annotations

import json
import signal
from typing import Any

import pytest


@pytest.fixture
def done(commands: Any) -> Any:
    commands(*commands.run)
    return commands


def test_a_row_is_shown_with_its_input_its_prompt_and_its_result(done: Any) -> None:
    text = done("show", done.folder, "a").stdout
    assert "row a (index 0" in text
    assert "rows.jsonl:1" in text
    assert '"text": "first"' in text
    assert "Say: first" in text
    assert "blue" in text
    assert "1 attempts" in text


def test_an_answer_that_was_sent_back_is_shown_with_its_reason(done: Any) -> None:
    text = done("show", done.folder, "c").stdout
    assert "attempt 1, sent back: choice" in text
    assert "wrong" in text
    assert "why: " in text
    assert text.index("sent back") < text.index("result")


def test_a_number_as_an_id_is_found_by_its_digits(done: Any) -> None:
    text = done("show", done.folder, "7").stdout
    assert "row 7 (index 3" in text
    assert "result: choice" in text


def test_a_row_that_could_not_be_read_is_shown_with_its_line(done: Any) -> None:
    text = done("show", done.folder, "4").stdout
    assert "rows.jsonl:5" in text
    assert "result: malformed_row" in text


def test_all_rows_with_an_id_are_shown(commands: Any, tmp_path: Any) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(rows.read_text().replace('"b"', '"a"'))
    commands(*commands.run)
    lines = commands("show", commands.folder, "a", "--json").stdout.splitlines()
    assert [json.loads(line)["record"]["index"] for line in lines] == [0, 1]


def test_as_json_a_row_has_its_record_its_input_and_its_messages(done: Any) -> None:
    shown = json.loads(done("show", done.folder, "c", "--json").stdout)
    assert shown["record"]["status"] == "ok"
    assert shown["row"] == {"id": "c", "text": "second"}
    assert shown["messages"][-1]["content"] == "Say: second"
    assert shown["problem"] is None


def test_a_row_is_shown_without_its_input_where_that_is_gone(done: Any, tmp_path: Any) -> None:
    (tmp_path / "rows.jsonl").unlink()
    result = done("show", done.folder, "a")
    assert result.exit_code == 0
    assert "the prompt cannot be shown" in result.stdout
    assert "blue" in result.stdout


def test_a_text_in_a_row_cannot_drive_the_terminal(commands: Any, tmp_path: Any) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"id": "x", "text": "[bold]\x1b[31mred"}) + "\n")
    commands(*commands.run)
    text = commands("show", commands.folder, "x").stdout
    assert "\x1b" not in text
    assert "Say: [bold]\\x1b[31mred" in text


def test_an_id_that_no_row_has_is_wrong_usage(done: Any) -> None:
    result = done("show", done.folder, "nobody")
    assert result.exit_code == 2
    assert "no record has the id 'nobody'" in result.stderr


def test_a_folder_without_results_is_refused(commands: Any, tmp_path: Any) -> None:
    result = commands("show", tmp_path, "a")
    assert result.exit_code == 1
    assert "no results here" in result.stderr


def test_a_row_of_an_extension_that_was_interrupted_is_shown_too(done: Any, tmp_path: Any, monkeypatch: Any) -> None:
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write(json.dumps({"id": "new", "text": "third"}) + "\n")
    monkeypatch.setenv("LLMBATCH_FAULT", "part-sealed")
    assert done.start(*done.run, "--extend").wait() == -signal.SIGKILL
    text = done("show", done.folder, "new").stdout
    assert "rows.jsonl:6" in text
    assert "blue" in text
    assert "blue" in done("show", done.folder, "a").stdout


CHAIN = ["--program", "chain", "--set", "program.settings={steps: [main, check]}"]
CHAIN += ["--set", "program.prompts={check: 'so {{ main }}'}"]
FAN_OUT = ["--program", "fan_out", "--set", "program.prompts={child: 'about {{ item }}'}"]


def test_the_steps_of_a_program_are_shown_one_by_one(commands: Any) -> None:
    commands(*commands.run, *CHAIN)
    text = commands("show", commands.folder, "a").stdout
    assert text.index("step main") < text.index("step check") < text.index("result")
    assert "step check, sent back: choice" not in text
    failed = commands("show", commands.folder, "7").stdout
    assert "step main" in failed and "error: {" in failed


def test_a_child_is_shown_with_its_row(commands: Any, tmp_path: Any) -> None:
    (tmp_path / "script.yaml").write_text('rules: [{when: {step: 0}, answer: "one\\ntwo"}]')
    arguments = [each for each in commands.run if each not in ("--choice", "blue,green")]
    commands(*arguments, *FAN_OUT)
    text = commands("show", commands.folder, "a/1").stdout
    assert "row a (index 0" in text and "child a/1, status ok" in text
    assert "item: two" in text and "about two" in text and "about one" not in text
    assert commands("show", commands.folder, "a/7").exit_code == 2


def test_on_a_terminal_json_has_colours_and_what_fits_the_screen_is_not_paged(done: Any, terminal: Any) -> None:
    code, seen = terminal(["show", str(done.folder), "a"], lines=200, PAGER="false")
    assert code == 0
    assert '\x1b[1;34m"text"\x1b[0m: \x1b[32m"first"\x1b[0m' in seen  # a key, a value


def test_what_is_longer_than_the_screen_goes_through_the_pager(done: Any, terminal: Any) -> None:
    paged = terminal(["show", str(done.folder), "a"], lines=5, PAGER="sed s/^/paged:/")
    assert "paged:" in paged[1]
    assert "paged:" not in terminal(["show", str(done.folder), "a", "--no-pager"], lines=5, PAGER="sed s/^/paged:/")[1]


def test_nothing_is_paged_that_goes_into_a_file(done: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGER", "false")
    assert "row a (index 0" in done("show", done.folder, "a").stdout
