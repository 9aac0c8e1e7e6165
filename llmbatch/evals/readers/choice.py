"""An output in; the choice that it names, out: by its letter (``B``, ``(B)``, ``the answer is B``) or by its text.

The choices are the row's, which have the letters A, B, C, ...; or the ``labels`` of the settings, the same for every row. A letter
that is only a word (``A dog``) is not taken for one. An answer that names several choices is none.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from llmbatch.core.words import short
from llmbatch.evals.readers.base import ReaderKind, ReaderSettings

LETTERS = string.ascii_uppercase


class ChoiceSettings(ReaderSettings):
    labels: tuple[str, ...] = Field(
        (), description="what may be answered; by default the letters A, B, C, ... of the row's choices, or their texts"
    )
    ignore_case: bool = Field(
        True, description="of labels and texts; letters are upper-case but where they are all there is"
    )


def read(text: str, settings: ChoiceSettings, choices: Sequence[str]) -> str | None:
    text = text.strip()
    options = list(settings.labels or choices)
    names = _exactly(text, options, settings)
    if names is not None or not options:
        return names
    if not settings.labels:
        letter = _letter(text, options)
        if letter is not None:
            return options[letter]
    return _mentioned(text, options, settings)


def _exactly(text: str, options: Sequence[str], settings: ChoiceSettings) -> str | None:
    bare = _folded(text.rstrip(" .!").strip("\"'*`"), settings)
    return next((option for option in options if bare == _folded(option.strip().rstrip(" ."), settings)), None)


def _letter(text: str, options: Sequence[str]) -> int | None:
    """Which choice a letter in the text names. What the model says of options on its way to the answer does not count."""
    known = LETTERS[: len(options)]
    ways = (
        rf"^\W*([{known}{known.lower()}])\W*$",  # nothing else
        rf"(?i:answer)(?i:\s+is)?\s*[:=]?\s*[(\[*\"]*([{known}])(?![\w'])",
        rf"(?i:choice|option)(?i:\s+is)?\s*[:=]?\s*[(\[*\"]*([{known}])(?![\w'])",
        rf"^[(\[*]*([{known}])[)\].:,*]",  # at the start: B) ..., (B) ..., B. ...
        rf"\(([{known}])\)",
    )
    for way in ways:
        matches = re.finditer(way, text, re.MULTILINE)
        found = {each[1].upper() for each in matches if not _begins_an_option(text[each.start(1) :], options)}
        if len(found) == 1:
            return known.index(found.pop())
        if found:
            return None
    return None


def _begins_an_option(text: str, options: Sequence[str]) -> bool:
    """Whether what stands there is an option's text, as of ``A dog``, or ``C++``, and not its letter."""
    return any(
        len(option) > 1 and text.startswith(option) and not text[len(option) : len(option) + 1].isalnum()
        for option in map(str.strip, options)
    )


def _mentioned(text: str, options: Sequence[str], settings: ChoiceSettings) -> str | None:
    """The one option whose text is in the answer, as words of its own."""
    whole = _folded(text, settings)
    found = [
        option
        for option in options
        if option.strip() and re.search(rf"(?<!\w){re.escape(_folded(option.strip(), settings))}(?!\w)", whole)
    ]
    longest = [option for option in found if not any(option is not other and option in other for other in found)]
    return longest[0] if len(longest) == 1 else None


def _folded(text: str, settings: ChoiceSettings) -> str:
    return text.casefold() if settings.ignore_case else text


def reference(value: Any, settings: ChoiceSettings, choices: Sequence[str]) -> str:
    """The choice that a reference means: by its number from 0, its letter, or its text."""
    return chosen(value, settings.labels or choices)


def chosen(value: Any, choices: Sequence[str]) -> str:
    """The choice that a reference means: by its number from 0, its letter, or its text. Raises ``ValueError``."""
    known = ", ".join(map(short, choices[:8]))
    if isinstance(value, str) and value in choices:
        return value
    at: int | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        at = value
    elif isinstance(value, str) and value.strip().isdecimal():
        at = int(value)
    elif isinstance(value, str) and len(value.strip()) == 1 and value.strip().upper() in LETTERS:
        at = LETTERS.index(value.strip().upper())
    if at is None or not 0 <= at < len(choices):
        raise ValueError(
            f"is {short(value)}, and must be the number of a choice (from 0), its letter or its text; the choices are "
            f"{known or 'none'}"
        )
    return choices[at]


KIND = ReaderKind(ChoiceSettings, read, lambda _: "label", reference)

__all__ = ["KIND", "ChoiceSettings", "chosen"]
