"""Whole runs of a sweep: every row under every setting, which its record names; kills; what is said of their number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import llmbatch
from llmbatch.audit.audit import audit
from llmbatch.core.errors import UsageError
from llmbatch.job.job import Job, job_from
from llmbatch.job.sweep import SweepSettings
from llmbatch.runs.retry_failed import retry_failed
from llmbatch.runs.sweep_size import SweepSize, sweep_size

SWEEP = {"prompt": ["Say {{ text }}", "Write {{ text }}"], "sampling.max_tokens": [6, 50]}


def swept(jobs: Any, rows: int = 20, sweep: Any = SWEEP, script: Any = None, **sections: Any) -> dict[str, Any]:
    lines = [{"id": f"r{i}", "text": f"text {i}"} if i % 7 else "not json" for i in range(rows)]
    data: dict[str, Any] = jobs.data(jobs.rows(lines), script, sweep=sweep, retry={"max_attempts": 1}, **sections)
    return data


def size(job: Job) -> SweepSize:
    assert isinstance(job.sweep, SweepSettings)
    return sweep_size(job, job.sweep)


def test_every_row_is_run_under_every_setting_and_its_record_says_which(jobs: Any) -> None:
    result = jobs.run(job_from(swept(jobs)))
    records = jobs.records()
    assert [record["id"] for record in records[:9]] == [
        *(f"0#{k}" for k in range(4)),
        *(f"r1#{k}" for k in range(4)),
        "r2#0",
    ]
    settings = [
        {"prompt": prompt, "sampling.max_tokens": tokens}
        for prompt in SWEEP["prompt"]
        for tokens in SWEEP["sampling.max_tokens"]
    ]
    assert [record["details"] for record in records[:8]] == [
        *({"row": "0", "setting": setting} for setting in settings),
        *({"row": "r1", "setting": setting} for setting in settings),
    ]
    assert [(record["status"], record["output"]) for record in records[4:8]] == [
        ("truncated", None), ("ok", "Say text 1"), ("truncated", None), ("ok", "Write text 1"),
    ]  # fmt: skip
    table = [
        (each["setting"], each["rows"], each["ok"], each["completion_tokens"]) for each in result.report["settings"]
    ]
    assert [row[:3] for row in table] == [
        (setting, 20, 17 * place) for setting, place in zip(settings, (0, 1, 0, 1), strict=True)
    ]
    assert table[0][3] == 17 * 6
    assert audit(result.folder).complete


@pytest.mark.parametrize(("fault", "window"), [("journal-append:2", 100), ("part-sealed:2", 7), ("journal-torn:3", 7)])
def test_a_sweep_that_is_killed_comes_to_the_same_bytes(jobs: Any, fault: str, window: int) -> None:
    slow = {"latency": 0.1, "concurrency": 4}  # for two seconds: long enough for many more appends than the third
    jobs.run(job_from(swept(jobs, output=str(jobs.path / "whole"))))
    data = swept(jobs, script=slow, run={"window": window})
    jobs.killed(data, fault)
    code, _, err = jobs.finish(data)
    assert code == 3, err
    assert jobs.results() == jobs.results("whole")


def test_rows_that_are_not_ok_are_tried_again_under_their_setting(jobs: Any) -> None:
    jobs.run(job_from(swept(jobs)))
    before = jobs.records()
    retry_failed(jobs.path / "out", {"answer": {"allow_truncated": True}})
    after = jobs.records()
    assert [record["details"] for record in after] == [record["details"] for record in before]
    assert after[4]["output"] == "Say te"
    assert [each["ok"] for each in jobs.report()["settings"]] == [17, 17, 17, 17]


def test_the_number_of_rows_is_counted_before_anything_is_begun(jobs: Any) -> None:
    data = swept(jobs)
    assert size(job_from(data)).said.endswith("is run: 80 rows")
    assert size(job_from(data)).too_large is None
    larger = size(job_from({**data, "sweep": {**SWEEP, "max_rows": 79}}))
    assert "about 84 rows" in larger.said
    assert larger.too_large == "that is more than sweep.max_rows (79)"
    many = size(job_from({**data, "sweep": {"sampling.seed": list(range(101))}}))
    assert many.too_large == "101 settings are more than sweep.max_settings (100)"


def test_a_run_that_was_begun_needs_no_second_yes(jobs: Any) -> None:
    data = {**swept(jobs), "sweep": {**SWEEP, "max_rows": 79}}
    jobs.run(job_from(data))
    assert size(job_from(data)).too_large is None


def test_the_command_refuses_a_large_sweep_where_nobody_can_be_asked_and_takes_a_yes(jobs: Any) -> None:
    data = {**swept(jobs), "sweep": {**SWEEP, "max_rows": 79}}
    code, _, err = jobs.finish(data, stdin=-3)
    assert code == 2
    assert "about 84 rows; that is more than sweep.max_rows (79). Give --yes" in err
    assert not (jobs.path / "out").exists()
    code, out, err = jobs.finish(data, "--yes", stdin=-3)
    assert code == 3, err
    assert "a sweep of 4 settings" in err
    assert "Say {{ text }}, max_tokens 6" in out


def test_python_refuses_a_large_sweep_too(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {
        "model": "m",
        "prompt": "{{ text }}",
        "engine": {"name": "scripted"},
        "output": tmp_path / "out",
    }
    with pytest.raises(UsageError, match=r"sweep\.max_rows \(3\)"):
        llmbatch.run(input=[{"text": "a"}] * 2, sweep={"sampling.seed": [1, 2], "max_rows": 3}, **arguments)
    assert len(list(llmbatch.run(input=[{"text": "a"}] * 2, sweep={"sampling.seed": [1, 2]}, **arguments))) == 4
