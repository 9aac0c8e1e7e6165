from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.errors import FolderError, JobError
from llmbatch.evals.base import Example, make_metrics
from llmbatch.evals.examples import EXAMPLES, read_examples
from llmbatch.evals.scores import SCORES, Scored, read_scores, score, scores_to_dict

SCORED = Scored("capitals", "digest", "data", "model")
METRICS = ["accuracy", "macro_f1", {"kind": "bleu", "name": "bleu-char", "tokenize": "char"}]


def rows() -> list[Example]:
    """Twelve rows in two categories and four clusters: half are right, one cannot be read, one failed."""
    made = [
        Example(
            id=f"r{row}",
            row={"question": row},
            references=("yes",),
            answers=["yes" if row % 2 else "no"],
            outputs=["yes" if row % 2 else "no"],
            cluster=f"doc{row // 3}",
            category="easy" if row < 6 else "hard",
        )
        for row in range(12)
    ]
    made[1] = made[1]._replace(answers=[None], outputs=["perhaps é\ud800"])
    made[3] = made[3]._replace(answers=[], outputs=[], error="engine")
    return made


def test_rows_that_failed_or_could_not_be_read_are_counted_apart_and_are_wrong() -> None:
    scores = score(rows(), make_metrics(METRICS), SCORED)
    assert scores.overall.counts == (12, 1, 1, 4)
    assert scores.overall.figures["accuracy"].value == pytest.approx(4 / 12)
    assert scores.categories["easy"].counts == (6, 1, 1, 2)
    assert scores.categories["easy"].figures["accuracy"].value == pytest.approx(1 / 6)
    assert scores.categories["hard"].figures["accuracy"].value == 0.5


def test_rows_of_a_cluster_are_not_taken_for_independent() -> None:
    scores = score(rows(), make_metrics(["accuracy"]), SCORED)
    assert scores.overall.figures["accuracy"].method == "wilson-t by clusters"
    apart = [row._replace(cluster=None) for row in rows()]
    found = score(apart, make_metrics(["accuracy"]), SCORED).overall
    assert (found.figures["accuracy"].method, found.counts.clusters) == ("mid-p", None)


def test_the_files_hold_it_all_and_are_the_same_for_the_same_rows(tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        scores = score(iter(rows()), make_metrics(METRICS), SCORED, folder)
    for name in (SCORES, EXAMPLES):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    again = read_scores(folders[0])
    assert scores_to_dict(again) == scores_to_dict(scores)
    assert "bleu-char" in again.signatures
    lines = list(read_examples(folders[0]))
    assert [line.id for line in lines] == [f"r{row}" for row in range(12)]
    assert lines[5].values["accuracy"] == 1
    assert lines[3].error == "engine"
    assert lines[1].unread == ["perhaps é?"]


def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="row 'r0'"):
        score(rows(), make_metrics(["number"]), SCORED, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_rows_have_no_figure() -> None:
    found = score([], make_metrics(METRICS), SCORED).overall
    assert found.counts.rows == 0
    assert all(figure.value is None and figure.low is None for figure in found.figures.values())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "damaged"),
        ('{"format": 99}', "newer llmbatch"),
        ('{"format": 1, "metrics": {}}', "damaged"),
        ("[]", "damaged"),
    ],
)
def test_a_scores_file_that_cannot_be_used_is_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / SCORES).write_text(content)
    with pytest.raises(FolderError, match=said):
        read_scores(tmp_path)


@pytest.mark.parametrize("line", ["{", "[]", '{"id": 1}', "3"])
def test_a_line_that_is_no_example_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / EXAMPLES).write_text(line + "\n")
    with pytest.raises(FolderError, match=f"{EXAMPLES}:1"):
        list(read_examples(tmp_path))


def test_scores_are_json_that_anyone_can_read(tmp_path: Path) -> None:
    score(rows(), make_metrics(METRICS), SCORED, tmp_path)
    found: dict[str, Any] = json.loads((tmp_path / SCORES).read_text())
    assert list(found) == [
        "format", "task", "task_digest", "dataset", "model", "confidence", "seed", "metrics", "overall", "categories",
    ]  # fmt: skip
    accuracy = found["overall"]["figures"]["accuracy"]
    assert accuracy["low"] < accuracy["value"] < accuracy["high"]
    assert found["metrics"]["bleu-char"]["settings"]["tokenize"] == "char"
