"""The transformers engine with the demo model, both ways in which it runs one, against the library itself."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.errors import EngineDied, JobError, OutOfMemory
from llmbatch.core.types import (
    Completion,
    Constraint,
    FailureKind,
    Outcome,
    Prompt,
    Refusal,
    Request,
    RequestKey,
    Sampling,
    Usage,
)
from llmbatch.engines.base import EngineInfo
from llmbatch.engines.devices import Machine
from llmbatch.engines.feed import Feed
from llmbatch.engines.kinds import Around, checked, kind_of, make_engine
from llmbatch.engines.settings import EngineSettings
from llmbatch.engines.transformers import kind as kind_module
from llmbatch.engines.transformers.constraints import _quoted
from llmbatch.engines.transformers.engine import TransformersEngine
from llmbatch.job.job import DEMO_MODEL
from llmbatch.model.tokenizer import ChatSettings

CONTEXT = 512
END = 4  # the demo model's <|end|>
NUMBERS = [
    Prompt(messages=({"role": "system", "content": f"Translate to {language}."}, {"role": "user", "content": number}))
    for language in ("French", "German")
    for number in (
        "one",
        "two hundred and eleven",
        "six thousand nine hundred and sixty-two",
        "forty-two",
        "nine",
        "ten",
    )
]
GREEDY = {"temperature": 0.0, "max_tokens": 48}


def engine_of(log: Path, batching: str, **settings: Any) -> TransformersEngine:
    args = {
        "batching": batching,
        "device": "cpu",
        "max_model_len": CONTEXT,
        "max_num_seqs": 16,
        **settings.pop("args", {}),
    }
    made = make_engine(str(DEMO_MODEL), EngineSettings(name="transformers", args=args, **settings), ChatSettings(), log)
    assert isinstance(made, TransformersEngine)
    return made


@pytest.fixture(scope="module", params=["continuous", "plain"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TransformersEngine]:
    made = engine_of(tmp_path_factory.mktemp("transformers") / "engine.log", request.param)
    info = made.start()
    assert info.details["batching"] == request.param
    yield made
    made.stop()


@pytest.fixture(scope="module")
def model() -> Any:
    """The library's own, which nothing of ours has touched."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(str(DEMO_MODEL)).eval()


def run(engine: TransformersEngine, requests: Sequence[Request]) -> list[Outcome]:
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


def requests_of(
    engine: TransformersEngine, prompts: Sequence[Prompt], sampling: dict[str, Any], **more: Any
) -> list[Request]:
    given = Sampling(tuple(sorted(sampling.items())))
    ids = engine.tokenize(prompts)
    return [
        Request(RequestKey(i), prompt, given, token_ids=ids[i], **more)  # type: ignore[arg-type]
        for i, prompt in enumerate(prompts)
    ]


def ask(
    engine: TransformersEngine, prompts: Sequence[Prompt], sampling: dict[str, Any], **more: Any
) -> list[Completion]:
    outcomes = run(engine, requests_of(engine, prompts, sampling, **more))
    assert all(isinstance(outcome, Completion) for outcome in outcomes), outcomes
    return outcomes  # type: ignore[return-value]


def alone(model: Any, ids: Sequence[int], *, seed: int | None = None, **settings: Any) -> list[int]:
    """The tokens of the library's ``generate`` for one prompt."""
    import torch

    if seed is not None:
        torch.manual_seed(seed)
    given = torch.tensor([list(ids)])
    made = model.generate(given, attention_mask=torch.ones_like(given), pad_token_id=0, **settings)
    tokens: list[int] = made[0, len(ids) :].tolist()
    return tokens


