"""Which requests of a window are best answered by one of several engines."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from llmbatch.core.digest import TOKEN_BYTES
from llmbatch.plan.groups import prefix_groups
from llmbatch.plan.prefix import build_tree

BLOCK = 4


def packed(tokens: Sequence[int]) -> bytes:
    data = array("I", tokens).tobytes()
    assert len(data) == TOKEN_BYTES * len(tokens)
    return data


def row(document: int, question: int, system: Sequence[int] = (1,) * 8) -> bytes:
    """A prompt: what all share, a document of twelve tokens, a question of five."""
    return packed([*system, *[document] * 12, *[1000 + question] * 5])


def groups(prompts: list[bytes], engines: int = 2, loras: list[str | None] | None = None) -> dict[int, int]:
    loras = loras or [None] * len(prompts)
    return prefix_groups(build_tree(prompts, loras, BLOCK), prompts, loras, BLOCK, engines)


def test_rows_of_a_document_are_a_group_and_what_all_share_makes_none() -> None:
    prompts = [row(10 + i % 20, i) for i in range(60)]
    found = groups(prompts)
    assert len(set(found.values())) == 20
    assert all(found[i] == found[i % 20] for i in range(60))


def test_a_document_has_the_same_group_in_every_window() -> None:
    one = groups([row(10 + i % 20, i) for i in range(60)])
    other = groups([row(10 + i % 25, 100 + i) for i in range(100)])
    assert one[0] == other[0]
    assert {one[i] for i in range(20)} <= set(other.values())


def test_a_group_too_large_for_one_engine_is_taken_apart() -> None:
    prompts = [row(10, i // 3) for i in range(96)]  # one document: three rows share each question
    found = groups(prompts)
    assert len(set(found.values())) == 32


def test_rows_that_share_nothing_are_in_no_group() -> None:
    assert groups([packed([i] * 9) for i in range(50)]) == {}


def test_the_same_text_under_two_adapters_is_two_groups() -> None:
    prompts = [row(10 + i % 10, i) for i in range(80)]
    loras: list[str | None] = ["a" if i < 40 else "b" for i in range(80)]
    found = groups(prompts, loras=loras)
    assert len(set(found.values())) == 20
