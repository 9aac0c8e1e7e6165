"""Metrics against values worked out by hand, and against the libraries that the field takes them from."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF, TER

from llmbatch.core.errors import JobError
from llmbatch.core.types import Score
from llmbatch.evals.base import Example, check_examples, check_metrics, make_metric, make_metrics
from llmbatch.evals.metrics import METRICS
from llmbatch.evals.metrics.pass_at_k import chance
from llmbatch.evals.scores import Scored, score

SCORED = Scored("task", "digest", "data", "model")


def example(answers: Sequence[Any], *references: Any, **more: Any) -> Example:
    return Example(id=more.pop("id", 0), row=more.pop("row", {}), references=references, answers=answers, **more)


def value(metric: Any, answers: Sequence[Any], *references: Any, **more: Any) -> Any:
    return make_metric(metric).of(example(answers, *references, **more))


def figure(metric: Any, examples: Sequence[Example]) -> float | None:
    made = make_metric(metric)
    return score(examples, [made], SCORED).overall.figures[made.name].value


SQUAD = {"kind": "exact_match", "ignore_case": True, "ignore_punctuation": True, "ignore_articles": True}


@pytest.mark.parametrize(
    ("metric", "answer", "references", "expected"),
    [
        ("exact_match", "a  b ", ["a b"], 1),
        ("exact_match", "A b", ["a b"], 0),
        (SQUAD, "The Eiffel Tower!", ["eiffel tower"], 1),
        (SQUAD, "an other", ["other"], 1),
        (SQUAD, "another", ["other"], 0),
        ("accuracy", " yes", ["yes"], 1),
        ("accuracy", True, [1], 0),
        ("accuracy", 2, [1, 2], 1),
        ({"kind": "accuracy", "ignore_case": True}, "YES", ["yes"], 1),
        ("contains", "it is Paris, France", ["paris"], 1),
        ({"kind": "contains", "ignore_case": False}, "it is Paris", ["paris"], 0),
        ({"kind": "contains", "all": True}, "Paris", ["paris", "france"], 0),
        ("number", "1,234", [1234], 1),
        ("number", 0.1 + 0.2, ["0.3"], 1),
        ("number", 3.2, [3], 0),
        ({"kind": "number", "absolute": 0.25}, 3.2, [3], 1),
        ({"kind": "number", "relative": 0.1}, 109, [100], 1),
        ({"kind": "number", "relative": 0.1}, 111, [100], 0),
        ("number", "many", [3], 0),
        ("json_fields", {"a": 1, "b": "x"}, [{"a": 1, "b": "y"}], 0.5),
        ("json_fields", {"a": [1, {"c": 2}]}, [{"a": [1, {"c": 2}], "d": None}], 2 / 3),
        ("json_fields", {"a": "1"}, [{"a": 1}], 0),
        ({"kind": "json_fields", "whole": True}, {"a": 1, "b": 2}, [{"a": 1, "b": 3}], 0),
        ({"kind": "json_fields", "extra": True}, {"a": 1, "b": 2}, [{"a": 1}], 0.5),
        ({"kind": "json_fields", "fields": ["a"]}, {"a": {"x": 1}}, [{"a": {"x": 1}, "b": 2}], 1),
        ("share", 0.75, [], 0.75),
    ],
)
def test_an_answer_has_the_value_that_one_works_out_by_hand(
    metric: Any, answer: Any, references: list[Any], expected: float
) -> None:
    assert value(metric, [answer], *references) == pytest.approx(expected)


ANSWERED = ("exact_match", "accuracy", "contains", "number", "rouge", "share", "json_fields")


@pytest.mark.parametrize("kind", ANSWERED)
def test_an_unreadable_answer_and_a_failed_row_are_wrong(kind: str) -> None:
    reference: Any = {"a": 1} if kind == "json_fields" else "1"
    assert value(kind, [None], reference, outputs=["?"]) == 0
    assert value(kind, [], reference, error="engine") == 0


@pytest.mark.parametrize("kind", ["exact_match", "accuracy", "contains", "number"])
def test_repeats_count_on_average(kind: str) -> None:
    assert value(kind, ["1", "2", None, "1"], "1") == 0.5


def f1_by_definition(pairs: list[tuple[str | None, str]]) -> float:
    labels = {label for pair in pairs for label in pair if label is not None}
    scores = []
    for label in labels:
        right = sum(said == true == label for said, true in pairs)
        scores.append(2 * right / (sum(said == label for said, _ in pairs) + sum(true == label for _, true in pairs)))
    return sum(scores) / len(scores)


def test_macro_f1_is_that_of_its_definition() -> None:
    pairs = [("a", "a"), ("b", "a"), ("b", "b"), (None, "b"), ("c", "a"), ("a", "a")]
    examples = [example([said], true, id=place) for place, (said, true) in enumerate(pairs)]
    assert figure("macro_f1", examples) == pytest.approx(f1_by_definition(pairs), rel=1e-9)
    # a: right 2, said 2, true 4; b: right 1, said 2, true 2
    assert figure({"kind": "macro_f1", "labels": ["a", "b"]}, examples) == pytest.approx((4 / 6 + 2 / 4) / 2, rel=1e-9)


TEXTS = [
    ("the cat sat on the mat", ["the cat is on the mat", "there is a cat on the mat"]),
    ("a dog runs in the park today .", ["the dog ran in a park today.", "a dog runs in the park"]),
    ("it rains", ["it is raining a lot", "rain falls"]),
    ("Nothing, really: nothing!", ["nothing at all happened", "Nothing, really"]),
]


@pytest.mark.parametrize(
    ("settings", "library"),
    [
        ({"kind": "bleu"}, BLEU()),
        ({"kind": "bleu", "tokenize": "char", "lowercase": True}, BLEU(tokenize="char", lowercase=True)),
        ({"kind": "bleu", "smooth": "add-k"}, BLEU(smooth_method="add-k")),
        ({"kind": "chrf"}, CHRF()),
        ({"kind": "chrf", "word_order": 2}, CHRF(word_order=2)),
        ({"kind": "ter"}, TER()),
        ({"kind": "ter", "case_sensitive": True, "normalized": True}, TER(case_sensitive=True, normalized=True)),
    ],
    ids=lambda given: "-".join(map(str, given.values())) if isinstance(given, dict) else "",
)
def test_translation_scores_and_signatures_are_those_of_sacrebleu(settings: dict[str, Any], library: Any) -> None:
    texts = [text for text, _ in TEXTS]
    expected = library.corpus_score(texts, [[refs[place] for _, refs in TEXTS] for place in range(2)])
    examples = [example([text], *references, id=place) for place, (text, references) in enumerate(TEXTS)]
    scores = score(examples, [make_metric(settings)], SCORED)
    assert scores.overall.figures[settings["kind"]].value == pytest.approx(expected.score, rel=1e-9)
    assert scores.signatures[settings["kind"]] == str(library.get_signature())


def test_a_translation_that_could_not_be_read_is_an_empty_one() -> None:
    texts = [text for text, _ in TEXTS[:3]] + [""]
    expected = CHRF().corpus_score(texts, [[refs[0] for _, refs in TEXTS]]).score
    answers: list[list[str | None]] = [[text] for text in texts[:3]] + [[None]]
    examples = [
        example(one, refs[0], id=place) for place, (one, (_, refs)) in enumerate(zip(answers, TEXTS, strict=True))
    ]
    assert figure("chrf", examples) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", ["rouge1", "rouge2", "rougeL", "rougeLsum"])
def test_rouge_is_that_of_rouge_score_for_the_reference_that_fits_best(kind: str) -> None:
    scorer = RougeScorer([kind])
    for text, references in TEXTS:
        best = max(scorer.score(reference, text)[kind].fmeasure for reference in references)
        assert value({"kind": "rouge", "type": kind}, [text], *references) == pytest.approx(best)


def test_pass_at_k_is_the_share_of_the_draws_that_hold_one_that_passed() -> None:
    for samples, passed, k in itertools.product((5,), range(6), range(1, 6)):
        draws = list(itertools.combinations(range(samples), k))
        assert chance(samples, passed, k) == pytest.approx(sum(min(draw) < passed for draw in draws) / len(draws))


CHOICES = ["no", "certainly so", "é"]
LIKELIHOODS = [Score(-3.0, False, 1), Score(-6.0, False, 3), Score(-2.5, False, 2)]


@pytest.mark.parametrize(
    ("normalize", "right"),
    [("none", 2), ("length", 1), ("bytes", 1), ("tokens", 2)],
)
def test_the_chosen_one_is_the_likeliest_by_what_its_likelihood_is_divided_by(normalize: str, right: int) -> None:
    # by length: -1.5, -0.5, -2.5; by bytes: -1.5, -0.5, -1.25; by tokens: -3, -2, -1.25
    metric = {"kind": "choice_accuracy", "normalize": normalize}
    for place in range(3):
        expected = float(place == right)
        for reference in (place, CHOICES[place]):
            assert value(metric, [], reference, choices=CHOICES, scores=LIKELIHOODS) == expected


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("word", math.exp(30 / 5)),
        ("byte", math.exp(30 / 16)),
        ("token", math.exp(30 / 9)),
        ("bits_per_byte", 30 / 16 / math.log(2)),
    ],
)
def test_perplexity_is_over_all_texts_together(unit: str, expected: float) -> None:
    examples = [
        example([], id=0, choices=["one two"], scores=[Score(-5.0, False, 2), Score(-5.0, False, 2)]),
        example([], id=1, choices=["a bc défg"[:9]], scores=[Score(-20.0, False, 5)]),
        example([], id=2, choices=["lost"], error="engine"),
    ]
    assert sum(len(each.choices[0].encode()) for each in examples[:2]) == 17
    expected = expected if unit in ("word", "token") else {"byte": math.exp(30 / 17)}.get(unit, 30 / 17 / math.log(2))
    made = make_metric({"kind": "perplexity", "unit": unit})
    found = score(examples, [made], SCORED).overall.figures["perplexity"]
    assert found.value == pytest.approx(expected, rel=1e-9)
    assert (found.rows, found.left_out) == (2, 1)


def choice_rows() -> list[Example]:
    """Probabilities of the first choice: 0.9 and right, 0.9 and wrong, 0.6 and right."""
    return [
        example(
            [],
            right,
            id=row,
            choices=["x", "y"],
            scores=[Score(math.log(p), False, 1), Score(math.log(1 - p), False, 1)],
        )
        for row, (p, right) in enumerate([(0.9, "x"), (0.9, "y"), (0.6, "x")])
    ]


def test_the_calibration_error_is_the_gap_of_each_bin_by_its_rows() -> None:
    # the bin of 0.9: 1.8 said, 1 right; that of 0.6: 0.6 said, 1 right
    assert figure({"kind": "calibration_error", "bins": 7}, choice_rows()) == pytest.approx((0.8 + 0.4) / 3, rel=1e-9)


def test_the_brier_score_is_the_squared_distance_from_the_truth() -> None:
    assert figure("brier", choice_rows()) == pytest.approx((2 * 0.01 + 2 * 0.81 + 2 * 0.16) / 3, rel=1e-9)


def test_a_judge_that_could_not_be_read_does_not_count_and_one_that_never_could_gives_the_lowest() -> None:
    assert value("judge_score", [4, None, 5]) == 4.5
    assert value("judge_score", [None, None]) == 1
    assert value({"kind": "judge_score", "lowest": 0, "highest": 10}, [], error="engine") == 0


def alpha_by_definition(rows: list[list[Any]], distance: Any) -> float:
    """Krippendorff's alpha as he writes it: over pairs of scores within a row, and over all pairs."""
    rows = [[score for score in row if score is not None] for row in rows]
    rows = [row for row in rows if len(row) > 1]
    every = [score for row in rows for score in row]
    seen = sum(distance(a, b) / (len(row) - 1) for row in rows for a, b in itertools.permutations(row, 2)) / len(every)
    expected = sum(distance(a, b) for a, b in itertools.permutations(every, 2)) / len(every) / (len(every) - 1)
    return 1 - seen / expected


