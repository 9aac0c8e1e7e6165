"""A request in; what vLLM is handed for it out: a prompt, parameters and an adapter, or why it is not handed over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from llmbatch.core.types import Failure, FailureKind, Request
from llmbatch.engines.vllm.calls import Calls, Telling
from llmbatch.engines.vllm.pooling import Poolings
from llmbatch.engines.vllm.reasoning import Reasoning
from llmbatch.engines.vllm.sampling import Samplings, Setting
from llmbatch.engines.vllm.score import Limits, Piece, Scoring
from llmbatch.engines.vllm.sight import Sight
from llmbatch.engines.vllm.text import Detokenizer


@dataclass(frozen=True)
class Tools:
    """What a request and an answer are put together with."""

    samplings: Samplings
    detokenizer: Detokenizer
    reasoning: Reasoning | None
    loras: Mapping[str, Any]  # vllm.lora.request.LoRARequest by name
    limits: Limits
    poolings: Poolings | None = None  # of a model that gives numbers
    sight: Sight | None = None  # of a model that takes images
    calls: Calls | None = None  # of a parser of tool calls


@dataclass(slots=True, eq=False)
class Pending:
    """A request that vLLM has."""

    request: Request
    setting: Setting
    tokens: int
    told: tuple[int, int] = (0, 0)  # where it streams: characters and tokens of the answer that were told
    telling: Telling | None = None  # where it streams, and calls of tools are not to be told as text


class Scored(NamedTuple):
    """A request for a likelihood, of which vLLM has one piece."""

    scoring: Scoring
    piece: Piece
    lora: Any
    tokens: int


class Pooled(NamedTuple):
    """A request for numbers that vLLM has."""

    request: Request
    poolings: Poolings
    tokens: int


class Handed(NamedTuple):
    """What vLLM is handed, and what is remembered of it until it is answered."""

    prompt: Mapping[str, Any]
    params: Any
    lora: Any
    urgent: bool
    pending: Pending | Scored | Pooled


class Handing:
    """For one engine."""

    def __init__(self, tools: Tools, context_length: int) -> None:
        self._tools = tools
        self._context_length = context_length

    def of(self, request: Request, seen: Mapping[str, Any] | None) -> Handed | Failure:
        """What is handed over for a request; ``seen`` is vLLM's input for one with images."""
        if request.pooling is not None or self._tools.poolings is not None:
            return self._numbers(request, seen)
        if request.target is not None:
            return self._likelihood(request)
        ids = [*(request.token_ids or ()), *request.partial]
        if len(ids) >= self._context_length:
            room = f"no room for an answer in the context of {self._context_length:,}"
            return Failure(FailureKind.TOO_LONG, f"the prompt has {len(ids):,} tokens, which leaves {room}")
        lora = self._adapter(request)
        if isinstance(lora, Failure):
            return lora
        try:
            setting, params = self._tools.samplings.of(request)
        except Exception as error:
            return refused(error)
        return Handed(_prompt(ids, seen), params, lora, request.urgent, Pending(request, setting, len(ids)))

    def _numbers(self, request: Request, seen: Mapping[str, Any] | None) -> Handed | Failure:
        poolings = self._tools.poolings
        if poolings is None or request.pooling is None:
            does, asked = ("text", "numbers") if poolings is None else ("numbers", "text")
            return Failure(FailureKind.REFUSED, f"the model was loaded to give {does}, and this asks for {asked}")
        ids = [*(request.token_ids or ()), *request.target_ids]
        if len(ids) > self._context_length:
            said = f"{len(ids):,} tokens, more than the context of {self._context_length:,}"
            return Failure(FailureKind.TOO_LONG, f"the text has {said}")
        lora = self._adapter(request)
        if isinstance(lora, Failure):
            return lora
        try:
            params = poolings.of(request, request.pooling)
        except Exception as error:
            return refused(error)
        return Handed(_prompt(ids, seen), params, lora, request.urgent, Pooled(request, poolings, len(ids)))

    def _likelihood(self, request: Request) -> Handed | Failure:
        scoring = Scoring(request, self._tools.limits)
        tokens, limit = len(scoring.ids), self._context_length
        if not request.token_ids or not request.target_ids:
            what = "prompt" if not request.token_ids else "continuation"
            return Failure(FailureKind.REFUSED, f"a likelihood needs a {what} of at least one token, and this has none")
        if tokens > limit:
            return Failure(
                FailureKind.TOO_LONG,
                f"prompt and continuation have {tokens:,} tokens, more than the context of {limit:,}",
            )
        lora = self._adapter(request)
        return lora if isinstance(lora, Failure) else self.piece(scoring, lora)

    def piece(self, scoring: Scoring, lora: Any) -> Handed | Failure:
        """The next piece of a request for a likelihood."""
        piece = scoring.piece
        following = scoring.ids[piece.end] if piece.following else None
        try:
            params = self._tools.samplings.of_scores(scored=piece.scored, following=following)
        except Exception as error:
            return refused(error)
        waiting = Scored(scoring, piece, lora, len(scoring.ids))
        return Handed(_prompt(scoring.ids[: piece.end], None), params, lora, scoring.urgent, waiting)

    def _adapter(self, request: Request) -> Any:
        """vLLM's request for the adapter that is asked for, None without one."""
        if request.lora is None:
            return None
        if (lora := self._tools.loras.get(request.lora)) is None:
            known = ", ".join(self._tools.loras) or "none (give them with engine.lora)"
            return Failure(FailureKind.REFUSED, f"unknown LoRA adapter {request.lora!r}; there are: {known}")
        return lora


def refused(error: BaseException) -> Failure:
    """What vLLM raised about a request, and about nothing else."""
    return Failure(FailureKind.REFUSED, f"vLLM refuses this request: {' '.join(str(error).split()) or repr(error)}")


def _prompt(ids: list[int], seen: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return {"type": "token", "prompt_token_ids": ids} if seen is None else seen


__all__ = ["Handed", "Handing", "Pending", "Pooled", "Scored", "Tools", "refused"]
