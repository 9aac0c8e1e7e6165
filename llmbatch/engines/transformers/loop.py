"""A feed of requests in; their outcomes out: rows are handed to what runs the model, and taken back as they end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from llmbatch.core.sampling import NO_SEED
from llmbatch.core.types import Completion, Failure, FailureKind, Outcome, Refusal, Request, Usage
from llmbatch.engines.detokenizer import Answer, Detokenizer
from llmbatch.engines.feed import Requests
from llmbatch.engines.transformers.loading import Loaded
from llmbatch.engines.transformers.rows import Row
from llmbatch.engines.transformers.running import Death, Ended, Failed, Runner, Scored
from llmbatch.engines.transformers.sampling import Samplings, Setting

_WAIT_SECONDS = 0.5  # how long the loop waits for the model, or for the feed, before it looks around


@dataclass(frozen=True)
class Intake:
    """How much the model is handed at a time, and for how many seconds it may show no sign of life."""

    requests: int
    tokens: int
    context_length: int
    timeout: float


@dataclass(frozen=True)
class Tools:
    """What the loop puts a row and an answer together with."""

    loaded: Loaded
    samplings: Samplings
    detokenizer: Detokenizer
    loras: frozenset[str]
    can_score: bool


class Loop:
    """Drives one ``Runner``."""

    def __init__(self, runner: Runner, intake: Intake, tools: Tools, death: Death) -> None:
        self._runner = runner
        self._intake = intake
        self._tools = tools
        self._death = death
        self._pending = 0
        self._tokens = 0
        self._marked_at = time.monotonic()
        self.busy = 0.0
        self.counts = Usage()

    def stream(self, feed: Requests) -> Iterator[list[Outcome]]:
        """As ``Engine.stream``."""
        self._marked_at = time.monotonic()
        while True:
            outcomes = self._fill(feed)
            if self._pending:
                outcomes += self._outcomes(self._runner.wait(0 if outcomes else _WAIT_SECONDS))
                self._look_at_clock()
            elif not outcomes:
                if feed.finished:
                    return
                feed.wait(_WAIT_SECONDS)
                self._marked_at = time.monotonic()
            yield outcomes

    def abort(self) -> None:
        """Give up what is in flight."""
        self._runner.abort()
        self._pending = self._tokens = 0

    def _look_at_clock(self) -> None:
        now = time.monotonic()
        self.busy += now - self._marked_at
        self._marked_at = now
        if self._pending and (silent := now - self._runner.progress_at) > self._intake.timeout:
            raise self._death(TimeoutError(), f"the model showed no sign of life for {silent:.0f} s")

    def _fill(self, feed: Requests) -> list[Outcome]:
        """Hand over what there is room for; what cannot be answered is an outcome at once."""
        slots, tokens = self._intake.requests - self._pending, self._intake.tokens - self._tokens
        if slots <= 0 or (tokens <= 0 and self._pending):
            return []
        refused: list[Outcome] = []
        rows: list[Row] = []
        targets: list[Request] = []
        for request in feed.take(slots, tokens):
            made = self._target(request) if request.target is not None else self._row(request)
            if isinstance(made, Failure):
                refused.append(Refusal(request.key, made))
                continue
            self._pending += 1
            self._tokens += _size(request)
            if isinstance(made, Row):
                rows.append(made)
            else:
                targets.append(made)
        if rows or targets:
            self._runner.add(rows, targets)
        return refused

    def _row(self, request: Request) -> Row | Failure:
        if failure := self._problem(request):
            return failure
        try:
            setting = self._tools.samplings.of(request.sampling)
        except ValueError as error:
            return Failure(FailureKind.REFUSED, str(error))
        loaded, context = self._tools.loaded, self._intake.context_length
        prompt = len(request.token_ids or ())
        room = context - len(request.partial) - (0 if loaded.encoder_decoder else prompt)
        if room < 1 or prompt > context:
            left = f"no room for an answer in the context of {context:,}"
            return Failure(FailureKind.TOO_LONG, f"the prompt has {prompt:,} tokens, which leaves {left}")
        asked = setting.max_tokens if request.max_tokens is None else request.max_tokens
        limit = room if asked is None else min(asked, room)
        before = () if loaded.encoder_decoder else request.token_ids or ()
        return Row(request, setting, limit, self._tools.detokenizer, before, self._generator(request, setting))

    def _target(self, request: Request) -> Request | Failure:
        if not self._tools.can_score:
            return Failure(FailureKind.REFUSED, "with this model the transformers engine gives no likelihoods")
        if failure := self._problem(request):
            return failure
        if not request.target_ids:
            return Failure(
                FailureKind.REFUSED, "a likelihood needs a continuation of at least one token, and this has none"
            )
        if (tokens := _size(request)) > (limit := self._intake.context_length):
            said = f"prompt and continuation have {tokens:,} tokens, more than the context of {limit:,}"
            return Failure(FailureKind.TOO_LONG, said)
        return request

    def _problem(self, request: Request) -> Failure | None:
        """What is wrong with a request, whatever it asks for."""
        if not request.token_ids:
            return Failure(FailureKind.REFUSED, "the prompt has no token, and a model needs one at least")
        if request.lora is not None and request.lora not in self._tools.loras:
            known = ", ".join(sorted(self._tools.loras)) or "none (give them with engine.lora)"
            return Failure(FailureKind.REFUSED, f"unknown LoRA adapter {request.lora!r}; there are: {known}")
        highest = max((*request.token_ids, *request.partial, *request.target_ids))
        if highest >= (size := self._tools.loaded.vocabulary):
            said = f"the prompt has the token id {highest}, and the model's vocabulary has {size:,}"
            return Failure(FailureKind.REFUSED, f"{said}: is the tokenizer another model's?")
        return None

    def _generator(self, request: Request, setting: Setting) -> Any:
        """What a row with a seed draws by."""
        seed = setting.seed if request.seed is None else request.seed
        if not setting.samples or seed in (None, NO_SEED):
            return None
        import torch

        return torch.Generator(device=self._tools.loaded.device).manual_seed(seed)

    def _outcomes(self, ended: Sequence[Ended]) -> list[Outcome]:
        rows = [each for each in ended if isinstance(each, Row)]
        answers = [Answer(row.before, row.text_ids(), row.setting.skip_special_tokens) for row in rows]
        outcomes: list[Outcome] = [
            row.completion(text) for row, text in zip(rows, self._tools.detokenizer.texts(answers), strict=True)
        ]
        for each in ended:
            request = each.request
            self._pending -= 1
            self._tokens -= _size(request)
            if isinstance(each, Scored):
                usage = Usage(_size(request), 1)
                outcomes.append(Completion(request.key, "", "stop", usage, score=each.score))
            elif isinstance(each, Failed):
                outcomes.append(Refusal(request.key, each.failure))
        for outcome in outcomes:
            if isinstance(outcome, Completion):
                self.counts = self.counts + outcome.usage
        return outcomes


def _size(request: Request) -> int:
    return len(request.token_ids or ()) + len(request.partial) + len(request.target_ids)


__all__ = ["Intake", "Loop", "Tools"]
