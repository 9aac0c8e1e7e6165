"""A feed of requests in; their outcomes out: hand over, step, take what finished. Everything around it is in ``engine``."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmbatch.core.errors import EngineDied
from llmbatch.core.types import Completion, Failure, FailureKind, Outcome, Refusal, Request, RequestKey, Usage
from llmbatch.engines.feed import Requests
from llmbatch.engines.vllm import trouble
from llmbatch.engines.vllm.answers import Answers
from llmbatch.engines.vllm.handing import Handed, Handing, Pending, Pooled, Scored, Tools, refused
from llmbatch.engines.vllm.sight import no_sight

_SHORT = 16  # tokens of an answer
_NEWS = 0.05  # share of the last step in how long answers are
_URGENT = -1  # vLLM's priority of what goes first, where its scheduler looks at that
_TELL_SECONDS = 0.01  # how long what finished may wait to be told, while vLLM has enough to do
_WAIT_SECONDS = 0.5  # how long the loop waits for the engine, or for the feed, before it looks around

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


class Loop:
    """Drives one ``vllm.LLM``. ``kill`` ends a hanging engine's processes, ``death`` makes the exception for a dead one."""

    def __init__(self, llm: Any, intake: Intake, tools: Tools, kill: Callable[[], None], death: Death) -> None:
        self._engine = llm.llm_engine
        self._core = self._engine.engine_core
        self._outputs: Any = getattr(self._core, "outputs_queue", None)  # of an engine in its own process
        self._intake = intake
        self._tools = tools
        self._handing = Handing(tools, intake.context_length)
        self._answers = Answers(tools.detokenizer, tools.reasoning, tools.calls)
        self._kill = kill
        self._death = death
        self._deaths = trouble.deaths()
        self._numbers = itertools.count()
        self._pending: dict[str, Pending | Scored | Pooled] = {}
        self._tokens = 0
        self._length = 2.0 * _SHORT  # of answers, about
        self._seen = 0  # how many of those have images
        self._died: EngineDied | None = None  # to be raised once what finished before is told
        self._progress_at = time.monotonic()
        self._marked_at = time.monotonic()
        self.busy = 0.0
        self.counts = Usage()

    def stream(self, feed: Requests) -> Iterator[list[Outcome]]:
        """As ``Engine.stream``."""
        self._progress_at = self._marked_at = time.monotonic()
        while True:
            if self._died is not None:
                raise self._died
            self._mark()
            outcomes = self._fill(feed)
            if cancelled := feed.take_cancelled():
                outcomes += self._cancel(cancelled)
            if self._pending:
                outcomes += self._steps(feed)
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
        self._tokens = self._seen = 0

    def _cancel(self, keys: Sequence[RequestKey]) -> list[Outcome]:
        """End requests that nobody wants any more. One that vLLM does not have yet, as its images are being loaded, goes on."""
        wanted = set(keys)
        found = {
            name: had for name, had in self._pending.items() if isinstance(had, Pending) and had.request.key in wanted
        }
        if found:
            self._engine.abort_request(list(found))
        for name, had in found.items():
            del self._pending[name]
            self._tokens -= had.tokens
            self._seen -= bool(had.request.prompt.images)
        return [Completion(had.request.key, "", "abort", Usage()) for had in found.values()]

    def _fill(self, feed: Requests) -> list[Outcome]:
        """Hand over what there is room for; what vLLM refuses is an outcome at once."""
        sight = self._tools.sight
        slots = self._most - len(self._pending)
        outcomes: list[Outcome] = []
        if sight is not None and sight:
            slots -= len(sight)
            for seen in sight.take(sight.most - self._seen):
                failure = seen.prompt if isinstance(seen.prompt, Failure) else self._submit(seen.request, seen.prompt)
                if failure is not None:
                    outcomes.append(Refusal(seen.request.key, failure))
        tokens = self._intake.tokens - self._tokens
        if (slots <= 0 or (tokens <= 0 and self._pending)) and not feed.urgent:
            return outcomes
        for request in feed.take(slots, tokens):
            failure = self._look(request) if request.prompt.images else self._submit(request)
            if failure is not None:
                outcomes.append(Refusal(request.key, failure))
        return outcomes

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
        handed = self._handing.of(request, seen)
        failure = handed if isinstance(handed, Failure) else self._hand_over(handed)
        self._seen += failure is None and seen is not None
        return failure

    def _hand_over(self, handed: Handed) -> Failure | None:
        name, priority = str(next(self._numbers)), _URGENT if handed.urgent else 0
        try:
            self._engine.add_request(name, handed.prompt, handed.params, lora_request=handed.lora, priority=priority)
        except self._deaths as error:
            raise self._death(error, "vLLM's engine failed while a request was handed to it") from error
        except Exception as error:  # whatever else is raised is about this request
            self._engine.abort_request([name])  # it may have been taken half-way
            return refused(error)
        if not self._pending:  # an engine that had nothing to do gave no sign of life: its time begins now
            self._progress_at = time.monotonic()
        self._pending[name] = handed.pending
        self._tokens += handed.pending.tokens
        return None

    def _steps(self, feed: Requests) -> list[Outcome]:
        """One step of the engine, or several short ones: the outcomes of the requests that finished.

        What is done between steps keeps an engine in this process waiting, and much of it takes no longer for many answers than for
        one. But where vLLM may soon have nothing that waits, or somebody waits for an answer, it is told at once.
        """
        finished = self._step(feed)
        if self._outputs is None and not feed.hurries:
            end, enough = time.monotonic() + _TELL_SECONDS, self._intake.requests // 2
            while (left := len(self._pending) - len(finished)) and time.monotonic() < end:
                if finished and left <= enough:
                    break
                try:
                    finished += self._step(feed)
                except EngineDied as death:
                    if not finished:
                        raise
                    self._died = death
                    break
        return self._outcomes(finished) if finished else []

    def _step(self, feed: Requests) -> list[Any]:
        """One step of the engine, or a wait for it: what vLLM says of the requests that finished."""
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
            streaming = ((self._pending.get(output.request_id), output) for output in outputs if not output.finished)
            pieces = (self._answers.piece(had, output) for had, output in streaming if isinstance(had, Pending))
            feed.tell([piece for piece in pieces if piece is not None])
        return finished

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
        pending: list[Pending] = []
        answered: list[Any] = []
        done: list[Outcome] = []
        for output in finished:
            had = self._pending.pop(output.request_id, None)
            if had is None:
                continue  # it was cancelled when it was on its way
            self._tokens -= had.tokens
            if isinstance(had, Scored):
                done += self._score(had, output)
                continue
            self._seen -= bool(had.request.prompt.images)
            if isinstance(had, Pooled):
                done.append(self._pooled(had, output))
            else:
                pending.append(had)
                answered.append(output)
        if not pending:
            return done
        if self._intake.with_room is not None:
            mean = sum(len(output.outputs[0].token_ids) for output in answered) / len(answered)
            self._length += _NEWS * (mean - self._length)
        for completion in self._answers.of(pending, answered):
            self.counts = self.counts + completion.usage
            done.append(completion)
        return done

    def _pooled(self, had: Pooled, output: Any) -> Outcome:
        outcome = had.poolings.outcome(had.request, output)
        if isinstance(outcome, Completion):
            self.counts = self.counts + outcome.usage
        return outcome

    def _score(self, had: Scored, output: Any) -> list[Outcome]:
        """The outcome of a request for a likelihood; empty while there are more pieces of it."""
        completion = had.scoring.take(had.piece, output)
        if completion is not None:
            self.counts = self.counts + completion.usage
            return [completion]
        handed = self._handing.piece(had.scoring, had.lora)
        failure = handed if isinstance(handed, Failure) else self._hand_over(handed)
        return [] if failure is None else [Refusal(had.scoring.key, failure)]

    def _mark(self) -> None:
        """Count the time since the last mark as busy if there was work; an engine in this process counts its steps."""
        now = time.monotonic()
        if self._outputs is not None and self._pending:
            self.busy += now - self._marked_at
        self._marked_at = now


__all__ = ["Intake", "Loop"]
