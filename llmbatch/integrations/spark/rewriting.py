"""A SQL statement with ``ai_query`` and its like in, as Databricks has them; one that open-source Spark runs out, and what it asks.

Only the calls are rewritten, the rest of the text stays as it is. Each call becomes one of a function of its own, which has the
call's literal arguments in it, so that Spark moves nothing but the requests, and a type of its own by what is put around it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from llmbatch.core.errors import JobError
from llmbatch.core.imports import extra
from llmbatch.core.words import one_line
from llmbatch.integrations.spark import FUNCTIONS
from llmbatch.integrations.spark.ai_query import SchemaText
from llmbatch.integrations.spark.base import Call, Endpoints, SqlFunction, function_of, plain_number
from llmbatch.integrations.spark.ddl import type_of

PREFIX = "llmbatch_"
_X = "llmbatch_x"  # the variable of a lambda
_DIALECT = "databricks"


class Rewritten(NamedTuple):
    """The text, and the calls in it by the names of the functions that it has them as."""

    text: str
    calls: Mapping[str, Call]


def rewritten(text: str, endpoints: Endpoints) -> Rewritten:
    """The statement as Spark runs it. Raises ``UsageError`` for a call that is wrong, by its argument's name."""
    sqlglot = extra("sqlglot", "spark", "reading SQL")
    if not any(name in text.lower() for name in FUNCTIONS):
        return Rewritten(text, {})
    try:
        tokens = sqlglot.tokenize(text, read=_DIALECT)
    except sqlglot.errors.SqlglotError:
        return Rewritten(text, {})  # Spark says what is wrong with it
    statement = _Statement(text, tokens, sqlglot, endpoints)
    return Rewritten(statement.written(0, len(tokens), 0, len(text)), statement.calls)


class _Statement:
    """One statement, as tokens."""

    def __init__(self, text: str, tokens: list[Any], sqlglot: Any, endpoints: Endpoints) -> None:
        self.calls: dict[str, Call] = {}
        self._text = text
        self._tokens = tokens
        self._kinds = [token.token_type for token in tokens]
        self._sqlglot = sqlglot
        self._type = sqlglot.TokenType
        self._endpoints = endpoints
        self._items = set(self._select_items())

    def written(self, first: int, end: int, start: int, stop: int) -> str:
        """The text from ``start`` to ``stop``, which holds the tokens from ``first`` to ``end``, its calls rewritten."""
        parts: list[str] = []
        number = first
        while number < end:
            if not self._is_call(number, end):
                number += 1
                continue
            closing = self._closing(number + 1)
            token, last = self._tokens[number], self._tokens[closing]
            parts += [self._text[start : token.start], self._call(number, closing)]
            start, number = last.end + 1, closing + 1
        return "".join((*parts, self._text[start:stop]))

    def _is_call(self, number: int, end: int) -> bool:
        kinds, types = self._kinds, self._type
        if number + 1 >= end or kinds[number] is not types.VAR or kinds[number + 1] is not types.L_PAREN:
            return False
        before = kinds[number - 1] if number else None
        return self._tokens[number].text.lower() in FUNCTIONS and before not in (types.DOT, types.FUNCTION)

    def _closing(self, opening: int) -> int:
        depth = 0
        for number in range(opening, len(self._tokens)):
            depth += (self._kinds[number] is self._type.L_PAREN) - (self._kinds[number] is self._type.R_PAREN)
            if not depth:
                return number
        raise JobError(f"{self._tokens[opening - 1].text}: its parenthesis is not closed")

    def _call(self, number: int, closing: int) -> str:
        """One call as Spark runs it, with the name that its column has, where it is one."""
        function = function_of(self._tokens[number].text.lower())
        positional: list[str] = []
        named: dict[str, str] = {}
        for first, end in self._arguments(number + 2, closing):
            if end - first > 1 and self._kinds[first + 1] is self._type.FARROW:
                name = self._tokens[first].text
                if name in named:
                    raise JobError(f"{function.name}: {name} is given twice")
                named[name] = self._argument(first + 2, end, function, name)
            elif named:
                raise JobError(f"{function.name}: an argument without a name comes after one with a name")
            else:
                position = len(positional)
                known = function.parameters[position].name if position < len(function.parameters) else ""
                positional.append(self._argument(first, end, function, known))
        given = function.bound(positional, named)
        request = given.pop(function.row.name)
        values = {key: self._value(value, function, key) for key, value in given.items()}
        call = function.call(self._endpoints, function.with_defaults(values))
        name = f"{PREFIX}{function.name}_{call.digest}"
        self.calls[name] = call
        return _expression(f"{name}({request})", call) + self._alias(number, closing)

    def _arguments(self, first: int, closing: int) -> Iterator[tuple[int, int]]:
        """Where the tokens of each argument are."""
        types = self._type
        opens, closes = (types.L_PAREN, types.L_BRACKET, types.L_BRACE), (types.R_PAREN, types.R_BRACKET, types.R_BRACE)
        depth, begin = 0, first
        for number in range(first, closing):
            kind = self._kinds[number]
            depth += (kind in opens) - (kind in closes)
            if kind is types.COMMA and not depth:
                yield begin, number
                begin = number + 1
        if begin < closing:
            yield begin, closing

    def _argument(self, first: int, end: int, function: SqlFunction, name: str) -> str:
        """An argument's text; of the one that differs by row with the calls in it rewritten."""
        if first >= end:
            raise JobError(f"{function.name}: {name or 'an argument'} is empty")
        start, stop = self._tokens[first].start, self._tokens[end - 1].end + 1
        return self.written(first, end, start, stop) if name == function.row.name else self._text[start:stop]

    def _value(self, text: str, function: SqlFunction, name: str) -> Any:
        try:
            parsed = self._sqlglot.parse_one(text, dialect=_DIALECT)
            return plain_number(_literal(parsed, self._sqlglot.exp, text))
        except (ValueError, self._sqlglot.errors.SqlglotError):
            raise JobError(
                f"{function.name}: {name} is to be a literal, the same for every row, and is {one_line(text, 80)}"
            ) from None

    def _select_items(self) -> Iterator[int]:
        """The tokens that an item of a SELECT begins with."""
        types = self._type
        ends = (
            types.FROM, types.WHERE, types.GROUP_BY, types.ORDER_BY, types.HAVING, types.LIMIT, types.UNION, types.EXCEPT,
            types.INTERSECT,
        )  # fmt: skip
        selecting, begins = [False], False
        for number, kind in enumerate(self._kinds):
            if begins and kind not in (types.DISTINCT, types.ALL):
                yield number
                begins = False
            if kind is types.L_PAREN:
                selecting.append(False)
            elif kind is types.R_PAREN and len(selecting) > 1:
                selecting.pop()
            elif kind is types.SELECT:
                selecting[-1] = begins = True
            elif kind in ends:
                selecting[-1] = False
            elif kind is types.COMMA:
                begins = selecting[-1]

    def _alias(self, number: int, closing: int) -> str:
        """The name of a column that is a call and has none: as it was written."""
        types = self._type
        after = self._kinds[closing + 1] if closing + 1 < len(self._kinds) else None
        ends = (None, types.COMMA, types.FROM, types.SEMICOLON, types.R_PAREN, types.WHERE, types.UNION)
        if number not in self._items or after not in ends:
            return ""
        said = " ".join(self._text[self._tokens[number].start : self._tokens[closing].end + 1].split())
        return f" AS `{said.replace('`', '``')}`"


