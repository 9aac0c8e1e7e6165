"""Log-probabilities of tokens, as records have them: those of the answer, behind those of its prompt where they are asked for.

Each is an object, ``{"token", "logprob", "top": [{"token", "logprob"}, ...]}``; one of the prompt has ``"prompt": true`` too. The
first token of a prompt has none: nothing comes before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

ASKED = "prompt_logprobs"
"""The sampling setting that asks for those of the prompt: how many of the likeliest tokens at each place."""
_OF_PROMPT = "prompt"


def of_prompt(first: str, others: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Those of a prompt, by its first token and what is known of the others."""
    return [
        {"token": first, "logprob": None, "top": [], _OF_PROMPT: True},
        *({**each, _OF_PROMPT: True} for each in others),
    ]


def is_of_prompt(token: Mapping[str, Any]) -> bool:
    return _OF_PROMPT in token


def of_answer(tokens: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """Those of the answer alone; None where nobody asked for any of them."""
    if not tokens or not is_of_prompt(tokens[0]):
        return tokens
    return [token for token in tokens if not is_of_prompt(token)] or None


__all__ = ["ASKED", "is_of_prompt", "of_answer", "of_prompt"]
