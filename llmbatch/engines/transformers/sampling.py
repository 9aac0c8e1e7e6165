"""A request's settings by vLLM's names in; what is done to the scores of its tokens out, made once for each distinct setting.

The arithmetic of temperature, top_k, top_p, min_p, of penalties for repetition and of forbidden words is the library's own classes.
What vLLM has and the library has not, and is a line of arithmetic, is here; the rest is refused by name.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from llmbatch.core.sampling import LOOPS, NO_SEED, SAMPLING, token_biases
from llmbatch.core.types import Sampling
from llmbatch.core.words import near

if TYPE_CHECKING:
    from llmbatch.engines.transformers.loading import Loaded

_KEPT = 4096  # distinct settings; a job that has more makes them anew
_GREEDY_BELOW = 1e-5  # as vLLM has it
_WARPING = ("temperature", "top_k", "top_p", "min_p")
_REFUSED = {
    "logprob_token_ids": "give logprobs, the most likely tokens at each place",
    "prompt_logprobs": "the program `score` or `perplexity` gives the likelihood of a text",
    "thinking_token_budget": "it needs a reasoning parser, which this engine has not",
}


class Written(Protocol):
    """What is known of a row between two tokens."""

    @property
    def ids(self) -> list[int]:
        """What the model has read and written so far."""

    @property
    def answer(self) -> list[int]:
        """What it has written."""


Shaper = Callable[[Any, Sequence[Written]], Any]
"""(scores of some rows, the rows) -> the scores as they are to be: float tensors of shape (rows, vocabulary)."""


@dataclass(frozen=True)
class Setting:
    """What requests share. ``shapers`` change the scores, in order; then the highest is taken, or one drawn (``samples``)."""

    samples: bool
    shapers: tuple[Shaper, ...]
    ends: frozenset[int]  # the model's own ids that end an answer
    stop_ids: frozenset[int]
    stops: tuple[str, ...]
    include_stop: bool
    skip_special_tokens: bool
    min_tokens: int
    max_tokens: int | None
    seed: int | None
    logprobs: int | None

    @property
    def acts(self) -> bool:
        """Whether anything is to be done at a step but to take the highest score."""
        return bool(self.samples or self.shapers or self.stops or self.logprobs is not None)


class Samplings:
    """The settings of one engine: those of its requests over the model's own (its generation config)."""

    def __init__(self, loaded: Loaded, tokenizer: Any) -> None:
        self._loaded = loaded
        self._tokenizer = tokenizer
        self._made: dict[int, tuple[Sampling, Setting]] = {}

    def of(self, sampling: Sampling) -> Setting:
        """The setting; raises ``ValueError`` for what this engine cannot do."""
        made = self._made.get(id(sampling))
        if made is None:
            if len(self._made) >= _KEPT:
                self._made.clear()
            # the sampling is kept with it, so that its identity is not another's later
            made = self._made[id(sampling)] = (sampling, self._make(sampling))
        return made[1]

    def _make(self, sampling: Sampling) -> Setting:
        values = dict(sampling.values)
        values.pop(LOOPS, None)
        for name in values:
            if name not in SAMPLING:
                raise ValueError(f"there is no sampling setting {name!r}{near(name, SAMPLING)}")
            if name in _REFUSED:
                raise ValueError(f"the transformers engine has no {name}: {_REFUSED[name]}")
        if values.get("spaces_between_special_tokens") is False:
            raise ValueError("the transformers engine has no spaces_between_special_tokens=false: take it out")
        loaded = self._loaded
        ends = frozenset() if values.get("ignore_eos") else loaded.eos
        stop_ids = frozenset(values.get("stop_token_ids") or ())
        stops = values.get("stop") or ()
        samples, warpers = self._warpers(values)
        minimum = int(values.get("min_tokens") or 0)
        held = (ends | stop_ids | loaded.eos) if minimum else frozenset()
        shapers = [*self._shapers(values), *([_holding_back(sorted(held), minimum)] if held else []), *warpers]
        seed = values.get("seed")
        return Setting(
            samples,
            tuple(shapers),
            ends,
            stop_ids,
            (stops,) if isinstance(stops, str) else tuple(stops),
            bool(values.get("include_stop_str_in_output")),
            bool(values.get("skip_special_tokens", True)),
            minimum,
            values.get("max_tokens"),
            None if seed == NO_SEED else seed,
            values.get("logprobs"),
        )

    def _warpers(self, values: dict[str, Any]) -> tuple[bool, list[Shaper]]:
        """Whether it samples, and what the library makes of the probabilities before it draws: its own list, in its own order."""
        config = copy.deepcopy(self._loaded.defaults)
        asked = {name: values[name] for name in _WARPING if values.get(name) is not None}
        temperature = asked.get("temperature")
        if not (config.do_sample or asked) if temperature is None else temperature < _GREEDY_BELOW:
            return False, []
        from transformers import GenerationConfig

        if "top_k" in asked:
            asked["top_k"] = max(asked["top_k"], 0)  # -1 switches it off, as 0 does here
        usual = GenerationConfig._get_default_generation_params()
        names = (*_WARPING, "typical_p", "epsilon_cutoff", "eta_cutoff", "top_h")
        own = {name: getattr(config, name, None) for name in names}
        own = {name: usual.get(name) if value is None else value for name, value in own.items()}
        made = self._loaded.model._get_logits_processor(
            GenerationConfig(do_sample=True, **{**own, **asked}), input_ids_seq_length=0, device=self._loaded.device
        )
        return True, [_of_library(each) for each in made]

    def _shapers(self, values: dict[str, Any]) -> list[Shaper]:
        """In the order in which the library has them: biases, penalties, forbidden words, allowed tokens."""
        from transformers.generation.logits_process import NoBadWordsLogitsProcessor, RepetitionPenaltyLogitsProcessor

        loaded, found = self._loaded, list[Shaper]()
        if values.get("logit_bias"):
            found.append(_biased(_in_vocabulary(token_biases(dict(values["logit_bias"])), "logit_bias", loaded)))
        presence, frequency = values.get("presence_penalty") or 0.0, values.get("frequency_penalty") or 0.0
        if presence or frequency:
            found.append(_penalized(presence, frequency))
        repetition = values.get("repetition_penalty") or loaded.defaults.repetition_penalty or 1.0
        if repetition != 1.0:
            found.append(_by_row(RepetitionPenaltyLogitsProcessor(penalty=float(repetition))))
        if values.get("bad_words"):
            ids = [list(each) for each in self._words(values["bad_words"])]
            found.append(_by_row(NoBadWordsLogitsProcessor(ids, sorted(loaded.eos) or None)))
        if values.get("allowed_token_ids"):
            allowed = dict.fromkeys(values["allowed_token_ids"], 0.0)
            found.append(_allowed(sorted(_in_vocabulary(allowed, "allowed_token_ids", loaded))))
        return found

    def _words(self, words: Sequence[str]) -> set[tuple[int, ...]]:
        """The ids of each word as it stands at the start of a text and, as vLLM has it, behind a space."""
        texts = [text for word in words for text in (word.lstrip(), f" {word.lstrip()}")]
        return {tuple(self._tokenizer.encode(text, add_special_tokens=False)) for text in texts} - {()}


