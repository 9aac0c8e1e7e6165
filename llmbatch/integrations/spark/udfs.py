"""A call, or a function of the table, in; the pandas UDF that asks it out: what of it runs in Spark's tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import GenericAlias
from typing import Any

from llmbatch.core.errors import JobError
from llmbatch.core.imports import extra
from llmbatch.core.words import short
from llmbatch.integrations.spark.base import Call, Endpoints, SqlFunction, function_of, plain_number
from llmbatch.integrations.spark.hosting import Hosting, answered
from llmbatch.integrations.spark.wire import Answer, Facts
from llmbatch.sources.rows import plain

Hear = Callable[[Facts], None]

STRUCT = "asked BOOLEAN, result STRING, errorMessage STRING"
PLAIN_STRUCT = "result STRING, errorMessage STRING"


def _pandas() -> Any:
    return extra("pandas", "spark", "a function of Spark SQL")


def _typed(function: Callable[..., Any], returns: str, arguments: Any, result: Any) -> Any:
    """As a pandas UDF, with the hints by which Spark knows its kind."""
    pandas_udf = extra("pyspark.sql.functions", "spark", "a function of Spark SQL").pandas_udf
    function.__annotations__ = {**arguments, "return": result}
    return pandas_udf(returns)(function)


def of_call(name: str, call: Call, hosting: Hosting, hear: Hear) -> Any:
    """Of the requests alone, by an iterator: the next batch is asked while the one before is answered."""
    pd = _pandas()
    series, frames = GenericAlias(Iterator, (pd.Series,)), GenericAlias(Iterator, (pd.DataFrame,))

    def ask(batches: Any) -> Any:
        for answers in answered(map(requests_of, batches), call, hosting, hear):
            if call.fails:
                yield texts(answers)
            else:
                yield frame(answers, [answer != Answer(None, None) for answer in answers])

    ask.__name__ = ask.__qualname__ = name
    returns, result = ("STRING", series) if call.fails else (STRUCT, frames)
    return _typed(ask, returns, {"batches": series}, result)


def of_function(name: str, endpoints: Endpoints, hosting: Hosting, hear: Hear, *, fails: bool = True) -> Any:
    """With all arguments as SQL gives them: what is literal comes as a column too. Each of Spark's batches is asked as one."""
    pd = _pandas()

    def ask(*positional: Any, **named: Any) -> Any:
        call, requests = bound(function_of(name), endpoints, positional, named)
        answers = (
            next(answered([requests], replace(call, fails=call.fails and fails), hosting, hear)) if requests else []
        )
        return texts(answers) if fails else frame(answers)

    ask.__name__ = ask.__qualname__ = name if fails else f"{name}_struct"
    returns, result = ("STRING", pd.Series) if fails else (PLAIN_STRUCT, pd.DataFrame)
    return _typed(ask, returns, {"positional": pd.Series, "named": pd.Series}, result)


def bound(
    function: SqlFunction, endpoints: Endpoints, positional: Sequence[Any], named: Mapping[str, Any]
) -> tuple[Call, list[Any]]:
    """What a batch of arguments asks, and its requests. Raises ``JobError`` for what is wrong with an argument."""
    given = function.bound(positional, named)
    requests = requests_of(given.pop(function.row.name))
    values = {key: _one_value(value, function.name, key) for key, value in given.items()} if requests else {}
    if requests and values.get("returnType") not in (None, "STRING"):
        raise JobError(
            f"{function.name}: returnType: a registered function has one type; run the statement by llmbatch.spark.sql, or "
            "by spark.sql after llmbatch.spark.enable(spark)"
        )
    if not requests:
        return Call({}), []
    return function.call(endpoints, function.with_defaults(values)), requests


def requests_of(column: Any) -> list[Any]:
    """A column of texts or structs, as texts or mappings; None where it is NULL. Raises ``JobError`` for one of another type."""
    if hasattr(column, "columns"):
        rows = column.to_dict("records")
        return [plain_row(row) for row in rows]
    values = [None if no else value for value, no in zip(column.tolist(), column.isna().tolist(), strict=True)]
    other = next((value for value in values if value is not None and not isinstance(value, str)), None)
    if other is not None:
        raise JobError(
            f"a request is a STRING or a STRUCT, and here one is of Python's type {type(other).__name__} ({short(other)}): "
            "CAST(... AS STRING)"
        )
    return values


def plain_row(row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """A struct as JSON has it; None for one whose fields are all NULL: pandas does not tell that from a NULL struct."""
    found = {str(key): plain(plain_number(value)) for key, value in row.items()}
    return None if all(value is None for value in found.values()) else found


def _one_value(column: Any, function: str, name: str) -> Any:
    """The value of an argument that is the same in every row."""
    if hasattr(column, "columns"):
        rows = column.to_dict("records")
        values = [{str(key): plain(plain_number(value)) for key, value in row.items()} for row in rows]
    else:
        values = [plain(plain_number(value)) for value in column.tolist()]
    if any(value != values[0] for value in values):
        raise JobError(
            f"{function}: {name} is to be a literal, the same for every row, and is {short(values[0])} in one row and something "
            "else in another"
        )
    return values[0]


def texts(answers: Sequence[Answer]) -> Any:
    """Answers as a column of texts."""
    return _pandas().Series([answer.text for answer in answers], dtype=object)


def frame(answers: Sequence[Answer], asked: Sequence[bool] | None = None) -> Any:
    """Answers as a column of structs, with ``asked`` where that is told."""
    columns: dict[str, Any] = {} if asked is None else {"asked": list(asked)}
    pd = _pandas()
    columns["result"] = pd.Series([answer.text for answer in answers], dtype=object)
    columns["errorMessage"] = pd.Series([answer.error for answer in answers], dtype=object)
    return pd.DataFrame(columns)


__all__ = ["bound", "frame", "of_call", "of_function", "requests_of", "texts"]
