"""A prompt's and an answer's text in; about how many tokens they are, for a server that does not say, out."""

from __future__ import annotations

from llmbatch.engines.http.base import Note

_CHARACTERS_A_TOKEN = 4


def about(text: str, note: Note) -> int:
    """The tokens of a text, about; says that they are counted so."""
    note(
        f"the server does not say how many tokens it took: they are counted as one for {_CHARACTERS_A_TOKEN} characters"
    )
    return -(-len(text) // _CHARACTERS_A_TOKEN)


__all__ = ["about"]