def _in_vocabulary(by_token: dict[int, float], name: str, loaded: Loaded) -> dict[int, float]:
    if beyond := [token for token in by_token if not 0 <= token < loaded.vocabulary]:
        raise ValueError(f"{name} has the token id {beyond[0]}, and the model's vocabulary has {loaded.vocabulary:,}")
    return by_token


def _of_library(processor: Any) -> Shaper:
    """One that looks at the scores alone, so that rows need no ids."""
    return lambda scores, _: processor(None, scores)


def _by_row(processor: Any) -> Shaper:
    """One that looks at what a row has so far, prompt and answer, which is of another length in each."""

    def shape(scores: Any, rows: Sequence[Written]) -> Any:
        import torch

        made = [
            processor(torch.tensor([row.ids], device=scores.device), scores[i : i + 1]) for i, row in enumerate(rows)
        ]
        return torch.cat(made)

    return shape


def _biased(biases: dict[int, float]) -> Shaper:
    def shape(scores: Any, _: Sequence[Written]) -> Any:
        scores = scores.clone()
        for token, bias in biases.items():
            scores[:, token] += bias
        return scores

    return shape


def _penalized(presence: float, frequency: float) -> Shaper:
    def shape(scores: Any, rows: Sequence[Written]) -> Any:
        import torch

        scores = scores.clone()
        for i, row in enumerate(rows):
            if row.answer:
                tokens, counts = torch.tensor(row.answer, device=scores.device).unique(return_counts=True)
                scores[i, tokens] -= presence + frequency * counts.to(scores.dtype)
        return scores

    return shape


def _allowed(tokens: list[int]) -> Shaper:
    def shape(scores: Any, _: Sequence[Written]) -> Any:
        only = scores.new_full(scores.shape, -math.inf)
        only[:, tokens] = scores[:, tokens]
        return only

    return shape


def _holding_back(ends: list[int], minimum: int) -> Shaper:
    """No end before so many tokens."""

    def shape(scores: Any, rows: Sequence[Written]) -> Any:
        early = [i for i, row in enumerate(rows) if len(row.answer) < minimum]
        if early:
            scores = scores.clone()
            for token in ends:
                scores[early, token] = -math.inf
        return scores

    return shape
