from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from llmbatch.core.types import (
    Completion,
    Constraint,
    Failure,
    FailureKind,
    Prompt,
    Request,
    RequestKey,
    Sampling,
    Usage,
)
from llmbatch.programs.retry import RetrySettings, derive_seed, next_request

CHAT = Prompt(messages=({"role": "system", "content": "Be brief."}, {"role": "user", "content": "How many?"}))
TEXT = Prompt(text="How many?")
SCHEMA = Constraint("json", "{}")
GREEDY = Sampling((("max_tokens", 8), ("temperature", 0.0)))
EXPLAINED = [
    FailureKind.INVALID_JSON, FailureKind.SCHEMA, FailureKind.CHOICE, FailureKind.REGEX, FailureKind.GRAMMAR,
    FailureKind.LANGUAGE, FailureKind.COPY, FailureKind.LENGTH_RATIO, FailureKind.MARKUP, FailureKind.GLOSSARY,
]  # fmt: skip
REDRAWN = [FailureKind.EMPTY, FailureKind.REJECTED, FailureKind.REPETITION]
FINAL = [kind for kind in FailureKind if not kind.retryable]


def ask(**changes: Any) -> Request:
    return replace(Request(RequestKey(7), CHAT, GREEDY, token_ids=tuple(range(20))), **changes)


def answer(request: Request, text: str = "bad", new: int = 8, total: int | None = None) -> Completion:
    """``new`` tokens came now; the whole answer has ``total``."""
    ids = tuple(range(len(request.partial) + new if total is None else total))
    usage = Usage(len(request.token_ids or ()) + len(request.partial), new)
    return Completion(request.key, text, "length", usage, ids)


def after(
    request: Request,
    kind: FailureKind,
    completion: Completion | None = None,
    earlier: Sequence[FailureKind] = (),
    context_length: int = 1000,
    **settings: Any,
) -> Request | None:
    failure = Failure(kind, "$.n: 0 is less than the minimum of 1")
    policy = RetrySettings(**{"max_attempts": 10, **settings})
    return next_request(
        request, failure, completion or answer(request), earlier, settings=policy, context_length=context_length
    )


def some(request: Request | None) -> Request:
    assert request is not None
    return request


# Truncated


def test_free_text_goes_on_from_the_partial_answer_with_a_larger_budget() -> None:
    request = ask()
    following = some(after(request, FailureKind.TRUNCATED))
    assert following == replace(request, key=RequestKey(7, attempt=2), partial=tuple(range(8)), max_tokens=16)


def test_the_budget_grows_again_at_each_truncation() -> None:
    second = some(after(ask(), FailureKind.TRUNCATED))
    third = some(after(second, FailureKind.TRUNCATED, answer(second, new=16)))
    assert (len(third.partial), third.max_tokens) == (24, 32)


def test_going_on_ends_at_the_context_length() -> None:
    assert some(after(ask(), FailureKind.TRUNCATED, context_length=31)).max_tokens == 3
    assert after(ask(), FailureKind.TRUNCATED, context_length=28) is None


def test_going_on_drops_min_tokens_which_counted_from_the_start() -> None:
    sampling = Sampling((("max_tokens", 8), ("min_tokens", 6)))
    assert some(after(ask(sampling=sampling), FailureKind.TRUNCATED)).sampling == Sampling((("max_tokens", 8),))


def test_an_answer_that_made_no_progress_is_not_gone_on_from_again() -> None:
    request = ask(partial=tuple(range(8)), max_tokens=16)
    assert after(request, FailureKind.TRUNCATED, answer(request, new=0)) is None


@pytest.mark.parametrize("changes", [{"constraint": SCHEMA}, {"settings": {"continue_truncated": False}}])
def test_a_constrained_answer_begins_anew_with_a_larger_budget(changes: dict[str, Any]) -> None:
    settings = changes.pop("settings", {})
    request = ask(**changes)
    assert after(request, FailureKind.TRUNCATED, **settings) == replace(
        request, key=RequestKey(7, attempt=2), max_tokens=16
    )


def test_an_answer_without_token_ids_begins_anew() -> None:
    following = some(after(ask(), FailureKind.TRUNCATED, answer(ask(), total=0)))
    assert (following.partial, following.max_tokens) == ((), 16)


def test_a_budget_ends_at_the_context_length_and_never_shrinks() -> None:
    request = ask(constraint=SCHEMA)
    assert some(after(request, FailureKind.TRUNCATED, context_length=30)).max_tokens == 10
    assert after(request, FailureKind.TRUNCATED, context_length=28) is None
    assert after(replace(request, max_tokens=50), FailureKind.TRUNCATED, context_length=40) is None


