"""A request for classes or for the score of a pair in; what vLLM's server takes for it out. The body of its reply in, our
``Completion`` out.

OpenAI's API has neither: these are vLLM's own, beside it (``/classify``) and in it (``/v1/score``).
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from llmbatch.core.types import Completion, Failure, FailureKind, Outcome, Pooling, Refusal, Request
from llmbatch.core.words import short
from llmbatch.engines.http.base import NoAnswer, Note
from llmbatch.engines.openai.answers import data_in, usage_of

CLASSIFY, SCORE = "/classify", "/score"
"""Paths. The first is beside the API, and the second in it."""


def classify_fields(prompt: Mapping[str, Any], pooling: Pooling) -> dict[str, Any]:
    """The fields of a request. ``prompt`` is those of one for an answer."""
    return {**input_fields(prompt), **activation_field(pooling)}


def score_fields(request: Request, pooling: Pooling) -> dict[str, Any]:
    """The fields of a request about a pair of texts."""
    return {"text_1": request.prompt.text, "text_2": request.prompt.pair, **activation_field(pooling)}


def input_fields(prompt: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a request for an answer, as a request for numbers has them: ``prompt`` is ``input``, and ``messages`` are alike."""
    fields = {"input" if name == "prompt" else name: value for name, value in prompt.items()}
    if "messages" in fields:  # else the server leaves out the end that a model is asked with
        fields.setdefault("add_generation_prompt", True)
    return fields


def activation_field(pooling: Pooling) -> dict[str, Any]:
    """vLLM's field for what the model does to its numbers at the end, where that is asked for."""
    return {} if pooling.activation is None else {"use_activation": pooling.activation}


def classes_of(request: Request, classes: tuple[str, ...], body: bytes, note: Note) -> Outcome:
    """What a reply of status 200 says of a text's classes. Raises ``NoAnswer`` for what is none.

    It names the likeliest class alone. ``classes`` are the names of all, where the job gives them; else all are numbered, so that a
    class is called the same in every row.
    """
    data = data_in(body)
    try:
        (found,) = data["data"]
        numbers = array("f", found["probs"])
        label = found.get("label")
        likeliest = max(range(len(numbers)), key=numbers.__getitem__)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise NoAnswer(f"the server sent no classes that can be read ({error!r}): {short(data)}") from error
    if not classes:
        note("the server names the likeliest class alone: classes are LABEL_0, LABEL_1, ..., or as engine.classes says")
    elif (wrong := _contradiction(classes, len(numbers), likeliest, label)) is not None:
        return Refusal(request.key, Failure(FailureKind.REFUSED, wrong))
    usage = usage_of(data.get("usage"), request, "", note)
    return Completion(request.key, _names(classes, len(numbers)), "stop", usage, numbers=numbers)


def _contradiction(classes: Sequence[str], count: int, likeliest: int, label: Any) -> str | None:
    """How the job's names of classes do not go with what the server says; ``None``: they do, as far as that shows."""
    if len(classes) != count:
        return f"the server's model has {count:,} classes, and engine.classes names {len(classes):,}"
    if label in classes and label != classes[likeliest]:
        return (
            f"the server calls the likeliest class {label!r}, and by engine.classes it is {classes[likeliest]!r}: they are to be "
            "in the model's order"
        )
    return None


@lru_cache(maxsize=16)
def _names(classes: tuple[str, ...], count: int) -> str:
    """As JSON: one text for all answers."""
    return json.dumps(classes or [f"LABEL_{number}" for number in range(count)])


def score_of(request: Request, body: bytes, note: Note) -> Outcome:
    """What a reply of status 200 says of a pair. Raises ``NoAnswer`` for what is no score."""
    data = data_in(body)
    try:
        (found,) = data["data"]
        numbers = array("f", [found["score"]])
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise NoAnswer(f"the server sent no score that can be read ({error!r}): {short(data)}") from error
    return Completion(request.key, "", "stop", usage_of(data.get("usage"), request, "", note), numbers=numbers)


__all__ = [
    "CLASSIFY",
    "SCORE",
    "activation_field",
    "classes_of",
    "classify_fields",
    "input_fields",
    "score_fields",
    "score_of",
]