def test_its_tokens_are_those_of_the_librarys_own_generate_batch(engine: TransformersEngine, model: Any) -> None:
    from transformers import ContinuousBatchingConfig, GenerationConfig

    ids = engine.tokenize(NUMBERS)
    config = GenerationConfig(do_sample=False, max_new_tokens=48, eos_token_id=END, pad_token_id=0)
    small = ContinuousBatchingConfig(num_blocks=32, page_size=32, max_batch_tokens=512)
    theirs = [list(o.generated_tokens) for o in model.generate_batch(ids, config, small).values()]
    ours = ask(engine, NUMBERS, GREEDY)
    assert [list(completion.token_ids) for completion in ours] == theirs
    assert [completion.finish_reason for completion in ours] == ["stop"] * len(ours)
    assert ours[1].text == "deux cent onze"
    assert ours[1].usage == Usage(len(ids[1]), len(theirs[1]))


SAMPLED = {"temperature": 6.0, "top_k": 40, "top_p": 0.95}


def test_with_a_seed_its_tokens_are_those_of_the_librarys_generate_for_that_prompt_alone(
    engine: TransformersEngine, model: Any
) -> None:
    ours = ask(engine, NUMBERS, {**SAMPLED, "seed": 11, "max_tokens": 20})
    theirs = [
        alone(model, ids, seed=11, do_sample=True, max_new_tokens=20, **SAMPLED) for ids in engine.tokenize(NUMBERS)
    ]
    assert [list(completion.token_ids) for completion in ours] == theirs
    assert [c.token_ids for c in ours] != [c.token_ids for c in ask(engine, NUMBERS, GREEDY)]


def test_rows_of_different_settings_share_a_batch_and_each_is_as_it_is_alone(engine: TransformersEngine) -> None:
    settings = [
        GREEDY,
        {**SAMPLED, "seed": 1, "max_tokens": 30},
        {**SAMPLED, "seed": 2, "max_tokens": 30, "min_p": 0.01},
        {**GREEDY, "min_tokens": 12},
        {**GREEDY, "max_tokens": 2},
        {**GREEDY, "repetition_penalty": 1.6},
        {**GREEDY, "stop": (" cent",)},
    ]
    each = [requests_of(engine, NUMBERS[i : i + 1], sampling)[0] for i, sampling in enumerate(settings)]
    together = [Request(RequestKey(i), r.prompt, r.sampling, token_ids=r.token_ids) for i, r in enumerate(each)]
    alone = [outcome for request in each for outcome in run(engine, [request])]
    assert [o.token_ids for o in run(engine, together)] == [o.token_ids for o in alone]  # type: ignore[union-attr]


def test_a_seed_of_a_request_goes_before_that_of_the_sampling(engine: TransformersEngine) -> None:
    one = ask(engine, NUMBERS[:3], {**SAMPLED, "seed": 5, "max_tokens": 20}, seed=9)
    other = ask(engine, NUMBERS[:3], {**SAMPLED, "seed": 9, "max_tokens": 20})
    assert [c.token_ids for c in one] == [c.token_ids for c in other]


def test_an_answer_is_gone_on_from_its_partial_one(engine: TransformersEngine) -> None:
    (whole,) = ask(engine, NUMBERS[2:3], GREEDY)
    (cut,) = ask(engine, NUMBERS[2:3], GREEDY, max_tokens=4)
    assert (cut.finish_reason, cut.usage.completion_tokens) == ("length", 4)
    (rest,) = ask(engine, NUMBERS[2:3], GREEDY, partial=tuple(cut.token_ids))
    assert (rest.text, list(rest.token_ids), rest.finish_reason) == (whole.text, list(whole.token_ids), "stop")
    assert rest.usage.completion_tokens == whole.usage.completion_tokens - 4


