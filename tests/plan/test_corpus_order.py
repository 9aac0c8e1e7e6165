from __future__ import annotations

import string
from array import array
from collections.abc import Callable, Sequence
from itertools import count, groupby, pairwise
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmbatch.core.types import Prompt
from llmbatch.job.job import DEMO_MODEL
from llmbatch.model.tokenizer import ChatSettings, Tokenizer, load_tokenizer
from llmbatch.plan.corpus_order import DEPTHS, NO_PROMPT, Gain, Key, foreseen, key_of, said
from llmbatch.plan.prefix import build_tree
from llmbatch.plan.simulate import Cache, simulate
from llmbatch.plan.sorting import COLUMNS, Sorting, sort

BLOCK = 16
Order = Callable[[Sequence[Key]], list[int]]
_numbers = count()


@pytest.fixture
def ordered(tmp_path: Path) -> Order:
    """The order of rows with these keys, in two files."""

    def ordered(keys: Sequence[Key]) -> list[int]:
        folder = tmp_path / str(next(_numbers))
        folder.mkdir()
        for name, rows in (("keys-0", range(0, len(keys), 2)), ("keys-1", range(1, len(keys), 2))):
            columns: dict[str, list[object]] = {column: list(rows) for column in COLUMNS}
            columns |= {"start": [keys[i].start for i in rows], "whole": [keys[i].whole for i in rows]}
            columns["work"] = [keys[i].work for i in rows]
            types = [pa.int64()] * len(COLUMNS) + [pa.binary(), pa.int64(), pa.int64()]
            arrays = {name: pa.array(c, t) for (name, c), t in zip(columns.items(), types, strict=True)}
            pq.write_table(pa.table(arrays), folder / f"{name}.parquet")
        sort(Sorting(str(folder / "keys-*.parquet"), str(folder / "places"), str(folder), threads=1))
        return list(array("q", (folder / "places").read_bytes()))[:: len(COLUMNS)]

    return ordered


def words(random: Random, size: int) -> str:
    text = ""
    while len(text) < size:
        text += "".join(random.choices(string.ascii_lowercase, k=random.randint(2, 9))) + " "
    return text[:size]


