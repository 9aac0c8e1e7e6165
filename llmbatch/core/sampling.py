"""The sampling settings that a prompt file or a request may set: their names in vLLM's ``SamplingParams`` and types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmbatch.core.words import is_of, near, short, type_name

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


NO_SEED = -1
"""As a seed it means none, as it does to vLLM."""


def sampling_problem(name: str, value: object) -> str | None:
    """What is wrong with one setting, in words that follow its name; ``None`` where nothing is."""
    kinds = SAMPLING.get(name)
    if kinds is None:
        return f"is no sampling setting{near(name, SAMPLING)}; known are {', '.join(SAMPLING)}"
    if not any(is_of(value, kind) for kind in kinds):
        return f"is of type {type_name(value)} ({short(value)}), and must be of type {' or '.join(kinds)}"
    if name == "n" and isinstance(value, int) and value < 1:
        return f"is {value}, and a row has at least one answer"
    return None


def token_biases(biases: Mapping[Any, Any]) -> dict[int, float]:
    """JSON has no integer keys, vLLM wants token ids. Raises ``ValueError`` for a key or bias that is no number."""
    try:
        return {int(token): float(bias) for token, bias in biases.items()}
    except TypeError as error:
        raise ValueError(str(error)) from error
