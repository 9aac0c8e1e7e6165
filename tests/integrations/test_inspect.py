"""llmbatch as a provider of Inspect, on the scripted engine: what becomes of messages, settings, answers and deaths."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.errors import JobError, RunError


def setup_module() -> None:
    """Inspect takes seconds to import, and each of pytest's workers reads every test file."""
    pytest.importorskip("inspect_ai")
    global ChatMessageAssistant, ChatMessageSystem, ChatMessageTool, ChatMessageUser, ContentImage, ContentReasoning
    global ContentText, GenerateConfig, JSONSchema, LlmbatchAPI, ResponseSchema, Sample, ToolInfo, USER
    global generate, get_model, includes, inspect_ai
    import inspect_ai
    from inspect_ai.dataset import Sample
    from inspect_ai.model import (
        ChatMessageAssistant,
        ChatMessageSystem,
        ChatMessageTool,
        ChatMessageUser,
        ContentImage,
        ContentReasoning,
        ContentText,
        GenerateConfig,
        ResponseSchema,
        get_model,
    )
    from inspect_ai.scorer import includes
    from inspect_ai.solver import generate
    from inspect_ai.tool import ToolInfo
    from inspect_ai.util import JSONSchema

    from llmbatch.integrations.inspect_ai import LlmbatchAPI

    USER = ChatMessageUser(content="hello")


@pytest.fixture
def made() -> Iterator[list[LlmbatchAPI]]:
    """What a test made, ended with it."""
    apis: list[LlmbatchAPI] = []
    yield apis
    for api in apis:
        api.close()


@pytest.fixture
def provider(made: list[LlmbatchAPI]) -> Any:
    def make(**model_args: Any) -> LlmbatchAPI:
        api = LlmbatchAPI("demo", **{"engine": "scripted", **model_args})
        made.append(api)
        return api

    return make


def ask(api: LlmbatchAPI, *messages: Any, tools: Any = (), **config: Any) -> Any:
    return asyncio.run(api.generate(list(messages), list(tools), "auto", GenerateConfig(**config)))


def test_an_answer_has_its_text_its_stop_reason_and_its_usage(provider: Any) -> None:
    output = ask(provider(), ChatMessageSystem(content="be"), USER)
    assert (output.completion, output.stop_reason, output.message.source) == ("hello", "stop", "generate")
    prompt = len(b"<system>be\n<user>hello\n<assistant>")
    assert output.usage is not None
    assert (output.usage.input_tokens, output.usage.output_tokens, output.usage.total_tokens) == (prompt, 5, prompt + 5)


def test_an_answer_that_reaches_its_limit_says_so(provider: Any) -> None:
    output = ask(provider(), USER, max_tokens=3)
    assert (output.completion, output.stop_reason) == ("hel", "max_tokens")


def test_an_answer_that_reaches_the_end_of_the_context_says_so(provider: Any) -> None:
    prompt = len(b"<user>hello\n<assistant>")
    output = ask(provider(context_length=prompt + 2), USER, max_tokens=30)
    assert (output.completion, output.stop_reason) == ("he", "model_length")


def test_several_choices_are_several_answers(provider: Any) -> None:
    output = ask(provider(), USER, num_choices=3, seed=1, temperature=1.0)
    assert [choice.message.text for choice in output.choices] == ["hello"] * 3
    assert output.usage is not None and output.usage.output_tokens == 15


def test_thinking_is_told_apart(tmp_path: Path, provider: Any) -> None:
    script = tmp_path / "script.yaml"
    script.write_text("rules: [{answer: <think>hm</think>so}]")
    output = ask(provider(script=str(script), reasoning_parser="any"), USER)
    assert output.completion == "so"
    assert [part.type for part in output.message.content] == ["reasoning", "text"]


def test_log_probabilities_come_with_the_tokens(provider: Any) -> None:
    logprobs = ask(provider(), USER, logprobs=True, top_logprobs=2).choices[0].logprobs
    assert logprobs is not None and "".join(token.token for token in logprobs.content) == "hello"


def test_an_answer_is_held_to_a_schema(provider: Any) -> None:
    schema = JSONSchema(type="object", properties={"age": JSONSchema(type="integer")}, required=["age"])
    output = ask(provider(), USER, response_schema=ResponseSchema(name="person", json_schema=schema))
    assert json.loads(output.completion) == {"age": 0}


