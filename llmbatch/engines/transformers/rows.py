"""A request's tokens as they come in; where its answer ends, and the answer, out. Whatever batch the row is in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from llmbatch.core.types import Completion, FinishReason, Request, Usage
from llmbatch.engines.detokenizer import Answer, Detokenizer
from llmbatch.engines.transformers.sampling import Setting

_SLACK = 8  # tokens more than a stop string has characters, in which it is looked for first
_LOWEST_LOGPROB = -9999.0  # JSON has no infinity; the same as in the OpenAI protocol


class Row:
    """One answer on its way. ``limit`` is how many new tokens it may have; ``generator`` draws its own, where it has a seed.

    ``before`` are the ids that the model reads the answer's behind: the prompt's, unless the prompt goes to an encoder.
    """

    __slots__ = (
        "_detokenizer", "before", "finish_reason", "generator", "limit", "logprobs", "request", "setting", "stop_reason", "text",
        "tokens",
    )  # fmt: skip

    def __init__(
        self,
        request: Request,
        setting: Setting,
        limit: int,
        detokenizer: Detokenizer,
        before: Sequence[int],
        generator: Any = None,
    ) -> None:
        self.request = request
        self.setting = setting
        self.limit = limit
        self.generator = generator
        self._detokenizer = detokenizer
        self.before = list(before)
        self.tokens: list[int] = []  # new ones
        self.logprobs: list[tuple[int, float, list[int], list[float]]] = []  # token, its own, the best tokens, theirs
        self.finish_reason: FinishReason | None = None
        self.stop_reason: str | int | None = None
        self.text: str | None = None  # where a stop string has ended it

    @property
    def answer(self) -> list[int]:
        """Its ids so far, a partial answer included."""
        return [*self.request.partial, *self.tokens]

    @property
    def ids(self) -> list[int]:
        """What the model that writes the answer has read and written so far."""
        return [*self.before, *self.request.partial, *self.tokens]

    def catch_up(self, tokens: Sequence[int]) -> bool:
        """Take in the tokens that are new of all that there are; returns whether the answer has ended, with its last or before."""
        for token in tokens[len(self.tokens) :]:
            if self.take(token):
                break
        return self.finish_reason is not None

    def take(self, token: int) -> bool:
        """Take in the next token, unless the answer has ended; returns whether it has."""
        if self.finish_reason is not None:
            return True
        setting = self.setting
        self.tokens.append(token)
        count = len(self.request.partial) + len(self.tokens)
        if count >= setting.min_tokens and token in setting.ends:
            self.finish_reason = "stop"
        elif count >= setting.min_tokens and token in setting.stop_ids:
            self.finish_reason, self.stop_reason = "stop", token
        elif setting.stops and count > setting.min_tokens and (found := self._stopped()) is not None:
            self.finish_reason = "stop"
            self.stop_reason, self.text = found
        elif len(self.tokens) >= self.limit:
            self.finish_reason = "length"
        return self.finish_reason is not None

    def _stopped(self) -> tuple[str, str] | None:
        """The stop string that the last token completes, and the text that it leaves; ``None`` where there is none."""
        stops, answer = self.setting.stops, self.answer
        tail = answer[-max(map(len, stops)) - _SLACK :]
        if not any(stop in self._read((), tail) for stop in stops):
            return None
        before, text = self._read(self.before, answer[:-1]), self._read(self.before, answer)
        for stop in stops:
            place = text.find(stop, max(0, len(before) - len(stop) + 1))
            if place >= 0:
                return stop, text[: place + len(stop)] if self.setting.include_stop else text[:place]
        return None

    def _read(self, prompt: Sequence[int], ids: Sequence[int]) -> str:
        return self._detokenizer.texts([Answer(prompt, ids, self.setting.skip_special_tokens)])[0]

    def note(self, token: int, logprob: float, best: list[int], theirs: list[float]) -> None:
        """The log-probabilities at the next place."""
        self.logprobs.append((token, logprob, best, theirs))

    def text_ids(self) -> list[int]:
        """The ids whose text is the answer: without the one that ended it."""
        ids = self.answer
        if self.finish_reason == "stop" and not isinstance(self.stop_reason, str) and not self.setting.include_stop:
            ids.pop()
        return ids

    def completion(self, text: str) -> Completion:
        """What became of the request; ``text`` is that of ``text_ids``."""
        request = self.request
        text = text if self.text is None else self.text
        if request.prompt.prefill:
            text = self._detokenizer.after_prefill(text, request.prompt.prefill, self.before)
        return Completion(
            key=request.key,
            text=text,
            finish_reason=self.finish_reason or "error",
            usage=Usage(len(request.token_ids or ()) + len(request.partial), len(self.tokens)),
            token_ids=tuple(self.answer),
            stop_reason=self.stop_reason,
            logprobs=None if self.setting.logprobs is None else self._logprobs(),
        )

    def _logprobs(self) -> list[dict[str, Any]]:
        return [
            {
                **self._entry(token, logprob),
                "top": [self._entry(*each) for each in zip(best, theirs, strict=True)],
            }
            for token, logprob, best, theirs in self.logprobs[: len(self.tokens)]
        ]

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        text = self._detokenizer.token(token)
        return {"token": text, "logprob": logprob if math.isfinite(logprob) else _LOWEST_LOGPROB}
