"""The V2 (open inference) protocol and Triton's generate extension: bodies of requests and answers <-> plain values, pure.

Both ways: as a client writes requests and reads answers, and as a server reads requests and writes answers. What a value means,
such as which tensor says how long an answer may be, is the matter of ``kserve_dialects``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from llmbatch.core.fast_dataclass import fast_dataclass
from llmbatch.core.words import excerpt, short, type_name

TEXT_INPUT = "text_input"
TEXT_OUTPUT = "text_output"
FINISH_REASON = "finish_reason"
LOGPROBS = "logprobs"
TOKENS_IN, TOKENS_OUT = "num_input_tokens", "num_output_tokens"

_PROMPT_NAMES = (TEXT_INPUT, "prompt", "inputs", "args")  # of an input with the prompt, the likeliest first
_TEXT = "BYTES"
_WHOLE, _REAL = ("INT", "UINT"), ("FP", "BF")


class WireError(ValueError):
    """A body is not what the protocol says, in words."""


class Tensor(NamedTuple):
    """An input or output as a model's metadata has it. A size that may be any is -1."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Model:
    """What a server tells of a model. Without declared inputs it takes whatever comes (as mlserver's own runtimes do)."""

    name: str
    versions: tuple[str, ...] = ()
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    outputs: Mapping[str, Tensor] = field(default_factory=dict)
    most: int = 0  # requests in a batch; 0: it has no batch dimension, or does not tell
    required: frozenset[str] = frozenset()  # inputs that a request must have, where the server tells
    decoupled: bool = False  # answers in as many pieces as it likes, which only the generate endpoint can bring

    def prompt_input(self, given: str | None) -> str:
        """The input that takes the prompt. Raises ``WireError`` that lists the inputs where none, or several, may be meant."""
        return _named(given, _PROMPT_NAMES, self.inputs, "input")

    def answer_output(self, given: str | None) -> str:
        """The output that holds the answer. Raises ``WireError`` that lists the outputs where none, or several, may be meant."""
        return _named(given, (TEXT_OUTPUT,), self.outputs, "output")


class Answer(NamedTuple):
    """What came for one prompt, as it came. What the server did not tell is ``None``."""

    text: str
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    logprobs: str | None = None  # JSON


# What a server is.


def read_model(metadata: Any, config: Any = None) -> Model:
    """A model's metadata, and its configuration where the server has one (Triton), as a ``Model``. Raises ``WireError``."""
    if not isinstance(metadata, Mapping) or not isinstance(metadata.get("name"), str):
        raise WireError(f"it tells no model's name: {excerpt(json.dumps(metadata))}")
    told = config if isinstance(config, Mapping) else {}
    policy = told.get("model_transaction_policy")
    most = told.get("max_batch_size")
    return Model(
        metadata["name"],
        tuple(map(str, metadata.get("versions") or ())),
        _tensors(metadata.get("inputs")),
        _tensors(metadata.get("outputs")),
        most if isinstance(most, int) else 0,
        _required(told.get("input")),
        bool(isinstance(policy, Mapping) and policy.get("decoupled")),
    )


def read_index(body: Any) -> dict[str, str]:
    """A repository's index as the state of each model by its name; empty where it is none."""
    models = body if isinstance(body, list) else []
    return {
        m["name"]: str(m.get("state", "")) for m in models if isinstance(m, Mapping) and isinstance(m.get("name"), str)
    }


def error_of(body: Any) -> str | None:
    """What a server says went wrong, or ``None`` where a body tells of no error. mlserver has a ``detail`` of its own."""
    if not isinstance(body, Mapping):
        return None
    said = body.get("error", body.get("detail"))
    if said is None:
        return None
    return said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)


def _tensors(declared: Any) -> dict[str, Tensor]:
    found = {}
    for each in declared if isinstance(declared, list) else ():
        if isinstance(each, Mapping) and isinstance(each.get("name"), str):
            shape = tuple(size for size in each.get("shape") or () if isinstance(size, int))
            found[each["name"]] = Tensor(each["name"], str(each.get("datatype", _TEXT)), shape)
    return found


def _required(configured: Any) -> frozenset[str]:
    given = [each for each in configured if isinstance(each, Mapping)] if isinstance(configured, list) else []
    return frozenset(str(each.get("name")) for each in given if each.get("optional") is False)


def _named(given: str | None, usual: Sequence[str], declared: Mapping[str, Tensor], what: str) -> str:
    if not declared:
        return given or usual[0]
    texts = [tensor.name for tensor in declared.values() if tensor.datatype == _TEXT]
    if given is None:
        found = [name for name in usual if name in texts] or texts
        if len(found) == 1 or (found and found[0] in usual):
            return found[0]
    elif given in declared:
        return given
    has = ", ".join(f"{tensor.name} ({tensor.datatype})" for tensor in declared.values())
    seen = "no one text" if given is None else f"no {given}"
    raise WireError(f"the model has {seen} {what}: engine.{what} names one of {has}")


