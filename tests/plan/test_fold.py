from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch.core.demand import Demands
from llmbatch.core.digest import Digests, pack
from llmbatch.core.types import Constraint, Prompt, Request, RequestKey, Sampling, Tools
from llmbatch.plan.fold import fold

GREEDY = Sampling((("max_tokens", 8), ("temperature", 0)))


def request(index: int = 0, **changes: object) -> Request:
    base = Request(RequestKey(index), Prompt(text="x"), GREEDY, token_ids=[1, 2, 3])
    return replace(base, **changes)  # type: ignore[arg-type]


def folded(*requests: Request) -> dict[int, int]:
    demands = [Demands().of(request) for request in requests]
    return fold(requests, [pack(r) for r in requests], demands, range(len(requests))).leaders


def test_duplicates_share_the_first_of_their_like() -> None:
    assert folded(request(0), request(1, token_ids=[9]), request(2), request(3)) == {2: 0, 3: 0}


def test_equal_settings_in_different_objects_fold() -> None:
    assert folded(request(0), request(1, sampling=Sampling(GREEDY.values))) == {1: 0}


def test_seeded_sampling_folds_with_the_same_seed_only() -> None:
    warm = Sampling((("temperature", 0.7),))
    assert folded(request(0, sampling=warm, seed=1), request(1, sampling=warm, seed=1)) == {1: 0}
    assert folded(request(0, sampling=warm, seed=1), request(1, sampling=warm, seed=2)) == {}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"text": "x"}, {"text": "x"}, True),
        ({"text": "x"}, {"text": "y"}, False),
        ({"text": "x"}, {"messages": ({"role": "user", "content": "x"},)}, False),
        ({"text": "x"}, {"text": "x", "prefill": "{"}, False),
        ({"messages": ({"role": "user", "content": "x"},)}, {"messages": ({"content": "x", "role": "user"},)}, True),
        ({"messages": ({"role": "user", "content": "x"},)}, {"messages": ({"role": "system", "content": "x"},)}, False),
    ],
)
def test_without_tokens_the_prompt_tells(one: dict[str, Any], other: dict[str, Any], same: bool) -> None:
    first, second = (request(i, prompt=Prompt(**each), token_ids=None) for i, each in enumerate((one, other)))
    assert folded(first, second) == ({1: 0} if same else {})


@pytest.mark.parametrize("sampling", [Sampling(), Sampling((("temperature", 0.7),)), Sampling((("top_p", 0.5),))])
def test_an_answer_drawn_at_random_is_never_shared(sampling: Sampling) -> None:
    assert folded(request(0, sampling=sampling), request(1, sampling=sampling)) == {}


@pytest.mark.parametrize(
    "other",
    [
        {"token_ids": [1, 2, 4]},
        {"token_ids": [1, 2]},
        {"token_ids": [1, 2, 3, 0]},
        {"token_ids": [1, 2], "partial": (3,)},
        {"partial": (3,)},
        {"lora": "legal"},
        {"max_tokens": 9},
        {"seed": 1},
        {"constraint": Constraint("regex", "a+")},
        {"constraint": Constraint("choice", "a+")},
        {"prompt": Prompt(text="x", prefill="{")},
        {"prompt": Prompt(text="x", tools=Tools(({"type": "function"},)))},
        {"sampling": GREEDY.replace(stop=("\n",))},
        {"token_ids": None},
    ],
)
def test_a_request_that_differs_in_anything_that_matters_is_not_folded(other: dict[str, object]) -> None:
    assert folded(request(0), request(1, **other)) == {}


ORDER = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": ORDER}}
B_FIRST = {"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "string"}}}
TURNED = {"type": "function", "function": {"name": "f", "parameters": B_FIRST}}


@pytest.mark.parametrize("token_ids", [[1, 2, 3], None], ids=["tokens", "no-tokens"])
@pytest.mark.parametrize(
    "other",
    [
        Tools((TOOL,), "none"), Tools((TOOL,), "required"), Tools((TOOL,), "named", "f"), Tools((TOOL,), parallel=False),
        Tools((TOOL, {"type": "function", "function": {"name": "g"}})), Tools((TURNED,)), None,
    ],
    ids=["none", "required", "named", "one call", "more", "in another order", "no tools"],
)  # fmt: skip
def test_requests_that_are_offered_other_tools_or_otherwise_are_not_folded(
    other: Tools | None, token_ids: list[int] | None
) -> None:
    def asked(index: int, tools: Tools | None) -> Request:
        return request(
            index, prompt=Prompt(messages=({"role": "user", "content": "x"},), tools=tools), token_ids=token_ids
        )

    assert folded(asked(0, Tools((TOOL,))), asked(1, other)) == {}
    assert folded(asked(0, Tools((TOOL,))), asked(1, Tools((json.loads(json.dumps(TOOL)),)))) == {1: 0}


def test_a_digest_does_not_depend_on_the_folder() -> None:
    one = request()
    packed = pack(one)
    assert packed is not None
    assert Digests().digest(one, packed) == Digests().digest(replace(one, key=RequestKey(7)), packed)


small = st.integers(0, 2)
requests = st.lists(
    st.builds(
        lambda ids, split, seed, lora: request(
            token_ids=ids[:split], partial=tuple(ids[split:]), seed=seed, lora=lora and "a"
        ),
        st.lists(small, min_size=1, max_size=4),
        st.integers(1, 4),
        st.none() | small,
        st.booleans(),
    ),
    max_size=30,
)


@given(requests)
def test_folding_is_equality_of_what_the_engine_gets(batch: list[Request]) -> None:
    def meaning(r: Request) -> tuple[object, ...]:
        return (tuple(r.token_ids or ()), r.partial, r.seed, bool(r.lora))

    leaders: dict[object, int] = {}
    expected = {}
    for position, one in enumerate(batch):
        leader = leaders.setdefault(meaning(one), position)
        if leader != position:
            expected[position] = leader
    assert folded(*batch) == expected
