"""Records in, lines of ``results.jsonl`` out, and back.

A line is one JSON object in UTF-8. ``id``, ``index``, ``status``, ``output``, ``finish_reason``, ``attempts`` and ``usage``
are always there; ``tool_calls``, ``error``, ``raw``, ``reasoning``, ``stop_reason``, ``logprobs``, ``details``, ``history`` and
``input`` only where there is something to say. The line depends on the input, the job and the model's answers alone, and not on
when or in which order things ran; ``usage.cached_tokens`` is the one exception: it tells what the prefix cache happened to hold.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable
from json import encoder
from typing import Any

from llmbatch.core.numbers import json_text, plain
from llmbatch.core.types import Attempt, Failure, FailureKind, Record, RequestKey, Status, Usage

_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False)


def json_encoder(json_: json.JSONEncoder = _JSON) -> Callable[[Any], str]:
    """Compact JSON of a value. ``_JSON.encode`` makes its encoder in C anew for every one: a third of what a record takes.

    Another ``json_`` has other separators, and all else of ``_JSON``.
    """
    make = getattr(encoder, "c_make_encoder", None)
    if make is None:
        return json_.encode
    ends = json_.key_separator, json_.item_separator
    chunks = make(None, json_.default, encoder.encode_basestring, None, *ends, json_.sort_keys, json_.skipkeys, False)
    return lambda value: "".join(chunks(value, 0))


def json_decoder(json_: json.JSONDecoder) -> Callable[[str], Any]:
    """As ``json_.decode``, which looks for white space around the value with regular expressions: that takes as long again."""
    scan: Callable[[str, int], tuple[Any, int]] = json_.scan_once  # type: ignore[attr-defined]  # what ``raw_decode`` calls

    def decode(text: str) -> Any:
        try:
            value, end = scan(text, 0)
        except (StopIteration, json.JSONDecodeError):
            return json_.decode(text)  # white space before the value, or else the error in words
        return value if text[end:] in _ENDS else json_.decode(text)

    return decode


_ENDS = ("\n", "", "\r\n")


encode = json_encoder()
"""A value as compact JSON. Raises ``ValueError`` for one that JSON cannot hold."""
_text_of_text: Callable[[str], str] = encoder.encode_basestring


def record_to_dict(record: Record) -> dict[str, Any]:
    """The JSON form of a record, in the order in which its keys are written."""
    usage: dict[str, Any] = _usage(record.usage)
    usage["wasted"] = _usage(record.wasted)
    return {
        "id": record.id,
        "index": record.index,
        "status": record.status.value,
        "output": plain(record.output) if isinstance(record.output, array) else record.output,
        "finish_reason": record.finish_reason,
        "attempts": record.attempts,
        "usage": usage,
        **_besides(record),
    }


def record_to_line(record: Record) -> bytes:
    """One line of ``results.jsonl``, with its newline: ``record_to_dict`` as JSON.

    Raises ``ValueError`` for a value that JSON cannot hold and ``UnicodeEncodeError`` for one that UTF-8 cannot.
    """
    # what is always there is put together here: the encoder takes three times as long for it, and that for every row
    reason = "null" if record.finish_reason is None else f'"{record.finish_reason}"'
    line = (
        f'{{"id":{_text(record.id)},"index":{record.index},"status":"{record.status}","output":{_text(record.output)},'
        f'"finish_reason":{reason},"attempts":{record.attempts},'
        f'"usage":{{{_counts(record.usage)},"wasted":{{{_counts(record.wasted)}}}}}'
    )
    more = _besides(record)
    return f"{line},{encode(more)[1:]}\n".encode() if more else f"{line}}}\n".encode()


def _besides(record: Record) -> dict[str, Any]:
    """What is only there where there is something to say."""
    line: dict[str, Any] = {}
    if record.tool_calls is not None:
        line["tool_calls"] = record.tool_calls
    if record.failure is not None:
        line["error"] = {"kind": record.failure.kind.value, "message": record.failure.message}
    if record.raw is not None:
        line["raw"] = record.raw
    if record.reasoning is not None:
        line["reasoning"] = record.reasoning
    if record.stop_reason is not None:
        line["stop_reason"] = record.stop_reason
    if record.logprobs is not None:
        line["logprobs"] = record.logprobs
    if record.details is not None:
        line["details"] = record.details
    if record.history:
        line["history"] = [attempt_to_dict(attempt) for attempt in record.history]
    if record.input is not None:
        line["input"] = record.input
    return line


def record_from_dict(line: dict[str, Any]) -> Record:
    """The record that ``record_to_dict`` was given. Raises ``KeyError``, ``TypeError`` or ``ValueError`` for anything else."""
    usage = dict(line["usage"])
    wasted = usage.pop("wasted")
    error = line.get("error")
    return Record(
        index=line["index"],
        id=line["id"],
        status=Status(line["status"]),
        output=line["output"],
        finish_reason=line["finish_reason"],
        attempts=line["attempts"],
        usage=Usage(**usage),
        wasted=Usage(**wasted),
        failure=Failure(FailureKind(error["kind"]), error["message"]) if error else None,
        raw=line.get("raw"),
        reasoning=line.get("reasoning"),
        logprobs=line.get("logprobs"),
        history=tuple(attempt_from_dict(attempt, line["index"]) for attempt in line.get("history", ())),
        input=line.get("input"),
        details=line.get("details"),
        stop_reason=line.get("stop_reason"),
        tool_calls=line.get("tool_calls"),
    )


def attempt_to_dict(attempt: Attempt) -> dict[str, Any]:
    """The JSON form of an answer that was sent back."""
    return {
        "step": attempt.key.step,
        "sample": attempt.key.sample,
        "attempt": attempt.key.attempt,
        "error": {"kind": attempt.failure.kind.value, "message": attempt.failure.message},
        "text": attempt.text,
        "finish_reason": attempt.finish_reason,
        "usage": _usage(attempt.usage),
    }


def attempt_from_dict(line: dict[str, Any], index: int) -> Attempt:
    """The attempt that ``attempt_to_dict`` was given, of the row with this index."""
    return Attempt(
        key=RequestKey(index, line["step"], line["sample"], line["attempt"]),
        failure=Failure(FailureKind(line["error"]["kind"]), line["error"]["message"]),
        usage=Usage(**line["usage"]),
        text=line["text"],
        finish_reason=line["finish_reason"],
    )


def _usage(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_tokens": usage.cached_tokens,
    }


def _text(value: Any) -> str:
    """A value as JSON."""
    if value.__class__ is str:
        return _text_of_text(value)
    # as Python's numbers, an array's would take a hundred times as long
    return json_text(value) if isinstance(value, array) else encode(value)


def _counts(usage: Usage) -> str:
    """What is between the braces of ``_usage`` as JSON."""
    return (
        f'"prompt_tokens":{usage.prompt_tokens},"completion_tokens":{usage.completion_tokens},'
        f'"cached_tokens":{usage.cached_tokens}'
    )