# Requests out, answers in: the client's side.


def infer_body(
    model: Model,
    rows: Sequence[Mapping[str, Any]],
    *,
    request_id: str,
    parameters: Mapping[str, Any],
    outputs: Sequence[str] = (),
) -> dict[str, Any]:
    """An inference request for one or more rows: each has a value for the same tensors, a scalar or a list of some length.

    All rows share the ``parameters``. Raises ``WireError`` where a value is not of the tensor's type.
    """
    inputs = []
    for name in rows[0]:
        values = [row[name] if isinstance(row[name], list | tuple) else [row[name]] for row in rows]
        datatype = model.inputs[name].datatype if name in model.inputs else _datatype(values[0])
        data = [_cast(value, datatype, name) for each in values for value in each]
        shape = _shape(model, name, len(rows), len(values[0]))
        inputs.append({"name": name, "shape": shape, "datatype": datatype, "data": data})
    body: dict[str, Any] = {"id": request_id, "inputs": inputs}
    if parameters:
        body["parameters"] = _flat(parameters)
    if outputs:
        body["outputs"] = [{"name": name} for name in outputs]
    return body


def generate_body(model: Model, row: Mapping[str, Any], *, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a generate request for one row: its values by name, beside them the parameters. Raises ``WireError``."""
    body: dict[str, Any] = {}
    for name, value in row.items():
        datatype = model.inputs[name].datatype if name in model.inputs else None
        if datatype is None:
            body[name] = value
        else:
            many = isinstance(value, list | tuple)
            body[name] = [_cast(each, datatype, name) for each in value] if many else _cast(value, datatype, name)
    if parameters:
        body["parameters"] = _flat(parameters)
    return body


def read_infer(body: Any, count: int, output: str) -> list[Answer]:
    """The answers to the ``count`` rows of an inference request, in their order. Raises ``WireError``."""
    declared = body.get("outputs") if isinstance(body, Mapping) else None
    if not isinstance(declared, list):
        raise WireError(f"the answer has no outputs: {excerpt(json.dumps(body))}")
    found: dict[str, list[Any]] = {}
    for each in declared:
        if isinstance(each, Mapping) and isinstance(each.get("name"), str):
            found[each["name"]] = list(_flattened(each.get("data")))
    if output not in found:
        raise WireError(f"the answer has no output {output!r}, but {', '.join(found) or 'none'}")
    columns = {name: _of_rows(name, data, count) for name, data in found.items() if name == output or name in _USAGE}
    return [_answer({name: column[i] for name, column in columns.items()}, output) for i in range(count)]


def read_generate(body: Any, output: str) -> Answer:
    """The answer of a generate request. Raises ``WireError``."""
    if not isinstance(body, Mapping) or output not in body:
        raise WireError(f"the answer has no {output!r}: {excerpt(json.dumps(body))}")
    return _answer(
        {name: next(iter(_flattened(body[name])), None) for name in (output, *_USAGE) if name in body}, output
    )


_USAGE = (FINISH_REASON, TOKENS_IN, TOKENS_OUT, LOGPROBS)


def _answer(values: Mapping[str, Any], output: str) -> Answer:
    text = values[output]
    if not isinstance(text, str):
        raise WireError(f"the output {output!r} holds {short(text)} of type {type_name(text)}, and must hold text")
    reason, logprobs = values.get(FINISH_REASON), values.get(LOGPROBS)
    return Answer(
        text,
        reason if isinstance(reason, str) else None,
        _count(values.get(TOKENS_IN)),
        _count(values.get(TOKENS_OUT)),
        logprobs if isinstance(logprobs, str) else None,
    )


def _count(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _of_rows(name: str, data: list[Any], count: int) -> list[Any]:
    """The first value of each row: a row may have several, one for each of its answers."""
    if not data or len(data) % count:
        raise WireError(f"the output {name!r} has {len(data)} values for {count} rows")
    return data[:: len(data) // count]


def _flattened(data: Any) -> Iterator[Any]:
    """Data as the protocol has it: a flat list, or lists in lists; in a generate answer also one value."""
    if not isinstance(data, list):
        yield data
        return
    for each in data:
        yield from _flattened(each)


def _shape(model: Model, name: str, rows: int, length: int) -> list[int]:
    """The shape of a tensor with so many values for each row. One that is not declared has a row for each prompt."""
    declared = model.inputs.get(name)
    rank = 2 if declared is None else len(declared.shape)
    if rank <= 1:
        return [rows * length]
    return [rows, *[1] * (rank - 2), length]


def _datatype(values: Sequence[Any]) -> str:
    value = values[0] if values else ""
    if isinstance(value, bool):
        return "BOOL"
    return "INT64" if isinstance(value, int) else "FP32" if isinstance(value, float) else _TEXT


def _cast(value: Any, datatype: str, name: str) -> Any:
    """A value as its tensor's type has it: a whole number for a real one is no error, text for a number is."""
    if datatype == _TEXT and isinstance(value, str):
        return value
    if datatype == "BOOL" and isinstance(value, bool):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        if datatype.startswith(_REAL):
            return float(value)
        if datatype.startswith(_WHOLE) and value == int(value) and not (value < 0 and datatype.startswith("UINT")):
            return int(value)
    raise WireError(f"the model's input {name} is {datatype}, and cannot be {short(value)}")


def _flat(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters are numbers, texts and truth values: what is more is JSON text."""
    return {
        name: value if isinstance(value, str | int | float | bool) else json.dumps(value, ensure_ascii=False)
        for name, value in parameters.items()
    }


# Requests in, answers out: the server's side.


@fast_dataclass(frozen=True, slots=True)
class Asked:
    """An inference request as a server reads it: the prompts, and by name all else that it brings."""

    id: str | None
    prompts: tuple[str, ...]
    values: Mapping[str, Any]  # parameters and further inputs; of an input with several values a list
    shape: tuple[int, ...]  # of the prompts' input


_INPUT = dict.fromkeys(("name", "shape", "datatype", "data")).keys()  # what an input has


def read_request(body: Any) -> Asked:
    """What an inference request asks for. Raises ``WireError`` in words that a client can use."""
    inputs = body.get("inputs") if isinstance(body, Mapping) else None
    if not isinstance(inputs, list) or not inputs:
        raise WireError("a request has a list of inputs")
    for each in inputs:
        if not isinstance(each, dict) or not each.keys() >= _INPUT:
            missing = [key for key in _INPUT if not isinstance(each, dict) or key not in each]
            raise WireError(f"an input has no {' and no '.join(missing)}")
        if not isinstance(each["name"], str):
            raise WireError(f"the name of an input is a text, and this is {short(each['name'])}")
    texts = [each["name"] for each in inputs if each["datatype"] == _TEXT]
    name = next((usual for usual in _PROMPT_NAMES if usual in texts), texts[0] if len(texts) == 1 else None)
    if name is None:
        raise WireError(f"no input holds the prompt: {' or '.join(_PROMPT_NAMES)}, of datatype {_TEXT}")
    given = body.get("parameters") or {}
    if not isinstance(given, dict):
        raise WireError(f"parameters are an object, and these are of type {type_name(given)}")
    values: dict[str, Any] = dict(given)
    prompts: tuple[Any, ...] = ()
    shape: tuple[int, ...] = ()
    for each in inputs:
        data = list(_flattened(each["data"]))
        if each["name"] == name:
            prompts, shape = tuple(data), _sizes(each["shape"], len(data), name)
        else:
            values[each["name"]] = data[0] if len(data) == 1 else data
    if set(map(type, prompts)) != {str}:
        raise WireError(f"the input {name} must hold texts")
    named = body.get("id")
    return Asked(named if isinstance(named, str) else None, prompts, values, shape)


def written_answers(model: str, asked: Asked, answers: Sequence[Answer]) -> dict[str, Any]:
    """The body that answers an inference request, in the shape that it was asked in. What no answer tells is left out."""
    columns: tuple[tuple[str, str, list[Any]], ...] = (
        (TEXT_OUTPUT, _TEXT, [answer.text for answer in answers]),
        (FINISH_REASON, _TEXT, [answer.finish_reason for answer in answers]),
        (TOKENS_IN, "UINT32", [answer.prompt_tokens for answer in answers]),
        (TOKENS_OUT, "UINT32", [answer.completion_tokens for answer in answers]),
    )
    outputs = [_output(name, datatype, list(asked.shape), data) for name, datatype, data in columns if None not in data]
    named = {} if asked.id is None else {"id": asked.id}
    return {"model_name": model, **named, "outputs": outputs}


def text_output(shape: Any, data: Any) -> dict[str, Any]:
    """The output that holds the answers."""
    return _output(TEXT_OUTPUT, _TEXT, shape, data)


def _output(name: str, datatype: str, shape: Any, data: Any) -> dict[str, Any]:
    parameters = {"parameters": {"content_type": "str"}} if name == TEXT_OUTPUT else {}
    return {"name": name, "shape": shape, "datatype": datatype, **parameters, "data": data}


def _sizes(shape: Any, count: int, name: str) -> tuple[int, ...]:
    """A shape that holds so many values. Raises ``WireError``."""
    sizes = shape if isinstance(shape, list) else []
    if set(map(type, sizes)) != {int} or math.prod(sizes) != count:
        raise WireError(f"the input {name} has the shape {short(shape)}, and data of {count:,} values")
    return tuple(sizes)
