from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llmbatch.core.merge import merged

leaves = st.integers() | st.text(max_size=3) | st.none()
keys = st.sampled_from(["a", "b", "c"])
settings = st.dictionaries(
    keys, st.recursive(leaves, lambda inner: st.dictionaries(keys, inner, max_size=3), max_leaves=6)
)


@given(settings, settings)
def test_merging_changes_neither_side_and_the_later_one_wins(base: dict[str, Any], over: dict[str, Any]) -> None:
    before = repr((base, over))
    both = merged(base, over)
    assert repr((base, over)) == before
    assert merged(both, over) == both
    assert both.keys() == base.keys() | over.keys()


@given(settings)
def test_merging_with_nothing_changes_nothing(data: dict[str, Any]) -> None:
    assert merged(data, {}) == data
    assert merged({}, data) == data
