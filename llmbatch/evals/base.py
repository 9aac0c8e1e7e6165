"""The contract of a metric: one scored row of a task in, what it adds to the metric out; and the settings of metrics.

A metric is a function of one example (``MetricKind.of``) and one of all of them together (``MetricKind.total``), which is given no
more than sums: the accuracy of a set is the sum of its rows' values by their number, corpus BLEU a formula of the sums of the rows'
n-gram counts. So a set can be resampled a thousand times for an interval without a row being looked at again.

``examples.jsonl`` in a run folder keeps what became of each row, one JSON object a line in the order of the input:

    {"id": 7, "category": "algebra", "cluster": "doc-3", "references": ["42"], "answers": ["42", null],
     "values": {"exact_match": 0.5, "bleu": {"length": 1, ...}}, "unread": ["forty-two"], "error": null}

``values`` has what ``of`` gave for each metric, by the metric's name. ``unread`` holds the outputs that no answer could be read
from.
``evals/examples.py`` is its only reader and writer, as ``evals/scores.py`` is of ``scores.json``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from llmbatch.core.errors import JobError
from llmbatch.core.imports import is_import_path, load_object
from llmbatch.core.table import find
from llmbatch.core.types import Score
from llmbatch.core.words import near, short, type_name
from llmbatch.evals.metrics import METRICS

AnswerKind = Literal["text", "label", "number", "json", "code", "likelihood"]
"""What a task's reader reads: free text, one of a few names, a number, a JSON value, a program; or likelihoods, and no answer."""

Floats = NDArray[np.float64]
Value = float | Mapping[str, float] | None
"""What one example adds: a figure, or several counts by name. ``None``: nothing can be said of it, and it is left out."""


class Example(NamedTuple):
    """One row of a task as it is scored."""

    id: Any
    row: Mapping[str, Any]
    """The data set's row."""
    references: Sequence[Any] = ()
    """What would be right, any one of them; empty: the task has none. Of a multiple choice the text of the right choice."""
    answers: Sequence[Any] = ()
    """What was read from the output of each repeat, in order; ``None`` where it could not be read. Of a failed row empty."""
    outputs: Sequence[Any] = ()
    """The outputs as they are in the record, beside ``answers``."""
    choices: Sequence[str] = ()
    """The texts whose likelihoods were asked for; for perplexity the one text."""
    scores: Sequence[Score] | None = None
    """The likelihoods of ``choices``, beside them."""
    cluster: str | None = None
    """What rows of one origin (a document, a conversation) have in common: such rows are not independent."""
    category: str | None = None
    """Figures are also given for each category."""
    error: str | None = None
    """The kind of failure in the row's record, where that is not ok."""

    @property
    def unread(self) -> list[Any]:
        """The outputs that no answer could be read from."""
        return [output for output, answer in zip(self.outputs, self.answers, strict=False) if answer is None]


class MetricSettings(BaseModel):
    """What every metric's settings have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=MetricSettings)


class Needs(NamedTuple):
    """What a metric can be used on."""

    answers: frozenset[AnswerKind]
    references: bool = True


def mean(sums: Mapping[str, Floats], rows: Floats, _settings: Any) -> Floats:
    """The ``total`` of a metric that is the mean of its rows."""
    return sums["value"] / rows


def from_0_to_1(_settings: Any) -> tuple[float, float]:
    return (0.0, 1.0)


def unbounded(_settings: Any) -> None:
    return None


def no_complaint(_example: Example, _settings: Any) -> None:
    return None


def share_of(answers: Sequence[Any], is_right: Callable[[Any], bool | float]) -> float:
    """How right the answers of an example are on average: of none, as of a failed row, and where one cannot be read, not at all."""
    return sum(float(is_right(answer)) for answer in answers if answer is not None) / len(answers) if answers else 0.0


@dataclass(frozen=True, slots=True)
class MetricKind(Generic[S]):
    """One kind of metric.

    ``of`` gives what an example adds. A failed row and an answer that cannot be read are wrong: they get the worst value, not
    ``None``. Of several repeats it gives their mean. A single figure goes into the sums as ``value``.

    ``total`` makes figures of sums. Each array of ``sums``, and ``rows``, has one entry a set of rows; so has the result.
    """

    settings: type[S]
    of: Callable[[Example, S], Value]
    needs: Needs
    total: Callable[[Mapping[str, Floats], Floats, S], Floats] = mean
    higher_is_better: bool = True
    bounds: Callable[[S], tuple[float, float] | None] = from_0_to_1
    """Between what the figure lies, and of a mean every row's value, if that is known."""
    interval: Literal["bootstrap", "jackknife"] = "bootstrap"
    """How the interval of a figure that is no mean is made. The bootstrap does not do where resampling itself shifts the figure."""
    by_row: bool = True
    """Whether the figure of one row says something of that row, so that rows won and lost can be counted."""
    complaint: Callable[[Example, S], str | None] = no_complaint
    """Why an example's references or choices cannot be used with these settings, in words; asked of every row that did not fail."""
    doubt: Callable[[Example, S], str | None] = no_complaint
    """Why the settings seem not to be made for an example's answers, in words; asked of the first rows alone, and
    told where it holds for most of them, since an answer may be odd."""
    version: int = 1
    """Raised by a change that gives other figures: runs with different ones are not compared."""
    signature: Callable[[S, int | None], str] | None = None
    """How the field writes down which variant this is, as sacrebleu's signatures do; given the number of references of each row."""
    runs_code: bool = False
    """It runs what the model wrote, so it is used only where the user allows that."""

    @property
    def is_mean(self) -> bool:
        return self.total is mean