def test_of_messages_in_parts_the_text_counts(provider: Any) -> None:
    before = ChatMessageAssistant(content=[ContentReasoning(reasoning="hm"), ContentText(text="yes")])
    assert ask(provider(), USER, before, ChatMessageUser(content=[ContentText(text="more")])).completion == "more"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (lambda: ChatMessageUser(content=[ContentImage(image="data:image/png;base64,AA==")]), "holds image"),
        (lambda: ChatMessageTool(content="42"), "no tools"),
    ],
    ids=["image", "tool"],
)
def test_what_is_no_text_is_refused(provider: Any, message: Callable[[], Any], said: str) -> None:
    with pytest.raises(JobError, match=said):
        ask(provider(), USER, message())


def test_tools_are_refused(provider: Any) -> None:
    with pytest.raises(JobError, match=r"tools \(bash\), and llmbatch reads no tool calls"):
        ask(provider(), USER, tools=[ToolInfo(name="bash", description="run")])


@pytest.mark.parametrize(
    ("config", "said"),
    [({"best_of": 2}, "best_of"), ({"temperature": -1.0}, "temperature"), ({"top_p": 3.0}, "top_p")],
    ids=["best_of", "temperature", "top_p"],
)
def test_a_setting_that_cannot_be_had_is_refused(provider: Any, config: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError, match=said):
        ask(provider(), USER, **config)


def test_a_prompt_longer_than_the_context_ends_with_model_length(provider: Any) -> None:
    api = provider(context_length=20, no_ids=True)
    output = ask(api, ChatMessageUser(content="long " * 20))
    assert output.stop_reason == "model_length" and "more than I take" in (output.error or "")


def test_a_request_that_the_engine_fails_is_an_error_of_its_sample(tmp_path: Path, provider: Any) -> None:
    script = tmp_path / "script.yaml"
    script.write_text("rules: [{fail: no luck}]")
    with pytest.raises(RunError, match="no luck"):
        ask(provider(script=str(script)), USER)


@pytest.mark.parametrize(
    ("model_args", "said"),
    [
        ({"enginee": "scripted", "engine": "scripted"}, r"enginee.*did you mean 'engine'"),
        ({"replicas": 0}, "-M: replicas: is auto, or a number of engines from 1 to 256"),
        ({"engine": "vlm"}, "unknown engine 'vlm'"),
    ],
    ids=["key", "number", "engine"],
)
def test_wrong_arguments_are_refused_when_the_model_is_made(model_args: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError, match=said):
        LlmbatchAPI("demo", **model_args)


def evaluate(folder: Path, count: int, **model_args: Any) -> Any:
    task = inspect_ai.Task(
        dataset=[Sample(input=f"say {number}", target=f"say {number}") for number in range(count)],
        solver=[generate()],
        scorer=includes(),
    )
    model = get_model("llmbatch/demo", engine="scripted", memoize=False, **model_args)
    (log,) = inspect_ai.eval(task, model=model, log_dir=str(folder), display="none", log_samples=True)
    model.api.close()
    return log


def test_inspect_evaluates_with_it_and_makes_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    make = LlmbatchAPI.__init__
    monkeypatch.setattr(LlmbatchAPI, "__init__", lambda api, *a, **kw: made.append(api) or make(api, *a, **kw))
    log = evaluate(tmp_path, 30)
    assert len(made) == 1
    assert (log.status, log.results.scores[0].metrics["accuracy"].value) == ("success", 1.0)
    assert len(log.samples) == 30
    assert log.stats.model_usage["llmbatch/demo"].output_tokens == sum(len(f"say {number}") for number in range(30))


def test_deaths_of_the_engine_cost_no_sample(tmp_path: Path) -> None:
    script = tmp_path / "script.yaml"
    script.write_text("{die_after: [5, 17], latency: 0.01}")
    log = evaluate(tmp_path, 30, script=str(script))
    assert (log.status, log.results.scores[0].metrics["accuracy"].value) == ("success", 1.0)


def test_as_many_samples_as_the_engine_takes_are_asked_at_a_time(provider: Any) -> None:
    config = GenerateConfig()
    api = LlmbatchAPI("demo", config=config, engine="scripted", concurrency=300)
    assert config.max_connections == api.max_connections() == 600
    api.close()
    said = GenerateConfig(max_connections=7)
    LlmbatchAPI("demo", config=said, engine="scripted").close()
    assert said.max_connections == 7
