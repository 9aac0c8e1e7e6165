"""The harnesses on the real engine: likelihoods and answers as lm-evaluation-harness's own Hugging Face backend has them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmbatch.engines.keeper import EngineKeeper
from llmbatch.job.job import DEMO_MODEL

pytestmark = pytest.mark.vllm

CONTEXT = 256
ARGS: dict[str, Any] = {
    "model": "demo",
    "enforce_eager": True,
    "kv_cache_memory_bytes": 1 << 27,
    "max_num_seqs": 16,
    "dtype": "float32",
    "max_model_len": CONTEXT,
}
NUMBERS = ("forty-two", "two hundred eighty-one", "one thousand", "nine thousand six")
CHAT = "<|system|>Translate to French.<|end|><|user|>{}<|end|><|assistant|>"


def setup_module() -> None:
    """The harness takes seconds to import, and each of pytest's workers reads every test file."""
    global Instance, LlmbatchLM
    from lm_eval.api.instance import Instance

    from llmbatch.integrations.lm_eval import LlmbatchLM


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlmbatchLM]:
    lm = LlmbatchLM(**ARGS, output=tmp_path_factory.mktemp("scores"))
    yield lm
    lm._batches.close()


@pytest.fixture(scope="module")
def theirs() -> Any:
    """Its greatest length is two less, so that it cuts a context at the same token (see ``eval/harness/backend.py``)."""
    pytest.importorskip("accelerate")
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(DEMO_MODEL), dtype="float32", device="cpu", batch_size=4, max_length=CONTEXT - 2)


def requests(kind: str, arguments: list[tuple[Any, ...]]) -> list[Instance]:
    return [Instance(kind, {}, each, 0, metadata=("task", number, 1)) for number, each in enumerate(arguments)]


def test_likelihoods_are_those_of_the_hugging_face_backend(ours: LlmbatchLM, theirs: Any) -> None:
    context = CHAT.format("forty-two")
    pairs = [(context, words) for words in ("quarante-deux", " quarante", "deux", "quarante-deux<|end|>")]
    pairs += [("", "one two"), ("one two ", "three"), ("number " * 400, "four five")]
    found = ours.loglikelihood(requests("loglikelihood", pairs))
    expected = theirs.loglikelihood(requests("loglikelihood", pairs))
    assert [score for score, _ in found] == pytest.approx([score for score, _ in expected], rel=1e-4, abs=1e-3)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    assert found[0][1]  # the demo model knows this one


def test_long_texts_are_rolled_over_as_in_the_hugging_face_backend(ours: LlmbatchLM, theirs: Any) -> None:
    texts = [("one two three. " * 200,), ("four five",)]
    found = ours.loglikelihood_rolling(requests("loglikelihood_rolling", texts))
    assert found == pytest.approx(theirs.loglikelihood_rolling(requests("loglikelihood_rolling", texts)), rel=1e-4)


def test_answers_are_those_of_the_hugging_face_backend(ours: LlmbatchLM, theirs: Any) -> None:
    given = {"until": ["\n", "-"], "do_sample": False, "max_gen_toks": 48}
    arguments = [(CHAT.format(number), given) for number in NUMBERS]
    found = ours.generate_until(requests("generate_until", arguments))
    assert found == theirs.generate_until(requests("generate_until", arguments))
    assert found[0] == "quarante"


def test_an_answer_drawn_at_random_is_the_same_another_time(ours: LlmbatchLM, tmp_path: Path) -> None:
    given = {"until": [], "do_sample": True, "temperature": 2.0, "max_gen_toks": 20, "ignore_eos": True}
    asked = requests("generate_until", [("some text", given), ("some text", given), ("more", given)])
    first = ours.generate_until(asked)
    other = LlmbatchLM(**ARGS, output=tmp_path)
    other._batches._keeper = ours._batches._keeper  # another folder, the same engine
    again = other.generate_until(asked)
    other._batches._keeper = EngineKeeper()  # it ends its own with itself
    assert again == first and first[0] != first[1]


def test_inspect_gets_answers_of_many_samples_from_one_engine() -> None:
    pytest.importorskip("inspect_ai")
    from inspect_ai.model import ChatMessageSystem, ChatMessageUser, GenerateConfig

    from llmbatch.integrations.inspect_ai import LlmbatchAPI

    args = {key: value for key, value in ARGS.items() if key != "model"}
    api = LlmbatchAPI("demo", **args)
    config = GenerateConfig(temperature=0.0, max_tokens=48)

    async def ask(number: str) -> Any:
        chat = [ChatMessageSystem(content="Translate to French."), ChatMessageUser(content=number)]
        return await api.generate(chat, [], "auto", config)

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*map(ask, NUMBERS * 10))

    outputs = asyncio.run(all_of_them())
    api.close()
    assert [output.completion for output in outputs[:2]] == ["quarante-deux", "deux cent quatre-vingt-un"]
    assert [output.completion for output in outputs] == [output.completion for output in outputs[:4]] * 10
    assert {output.stop_reason for output in outputs} == {"stop"}
