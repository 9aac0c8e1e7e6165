"""Comparing runs, end to end on run folders as ``llmbatch eval`` leaves them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from llmbatch.cli.main import main
from llmbatch.core.errors import FolderError, JobError, UsageError
from llmbatch.evals.base import Example, make_metrics
from llmbatch.evals.compare import Comparison, compare, comparison_to_dict
from llmbatch.evals.scores import SCORES, Scored, score

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A finished evaluation: answers by row, the right one is always "yes"."""

    def make_run(
        name: str,
        answers: Sequence[Any],
        metrics: Sequence[Any] = ("accuracy",),
        *,
        ids: Sequence[Any] | None = None,
        clusters: Sequence[str] | None = None,
        right: str = "yes",
        **scored: str,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        examples = [
            Example(
                id=ids[row] if ids is not None else row,
                row={},
                references=(right,),
                answers=[answer],
                outputs=[f"said {answer}"],
                cluster=clusters[row] if clusters is not None else None,
            )
            for row, answer in enumerate(answers)
        ]
        about = Scored(**{"task": "t", "task_digest": "d", "dataset": "s", "model": name} | scored)
        score(examples, make_metrics(metrics), about, folder)
        return folder

    return make_run


def answers(right: int, wrong: int) -> list[str]:
    return ["yes"] * right + ["no"] * wrong


def only(comparison: Comparison) -> Any:
    assert len(comparison.compared) == 1
    return comparison.compared[0]


def test_binary_rows_have_mcnemars_exact_p_value(make: Make) -> None:
    # 6 rows won, 1 lost of 20: 2 * (1 + 7) / 2^7
    first = make("a", ["no"] * 6 + ["yes"] * 14)
    second = make("b", ["yes"] * 6 + ["no"] + ["yes"] * 13)
    gap = only(compare([first, second])).difference
    assert (gap.won, gap.lost, gap.tied) == (6, 1, 13)
    assert gap.p == pytest.approx(2 * 8 / 2**7)
    assert gap.test == "McNemar, exact"
    assert gap.value == pytest.approx(0.25)
    assert gap.interval.low < 0.25 < gap.interval.high


def test_rows_are_paired_by_their_id_and_not_by_their_place(make: Make) -> None:
    said = ["yes", "no", "no", "yes", "no", "yes"]
    order = [3, 0, 5, 1, 4, 2]
    first = make("a", said)
    second = make("b", [said[row] for row in order], ids=order)
    gap = only(compare([first, second])).difference
    assert (gap.won, gap.lost, gap.tied) == (0, 0, 6)
    assert gap.p == 1


def test_rows_of_one_run_alone_do_not_count_and_are_told(make: Make) -> None:
    first = make("a", answers(5, 5))
    second = make("b", answers(5, 3))
    comparison = compare([first, second])
    assert only(comparison).difference.rows == 8
    assert comparison.notes == ["2 rows of a are not in b, and do not count"]


def test_swapping_the_runs_swaps_the_difference(make: Make) -> None:
    chance = random.Random(3)
    metrics = ["accuracy", "macro_f1", "chrf"]
    clusters = [f"c{row // 4}" for row in range(40)]
    first = make("a", [chance.choice(["yes", "no"]) for _ in range(40)], metrics, clusters=clusters)
    second = make("b", [chance.choice(["yes", "yes", "yess"]) for _ in range(40)], metrics, clusters=clusters)
    for one, two in zip(compare([first, second]).compared, compare([second, first]).compared, strict=True):
        assert one.difference.value == pytest.approx(-two.difference.value)
        assert (one.difference.won, one.difference.lost) == (two.difference.lost, two.difference.won)
        assert one.difference.p == pytest.approx(two.difference.p, abs=0.02)
        assert "by clusters" in one.difference.test


def test_few_clusters_are_swapped_in_every_way(make: Make) -> None:
    # four clusters of three rows, all of them won: 2 of the 16 ways to swap are as far apart
    clusters = [f"c{row // 3}" for row in range(12)]
    first = make("a", answers(0, 12), clusters=clusters)
    second = make("b", answers(12, 0), clusters=clusters)
    gap = only(compare([first, second])).difference
    assert gap.p == pytest.approx(2 / 16)
    assert gap.test == "permutation by clusters"


def test_lower_is_better_where_the_metric_says_so(make: Make) -> None:
    first = make("a", ["yes", "no no no", "no no no"], ["ter"])
    second = make("b", ["yes", "yes", "no no no"], ["ter"])
    gap = only(compare([first, second])).difference
    assert gap.value < 0
    assert (gap.won, gap.lost, gap.tied) == (1, 0, 2)


def test_the_rows_needed_are_those_at_which_the_seen_difference_is_the_smallest_one_that_shows(make: Make) -> None:
    first = make("a", answers(10, 10))
    second = make("b", ["no", *answers(10, 9)[:-1], "yes"][:20])
    gap = only(compare([first, second])).difference
    assert gap.detectable > abs(gap.value)
    assert gap.rows_needed == pytest.approx(20 * (gap.detectable / gap.value) ** 2, abs=1)


def test_of_several_runs_p_values_are_held_against_each_other(make: Make) -> None:
    runs = [
        make("a", answers(4, 16)),
        make("b", answers(10, 10)),
        make("c", answers(12, 8)),
    ]
    comparison = compare(runs)
    assert [(each.first, each.second) for each in comparison.compared] == [("a", "b"), ("a", "c"), ("b", "c")]
    raw = [each.difference.p for each in comparison.compared]
    assert raw == pytest.approx([2 / 2**6, 2 / 2**8, 0.5])
    assert [each.p_adjusted for each in comparison.compared] == pytest.approx([2 * raw[0], 3 * raw[1], 0.5])
    assert [each.decided for each in comparison.compared] == [False, True, False]


def test_examples_are_the_rows_that_differ_with_what_every_run_said(make: Make) -> None:
    first = make("a", ["no", None, "yes", "yes"])
    second = make("b", ["yes", "yes", "yes", "no"])
    comparison = compare([first, second], examples=2)
    assert [(each.id, each.gain) for each in comparison.examples] == [(0, 1), (1, 1), (3, -1)]
    assert comparison.examples[1].answers == {"a": ["said None"], "b": ["yes"]}
    assert comparison.examples[0].references == ["yes"]


def test_the_comparison_is_the_same_each_time(make: Make) -> None:
    chance = random.Random(5)
    runs = [
        make(name, [chance.choice(["yes", "no", "yes no"]) for _ in range(30)], ["chrf", "rouge", "macro_f1"])
        for name in "ab"
    ]
    once, again = (json.dumps(comparison_to_dict(compare(runs))) for _ in range(2))
    assert once == again


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"task": "u"}, "b of u: only runs of one task"),
        ({"task_digest": "e"}, "in two states"),
        ({"dataset": "z"}, "two states of the data set"),
        ({"ids": [90, 91, 92, 3]}, "1 row ids in common"),
        ({"metrics": ["exact_match"]}, "no metric in common"),
        ({"metrics": [{"kind": "accuracy", "ignore_case": True}]}, "with different settings"),
        ({"ids": [1, 1, 2, 3]}, "two rows have the id 1"),
    ],
    ids=["task", "changed-task", "data", "rows", "metric", "settings", "twice"],
)
def test_runs_that_cannot_be_paired_are_refused_with_the_reason(make: Make, changed: Any, said: str) -> None:
    first = make("a", answers(2, 2))
    second = make("b", answers(2, 2), changed.pop("metrics", ["accuracy"]), **changed)
    with pytest.raises(JobError) as raised:
        compare([first, second])
    assert said in str(raised.value)


