"""The parts of a prompt in order in; what stands in the way of sharing prefixes between rows out, in words.

An engine computes the text that prompts begin with once for all rows. What comes after the first text that differs from
row to row is computed anew for each.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from llmbatch.core.sandbox import pieces_in_order
from llmbatch.prompt.file import LoopSpec, PromptFile

_FEW_CHARACTERS = 200  # about 50 tokens: closing tags and a last reminder are worth their place


def order_notes(file: PromptFile, varying: Collection[str]) -> tuple[str, ...]:
    """Advice on the order of a prompt's texts, given the variables that differ from row to row; empty where it is good."""
    first: str | None = None
    after = 0
    for piece in _pieces(file, varying):
        if isinstance(piece, int):
            after += piece if first is not None else 0
        elif first is None and piece in varying:
            first = piece
    if after < _FEW_CHARACTERS:
        return ()
    return (
        f"{after} characters of constant text come after {first!r}, which differs from row to row: no two rows can share "
        "them. Put what is the same for every row first, and the row's own text last",
    )


def _pieces(file: PromptFile, varying: Collection[str]) -> Iterator[str | int]:
    for message in file.messages or ():
        if not isinstance(message, LoopSpec):
            yield from pieces_in_order(message.content)
        elif message.items in varying:
            yield message.items
        else:
            for inner in message.messages:
                yield from (piece for piece in pieces_in_order(inner.content) if piece != message.item)
    if file.text is not None:
        yield from pieces_in_order(file.text)