def test_the_prompts_length_is_the_engines_where_the_ids_are_not_known() -> None:
    request = ask(token_ids=None, partial=(1, 2), max_tokens=8)
    completion = Completion(request.key, "bad", "length", Usage(22, 8), tuple(range(10)))
    assert some(after(request, FailureKind.TRUNCATED, completion, context_length=33)).max_tokens == 3


# Invalid


@pytest.mark.parametrize("kind", EXPLAINED)
def test_a_chat_model_is_shown_its_answer_and_what_is_wrong_with_it(kind: FailureKind) -> None:
    request = ask(prompt=replace(CHAT, prefill="{"))
    following = some(after(request, kind, answer(request, '"n": 0}')))
    assert following.prompt.messages is not None
    assert following.prompt.messages[:2] == CHAT.messages
    assert following.prompt.messages[2:] == (
        {"role": "assistant", "content": '{"n": 0}'},
        {
            "role": "user",
            "content": "That answer was not accepted: $.n: 0 is less than the minimum of 1\nGive the corrected answer only.",
        },
    )
    assert following.prompt.prefill == "{"
    assert following.token_ids is None
    assert following.sampling is GREEDY


def test_the_request_that_failed_is_not_changed() -> None:
    request = ask()
    before = repr(request)
    after(request, FailureKind.SCHEMA)
    assert repr(request) == before


def test_the_quoted_answer_is_bounded() -> None:
    messages = some(after(ask(), FailureKind.SCHEMA, answer(ask(), "x" * 100_000))).prompt.messages
    assert messages is not None
    assert len(messages[2]["content"]) < 4100


def test_a_bad_answer_that_comes_again_after_feedback_is_drawn_anew_instead() -> None:
    second = replace(some(after(ask(), FailureKind.SCHEMA)), token_ids=tuple(range(50)))
    third = some(after(second, FailureKind.SCHEMA))
    assert third.prompt is second.prompt
    assert third.token_ids == second.token_ids
    assert (third.seed, third.sampling.get("temperature")) != (second.seed, second.sampling.get("temperature"))
    fourth = some(after(second, FailureKind.SCHEMA, answer(second, "another bad one")))
    assert len(fourth.prompt.messages or ()) == 6


@pytest.mark.parametrize(
    ("changes", "settings"),
    [
        ({"prompt": TEXT}, {}),
        ({}, {"feedback": False}),
        ({}, {"context_length": 110}),
        ({"prompt": Prompt(messages=({"role": "system", "content": "Count."},))}, {}),
        ({"prompt": Prompt(messages=())}, {}),
    ],
)
def test_where_feedback_is_not_possible_the_answer_is_drawn_anew(changes: Any, settings: Any) -> None:
    request = ask(**changes)
    following = some(after(request, FailureKind.SCHEMA, **settings))
    assert following.prompt is request.prompt
    assert following.seed is not None


# Another draw


@pytest.mark.parametrize("kind", REDRAWN)
@pytest.mark.parametrize(("given", "drawn"), [(0.0, 0.7), (0.6, 0.8), (0.95, 1.0), (1.0, 1.0), (1.4, 1.4), (None, 1.0)])
def test_another_draw_has_a_new_seed_and_a_higher_temperature(kind: FailureKind, given: float, drawn: float) -> None:
    request = ask(sampling=GREEDY.replace(temperature=given))
    following = some(after(request, kind))
    assert following.sampling == request.sampling.replace(temperature=drawn)
    assert following.seed == derive_seed(0, RequestKey(7, attempt=2), request.prompt)
    assert following.token_ids == request.token_ids


def test_seeds_are_derived_from_the_requests_own_then_the_jobs() -> None:
    key = RequestKey(7, attempt=2)
    seeded = GREEDY.replace(seed=5)
    prompt = ask().prompt
    assert some(after(ask(), FailureKind.EMPTY, seed=9)).seed == derive_seed(9, key, prompt)
    assert some(after(ask(sampling=seeded), FailureKind.EMPTY, seed=9)).seed == derive_seed(5, key, prompt)
    assert some(after(ask(sampling=seeded, seed=3), FailureKind.EMPTY, seed=9)).seed == derive_seed(3, key, prompt)


def test_settings_that_would_keep_a_draw_greedy_are_loosened() -> None:
    narrow = Sampling((("min_p", 1.0), ("temperature", 1.0), ("top_k", 1), ("top_p", 0.01)))
    loose = some(after(ask(sampling=narrow), FailureKind.EMPTY)).sampling
    assert loose == Sampling((("min_p", 0.1), ("temperature", 1.0), ("top_p", 0.9)))


def test_equal_changes_of_one_sampling_are_one_object_even_where_it_has_no_hash() -> None:
    sampling = Sampling((("logit_bias", {"1": 2.0}), ("temperature", 0.0)))
    first, second = (some(after(ask(sampling=sampling, key=RequestKey(i)), FailureKind.EMPTY)) for i in (1, 2))
    assert first.sampling is second.sampling


