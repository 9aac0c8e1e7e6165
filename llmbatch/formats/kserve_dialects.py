"""A request's sampling in; the tensors and parameters that a model behind the V2 protocol takes for it out, and answers read back.

The protocol says how tensors are written and not what they mean: that is a dialect, known by the inputs that a model declares.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from llmbatch.core.sampling import LOOPS, NO_SEED, SAMPLING
from llmbatch.core.types import Constraint
from llmbatch.formats.kserve import Model

_ALWAYS: Mapping[str, Any] = {
    "exclude_input_in_output": True,
    "sampling_param_exclude_input_from_output": True,
    "return_finish_reason": True,
    "return_num_input_tokens": True,
    "return_num_output_tokens": True,
}
"""What is asked of every model that has such an input: the answer alone, why it ended, and what it took."""
_WITHOUT_PROMPT = ("exclude_input_in_output", "sampling_param_exclude_input_from_output")
_GUIDE = "guided_decoding_guide"
_SPECIAL = re.compile(r"([.^$*+?()\[\]{}|\\/])")
_NOT_SENT = ("n", LOOPS)  # samples are requests of their own; what runs in circles is found when it is here


class Unsayable(ValueError):
    """The model has no place for something that a request asks for, in words."""


class Sent(NamedTuple):
    """What goes with a prompt: values of tensors, and parameters of the whole request."""

    tensors: dict[str, Any]
    parameters: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one family of models names what it takes."""

    told_by: Callable[[Model], bool]
    renamed: Mapping[str, str] = field(default_factory=dict)  # our name of a setting -> its input, where it is another
    prefix: str = ""  # of an input's name
    as_json: str | None = None  # the input that takes all settings together, as JSON text
    free: bool = False  # what has no input of its own goes as a parameter of the request
    repeats_prompt: bool = False  # before the answer, where no input can switch that off
    batches_itself: bool = False  # it puts requests together as they come, so one row a request is best
    adapter: str | None = None  # the setting that names an adapter
    constraint: Callable[[Constraint], dict[str, Any]] | None = None
    greedy: Mapping[str, Any] | None = None  # what stands for temperature 0
    empty: Mapping[str, Any] = field(
        default_factory=dict
    )  # inputs that older models want, and what says nothing in them


def _vllm_constraint(constraint: Constraint) -> dict[str, Any]:
    spec = json.loads(constraint.spec) if constraint.kind in ("json", "choice") else constraint.spec
    return {"guided_decoding": json.dumps({constraint.kind: spec}, ensure_ascii=False)}


def _guide(constraint: Constraint) -> dict[str, Any]:
    """TensorRT-LLM's: it has no choice, which is a regular expression here."""
    kind, guide = {"json": "json_schema", "grammar": "ebnf_grammar"}.get(constraint.kind, "regex"), constraint.spec
    if constraint.kind == "choice":
        guide = "(" + "|".join(_SPECIAL.sub(r"\\\1", choice) for choice in json.loads(constraint.spec)) + ")"
    return {"guided_decoding_guide_type": kind, _GUIDE: guide}


DIALECTS: Mapping[str, Dialect] = {
    "triton-vllm": Dialect(
        lambda model: "sampling_parameters" in model.inputs,
        as_json="sampling_parameters",
        repeats_prompt=True,
        batches_itself=True,
        adapter="lora_name",
        constraint=_vllm_constraint,
    ),
    "trtllm-llmapi": Dialect(
        lambda model: any(name.startswith("sampling_param_") for name in model.inputs),
        prefix="sampling_param_",
        repeats_prompt=True,
        batches_itself=True,
    ),
    "trtllm-ensemble": Dialect(
        lambda model: "max_tokens" in model.inputs and "bad_words" in model.inputs,
        renamed={"stop": "stop_words"},
        batches_itself=True,
        constraint=_guide,
        greedy={"top_k": 1},
        empty={"bad_words": [""], "stop_words": [""]},
    ),
    "plain": Dialect(lambda _: True, free=True),
}
"""By name, in the order in which a model's inputs are held against them."""


def dialect_of(model: Model) -> str:
    """The name of the dialect that a model's inputs tell."""
    return next(name for name, dialect in DIALECTS.items() if dialect.told_by(model))


