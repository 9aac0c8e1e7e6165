"""An example in; why it is not published, or nothing, out: conditions and lengths."""

from __future__ import annotations

from llmbatch.core.sandbox import RenderError, compile_condition
from llmbatch.core.words import short
from llmbatch.publishing.base import Dropped, Example, PublishSettings

UNDECIDED = "undecided"


class Filter:
    """What the settings ask of an example. Raises ``PromptError`` for a condition that is wrong."""

    def __init__(self, settings: PublishSettings) -> None:
        self._conditions = [(text, compile_condition(text)) for text in settings.where]
        self._least = settings.min_chars or 0
        self._most = settings.max_chars

    def dropped(self, example: Example) -> Dropped | None:
        """Why the example is left out. A condition on a field that it does not have is not met, and counted apart."""
        for text, holds in self._conditions:
            try:
                if not holds(example.fields):
                    return Dropped(f"not {text}")
            except RenderError as error:
                return Dropped(f"{UNDECIDED}: {text}", f"row {short(example.fields['id'])}: {error}")
        length = len(example.answer)
        if length < self._least:
            return Dropped("too_short", f"the answer has {length} characters")
        if self._most is not None and length > self._most:
            return Dropped("too_long", f"the answer has {length} characters")
        return None