def test_another_draw_after_a_partial_answer_has_the_budget_of_both() -> None:
    following = some(after(ask(partial=tuple(range(8)), max_tokens=16), FailureKind.REJECTED))
    assert (following.partial, following.max_tokens) == ((), 24)


# The engine, and the end


def test_a_request_that_the_engine_failed_goes_again_as_it_is_but_once() -> None:
    request = ask(partial=(1, 2))
    assert next_request(
        request, Failure(FailureKind.ENGINE, "x"), None, settings=RetrySettings(), context_length=100
    ) == replace(request, key=RequestKey(7, attempt=2))
    assert after(request, FailureKind.ENGINE, earlier=[FailureKind.ENGINE]) is None


@pytest.mark.parametrize("kind", FINAL)
def test_what_another_request_cannot_help_is_final(kind: FailureKind) -> None:
    assert after(ask(), kind) is None


@pytest.mark.parametrize("kind", [kind for kind in FailureKind if kind.retryable])
def test_attempts_are_bounded(kind: FailureKind) -> None:
    request = ask(key=RequestKey(7, attempt=3))
    assert after(request, kind, max_attempts=3) is None
    assert after(request, kind, max_attempts=4) is not None
    assert after(ask(), kind, max_attempts=1) is None


def test_temperatures_out_of_order_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"min_temperature 0\.7 is above max_temperature 0\.5"):
        RetrySettings(max_temperature=0.5)


SAMPLINGS = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0.0, 0.2, 0.7, 1.0, 1.5]),
        "top_k": st.sampled_from([1, 50]),
        "top_p": st.sampled_from([0.001, 1.0]),
        "seed": st.integers(0, 2**31 - 1),
        "max_tokens": st.integers(1, 64),
        "min_tokens": st.just(1),
    },
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from([kind for kind in FailureKind if kind.retryable]),
        st.sampled_from(["", "bad", "worse", "x" * 5000]),
        st.integers(0, 64),  # new tokens
        st.booleans(),  # whether the engine gives token ids
    ),
    min_size=1,
    max_size=8,
)


def fingerprint(request: Request) -> object:
    """What decides a deterministic engine's answer."""
    temperature = request.sampling.get("temperature", 1.0)
    greedy = temperature == 0 or request.sampling.get("top_k") == 1
    drawn = None if greedy else (temperature, request.seed)
    return repr((request.prompt, request.partial, request.max_tokens, drawn))


@given(SAMPLINGS, STEPS, st.booleans(), st.booleans(), st.sampled_from([24, 60, 200, 4000]))
def test_a_deterministic_request_is_never_sent_twice(
    sampling: dict[str, Any], steps: Any, chat: bool, constrained: bool, context_length: int
) -> None:
    request = Request(
        RequestKey(1, 2, 3),
        CHAT if chat else TEXT,
        Sampling(tuple(sorted(sampling.items()))),
        SCHEMA if constrained else None,
        token_ids=tuple(range(20)),
    )
    sent = [request]
    kinds: list[FailureKind] = []
    for kind, text, new, with_ids in steps:
        completion = answer(request, text, new, None if with_ids else 0)
        following = after(request, kind, completion, kinds, context_length)
        assert following == after(request, kind, completion, kinds, context_length)
        if following is None:
            break
        assert following.key == request.key._replace(attempt=request.key.attempt + 1)
        assert (following.token_ids is None) == (following.prompt != request.prompt or request.token_ids is None)
        if kind is FailureKind.ENGINE:
            assert kind not in kinds
        else:
            assert fingerprint(following) not in [fingerprint(each) for each in sent]
        kinds.append(kind)
        sent.append(following)
        request = following


@given(st.integers(0, 2**63), st.lists(st.tuples(*[st.integers(0, 10**9)] * 4), unique=True, max_size=30))
def test_seeds_depend_on_base_key_and_prompt_alone_and_fit_31_bits(
    base: int, keys: list[tuple[int, int, int, int]]
) -> None:
    prompt = ask().prompt
    seeds = [derive_seed(base, RequestKey(*key), prompt) for key in keys]
    assert seeds == [derive_seed(base, RequestKey(*key), prompt) for key in keys]
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_rows_with_the_same_prompt_are_drawn_alike_whether_they_are_folded_or_not() -> None:
    one, other = (replace(ask(), key=RequestKey(index)) for index in (3, 8))
    assert some(after(one, FailureKind.EMPTY)).seed == some(after(other, FailureKind.EMPTY)).seed
    different = replace(other, prompt=Prompt(text="something else"))
    assert some(after(one, FailureKind.EMPTY)).seed != some(after(different, FailureKind.EMPTY)).seed


def test_seeds_are_the_same_on_every_machine() -> None:
    assert derive_seed(42, RequestKey(5, 0, 1, 2), Prompt(text="a")) == 1452256062
