"""A request for the likelihood of a continuation in; the prompts that vLLM computes for it, one after another, and the score, out.

vLLM gives the log-probability of each token of a prompt (``prompt_logprobs=0``), so prompt and target are sent as one prompt. By
default it then reads nothing from its prefix cache. It may (``skip_reading_prefix_cache=False``), and only the rows of what it
took from there are missing, so the prompt that many targets share is computed once. What must hold for that:

- vLLM makes the logits of all rows of a step at once, as float32: with a large vocabulary, gigabytes. So a long prompt is first
  computed without log-probabilities, and a long target in pieces; both come from the cache for what follows.
- A row of the target that was in the cache all the same, as another target began alike, is asked for once more: a prompt that ends
  with the block of that row cannot take the block from the cache.
- A target of one token, the row behind a whole block that is in the cache, and the last token where the context has no room for one
  more after it, are not sent: their log-probability is that of the next token (``logprob_token_ids``).

A row is the place of a token in prompt and target together.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llmbatch.core.types import Completion, Request, Score, Usage

_LOGITS_BYTES = 1 << 29  # of the rows of one piece; vLLM holds some copies of it for a moment
_BYTES_OF_ROW = 4


class Limits(NamedTuple):
    """What matters of an engine. ``block_size`` is None where it has no prefix cache."""

    vocabulary: int
    context_length: int
    block_size: int | None

    @property
    def rows(self) -> int:
        """Log-probabilities that may be computed in one step of a request."""
        return max(64, _LOGITS_BYTES // (_BYTES_OF_ROW * self.vocabulary))


class Piece(NamedTuple):
    """What is sent: the ids up to ``end``. ``scored``: the log-probabilities of their rows are wanted; ``following``: that of the
    token that comes after them."""

    end: int
    scored: bool
    following: bool = False


class Scoring:
    """One request's way to its score: ``piece``, whose output is given to ``take``, until there is a ``completion``."""

    def __init__(self, request: Request, limits: Limits) -> None:
        self.key = request.key
        self.urgent = request.urgent
        self._limits = limits
        self.ids = [*(request.token_ids or ()), *request.target_ids]
        self._first = len(self.ids) - len(request.target_ids)
        self._row = self._first  # the first whose log-probability is not known
        self._warm = False
        self._cached = self._alone = False  # the row came from the cache; it did so also as the last of its block
        self._computed = self._given = 0
        self._logprob, self._greedy = 0.0, True

    @property
    def piece(self) -> Piece:
        """What to send next."""
        limits, last = self._limits, len(self.ids)
        # the last token is the one that cannot be sent where the context is full
        sendable = min(last, limits.context_length - 1)
        if self._row >= sendable or last == self._first + 1:
            return Piece(self._row, scored=False, following=True)
        if limits.block_size is not None:
            if not self._warm and self._row > limits.rows:
                return Piece(self._row, scored=False)
            if self._cached:
                border = ((self._row - 1) // limits.block_size + 1) * limits.block_size
                if self._alone or border == self._row:
                    return Piece(self._row, scored=False, following=True)
                return Piece(min(sendable, border), scored=True)
            return Piece(min(sendable, self._row + limits.rows), scored=True)
        return Piece(sendable, scored=True)

    def take(self, piece: Piece, output: Any) -> Completion | None:
        """vLLM's ``RequestOutput`` for a piece; returns the completion once every row is known."""
        cached = output.num_cached_tokens or 0
        self._computed += piece.end - cached
        self._given += len(output.outputs[0].token_ids)
        self._warm = True
        if piece.following:
            answer = output.outputs[0]
            wanted = self.ids[piece.end]
            self._add(answer.logprobs[0][wanted].logprob, greedy=answer.token_ids[0] == wanted)
        elif piece.scored:
            # the row of a token needs the one before it computed
            if self._row - 1 < cached:
                self._cached, self._alone = True, self._cached
                return None
            for row in range(self._row, piece.end):
                entry = output.prompt_logprobs[row][self.ids[row]]
                self._add(entry.logprob, greedy=entry.rank == 1)
            self._cached = False
        self._alone = False
        return self._completion() if self._row == len(self.ids) else None

    def _add(self, logprob: float, *, greedy: bool) -> None:
        self._logprob += logprob
        self._greedy = self._greedy and greedy
        self._row += 1

    def _completion(self) -> Completion:
        tokens = len(self.ids)
        usage = Usage(tokens, self._given, max(0, tokens - self._computed))
        score = Score(self._logprob, self._greedy, tokens - self._first)
        return Completion(self.key, "", "stop", usage, score=score)
