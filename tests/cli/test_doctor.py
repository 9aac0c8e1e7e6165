from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from llmbatch import doctor as room
from llmbatch.cli.main import main
from llmbatch.doctor import CHECKS
from llmbatch.doctor.base import Finding
from llmbatch.doctor.engines import startable


def doctor(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *arguments], catch_exceptions=False)


def fine() -> Iterator[Finding]:
    yield Finding("memory", "ok", "plenty\x1b[31m")


def not_fine() -> Iterator[Finding]:
    yield Finding("disk", "wrong", "full", "free some space")


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    table = {"fine": f"{__name__}:fine"}
    monkeypatch.setattr(room, "CHECKS", table)
    return table


def test_what_was_found_is_a_line_with_what_to_try_below_it(checks: dict[str, str]) -> None:
    assert doctor().stdout == f"{'ok':8}{'memory':22}plenty\\x1b[31m\n"
    checks["not fine"] = f"{__name__}:not_fine"
    result = doctor()
    assert result.exit_code == 1
    assert result.stdout.splitlines()[1:] == [f"{'wrong':8}{'disk':22}full", f"{'':30}-> free some space"]


def test_as_json_everything_is_one_object(checks: dict[str, str]) -> None:
    checks["not fine"] = f"{__name__}:not_fine"
    result = doctor("--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {
        "ok": False,
        "findings": [
            {"check": "fine", "name": "memory", "state": "ok", "seen": "plenty\x1b[31m", "advice": ""},
            {"check": "not fine", "name": "disk", "state": "wrong", "seen": "full", "advice": "free some space"},
        ],
    }


def test_an_engine_can_be_started_to_see(checks: dict[str, str], forked: None) -> None:
    result = doctor("--engine", "scripted")
    assert result.exit_code == 0
    assert "start scripted        started and answered in " in result.stdout
    assert doctor("--engine", "openai").exit_code == 1


@pytest.mark.vllm
def test_the_engine_that_loads_models_really_starts_and_answers(checks: dict[str, str], forked: None) -> None:
    assert "vllm" in startable()
    result = doctor("--start", "--engine", "vllm")
    assert result.stdout.splitlines()[1].startswith(f"{'ok':8}{'start vllm':22}started and answered in ")
    assert result.exit_code == 0


def test_an_unknown_engine_is_refused(checks: dict[str, str]) -> None:
    result = doctor("--engine", "vlm")
    assert result.exit_code == 2
    assert "there is no engine 'vlm' (did you mean 'vllm'?)" in result.stderr


def test_this_machine_is_looked_at_without_a_fault(monkeypatch: Any) -> None:
    found = json.loads(doctor("--json").stdout)["findings"]
    assert {finding["check"] for finding in found} == set(CHECKS)
    assert {finding["state"] for finding in found} <= {"ok", "note", "warning", "wrong"}