def _expression(asked: str, call: Call) -> str:
    """What is put around the function, so that it is of the type that the call is to have."""
    if call.fails:
        return asked if call.returns == "STRING" else _converted(asked, call.returns, "CAST")
    result, message = f"{_X}.result", f"{_X}.errorMessage"
    if call.returns != "STRING":
        result = _converted(f"{_X}.result", call.returns, "try_cast")
        message = (
            f"IF({_X}.result IS NOT NULL AND {result} IS NULL, "
            f"concat('the answer is not of the type asked for: ', {_X}.result), {_X}.errorMessage)"
        )
    answer = f"named_struct('result', {result}, 'errorMessage', {message})"
    return f"transform(array({asked}), {_X} -> IF({_X}.asked, {answer}, NULL))[0]"


def _converted(text: str, returns: str, cast: str) -> str:
    if isinstance(returns, SchemaText):
        return f"from_json({text}, {returns})"
    if type_of(returns).nested:
        return f"from_json({text}, {_quoted(returns)})"
    return f"{cast}({text} AS {returns})"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _literal(parsed: Any, exp: Any, text: str) -> Any:
    """The value of an expression. Raises ``ValueError`` for one that is not known without a row."""
    if isinstance(parsed, exp.Paren | exp.Cast):
        return _literal(parsed.this, exp, text)
    if isinstance(parsed, exp.Literal):
        if parsed.is_string:
            return parsed.this
        return int(parsed.this) if parsed.this.isdecimal() else float(parsed.this)
    if isinstance(parsed, exp.Boolean):
        return parsed.this
    if isinstance(parsed, exp.Null):
        return None
    if isinstance(parsed, exp.Neg):
        return -_literal(parsed.this, exp, text)
    if isinstance(parsed, exp.DPipe):
        return str(_literal(parsed.this, exp, text)) + str(_literal(parsed.expression, exp, text))
    if isinstance(parsed, exp.Array):
        return [_literal(each, exp, text) for each in parsed.expressions]
    if isinstance(parsed, exp.Struct):
        if not all(isinstance(each, exp.PropertyEQ) for each in parsed.expressions):
            raise ValueError(text)  # STRUCT(1, 2) names nothing
        return {each.name: _literal(each.expression, exp, text) for each in parsed.expressions}
    if parsed.name.lower() == "named_struct" and len(parsed.expressions) % 2 == 0:
        values = [_literal(each, exp, text) for each in parsed.expressions]
        return dict(zip(values[::2], values[1::2], strict=True))
    if "schema_of_json" in (parsed.name.lower(), parsed.sql_name().lower() if isinstance(parsed, exp.Func) else ""):
        return SchemaText(text)
    raise ValueError(text)


__all__ = ["PREFIX", "Rewritten", "rewritten"]
