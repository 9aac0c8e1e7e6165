"""An answer and its references in; 1 where it has one of them in it, or with ``all`` each of them, out."""

from __future__ import annotations

from pydantic import Field

from llmbatch.evals.base import Example, MetricKind, MetricSettings, Needs, share_of


class ContainsSettings(MetricSettings):
    ignore_case: bool = True
    all: bool = Field(False, description="every reference must be in the answer, and not just one")


def contains(example: Example, settings: ContainsSettings) -> float:
    """The share of the repeats whose answer has it in it."""

    def as_compared(value: object) -> str:
        return str(value).casefold() if settings.ignore_case else str(value)

    wanted = [as_compared(reference) for reference in example.references]
    enough = all if settings.all else any
    return share_of(example.answers, lambda answer: enough(part in as_compared(answer) for part in wanted))


def _complaint(example: Example, _settings: ContainsSettings) -> str | None:
    empty = any(not str(reference).strip() for reference in example.references)
    return "a reference is empty, and every text contains it" if empty else None


KIND = MetricKind(ContainsSettings, contains, Needs(frozenset({"text", "label", "code"})), complaint=_complaint)
