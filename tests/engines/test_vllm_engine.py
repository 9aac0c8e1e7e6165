"""The engine in this process, with the demo model, against the bare ``vllm.LLM`` that it drives."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.sampling import LOOPS, Loops
from llmbatch.core.types import (
    Completion,
    Constraint,
    Failure,
    FailureKind,
    Outcome,
    Prompt,
    Refusal,
    Request,
    RequestKey,
    Sampling,
    Usage,
)
from llmbatch.engines.feed import Feed
from llmbatch.engines.settings import EngineSettings
from llmbatch.engines.thinking import BUDGET, Marks
from llmbatch.engines.vllm.engine import VllmEngine
from llmbatch.engines.vllm.structured import structured_outputs
from llmbatch.job.job import DEMO_MODEL
from llmbatch.model.tokenizer import ChatSettings

sys.path.insert(0, str(Path(__file__).parents[1]))

from tiny_thinking import make_thinking_model

pytestmark = pytest.mark.vllm

CONTEXT = 2048
ARGS = {
    "enforce_eager": True, "kv_cache_memory_bytes": 1 << 28, "max_num_seqs": 64, "dtype": "float32", "max_model_len": CONTEXT,
}  # fmt: skip
SMALL = {
    **ARGS,
    "kv_cache_memory_bytes": 1 << 25,
    "max_num_seqs": 8,
    "max_model_len": 256,
    "max_num_batched_tokens": 256,
}
GREEDY = Sampling((("max_tokens", 48), ("temperature", 0.0)))
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday", None]
FIELDS = {
    "customer": {"type": "string"},
    "item": {"type": "string"},
    "quantity": {"type": "integer", "minimum": 1, "maximum": 999},
    "city": {"type": ["string", "null"]},
    "day": {"enum": DAYS},
}
SCHEMA = json.dumps({"type": "object", "properties": FIELDS, "required": list(FIELDS), "additionalProperties": False})
LONG = Sampling((("max_tokens", 128), ("temperature", 0.0)))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmEngine]:
    log = tmp_path_factory.mktemp("vllm") / "engine.log"
    engine = VllmEngine(str(DEMO_MODEL), EngineSettings(args=ARGS, in_process=True), ChatSettings(), log)
    engine.start()
    yield engine
    engine.stop()


@pytest.fixture(scope="module")
def bare(engine: VllmEngine) -> Any:
    """The ``vllm.LLM`` itself, for what its users would have got."""
    return engine._llm


def number(text: str, language: str = "French", prefill: str = "") -> Prompt:
    system = {"role": "system", "content": f"Translate to {language}."}
    return Prompt(messages=(system, {"role": "user", "content": text}), prefill=prefill)


NUMBERS = [
    number(f"{a} hundred and {b}")
    for a in ("one", "two", "six", "nine")
    for b in ("one", "four", "eleven", "sixty-two")
]
ORDER = Prompt(
    messages=(
        {"role": "system", "content": "Extract the order as JSON."},
        {"role": "user", "content": "Nora is asking for 349 white bicycles for Ghent before Saturday."},
    )
)


def run(engine: VllmEngine, requests: Sequence[Request]) -> list[Outcome]:
    """The outcomes of requests, in their order."""
    feed = Feed()
    feed.push(requests)
    feed.close()
    found: dict[RequestKey, Outcome] = {}
    for outcomes in engine.stream(feed):
        for outcome in outcomes:
            feed.done(outcome.key)
            assert outcome.key not in found
            found[outcome.key] = outcome
    return [found[request.key] for request in requests]


def ask(engine: VllmEngine, prompts: Sequence[Prompt], sampling: Sampling = GREEDY, **more: Any) -> list[Completion]:
    ids = engine.tokenize(prompts)
    requests = [
        Request(RequestKey(i), p, sampling, token_ids=t, **more)
        for i, (p, t) in enumerate(zip(prompts, ids, strict=True))
    ]
    outcomes = run(engine, requests)
    assert all(isinstance(outcome, Completion) for outcome in outcomes), outcomes
    return outcomes  # type: ignore[return-value]


def chat(bare: Any, prompts: Sequence[Prompt], sampling: Sampling = GREEDY, **more: Any) -> list[Any]:
    """What ``LLM.chat`` gives."""
    from vllm import SamplingParams

    values = {k: list(v) if isinstance(v, tuple) else v for k, v in sampling.values}
    params = SamplingParams(**values, **more)
    return bare.chat([[dict(m) for m in p.messages or ()] for p in prompts], params, use_tqdm=False)


def assert_same(ours: Sequence[Completion], theirs: Sequence[Any]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert list(a.token_ids) == list(b.outputs[0].token_ids)
        assert a.text == b.outputs[0].text
        assert a.finish_reason == b.outputs[0].finish_reason
        assert a.stop_reason == b.outputs[0].stop_reason
        assert a.usage.prompt_tokens == len(b.prompt_token_ids)
        assert a.usage.completion_tokens == len(b.outputs[0].token_ids)


def test_answers_are_those_of_llm_chat(engine: VllmEngine, bare: Any) -> None:
    assert_same(ask(engine, NUMBERS), chat(bare, NUMBERS))


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": 1.5, "seed": 7, "max_tokens": 40},
        {"temperature": 0.0, "max_tokens": 3},
        {"temperature": 0.0, "max_tokens": 40, "stop": (" cent",)},
        {"temperature": 0.0, "max_tokens": 40, "stop": (" cent", "x"), "include_stop_str_in_output": True},
        {"temperature": 0.0, "max_tokens": 40, "stop_token_ids": (225,)},
        {"temperature": 0.0, "max_tokens": 40, "stop_token_ids": (225,), "include_stop_str_in_output": True},
        {"temperature": 0.0, "max_tokens": 12, "ignore_eos": True},
        {"temperature": 0.0, "max_tokens": 12, "ignore_eos": True, "skip_special_tokens": False},
        {"temperature": 0.0, "max_tokens": 9, "skip_special_tokens": False, "spaces_between_special_tokens": False},
        {"temperature": 0.0, "max_tokens": 40, "min_tokens": 20},
        {"temperature": 0.0, "max_tokens": 40, "bad_words": ("cent",)},
        {
            "temperature": 1.0,
            "seed": 3,
            "max_tokens": 20,
            "top_k": 5,
            "top_p": 0.9,
            "min_p": 0.01,
            "presence_penalty": 0.5,
        },
        {"temperature": 2.0, "seed": 11, "max_tokens": 60, "ignore_eos": True, "min_p": 0.0},
    ],
    ids=str,
)
def test_answers_under_a_sampling_setting_are_those_of_llm_chat(
    engine: VllmEngine, bare: Any, values: dict[str, Any]
) -> None:
    sampling = Sampling(tuple(sorted(values.items())))
    assert_same(ask(engine, NUMBERS, sampling), chat(bare, NUMBERS, sampling))


def test_the_text_of_random_bytes_is_that_of_llm_generate(engine: VllmEngine, bare: Any) -> None:
    # logit biases that favour the bytes of multi-byte characters, at a temperature that mixes them up
    tokenizer = bare.get_tokenizer()
    bytes_of_characters = [tokenizer.encode(c, add_special_tokens=False) for c in "é🙂数"]
    bias = {token: 30.0 for ids in bytes_of_characters for token in ids}
    values = {"temperature": 2.0, "seed": 5, "max_tokens": 40, "ignore_eos": True, "logit_bias": bias}
    ours = ask(engine, NUMBERS, Sampling(tuple(sorted(values.items()))))
    theirs = chat(bare, NUMBERS, Sampling(tuple(sorted(values.items()))))
    assert_same(ours, theirs)
    assert any("\N{REPLACEMENT CHARACTER}" in a.text for a in ours)


def test_a_prefill_goes_on_as_continue_final_message_does(engine: VllmEngine, bare: Any) -> None:
    from vllm import SamplingParams

    prompts = [number("two hundred and four", prefill="deux"), number("seven", prefill="s")]
    conversations = [[*map(dict, p.messages or ()), {"role": "assistant", "content": p.prefill}] for p in prompts]
    params = SamplingParams(temperature=0, max_tokens=48)
    theirs = bare.chat(conversations, params, use_tqdm=False, add_generation_prompt=False, continue_final_message=True)
    assert_same(ask(engine, prompts), theirs)


def test_a_space_that_a_template_trims_off_the_prefill_is_not_doubled(engine: VllmEngine) -> None:
    (ids,) = engine.tokenize([number("two hundred and four", prefill="deux")])
    prompt = number("two hundred and four", prefill="deux ")
    (answer,) = run(engine, [Request(RequestKey(0), prompt, GREEDY, token_ids=ids)])  # type: ignore[arg-type]
    assert isinstance(answer, Completion)
    assert prompt.prefill + answer.text == "deux cent quatre"


def test_a_text_prompt_goes_on_as_llm_generate_does(engine: VllmEngine, bare: Any) -> None:
    from vllm import SamplingParams

    texts = ["Translate", "one two three", "é 🙂"]
    theirs = bare.generate(texts, SamplingParams(temperature=0, max_tokens=20), use_tqdm=False)
    assert_same(
        ask(engine, [Prompt(text=t) for t in texts], Sampling((("max_tokens", 20), ("temperature", 0.0)))), theirs
    )


def test_a_seed_and_max_tokens_of_a_request_override_the_shared_ones(engine: VllmEngine, bare: Any) -> None:
    shared = Sampling((("max_tokens", 40), ("temperature", 1.5)))
    ours = ask(engine, NUMBERS[:3], shared, seed=9, max_tokens=4)
    assert_same(ours, chat(bare, NUMBERS[:3], Sampling((("max_tokens", 4), ("seed", 9), ("temperature", 1.5)))))
    again = ask(engine, NUMBERS[:3], shared, seed=10, max_tokens=30)
    assert_same(again, chat(bare, NUMBERS[:3], Sampling((("max_tokens", 30), ("seed", 10), ("temperature", 1.5)))))


def test_a_request_without_max_tokens_may_fill_the_context(engine: VllmEngine) -> None:
    endless = Sampling((("ignore_eos", True), ("temperature", 0.0)))
    (answer,) = run(engine, [Request(RequestKey(0), NUMBERS[0], endless, token_ids=[50] * (CONTEXT - 1030))])
    assert isinstance(answer, Completion)
    assert (answer.finish_reason, answer.usage.completion_tokens) == ("length", 1030)


def test_a_json_constraint_gives_json_that_is_spaced_as_python_writes_it(engine: VllmEngine) -> None:
    (answer,) = ask(engine, [ORDER], LONG, constraint=Constraint("json", SCHEMA))
    assert answer.finish_reason == "stop"
    value = json.loads(answer.text)
    assert value.keys() == FIELDS.keys()
    assert answer.text == json.dumps(value, ensure_ascii=False)


@pytest.mark.parametrize(
    ("constraint", "allowed"),
    [
        (Constraint("choice", '["yes", "no"]'), ["yes", "no"]),
        (Constraint("regex", "[ab]{3}"), [a + b + c for a in "ab" for b in "ab" for c in "ab"]),
        (Constraint("grammar", 'root ::= "left" | "right"'), ["left", "right"]),
    ],
)
def test_a_constraint_holds(engine: VllmEngine, constraint: Constraint, allowed: list[str]) -> None:
    for answer in ask(engine, NUMBERS[:4], constraint=constraint):
        assert answer.text in allowed
        assert answer.finish_reason == "stop"


def test_constrained_answers_are_those_of_llm_chat_under_the_same_grammar(engine: VllmEngine, bare: Any) -> None:
    prompts = [ORDER, *NUMBERS[:3]]
    constraint = Constraint("json", SCHEMA)
    theirs = chat(bare, prompts, LONG, structured_outputs=structured_outputs(constraint, "xgrammar"))
    assert_same(ask(engine, prompts, LONG, constraint=constraint), theirs)


def test_a_schema_that_no_grammar_can_be_made_of_refuses_only_its_row(engine: VllmEngine) -> None:
    ids = engine.tokenize(NUMBERS[:2])
    bad = Constraint("json", '{"type": "strng"}')
    requests = [
        Request(RequestKey(0), NUMBERS[0], GREEDY, bad, token_ids=ids[0]),  # type: ignore[arg-type]
        Request(RequestKey(1), NUMBERS[1], GREEDY, token_ids=ids[1]),  # type: ignore[arg-type]
    ]
    refused, answered = run(engine, requests)
    assert isinstance(refused, Refusal)
    assert refused.failure.kind is FailureKind.REFUSED
    assert isinstance(answered, Completion)


def test_an_answer_goes_on_from_a_partial_one_as_if_it_had_not_been_cut_off(engine: VllmEngine) -> None:
    whole = ask(engine, NUMBERS)
    cut = ask(engine, NUMBERS, max_tokens=3)
    for i, (full, part) in enumerate(zip(whole, cut, strict=True)):
        ids = engine.tokenize([NUMBERS[i]])[0]
        request = Request(RequestKey(i, attempt=2), NUMBERS[i], GREEDY, token_ids=ids, partial=tuple(part.token_ids))  # type: ignore[arg-type]
        (rest,) = run(engine, [request])
        assert isinstance(rest, Completion)
        assert (rest.text, list(rest.token_ids)) == (full.text, list(full.token_ids))
        assert rest.usage.prompt_tokens == full.usage.prompt_tokens + 3
        assert rest.usage.completion_tokens == full.usage.completion_tokens - 3


def test_a_partial_answer_that_ends_within_a_character_or_before_a_stop_string_is_made_whole(
    engine: VllmEngine, bare: Any
) -> None:
    tokenizer = bare.get_tokenizer()
    (ids,) = engine.tokenize([NUMBERS[0]])
    smile = tokenizer.encode("🙂", add_special_tokens=False)
    bias = (("logit_bias", {smile[2]: 100.0}), ("max_tokens", 1), ("temperature", 0.0))
    request = Request(RequestKey(0), NUMBERS[0], Sampling(bias), token_ids=ids, partial=tuple(smile[:2]))  # type: ignore[arg-type]
    (answer,) = run(engine, [request])
    assert isinstance(answer, Completion)
    assert list(answer.token_ids) == smile[:3]
    assert answer.text == ""  # vLLM shows no part of a character
    stop = Sampling((("max_tokens", 40), ("stop", ("cent",)), ("temperature", 0.0)))
    (full,) = ask(engine, [NUMBERS[4]], stop)
    (part,) = ask(engine, [NUMBERS[4]], stop, max_tokens=1)
    (ids,) = engine.tokenize([NUMBERS[4]])
    (again,) = run(engine, [Request(RequestKey(1), NUMBERS[4], stop, token_ids=ids, partial=tuple(part.token_ids))])  # type: ignore[arg-type]
    assert isinstance(again, Completion)
    assert (again.text, again.stop_reason) == (full.text, "cent")


@pytest.mark.parametrize("include", [False, True])
def test_a_stop_string_across_the_border_of_a_continued_answer_ends_it_where_an_uncut_one_ends(
    engine: VllmEngine, bare: Any, include: bool
) -> None:
    tokenizer = bare.get_tokenizer()
    (ids,) = engine.tokenize([NUMBERS[15]])
    (whole,) = ask(engine, [NUMBERS[15]])
    assert not isinstance(ids, Failure)

    def request(cut: int, **more: Any) -> Request:
        border = len(tokenizer.decode(whole.token_ids[:cut]))
        stops = ("never", whole.text[border - 1 : border + 1])
        values = (("include_stop_str_in_output", include), ("logprobs", 1), *GREEDY.values, ("stop", stops))
        return Request(RequestKey(cut), NUMBERS[15], Sampling(values), token_ids=ids, **more)

    def answers(requests: Iterable[Request]) -> dict[int, Completion]:
        found = {outcome.key.index: outcome for outcome in run(engine, list(requests))}
        assert all(isinstance(outcome, Completion) for outcome in found.values()), found
        return found  # type: ignore[return-value]

    cuts = range(1, len(whole.token_ids) - 1)
    uncuts = answers(map(request, cuts))
    parts = answers(request(cut, max_tokens=cut) for cut in cuts)
    cuts = [cut for cut in cuts if parts[cut].finish_reason != "stop"]  # the same two characters came earlier
    rests = answers(request(cut, partial=tuple(parts[cut].token_ids)) for cut in cuts)
    assert len(rests) > 5
    for cut, rest in rests.items():
        uncut, part = uncuts[cut], parts[cut]
        stop = request(cut).sampling.get("stop")[1]
        assert (rest.text, rest.finish_reason, rest.stop_reason) == (uncut.text, "stop", stop)
        assert list(rest.token_ids) == list(uncut.token_ids)
        assert part.logprobs is not None
        assert rest.logprobs is not None
        assert uncut.logprobs is not None
        joined = [*part.logprobs, *rest.logprobs]
        assert [position["token"] for position in joined] == [position["token"] for position in uncut.logprobs]
        assert [p["logprob"] for p in joined] == pytest.approx([p["logprob"] for p in uncut.logprobs], abs=1e-3)


def test_log_probabilities_are_vllms_as_json(engine: VllmEngine, bare: Any) -> None:
    sampling = Sampling((("logprobs", 3), ("max_tokens", 10), ("temperature", 0.0)))
    ours = ask(engine, NUMBERS[:2], sampling)
    theirs = chat(bare, NUMBERS[:2], sampling)
    assert_same(ours, theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.logprobs is not None
        json.dumps(a.logprobs, allow_nan=False)
        for position, token, entries in zip(a.logprobs, b.outputs[0].token_ids, b.outputs[0].logprobs, strict=True):
            assert position["token"] == entries[token].decoded_token
            assert position["logprob"] == pytest.approx(entries[token].logprob)
            best = sorted(entries.values(), key=lambda e: e.rank)[:3]
            assert [entry["token"] for entry in position["top"]] == [e.decoded_token for e in best]


def test_cached_tokens_are_counted(engine: VllmEngine) -> None:
    text = " ".join(random.Random(1).choices(["one", "two", "three", "four", "five"], k=150))
    first, second = ask(engine, [number(text)]), ask(engine, [number(text)])
    assert second[0].usage.cached_tokens > first[0].usage.cached_tokens
    assert second[0].usage.cached_tokens <= second[0].usage.prompt_tokens


def test_counts_are_the_sum_of_the_usages(engine: VllmEngine) -> None:
    before = engine.counts()
    answers = ask(engine, NUMBERS)
    gained = engine.counts()
    assert gained.prompt_tokens - before.prompt_tokens == sum(a.usage.prompt_tokens for a in answers)
    assert gained.completion_tokens - before.completion_tokens == sum(a.usage.completion_tokens for a in answers)
    assert engine.busy() > 0


@pytest.mark.parametrize("length", [CONTEXT, CONTEXT + 900])
def test_a_prompt_without_room_for_an_answer_is_too_long_and_its_neighbour_lives(
    engine: VllmEngine, length: int
) -> None:
    (ids,) = engine.tokenize([NUMBERS[0]])
    long = Request(RequestKey(0), NUMBERS[0], GREEDY, token_ids=[50] * length)
    short = Request(RequestKey(1), NUMBERS[0], GREEDY, token_ids=ids)  # type: ignore[arg-type]
    refused, answered = run(engine, [long, short])
    assert isinstance(refused, Refusal)
    assert refused.failure.kind is FailureKind.TOO_LONG
    assert isinstance(answered, Completion)


def test_a_prompt_that_leaves_one_token_ends_with_length(engine: VllmEngine) -> None:
    (answer,) = run(engine, [Request(RequestKey(0), NUMBERS[0], GREEDY, token_ids=[50] * (CONTEXT - 1))])
    assert isinstance(answer, Completion)
    assert answer.finish_reason == "length"
    assert answer.usage.completion_tokens == 1


@pytest.mark.parametrize(
    ("request_", "word"),
    [
        (Request(RequestKey(0), NUMBERS[0], GREEDY, token_ids=[]), "empty"),
        (Request(RequestKey(0), NUMBERS[0], GREEDY, token_ids=[10**6]), "vocabulary"),
        (Request(RequestKey(0), NUMBERS[0], Sampling((("temperature", -1.0),)), token_ids=[5]), "temperature"),
        (
            Request(RequestKey(0), NUMBERS[0], Sampling((("tempurature", 1.0),)), token_ids=[5]),
            "did you mean 'temperature'",
        ),
        (Request(RequestKey(0), NUMBERS[0], GREEDY, token_ids=[5], max_tokens=0), "max_tokens"),
        (Request(RequestKey(0), NUMBERS[0], Sampling((("bad_words", (5,)),)), token_ids=[5]), "refuses"),
        (Request(RequestKey(0), NUMBERS[0], GREEDY, token_ids=[5], lora="x"), "unknown LoRA adapter 'x'"),
        (Request(RequestKey(0), NUMBERS[0], GREEDY, Constraint("json", "{"), token_ids=[5]), "refuses"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_vllm_refuses_is_refused_for_that_request_alone(engine: VllmEngine, request_: Request, word: str) -> None:
    (ids,) = engine.tokenize([NUMBERS[0]])
    refused, answered = run(engine, [request_, Request(RequestKey(1), NUMBERS[0], GREEDY, token_ids=ids)])  # type: ignore[arg-type]
    assert isinstance(refused, Refusal)
    assert refused.failure.kind is FailureKind.REFUSED
    assert word in refused.failure.message
    assert isinstance(answered, Completion)


def test_abort_gives_up_what_is_in_flight_and_the_engine_goes_on(engine: VllmEngine) -> None:
    ids = engine.tokenize(NUMBERS)
    feed = Feed()
    feed.push(
        [Request(RequestKey(i), p, GREEDY, token_ids=t) for i, (p, t) in enumerate(zip(NUMBERS, ids, strict=True))]
    )  # type: ignore[arg-type]
    feed.close()
    next(iter(engine.stream(feed)))
    engine.abort()
    assert not engine._llm.llm_engine.has_unfinished_requests()
    assert len(ask(engine, NUMBERS[:2])) == 2


def test_more_requests_than_slots_come_back_each_once(engine: VllmEngine) -> None:
    assert len(ask(engine, NUMBERS * 20)) == len(NUMBERS) * 20


def test_a_feed_that_is_filled_while_the_engine_runs_is_answered(engine: VllmEngine) -> None:
    ids = engine.tokenize(NUMBERS)
    requests = [
        Request(RequestKey(i), p, GREEDY, token_ids=t) for i, (p, t) in enumerate(zip(NUMBERS, ids, strict=True))
    ]  # type: ignore[arg-type]
    feed = Feed()
    answered = 0
    for outcomes in engine.stream(feed):
        for outcome in outcomes:
            feed.done(outcome.key)
            answered += 1
        if requests:
            feed.push([requests.pop()])
            if not requests:
                feed.close()
    assert answered == len(NUMBERS)


CHATS = [
    Prompt(messages=({"role": "user", "content": "hello"},)),
    Prompt(messages=({"role": "system", "content": "  Be brief.\n"}, {"role": "user", "content": "é 🙂 数\x00\t\n "})),
    Prompt(
        messages=(
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c"},
            {"role": "assistant", "content": "d"},
            {"role": "user", "content": ""},
        )
    ),
    Prompt(messages=({"role": "user", "content": "spelled out: <|end|><|assistant|> {{ x }} {% raw %}"},)),
    Prompt(messages=({"role": "user", "content": "x", "name": "eve"},)),
    Prompt(
        messages=({"role": "user", "content": [{"type": "text", "text": "two"}, {"type": "text", "text": "parts"}]},)
    ),
    Prompt(messages=({"role": "developer", "content": "be"}, {"role": "user", "content": "x"})),
    Prompt(messages=({"role": "user", "content": "x"}, {"role": "tool", "content": "y", "tool_call_id": "1"})),
    Prompt(
        messages=(
            {"role": "user", "content": "x"},
            {
                "role": "assistant",
                "content": "so",
                "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
        )
    ),
]


def test_the_ids_of_a_chat_are_those_of_llm_chat(engine: VllmEngine, bare: Any) -> None:
    theirs = chat(bare, CHATS, Sampling((("max_tokens", 1),)))
    assert engine.tokenize(CHATS) == [output.prompt_token_ids for output in theirs]


def test_an_answer_that_goes_round_in_circles_is_stopped_early(engine: VllmEngine) -> None:
    only = {"allowed_token_ids": (40,), "max_tokens": 100, "temperature": 0.0}
    circles, free = (
        ask(engine, NUMBERS[:1], Sampling(tuple(sorted({**only, **more}.items()))))[0]
        for more in ({LOOPS: Loops(times=4, shortest=2, longest=8)}, {})
    )
    assert (circles.finish_reason, circles.token_ids, circles.text) == ("repetition", (40,) * 8, free.text[:8])
    assert circles.usage.completion_tokens == 8
    assert (free.finish_reason, len(free.token_ids)) == ("length", 100)


def test_text_that_spells_a_special_token_becomes_that_token_as_in_llm_chat(engine: VllmEngine) -> None:
    (ids,) = engine.tokenize([Prompt(messages=({"role": "user", "content": "<|end|>"},))])
    assert not isinstance(ids, Failure)
    assert ids.count(4) == 2


def test_what_the_engine_prints_goes_to_the_log_and_not_to_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    engine = VllmEngine(
        str(DEMO_MODEL), EngineSettings(args=SMALL, in_process=True), ChatSettings(), tmp_path / "engine.log"
    )
    engine.start()
    ask(engine, NUMBERS[:2])
    engine.stop()
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    assert "Loading safetensors" in (tmp_path / "engine.log").read_text()
    # and a second one starts in the same process, after it
    engine = VllmEngine(
        str(DEMO_MODEL), EngineSettings(args=SMALL, in_process=True), ChatSettings(), tmp_path / "engine.log"
    )
    engine.start()
    assert ask(engine, NUMBERS[:1])
    engine.stop()
    engine.stop()
    assert "Logging error" not in (tmp_path / "engine.log").read_text()


def test_thinking_is_ended_at_its_budget_by_vllm_or_by_two_requests_alike(tmp_path: Path) -> None:
    settings = EngineSettings(args=SMALL, in_process=True, reasoning_parser="deepseek_r1")
    engine = VllmEngine(make_thinking_model(tmp_path / "model"), settings, ChatSettings(), tmp_path / "engine.log")
    engine.start()
    try:
        prompts = [Prompt(messages=({"role": "user", "content": f"{n} hundred"},)) for n in ("one", "six", "nine")]
        sampling = Sampling(((BUDGET, 4), ("ignore_eos", True), ("max_tokens", 12), ("temperature", 0.0)))
        assert engine._marks is None, "vLLM does it itself"
        itself = ask(engine, prompts, sampling)
        engine._marks = Marks((0,), (1,))
        in_two = ask(engine, prompts, sampling)
        counted = engine.counts()
    finally:
        engine.stop()
    for one, two in zip(itself, in_two, strict=True):
        assert (one.token_ids[4], one.token_ids.index(1)) == (1, 4)
        assert one.text and len(one.token_ids) == 12
        assert (two.token_ids, two.text, two.reasoning) == (one.token_ids, one.text, one.reasoning)
        assert two.finish_reason == one.finish_reason == "length"
        assert two.usage.completion_tokens == one.usage.completion_tokens - 1, "the end of the thinking was given to it"
        assert two.usage.prompt_tokens == 2 * one.usage.prompt_tokens + 5
    assert counted == sum((answer.usage for answer in (*itself, *in_two)), Usage())


@pytest.mark.usefixtures("forked")
def test_a_seeded_request_gets_the_same_answer_when_its_prompt_is_computed_in_several_steps(tmp_path: Path) -> None:
    seeded = Sampling((("max_tokens", 24), ("temperature", 1.5), ("seed", 3)))
    found = []
    for tokens_a_step, in_process in ((256, True), (16, True), (16, False)):
        args = {**SMALL, "max_num_batched_tokens": tokens_a_step}
        settings = EngineSettings(args=args, in_process=in_process)
        engine = VllmEngine(str(DEMO_MODEL), settings, ChatSettings(), tmp_path / "log")
        engine.start()
        try:
            found.append([answer.token_ids for answer in ask(engine, NUMBERS[:12], seeded)])
        finally:
            engine.stop()
    at_once, in_pieces, in_pieces_apart = found
    assert in_pieces == at_once
    assert in_pieces_apart == at_once
    assert len(set(at_once)) > 1


def test_the_cache_is_of_memory_that_is_cleared_by_its_use(engine: VllmEngine) -> None:
    """Fails where a new vLLM allocates it elsewhere: then every start clears all of it, and nothing else."""
    core = engine._llm.llm_engine.engine_core.engine_core
    caches = core.model_executor.driver_worker.worker.model_runner.kv_caches
    assert caches
    assert not any(cache.untyped_storage().resizable() for cache in caches), "torch's own memory can be resized"


def test_a_second_start_loads_what_the_first_compiled_and_computes_the_very_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CACHE_ROOT", str(tmp_path / "cache"))
    monkeypatch.delenv("TORCHDYNAMO_DISABLE", raising=False)
    monkeypatch.delenv("VLLM_USE_AOT_COMPILE", raising=False)
    told = Sampling((("logprobs", 1), ("max_tokens", 16), ("temperature", 0.0)))
    one_layer = {"hf_overrides": {"num_hidden_layers": 1}, "load_format": "dummy"}  # of four each would be compiled
    settings = EngineSettings(args={**SMALL, **one_layer, "enforce_eager": False}, in_process=True)
    found = []
    for name in ("compiles", "loads"):
        log = tmp_path / f"{name}.log"
        engine = VllmEngine(str(DEMO_MODEL), settings, ChatSettings(), log)
        engine.start()
        try:
            found.append([(answer.token_ids, answer.logprobs) for answer in ask(engine, NUMBERS[:8], told)])
        finally:
            engine.stop()
        assert ("Directly load AOT compilation" in log.read_text()) == (name == "loads")
    compiled, loaded = found
    assert loaded == compiled


def _adapter(folder: Path) -> str:
    """A LoRA adapter of random weights for the demo model."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 64, "target_modules": ["q_proj", "v_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(1)
    weights = {}
    for layer in range(4):
        for name in ("q_proj", "v_proj"):
            place = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            weights[f"{place}.lora_A.weight"] = torch.randn(8, 128, generator=generator)
            weights[f"{place}.lora_B.weight"] = torch.randn(128, 8, generator=generator)
    save_file(weights, folder / "adapter_model.safetensors")
    return str(folder)


def test_a_request_may_name_an_adapter_and_thinking_is_split_off(tmp_path: Path) -> None:
    lora = {"wild": _adapter(tmp_path / "wild")}
    settings = EngineSettings(args=SMALL, in_process=True, lora=lora, reasoning_parser="granite")
    engine = VllmEngine(str(DEMO_MODEL), settings, ChatSettings(), tmp_path / "engine.log")
    engine.start()
    try:
        plain, wild, again = (ask(engine, NUMBERS[:4], lora=name) for name in (None, "wild", None))
        assert [a.text for a in plain] == [a.text for a in again]
        assert [a.text for a in plain] != [a.text for a in wild]

        (ids,) = engine.tokenize([NUMBERS[0]])
        (thought,) = engine.tokenize([Prompt(text="Here is my thought process: so. Here is my response: ")])
        request = Request(RequestKey(0), NUMBERS[0], GREEDY, token_ids=ids, partial=tuple(thought))  # type: ignore[arg-type]
        (answer,) = run(engine, [request])
        assert isinstance(answer, Completion)
        assert (answer.reasoning or "").strip() == "so."
        assert "thought process" not in answer.text
    finally:
        engine.stop()