def test_a_folder_without_an_evaluation_and_a_run_against_itself_are_refused(make: Make, tmp_path: Path) -> None:
    first = make("a", answers(2, 2))
    with pytest.raises(FolderError, match="no finished run of llmbatch eval"):
        compare([first, tmp_path])
    for folders in ([first], [first, first]):
        with pytest.raises(UsageError, match="two run folders or more"):
            compare(folders)


def test_a_metric_that_was_made_by_another_version_is_refused(make: Make) -> None:
    first, second = make("a", answers(2, 2)), make("b", answers(2, 2))
    path = second / SCORES
    path.write_text(path.read_text().replace('"version": 1', '"version": 99'))
    with pytest.raises(FolderError, match="accuracy is of version 99"):
        compare([first, second])


def test_the_command_says_in_words_what_the_rows_can_tell(make: Make) -> None:
    first, second = make("model-a", answers(5, 15)), make("model-b", answers(18, 2))
    third = make("model-c", answers(17, 3))
    result = CliRunner().invoke(main, ["compare", str(first), str(second)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "accuracy: B is better (McNemar, exact)" in result.output
    assert "row 5: B is better" in result.output
    result = CliRunner().invoke(main, ["compare", str(second), str(third)], catch_exceptions=False)
    assert "these 20 rows cannot tell the runs apart" in " ".join(result.output.split())
    result = CliRunner().invoke(
        main, ["compare", str(first), str(second), str(third), "--json"], catch_exceptions=False
    )
    found = json.loads(result.stdout)
    assert [each["decided"] for each in found["compared"]] == [True, True, False]
    assert found["runs"]["model-a"]["model"] == "model-a"


def test_the_command_refuses_what_cannot_be_compared_without_a_traceback(make: Make) -> None:
    first = make("a", answers(2, 2))
    result = CliRunner().invoke(main, ["compare", str(first), str(make("b", answers(2, 2), task="other"))])
    assert result.exit_code == 2
    assert "only runs of one task" in result.output


def test_the_page_of_a_comparison_leads_with_the_better_run_and_has_every_pair(make: Make, tmp_path: Path) -> None:
    hostile = "</script><script>alert(1)</script>"
    first = make("a", [*answers(60, 0), *[hostile] * 40])
    second, third = make("b", answers(95, 5)), make("c", answers(94, 6))
    path = tmp_path / "page.html"
    done = CliRunner().invoke(
        main, ["compare", *map(str, (first, second, third)), "--html", str(path)], catch_exceptions=False
    )
    assert done.exit_code == 0 and "B is better" in done.stdout
    page = path.read_text()
    assert "<h1>b is better than a (0.6) by accuracy: 0.95; it cannot be told apart from c</h1>" in page
    assert [pair in page for pair in ("B against A", "C against A", "C against B")] == [True] * 3
    assert "alert(1)" in page and "<script>alert" not in page
    assert "://" not in page


def test_the_page_of_runs_that_are_alike_says_so(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    runs = [str(make(name, answers(50, 50))) for name in ("a", "b")]
    assert CliRunner().invoke(main, ["compare", *runs, "--html", str(path)], catch_exceptions=False).exit_code == 0
    assert "no run is better than another" in path.read_text()
