"""Token ids of a finished answer in; its text out, as vLLM's own step-by-step detokenizer would have made it, but in batches.

vLLM detokenizes each token of each request as it comes, which also decodes every prompt once. For the decoders that are known
here the text is the same when the ids are decoded at once behind the end of their prompt, as long as no replacement character
comes out: that one stands for bytes that are no character, which vLLM may hold back. Then, and it is rare, vLLM's own
detokenizer runs over the finished ids.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

_PARALLEL_TOKENS = 8192  # some milliseconds of decoding
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_TAIL = 4  # tokens of the prompt that are decoded in front of the answer
_LOWEST_LOGPROB = -9999.0  # JSON has no infinity; the same as in the OpenAI protocol


class Answer(NamedTuple):
    """What a text is made from: the prompt's ids (without a partial answer), and the answer's ids that are text."""

    prompt: Sequence[int]
    ids: Sequence[int]
    skip_special_tokens: bool


class Ending(NamedTuple):
    """Where an answer ends: its text, how many of its ids belong to it, and the stop string that ended it, if one did."""

    text: str
    tokens: int
    stop: str | None


class Detokenizer:
    """For one tokenizer (vLLM's, a transformers one). ``supported`` says whether its decoder is known here."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._rust: Any = getattr(tokenizer, "_tokenizer", None)
        decoder = getattr(self._rust, "decoder", None)
        kind = {} if decoder is None else json.loads(decoder.__getstate__())
        self._by_bytes = kind.get("type") == "ByteLevel"  # the prompt cannot change how the answer's bytes read
        self.supported = decoder is not None and _is_known(kind)
        self._prefixes: dict[tuple[tuple[int, ...], bool], str] = {}

    def texts(self, answers: Sequence[Answer]) -> list[str]:
        """The text of each answer. All of them are decoded as one batch where their settings agree."""
        if not self.supported:
            return [self.replay(answer) for answer in answers]
        result = [""] * len(answers)
        for special in (True, False):
            places = [i for i, answer in enumerate(answers) if answer.skip_special_tokens == special]
            if not places:
                continue
            tails = [() if self._by_bytes else self._tail(answers[i].prompt, special) for i in places]
            batch = [[*tail, *answers[i].ids] for tail, i in zip(tails, places, strict=True)]
            decoded = self._decoded(batch, special)
            for i, tail, text in zip(places, tails, decoded, strict=True):
                prefix = self._prefix(tail, special) if tail else ""
                known = _REPLACEMENT not in text and text.startswith(prefix)
                result[i] = text[len(prefix) :] if known else self.replay(answers[i])
        return result

    def _decoded(self, batch: Sequence[Sequence[int]], special: bool) -> list[str]:
        """A small batch one by one: the tokenizer's threads would have to wait for the engine's, and the engine for them."""
        if sum(map(len, batch)) >= _PARALLEL_TOKENS:
            return list(self._rust.decode_batch(batch, skip_special_tokens=special))
        return [self._rust.decode(ids, skip_special_tokens=special) for ids in batch]

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

    def after_prefill(self, text: str, prefill: str, prompt: Sequence[int]) -> str:
        """The answer's text without white space at its start that the prefill ends with already.

        A chat template may trim what it is given: of ``"So, "`` the model then sees ``"So,"``, and writes the space itself.
        """
        end = prefill[len(prefill.rstrip()) :]
        if not end or not text[:1].isspace() or self._prefix(tuple(prompt[-_TAIL:]), False).endswith(end):
            return text
        doubled = next((size for size in range(len(end), 0, -1) if text.startswith(end[-size:])), 0)
        return text[doubled:]

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
        ).endswith(_REPLACEMENT):
            prompt = []  # after such a prompt vLLM's detokenizer puts the prompt into the text
        request = SimpleNamespace(
            sampling_params=params, prompt_token_ids=prompt, prompt_embeds=None, request_id="replay"
        )
        return IncrementalDetokenizer.from_new_request(self._tokenizer, request)

    def _tail(self, prompt: Sequence[int], special: bool) -> tuple[int, ...]:
        """The shortest end of the prompt that has text, so that the answer is not taken for the start of a text."""
        size = _TAIL
        while True:
            tail = tuple(prompt[-size:])
            if size >= len(prompt) or self._prefix(tail, special):
                return tail
            size *= 4

    def _prefix(self, tail: tuple[int, ...], special: bool) -> str:
        key = (tail, special)
        text = self._prefixes.get(key)
        if text is None:
            if len(self._prefixes) > 10_000:
                self._prefixes.clear()
            text = self._prefixes[key] = str(self._rust.decode(tail, skip_special_tokens=special))
        return text


def logprobs_json(logprobs: Sequence[Mapping[int, Any]]) -> list[dict[str, Any]]:
    """vLLM's log-probabilities of a sequence as JSON: for each token itself and the most likely ones, best first."""
    return [_position(position) for position in logprobs]


def _position(position: Mapping[int, Any]) -> dict[str, Any]:
    chosen, *rest = position.values()  # vLLM puts the token that was chosen first
    ranked = sorted((entry for entry in (chosen, *rest) if entry.rank is not None), key=lambda entry: entry.rank)
    most = len(rest) + (1 if chosen.rank is not None and chosen.rank <= len(rest) + 1 else 0)
    return {**_entry(chosen), "top": [_entry(entry) for entry in ranked[:most]]}


def _entry(entry: Any) -> dict[str, Any]:
    value = float(entry.logprob)
    return {"token": entry.decoded_token or "", "logprob": value if math.isfinite(value) else _LOWEST_LOGPROB}


def _is_known(decoder: Mapping[str, Any]) -> bool:
    """Whether decoding at once and step by step come to the same for this decoder, replacement characters aside."""
    match decoder.get("type"):
        case "Sequence":
            return all(_is_known(part) for part in decoder["decoders"])
        case "Replace":
            return bool(decoder["pattern"].get("String"))
        case "Strip":
            return bool(decoder["stop"] == 0)
        case kind:
            return kind in {"ByteLevel", "Metaspace", "ByteFallback", "Fuse"}
