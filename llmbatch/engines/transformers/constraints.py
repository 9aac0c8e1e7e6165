"""A constraint in; what holds an answer to it out, token by token: xgrammar's matcher, where that is installed.

JSON is spaced as models have learnt to write it, with one space behind ``,`` and ``:`` and none elsewhere. What xgrammar cannot
hold an answer to is not held: every answer is checked afterwards, and asked for again where it does not do.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from typing import Any

from llmbatch.core.types import Constraint
from llmbatch.core.words import one_line
from llmbatch.engines.transformers.loading import Loaded

_KEPT = 1024  # compiled constraints; a job that has more compiles them anew
_SEPARATORS = (", ", ": ")


class Constraints:
    """Those of one engine."""

    def __init__(self, loaded: Loaded, tokenizer: Any) -> None:
        self._loaded = loaded
        self._tokenizer = tokenizer
        self._compiled: dict[Constraint, Any] = {}
        self.held = find_spec("xgrammar") is not None

    def matcher(self, constraint: Constraint | None, partial: Sequence[int]) -> Any:
        """One for an answer that goes on from ``partial``; ``None`` where the answer is not held to anything."""
        if constraint is None or not self.held:
            return None
        if constraint not in self._compiled:
            if len(self._compiled) >= _KEPT:
                self._compiled.clear()
            self._compiled[constraint] = self._compile(constraint)
        compiled = self._compiled[constraint]
        if compiled is None:
            return None
        from xgrammar import GrammarMatcher

        matcher = GrammarMatcher(compiled)
        return matcher if all(matcher.accept_token(token) for token in partial) else None

    def _compile(self, constraint: Constraint) -> Any:
        spec, compiler = constraint.spec, self._compiler
        try:
            match constraint.kind:
                case "json":
                    return compiler.compile_json_schema(spec, any_whitespace=False, separators=_SEPARATORS)
                case "choice":
                    texts = [_quoted(text) for text in json.loads(spec)]
                    return compiler.compile_grammar(f"root ::= {' | '.join(texts)}")
                case "regex":
                    return compiler.compile_regex(spec)
                case "grammar":
                    return compiler.compile_grammar(spec)
        except (RuntimeError, ValueError) as error:
            said = one_line(str(error))
            logging.getLogger("transformers").warning(
                "answers are not held to a %s constraint: %s", constraint.kind, said
            )
        return None

    @cached_property
    def _compiler(self) -> Any:
        from xgrammar import GrammarCompiler, TokenizerInfo

        info = TokenizerInfo.from_huggingface(
            self._tokenizer, vocab_size=self._loaded.vocabulary, stop_token_ids=sorted(self._loaded.eos) or None
        )
        return GrammarCompiler(info)


def _quoted(text: str) -> str:
    """A text in quotes as a grammar has it: as in JSON, but a character beyond 16 bits is one there, and no pair of surrogates."""
    letters = (json.dumps(each)[1:-1] if each <= "\uffff" else f"\\U{ord(each):08x}" for each in text)
    return f'"{"".join(letters)}"'


def mask(scores: Any, matchers: Sequence[Any]) -> Any:
    """The scores with every token out that would break its row's constraint; ``None``: the row has none."""
    import xgrammar

    places = [i for i, matcher in enumerate(matchers) if matcher is not None and not matcher.is_terminated()]
    if not places:
        return scores
    allowed = xgrammar.allocate_token_bitmask(len(places), scores.shape[1])
    for i, place in enumerate(places):
        matchers[place].fill_next_token_bitmask(allowed, i)
    device = scores.device
    held = scores[places] if device.type in ("cpu", "cuda") else scores[places].cpu()
    xgrammar.apply_token_bitmask_inplace(held, allowed.to(held.device))
    scores = scores.clone()
    scores[places] = held.to(device)
    return scores


__all__ = ["Constraints", "mask"]
