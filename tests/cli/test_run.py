from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest


def wait_until_ready(process: Any) -> None:
    for line in process.stderr:
        if "engine ready" in line:
            return
    pytest.fail("the engine did not get ready")


def results_of(commands: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (commands.folder / "results.jsonl").read_bytes().splitlines()]


def test_a_run_gives_every_row_its_record_in_input_order_and_sums_it_up(commands: Any) -> None:
    result = commands(*commands.run)
    assert [(line["id"], line["status"], line["attempts"]) for line in results_of(commands)] == [
        ("a", "ok", 1), ("b", "ok", 1), ("c", "ok", 2), (7, "invalid", 2), (4, "failed", 0),
    ]  # fmt: skip
    assert result.exit_code == 3
    assert "finished: 2 of 5 rows are not ok" in result.stdout
    assert "run folder" in result.stderr


def test_a_run_whose_rows_are_all_ok_ends_with_zero(commands: Any) -> None:
    result = commands(*commands.run, "--limit", "3")
    assert result.exit_code == 0
    assert "all 3 rows are ok" in result.stdout


def test_the_report_counts_what_the_records_hold(commands: Any) -> None:
    commands(*commands.run)
    report = json.loads((commands.folder / "report.json").read_bytes())
    lines = results_of(commands)
    for name in ("prompt_tokens", "completion_tokens", "cached_tokens"):
        assert report["tokens"]["total"][name] == sum(line["usage"][name] for line in lines)
        computed = report["tokens"]["useful"][name] + report["tokens"]["wasted"][name]
        assert computed == report["sessions"][0]["tokens"][name]
    assert report["rows"]["folded"] == 1
    assert report["sent_back"]["choice"]["answers"] == 3


def test_the_same_command_again_says_that_nothing_is_left_to_do(commands: Any) -> None:
    commands(*commands.run)
    before = (commands.folder / "results.jsonl").read_bytes()
    result = commands(*commands.run)
    assert result.exit_code == 3
    assert "nothing is left to do" in result.stderr
    assert (commands.folder / "results.jsonl").read_bytes() == before


def test_a_job_file_gives_the_same_run_as_its_flags(commands: Any, tmp_path: Any) -> None:
    commands(*commands.run)
    flags = (commands.folder / "results.jsonl").read_bytes()
    job = tmp_path / "job.yaml"
    job.write_text(
        "model: any\nprompt: 'Say: {{ text }}'\ninput: rows.jsonl\noutput: other\nengine: {name: scripted, script: script.yaml}\n"
        "answer: {choice: [blue, green]}\nsampling: {temperature: 0}\nretry: {max_attempts: 2, feedback: false}\n"
    )
    assert commands("run", job).exit_code == 3
    assert (tmp_path / "other" / "results.jsonl").read_bytes() == flags


def test_quiet_says_nothing_of_a_run_that_is_fine(commands: Any) -> None:
    result = commands(*commands.run, "--limit", "3", "--quiet")
    assert (result.exit_code, result.output) == (0, "")


def test_quiet_says_in_one_line_that_rows_are_not_ok(commands: Any) -> None:
    result = commands(*commands.run, "--quiet")
    assert result.stdout == ""
    assert result.stderr.startswith(f"{commands.folder}: finished: 2 of 5 rows are not ok; most often choice: ")
    assert result.stderr.count("\n") == 1


def test_json_tells_every_event_on_a_line_and_the_report_last(commands: Any) -> None:
    result = commands(*commands.run, "--json")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    names = [event["event"] for event in events]
    assert names[0] == "started"
    assert names[-1] == "finished"
    assert {"engine_ready", "planned", "snapshot", "sealed"} <= set(names)
    assert events[-1]["report"]["exit_code"] == result.exit_code == 3
    assert result.stderr == ""


def test_wrong_usage_ends_with_two_and_starts_nothing(commands: Any) -> None:
    result = commands(*commands.run, "--set", "sampling.temperatur=1")
    assert result.exit_code == 2
    assert "temperatur" in result.stderr
    assert result.stdout == ""
    assert not (commands.folder / "parts").exists()


def test_a_folder_that_is_another_jobs_is_refused(commands: Any) -> None:
    commands(*commands.run)
    result = commands(*commands.run, "--prompt", "Tell: {{ text }}")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ") or "\nError: " in result.stderr
    assert "Traceback" not in result.stderr


def test_an_interrupt_stops_the_run_and_says_how_to_go_on(slow: Any) -> None:
    process = slow.start(*slow.run, "--set", "run.grace=0")
    wait_until_ready(process)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "stopped after" in stdout
    assert "to go on" in stdout
    assert "llmbatch run --model any" in stdout
    assert "Traceback" not in stderr


def test_a_stopped_run_goes_on_with_the_same_command(slow: Any) -> None:
    process = slow.start(*slow.run, "--set", "run.grace=0")
    wait_until_ready(process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=600)
    result = slow(*slow.run[:-2])
    assert result.exit_code == 3
    assert "session 2" in result.stderr
    assert len(results_of(slow)) == 5


def test_a_file_as_output_is_refused_without_talk_of_finished_work(commands: Any, tmp_path: Any) -> None:
    result = commands(*commands.run, "--output", str(tmp_path / "rows.jsonl"))
    assert result.exit_code == 2
    assert "is a file; --output names a folder" in result.stderr
    assert "finished" not in result.stderr


@pytest.mark.parametrize(
    ("mode", "shell"),
    [
        *(([], shell) for shell in ("> /dev/full 2>&1", "<&-", ">&-", "2>&-", "<&- >&- 2>&-")),
        (["--json"], "> /dev/full"),
        (["--quiet"], "2> /dev/full"),
    ],
    ids=str,
)
def test_what_the_screen_cannot_show_is_no_failure_of_the_run(commands: Any, mode: list[str], shell: str) -> None:
    command = ["sh", "-c", f'exec "$@" {shell}', "sh", sys.executable, "-m", "llmbatch.cli", *commands.run, *mode]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 3  # some rows of it are not ok
    assert json.loads((commands.folder / "report.json").read_bytes())["rows"]["done"] == 5


def test_a_run_is_told_on_a_screen_with_few_letters(commands: Any, tmp_path: Any) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"id": "\u00fc\u2026", "text": "never"}, ensure_ascii=False) + "\n")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    for mode in ([], ["--json"]):
        command = [sys.executable, "-m", "llmbatch.cli", *commands.run, *mode]
        done = subprocess.run(command, capture_output=True, check=False, env=environment)
        assert done.returncode == 3, done.stderr
        assert b"unwatched" not in done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["report"]["failures"]["choice"]["id"] == "\u00fc\u2026"
