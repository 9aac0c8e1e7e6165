"""The whole answer matches a regular expression, white space included.

The check is Python's ``re``. The engine has a dialect of its own without look-around, back-references and, in part,
word boundaries; an expression with these needs ``constrained: false``.
"""

from __future__ import annotations

import re

from llmbatch.check.verdict import Judgement, Kind, failed, quote
from llmbatch.errors import SchemaError
from llmbatch.types import Constraint, FailureKind


def make(pattern: str) -> Kind:
    """Raises ``SchemaError`` for an expression that does not compile."""
    try:
        matches = re.compile(pattern).fullmatch
    except (re.error, RecursionError, OverflowError) as error:
        raise SchemaError(f"the regular expression {quote(pattern, 200)} is not valid: {error}") from error
    wanted = quote(pattern, 200)

    def judge(text: str) -> Judgement:
        if matches(text) is not None:
            return Judgement(text)
        return failed(
            FailureKind.REGEX, f"the answer {quote(text)} as a whole does not match the regular expression {wanted}"
        )

    return Kind(Constraint("regex", pattern), judge)
