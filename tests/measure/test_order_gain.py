"""What is told of a job before it runs: whether an order of its corpus, or of its prompt's fields, is worth it."""

from __future__ import annotations

import random
from typing import Any

import pytest

from llmbatch.job.swept import recipe_of
from llmbatch.measure.order_gain import fields_first, foreseen_of, looked_at
from llmbatch.sources.opening import open_source

PROMPT = "Question: {{ question }}\nDocument: {{ document }}"


def rows(groups: int, each: int) -> list[dict[str, Any]]:
    draw = random.Random(1)
    documents = [" ".join(f"{draw.randrange(10**6)}" for _ in range(50)) for _ in range(groups)]
    found = [
        {"document": text, "question": f"{n * groups + i} of all"}
        for i, text in enumerate(documents)
        for n in range(each)
    ]
    draw.shuffle(found)
    return found


def test_the_field_that_rows_share_goes_first(jobs: Any) -> None:
    found = fields_first(jobs.job(jobs.rows(rows(60, 8)), prompt={"path": PROMPT}))
    assert found is not None
    said, data = found
    assert data["field_order"] == ["document", "question"]
    assert data["spared"] > 0.6 > 0.1 > data["spared_now"]
    assert "--set prompt.field_order=[document,question], which changes the prompt" in said


def test_where_it_is_first_already_nothing_is_said(jobs: Any) -> None:
    path = jobs.rows(rows(60, 8))
    better = {"path": PROMPT, "field_order": ["document", "question"]}
    assert fields_first(jobs.job(path, prompt={"path": "{{ document }}\n{{ question }}"})) is None
    assert fields_first(jobs.job(path, prompt={"path": "{{ question }} {{ document }}"})) is None  # one line
    assert fields_first(jobs.job(path, prompt=better)) is None


def test_what_auto_would_do_is_told(jobs: Any) -> None:
    path = jobs.rows(rows(700, 7))
    found = foreseen_of(jobs.job(path, prompt={"path": "{{ document }}\n{{ question }}"}, run={"window": 512}))
    assert found is not None
    said, data = found
    assert data["auto"] == "corpus"
    assert data["in_one_order"] > data["in_windows"]
    assert "--order auto takes that order" in said
    assert foreseen_of(jobs.job(path, prompt={"path": "{{ document }}"}, run={"window": 16384})) is None


@pytest.mark.parametrize("window", [3, 7, 100, 512, 700, 16_384])
def test_a_sample_is_had_with_any_window(jobs: Any, window: int) -> None:
    """Also where it is smaller than the number of places that are looked at."""
    job = jobs.job(jobs.rows(rows(80, 8)), prompt={"path": "{{ document }}\n{{ question }}"}, run={"window": window})
    looked = looked_at(job, recipe_of(job), open_source(job.input))
    assert (looked is None) == (window >= 640)
    assert looked is None or looked.rows == pytest.approx(640, rel=0.05)


def test_an_input_that_changes_its_nature_later_is_looked_at_all_over(jobs: Any) -> None:
    draw = random.Random(7)
    alone = [{"document": f"{draw.random()} " * 15, "question": "?"} for _ in range(3000)]
    job = jobs.job(
        jobs.rows([*alone, *rows(400, 8)]),
        prompt={"path": "{{ document }}\n{{ question }}"},
        run={"window": 1024},
    )
    looked = looked_at(job, recipe_of(job), open_source(job.input))
    assert looked is not None
    assert looked.rows == pytest.approx(6200, rel=0.05)
    assert looked.gain.corpus > looked.gain.windows + 0.1
