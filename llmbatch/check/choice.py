"""The answer is one of the choices, letter for letter; the value is the choice.

White space around the answer does not count, as it does not around JSON: models that are not held to the choices begin
or end their answer with it. Anything else, such as another case or a full stop, is another answer and is sent back.
"""

from __future__ import annotations

import json

from llmbatch.check.base import Kind, OutputSettings, Reading, failed
from llmbatch.core.errors import SchemaError
from llmbatch.core.types import Constraint, FailureKind
from llmbatch.core.words import clip, quote


def make(settings: OutputSettings) -> Kind:
    """Raises ``SchemaError`` where there is no choice, or one that could never be taken."""
    choices = list(dict.fromkeys(settings.choice or ()))
    if not choices:
        raise SchemaError("the list of choices is empty, so no answer could pass")
    if not settings.allow_empty and any(not choice.strip() for choice in choices):
        raise SchemaError("one of the choices is blank, and blank answers are sent back; remove it or set allow_empty")
    known = {
        choice: Reading(choice, None, settings.constrained and _stands_alone(choice, choices)) for choice in choices
    }
    listed = clip(", ".join(json.dumps(choice, ensure_ascii=False) for choice in choices), 300)

    def read(text: str) -> Reading:
        return (
            known.get(text)
            or known.get(text.strip())
            or failed(FailureKind.CHOICE, f"{quote(text)} is not one of the choices {listed}")
        )

    return Kind(Constraint("choice", json.dumps(choices, ensure_ascii=False)), read)


def _stands_alone(choice: str, choices: list[str]) -> bool:
    return not any(other.startswith(choice) for other in choices if other != choice)
