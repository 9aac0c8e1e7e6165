"""A request and why it failed in, the next and *different* request out, or None to give up. Pure: no state, no clock.

| kind of failure | next request |
|---|---|
| truncated, free | goes on from the partial answer, whose prefix the engine has cached |
| truncated, constrained | the same from the start with a larger budget |
| invalid JSON, schema, choice, regex, grammar | the bad answer and the check's words appended, once per bad answer |
| language, copy, length ratio, markup, glossary | the same |
| the same where that cannot be done; empty, rejected, repetition | a new seed and a higher temperature |
| engine (it failed this request and lives) | the same request, once: its answer is not known yet |
| any other kind | none |
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from llmbatch.core.types import Completion, Failure, FailureKind, Message, Prompt, Request, RequestKey, Sampling
from llmbatch.core.words import clip

_EXPLAINED = frozenset(
    {
        FailureKind.INVALID_JSON, FailureKind.SCHEMA, FailureKind.CHOICE, FailureKind.REGEX, FailureKind.GRAMMAR,
        FailureKind.LANGUAGE, FailureKind.COPY, FailureKind.LENGTH_RATIO, FailureKind.MARKUP, FailureKind.GLOSSARY,
    }
)  # fmt: skip
_QUOTED_CHARACTERS = 4000
_UNSET_TEMPERATURE = 1.0  # where the job leaves it to the model, the model's own default is seldom higher
# Next to greedy: with these settings a higher temperature would draw the same tokens again.
_LOOSEST_NEEDED = {"top_p": 0.9, "min_p": 0.1}


class RetrySettings(BaseModel):
    """How an answer that did not do is tried again, by the kind of its failure."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_attempts: int = Field(3, ge=1, description="requests for one answer, the first included; 1: never try again")
    feedback: bool = Field(True, description="chat: show the model its bad answer and what the check said of it")
    continue_truncated: bool = Field(True, description="free text: go on from where it was cut off, not from the start")
    growth: float = Field(2.0, gt=1, description="by how much max_tokens grows after an answer was cut off")
    temperature_step: float = Field(0.2, ge=0, description="added to the temperature where another answer is wanted")
    min_temperature: float = Field(0.7, gt=0, description="the least temperature where another answer is wanted")
    max_temperature: float = Field(1.0, gt=0, description="a temperature below this is not raised above it")
    seed: int = Field(
        0, ge=0, description="other answers are drawn with seeds derived from this, if the job has no seed"
    )

    @model_validator(mode="after")
    def _in_order(self) -> RetrySettings:
        if self.min_temperature > self.max_temperature:
            raise ValueError(f"min_temperature {self.min_temperature} is above max_temperature {self.max_temperature}")
        return self


def next_request(
    request: Request,
    failure: Failure,
    completion: Completion | None,
    earlier: Sequence[FailureKind] = (),
    *,
    settings: RetrySettings,
    context_length: int | None,
) -> Request | None:
    """The request to send after ``failure``, or None to give up.

    ``completion`` is the answer, None where the engine gave none; ``earlier`` are the kinds of the failures before this
    one; ``context_length`` is in tokens, None where only the server knows it. The next request differs from ``request``
    in its prompt, partial answer, budget, or in seed and temperature, so that a deterministic engine is never asked for
    an answer that it gave already. After an ``ENGINE`` failure alone it may be the same, once. Where the prompt changed
    its ``token_ids`` are None.
    """
    kind = failure.kind
    if not kind.retryable or request.key.attempt >= settings.max_attempts:
        return None
    key = request.key._replace(attempt=request.key.attempt + 1)
    context_length = sys.maxsize if context_length is None else context_length
    if kind is FailureKind.ENGINE:
        return None if kind in earlier else replace(request, key=key)
    if completion is None:
        return None
    if kind is FailureKind.TRUNCATED:
        return _longer(request, key, completion, settings, context_length)
    if kind in _EXPLAINED and settings.feedback:
        prompt = _with_feedback(request, failure, completion, context_length)
        if prompt is not None:
            return replace(
                request, key=key, prompt=prompt, partial=(), max_tokens=_whole_budget(request), token_ids=None
            )
    return _redrawn(request, key, settings)


def derive_seed(base: int, key: RequestKey, prompt: Prompt) -> int:
    """A seed in 0 .. 2**31 - 1 that depends on the arguments alone: the same in every process, on every machine.

    The row's index has no part in it: rows with the same prompt are drawn alike, be they folded into one or not.
    """
    asked: list[Any] = [list(map(dict, prompt.messages or ())), prompt.text, prompt.prefill]
    if prompt.ids is not None:
        asked.append(prompt.ids)
    text = json.dumps([base, key.step, key.sample, key.attempt, asked], sort_keys=True, default=str)
    return int.from_bytes(blake2b(text.encode(), digest_size=4).digest(), "big") >> 1


