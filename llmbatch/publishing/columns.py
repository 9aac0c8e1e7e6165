"""Rows of a dataset in, some at a time; the types of their columns, the same for all, out.

A column whose values are of no one type (text here, an object there), or of one that Parquet or Arrow does not hold (an object
without fields, a whole number beyond 64 bits), has them as JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

_MOST_FIELDS = 200  # of an object; with more its keys are data and no names of fields


class Columns:
    """The columns of a dataset, as far as its rows were ``seen``."""

    def __init__(self) -> None:
        self._types: dict[str, Any] = {}
        self._as_json: set[str] = set()

    def see(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take note of the types in these rows."""
        import pyarrow as pa

        for name in dict.fromkeys(name for row in rows for name in row):
            before = self._types.setdefault(name, pa.null())
            if name in self._as_json:
                continue
            try:
                here = pa.array([row.get(name) for row in rows]).type
                fields = [pa.schema([("", kind)]) for kind in (before, here)]
                self._types[name] = pa.unify_schemas(fields, promote_options="permissive").field(0).type
            except (pa.ArrowException, OverflowError, ValueError, TypeError):
                self._as_json.add(name)

    def schema(self) -> pa.Schema:
        """The columns with their types, those in JSON text included."""
        import pyarrow as pa

        self._as_json |= {name for name, kind in self._types.items() if not _is_held(kind)}
        return pa.schema(
            (name, pa.string() if name in self._as_json else _without_null(kind)) for name, kind in self._types.items()
        )

    def written(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The row as it is written under that schema."""
        return {name: _json(value) if name in self._as_json else value for name, value in row.items()}


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)


def _is_held(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return 0 < kind.num_fields <= _MOST_FIELDS and all(_is_held(kind.field(n).type) for n in range(kind.num_fields))
    return _is_held(kind.value_type) if pa.types.is_list(kind) else True


def _without_null(kind: Any) -> Any:
    """The type with text in place of what no row had a value for."""
    import pyarrow as pa

    if pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_struct(kind):
        return pa.struct([(kind.field(n).name, _without_null(kind.field(n).type)) for n in range(kind.num_fields)])
    return pa.list_(_without_null(kind.value_type)) if pa.types.is_list(kind) else kind
