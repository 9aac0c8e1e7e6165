from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from llmbatch.cli.main import main

EXAMPLES = Path(__file__).parents[1] / "examples" / "nvidia"


def bench(*arguments: str) -> Any:
    given = ["bench", "--model", "demo", "--backend", "scripted", *arguments]
    return CliRunner().invoke(main, given, catch_exceptions=False)


def test_a_data_set_is_measured_and_what_cannot_be_asked_is_counted_beside(tmp_path: Path) -> None:
    report, answers, times = (tmp_path / name for name in ("report.json", "answers.jsonl", "times.jsonl"))
    files = ["--report-json", str(report), "--output_json", str(answers), "--request_json", str(times)]
    done = bench("--dataset", str(EXAMPLES / "dataset.jsonl"), *files)
    assert done.exit_code == 3  # the adapter of one is not there
    found = json.loads(report.read_bytes())
    assert found["request_info"]["num_requests"] == 2
    assert found["request_info"]["failed_requests"] == 1
    assert found["dataset"]["avg_osl"] == 6
    performance = found["performance"]
    assert performance["request_throughput_req_s"] * performance["total_latency_ms"] == pytest.approx(2000)
    assert [json.loads(line)["id"] for line in answers.read_text().splitlines()] == [0, 1, 2]
    started = [json.loads(line) for line in times.read_text().splitlines()]
    assert all(each["start_timestamp"] <= each["end_timestamp"] for each in started)
    assert [each["num_input_tokens"] for each in started] == [15, 4]
    assert "Total Output Throughput (tokens/sec):" in done.output


def test_lines_that_are_broken_are_left_out_and_counted(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    assert bench("--dataset", str(EXAMPLES / "dataset.bad.jsonl"), "--report_json", str(report)).exit_code == 3
    info = json.loads(report.read_bytes())["request_info"]
    assert (info["num_requests"], info["failed_requests"]) == (2, 3)


@pytest.mark.parametrize("setting", ["plan.fold=true", "sweep.sampling.temperature=[0, 1]"], ids=["fold", "sweep"])
def test_requests_that_are_not_asked_once_and_for_themselves_are_refused(setting: str) -> None:
    done = bench("--dataset", str(EXAMPLES / "dataset.jsonl"), "--set", setting)
    assert done.exit_code == 2
    assert "each request is measured" in done.output


def test_only_so_many_requests_are_asked(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = bench(
        "--dataset",
        str(EXAMPLES / "dataset.jsonl"),
        "--num_requests",
        "2",
        "--concurrency",
        "1",
        "--report-json",
        str(report),
    )
    assert done.exit_code == 0
    assert json.loads(report.read_bytes())["request_info"]["num_requests"] == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--streaming"], "answers are not streamed"),
        (["--backend", "tensorrt"], "there is no engine 'tensorrt'"),
        (["--set", "plan.foldd=true"], "plan.foldd"),
    ],
    ids=str,
)
def test_what_is_not_done_is_refused(arguments: list[str], said: str) -> None:
    done = bench("--dataset", str(EXAMPLES / "dataset.jsonl"), *arguments)
    assert done.exit_code == 2
    assert said in done.output


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gone/report.json", "--report-json {0}: there is no folder {1}; make it, or name another file"),
        (".", "--report-json {0}: is a folder; name a file in it"),
    ],
)
def test_a_file_that_could_not_be_written_is_said_before_anything_is_measured(
    tmp_path: Path, name: str, said: str
) -> None:
    path = tmp_path / name
    done = bench("--dataset", str(EXAMPLES / "dataset.jsonl"), "--report-json", str(path))
    assert done.exit_code == 2
    assert said.format(path, path.parent) in done.stderr
