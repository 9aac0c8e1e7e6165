"""Texts and asks in; how many tokens they have, and whether they fit the context, out: what a program may know of the model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from llmbatch.core.types import Failure, FailureKind, Prompt
from llmbatch.programs.base import Ask

Tokenize = Callable[[list[Prompt]], Sequence[Sequence[int] | Failure] | None]
"""Prompts -> the ids of each, or why it has none; ``None`` where only a server knows them."""

_CHARACTERS_A_TOKEN = (
    3  # where only a server could tell: fewer than text has in most languages, so that what is cut fits
)
TOO_MANY = sys.maxsize // 2  # of a text so long that it was not tokenized


class Lengths:
    """Measures with a model's tokenizer. ``context_length`` is asked once something is held against it; None: unknown."""

    def __init__(self, tokenize: Tokenize, context_length: Callable[[], int | None] | None) -> None:
        self._tokenize = tokenize
        self._context_length = context_length

    @property
    def context_length(self) -> int | None:
        return None if self._context_length is None else self._context_length()

    @property
    def known(self) -> bool:
        """Whether what fits can be told: the engine says how long its context is, and has token ids."""
        return self.context_length is not None and self._tokenize([Prompt(text="")]) is not None

    def used(self, prompt: Prompt, target: str | None = None) -> int:
        """Tokens of a prompt, with the continuation whose likelihood is asked for; of one that is absurdly long ``TOO_MANY``."""
        return self._count([prompt if target is None else with_target(prompt, target)])[0]

    def tokens(self, texts: Sequence[str]) -> list[int]:
        """As ``RowAsk.tokens``: of each text by itself, one that is longer than any context could hold has very many."""
        return self._count([Prompt(text=text) for text in texts])

    def ids(self, texts: Sequence[str]) -> list[Sequence[int] | Failure] | None:
        """As ``RowAsk.ids``."""
        found = self._tokenize([Prompt(text=text, long=True) for text in texts])
        return None if found is None else list(found)

    def room(self, ask: Ask) -> int | None:
        """As ``RowAsk.room``. A prompt that the model's chat template refuses has all the room: it is refused as it is sent."""
        limit = self.context_length
        if limit is None:
            return None
        answer = ask.max_tokens or ask.sampling.get("max_tokens") or 1
        return limit - int(answer) - self._count([ask.prompt])[0]

    def _count(self, prompts: list[Prompt]) -> list[int]:
        if len(prompts) == 1 and prompts[0].ids is not None:
            return [len(prompts[0].ids)]
        found = self._tokenize(prompts)
        if found is None:
            return [-(-_characters(prompt) // _CHARACTERS_A_TOKEN) for prompt in prompts]
        return [_length(ids) for ids in found]


def _length(ids: Sequence[int] | Failure) -> int:
    if isinstance(ids, Failure):
        return TOO_MANY if ids.kind is FailureKind.TOO_LONG else 0
    return len(ids)


def with_target(prompt: Prompt, target: str) -> Prompt:
    """The prompt with a continuation."""
    return Prompt(prompt.messages, prompt.text, prompt.prefill + target, images=prompt.images, tools=prompt.tools)


def _characters(prompt: Prompt) -> int:
    said = [
        prompt.text or "",
        prompt.pair or "",
        prompt.prefill,
        *(str(message.get("content")) for message in prompt.messages or ()),
    ]
    return sum(map(len, said))


__all__ = ["TOO_MANY", "Lengths", "Tokenize", "with_target"]
