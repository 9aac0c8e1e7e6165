"""A feed of requests in; their outcomes out: hand over, step, take what finished. Everything around it is in ``engine``."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from llmbatch.core.errors import EngineDied
from llmbatch.core.types import (
    Completion,
    Failure,
    FailureKind,
    FinishReason,
    Outcome,
    Piece,
    Refusal,
    Request,
    RequestKey,
    Usage,
)
from llmbatch.engines.feed import Requests
from llmbatch.engines.vllm import trouble
from llmbatch.engines.vllm.pooling import Poolings
from llmbatch.engines.vllm.reasoning import Reasoning
from llmbatch.engines.vllm.sampling import Samplings, Setting
from llmbatch.engines.vllm.score import Limits, Scoring
from llmbatch.engines.vllm.score import Piece as ScoredPiece
from llmbatch.engines.vllm.sight import Sight, no_sight
from llmbatch.engines.vllm.text import Answer, Detokenizer, logprobs_json, prompt_logprobs_json

_SHORT = 16  # tokens of an answer
_NEWS = 0.05  # share of the last step in how long answers are
_URGENT = -1  # vLLM's priority of what goes first, where its scheduler looks at that
_WAIT_SECONDS = 0.5  # how long the loop waits for the engine, or for the feed, before it looks around
_FINISH: Mapping[str, FinishReason] = {
    "stop": "stop", "length": "length", "abort": "abort", "error": "error", "repetition": "repetition",
}  # fmt: skip

Death = Callable[[BaseException | None, str], EngineDied]
"""(what was raised, what was seen) -> the exception that says it."""


@dataclass(frozen=True)
class Intake:
    """How much vLLM is handed at a time, and for how many seconds it may show no sign of life.

    ``with_room`` is how many requests it is handed as long as answers are long, where urgent ones are to find a place at once.
    Where answers are short places become free all the time, and to have the next requests there already is worth more.
    """

    requests: int
    tokens: int
    context_length: int
    timeout: float
    with_room: int | None = None


@dataclass(frozen=True)
class Tools:
    """What the loop puts a request and an answer together with."""

    samplings: Samplings
    detokenizer: Detokenizer
    reasoning: Reasoning | None
    loras: Mapping[str, Any]  # vllm.lora.request.LoRARequest by name
    limits: Limits
    poolings: Poolings | None = None  # of a model that gives numbers
    sight: Sight | None = None  # of a model that takes images


class _Pending(NamedTuple):
    """A request that vLLM has."""

    request: Request
    setting: Setting
    tokens: int


class _Scored(NamedTuple):
    """A request for a likelihood, of which vLLM has one piece."""

    scoring: Scoring
    piece: ScoredPiece
    lora: Any
    tokens: int


class _Pooled(NamedTuple):
    """A request for numbers that vLLM has."""

    request: Request
    poolings: Poolings
    tokens: int


class Loop:
    """Drives one ``vllm.LLM``. ``kill`` ends a hanging engine's processes, ``death`` makes the exception for a dead one."""

    def __init__(self, llm: Any, intake: Intake, tools: Tools, kill: Callable[[], None], death: Death) -> None:
        self._engine = llm.llm_engine
        self._core = self._engine.engine_core
        self._outputs: Any = getattr(self._core, "outputs_queue", None)  # of an engine in its own process
        self._intake = intake
        self._tools = tools
        self._kill = kill
        self._death = death
        self._deaths = trouble.deaths()
        self._numbers = itertools.count()
        self._pending: dict[str, _Pending | _Scored | _Pooled] = {}
        self._tokens = 0
        self._length = 2.0 * _SHORT  # of answers, about
        self._seen = 0  # how many of those have images
        self._told: dict[str, tuple[int, int]] = {}  # of those that stream: characters and tokens that were told
        self._progress_at = time.monotonic()
        self._marked_at = time.monotonic()
        self.busy = 0.0
        self.counts = Usage()

    def stream(self, feed: Requests) -> Iterator[list[Outcome]]:
        """As ``Engine.stream``."""
        self._progress_at = self._marked_at = time.monotonic()
        while True:
            self._mark()
            outcomes = self._fill(feed)
            if cancelled := feed.take_cancelled():
                outcomes += self._cancel(cancelled)
            if self._pending:
                outcomes += self._step(feed)
            elif not outcomes:
                if feed.finished:
                    return
                self._wait(feed)
            yield outcomes

    def abort(self) -> None:
        """Give up what is in flight."""
        if self._pending:
            self._engine.abort_request(list(self._pending))
        if self._tools.sight is not None:
            self._tools.sight.clear()
        self._pending.clear()
        self._told.clear()
        self._tokens = self._seen = 0

    def _cancel(self, keys: Sequence[RequestKey]) -> list[Outcome]:
        """End requests that nobody wants any more. One that vLLM does not have yet, as its images are being loaded, goes on."""
        wanted = set(keys)
        names = [name for name, had in self._pending.items() if isinstance(had, _Pending) and had.request.key in wanted]
        if names:
            self._engine.abort_request(names)
        ended: list[Outcome] = []
        for name in names:
            had = self._pending.pop(name)
            self._told.pop(name, None)
            self._tokens -= had.tokens
            if isinstance(had, _Pending):
                self._seen -= bool(had.request.prompt.images)
                ended.append(Completion(had.request.key, "", "abort", Usage()))
        return ended

    def _fill(self, feed: Requests) -> list[Outcome]:
        """Hand over what there is room for; what vLLM refuses is an outcome at once."""
        sight = self._tools.sight
        slots = self._most - len(self._pending)
        refused: list[Outcome] = []
        if sight is not None and sight:
            slots -= len(sight)
            for seen in sight.take(sight.most - self._seen):
                failure = seen.prompt if isinstance(seen.prompt, Failure) else self._submit(seen.request, seen.prompt)
                if failure is not None:
                    refused.append(Refusal(seen.request.key, failure))
        tokens = self._intake.tokens - self._tokens
        if (slots <= 0 or (tokens <= 0 and self._pending)) and not feed.urgent:
            return refused
        for request in feed.take(slots, tokens):
            failure = self._look(request) if request.prompt.images else self._submit(request)
            if failure is not None:
                refused.append(Refusal(request.key, failure))
        return refused

    @property
    def _most(self) -> int:
        """Requests that vLLM is handed."""
        intake = self._intake
        return intake.requests if intake.with_room is None or self._length < _SHORT else intake.with_room

    def _look(self, request: Request) -> Failure | None:
        """Have the images of a request loaded; it is handed over when they are there."""
        if request.target is not None:
            return Failure(
                FailureKind.REFUSED, "the likelihood of a continuation cannot be had of a prompt with images"
            )
        if self._tools.sight is None:
            return no_sight()
        self._tools.sight.add(request)
        return None

    def _wait(self, feed: Requests) -> None:
        """Nothing is in flight: wait for requests, or for their images."""
        if self._tools.sight:
            self._tools.sight.wait(_WAIT_SECONDS)
        else:
            feed.wait(_WAIT_SECONDS)

    def _submit(self, request: Request, seen: Mapping[str, Any] | None = None) -> Failure | None:
        """Hand a request over; ``seen`` is vLLM's input for one with images."""
        if request.pooling is not None or self._tools.poolings is not None:
            return self._submit_pooling(request, seen)
        if request.target is not None:
            return self._submit_target(request)
        ids = [*(request.token_ids or ()), *request.partial]
        if len(ids) >= self._intake.context_length:
            room = f"no room for an answer in the context of {self._intake.context_length:,}"
            return Failure(FailureKind.TOO_LONG, f"the prompt has {len(ids):,} tokens, which leaves {room}")
        lora = self._adapter(request)
        if isinstance(lora, Failure):
            return lora
        try:
            setting, params = self._tools.samplings.of(request)
        except Exception as error:
            return _refused(error)
        prompt = {"type": "token", "prompt_token_ids": ids} if seen is None else seen
        failure = self._hand_over(prompt, params, lora, _Pending(request, setting, len(ids)), urgent=request.urgent)
        self._seen += failure is None and seen is not None
        return failure

    def _submit_pooling(self, request: Request, seen: Mapping[str, Any] | None) -> Failure | None:
        poolings = self._tools.poolings
        if poolings is None or request.pooling is None:
            does, asked = ("text", "numbers") if poolings is None else ("numbers", "text")
            return Failure(FailureKind.REFUSED, f"the model was loaded to give {does}, and this asks for {asked}")
        ids = [*(request.token_ids or ()), *request.target_ids]
        if len(ids) > self._intake.context_length:
            said = f"{len(ids):,} tokens, more than the context of {self._intake.context_length:,}"
            return Failure(FailureKind.TOO_LONG, f"the text has {said}")
        lora = self._adapter(request)
        if isinstance(lora, Failure):
            return lora
        try:
            params = poolings.of(request, request.pooling)
        except Exception as error:
            return _refused(error)
        prompt = {"type": "token", "prompt_token_ids": ids} if seen is None else seen
        pooled = _Pooled(request, poolings, len(ids))
        failure = self._hand_over(prompt, params, lora, pooled, urgent=request.urgent)
        self._seen += failure is None and seen is not None
        return failure

    def _submit_target(self, request: Request) -> Failure | None:
        scoring = Scoring(request, self._tools.limits)
        tokens, limit = len(scoring.ids), self._intake.context_length
        if not request.token_ids or not request.target_ids:
            what = "prompt" if not request.token_ids else "continuation"
            return Failure(FailureKind.REFUSED, f"a likelihood needs a {what} of at least one token, and this has none")
        if tokens > limit:
            return Failure(
                FailureKind.TOO_LONG,
                f"prompt and continuation have {tokens:,} tokens, more than the context of {limit:,}",
            )
        lora = self._adapter(request)
        return lora if isinstance(lora, Failure) else self._submit_piece(scoring, lora)

    def _submit_piece(self, scoring: Scoring, lora: Any) -> Failure | None:
        piece = scoring.piece
        following = scoring.ids[piece.end] if piece.following else None
        try:
            params = self._tools.samplings.of_scores(scored=piece.scored, following=following)
        except Exception as error:
            return _refused(error)
        waiting = _Scored(scoring, piece, lora, len(scoring.ids))
        prompt = {"type": "token", "prompt_token_ids": scoring.ids[: piece.end]}
        return self._hand_over(prompt, params, lora, waiting, urgent=scoring.urgent)

    def _adapter(self, request: Request) -> Any:
        """vLLM's request for the adapter that is asked for, None without one."""
        if request.lora is None:
            return None
        if (lora := self._tools.loras.get(request.lora)) is None:
            known = ", ".join(self._tools.loras) or "none (give them with engine.lora)"
            return Failure(FailureKind.REFUSED, f"unknown LoRA adapter {request.lora!r}; there are: {known}")
        return lora

    def _hand_over(
        self,
        prompt: Mapping[str, Any],
        params: Any,
        lora: Any,
        pending: _Pending | _Scored | _Pooled,
        *,
        urgent: bool,
    ) -> Failure | None:
        name = str(next(self._numbers))
        try:
            self._engine.add_request(name, prompt, params, lora_request=lora, priority=_URGENT if urgent else 0)
        except self._deaths as error:
            raise self._death(error, "vLLM's engine failed while a request was handed to it") from error
        except Exception as error:  # whatever else is raised is about this request
            self._engine.abort_request([name])  # it may have been taken half-way
            return _refused(error)
        if not self._pending:  # an engine that had nothing to do gave no sign of life: its time begins now
            self._progress_at = time.monotonic()
        self._pending[name] = pending
        self._tokens += pending.tokens
        return None

    def _step(self, feed: Requests) -> list[Outcome]:
        """One step of the engine, or a wait for it: the outcomes of the requests that finished."""
        if self._outputs is not None and not self._has_output():
            return []
        began = time.monotonic()
        try:
            outputs = self._engine.step()
            finished = [output for output in outputs if output.finished]
        except Exception as error:
            raise self._death(error, "vLLM's engine failed") from error
        self._progress_at = time.monotonic()
        if self._outputs is None:
            self.busy += self._progress_at - began
        if len(finished) < len(outputs):  # the others stream
            feed.tell(
                [piece for output in outputs if not output.finished and (piece := self._piece(output)) is not None]
            )
        return self._outcomes(finished) if finished else []

    def _piece(self, output: Any) -> Piece | None:
        """What came of an answer since it was told last; None where that is no text yet, or not known to be of the answer.

        Before the thinking is at its end nothing is told, and nothing where there is a prefill: what the text of such an answer is,
        is known when it is finished.
        """
        had, answer = self._pending.get(output.request_id), output.outputs[0]
        if not isinstance(had, _Pending) or had.request.prompt.prefill or had.request.partial:
            return None
        text = str(answer.text)
        if (reasoning := self._tools.reasoning) is not None:
            if reasoning.end is None or reasoning.end not in text:
                return None
            text = reasoning.split(text).content
        start, tokens = self._told.get(output.request_id, (0, 0))
        if len(text) <= start:
            return None
        self._told[output.request_id] = len(text), len(answer.token_ids)
        logprobs = None if answer.logprobs is None else logprobs_json(answer.logprobs[tokens:])
        return Piece(had.request.key, start, text[start:], logprobs)

    def _has_output(self) -> bool:
        """Whether an engine in its own process has sent something. vLLM's ``step`` would wait for a dead one for ever."""
        queue = self._outputs
        with queue.not_empty:
            if queue.queue or queue.not_empty.wait(_WAIT_SECONDS):
                return True
        ended = [
            process
            for process in getattr(self._core.resources.engine_manager, "processes", ())
            if not process.is_alive()
        ]
        if ended or self._core.resources.engine_dead:
            how = "".join(f" with exit code {process.exitcode}" for process in ended[:1])
            raise self._death(None, f"vLLM's engine process ended{how}")
        waited = time.monotonic() - self._progress_at
        if waited > self._intake.timeout:
            self._kill()
            raise self._death(TimeoutError(), f"vLLM's engine showed no sign of life for {waited:.0f} s and was killed")
        return False

    def _outcomes(self, finished: Sequence[Any]) -> list[Outcome]:
        pending: list[_Pending] = []
        answered: list[Any] = []
        done: list[Outcome] = []
        for output in finished:
            had = self._pending.pop(output.request_id, None)
            if had is None:
                continue  # it was cancelled when it was on its way
            self._tokens -= had.tokens
            if self._told:
                self._told.pop(output.request_id, None)
            if isinstance(had, _Scored):
                done += self._score(had, output)
                continue
            self._seen -= bool(had.request.prompt.images)
            if isinstance(had, _Pooled):
                done.append(self._pooled(had, output))
            else:
                pending.append(had)
                answered.append(output)
        return done + self._answers(pending, answered) if pending else done

    def _pooled(self, had: _Pooled, output: Any) -> Outcome:
        outcome = had.poolings.outcome(had.request, output)
        if isinstance(outcome, Completion):
            self.counts = self.counts + outcome.usage
        return outcome

    def _score(self, had: _Scored, output: Any) -> list[Outcome]:
        """The outcome of a request for a likelihood; empty while there are more pieces of it."""
        completion = had.scoring.take(had.piece, output)
        if completion is not None:
            self.counts = self.counts + completion.usage
            return [completion]
        failure = self._submit_piece(had.scoring, had.lora)
        return [] if failure is None else [Refusal(had.scoring.key, failure)]

    def _answers(self, pending: Sequence[_Pending], finished: Sequence[Any]) -> list[Outcome]:
        ours = [
            i
            for i, p in enumerate(pending)
            if not _stops_after_partial(p) and (p.setting.detokenize or p.request.partial)
        ]
        texts = self._tools.detokenizer.texts([_answer(pending[i], finished[i]) for i in ours])
        text_of = dict(zip(ours, texts, strict=True))
        if self._intake.with_room is not None:
            mean = sum(len(output.outputs[0].token_ids) for output in finished) / len(finished)
            self._length += _NEWS * (mean - self._length)
        outcomes: list[Outcome] = []
        for i, output in enumerate(finished):
            completion = self._completion(pending[i], output, text_of.get(i))
            self.counts = self.counts + completion.usage
            outcomes.append(completion)
        return outcomes

    def _completion(self, pending: _Pending, output: Any, text: str | None) -> Completion:
        request, answer = pending.request, output.outputs[0]
        ids, finish_reason, stop_reason = answer.token_ids, _FINISH[answer.finish_reason], answer.stop_reason
        if _stops_after_partial(pending):
            ending = self._tools.detokenizer.ending(
                _answer(pending, output),
                pending.setting.params.stop,
                already=len(request.partial),
                include_stop=pending.setting.include_stop,
            )
            text = ending.text
            if ending.stop is not None:
                ids, finish_reason, stop_reason = ids[: ending.tokens - len(request.partial)], "stop", ending.stop
        elif text is None:
            text = answer.text
        if request.prompt.prefill:
            text = self._tools.detokenizer.after_prefill(text, request.prompt.prefill, request.token_ids or ())
        reasoning = None
        if self._tools.reasoning is not None:
            reasoning, text = self._tools.reasoning.split(text)
        return Completion(
            key=request.key,
            text=text,
            finish_reason=finish_reason,
            usage=Usage(len(output.prompt_token_ids), len(answer.token_ids), output.num_cached_tokens or 0),
            token_ids=(*request.partial, *ids),
            reasoning=reasoning,
            stop_reason=stop_reason,
            logprobs=self._logprobs(request, output, len(ids)),
        )

    def _logprobs(self, request: Request, output: Any, tokens: int) -> list[dict[str, Any]] | None:
        """Those of so many tokens of the answer; a prompt's come before them, once: not where it goes on from a partial answer."""
        told = output.outputs[0].logprobs
        answers = None if told is None else logprobs_json(told[:tokens])
        if not output.prompt_logprobs or request.partial:
            return answers
        first = self._tools.detokenizer.token(output.prompt_token_ids[0])
        return [*prompt_logprobs_json(first, output.prompt_logprobs), *(answers or ())]

    def _mark(self) -> None:
        """Count the time since the last mark as busy if there was work; an engine in this process counts its steps."""
        now = time.monotonic()
        if self._outputs is not None and self._pending:
            self.busy += now - self._marked_at
        self._marked_at = now


def _refused(error: BaseException) -> Failure:
    return Failure(FailureKind.REFUSED, f"vLLM refuses this request: {' '.join(str(error).split()) or repr(error)}")


def _answer(pending: _Pending, output: Any) -> Answer:
    """The ids whose text is the answer: the whole one, without the token that ended it."""
    request, answer = pending.request, output.outputs[0]
    ids = [*request.partial, *answer.token_ids]
    if answer.finish_reason == "stop" and not isinstance(answer.stop_reason, str) and not pending.setting.include_stop:
        ids.pop()
    return Answer(request.token_ids or (), ids, pending.setting.skip_special_tokens)


def _stops_after_partial(pending: _Pending) -> bool:
    """Whether a stop string may have begun in the partial answer, where vLLM does not look for it."""
    return bool(pending.request.partial and pending.setting.params.stop)
