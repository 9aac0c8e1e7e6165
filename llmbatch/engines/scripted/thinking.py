"""Scripted answers with a thinking part, ``<think>...</think>`` before the answer itself, in; what a thinking model's are like out.

With ``engine.reasoning_parser`` set, whichever it is, the part is split off, as vLLM's parsers do it.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmbatch.engines.thinking import Marks

START, END = "<think>", "</think>"
MARKS = Marks(tuple(START.encode()), tuple(END.encode()))


def kept_short(answer: bytes, budget: int | None) -> bytes:
    """The answer of an engine that ends the thinking itself after so many tokens."""
    thinking, end, rest = answer.partition(END.encode())
    if budget is None or budget < 0 or not answer.startswith(START.encode()):
        return answer
    longest = len(START) + budget
    return answer if len(thinking) <= longest else thinking[:longest] + END.encode() + (rest if end else b"")


def gone_on(answer: bytes, partial: Sequence[int]) -> bytes:
    """The whole answer that begins with a partial one: where its thinking was ended early, what is said after it."""
    begun = bytes(partial)
    if answer.startswith(begun):
        return answer
    thinking, end, _ = begun.partition(END.encode())
    return thinking + end + answer.partition(END.encode())[2] if end else answer


def split(text: str) -> tuple[str | None, str]:
    """(thinking part, the rest) of an answer; one that was cut off while thinking has no rest."""
    if END in text:
        thinking, _, rest = text.partition(END)
        return thinking.removeprefix(START), rest
    return (text.removeprefix(START), "") if text.startswith(START) else (None, text)