def test_a_stop_string_ends_an_answer_also_where_it_began_in_the_partial_one(engine: TransformersEngine) -> None:
    (whole,) = ask(engine, NUMBERS[1:2], GREEDY)
    assert whole.text == "deux cent onze"
    (cut,) = ask(engine, NUMBERS[1:2], {**GREEDY, "stop": ("nt o", "never")})
    assert (cut.text, cut.finish_reason, cut.stop_reason) == ("deux ce", "stop", "nt o")
    assert list(cut.token_ids) == list(whole.token_ids)[: len(cut.token_ids)]
    (kept,) = ask(engine, NUMBERS[1:2], {**GREEDY, "stop": "nt o", "include_stop_str_in_output": True})
    assert kept.text == "deux cent o"
    size = next(n for n in range(1, 10) if ask(engine, NUMBERS[1:2], GREEDY, max_tokens=n)[0].text == "deux cent")
    (joined,) = ask(engine, NUMBERS[1:2], {**GREEDY, "stop": ("nt o",)}, partial=tuple(whole.token_ids[:size]))
    assert (joined.text, joined.stop_reason) == ("deux ce", "nt o")


def test_where_an_answer_may_end_is_as_asked(engine: TransformersEngine) -> None:
    (whole,) = ask(engine, NUMBERS[1:2], GREEDY)
    (endless,) = ask(engine, NUMBERS[1:2], {**GREEDY, "ignore_eos": True, "max_tokens": 30})
    assert (len(endless.token_ids), endless.finish_reason) == (30, "length")
    assert END in endless.token_ids
    (later,) = ask(engine, NUMBERS[1:2], {**GREEDY, "min_tokens": 20, "max_tokens": 25})
    assert END not in later.token_ids[:19]
    third = whole.token_ids[2]
    (stopped,) = ask(engine, NUMBERS[1:2], {**GREEDY, "stop_token_ids": (third,)})
    assert (len(stopped.token_ids), stopped.stop_reason) == (list(whole.token_ids).index(third) + 1, third)


def test_what_tokens_may_come_is_as_asked(engine: TransformersEngine, model: Any) -> None:
    ids = engine.tokenize(NUMBERS[:4])
    theirs = [alone(model, each, max_new_tokens=24, repetition_penalty=1.8) for each in ids]
    ours = ask(engine, NUMBERS[:4], {"temperature": 0.0, "max_tokens": 24, "repetition_penalty": 1.8})
    assert [list(c.token_ids) for c in ours] == theirs
    (usual,) = ask(engine, NUMBERS[1:2], GREEDY)
    first = usual.token_ids[0]
    (biased,) = ask(engine, NUMBERS[1:2], {**GREEDY, "logit_bias": ((str(first), -100.0),)})
    assert biased.token_ids[0] != first
    (without,) = ask(engine, NUMBERS[1:2], {**GREEDY, "bad_words": ("deux",)})
    assert "deux" not in without.text
    (only,) = ask(engine, NUMBERS[1:2], {**GREEDY, "allowed_token_ids": (first, END), "max_tokens": 8})
    assert set(only.token_ids) <= {first, END}
    (varied,) = ask(engine, NUMBERS[1:2], {**GREEDY, "frequency_penalty": 2.0, "ignore_eos": True})
    (repeated,) = ask(engine, NUMBERS[1:2], {**GREEDY, "ignore_eos": True})
    assert len(set(varied.token_ids)) > len(set(repeated.token_ids))


SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["x", "why"]}, "count": {"enum": [7, 41]}},
    "required": ["name", "count"],
    "additionalProperties": False,
}


def test_an_answer_is_held_to_its_constraint_beside_others_that_are_held_to_none(engine: TransformersEngine) -> None:
    constraints = [
        Constraint("choice", json.dumps(['one "a"\n', "été 🙂"])),
        Constraint("regex", "[x-z]{4}-[0-9]{2}"),
        Constraint("json", json.dumps(SCHEMA)),
        None,
        Constraint("grammar", 'root ::= "so " [a-c] [a-c]'),
    ]
    for sampling in (GREEDY, {**SAMPLED, "seed": 2, "max_tokens": 48}):
        asked = requests_of(engine, NUMBERS[:1] * 5, sampling)
        outcomes = run(
            engine,
            [replace(request, constraint=each) for request, each in zip(asked, constraints, strict=True)],
        )
        found = [outcome.text for outcome in outcomes if isinstance(outcome, Completion)]
        assert found[0] in ('one "a"\n', "été 🙂")
        assert re.fullmatch("[x-z]{4}-[0-9]{2}", found[1])
        assert json.loads(found[2])["name"] in ("x", "why")
        assert re.fullmatch("so [a-c]{2}", found[4])
        assert [outcome.finish_reason for outcome in outcomes] == ["stop"] * 5  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ["🙂 gut", "数\x7f", 'a "b"\\c\n'])
