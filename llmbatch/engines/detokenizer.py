"""Token ids of finished answers in; their texts out, decoded in batches behind the end of their prompts.

How an answer begins may depend on what it stands behind: a tokenizer that writes spaces in front of words drops the one at the
start of a text. So a few tokens of the prompt are decoded with the answer, and their text is taken off again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

_PARALLEL_TOKENS = 8192  # some milliseconds of decoding
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_TAIL = 4  # tokens of the prompt that are decoded in front of the answer


class Answer(NamedTuple):
    """What a text is made from: the prompt's ids (without a partial answer), and the answer's ids that are text."""

    prompt: Sequence[int]
    ids: Sequence[int]
    skip_special_tokens: bool


class Detokenizer:
    """For one tokenizer (a transformers one). ``supported``: decoding at once is known to give what step by step would."""

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
                known = REPLACEMENT not in text and text.startswith(prefix)
                result[i] = text[len(prefix) :] if known else self.replay(answers[i])
        return result

    def replay(self, answer: Answer) -> str:
        """The text of an answer that is not known to read the same at once. What ends it and is no whole character is left out."""
        special = answer.skip_special_tokens
        tail = self._tail(answer.prompt, special)
        prefix, text = self._prefix(tail, special), self._decode([*tail, *answer.ids], special)
        text = text[len(prefix) :] if text.startswith(prefix) else self._decode(answer.ids, special)
        return text.rstrip(REPLACEMENT)

    def after_prefill(self, text: str, prefill: str, prompt: Sequence[int]) -> str:
        """The answer's text without white space at its start that the prefill ends with already.

        A chat template may trim what it is given: of ``"So, "`` the model then sees ``"So,"``, and writes the space itself.
        """
        end = prefill[len(prefill.rstrip()) :]
        if not end or not text[:1].isspace() or self._prefix(tuple(prompt[-_TAIL:]), False).endswith(end):
            return text
        doubled = next((size for size in range(len(end), 0, -1) if text.startswith(end[-size:])), 0)
        return text[doubled:]

    def token(self, token: int) -> str:
        """The text of one token by itself."""
        return self._decode([token], False)

    def _decoded(self, batch: Sequence[Sequence[int]], special: bool) -> list[str]:
        """A small batch one by one: the tokenizer's threads would have to wait for the engine's, and the engine for them."""
        if sum(map(len, batch)) >= _PARALLEL_TOKENS:
            return list(self._rust.decode_batch(batch, skip_special_tokens=special))
        return [self._rust.decode(ids, skip_special_tokens=special) for ids in batch]

    def _decode(self, ids: Sequence[int], special: bool) -> str:
        if self._rust is not None:
            return str(self._rust.decode(ids, skip_special_tokens=special))
        return str(self._tokenizer.decode(ids, skip_special_tokens=special, clean_up_tokenization_spaces=False))

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
            text = self._prefixes[key] = self._decode(tail, special)
        return text


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


__all__ = ["REPLACEMENT", "Answer", "Detokenizer"]
