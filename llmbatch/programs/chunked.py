"""One request a row as ``single`` has it; of a row that is too long one for each chunk of its text, and their answers joined."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from llmbatch.core.types import Accepted, Failure, FailureKind, Status
from llmbatch.core.words import short
from llmbatch.programs.base import Ask, Complete, Incomplete, Program, RowAsk
from llmbatch.programs.chunks import Chunk, split

_PROBE = 64  # characters of the text that the room for a chunk is measured with
_LEAST = 16  # tokens; chunks that are smaller are of no use
_TRIES = 8


class Text(NamedTuple):
    """A text of a row that its prompt has, and how the row is asked with another in its place.

    ``free``: the answers are text too, and not one of some labels or JSON.
    """

    field: str
    text: str
    free: bool
    ask: Callable[[str], Ask | Failure]


class Cutting(NamedTuple):
    """How the text of a row that is too long is chunked. ``text_of`` finds it for a prompt, or says why there is none."""

    text_of: Callable[[Ask, Failure], Text | Failure]
    overlap: int  # tokens
    markup: str
    least_answer: int  # tokens that an answer must have room for, where max_tokens does not say it


class _Parts(NamedTuple):
    chunks: Sequence[Chunk]
    asks: Sequence[Ask]


def chunked(row: RowAsk, cutting: Cutting) -> Program:
    ask = row.ask()
    if isinstance(ask, Failure):
        yield ask
        return Incomplete()
    first = _answers(ask, (yield replace(ask, tells=True)))
    if not (isinstance(first[0], Failure) and first[0].kind is FailureKind.TOO_LONG):
        values = [_value(answer) for answer in first]
        output = values[0] if ask.samples == 1 else values
        if any(isinstance(answer, Failure) for answer in first):
            return Incomplete(None if ask.samples == 1 else output)
        return output
    text = cutting.text_of(ask, first[0])
    if isinstance(text, Failure):
        return Incomplete(failure=text)
    parts = _parts(row, text, cutting)
    if isinstance(parts, Failure):
        return Incomplete(failure=parts)
    answers = yield [replace(part, tells=True) for part in parts.asks]
    by_chunk = [_answers(part, answer) for part, answer in zip(parts.asks, answers, strict=True)]
    said = [_said(chunk, answer) for chunk, answer in zip(parts.chunks, by_chunk, strict=True)]
    details = {"overflow": {"mode": "chunk", "field": text.field, "characters": len(text.text), "chunks": said}}
    failure = _failure(row, parts.chunks, by_chunk)
    outputs = [
        _joined(text, parts.chunks, [_value(answer) for answer in sample], failure is None)
        for sample in zip(*by_chunk, strict=True)
    ]
    output = outputs[0] if ask.samples == 1 else outputs
    if failure is not None:
        return Incomplete(output, failure, details, logprobs=False)
    return Complete(output, details, logprobs=False)


def _answers(ask: Ask, answer: Any) -> Sequence[Accepted | Failure]:
    return [answer] if ask.samples == 1 else answer


def _value(answer: Accepted | Failure) -> Any:
    return None if isinstance(answer, Failure) else answer.value


def _parts(row: RowAsk, text: Text, cutting: Cutting) -> _Parts | Failure:
    """The chunks of the text, as large as the context allows, and what asks about each; or why there are none."""
    probe = text.text.strip()[:_PROBE]
    if not probe:
        return Failure(FailureKind.EMPTY_PROMPT, f"row {short(row.row.id)}: the text {text.field!r} is blank")
    least = text.ask(probe)
    if isinstance(least, Failure):
        return least
    most = _free(row, least, cutting) + row.tokens([probe])[0]
    for _ in range(_TRIES):
        if most < _LEAST:
            break
        overlap = min(cutting.overlap, most // 2)
        chunks = split(text.text, most, row.tokens, overlap=overlap, markup=cutting.markup)
        asks: list[Ask] = []
        for chunk in chunks:
            ask = text.ask(chunk.text)
            if isinstance(ask, Failure):
                return ask
            asks.append(ask)
        free = min(_free(row, ask, cutting) for ask in asks)
        if free >= 0:
            return _Parts(chunks, asks)
        most += free  # within the prompt a text may have more tokens than by itself
    return Failure(
        FailureKind.TOO_LONG,
        f"row {short(row.row.id)}: besides the answer and the prompt without the text {text.field!r} the context of "
        f"{row.context_length or 0:,} tokens has room for {max(most, 0):,} tokens of a chunk, and a chunk has at least {_LEAST}: "
        "shorten the prompt, or lower sampling.max_tokens",
    )


def _free(row: RowAsk, ask: Ask, cutting: Cutting) -> int:
    free = row.room(ask) or 0
    if ask.max_tokens or ask.sampling.get("max_tokens"):
        return free
    return free + 1 - max(cutting.least_answer, ask.sampling.get("min_tokens") or 1)


def _joined(text: Text, chunks: Sequence[Chunk], values: Sequence[Any], complete: bool) -> Any:
    """The answers of one sample: as one text with what stood between the chunks, or else as a list."""
    if not complete or not text.free or not all(isinstance(value, str) for value in values):
        return list(values)
    joined = [values[0]]
    for before, after, value in zip(chunks, chunks[1:], values[1:], strict=False):
        joined += [text.text[before.end : after.start] if after.start >= before.end else "\n\n", value]
    return "".join(joined)


def _said(chunk: Chunk, answers: Sequence[Accepted | Failure]) -> Mapping[str, Any]:
    """What a record says of a chunk: where it is, and what became of it; of several samples in lists."""
    failed = [answer if isinstance(answer, Failure) else None for answer in answers]
    done = [None if isinstance(answer, Failure) else answer.completion for answer in answers]
    each: dict[str, list[Any]] = {
        "status": [(Status.OK if failure is None else failure.kind.status).value for failure in failed],
        "finish_reason": [None if completion is None else completion.finish_reason for completion in done],
        "usage": [None if completion is None else completion.usage.for_details() for completion in done],
    }
    if any(failed):
        each["error"] = [f and {"kind": f.kind.value, "message": f.message} for f in failed]
    shown = {name: values[0] if len(values) == 1 else values for name, values in each.items()}
    return {"start": chunk.start, "end": chunk.end, **shown}


def _failure(row: RowAsk, chunks: Sequence[Chunk], by_chunk: Sequence[Sequence[Accepted | Failure]]) -> Failure | None:
    """Why the row is not ok; None where every chunk is."""
    failed = [
        (number, answer) for number, each in enumerate(by_chunk) for answer in each if isinstance(answer, Failure)
    ]
    if not failed:
        return None
    number, failure = failed[0]
    where = f"chunk {number + 1} of {len(chunks)} (characters {chunks[number].start:,} to {chunks[number].end:,})"
    more = len({number for number, _ in failed}) - 1
    others = f", and {more} more" if more else ""
    return Failure(failure.kind, f"row {short(row.row.id)}: {where}{others}: {failure.message}")
