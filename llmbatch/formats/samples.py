"""A row with what became of it in; its answers, as many as were asked for, with their thoughts and log probabilities, out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from llmbatch.core.logprobs import of_answer
from llmbatch.formats.base import Answered


class Sample(NamedTuple):
    """One answer. ``tokens`` has an object a token, ``{"token", "logprob", "top": [{"token", "logprob"}, ...]}``."""

    output: Any
    reasoning: str | None = None
    tokens: list[dict[str, Any]] | None = None

    @property
    def text(self) -> str:
        """The answer as text: a JSON value is written as JSON."""
        return self.output if isinstance(self.output, str) else json.dumps(self.output, ensure_ascii=False)


def samples_of(answered: Answered, output: Any) -> list[Sample]:
    """The answers that ``output`` holds. A record tells of a single answer without a list, and nothing if none has it.

    A row that was tried again with another number of answers is one sample, without what cannot be told of it.
    """
    record = answered.record
    reasoning, tokens = record.get("reasoning"), record.get("logprobs")
    if (
        isinstance(output, list) and (count := answered.asked.samples) > 1
    ):  # how a row was asked is not known for nothing
        told = [[None] * count if value is None else value for value in (output, reasoning, tokens)]
        if all(isinstance(value, list) and len(value) == count for value in told):
            return [Sample(one, thought, of_answer(each)) for one, thought, each in zip(*told, strict=True)]
    alone = isinstance(tokens, list) and all(isinstance(token, Mapping) for token in tokens)
    return [Sample(output, reasoning if isinstance(reasoning, str) else None, of_answer(tokens) if alone else None)]