def corpus(groups: int, rows: int, size: int = 600, seed: int = 1, common: str = "") -> list[str]:
    """Shuffled texts of which so many ``rows`` each begin with a text of their group's own."""
    random = Random(seed)
    starts = [common + words(random, random.randint(size // 2, size)) for _ in range(groups)]
    texts = [start + words(random, random.randint(40, 120)) for start in starts for _ in range(rows)]
    random.shuffle(texts)
    return texts


def keys_of(texts: Sequence[str]) -> list[Key]:
    return [key_of(text.encode()) for text in texts]


@given(st.binary(max_size=3000), st.binary(max_size=3000), st.binary(max_size=3000))
def test_keys_are_alike_as_far_as_their_texts_are(common: bytes, one: bytes, other: bytes) -> None:
    shared = next((i for i, (a, b) in enumerate(zip(common + one, common + other, strict=False)) if a != b), None)
    first, second = key_of(common + one).start, key_of(common + other).start
    if shared is None:
        shared = min(len(common + one), len(common + other))
    depth = 4 * (1 + sum(each <= shared for each in DEPTHS))
    assert first[:depth] == second[:depth]
    assert len(first) == len(second) == depth or first[: depth + 4] != second[: depth + 4]


def test_each_depth_is_at_most_a_quarter_and_a_byte_deeper_than_the_one_before() -> None:
    assert DEPTHS[0] == 4 * BLOCK
    assert all(before < after <= before * 1.25 + 1 for before, after in pairwise(DEPTHS))


def test_prompts_of_different_adapters_share_nothing() -> None:
    plain, one, other = key_of(b"x" * 999), key_of(b"x" * 999, "one"), key_of(b"x" * 999, "other")
    assert len({key.start[:4] for key in (plain, one, other)}) == len({key.whole for key in (plain, one, other)}) == 3


def test_what_two_chats_say_first_is_what_their_bytes_share() -> None:
    system = {"role": "system", "content": "s" * 100}
    first, second = (said(Prompt((system, {"role": "user", "content": text}))) for text in ("one", "other"))
    assert first != second
    assert first[:110] == second[:110]
    assert said(Prompt(text="a", pair="b")) != said(Prompt(text="ab"))
    assert said(Prompt(ids=(1, 2))) == array("I", [1, 2]).tobytes()


@given(st.lists(st.tuples(st.sampled_from(["", "a" * 70, "b" * 70, "b" * 300]), st.integers(0, 3)), max_size=40))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_row_comes_once(ordered: Order, rows: list[tuple[str, int]]) -> None:
    keys = [key_of((text * number).encode()) if text else NO_PROMPT for text, number in rows]
    assert sorted(ordered(keys)) == list(range(len(keys)))


def test_rows_that_begin_alike_stand_together_and_duplicates_next_to_each_other(ordered: Order) -> None:
    texts = corpus(groups=40, rows=6)
    texts += texts[::7]
    order = ordered(keys_of(texts))
    groups = [group for group, _ in groupby(order, key=lambda row: texts[row][:250])]
    assert len(groups) == len(set(groups)) == 40
    wholes = [whole for whole, _ in groupby(order, key=lambda row: texts[row])]
    assert len(wholes) == len(set(wholes)) == 240


def test_groups_within_groups_stand_together(ordered: Order) -> None:
    random = Random(2)
    outer = [words(random, 400) for _ in range(5)]
    texts = [
        text + inner + words(random, 50)
        for text in outer
        for inner in (words(random, 300) for _ in range(6))
        for _ in range(4)
    ]
    random.shuffle(texts)
    order = ordered(keys_of(texts))
    assert len(list(groupby(order, key=lambda row: texts[row][:300]))) == 5
    assert len(list(groupby(order, key=lambda row: texts[row][:640]))) == 30


def test_the_group_with_the_longest_work_goes_first(ordered: Order) -> None:
    texts = corpus(groups=30, rows=4, common="The same for all. " * 10)
    keys = [key_of(text.encode(), most=1000 if text == texts[17] else 0) for text in texts]
    order = ordered(keys)
    group_of = {row: next(j for j, other in enumerate(texts) if other[:420] == texts[row][:420]) for row in order}
    longest = [max(keys[row].work for row in rows) for _, rows in groupby(order, key=group_of.__getitem__)]
    assert group_of[order[0]] == group_of[17]
    assert longest == sorted(longest, reverse=True)


def test_the_order_is_the_same_every_time(ordered: Order) -> None:
    keys = keys_of(corpus(groups=20, rows=3))
    assert ordered(keys) == ordered(keys)


# what it is worth


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(str(DEMO_MODEL), ChatSettings())


@pytest.mark.parametrize("common", ["", "You answer questions about a text, in one sentence and in its language. " * 5])
def test_by_what_texts_begin_with_a_cache_spares_what_it_spares_by_the_tree_of_blocks(
    ordered: Order, tokenizer: Tokenizer, common: str
) -> None:
    """The keys know nothing of tokens. Held against the best order of tokens: one tree over the blocks of all prompts."""
    texts = corpus(groups=150, rows=8, common=common)
    tokens = [array("I", ids) for ids in tokenizer.encode([Prompt(text=text) for text in texts])]
    tree = build_tree([each.tobytes() for each in tokens], [None] * len(tokens), BLOCK)
    lengths = [len(each) for each in tokens]
    cache = Cache(blocks=24 * max(lengths) // BLOCK, block_size=BLOCK, slots=8, budget=2048)
    hits = {
        name: simulate(order, tree, lengths, [8] * len(texts), cache).hit_tokens
        for name, order in {
            "input": list(range(len(texts))),
            "blocks": tree.order(range(len(texts))),
            "texts": ordered(keys_of(texts)),
        }.items()
    }
    assert hits["input"] < 0.7 * hits["blocks"]
    assert hits["texts"] >= 0.98 * hits["blocks"]


def possible(texts: Sequence[str]) -> float:
    """The share of the text that comes again at the start of another."""
    tree = build_tree([array("I", list(text.encode())).tobytes() for text in texts], [None] * len(texts), 1)
    return tree.spared_blocks / sum(map(len, texts))


def seen(texts: Sequence[str], window: int, stretches: int = 1) -> Gain:
    """What is foreseen from a window of the texts: its first ones, or stretches from all over."""
    each = window // stretches
    starts = [len(texts) * number // stretches for number in range(stretches)]
    return foreseen([keys_of(texts[start : start + each]) for start in starts], len(texts), window)


@pytest.mark.parametrize("stretches", [1, 8])
def test_what_an_order_saves_is_foreseen_from_a_window_of_a_shuffled_corpus(stretches: int) -> None:
    texts = corpus(groups=2500, rows=8, size=400)
    gain = seen(texts, 2000, stretches)
    assert gain.corpus == pytest.approx(possible(texts), abs=0.1)
    assert gain.windows == pytest.approx(possible(texts[:2000]), abs=0.1)
    assert gain.saving > 0.5


@pytest.mark.parametrize("stretches", [1, 8])
def test_where_rows_stand_together_already_nothing_is_foreseen(stretches: int) -> None:
    gain = seen(sorted(corpus(groups=500, rows=8)), 2000, stretches)
    assert gain.saving < 0.05
    assert gain.windows > 0.6


def test_of_an_input_that_changes_its_nature_later_stretches_from_all_over_tell() -> None:
    random = Random(5)
    texts = [words(random, 400) for _ in range(16_000)] + corpus(groups=1000, rows=16, size=400)
    assert seen(texts, 4000).saving == pytest.approx(0, abs=0.01)
    assert seen(texts, 4000, 8).saving > 0.1
    assert seen(texts[::-1], 4000).corpus > seen(texts[::-1], 4000, 8).corpus > 0.1


@pytest.mark.parametrize("common", ["", "The same for all. " * 20])
def test_where_nothing_else_is_shared_nothing_is_foreseen(common: str) -> None:
    random = Random(3)
    texts = [common + words(random, 300) for _ in range(1500)]
    assert foreseen([keys_of(texts)], 100_000, 1500).saving == pytest.approx(0, abs=0.01)


def test_duplicates_far_apart_are_no_reason_for_an_order() -> None:
    random = Random(4)
    texts = [words(random, 300) for _ in range(500)] * 3
    random.shuffle(texts)
    assert foreseen([keys_of(texts)], 100_000, 1500).saving == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(
    "sample", [[], [[]], [[NO_PROMPT] * 9], [[], [key_of(b"short")]]], ids=["none", "nothing", "no prompts", "short"]
)
def test_of_nothing_nothing_is_foreseen(sample: list[list[Key]]) -> None:
    assert foreseen(sample, 10, 5).saving == 0
