from __future__ import annotations

from array import array
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from llmbatch.plan.prefix import build_tree

BLOCK = 2
tokens = st.lists(st.integers(0, 1), min_size=1, max_size=12)
windows = st.lists(st.tuples(tokens, st.sampled_from([None, "a"])), min_size=1, max_size=25)


def packed(ids: list[int]) -> bytes:
    return array("I", ids).tobytes()


def blocks(ids: list[int], lora: str | None) -> list[tuple[object, ...]]:
    """The cacheable blocks of a prompt, each named by all the tokens up to its end, as vLLM chains its hashes."""
    return [(lora, *ids[: end * BLOCK]) for end in range(1, (len(ids) - 1) // BLOCK + 1)]


@given(windows)
def test_the_tree_spares_exactly_the_blocks_that_occur_again(window: list[tuple[list[int], str | None]]) -> None:
    tree = build_tree([packed(ids) for ids, _ in window], [lora for _, lora in window], BLOCK)
    every = [block for ids, lora in window for block in blocks(ids, lora)]
    assert tree.spared_blocks == len(every) - len(set(every))


@given(windows)
def test_a_prompt_s_path_holds_the_blocks_that_another_one_has_too(window: list[tuple[list[int], str | None]]) -> None:
    tree = build_tree([packed(ids) for ids, _ in window], [lora for _, lora in window], BLOCK)
    every = [blocks(ids, lora) for ids, lora in window]
    for item, own in enumerate(every):
        others = {block for other, theirs in enumerate(every) if other != item for block in theirs}
        path = tree.path(tree.home[item])
        assert sum(tree.blocks(node) for node in path) == len([block for block in own if block in others])


@given(windows)
def test_two_prompts_have_a_node_in_common_where_they_share_a_block(window: list[tuple[list[int], str | None]]) -> None:
    tree = build_tree([packed(ids) for ids, _ in window], [lora for _, lora in window], BLOCK)
    every = [blocks(ids, lora) for ids, lora in window]
    for (a, own), (b, theirs) in pairwise(enumerate(every)):
        shared = set(tree.path(tree.home[a])) & set(tree.path(tree.home[b]))
        assert sum(tree.blocks(node) for node in shared) == len(set(own) & set(theirs))


@given(windows, st.randoms())
def test_the_order_is_a_permutation_that_keeps_sharers_together(
    window: list[tuple[list[int], str | None]], random: object
) -> None:
    tree = build_tree([packed(ids) for ids, _ in window], [lora for _, lora in window], BLOCK)
    ranks = list(range(len(window)))
    random.shuffle(ranks)  # type: ignore[attr-defined]
    order = tree.order(ranks)
    assert sorted(order) == list(range(len(window)))
    for node in range(1, len(tree.depth)):
        places = [place for place, item in enumerate(order) if node in tree.path(tree.home[item])]
        assert places == list(range(places[0], places[-1] + 1))


@given(windows)
def test_an_input_that_is_grouped_stays_as_it_is(window: list[tuple[list[int], str | None]]) -> None:
    tree = build_tree([packed(ids) for ids, _ in window], [lora for _, lora in window], BLOCK)
    order = tree.order(range(len(window)))
    grouped = [window[item] for item in order]
    again = build_tree([packed(ids) for ids, _ in grouped], [lora for _, lora in grouped], BLOCK)
    assert again.order(range(len(window))) == list(range(len(window)))


def test_what_all_share_is_told() -> None:
    window = [[1, 1, 1, 1, 7], [1, 1, 2, 2, 7], [1, 1, 2, 2, 8, 8, 8]]
    assert build_tree([packed(ids) for ids in window], [None] * 3, BLOCK).common_blocks == 1
    assert build_tree([packed(ids) for ids in [*window, [9]]], [None] * 4, BLOCK).common_blocks == 0
