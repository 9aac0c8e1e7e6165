"""The whole answer is a sentence of a context-free grammar, in Lark's syntax or as EBNF (``root ::= ...``).

The check is llguidance's matcher over single bytes, so that it accepts what constrained decoding may produce, whatever
the tokenizer. llguidance comes with vLLM; without it a grammar cannot be checked, and such a job is refused.
"""

from __future__ import annotations

from typing import Any

from llmbatch.check.base import Kind, OutputSettings, Reading, failed
from llmbatch.core.errors import JobError, SchemaError
from llmbatch.core.types import Constraint, FailureKind
from llmbatch.core.words import quote

_END = 256  # the token after the 256 bytes


def make(settings: OutputSettings) -> Kind:
    """Raises ``SchemaError`` for a grammar that is not valid, ``JobError`` where llguidance is not installed."""
    grammar = settings.grammar or ""
    start = _matcher(grammar)

    def read(text: str) -> Reading:
        data = text.encode()
        matcher = start.deep_copy()  # half a microsecond, and it leaves the start as it is for other threads
        matched = matcher.try_consume_tokens(list(data))
        if matched == len(data) and matcher.is_accepting():
            return Reading(text, None, matcher.is_stopped())
        if matcher.is_error():
            return failed(
                FailureKind.GRAMMAR, f"the answer could not be matched with the grammar: {matcher.get_error()}"
            )
        rest = data[matched:].decode(errors="replace")
        where = (
            f"from {quote(rest)} on (character {len(text) - len(rest) + 1})"
            if rest
            else "at its end, which comes too early"
        )
        return failed(FailureKind.GRAMMAR, f"the answer leaves the grammar {where}")

    return Kind(Constraint("grammar", grammar), read)


def _matcher(grammar: str) -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise JobError(
            "an answer with a grammar is checked by llguidance, which is not installed: it comes with vLLM"
            " (docs/install.md), or pip install llguidance"
        ) from error
    if not grammar.strip():
        raise SchemaError("the grammar is empty")
    try:
        serialized = llguidance.grammar_from("grammar", grammar)
    except ValueError as error:
        raise SchemaError(f"the grammar is not valid: {error}") from error
    tokenizer = llguidance.LLTokenizer(llguidance.TokenizerWrapper(_Bytes()), slices=[])
    if problem := llguidance.LLMatcher.validate_grammar(serialized, tokenizer):
        raise SchemaError(f"the grammar is not valid: {problem.strip()}")
    return llguidance.LLMatcher(tokenizer, serialized, log_level=0)


class _Bytes:
    """A tokenizer whose tokens are the 256 bytes and an end, as llguidance wants one."""

    eos_token_id = _END
    bos_token_id = None
    tokens = (*(bytes([byte]) for byte in range(256)), b"<end>")
    special_token_ids = (_END,)

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)
