"""One wanted answer, attempt by attempt: outcomes in; the next request, and at the end the answer or why there is none, out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from llmbatch.core.check import Check, Verdict
from llmbatch.core.numbers import not_finite
from llmbatch.core.types import (
    Accepted,
    Attempt,
    Completion,
    Failure,
    FailureKind,
    Outcome,
    Prompt,
    Refusal,
    Request,
    RequestKey,
    Row,
    Sampling,
    Usage,
)
from llmbatch.core.words import quote
from llmbatch.programs.base import Ask
from llmbatch.programs.branches import Branch

Retry = Callable[[Request, Failure, Completion | None, Sequence[FailureKind]], Request | None]
"""(request, why it failed, its answer, kinds of the failures before) -> the next request, or None to give up."""


class Shortened(NamedTuple):
    """A request that is made to fit: what is sent in its place, the check of its answer, and what a record says of it (JSON)."""

    request: Request
    check: Check | None
    said: Mapping[str, Any]


Shorten = Callable[[Request, Failure, Any, Check | None], Shortened | Failure | None]
"""(a request that the context does not hold, how that was said, its ask's origin, its check) -> the same made to fit, with the same
key; or why it cannot be, or None where there is no more to say."""

NOTHING = Usage()
_END_CHARACTERS = 120  # of an answer that repeats itself, enough to see how
_NO_PROMPT, _NO_SAMPLING = Prompt(), Sampling()
_ANSWERED = Request(RequestKey(-1), _NO_PROMPT, _NO_SAMPLING)  # in the place of one that is not needed any more


@dataclass(frozen=True, slots=True)
class Rules:
    """What is the same for every row of a job: how answers are judged, and what follows a failure."""

    check: Check
    next_request: Retry
    shorten: Shorten | None = None  # None: what the context does not hold is a failure


class Line:
    """One answer that is wanted, and its attempts one after another."""

    __slots__ = (
        "accepted",
        "answered",
        "branch",
        "check",
        "completion",
        "failed",
        "kept",
        "key",
        "origin",
        "request",
        "shortened",
        "text",
        "usage",
    )

    def __init__(self, request: Request, check: Check | None, branch: Branch, origin: Any = None) -> None:
        self.request = request  # the last one sent
        self.branch = branch
        self.key = request.key
        self.check = check
        self.origin = origin
        self.shortened: Mapping[str, Any] | None = None  # what was done to make the request fit
        self.answered = 0
        self.usage = NOTHING  # of all attempts
        self.kept = NOTHING  # the part of it that went into the answer as it now stands
        self.failed: tuple[Attempt, ...] = ()
        self.completion: Completion | None = None  # the last one that came
        self.text: str | None = None  # its text, with the prefill
        self.accepted: Accepted | None = None

    @classmethod
    def unsent(cls, key: RequestKey, failure: Failure, branch: Branch) -> Line:
        """The line of something that could not be asked."""
        line = cls(Request(key, _NO_PROMPT, _NO_SAMPLING), None, branch)
        line.failed = (Attempt(key, failure, NOTHING),)
        return line

    def sent(self, ask: Ask | Failure) -> Accepted | Failure | None:
        """What the program is sent, once the line is at its end."""
        if self.accepted is None and isinstance(ask, Ask) and ask.tells:
            return self.failed[-1].failure
        return self.accepted

    def release(self) -> None:
        """Let go of what was only needed to try again: a row that goes on may have thousands of long prompts behind it."""
        self.request, self.check, self.origin = _ANSWERED, None, None

    def take(self, outcome: Outcome, rules: Rules, row: Row) -> Request | None:
        """Judge the outcome; returns the next attempt, or None when the line is at its end, well or not."""
        request = self.request
        if isinstance(outcome, Refusal) and outcome.failure.kind is FailureKind.TOO_LONG:
            if self.failed:
                return None  # there is no room to try again, as with the answer shown to the model: what came of it so far stands
            if rules.shorten is not None and self.shortened is None:
                made = rules.shorten(request, outcome.failure, self.origin, self.check)
                if isinstance(made, Shortened):
                    self.request, self.check, self.shortened = made
                    return made.request
                if made is not None:
                    outcome = Refusal(outcome.key, made)
        self.answered += 1
        completion: Completion | None = None
        if isinstance(outcome, Completion):
            if request.partial:
                outcome = self._with_all_logprobs(outcome)
            completion = self.completion = outcome
            prefill = request.prompt.prefill
            text = self.text = prefill + outcome.text if prefill else outcome.text
            self._count(outcome.usage)
            if request.target is not None:
                value, failure = _scored(outcome)
            elif request.pooling is not None:
                self.text = None
                value, failure = _numbers(outcome)
            elif outcome.tool_calls is not None:  # which are no text to be checked, and may be all of the answer
                value, failure = text or None, None
            else:
                value, failure = _verdict(self.check or rules.check, text, outcome, request, row)
            if failure is None:
                self.accepted = Accepted(value, outcome)
                return None
            attempt = Attempt(request.key, failure, outcome.usage, self.text, outcome.finish_reason)
        else:
            failure = outcome.failure
            attempt = Attempt(request.key, failure, NOTHING)
            if not request.partial:
                self.kept = NOTHING
        following = rules.next_request(request, failure, completion, [each.failure.kind for each in self.failed])
        self.failed = (*self.failed, attempt)
        if following is not None:
            self.request = following
        return following

    def _with_all_logprobs(self, outcome: Completion) -> Completion:
        """The engine gives those of the new tokens; where it went on from a partial answer, that one's come before them."""
        before = self.completion
        if before is None or before.logprobs is None:
            return outcome
        return replace(outcome, logprobs=[*before.logprobs, *(outcome.logprobs or ())])

    def _count(self, usage: Usage) -> None:
        self.usage = self.usage + usage if self.answered > 1 else usage
        if self.request.partial:
            kept = self.kept
            self.kept = Usage(kept.prompt_tokens, kept.completion_tokens + usage.completion_tokens, kept.cached_tokens)
        else:
            self.kept = usage


def _scored(outcome: Completion) -> Verdict:
    if outcome.score is None:
        return Verdict(None, Failure(FailureKind.ENGINE, "the engine gave no likelihood of the continuation"))
    return Verdict(outcome.score, None)


def _numbers(outcome: Completion) -> Verdict:
    if not outcome.numbers:
        return Verdict(None, Failure(FailureKind.ENGINE, "the engine gave no numbers"))
    failure = not_finite(outcome.numbers)
    return Verdict(outcome.numbers if failure is None else None, failure)


def _verdict(check: Check, text: str, completion: Completion, request: Request, row: Row) -> Verdict:
    finish_reason = completion.finish_reason
    if finish_reason == "stop":
        return check(text, row.data)
    if finish_reason == "length":
        # where the end of text is ignored the budget is the length that was asked for
        return check(text, row.data, cut_off=not request.sampling.get("ignore_eos"))
    if finish_reason == "repetition":
        end = (text or completion.reasoning or "")[-_END_CHARACTERS:]
        return Verdict(
            None,
            Failure(
                FailureKind.REPETITION,
                f"the answer repeats itself, so the engine stopped it; it ends with {quote(end, 200)}",
            ),
        )
    return Verdict(
        None, Failure(FailureKind.ENGINE, f"the engine ended the request with finish_reason {finish_reason!r}")
    )


__all__ = ["NOTHING", "Line", "Retry", "Rules", "Shorten", "Shortened"]
