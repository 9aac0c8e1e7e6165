"""A prompt file and some of its variables in; the same file with the lines of these variables in that order out.

What many rows share is computed once where it comes first, so the fields of a row that others share go before its own (as
"Optimizing LLM Queries in Relational Data Analytics Workloads", Liu et al., has it). It is another prompt, and answers may differ,
so nobody but the job's author decides on it. A line moves to the place of another line of the same text, if it has one of the
variables, none other, and nothing that the template decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from llmbatch.core.errors import PromptError
from llmbatch.prompt.file import LoopSpec, PromptFile

_NAME = re.compile(r"\{\{-?\s*([A-Za-z_]\w*)")


def in_field_order(file: PromptFile, names: Sequence[str]) -> PromptFile:
    """Raises ``PromptError`` for a variable that has no line of its own."""
    lines = set(lines_of_their_own(file))
    if wrong := next((name for name in names if name not in lines), None):
        known = ", ".join(sorted(lines)) or "none"
        raise PromptError(
            f"prompt.field_order: {wrong!r} has no line of its own in the prompt {file.name!r}, which could change places with "
            f"another; those that have one are {known}"
        )
    messages = [
        message
        if isinstance(message, LoopSpec)
        else message.model_copy(update={"content": _ordered(message.content, file, names)})
        for message in file.messages or ()
    ]
    text = None if file.text is None else _ordered(file.text, file, names)
    return file.model_copy(update={"messages": messages if file.messages is not None else None, "text": text})


def lines_of_their_own(file: PromptFile) -> Iterator[str]:
    """The variables whose lines could change places, as they come."""
    texts = [message.content for message in file.messages or () if not isinstance(message, LoopSpec)]
    for text in (*texts, file.text or ""):
        yield from (name for line in text.split("\n") if (name := _only(line, file)) is not None)


def _ordered(text: str, file: PromptFile, names: Sequence[str]) -> str:
    lines = text.split("\n")
    places = [place for place, line in enumerate(lines) if _only(line, file) in names]
    moved = sorted((lines[place] for place in places), key=lambda line: names.index(str(_only(line, file))))
    for place, line in zip(places, moved, strict=True):
        lines[place] = line
    return "\n".join(lines)


def _only(line: str, file: PromptFile) -> str | None:
    """The one variable of a line that could move."""
    found = set(_NAME.findall(line))
    name = found.pop() if len(found) == 1 and "{%" not in line else None
    return name if name in file.variables else None


__all__ = ["in_field_order", "lines_of_their_own"]
