from __future__ import annotations

from typing import Any

import pytest

from llmbatch.core.errors import JobError
from llmbatch.core.types import Cursor, Row
from llmbatch.job.identity import identity_of
from llmbatch.job.lengths import Lengths
from llmbatch.job.recipe import Recipe


def asking(jobs: Any, *counts: int, **sections: Any) -> Any:
    """A job whose requests ask for so many answers each."""
    message = {"role": "user", "content": "a"}
    bodies = [{"messages": [message], "n": count} for count in counts]
    rows = jobs.rows([{"custom_id": f"q{i}", "body": body} for i, body in enumerate(bodies)])
    return jobs.job(rows, prompt=None, input={"path": str(rows)}, **sections)


def test_a_request_for_no_answer_or_for_too_many_is_a_failure_of_its_row(jobs: Any) -> None:
    jobs.run(asking(jobs, -1, 0, 3, 129, 3_000_000))
    records = jobs.records()
    assert [record["status"] for record in records] == ["failed", "failed", "ok", "failed", "failed"]
    assert [record["attempts"] for record in records] == [0, 0, 3, 0, 0]
    assert "body.n is -1, and a row has at least one answer" in records[0]["error"]["message"]
    assert records[4]["error"]["message"] == (
        "row 'q4': n is 3,000,000, and a row may have 128 answers: raise plan.max_samples if that is meant"
    )


def test_a_job_may_allow_more_or_fewer_answers(jobs: Any) -> None:
    jobs.run(asking(jobs, 2, 129, plan={"max_samples": 129}))
    assert [len(record["output"]) for record in jobs.records()] == [2, 129]
    fewer = asking(jobs, 2, 1, plan={"max_samples": 1}, output=str(jobs.path / "fewer"))
    jobs.run(fewer)
    assert [record["status"] for record in jobs.records("fewer")] == ["failed", "ok"]


def test_the_job_s_own_number_goes_before_a_request_s(jobs: Any) -> None:
    jobs.run(asking(jobs, 3_000_000, sampling={"n": 2}))
    assert [record["output"] for record in jobs.records()] == [["a", "a"]]


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, r"sampling\.n is 0, and a row has at least one answer"), (129, r"sampling\.n is 129, and a row may have 128")],
)
def test_a_job_that_asks_for_no_answer_or_for_too_many_is_refused(jobs: Any, ten: Any, count: int, said: str) -> None:
    with pytest.raises(JobError, match=said):
        Recipe(jobs.job(ten, sampling={"n": count}))


def test_the_limit_belongs_to_the_identity(jobs: Any, ten: Any) -> None:
    assert identity_of(jobs.job(ten)) != identity_of(jobs.job(ten, plan={"max_samples": 200}))


def test_a_job_whose_least_answer_is_longer_than_its_longest_is_refused(jobs: Any, ten: Any) -> None:
    with pytest.raises(JobError, match=r"sampling\.min_tokens is 20, above sampling\.max_tokens, which is 8"):
        Recipe(jobs.job(ten, sampling={"min_tokens": 20, "max_tokens": 8}))


def test_a_row_of_which_rules_need_a_text_counts_with_it_and_not_with_what_all_rows_share(jobs: Any) -> None:
    prompt = jobs.path / "p.yaml"
    prompt.write_text(
        "name: p\nvariables: {text: {}, words: {type: object, scope: job, default: {a term: its translation}}}\n"
        "text: '{{ text }}'\noutput: {glossary: {field: text, terms_from: words}}\n"
    )
    row = Row(0, 0, {"text": "x" * 100, "unused": "y" * 1000}, Cursor(0))
    recipe = Recipe(jobs.job(jobs.rows([row.data]), prompt={"path": str(prompt)}))
    rules = recipe.rules(None)
    work = recipe.begin(row, rules, Lengths(lambda _: None, None))
    assert recipe.size(row, work) == 100
    assert "unused" not in work.row.data


def test_a_row_whose_seed_is_none_by_its_field_is_drawn_for_itself(jobs: Any) -> None:
    rows = jobs.rows([{"id": i, "text": "a", "draw": seed} for i, seed in enumerate([-1, -1, 5, 5])])
    script = {"rules": [{"answer": "row {index}"}]}
    jobs.run(jobs.job(rows, script, sampling={"temperature": 1.0, "seed": {"field": "draw"}}))
    assert [record["output"] for record in jobs.records()] == ["row 0", "row 1", "row 2", "row 2"]
