"""A prompt and a piece of text in; how much text the prompt holds beside its own words and its answer, out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from llmbatch.core.types import Failure
from llmbatch.programs.base import Ask, RowAsk

_SAMPLE = 500  # characters by which it is measured what a prompt makes of a text
_SLACK = 16  # tokens: two texts together may have a few more than each by itself


class Capacity(NamedTuple):
    """In tokens: the ``room`` for texts, and what one of them takes."""

    room: int
    factor: float  # of its own tokens: 2 where the prompt has it twice
    extra: int  # that are put around it

    def cost(self, tokens: int) -> int:
        """What a text of so many tokens takes."""
        return math.ceil(tokens * self.factor) + self.extra

    @property
    def longest(self) -> int:
        """Tokens of the longest text that fits; below 1 where none does."""
        return math.floor((self.room - self.extra) / self.factor)


def capacity_of(row: RowAsk, ask: Callable[[Sequence[str]], Ask | Failure], text: str) -> Capacity | Failure | None:
    """What a prompt holds, as measured with some of a text that is not blank; ``ask`` gives the prompt with such texts.

    Besides, it has room for its answer, and for as much again, up to a quarter of the context: without that an answer that was cut
    off could not be gone on with. None where the context length is unknown, the failure where the prompt cannot be rendered.
    """
    sample = text.strip()[:_SAMPLE]
    asks = [ask(texts) for texts in ([sample], [f"{sample} {sample}"], [sample, sample])]
    rooms: list[int] = []
    for number, asked in enumerate(asks):
        if isinstance(asked, Failure):
            return asked
        if number == 2 and asked == asks[1]:  # of a prompt that has one text
            rooms.append(rooms[1])
            continue
        room = room_of(row, asked)
        if room is None:
            return None
        rooms.append(room - _kept_to_go_on(row, asked))
    one, longer, two = rooms
    tokens = max(1, row.tokens([sample])[0])
    factor = max(1.0, (one - longer) / tokens)
    extra = max(0, one - two - math.ceil(tokens * factor))
    measured = Capacity(0, factor, extra)
    return measured._replace(room=one + measured.cost(tokens) - _SLACK)


def room_of(row: RowAsk, ask: Ask) -> int | None:
    """Tokens by which a prompt could be longer and still have room for its answer; below 0 it is too long by so many."""
    room = row.room(ask)
    return None if room is None else room + _asked_for(ask, 1) - answer_tokens(row, ask)


def answer_tokens(row: RowAsk, ask: Ask) -> int:
    """How many tokens are kept for an answer: its ``max_tokens``, but at most half of the context."""
    most = (row.context_length or 0) // 2
    return min(_asked_for(ask, most), most)


def _kept_to_go_on(row: RowAsk, ask: Ask) -> int:
    answer = answer_tokens(row, ask)
    return max(0, min(answer, (row.context_length or 0) // 4 - answer))


def _asked_for(ask: Ask, unlimited: int) -> int:
    return int(ask.max_tokens or ask.sampling.get("max_tokens") or unlimited)


__all__ = ["Capacity", "answer_tokens", "capacity_of", "room_of"]
