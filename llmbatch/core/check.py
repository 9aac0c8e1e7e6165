"""The contract of a check: the text of an answer in, its value or a failure with its kind out. Nothing is ever repaired."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from llmbatch.core.types import Constraint, Failure

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
