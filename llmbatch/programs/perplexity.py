"""How likely the model finds a text: each token is predicted once, from as many of those before it as the context holds.

    program: perplexity            # the job's prompt is the text itself: text: "{{ page }}"

A text that is longer than the context is taken in windows as lm-evaluation-harness does (``loglikelihood_rolling``): every window
predicts as many new tokens as it holds, and the last one, which would be short, reaches back. The first token is predicted from the
token that the model's texts begin with: the one that its tokenizer puts there, or else ``start``; where there is neither, it is not
predicted. The row's value tells the sum, ``details`` the same as those of ``score`` do:

    {"logprob": -182.4, "tokens": 61, "windows": 1}
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from llmbatch.core.types import Failure, Prompt, Score
from llmbatch.programs.base import Ask, Complete, Incomplete, Program, ProgramKind, RowAsk
from llmbatch.programs.shots import unusable

_NO_TEXT = Prompt(text="")


class PerplexitySettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    start: str = Field(
        "",
        description="the token that texts begin with, such as <|endoftext|>, for a tokenizer that puts none there itself",
    )


class Window(NamedTuple):
    """Tokens that are predicted together, and those before them that the model sees."""

    context: Sequence[int]
    target: Sequence[int]


def perplexity(row: RowAsk) -> Program:
    ask = row.ask()
    windows = ask if isinstance(ask, Failure) else _windows_of(row, ask)
    if isinstance(windows, Failure) or isinstance(ask, Failure):
        yield windows if isinstance(windows, Failure) else ask
        return Incomplete()
    del row
    answers = yield [
        # the text itself would be held once for each window
        replace(
            ask, prompt=_NO_TEXT, target="", token_ids=each.context, target_ids=each.target, constraint=None, samples=1
        )
        for each in windows
    ]
    if None in answers:
        return Incomplete()
    scores: list[Score] = [answer.value for answer in answers]
    total = Score(
        sum(each.logprob for each in scores), all(each.greedy for each in scores), sum(each.tokens for each in scores)
    )
    output = {"logprob": total.logprob, "tokens": total.tokens, "windows": len(windows)}
    return Complete(output, {"scores": [total._asdict()]}, logprobs=False)


def rolling(tokens: Sequence[int], prefix: Sequence[int], most: int) -> Iterator[Window]:
    """The windows of a text whose tokens follow ``prefix``; context and target of each have at most ``most`` tokens together."""
    ids = [*prefix, *tokens]
    predicted = max(1, len(prefix))  # the first token of a text cannot be
    if not prefix and len(ids) == 1:
        return
    while predicted < len(ids):
        # the first window holds what fits; the others see one token at least
        room = most - predicted if predicted == max(1, len(prefix)) else most - 1
        end = min(len(ids), predicted + room)
        start = max(0, end - most)
        yield Window(ids[start:predicted], ids[predicted:end])
        predicted = end


def _windows_of(row: RowAsk, ask: Ask) -> list[Window] | Failure:
    text = ask.prompt.text
    if text is None:
        return unusable(row, "perplexity is of plain text, and the prompt is a chat: give it as text")
    settings: PerplexitySettings = row.settings
    found = row.ids(["", settings.start, text])
    context_length = row.context_length
    if found is None or context_length is None:
        return unusable(
            row, "the engine does not tell its tokens and its context, so a text cannot be cut into windows"
        )
    empty, start, tokens = found
    if isinstance(tokens, Failure):
        return tokens
    own = () if isinstance(empty, Failure) else empty  # what the tokenizer puts before every text
    prefix = own or (() if isinstance(start, Failure) else start)
    windows = list(rolling(tokens[len(own) :], prefix, context_length))
    return windows or unusable(row, "the text has only one token, and nothing stands before it that could predict it")


KIND = ProgramKind(perplexity, PerplexitySettings, keeps_row=False)

__all__ = ["KIND", "PerplexitySettings", "Window", "rolling"]
