"""llmbatch as a model provider of Inspect: ``inspect eval task.py --model llmbatch/PATH``.

Inspect finds it by llmbatch's entry point in the group ``inspect_ai``. It asks for one sample after another, many at a time; all
share one engine, whose running batch a new one joins. ``-M key=value`` are the settings of ``InspectArgs``, and the engine's own.

Tools are refused: to read calls out of an answer is another thing for every model, and a call that is misread is a wrong score.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import anyio
import sniffio
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    ContentReasoning,
    ContentText,
    GenerateConfig,
    Logprob,
    Logprobs,
    ModelAPI,
    ModelInfo,
    ModelOutput,
    ModelUsage,
    TopLogprob,
    modelapi,
    set_model_info,
)
from pydantic import Field

from llmbatch.core.errors import JobError, RunError
from llmbatch.core.events import Event, Note
from llmbatch.core.sampling import DEFAULT_MAX_TOKENS, frozen, sampling_problem
from llmbatch.core.types import (
    Completion,
    Constraint,
    FailureKind,
    Message,
    Outcome,
    Prompt,
    Refusal,
    Request,
    RequestKey,
    Sampling,
    Usage,
)
from llmbatch.engines.kinds import ModelFacts, checked, kind_of
from llmbatch.engines.settings import EngineSettings
from llmbatch.integrations.live import LiveEngine
from llmbatch.integrations.model_args import EngineArgs
from llmbatch.job.job import DEMO_MODEL
from llmbatch.model.tokenizer import ChatSettings, context_length

_WHERE = "-M"
_DEMO = "demo"
_PATIENCE_SECONDS = 0.02  # between two looks at a future, where the event loop is not asyncio's
# Inspect's names of what vLLM's SamplingParams have by the same one
_SAME = ("max_tokens", "top_p", "temperature", "top_k", "frequency_penalty", "presence_penalty", "logit_bias", "seed")
_REFUSED = ("best_of", "prompt_logprobs", "extra_body", "extra_headers", "modalities")
_STOPS = {"stop": "stop", "length": "max_tokens"}
_log = logging.getLogger(__name__)


class InspectArgs(EngineArgs):
    """The keys of ``-M``; others are the engine's arguments."""

    chat_template: str | None = Field(None, description="a path or the Jinja text; by default the model's own")
    chat_template_args: dict[str, Any] = Field(default_factory=dict)
    enable_thinking: bool | None = None

    def chat(self) -> ChatSettings:
        thinking = {} if self.enable_thinking is None else {"enable_thinking": self.enable_thinking}
        return ChatSettings(template=self.chat_template, template_kwargs={**thinking, **self.chat_template_args})


class LlmbatchAPI(ModelAPI):  # type: ignore[misc]
    """Inspect's contract of a provider. Raises ``JobError`` for what is wrong with the arguments or the model when it is made."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig | None = None,
        **model_args: Any,
    ) -> None:
        config = GenerateConfig() if config is None else config
        super().__init__(model_name, base_url, api_key, [], config)
        args = InspectArgs.of(model_args, _WHERE)
        self._model = str(DEMO_MODEL) if model_name == _DEMO else model_name
        self._chat = args.chat()
        with args.explained(_WHERE):
            self._settings = checked(EngineSettings.model_validate(args.engine_section()))
            self._live: LiveEngine | None = self._engine()
            self._live.prove()
        atexit.register(self.close)
        # nothing is said by this, and else Inspect, while it evaluates, makes another of these of the name alone, so with vLLM
        set_model_info(f"llmbatch/{model_name}", ModelInfo())
        # Inspect sounds out how many requests a server stands, from 20 on, unless somebody says it: an engine here waits for them.
        if config.max_connections is None and config.adaptive_connections is None:
            config.max_connections = self.max_connections()

    def max_connections(self) -> int:
        """As many as an engine takes at a time, twice, so that it never waits for the next one."""
        facts = ModelFacts(self._model, context_length(self._model))
        limits = kind_of(self._settings.name).limits(self._settings, facts)
        return (self._settings.in_flight or 2 * limits.max_num_seqs) * self._settings.engines

    def max_tokens(self) -> int:
        return DEFAULT_MAX_TOKENS

    def connection_key(self) -> str:
        return self._model

    def close(self) -> None:
        """End the engine; another one starts where something is asked after all."""
        live, self._live = self._live, None
        if live is not None:
            live.close()

    async def generate(
        self, input: list[ChatMessage], tools: list[Any], tool_choice: Any, config: GenerateConfig
    ) -> ModelOutput:
        """Inspect's one call. Raises ``JobError`` for what cannot be asked for, ``RunError`` where there is no answer."""
        if tools and tool_choice != "none":
            names = ", ".join(tool.name for tool in tools)
            raise JobError(
                f"the task gives the model tools ({names}), and llmbatch reads no tool calls out of answers: use a task without, "
                "or serve the model with vllm serve and give Inspect --model vllm/..."
            )
        request = _request([_message(message) for message in input], config)
        live = self._live = self._live or self._engine()
        # tokenizing takes time, in which other samples can go on
        futures = await anyio.to_thread.run_sync(live.ask, _choices(request, config))
        outcomes = [await _outcome(future) for future in futures]
        return self._output(outcomes, live)

    def _engine(self) -> LiveEngine:
        return LiveEngine(self._model, self._settings, self._chat, _tell)

    def _output(self, outcomes: Sequence[Outcome], live: LiveEngine) -> ModelOutput:
        refusal = next((outcome for outcome in outcomes if isinstance(outcome, Refusal)), None)
        if refusal is not None:
            failure = refusal.failure
            if failure.kind is FailureKind.TOO_LONG:
                return ModelOutput.from_content(self.model_name, failure.message, "model_length", failure.message)
            raise RunError(failure.message)
        completions = [outcome for outcome in outcomes if isinstance(outcome, Completion)]
        longest = None if live.info is None else live.info.context_length
        return ModelOutput(
            model=self.model_name,
            choices=[self._choice(completion, longest) for completion in completions],
            usage=_usage(sum((completion.usage for completion in completions), Usage())),
        )

    def _choice(self, completion: Completion, longest: int | None) -> ChatCompletionChoice:
        tokens = completion.usage.prompt_tokens + completion.usage.completion_tokens
        reason = _STOPS.get(completion.finish_reason, "unknown")
        if reason == "max_tokens" and longest is not None and tokens >= longest:
            reason = "model_length"
        text = ContentText(text=completion.text)
        content = [ContentReasoning(reasoning=completion.reasoning), text] if completion.reasoning else completion.text
        return ChatCompletionChoice(
            message=ChatMessageAssistant(content=content, model=self.model_name, source="generate"),
            stop_reason=reason,
            logprobs=None if completion.logprobs is None else _logprobs(completion.logprobs),
        )