def test_a_choice_may_hold_any_character(text: str) -> None:
    xgrammar = pytest.importorskip("xgrammar")
    from xgrammar.testing import _is_grammar_accept_string as accepts

    grammar = xgrammar.Grammar.from_ebnf(f"root ::= {_quoted(text)}")
    assert accepts(grammar, text)
    assert not accepts(grammar, "x" + text)


def test_log_probabilities_are_the_models_own_whatever_the_temperature(engine: TransformersEngine, model: Any) -> None:
    import torch

    (answer,) = ask(engine, NUMBERS[1:2], {"temperature": 1.5, "seed": 3, "max_tokens": 12, "logprobs": 2})
    (prompt,) = engine.tokenize(NUMBERS[1:2])
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *answer.token_ids]])).logits[0, len(prompt) - 1 : -1]
    expected = logits.log_softmax(-1)
    assert answer.logprobs is not None
    assert len(answer.logprobs) == len(answer.token_ids)
    for place, (entry, token) in enumerate(zip(answer.logprobs, answer.token_ids, strict=True)):
        assert entry["logprob"] == pytest.approx(float(expected[place, token]), abs=1e-3)
        best = expected[place].topk(2).values.tolist()
        assert [each["logprob"] for each in entry["top"]] == pytest.approx(best, abs=1e-3)


def test_the_likelihood_of_a_continuation_is_that_of_the_models_logits(engine: TransformersEngine, model: Any) -> None:
    import torch

    ids = engine.tokenize(NUMBERS)
    (right,) = ask(engine, NUMBERS[1:2], GREEDY)
    targets = [right.token_ids if i == 1 else tuple(range(20 + i, 22 + 2 * i)) for i in range(len(ids))]
    outcomes = run(
        engine,
        [
            Request(RequestKey(i), NUMBERS[i], Sampling(), token_ids=ids[i], target="given", target_ids=target)
            for i, target in enumerate(targets)
        ],
    )
    for outcome, prompt, target in zip(outcomes, ids, targets, strict=True):
        assert isinstance(outcome, Completion)
        assert outcome.score is not None
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *target]])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        expected = sum(float(logits[place, token]) for place, token in enumerate(target))
        assert outcome.score.logprob == pytest.approx(expected, abs=1e-2)
        assert outcome.score.tokens == len(target)
        assert outcome.score.greedy == (logits.argmax(-1).tolist() == list(target))
    assert outcomes[1].score.greedy  # type: ignore[union-attr]


def test_a_request_that_cannot_be_answered_fails_alone(engine: TransformersEngine) -> None:
    (good,) = requests_of(engine, NUMBERS[1:2], GREEDY)
    greedy = good.sampling
    bad = [
        Request(RequestKey(1), NUMBERS[0], greedy, token_ids=[9] * CONTEXT),
        Request(RequestKey(2), NUMBERS[0], greedy, token_ids=[9, 512]),
        Request(RequestKey(3), NUMBERS[0], greedy, token_ids=[]),
        Request(RequestKey(4), NUMBERS[0], greedy, token_ids=[9], lora="legal"),
        Request(RequestKey(5), NUMBERS[0], greedy.replace(prompt_logprobs=1), token_ids=[9]),
        Request(RequestKey(6), NUMBERS[0], greedy.replace(top_q=1), token_ids=[9]),
        Request(RequestKey(7), NUMBERS[0], greedy.replace(allowed_token_ids=(600,)), token_ids=[9]),
        Request(RequestKey(8), NUMBERS[0], greedy, token_ids=[9] * CONTEXT, target="x", target_ids=(1,)),
    ]
    answered, *refused = run(engine, [good, *bad])
    assert isinstance(answered, Completion)
    assert answered.text == "deux cent onze"
    failures = [each.failure for each in refused if isinstance(each, Refusal)]
    assert [failure.kind for failure in failures] == [
        FailureKind.TOO_LONG,
        *[FailureKind.REFUSED] * 6,
        FailureKind.TOO_LONG,
    ]
    for failure, said in zip(
        failures, ["512", "512", "no token", "legal", "prompt_logprobs", "top_p", "600", "512"], strict=True
    ):
        assert said in failure.message


