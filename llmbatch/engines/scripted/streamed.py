"""A scripted answer in; its words, one by one over the time that it takes, out."""

from __future__ import annotations

import re
from dataclasses import dataclass

from llmbatch.core.types import Completion, Piece

FIRST_WORD = 0.1
"""Share of an answer's time after which its first word is there; the others come evenly over the rest."""


@dataclass(slots=True)
class Streamed:
    """An answer that is told word by word: what is still to be told, and when the next of it is due."""

    outcome: Completion
    words: list[str]  # the last one first
    told: int  # characters
    pause: float  # seconds between two words

    @classmethod
    def of(cls, outcome: Completion, seconds: float) -> Streamed:
        """The answer, nothing of it told; so long it takes."""
        words = re.findall(r"\s*\S+\s*", outcome.text) or [outcome.text]
        return cls(outcome, words[::-1], 0, seconds * (1 - FIRST_WORD) / len(words))

    def piece(self) -> Piece:
        """The next word."""
        word, start, logprobs = self.words.pop(), self.told, None
        self.told += len(word)
        if self.outcome.logprobs is not None:  # of each byte
            first = len(self.outcome.text[:start].encode())
            logprobs = self.outcome.logprobs[first : first + len(word.encode())]
        return Piece(self.outcome.key, start, word, logprobs)


__all__ = ["FIRST_WORD", "Streamed"]
