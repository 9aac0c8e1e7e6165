"""What a check says of an answer, and the contract of a kind of output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from llmbatch.core.types import Constraint, Failure, FailureKind

MESSAGE_LIMIT = 500
"""Characters of a failure's message: it is fed back to the model and stored with every attempt."""


class Verdict(NamedTuple):
    """``value`` is the checked output where ``failure`` is None, else None."""

    value: Any
    failure: Failure | None


class Check(Protocol):
    """What an answer must be. It may be called from several threads."""

    constraint: Constraint | None
    """What the engine holds the answer to; None for free text, and where constrained decoding is off."""

    def __call__(self, text: str, row: Mapping[str, Any] | None = None, *, cut_off: bool = False) -> Verdict:
        """Judge one whole answer, prefill included. ``row`` is the input's data, for predicates that look at it.

        ``cut_off`` says that the answer ended at a limit on its length. It then passes only if it is complete all the
        same: JSON whose last bracket is closed, a choice that no other one begins with. Otherwise it is ``TRUNCATED``.
        Raises ``RunError`` where the author's own code (a predicate, a model's validator) fails.
        """


class Judgement(NamedTuple):
    """A kind's word on an answer. ``complete``: nothing that would have followed could have belonged to it."""

    value: Any
    failure: Failure | None = None
    complete: bool = False


class Kind(NamedTuple):
    """One kind of output, ready for use: what the engine gets, and what judges the text."""

    constraint: Constraint | None
    judge: Callable[[str], Judgement]


def failed(kind: FailureKind, message: str) -> Judgement:
    """A judgement that sends the answer back; the message is bounded."""
    return Judgement(None, Failure(kind, clip(message, MESSAGE_LIMIT)))


def clip(text: str, limit: int) -> str:
    """The text, or its start and an ellipsis, in at most ``limit`` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def quote(text: str, limit: int = 60) -> str:
    """The text's start in quotes, on one line, for a message."""
    return repr(clip(text, limit))
