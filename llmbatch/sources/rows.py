"""One row's fields in; a ``Row`` with its id out, or a malformed one. What every format shares about a single row."""

from __future__ import annotations

import base64
import datetime
import decimal
import enum
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmbatch.core.errors import SourceError
from llmbatch.core.types import Cursor, Failure, FailureKind, Row, RowId
from llmbatch.core.words import excerpt, is_encodable

MAX_DEPTH = 200  # of nesting; well below Python's recursion limit, so that whatever is read can be written again
_EMPTY: Mapping[str, Any] = {}


def make_row(
    data: Mapping[str, Any],
    cursor: Cursor,
    id_field: str | None,
    locate: Callable[[Cursor], str],
    *,
    optional: bool = False,
) -> Row:
    """A row whose id is a text or whole number in ``id_field``.

    Without an ``id_field`` it is the field ``id`` where that can be one, else the index. A row that lacks a field that
    was asked for by name is malformed: results under an id that nobody expects are lost ones. With ``optional`` it is called by
    its index, as the field is one that rows of its kind need not have.
    """
    value = data.get(id_field or "id")
    kind = type(value)
    if kind is str or kind is int:
        row_id: RowId = value  # type: ignore[assignment]
    elif id_field is None or (optional and id_field not in data):
        row_id = cursor.index
    else:
        seen = f"it is {excerpt(repr(value))}" if id_field in data else f"the row has {_names(data)}"
        return malformed_row(
            cursor,
            f"{locate(cursor)}: no usable id in the field {id_field!r}: {seen}; "
            "an id is a text or a whole number: give every row one, or leave input.id_field out",
        )
    return Row(cursor.index, row_id, data, cursor)


def malformed_row(cursor: Cursor, message: str) -> Row:
    """A row that could not be read; its id is its index."""
    return Row(cursor.index, cursor.index, _EMPTY, cursor, Failure(FailureKind.MALFORMED_ROW, message))


def _names(data: Mapping[str, Any]) -> str:
    return excerpt(", ".join(map(str, data))) if data else "no fields"


def choose_columns(name: str, known: Sequence[str], columns: Sequence[str] | None, id_field: str | None) -> list[str]:
    """The columns of a table that are read: all, or those of ``columns`` with the one that names the row.

    Raises ``SourceError`` for one that is missing.
    """
    for wanted in (*(columns or ()), *([id_field] if id_field else [])):
        if wanted not in known:
            raise SourceError(f"{name}: there is no column {wanted!r}; the columns are {', '.join(known)}")
    return [column for column in known if columns is None or column in {*columns, id_field or "id"}]


def depth(value: Any) -> int:
    """How deep objects and lists are nested in a JSON value; counts without recursion."""
    deepest, level = 0, [value]
    while level := [v for v in level if isinstance(v, dict | list)]:
        deepest += 1
        level = [inner for v in level for inner in (v.values() if isinstance(v, dict) else v)]
    return deepest


def plain(value: Any, level: int = 0) -> Any:
    """The value as JSON can hold it.

    Dates and times become ISO 8601, durations seconds, decimals and UUIDs text, bytes their UTF-8 text or else base64,
    NaN and infinities null, tuples and arrays lists. Raises ``ValueError`` for anything else, for text with half of a
    surrogate pair and for nesting beyond ``MAX_DEPTH``.
    """
    kind = type(value)
    if value is None or kind is int or kind is bool:
        return value
    if kind is str:
        if not is_encodable(value):
            raise ValueError(f"text with half of a surrogate pair: {excerpt(ascii(value))}")
        return value
    if kind is float:
        return value if math.isfinite(value) else None
    if level > MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    if isinstance(value, Mapping):
        return {_key(k): plain(v, level + 1) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v, level + 1) for v in value]
    return _plain_scalar(value, level)


def _plain_scalar(value: Any, level: int) -> Any:
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat() if value == value else None  # pandas' NaT is a datetime that is not equal to itself
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, decimal.Decimal | uuid.UUID):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    if isinstance(value, enum.Enum):
        return plain(value.value, level + 1)
    for base in (str, bool, int, float):  # subclasses, such as NumPy's float64
        if isinstance(value, base):
            return plain(base(value), level + 1)
    if hasattr(value, "tolist") and hasattr(value, "dtype"):  # NumPy's scalars and arrays, torch's tensors
        return plain(value.tolist(), level + 1)
    raise ValueError(f"a value of type {type(value).__module__}.{type(value).__qualname__}, which JSON cannot hold")


def _key(key: Any) -> str:
    if isinstance(key, str):
        return str(plain(str(key)))
    if key is None or isinstance(key, int | float):
        return str(key)
    raise ValueError(f"a key of type {type(key).__qualname__}; keys are text")