def _longer(
    request: Request, key: RequestKey, completion: Completion, settings: RetrySettings, context_length: int
) -> Request | None:
    limit = request.max_tokens or request.sampling.get("max_tokens") or 0
    budget = max(completion.usage.completion_tokens, limit)
    grown = math.ceil(budget * settings.growth)
    prompt_tokens = (
        completion.usage.prompt_tokens - len(request.partial) if request.token_ids is None else len(request.token_ids)
    )
    answer = tuple(completion.token_ids)
    if request.constraint is None and settings.continue_truncated and answer:
        room = context_length - prompt_tokens - len(answer)
        if room < 1 or len(answer) <= len(request.partial):
            return None
        # min_tokens counted from the start of the answer, and by now could exceed the room that is left.
        sampling = _changed(request.sampling, (("min_tokens", None),))
        return replace(request, key=key, sampling=sampling, partial=answer, max_tokens=min(grown, room))
    largest = min(grown, context_length - prompt_tokens)
    # From the start, a budget that is not larger would be cut off at the same place.
    return replace(request, key=key, max_tokens=largest) if largest > budget else None


def _with_feedback(request: Request, failure: Failure, completion: Completion, context_length: int) -> Prompt | None:
    """The prompt with the bad answer and what is wrong with it; None where that is impossible or was of no use."""
    messages = request.prompt.messages
    if not messages or messages[-1].get("role") != "user":  # chat templates want the roles to alternate
        return None
    answer = clip(request.prompt.prefill + completion.text, _QUOTED_CHARACTERS, " [...]")
    said: tuple[Message, ...] = (
        {"role": "assistant", "content": answer},
        {
            "role": "user",
            "content": f"That answer was not accepted: {failure.message}\nGive the corrected answer only.",
        },
    )
    if messages[-2:] == said:
        return None
    # The appended messages are not tokenized yet: a token for two characters is plenty, but for rare scripts.
    usage = completion.usage
    longer = usage.prompt_tokens + usage.completion_tokens + 64 + len(failure.message) // 2
    if longer + usage.completion_tokens > context_length:
        return None
    return replace(request.prompt, messages=messages + said)


def _redrawn(request: Request, key: RequestKey, settings: RetrySettings) -> Request:
    sampling = request.sampling
    temperature = sampling.get("temperature")
    temperature = _UNSET_TEMPERATURE if temperature is None else temperature
    if temperature < settings.max_temperature:
        raised = max(settings.min_temperature, temperature + settings.temperature_step)
        temperature = min(settings.max_temperature, round(raised, 6))
    changes: list[tuple[str, Any]] = [("temperature", temperature)]
    if sampling.get("top_k") == 1:
        changes.append(("top_k", None))
    if sampling.get("top_p", 1.0) < _LOOSEST_NEEDED["top_p"]:
        changes.append(("top_p", _LOOSEST_NEEDED["top_p"]))
    if sampling.get("min_p", 0.0) > _LOOSEST_NEEDED["min_p"]:
        changes.append(("min_p", _LOOSEST_NEEDED["min_p"]))
    base = request.seed if request.seed is not None else sampling.get("seed", settings.seed)
    return replace(
        request,
        key=key,
        sampling=_changed(sampling, tuple(changes)),
        seed=derive_seed(base, key, request.prompt),
        partial=(),
        max_tokens=_whole_budget(request),
    )


def _whole_budget(request: Request) -> int | None:
    """The budget of a whole answer: that of a request which goes on from a partial one counts what is new alone."""
    return request.max_tokens + len(request.partial) if request.partial and request.max_tokens else request.max_tokens


def _changed(sampling: Sampling, changes: tuple[tuple[str, Any], ...]) -> Sampling:
    """The sampling with changes, itself where nothing changes; equal ones are one object, as ``Request`` promises."""
    if all(sampling.get(name) == value for name, value in changes):
        return sampling
    known = _CHANGED.get((id(sampling), changes))
    if known is None:
        if len(_CHANGED) >= _CHANGED_KEPT:
            _CHANGED.clear()
        known = _CHANGED[id(sampling), changes] = (sampling, sampling.replace(**dict(changes)))
    return known[1]


# By identity, as a sampling may hold what has no hash; the first of each pair is kept so that its id stays its own.
_CHANGED: dict[tuple[int, tuple[tuple[str, Any], ...]], tuple[Sampling, Sampling]] = {}
_CHANGED_KEPT = 1024