def test_an_answer_is_cut_off_where_the_context_ends(engine: TransformersEngine) -> None:
    request = Request(
        RequestKey(0), NUMBERS[0], Sampling((("ignore_eos", True), ("temperature", 0.0))), token_ids=[9] * (CONTEXT - 3)
    )
    (outcome,) = run(engine, [request])
    assert isinstance(outcome, Completion)
    assert (len(outcome.token_ids), outcome.finish_reason) == (3, "length")


def test_what_is_given_up_is_not_answered_and_the_stream_can_go_on(engine: TransformersEngine) -> None:
    feed = Feed()
    feed.push(requests_of(engine, NUMBERS, {"temperature": 0.0, "ignore_eos": True, "max_tokens": 400}))
    stream = engine.stream(feed)
    next(stream)
    engine.abort()
    feed.recall()
    (again,) = ask(engine, NUMBERS[1:2], GREEDY)
    assert again.text == "deux cent onze"


def test_it_counts_what_it_answered(engine: TransformersEngine) -> None:
    before, busy = engine.counts(), engine.busy()
    answers = ask(engine, NUMBERS, GREEDY)
    assert engine.counts() - before == sum((answer.usage for answer in answers), Usage())
    assert engine.busy() > busy


@pytest.mark.parametrize("batching", ["continuous", "plain"])
@pytest.mark.parametrize(
    ("raised", "memory"), [("DefaultCPUAllocator: can't allocate memory", True), ("shape mismatch", False)]
)
def test_what_the_model_raises_is_the_engines_death_and_no_thread_is_left(
    tmp_path: Path, batching: str, raised: str, memory: bool
) -> None:
    threads = set(threading.enumerate())
    engine = engine_of(tmp_path / "engine.log", batching)
    engine.start()

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError(raised)

    engine._loaded.model.forward = fail  # type: ignore[union-attr]
    with pytest.raises(EngineDied, match=raised) as died:
        ask(engine, NUMBERS, GREEDY)
    assert isinstance(died.value.__cause__, OutOfMemory) == memory
    engine.stop()
    engine.stop()
    assert set(threading.enumerate()) == threads


@pytest.mark.parametrize("batching", ["continuous", "plain"])
def test_a_model_that_gives_no_sign_of_life_for_the_timeout_is_a_death(tmp_path: Path, batching: str) -> None:
    engine = engine_of(tmp_path / "engine.log", batching, timeout=0.2)
    engine.start()
    release = threading.Event()
    forward = engine._loaded.model.forward  # type: ignore[union-attr]

    def hang(*args: Any, **kwargs: Any) -> Any:
        release.wait(60)
        return forward(*args, **kwargs)

    hang.__signature__ = signature(forward)  # type: ignore[attr-defined]
    engine._loaded.model.forward = hang  # type: ignore[union-attr]
    with pytest.raises(EngineDied, match="no sign of life"):
        ask(engine, NUMBERS[:1], GREEDY)
    release.set()
    engine.stop()


