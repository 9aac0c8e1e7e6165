"""Slices of an input: each row is in one of them, neighbours stay together, no slice has much more than another."""

from __future__ import annotations

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch.sources.base import SourceSettings
from llmbatch.sources.shard import Shard, Slice


def owner(index: int, slices: int) -> list[int]:
    return [number for number in range(1, slices + 1) if index in Slice(Shard(number, slices))]


@given(st.integers(1, 300), st.integers(0, 3_000_000))
def test_every_row_is_in_one_slice(slices: int, index: int) -> None:
    assert len(owner(index, slices)) == 1


@given(st.integers(1, 9), st.lists(st.integers(0, 200_000), max_size=20))
def test_it_does_not_matter_in_which_order_rows_are_looked_at(slices: int, indexes: list[int]) -> None:
    one = Slice(Shard(1, slices))
    assert [index in one for index in indexes] == [owner(index, slices) == [1] for index in indexes]


@pytest.mark.parametrize("slices", [2, 3, 8])
@pytest.mark.parametrize("rows", [20_000, 100_000, 400_000])
def test_no_slice_has_much_more_than_another(slices: int, rows: int) -> None:
    counts = [
        sum(index in part for index in range(rows)) for part in (Slice(Shard(n + 1, slices)) for n in range(slices))
    ]
    assert sum(counts) == rows
    assert max(counts) - min(counts) <= max(256, max(counts) // 16 + 1)


def test_neighbours_stay_together_in_blocks_that_grow_up_to_a_window() -> None:
    part = Slice(Shard(2, 4))
    blocks = [sum(1 for _ in run) for ours, run in groupby(range(3_000_000), part.__contains__) if ours]
    assert blocks[0] == 256
    assert blocks[:-1] == sorted(blocks[:-1])
    assert max(blocks) == 16_384


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "x/4", "1", "1/2/3", "-1/4", "1.5/4", ""])
def test_what_is_no_slice_is_refused_with_how_one_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=r"is i/n, such as 2/8 for the second of eight slices"):
        SourceSettings(path="a.jsonl", shard=text)


def test_a_slice_that_is_counted_from_0_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match=r"slices count from 1, as in sbatch --array=1-N"):
        Shard.named("0/4")


def test_a_slice_is_written_in_one_way() -> None:
    assert SourceSettings(path="a.jsonl", shard=" 02 / 8").shard == "2/8"
