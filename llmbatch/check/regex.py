"""The whole answer matches a regular expression, white space included.

The check is Python's ``re``. The engine has a dialect of its own without look-around, back-references and, in part,
word boundaries; an expression with these needs ``constrained: false``.

An expression that a row brings is matched in linear time instead, by Rust's ``regex`` within jsonschema-rs and with its limit
of size: with ``re`` an expression such as ``(a+)+b`` takes for ever on an answer that was cut off, and nothing can stop it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import jsonschema_rs

from llmbatch.check.base import Kind, OutputSettings, Reading, failed
from llmbatch.core.errors import SchemaError
from llmbatch.core.types import Constraint, FailureKind
from llmbatch.core.words import quote


def make(settings: OutputSettings) -> Kind:
    """Raises ``SchemaError`` for an expression that does not compile."""
    pattern = settings.regex or ""
    try:
        matches = re.compile(pattern).fullmatch
    except (re.error, RecursionError, OverflowError) as error:
        raise SchemaError(f"the regular expression {quote(pattern, 200)} is not valid: {error}") from error
    return _kind(pattern, lambda text: matches(text) is not None)


def make_linear(settings: OutputSettings) -> Kind:
    """For an expression from a row. Raises ``SchemaError`` for one that cannot be matched in linear time, or is too large."""
    pattern = settings.regex or ""
    options = jsonschema_rs.RegexOptions()
    try:
        # alone first: "a)(b" is valid only within a group
        jsonschema_rs.validator_for({"pattern": pattern}, pattern_options=options)
        matches = jsonschema_rs.validator_for({"pattern": f"^(?:{pattern})$"}, pattern_options=options).is_valid
    except (jsonschema_rs.ValidationError, ValueError) as error:
        raise SchemaError(
            f"the regular expression {quote(pattern, 200)} is not valid, too large, or has look-around or back-references"
        ) from error
    return _kind(pattern, matches)


def _kind(pattern: str, matches: Callable[[str], bool]) -> Kind:
    wanted = quote(pattern, 200)

    def read(text: str) -> Reading:
        if matches(text):
            return Reading(text)
        return failed(
            FailureKind.REGEX, f"the answer {quote(text)} as a whole does not match the regular expression {wanted}"
        )

    return Kind(Constraint("regex", pattern), read)