# not as a decorator: the provider's class stays one, and what Inspect registers makes its objects
provider = modelapi(name="llmbatch")(LlmbatchAPI)


def _message(message: ChatMessage) -> Message:
    """A message as a chat template takes it. Raises ``JobError`` for what is no plain text."""
    if message.role == "tool" or getattr(message, "tool_calls", None):
        raise JobError("a message of a tool, or with calls of tools, is in the conversation, and llmbatch has no tools")
    parts = [] if isinstance(message.content, str) else message.content
    other = sorted({part.type for part in parts} - {"text", "reasoning"})
    if other:
        raise JobError(
            f"a message of role {message.role!r} holds {', '.join(other)}, and llmbatch asks with text alone"
        )
    return {"role": message.role, "content": message.text}


def _request(messages: Sequence[Message], config: GenerateConfig) -> Request:
    """What is asked. Raises ``JobError`` for a setting that cannot be had."""
    given = [name for name in _REFUSED if getattr(config, name) is not None]
    if given:
        raise JobError(f"llmbatch cannot do what is asked with {', '.join(given)}: take it out")
    settings = {name: value for name in _SAME if (value := getattr(config, name)) is not None}
    if config.stop_seqs:
        settings["stop"] = list(config.stop_seqs)
    if config.logprobs:
        settings["logprobs"] = config.top_logprobs or 0
    for name, value in settings.items():
        if problem := sampling_problem(name, value):
            raise JobError(f"{name} {problem}")
    constraint = None
    if config.response_schema is not None:
        schema = config.response_schema.json_schema.model_dump(exclude_none=True, by_alias=True)
        constraint = Constraint("json", json.dumps(schema))
    seed = settings.pop("seed", None)
    return Request(RequestKey(0), Prompt(messages=tuple(messages)), _sampling(settings), constraint, seed)


def _choices(request: Request, config: GenerateConfig) -> list[Request]:
    """The request as often as answers are wanted; where there is a seed, the next one for each."""
    count = config.num_choices or 1
    seed = request.seed
    return [request if seed is None else replace(request, seed=seed + number) for number in range(count)]


_samplings: dict[tuple[tuple[str, Any], ...], Sampling] = {}


def _sampling(settings: Mapping[str, Any]) -> Sampling:
    """Equal settings are one object, as an engine wants it; a task has a handful."""
    values = tuple(sorted((name, frozen(value)) for name, value in settings.items()))
    return _samplings.setdefault(values, Sampling(values))


async def _outcome(future: Future[Outcome]) -> Outcome:
    if sniffio.current_async_library() == "asyncio":
        return await asyncio.wrap_future(future)
    while not future.done():
        await anyio.sleep(_PATIENCE_SECONDS)
    return future.result()


def _usage(usage: Usage) -> ModelUsage:
    """Inspect counts what came from a cache apart from the other tokens of a prompt."""
    return ModelUsage(
        input_tokens=usage.prompt_tokens - usage.cached_tokens,
        input_tokens_cache_read=usage.cached_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
    )


def _logprobs(tokens: Sequence[Mapping[str, Any]]) -> Logprobs:
    def of(token: Mapping[str, Any]) -> Logprob:
        tops = [TopLogprob(token=each["token"], logprob=each["logprob"]) for each in token["top"]]
        return Logprob(token=token["token"], logprob=token["logprob"], top_logprobs=tops)

    return Logprobs(content=[of(token) for token in tokens])


def _tell(event: Event) -> None:
    """What the engine's deaths and restarts are, goes where Inspect's own log goes."""
    if isinstance(event, Note):
        _log.log(logging.INFO if event.level == "info" else logging.WARNING, "%s", event.message)


__all__ = ["InspectArgs", "LlmbatchAPI", "provider"]
