"""The sampling settings that a job, a prompt file or a request may set: their names in vLLM's ``SamplingParams``, types and ranges.

The ranges are those of vLLM 0.27 to 0.32, and of the engine core behind it, which holds counts and ids in 32 bits and a seed in 64:
a number that is beyond them does not fail there as one request's fault, but ends the engine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from llmbatch.core.words import is_encodable, is_of, near, short, type_name

DEFAULT_MAX_TOKENS = 1024
"""Where nobody says how long an answer may be: vLLM's own default of 16 cuts nearly every one off, no limit lets one run away."""

SAMPLING: Mapping[str, tuple[str, ...]] = {
    "n": ("integer",),
    "seed": ("integer",),
    "max_tokens": ("integer",),
    "min_tokens": ("integer",),
    "temperature": ("number",),
    "top_p": ("number",),
    "top_k": ("integer",),
    "min_p": ("number",),
    "presence_penalty": ("number",),
    "frequency_penalty": ("number",),
    "repetition_penalty": ("number",),
    "stop": ("string", "array"),
    "stop_token_ids": ("array",),
    "include_stop_str_in_output": ("boolean",),
    "ignore_eos": ("boolean",),
    "skip_special_tokens": ("boolean",),
    "spaces_between_special_tokens": ("boolean",),
    "logprobs": ("integer",),
    "prompt_logprobs": ("integer",),
    "logprob_token_ids": ("array",),
    "logit_bias": ("object",),
    "allowed_token_ids": ("array",),
    "bad_words": ("array",),
    "thinking_token_budget": ("integer",),
}

LOOPS = "loops"
"""Not a setting that anyone gives: what an engine that can is to stop early at, as ``Loops``. Others leave it unread."""


class Loops(NamedTuple):
    """A stretch of tokens that comes ``times`` times one right after the other, for any length from ``shortest`` to ``longest``."""

    times: int
    shortest: int
    longest: int


_INT32, _INT64 = 2**31 - 1, 2**63 - 1


class _Range(NamedTuple):
    least: float
    most: float = math.inf
    above: bool = False  # ``least`` itself is not allowed


_RANGES = {
    "seed": _Range(-_INT64 - 1, _INT64),
    "max_tokens": _Range(1, _INT32),
    "min_tokens": _Range(0, _INT32),
    "temperature": _Range(0),
    "top_p": _Range(0, 1, above=True),
    "top_k": _Range(-1, _INT32),  # -1 and 0 switch it off
    "min_p": _Range(0, 1),
    "presence_penalty": _Range(-2, 2),
    "frequency_penalty": _Range(-2, 2),
    "repetition_penalty": _Range(0, above=True),
    "logprobs": _Range(-1, _INT32),  # -1: of the whole vocabulary
    "prompt_logprobs": _Range(-1, _INT32),
    "thinking_token_budget": _Range(-1, _INT32),  # -1: none
}
_TEXTS = frozenset({"stop", "bad_words"})  # lists of texts; the other lists are of token ids

NO_SEED = -1
"""As a seed it means none, as it does to vLLM."""


def sampling_problem(name: str, value: object) -> str | None:
    """What is wrong with one setting, in words that follow its name; ``None`` where nothing is."""
    # rows that bring their settings have the same few numbers as a rule
    return _number_problem(name, value) if value.__class__ in (int, float) else _problem(name, value)


def _problem(name: str, value: object) -> str | None:
    kinds = SAMPLING.get(name)
    if kinds is None:
        return f"is no sampling setting{near(name, SAMPLING)}; known are {', '.join(SAMPLING)}"
    if not any(is_of(value, kind) for kind in kinds):
        return f"is of type {type_name(value)} ({short(value)}), and must be of type {' or '.join(kinds)}"
    if name == "n" and isinstance(value, int) and value < 1:
        return f"is {value}, and a row has at least one answer"
    if isinstance(value, str):
        return _text_problem(value)
    if isinstance(value, list | tuple):
        problems = (_text_problem(item) if name in _TEXTS else _id_problem(item) for item in value)
        return next((f"has an item that {problem}" for problem in problems if problem), None)
    if name in _RANGES:
        return _range_problem(value, _RANGES[name])
    if name == "logit_bias":
        try:
            token_biases(dict(value))  # type: ignore[call-overload]
        except ValueError as error:
            return f"cannot be used: logit_bias maps token ids to numbers: {error}"
    return None


_number_problem = lru_cache(maxsize=1024, typed=True)(_problem)


def _text_problem(value: object) -> str | None:
    if not isinstance(value, str):
        return f"is of type {type_name(value)} ({short(value)}), and must be of type string"
    if not value:
        return "is empty"
    return None if is_encodable(value) else "holds half of a surrogate pair, which is no character"


def _id_problem(value: object) -> str | None:
    if not is_of(value, "integer"):
        return f"is of type {type_name(value)} ({short(value)}), and must be a token id"
    return _range_problem(value, _Range(0, _INT32))


def _range_problem(value: Any, allowed: _Range) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return f"is {value}, and must be a finite number"
    if (value <= allowed.least if allowed.above else value < allowed.least) or value > allowed.most:
        least = f"{'above' if allowed.above else 'at least'} {allowed.least:,}"
        most = "" if allowed.most == math.inf else f" and at most {allowed.most:,}"
        return f"is {short(value)}, and must be {least}{most}"
    return None


def token_biases(biases: Mapping[Any, Any]) -> dict[int, float]:
    """JSON has no integer keys, vLLM wants token ids. Raises ``ValueError`` for a key or bias that is no number, or not finite."""
    try:
        numbers = {int(token): float(bias) for token, bias in biases.items()}
    except (TypeError, OverflowError) as error:
        raise ValueError(str(error)) from error
    for token, bias in numbers.items():
        if not math.isfinite(bias) or _id_problem(token):
            raise ValueError(f"{token}: {bias}")
    return numbers


def frozen(value: Any) -> Any:
    """Sampling values are compared and hashed: lists become tuples, mappings sorted pairs."""
    if isinstance(value, list):
        return tuple(map(frozen, value))
    if isinstance(value, dict):
        return tuple(sorted((k, frozen(v)) for k, v in value.items()))
    return value
