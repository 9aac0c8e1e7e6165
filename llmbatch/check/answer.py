"""An answer's text in, the verdict out: cut off, blank, the kind's judgement, then the author's reject rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmbatch.check.reject import Rule
from llmbatch.check.verdict import MESSAGE_LIMIT, Kind, Verdict, clip
from llmbatch.core.types import Constraint, Failure, FailureKind

_NO_ROW: Mapping[str, Any] = {}
_EMPTY = Failure(FailureKind.EMPTY, "the answer is empty")


class AnswerCheck:
    """The one ``Check`` there is: a kind of output and what holds for every kind."""

    __slots__ = ("_allow_empty", "_judge", "_rules", "constraint")

    def __init__(
        self, kind: Kind, *, constrained: bool = True, allow_empty: bool = False, rules: tuple[Rule, ...] = ()
    ) -> None:
        self.constraint: Constraint | None = kind.constraint if constrained else None
        self._judge = kind.judge
        self._allow_empty = allow_empty
        self._rules = rules

    def __call__(self, text: str, row: Mapping[str, Any] | None = None, *, cut_off: bool = False) -> Verdict:
        if not cut_off and not self._allow_empty and (not text or text.isspace()):
            return Verdict(None, _EMPTY)
        value, failure, complete = self._judge(text)
        if cut_off and (failure is not None or not complete):
            return Verdict(None, Failure(FailureKind.TRUNCATED, f"the answer was cut off after {len(text)} characters"))
        if failure is not None:
            return Verdict(None, failure)
        for rule in self._rules:
            reason = rule(text, value, _NO_ROW if row is None else row)
            if reason is not None:
                return Verdict(None, Failure(FailureKind.REJECTED, clip(reason, MESSAGE_LIMIT)))
        return Verdict(value, None)