class Metric(NamedTuple):
    """A metric of a task: a kind with its settings, under the name that the task gives it."""

    name: str
    kind_name: str
    kind: MetricKind[Any]
    settings: Any

    def of(self, example: Example) -> Value:
        value: Value = self.kind.of(example, self.settings)
        return value


def make_metric(entry: str | Mapping[str, Any]) -> Metric:
    """The metric of an entry of a task: ``exact_match``, or ``{kind: bleu, name: bleu-zh, tokenize: zh}``.

    A kind is one of the table, or an import path. Its name is that of its kind where none is given. Raises ``JobError``.
    """
    given = {"kind": entry} if isinstance(entry, str) else dict(entry)
    kind_name = given.pop("kind", None)
    if not isinstance(kind_name, str):
        raise JobError(f"a metric is a name, or settings with the name under kind; known are {', '.join(METRICS)}")
    name = str(given.pop("name", kind_name))
    kind = _kind_of(kind_name)
    try:
        return Metric(name, kind_name, kind, kind.settings.model_validate(given))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        known = ", ".join(kind.settings.model_fields) or "none"
        raise JobError(f"metric {name}: {where}: {first['msg']}; its settings are: {known}") from error


def _kind_of(name: str) -> MetricKind[Any]:
    if is_import_path(name):
        kind = load_object(name)
        if not isinstance(kind, MetricKind):
            raise JobError(f"metric {name}: it is no MetricKind (llmbatch.evals.base), but {short(kind)}")
        return kind
    if name not in METRICS:
        raise JobError(f"unknown metric {name!r}{near(name, METRICS)}: known are {', '.join(METRICS)}")
    found: MetricKind[Any] = find(METRICS, name, "metric")
    return found


def make_metrics(entries: Sequence[str | Mapping[str, Any]]) -> list[Metric]:
    """The metrics of a task. Raises ``JobError``, also for two of one name."""
    metrics = [make_metric(entry) for entry in entries]
    names = [metric.name for metric in metrics]
    if twice := [name for name in names if names.count(name) > 1]:
        raise JobError(f"two metrics have the name {twice[0]!r}: give one of them another under name")
    return metrics


def check_metrics(
    metrics: Sequence[Metric], answers: AnswerKind, *, references: bool, allow_code: bool = False
) -> None:
    """See before a run that the metrics fit a task whose reader gives this kind of answer. Raises ``JobError``."""
    for metric in metrics:
        needs = metric.kind.needs
        if answers not in needs.answers:
            wanted = " or ".join(sorted(needs.answers))
            raise JobError(
                f"metric {metric.name}: it is for answers that are read as {wanted}, and this task's are read as {answers}; "
                "read the answer in another way, or take another metric"
            )
        if needs.references and not references:
            raise JobError(
                f"metric {metric.name}: it compares answers with references, and the task has none; say in the task which field "
                "of the data set holds them"
            )
        if metric.kind.runs_code and not allow_code:
            raise JobError(
                f"metric {metric.name}: it runs the code that the model writes, which is off until you allow it "
                "(--allow-code); what that code can do on this machine is in docs/how-to/evaluate.md"
            )


def check_example(metrics: Sequence[Metric], example: Example) -> None:
    """See that the metrics can use what a row is scored by, unless it failed. Raises ``JobError`` that names the row."""
    if example.error is not None:
        return
    for metric in metrics:
        problem = metric.kind.complaint(example, metric.settings)
        if problem is None and metric.kind.needs.references and not example.references:
            problem = "it has no reference, and the metric compares answers with references"
        if problem is not None:
            raise JobError(f"metric {metric.name}: row {short(example.id)}: {problem}")


def check_examples(metrics: Sequence[Metric], examples: Sequence[Example]) -> None:
    """See on the first examples that the metrics fit them, before any is scored. Raises ``JobError`` that names the row."""
    kinds: dict[str, Any] = {}
    doubts: dict[str, list[str]] = {}
    for example in examples:
        check_example(metrics, example)
        for reference in example.references:
            kinds.setdefault(_kind_of_reference(reference), example.id)
        for metric in metrics:
            doubt = metric.kind.doubt(example, metric.settings)
            if doubt is not None and example.error is None:
                doubts.setdefault(metric.name, []).append(f"row {short(example.id)}: {doubt}")
    answered = sum(example.error is None for example in examples)
    for name, said in doubts.items():
        if 2 * len(said) > answered:  # one odd answer is an answer; most of them odd are a wrong setting
            raise JobError(f"metric {name}: {said[0]}")
    if len(kinds) > 1:
        (one, first), (other, second) = list(kinds.items())[:2]
        raise JobError(
            f"references of several kinds: row {short(first)} has {one}, row {short(second)} has {other}; a task compares answers "
            "with one kind of reference, so split it, or make the data set's field the same throughout"
        )


def _kind_of_reference(reference: Any) -> str:
    name = type_name(reference)
    return "number" if name == "integer" else name


__all__ = [
    "AnswerKind",
    "Example",
    "Floats",
    "Metric",
    "MetricKind",
    "MetricSettings",
    "Needs",
    "Value",
    "check_example",
    "check_examples",
    "check_metrics",
    "from_0_to_1",
    "make_metric",
    "make_metrics",
    "mean",
    "no_complaint",
    "share_of",
    "unbounded",
]
