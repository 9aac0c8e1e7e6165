from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from llmbatch.accept.conditions import Conditions
from llmbatch.core.errors import JobError, RunError


def judge(*conditions: str, output: Any = None, row: Any = None, details: Any = None) -> str | None:
    fell = Conditions(conditions).judge("r1", row or {}, output, details)
    return None if fell is None else fell.reason


@pytest.fixture
def predicates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module with predicates in the current folder; its name."""
    name = f"predicates_{abs(hash(str(tmp_path))):x}"
    (tmp_path / f"{name}.py").write_text(
        "def long(text):\n    return len(text) > 3\n"
        "def in_row(answer, row, id):\n    return answer in row['known'] and id == 'r1'\n"
        "def broken(output):\n    return output.nothing\n"
        "def odd(output, what):\n    return True\n"
        "value = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return name


def test_all_conditions_must_hold_and_the_first_that_does_not_is_the_reason() -> None:
    conditions = ("output.score >= 4", "row.lang == 'de'", "details.judge.votes | length > 1", "id != 'r2'")
    good: dict[str, Any] = {"output": {"score": 5}, "row": {"lang": "de"}, "details": {"judge": {"votes": [1, 2]}}}
    assert judge(*conditions, **good) is None
    assert judge(*conditions, **{**good, "output": {"score": 3}, "row": {}}) == "output.score >= 4"
    assert judge(*conditions, **{**good, "row": {"lang": "fr"}}) == "row.lang == 'de'"


def test_a_condition_that_cannot_be_told_is_not_met_and_says_why() -> None:
    fell = Conditions(["output.score >= 4"]).judge("r1", {}, {"points": 5}, None)
    assert fell is not None
    assert fell.reason == "output.score >= 4"
    assert "no attribute 'score'" in fell.message


def test_a_predicate_is_given_the_output_and_what_else_it_names(predicates: str) -> None:
    assert judge(f"{predicates}:long", output="abcd") is None
    assert judge(f"{predicates}:long", output="abc") == f"{predicates}:long"
    assert judge(f"{predicates}:in_row", output="x", row={"known": ["x"]}) is None
    assert judge(f"{predicates}:in_row", output="y", row={"known": ["x"]}) is not None


def test_the_row_is_kept_only_for_conditions_that_look_at_it(predicates: str) -> None:
    assert not Conditions(["output > 3", f"{predicates}:long"]).needs_row
    assert Conditions(["input.text != output"]).needs_row
    assert Conditions([f"{predicates}:in_row"]).needs_row


def test_a_predicate_that_fails_ends_the_run_and_is_named(predicates: str) -> None:
    with pytest.raises(RunError, match=r"broken raised AttributeError.*'abc'"):
        judge(f"{predicates}:broken", output="abc")


def test_the_source_of_a_predicate_belongs_to_the_identity(predicates: str, tmp_path: Path) -> None:
    before = Conditions([f"{predicates}:long"]).identity()
    module = tmp_path / f"{predicates}.py"
    module.write_text(module.read_text().replace("> 3", "> 2"))
    del sys.modules[predicates]
    assert Conditions([f"{predicates}:long"]).identity() != before


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("output.score >=", "is wrong"),
        ("outputs.score > 4", "did you mean 'output'"),
        ("no_such_module:f", "no module"),
        ("PREDICATES:value", "is not a function"),
        ("PREDICATES:odd", "must take the output"),
        ("output.__class__", None),
    ],
)
def test_conditions_that_are_wrong_are_refused(predicates: str, condition: str, words: str | None) -> None:
    condition = condition.replace("PREDICATES", predicates)
    if words is None:  # nothing of Python is reached from a condition
        assert judge(condition, output=object()) == condition
        return
    with pytest.raises(JobError, match=words):
        Conditions([condition])