def can_hold(dialect: Dialect, model: Model) -> bool:
    """Whether the model can be told what an answer is to be held to."""
    if dialect.constraint is None:
        return False
    return dialect.as_json is not None or _GUIDE in model.inputs


def unfilled(dialect: Dialect, model: Model, given: Collection[str], names: Mapping[str, str]) -> list[str]:
    """Inputs that the model requires and no request can have: none of those ``given``, and no place of a setting."""
    places = {*given, *_ALWAYS, *dialect.empty, *names.values()}
    places |= {dialect.prefix + dialect.renamed.get(setting, setting) for setting in SAMPLING}
    if dialect.as_json is not None:
        places.add(dialect.as_json)
    return sorted(model.required - places)


def repeats_prompt(dialect: Dialect, model: Model) -> bool:
    """Whether an answer begins with its prompt whatever is asked for."""
    return dialect.repeats_prompt and not any(name in model.inputs for name in _WITHOUT_PROMPT)


def sent(
    dialect: Dialect,
    model: Model,
    settings: Mapping[str, Any],
    *,
    constraint: Constraint | None = None,
    adapter: str | None = None,
    names: Mapping[str, str] | None = None,
    values: Mapping[str, Any] | None = None,
) -> Sent:
    """What a request's settings become. ``names`` are the job's own for some of them, ``values`` its own for further inputs.

    Raises ``Unsayable`` for a setting that the model has no place for: it would change the answer, and is not dropped. A constraint
    that it cannot be held to is left out, as every answer is checked.
    """
    asked = {name: value for name, value in settings.items() if name not in _NOT_SENT and value is not None}
    if asked.get("seed") == NO_SEED:
        del asked["seed"]
    if dialect.greedy is not None and asked.get("temperature") == 0:
        del asked["temperature"]
        asked |= dialect.greedy
    if adapter is not None:
        if dialect.adapter is None:
            raise Unsayable(f"the model takes no adapter, and the request is for {adapter!r}")
        asked[dialect.adapter] = adapter
    held = {} if constraint is None or dialect.constraint is None else dialect.constraint(constraint)
    tensors = {name: value for name, value in _ALWAYS.items() if name in model.inputs} | dict(values or {})
    tensors |= {name: value for name, value in dialect.empty.items() if name in model.required}
    if "logprobs" in asked:
        if "return_logprobs" not in model.inputs:
            raise Unsayable("the model gives no log-probabilities, and sampling.logprobs asks for them")
        tensors["return_logprobs"] = True
    if dialect.as_json is not None:
        return Sent({**tensors, dialect.as_json: json.dumps({**asked, **held}, ensure_ascii=False)}, {})
    tensors |= {name: value for name, value in held.items() if name in model.inputs}
    parameters = {}
    for setting, value in asked.items():
        name = (names or {}).get(setting) or dialect.prefix + dialect.renamed.get(setting, setting)
        if name in model.inputs:
            tensors[name] = [value] if setting in ("stop", "bad_words") and isinstance(value, str) else value
        elif dialect.free:
            parameters[name] = value
        else:
            raise Unsayable(f"the model has no input {name}, which sampling.{setting} would go to{_known(model)}")
    return Sent(tensors, parameters)


def _known(model: Model) -> str:
    return f"; it has {', '.join(model.inputs)}. engine.parameters can name another" if model.inputs else ""


def logprobs_of(told: str | None) -> list[dict[str, Any]] | None:
    """The log-probabilities that Triton's vLLM backend gives as JSON, token by token, as a record has them.

    Of each place vLLM puts the token that was drawn first, and behind it the likeliest ones, by their ids.
    """
    try:
        places = json.loads(told) if told is not None else None
    except ValueError:
        return None
    if not isinstance(places, list):
        return None
    return [_place(list(place.values())) for place in places]


def _place(tokens: list[dict[str, Any]]) -> dict[str, Any]:
    chosen, *rest = tokens
    likeliest = sorted(tokens, key=lambda each: each["rank"])[: max(1, len(rest) + (chosen["rank"] <= len(tokens)))]
    return {**_token(chosen), "top": [_token(each) for each in likeliest]}


def _token(told: dict[str, Any]) -> dict[str, Any]:
    return {"token": told["decoded_token"] or "", "logprob": told["logprob"]}