JUDGED = [[1, 2, 1], [5, 5, 4], [3, None, 3], [2, None, None], [4, 1, 5]]


@pytest.mark.parametrize(
    ("level", "distance"),
    [("interval", lambda a, b: (a - b) ** 2), ("nominal", lambda a, b: float(a != b))],
    ids=["interval", "nominal"],
)
def test_a_judges_agreement_with_itself_is_krippendorffs_alpha(level: str, distance: Any) -> None:
    examples = [example(scores, id=row) for row, scores in enumerate(JUDGED)]
    made = make_metric({"kind": "judge_agreement", "level": level})
    found = score(examples, [made], SCORED).overall.figures["judge_agreement"]
    assert found.value == pytest.approx(alpha_by_definition(JUDGED, distance), rel=1e-9)
    assert found.left_out == 1


def test_every_metric_of_the_table_is_there_and_says_what_it_is() -> None:
    for name in METRICS:
        made = make_metric(name)
        assert made.kind.needs.answers, name
        sums = {of: np.full(1, 2.0) for of in _names(name)}
        assert made.kind.total(sums, np.full(1, 2.0), made.settings).shape == (1,), name


def _names(kind: str) -> list[str]:
    return {
        "macro_f1": ["true a", "said a", "right a"],
        "bleu": [f"{place:02}" for place in range(10)],
        "chrf": [f"{place:02}" for place in range(18)],
        "ter": ["00", "01"],
        "perplexity": ["logprob", "units"],
        "judge_agreement": ["scores", "within", "sum", "square"],
        "calibration_error": ["gap 1"],
    }.get(kind, ["value"])


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("acuracy", "unknown metric 'acuracy' (did you mean 'accuracy'?)"),
        ({"kind": "bleu", "tokeniser": "zh"}, "its settings are: tokenize, lowercase"),
        ({"kind": "number", "absolute": -1}, "absolute"),
        ({"name": "x"}, "known are exact_match"),
        ({"kind": "judge_score", "lowest": 5}, "must be below highest"),
        ("os.path:join", "is no MetricKind"),
    ],
    ids=["unknown", "setting", "value", "no-kind", "scale", "import"],
)
def test_a_metric_that_cannot_be_made_is_refused_with_what_is_known(entry: Any, said: str) -> None:
    with pytest.raises(JobError) as raised:
        make_metric(entry)
    assert said in str(raised.value)


