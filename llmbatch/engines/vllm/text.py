"""Token ids of a finished answer in; its text out, as vLLM's own step-by-step detokenizer would have made it, but in batches.

vLLM detokenizes each token of each request as it comes, which also decodes every prompt once. For the decoders that are known
here the text is the same when the ids are decoded at once behind the end of their prompt, as long as no replacement character
comes out: that one stands for bytes that are no character, which vLLM may hold back. Then, and it is rare, vLLM's own
detokenizer runs over the finished ids.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

from llmbatch.core.logprobs import of_prompt
from llmbatch.engines.detokenizer import REPLACEMENT, Answer
from llmbatch.engines.detokenizer import Detokenizer as _Detokenizer

_LOWEST_LOGPROB = -9999.0  # JSON has no infinity; the same as in the OpenAI protocol


class Ending(NamedTuple):
    """Where an answer ends: its text, how many of its ids belong to it, and the stop string that ended it, if one did."""

    text: str
    tokens: int
    stop: str | None


class Detokenizer(_Detokenizer):
    """For one tokenizer of vLLM's. Where it is not supported vLLM's own detokenizer runs over the finished ids."""

    def replay(self, answer: Answer) -> str:
        """The text by vLLM's own detokenizer, token by token."""
        stream = self._stream(answer)
        stream.update(list(answer.ids), False)
        return str(stream.output_text)

    def ending(self, answer: Answer, stops: Sequence[str], *, already: int, include_stop: bool) -> Ending:
        """Where the answer ends by vLLM's own rule: at the first stop string in it that a new token completes.

        ``already`` is how many of the ids are of a partial answer that was gone on from: a stop string may begin in it, and
        vLLM, to which it is a part of the prompt, does not see that one.
        """
        # min_tokens: what is there already was looked through when it came
        stream = self._stream(answer, stop=list(stops), min_tokens=already, include_stop_str_in_output=include_stop)
        for count, token in enumerate(answer.ids, 1):
            if (stop := stream.update([token], False)) is not None:
                return Ending(str(stream.output_text), count, stop)
        return Ending(str(stream.output_text), len(answer.ids), None)

    def _stream(self, answer: Answer, **settings: Any) -> Any:
        from vllm.v1.engine.detokenizer import IncrementalDetokenizer

        defaults = {"stop": [], "min_tokens": 0, "include_stop_str_in_output": False}
        params = SimpleNamespace(
            **{**defaults, **settings},
            skip_special_tokens=answer.skip_special_tokens,
            spaces_between_special_tokens=True,
        )
        prompt = list(answer.prompt)
        # of the whole prompt: its end alone may begin within a character
        if self._rust is not None and self._rust.decode(
            prompt, skip_special_tokens=answer.skip_special_tokens
        ).endswith(REPLACEMENT):
            prompt = []  # after such a prompt vLLM's detokenizer puts the prompt into the text
        request = SimpleNamespace(
            sampling_params=params, prompt_token_ids=prompt, prompt_embeds=None, request_id="replay"
        )
        return IncrementalDetokenizer.from_new_request(self._tokenizer, request)


def logprobs_json(logprobs: Sequence[Mapping[int, Any]]) -> list[dict[str, Any]]:
    """vLLM's log-probabilities of a sequence as JSON: for each token itself and the most likely ones, best first."""
    return [_position(position) for position in logprobs]


def prompt_logprobs_json(first: str, logprobs: Sequence[Mapping[int, Any] | None]) -> list[dict[str, Any]]:
    """The same of a prompt, by the text of its first token, which has none."""
    return of_prompt(first, (_position(position) for position in logprobs if position is not None))


def _position(position: Mapping[int, Any]) -> dict[str, Any]:
    chosen, *rest = position.values()  # vLLM puts the token that was chosen first
    ranked = sorted((entry for entry in (chosen, *rest) if entry.rank is not None), key=lambda entry: entry.rank)
    most = len(rest) + (1 if chosen.rank is not None and chosen.rank <= len(rest) + 1 else 0)
    return {**_entry(chosen), "top": [_entry(entry) for entry in ranked[:most]]}


def _entry(entry: Any) -> dict[str, Any]:
    value = float(entry.logprob)
    return {"token": entry.decoded_token or "", "logprob": value if math.isfinite(value) else _LOWEST_LOGPROB}


__all__ = ["Answer", "Detokenizer", "Ending", "logprobs_json", "prompt_logprobs_json"]
