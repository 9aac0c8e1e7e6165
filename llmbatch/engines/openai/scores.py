"""A request for classes or for the score of a pair in; what vLLM's server takes for it out. The body of its reply in, our
``Completion`` out.

OpenAI's API has neither: these are vLLM's own, beside it (``/classify``) and in it (``/v1/score``).
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from llmbatch.core.types import Completion, Failure, FailureKind, Outcome, Pooling, Refusal, Request
from llmbatch.core.words import short
from llmbatch.engines.http.base import NoAnswer
from llmbatch.engines.http.estimate import Note
from llmbatch.engines.openai.answers import data_in, usage_of

CLASSIFY, SCORE = "/../classify", "/score"
"""Paths behind the API's base. The first is beside that: dots in a URL are resolved before it is sent."""


def classify_fields(prompt: Mapping[str, Any], pooling: Pooling) -> dict[str, Any]:
    """The fields of a request. ``prompt`` is those of one for an answer."""
    fields = {"input" if name == "prompt" else name: value for name, value in prompt.items()}
    if "messages" in fields:  # else the server leaves out the end that a model is asked with
        fields.setdefault("add_generation_prompt", True)
    return {**fields, **activation_field(pooling)}


def score_fields(request: Request, pooling: Pooling) -> dict[str, Any]:
    """The fields of a request about a pair of texts."""
    return {"text_1": request.prompt.text, "text_2": request.prompt.pair, **activation_field(pooling)}


def activation_field(pooling: Pooling) -> dict[str, Any]:
    """vLLM's field for what the model does to its numbers at the end, where that is asked for."""
    return {} if pooling.activation is None else {"use_activation": pooling.activation}


def classes_of(request: Request, classes: Sequence[str], body: bytes, note: Note) -> Outcome:
    """What a reply of status 200 says of a text's classes. Raises ``NoAnswer`` for what is none.

    It names the likeliest class alone. ``classes`` are the names of all, where the job gives them.
    """
    data = data_in(body)
    try:
        (found,) = data["data"]
        numbers = array("f", found["probs"])
        label = found.get("label")
        likeliest = max(range(len(numbers)), key=numbers.__getitem__)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise NoAnswer(f"the server sent no classes that can be read ({error!r}): {short(data)}") from error
    if classes and len(classes) != len(numbers):
        said = f"the server's model has {len(numbers):,} classes, and engine.classes names {len(classes):,}"
        return Refusal(request.key, Failure(FailureKind.REFUSED, said))
    if not classes:
        note(
            "the server names the likeliest class alone: the others are LABEL_0, LABEL_1, ..., or as engine.classes says"
        )
    names = list(classes) or [f"LABEL_{number}" for number in range(len(numbers))]
    if not classes and isinstance(label, str):
        names[likeliest] = label
    usage = usage_of(data.get("usage"), request, "", note)
    return Completion(request.key, json.dumps(names), "stop", usage, numbers=numbers)


def score_of(request: Request, body: bytes, note: Note) -> Outcome:
    """What a reply of status 200 says of a pair. Raises ``NoAnswer`` for what is no score."""
    data = data_in(body)
    try:
        (found,) = data["data"]
        numbers = array("f", [found["score"]])
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise NoAnswer(f"the server sent no score that can be read ({error!r}): {short(data)}") from error
    return Completion(request.key, "", "stop", usage_of(data.get("usage"), request, "", note), numbers=numbers)


__all__ = ["CLASSIFY", "SCORE", "activation_field", "classes_of", "classify_fields", "score_fields", "score_of"]