def test_two_metrics_of_one_name_are_refused() -> None:
    with pytest.raises(JobError, match="give one of them another"):
        make_metrics(["bleu", {"kind": "bleu", "tokenize": "zh"}])
    assert [m.name for m in make_metrics(["bleu", {"kind": "bleu", "name": "zh", "tokenize": "zh"}])] == ["bleu", "zh"]


@pytest.mark.parametrize(
    ("kind", "answers", "references", "allow_code", "said"),
    [
        ("bleu", "number", True, False, "this task's are read as number"),
        ("bleu", "text", False, False, "the task has none"),
        ("choice_accuracy", "text", True, False, "for answers that are read as likelihood"),
        ("pass_at_k", "code", True, False, "--allow-code"),
    ],
)
def test_a_metric_that_does_not_fit_the_task_is_refused_before_the_run(
    kind: str, answers: Any, references: bool, allow_code: bool, said: str
) -> None:
    with pytest.raises(JobError) as raised:
        check_metrics(make_metrics([kind]), answers, references=references, allow_code=allow_code)
    assert said in str(raised.value)


def test_code_may_run_where_it_is_allowed() -> None:
    check_metrics(make_metrics(["pass_at_k"]), "code", references=True, allow_code=True)


@pytest.mark.parametrize(
    ("kind", "one", "said"),
    [
        ("accuracy", example(["a"]), "it has no reference"),
        ("macro_f1", example(["a"], "a", "b"), "2 references"),
        ("number", example([1], "one"), "'one' is no number"),
        ("contains", example(["x"], ""), "a reference is empty"),
        ("bleu", example(["x"], 3), "is no text"),
        ("rouge", example(["x"], "日本"), "take chrf instead"),
        ("json_fields", example([{}], "text"), "neither an object nor a list"),
        ({"kind": "json_fields", "fields": ["z"]}, example([{}], {"a": 1}), "none of the fields z"),
        ({"kind": "pass_at_k", "k": 3}, example(["x"], "t"), "set the task's repeats to k"),
        ({"kind": "pass_at_k", "program": "{{ row.tests }}"}, example(["x"], "t"), "its program cannot be written"),
        ("choice_accuracy", example([], "z", choices=CHOICES, scores=LIKELIHOODS), "is none of its choices"),
        ("choice_accuracy", example([], 3, choices=CHOICES, scores=LIKELIHOODS), "is none of its choices"),
        ("choice_accuracy", example([], 0, choices=["x"], scores=LIKELIHOODS), "1 choices and 3 likelihoods"),
        ("judge_score", example([7]), "its scale is set to 1 to 5"),
        ("judge_score", example(["good"]), "which is no number"),
        ("judge_agreement", example([7]), "set repeats to 2"),
        ("share", example([3]), "between 0 and 1"),
    ],
)
def test_an_example_that_a_metric_cannot_score_is_named_with_the_reason(kind: Any, one: Example, said: str) -> None:
    with pytest.raises(JobError) as raised:
        check_examples(make_metrics([kind]), [one._replace(id="r7")])
    assert "row 'r7'" in str(raised.value)
    assert said in str(raised.value)