def test_a_model_s_folder_that_is_not_there_is_said_before_anything_is_imported(tmp_path: Path) -> None:
    settings = EngineSettings(name="transformers")
    with pytest.raises(JobError, match="there is no such folder"):
        make_engine(str(tmp_path / "none"), settings, ChatSettings(), tmp_path / "log")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"max_sequences": 3}, "max_num_seqs"),
        ({"batching": "static"}, "auto, continuous, plain"),
        ({"max_num_seqs": 0}, "at least 1"),
        ({"torch_dtype": "float32"}, "engine.args.dtype"),
        ({"device": "tpu9"}, "no such device"),
        ({"max_model_len": 5000}, "4,096"),
        ({"dtype": "float31"}, "float31"),
    ],
)
def test_arguments_that_it_cannot_use_are_refused_naming_them(tmp_path: Path, args: dict[str, Any], said: str) -> None:
    with pytest.raises(Exception, match=said) as refused:
        engine_of(tmp_path / "engine.log", "plain", args=args).start()
    assert type(refused.value).__module__ == "llmbatch.core.errors"


@pytest.mark.parametrize(
    "settings",
    [
        {"script": "a.yaml"},
        {"reasoning_parser": "qwen3"},
        {"tool_call_parser": "hermes"},
        {"in_process": False},
        {"lora": {"a": "b"}},
    ],
)
def test_settings_that_it_has_no_use_for_are_refused_naming_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    monkeypatch.setattr(kind_module, "find_spec", lambda name: None if name == "peft" else find_spec(name))
    with pytest.raises(JobError, match=f"engine.{next(iter(settings))}"):
        engine_of(tmp_path / "engine.log", "plain", **settings)


def test_a_model_that_is_not_there_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    settings = EngineSettings(name="transformers")
    with pytest.raises(JobError, match="nowhere"):
        make_engine(str(tmp_path / "nowhere"), settings, ChatSettings(), tmp_path / "log").tokenize([])


INFO = EngineInfo("transformers", "5", "m", 4096, 64)


def test_with_less_memory_half_as_many_run_at_a_time_down_to_one() -> None:
    kind, settings = kind_of("transformers"), EngineSettings(name="transformers", args={"num_blocks": 100})
    sizes = []
    while (smaller := kind.smaller(settings, INFO)) is not None:
        settings = smaller.settings
        sizes.append((settings.args["max_num_seqs"], settings.args["num_blocks"]))
    assert sizes == [(32, 50), (16, 25), (8, 12), (4, 6), (2, 3), (1, 1)]


def test_what_may_be_faster_is_tried_where_the_job_leaves_it_open() -> None:
    kind = kind_of("transformers")
    tried = kind.candidates(EngineSettings(name="transformers"), Around(INFO))
    assert [candidate.name for candidate in tried] == ["max_num_seqs=128", "max_num_seqs=32"]
    assert kind.candidates(EngineSettings(name="transformers", args={"max_num_seqs": 8}), Around(INFO)) == []


def test_several_engines_have_a_gpu_each_or_a_share_of_the_processors() -> None:
    kind = kind_of("transformers")
    two = checked(EngineSettings(name="transformers", replicas=2))
    places = kind.places(two, Machine(gpus=("0", "3", "5")))
    assert [dict(place.environment) for place in places] == [
        {"CUDA_VISIBLE_DEVICES": "0"},
        {"CUDA_VISIBLE_DEVICES": "3"},
    ]
    assert [place.cpus for place in kind.places(two, Machine(cpus=(0, 1, 2, 3)))] == [(0, 1), (2, 3)]
    with pytest.raises(JobError, match="--replicas 1"):
        kind.places(two, Machine(gpus=("0",)))


def test_results_depend_on_what_is_loaded_and_not_on_how_fast_it_runs() -> None:
    args = {
        "dtype": "bfloat16",
        "revision": "v2",
        "max_num_seqs": 3,
        "batching": "plain",
        "page_size": 32,
        "device": "cpu",
    }
    identity = kind_of("transformers").identity(EngineSettings(name="transformers", args=args))
    assert identity == {"dtype": "bfloat16", "revision": "v2"}


def test_without_torch_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kind_module, "find_spec", lambda name: None if name == "torch" else find_spec(name))
    with pytest.raises(JobError, match=r"pip install 'llmbatch\[transformers\]'"):
        engine_of(tmp_path / "engine.log", "plain")
