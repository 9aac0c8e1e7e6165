"""What an answer that did not pass is called, by who asked for a check of it."""

from __future__ import annotations

from typing import Any

import pytest

from llmbatch.core.types import FailureKind
from llmbatch.formats.base import Asked
from llmbatch.formats.outcome import Error, Success, outcome_of

CUT, WRONG, REJECTED = FailureKind.TRUNCATED, FailureKind.SCHEMA, FailureKind.REJECTED


def outcome(kind: FailureKind, asked: Asked, *, strict: bool = False, **record: Any) -> Success | Error:
    told = {"output": None, "finish_reason": "length", "raw": "text", "error": {"kind": kind.value, "message": "no"}}
    return outcome_of({"status": kind.status.value, **told, **record}, asked, strict=strict)


@pytest.mark.parametrize("kind", [CUT, FailureKind.EMPTY], ids=str)
@pytest.mark.parametrize(("own", "job", "ok"), [(False, False, True), (True, True, True), (False, True, False)])
def test_an_answer_that_was_cut_off_is_one_unless_the_job_alone_checks(
    kind: FailureKind, own: bool, job: bool, ok: bool
) -> None:
    asked = Asked(own_check=own, job_check=job)
    assert outcome(kind, asked) == (Success("text", "length") if ok else Error(kind.value, "no"))
    assert outcome(kind, asked, strict=True) == Error(kind.value, "no")


@pytest.mark.parametrize("job", [False, True])
def test_an_answer_that_does_not_pass_is_one_where_the_row_itself_asked_for_the_check(job: bool) -> None:
    assert outcome(WRONG, Asked(own_check=True, job_check=job)) == Success("text", "length")
    assert outcome(WRONG, Asked(own_check=False, job_check=job)) == Error("schema", "no")
    assert outcome(WRONG, Asked(own_check=True, job_check=job), strict=True) == Error("schema", "no")


def test_a_rule_of_the_job_holds_also_where_the_row_asked_for_a_check() -> None:
    assert outcome(REJECTED, Asked(own_check=True, job_check=True)) == Error("rejected", "no")


def test_of_several_answers_all_are_there_and_those_that_did_not_pass_as_they_came() -> None:
    history = [{"sample": 2, "text": "third"}]
    assert outcome(CUT, Asked(samples=3), output=["one", None, None], raw="second", history=history) == Success(
        ["one", "second", "third"], "length"
    )
    assert outcome(CUT, Asked(samples=2), output=[None, None]) == Error("truncated", "no")


def test_how_a_row_was_asked_is_not_found_out_for_nothing() -> None:
    untold: Any = None
    assert outcome_of({"status": "ok", "output": 1, "finish_reason": None}, untold) == Success(1, None)
    assert outcome(FailureKind.ENGINE, untold, raw=None) == Error("engine", "no")