def test_one_odd_answer_among_the_first_is_an_answer_and_most_of_them_odd_are_a_wrong_setting() -> None:
    metrics = make_metrics(["judge_score"])
    check_examples(metrics, [example([4]), example([7]), example([2])])
    with pytest.raises(JobError, match="its scale is set to 1 to 5"):
        check_examples(metrics, [example([4]), example([7]), example([8])])


def test_a_row_that_failed_is_never_refused() -> None:
    metrics = [make_metric({"kind": name}) for name in METRICS]
    check_examples(metrics, [Example("r7", {}, error="malformed_row")])
    scores = score([Example("r7", {}, error="malformed_row")], metrics, SCORED).overall
    assert scores.counts.failed == 1
    left_out = {name for name, figure in scores.figures.items() if figure.left_out}
    assert left_out == {
        "macro_f1",
        "perplexity",
        "calibration_error",
        "brier",
        "judge_agreement",
        "bleu",
        "chrf",
        "ter",
    }


def test_one_odd_answer_among_many_stops_no_scoring_but_a_reference_that_cannot_be_used_does() -> None:
    judged = [example([4], id=row) for row in range(200)] + [example([9], id=200)]
    assert figure("judge_score", judged) == pytest.approx((200 * 4 + 1) / 201)
    rows = [example(["1"], "1", id=row) for row in range(200)]
    with pytest.raises(JobError, match="row 200: its reference 'x' is no number"):
        figure("number", [*rows, example(["1"], "x", id=200)])


def test_references_of_several_kinds_are_refused_with_a_row_of_each() -> None:
    with pytest.raises(JobError, match="row 1 has string, row 2 has number"):
        check_examples(make_metrics(["accuracy"]), [example(["a"], "a", id=1), example([2], 2.5, id=2)])
