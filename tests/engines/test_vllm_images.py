"""Prompts with images on the real engine, on a small vision model with random weights: the tokens are those of ``LLM.chat``."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image as Pillow

from llmbatch.core.errors import JobError
from llmbatch.core.messages import image_part, images_in
from llmbatch.core.types import (
    Completion,
    Failure,
    FailureKind,
    Outcome,
    Prompt,
    Refusal,
    Request,
    RequestKey,
    Sampling,
)
from llmbatch.engines.base import EngineInfo
from llmbatch.engines.feed import Feed
from llmbatch.engines.settings import EngineSettings
from llmbatch.engines.vllm.engine import VllmEngine
from llmbatch.engines.vllm.kind import KIND
from llmbatch.engines.vllm.render import Chat
from llmbatch.images.ahead import Looker, load
from llmbatch.images.base import ImageSettings
from llmbatch.job.job import DEMO_MODEL, job_from
from llmbatch.job.recipe import Recipe
from llmbatch.model.tokenizer import ChatSettings, load_tokenizer
from llmbatch.model.vision import takes_text_alone

sys.path.insert(0, str(Path(__file__).parents[1]))

from tiny_vision import make_vision_model

CONTEXT = 512
ARGS = {
    "enforce_eager": True,
    "kv_cache_memory_bytes": 1 << 27,
    "max_num_seqs": 8,
    "dtype": "float32",
    "max_model_len": CONTEXT,
    "limit_mm_per_prompt": {"image": 3},
}
GREEDY = Sampling((("ignore_eos", True), ("max_tokens", 12), ("temperature", 0.0)))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vision")
    make_vision_model(folder)
    return folder


@pytest.fixture(scope="module")
def started(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[VllmEngine, EngineInfo]]:
    log = tmp_path_factory.mktemp("log") / "engine.log"
    made = VllmEngine(str(model), EngineSettings(args=ARGS, in_process=True), ChatSettings(), log)
    yield made, made.start()
    made.stop()


@pytest.fixture(scope="module")
def engine(started: tuple[VllmEngine, EngineInfo]) -> VllmEngine:
    engine, info = started
    assert "images" in info.can
    return engine


@pytest.fixture(scope="module")
def info(started: tuple[VllmEngine, EngineInfo]) -> EngineInfo:
    return started[1]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files of images by what is special about them."""
    folder = tmp_path_factory.mktemp("pictures")
    turned = Pillow.Exif()
    turned[0x0112] = 6
    noise = Pillow.effect_noise((90, 40), 80)
    made: dict[str, tuple[Any, dict[str, Any]]] = {
        "noise.png": (noise, {}),
        "wide.jpg": (Pillow.effect_noise((200, 30), 80).convert("RGB"), {}),
        "turned.jpg": (noise.convert("RGB"), {"exif": turned}),
        "clear.png": (Pillow.merge("LA", (noise, noise.transpose(Pillow.Transpose.ROTATE_180))), {}),
    }
    for name, (picture, how) in made.items():
        picture.save(folder / name, **how)
    whole = (folder / "wide.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    return {path.name: str(path) for path in folder.iterdir()}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def asking(*parts: dict[str, Any]) -> Prompt:
    messages = ({"role": "system", "content": "Look."}, {"role": "user", "content": list(parts)})
    return Prompt(messages=messages, images=images_in(messages))


def requests_of(engine: VllmEngine, prompts: Sequence[Prompt]) -> list[Request]:
    """As a run makes them."""
    looked = Looker(ImageSettings()).look(prompts)
    seen = [replace(p, images=i) for p, i in zip(prompts, looked, strict=True) if not isinstance(i, Failure)]
    ids = engine.tokenize(seen)
    return [
        Request(RequestKey(i), prompt, GREEDY, token_ids=None if isinstance(each, Failure) else each)
        for i, (prompt, each) in enumerate(zip(seen, ids, strict=True))
    ]


def answers(engine: VllmEngine, requests: Sequence[Request]) -> list[Outcome]:
    feed = Feed()
    feed.push(requests)
    feed.close()
    found: dict[RequestKey, Outcome] = {}
    for outcomes in engine.stream(feed):
        for outcome in outcomes:
            feed.done(outcome.key)
            found[outcome.key] = outcome
    return [found[request.key] for request in requests]


def bare(engine: VllmEngine, prompt: Prompt) -> tuple[list[int], tuple[int, ...], str]:
    """(prompt's ids, answer's ids, answer) of ``LLM.chat`` on the same messages, which gets the files as data URIs."""
    from vllm import SamplingParams

    chat = []
    for message in prompt.messages or ():
        content = message["content"]
        if not isinstance(content, str):
            content = [_as_data(part) for part in content]
        chat.append({"role": message["role"], "content": content})
    params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    (output,) = engine._llm.chat([chat], params, use_tqdm=False)  # type: ignore[list-item]
    return list(output.prompt_token_ids), tuple(output.outputs[0].token_ids), output.outputs[0].text


def _as_data(part: dict[str, Any]) -> dict[str, Any]:
    if part["type"] == "text":
        return part
    read = Path(part["image_url"]["url"]).read_bytes()
    return image_part(f"data:image/png;base64,{base64.b64encode(read).decode()}")


@pytest.mark.vllm
def test_prompts_and_answers_are_those_of_the_bare_engine(engine: VllmEngine, pictures: dict[str, str]) -> None:
    prompts = [
        *[
            asking(text("What is "), image_part(pictures[name]), text("?"))
            for name in sorted(pictures)
            if name != "cut.jpg"
        ],
        asking(image_part(pictures["noise.png"]), text(" or "), image_part(pictures["wide.jpg"]), text("\nnow")),
        asking(image_part(pictures["noise.png"])),
        Prompt(messages=({"role": "user", "content": "no picture"},)),
    ]
    expected = [bare(engine, prompt)[:2] for prompt in prompts]
    found = answers(engine, requests_of(engine, prompts))
    for outcome, (prompt_ids, ids) in zip(found, expected, strict=True):
        assert isinstance(outcome, Completion), outcome
        assert tuple(outcome.token_ids) == ids
        assert outcome.usage.prompt_tokens == len(prompt_ids)
    same_question = [tuple(o.token_ids) for o in found[:4] if isinstance(o, Completion)]
    assert len(set(same_question)) == 4  # the model does see


@pytest.mark.vllm
def test_the_pixels_are_those_that_vllm_makes_of_the_same_bytes(model: Path, pictures: dict[str, str]) -> None:
    """Without an engine: what its processor gives, of our decoded images and of files that vLLM decodes itself."""
    from vllm import LLM
    from vllm.engine.arg_utils import EngineArgs
    from vllm.renderers import renderer_from_config

    config = EngineArgs(model=str(model), max_model_len=CONTEXT, mm_processor_cache_gb=0).create_engine_config()
    llm: Any = SimpleNamespace(
        renderer=renderer_from_config(config), model_config=config.model_config, chat_template=None
    )
    for name in ("noise.png", "wide.jpg", "turned.jpg", "clear.png"):
        prompt = asking(text("a"), image_part(pictures[name]), text("b"))
        loaded = load(prompt, ImageSettings())
        assert not isinstance(loaded, Failure)
        ours = Chat(None, {}).made(llm, prompt, lambda url, seen=loaded: {"type": "image_pil", "image_pil": seen[url]})
        chat = [{**m, "content": [_as_data(p) for p in m["content"]] if m["role"] == "user" else m["content"]}
                for m in prompt.messages or ()]  # fmt: skip
        (theirs,) = LLM._preprocess_chat(llm, [chat])
        assert ours["prompt_token_ids"] == theirs["prompt_token_ids"]
        (one,), (other,) = ours["mm_kwargs"]["image"], theirs["mm_kwargs"]["image"]
        assert one.keys() == other.keys()
        assert one["pixel_values"].data.shape[0] > 1  # tiles
        for key in one:
            assert bool((one[key].data == other[key].data).all()), (name, key)


@pytest.mark.vllm
def test_a_prompt_is_tokenized_without_its_images(engine: VllmEngine) -> None:
    one, four = engine.tokenize([asking(text("x"), image_part("/no/such.png")), asking(*[image_part("y")] * 4)])
    assert isinstance(one, list)
    assert engine._llm.get_tokenizer().decode(one).count("<image>") == 1
    assert isinstance(four, Failure)
    assert "At most 3 image(s)" in four.message


@pytest.mark.vllm
def test_a_broken_image_costs_its_row_alone(engine: VllmEngine, pictures: dict[str, str]) -> None:
    names = ["noise.png", "cut.jpg", "wide.jpg"]
    found = answers(engine, requests_of(engine, [asking(image_part(pictures[name]), text("?")) for name in names]))
    assert [type(outcome) for outcome in found] == [Completion, Refusal, Completion]
    assert isinstance(found[1], Refusal)
    assert found[1].failure.kind is FailureKind.IMAGE
    assert "cut.jpg' cannot be decoded: image file is truncated" in found[1].failure.message


class Lent:
    """An engine of this file that a run has for a while: the run neither starts nor stops it."""

    def __init__(self, engine: VllmEngine, info: EngineInfo) -> None:
        self._engine = engine
        self._info = info

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def start(self) -> EngineInfo:
        return self._info

    def stop(self) -> None:
        self._engine.abort()


@pytest.mark.vllm
def test_a_whole_run_sees_the_images_of_a_prompts_variable(
    jobs: Any,
    engine: VllmEngine,
    info: EngineInfo,
    model: Path,
    pictures: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a broken image, one that is not there, and one that is there twice under two names."""
    monkeypatch.setattr("llmbatch.engines.vllm.kind.KIND", replace(KIND, make=lambda *_: Lent(engine, info)))
    prompt = jobs.path / "look.yaml"
    prompt.write_text(
        "name: look\nvariables: {picture: {type: image}}\n"
        "messages: [{role: system, content: Look.}, {role: user, content: 'What is {{ picture }}?'}]\n"
    )
    names = ["noise.png", "cut.jpg", "wide.jpg", "none.png", "noise.png"]
    places = [str(Path(pictures["noise.png"]).with_name(name)) for name in names]
    rows = jobs.rows([{"id": i, "picture": place} for i, place in enumerate([*places, f"file://{places[0]}"])])
    sampling = {"temperature": 0, "max_tokens": 12, "ignore_eos": True}
    job = jobs.job(
        rows, prompt={"path": str(prompt)}, model=str(model), engine={"name": "vllm", "args": ARGS}, sampling=sampling,
        retry={"max_attempts": 1},
    )  # fmt: skip
    jobs.run(job)
    records = jobs.records()
    statuses = [record["status"] for record in records]
    assert statuses == ["ok", "failed", "ok", "failed", "ok", "ok"]
    assert {records[at]["error"]["kind"] for at in (1, 3)} == {"image"}
    assert "cut.jpg' cannot be decoded" in records[1]["error"]["message"]
    for at, name in ((0, "noise.png"), (2, "wide.jpg")):
        asked = asking(text("What is "), image_part(pictures[name]), text("?"))
        prompt_ids, _, said = bare(engine, asked)
        assert records[at]["usage"]["prompt_tokens"] == len(prompt_ids)
        assert records[at]["output"] == said
    assert records[0]["output"] == records[4]["output"] == records[5]["output"] != records[2]["output"]
    assert jobs.report()["rows"]["folded"] == 2


@pytest.mark.vllm
def test_what_is_too_long_with_its_images_is_refused(engine: VllmEngine, pictures: dict[str, str]) -> None:
    images = [image_part(pictures["noise.png"])] * 3
    (request,) = requests_of(engine, [asking(*images, text("x1" * 225))])
    assert len(request.token_ids or ()) < CONTEXT
    fitting, *_ = requests_of(engine, [asking(*images, text("x1" * 90))])
    refused, answered = answers(engine, [request, replace(fitting, key=RequestKey(1))])
    assert isinstance(refused, Refusal)
    assert refused.failure.kind is FailureKind.TOO_LONG
    assert isinstance(answered, Completion)


@pytest.mark.vllm
def test_an_answer_is_gone_on_with_after_its_images(engine: VllmEngine, pictures: dict[str, str]) -> None:
    (request,) = requests_of(engine, [asking(image_part(pictures["noise.png"]), text("?"))])
    (whole,) = answers(engine, [request])
    assert isinstance(whole, Completion)
    later = replace(request, partial=tuple(whole.token_ids[:5]), max_tokens=7)
    (gone_on,) = answers(engine, [later])
    assert isinstance(gone_on, Completion)
    assert gone_on.token_ids == whole.token_ids
    assert gone_on.text == whole.text


@pytest.mark.vllm
def test_many_requests_with_images_all_come_back_and_none_after_an_abort(
    engine: VllmEngine, pictures: dict[str, str]
) -> None:
    prompts = [asking(image_part(pictures["wide.jpg"]), text(f"{number}")) for number in range(40)]
    requests = requests_of(engine, prompts)
    assert {type(outcome) for outcome in answers(engine, requests)} == {Completion}
    feed = Feed()
    feed.push(requests)
    next(iter(engine.stream(feed)))
    engine.abort()
    assert len(answers(engine, requests[:3])) == 3


def test_a_model_that_takes_text_alone_is_told_before_it_is_loaded(tmp_path: Path, model: Path) -> None:
    assert takes_text_alone(str(DEMO_MODEL))
    assert not takes_text_alone(str(model))
    assert not takes_text_alone("nobody/has-this-model")
    prompt = tmp_path / "look.yaml"
    prompt.write_text("name: look\nvariables: {p: {type: image}}\nmessages: [{role: user, content: '{{ p }}'}]")
    job = {"prompt": str(prompt), "input": "rows.jsonl", "output": "out"}
    with pytest.raises(JobError, match=r"the prompt look has images, and the model .* takes text alone"):
        Recipe(job_from({**job, "model": "demo"}))
    Recipe(job_from({**job, "model": str(model)}))


def test_our_own_tokenizer_writes_the_mark_of_the_template_for_an_image(model: Path) -> None:
    prompt = asking(text("x"), image_part("a.png"), text("y"))
    seeing, blind = (load_tokenizer(str(each), ChatSettings()) for each in (model, DEMO_MODEL))
    assert seeing.render(prompt) == "<|system|>Look.<|end|><|user|>x<image>y<|end|><|assistant|>"
    assert blind.render(prompt) == "<|system|>Look.<|end|><|user|>x\ny<|end|><|assistant|>"
