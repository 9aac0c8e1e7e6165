"""Rules of the job's author that send back an answer which is otherwise right.

A rule is a pattern between slashes, ``/as an ai/``, that sends back every answer in which it is found, or the import
path of a predicate ``package.module:name``. A predicate gets the checked value and, if it takes two arguments, the
row's data; it sends the answer back by returning a true value, which is the reason where it is text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from llmbatch.check.rule import Answer, Judge, Rule
from llmbatch.core.errors import JobError, RunError
from llmbatch.core.imports import is_import_path, load_object, wants_row
from llmbatch.core.types import FailureKind
from llmbatch.core.words import clip, quote


def make(rules: Sequence[str]) -> Rule:
    """The rules ready for use. Raises ``JobError`` for one that is neither a pattern nor a usable predicate."""
    judges = tuple(_pattern(rule) if rule.startswith("/") else _predicate(rule) for rule in rules)

    def judge(answer: Answer) -> str | None:
        return next((said for each in judges if (said := each(answer)) is not None), None)

    return Rule(FailureKind.REJECTED, judge)


def _pattern(rule: str) -> Judge:
    if len(rule) < 3 or not rule.endswith("/"):
        raise JobError(f"the reject rule {rule!r} is not a pattern between slashes, such as '/(?i)as an ai/'")
    try:
        find = re.compile(rule[1:-1]).search
    except (re.error, RecursionError, OverflowError) as error:
        raise JobError(f"the reject rule {rule!r} is not a valid regular expression: {error}") from error

    def judge(answer: Answer) -> str | None:
        found = find(answer.text)
        return (
            None
            if found is None
            else f"the answer contains {quote(found.group())}, which the rule {clip(rule, 200)} refuses"
        )

    return judge


def _predicate(rule: str) -> Judge:
    if not is_import_path(rule):
        raise JobError(
            f"the reject rule {rule!r} is neither a /pattern/ nor the import path of a predicate, package.module:name"
        )
    predicate = load_object(rule)
    if not callable(predicate):
        raise JobError(f"the reject rule {rule} is not a function but {quote(repr(predicate), 80)}")
    with_row = wants_row(predicate, f"the reject rule {rule}")

    def judge(answer: Answer) -> str | None:
        value = answer.value
        try:
            said = predicate(value, answer.row) if with_row else predicate(value)
            refused = bool(said)
        except Exception as error:
            # Not a failure of the row: every row may be judged wrongly, and the author would not be told.
            raise RunError(
                f"the reject rule {rule} raised {type(error).__name__}: {error}, on the answer"
                f" {quote(repr(value), 200)}; correct it and run the same command again to go on"
            ) from error
        if not refused:
            return None
        return said if isinstance(said, str) else f"the rule {rule} refuses the answer"

    return judge
