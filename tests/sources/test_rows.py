from __future__ import annotations

import datetime
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbatch.sources.rows import plain


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"a": object()}, "a value of type builtins.object"),
        ({"a": "\ud83d"}, "half of a surrogate pair"),
        ({("a", 1): 1}, "a key of type tuple"),
    ],
)
def test_a_value_that_json_cannot_hold_is_named(item: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        plain(item)


def test_a_value_that_holds_itself_is_refused() -> None:
    knot: dict[str, Any] = {}
    knot["self"] = knot
    with pytest.raises(ValueError, match="nested more than 200 deep"):
        plain(knot)


def test_values_of_numpy_and_dates_become_json_values() -> None:
    item = {
        "f": np.float64(1.5),
        "i": np.int32(2),
        "a": np.array([[1, 2]]),
        "s": np.str_("x"),
        "t": datetime.time(1, 2),
        3: 4,
    }
    made = plain(item)
    assert made == {"f": 1.5, "i": 2, "a": [[1, 2]], "s": "x", "t": "01:02:00", "3": 4}
    assert json.loads(json.dumps(made)) == made


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(), v, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(), json_values, max_size=3))
def test_whatever_is_plain_can_be_written_as_strict_json(item: dict[str, Any]) -> None:
    made = plain(item)
    assert json.loads(json.dumps(made, allow_nan=False, ensure_ascii=False).encode()) == made
