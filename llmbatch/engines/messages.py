"""Requests and outcomes in; the few messages that an engine elsewhere and its driver exchange, out, and back.

It is one contract for every border: a pipe to another process of this machine, or an actor on another. A message holds many rows,
as plain tuples: to take a value of ours apart for each row and put it together again would cost more than all the rest.

    driver -> engine    Begin once, then Ask again and again, Cancel, GiveUp, End
    engine -> driver    Up or Failed, then Answered and Told again and again, GivenUp; Died is the last
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from llmbatch.core.errors import EngineDied, EngineError, JobError, LlmbatchError, OutOfMemory
from llmbatch.core.types import (
    Completion,
    Constraint,
    Failure,
    FailureKind,
    Outcome,
    Piece,
    Prompt,
    Refusal,
    Request,
    RequestKey,
    Sampling,
    Score,
    Usage,
)
from llmbatch.engines.base import NO_DRAFTS, Drafts, EngineInfo
from llmbatch.engines.settings import EngineSettings
from llmbatch.model.tokenizer import ChatSettings

_KEPT = 4096  # settings that were seen before
_NOT_LIVE = (False, False)
# values of a request that asks for nothing special, as nearly all do, of an answer that has nothing special, and of a refusal: the
# first two are less than half of what others take
_PLAIN, _PLAIN_ANSWER, _REFUSAL = 5, 6, 3


@dataclass(frozen=True, slots=True)
class Begin:
    """Make this engine and start it; ``version`` is the driver's llmbatch, ``cpus`` the processors to use (empty: all)."""

    version: str
    model: str
    settings: EngineSettings
    chat: ChatSettings
    log: Path
    constraints: tuple[Constraint, ...] = ()
    cpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Ask:
    """Requests. Their settings are in two tables, so that equal ones are one object on the other side too.

    ``live`` has the places of those rows that are urgent or streamed, and whether they are the one and the other.
    """

    rows: list[tuple[Any, ...]]
    samplings: list[Sampling]
    constraints: list[Constraint]
    live: dict[int, tuple[bool, bool]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cancel:
    """Nobody wants the answers to these any more."""

    keys: list[tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Give up all that was asked until now; the answer is ``GivenUp``."""


@dataclass(frozen=True, slots=True)
class End:
    """Stop the engine, and end."""


@dataclass(frozen=True, slots=True)
class Up:
    """The engine is up."""

    info: EngineInfo


@dataclass(frozen=True, slots=True)
class Failed:
    """The engine could not be started."""

    kind: Literal["job", "memory", "engine"]
    message: str


@dataclass(frozen=True, slots=True)
class Answered:
    """What finished, and what the engine counts since its start. Without rows it is a sign of life."""

    rows: list[tuple[Any, ...]]
    counts: tuple[int, int, int]
    busy: float
    drafts: Drafts = NO_DRAFTS


@dataclass(frozen=True, slots=True)
class Told:
    """Parts of answers, as ``Piece``s."""

    pieces: list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class GivenUp:
    """Nothing that was asked before ``GiveUp`` will be answered."""


@dataclass(frozen=True, slots=True)
class Died:
    """The engine died; ``memory``: for want of it."""

    message: str
    suspect: bool
    memory: bool


def ask(requests: Iterable[Request]) -> Ask:
    """The requests as one message."""
    rows: list[tuple[Any, ...]] = []
    samplings: list[Sampling] = []
    constraints: list[Constraint] = []
    numbers: dict[int, int] = {}  # by identity: equal settings of a job are one object
    live: dict[int, tuple[bool, bool]] = {}
    for r in requests:
        sampling = numbers.get(id(r.sampling))
        if sampling is None:
            sampling = numbers[id(r.sampling)] = len(samplings)
            samplings.append(r.sampling)
        if _is_plain(r):
            prompt, ids = r.prompt, r.token_ids
            rows.append((r.key[0], prompt.text, prompt.messages, sampling, None if ids is None else _packed(ids)))
            continue
        if r.urgent or r.stream:
            live[len(rows)] = r.urgent, r.stream
        constraint = -1
        if r.constraint is not None:
            constraint = numbers.get(id(r.constraint), -1)
            if constraint < 0:
                constraint = numbers[id(r.constraint)] = len(constraints)
                constraints.append(r.constraint)
        prompt = r.prompt
        rows.append(
            (
                tuple(r.key), prompt.text, prompt.messages, prompt.prefill, sampling, constraint, r.seed, r.max_tokens, r.lora,
                _packed(r.partial), None if r.token_ids is None else _packed(r.token_ids), r.target, _packed(r.target_ids),
                r.pooling, prompt.pair, prompt.images, prompt.ids, prompt.tools,
            )
        )  # fmt: skip
    return Ask(rows, samplings, constraints, live)


class Asked:
    """Reads ``Ask`` messages: equal settings of all of them are one object, as an engine may cache by identity."""

    def __init__(self) -> None:
        self._known: dict[Any, Any] = {}

    def requests(self, message: Ask) -> list[Request]:
        """The requests of a message."""
        samplings = [self._one(each) for each in message.samplings]
        constraints = [self._one(each) for each in message.constraints]
        live = message.live
        found: list[Request] = []
        for number, row in enumerate(message.rows):
            if len(row) == _PLAIN:
                index, text, messages, sampling, ids = row
                prompt = Prompt(messages, text)
                found.append(Request(RequestKey(index), prompt, samplings[sampling], None, None, None, None, (), ids))
                continue
            (
                key, text, messages, prefill, sampling, constraint, seed, max_tokens, lora, partial, ids, target, targets,
                pooling, pair, images, prompt_ids, tools,
            ) = row  # fmt: skip
            prompt = Prompt(messages, text, prefill, pair=pair, images=images, ids=prompt_ids, tools=tools)
            held_to = None if constraint < 0 else constraints[constraint]
            found.append(
                Request(
                    RequestKey(*key), prompt, samplings[sampling], held_to, seed, max_tokens, lora, tuple(partial), ids, target,
                    targets, None if pooling is None else self._one(pooling), *live.get(number, _NOT_LIVE),
                )
            )  # fmt: skip
        return found

    def _one(self, value: Any) -> Any:
        if len(self._known) >= _KEPT:
            self._known.clear()
        return self._known.setdefault(value, value)


def answered(outcomes: Iterable[Outcome], counts: Usage, busy: float, drafts: Drafts = NO_DRAFTS) -> Answered:
    """The outcomes as one message. The token ids of a first answer are left out unless it was cut off: only then they are used."""
    rows: list[tuple[Any, ...]] = []
    for o in outcomes:
        if isinstance(o, Refusal):
            rows.append((tuple(o.key), str(o.failure.kind), o.failure.message))
            continue
        usage, score = o.usage, o.score
        if _is_plain_answer(o):
            rows.append(
                (o.key[0], o.text, o.finish_reason, usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens)
            )
            continue
        rows.append(
            (
                tuple(o.key), o.text, o.finish_reason, usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens,
                _packed(o.token_ids), o.reasoning, o.stop_reason, o.logprobs, None if score is None else tuple(score), o.numbers,
                o.tool_calls,
            )
        )  # fmt: skip
    return Answered(rows, (counts.prompt_tokens, counts.completion_tokens, counts.cached_tokens), busy, drafts)


def outcomes_of(message: Answered) -> list[Outcome]:
    """The outcomes of a message."""
    outcomes: list[Outcome] = []
    for row in message.rows:
        if len(row) == _PLAIN_ANSWER:
            index, text, finish, prompt, completion, cached = row
            outcomes.append(Completion(RequestKey(index), text, finish, Usage(prompt, completion, cached)))
            continue
        key = RequestKey(*row[0])
        if len(row) == _REFUSAL:
            outcomes.append(Refusal(key, Failure(FailureKind(row[1]), row[2])))
            continue
        _, text, finish, prompt, completion, cached, ids, reasoning, stop, logprobs, score, numbers, calls = row
        usage = Usage(prompt, completion, cached)
        likelihood = None if score is None else Score(*score)
        outcomes.append(
            Completion(
                key,
                text,
                finish,
                usage,
                ids,
                reasoning,
                stop,
                logprobs=logprobs,
                score=likelihood,
                numbers=numbers,
                tool_calls=calls,
            )
        )
    return outcomes


def told(pieces: Iterable[Piece]) -> Told:
    """The parts of answers as one message."""
    return Told([(tuple(piece.key), *piece[1:]) for piece in pieces])


def pieces_of(message: Told) -> list[Piece]:
    """The parts of answers of a message."""
    return [Piece(RequestKey(*key), *rest) for key, *rest in message.pieces]


def failed(error: LlmbatchError) -> Failed:
    """What kept an engine from starting, as a message."""
    kind: Literal["job", "memory", "engine"] = "engine"
    if isinstance(error, JobError):
        kind = "job"
    elif isinstance(error, OutOfMemory):
        kind = "memory"
    return Failed(kind, str(error))


def error_of(message: Failed) -> LlmbatchError:
    """The error of a message."""
    return {"job": JobError, "memory": OutOfMemory, "engine": EngineError}[message.kind](message.message)


def died(death: EngineDied) -> Died:
    """A death as a message."""
    return Died(str(death), death.suspect, isinstance(death.__cause__, OutOfMemory | MemoryError))


def death_of(message: Died) -> EngineDied:
    """The death of a message, with its cause where that was want of memory."""
    death = EngineDied(message.message, suspect=message.suspect)
    if message.memory:
        death.__cause__ = OutOfMemory(message.message)
    return death


def _is_plain(r: Request) -> bool:
    """Whether it is the first request of its row, with no setting of its own."""
    prompt, key = r.prompt, r.key
    return not (
        key[1] or key[2] or key[3] != 1 or key[4] or r.constraint is not None or r.seed is not None or r.max_tokens is not None
        or r.lora is not None or r.partial or r.target is not None or r.target_ids or r.pooling is not None or r.urgent or r.stream
        or prompt.prefill or prompt.pair is not None or prompt.images or prompt.ids is not None
        or prompt.tools is not None
    )  # fmt: skip


def _is_plain_answer(o: Completion) -> bool:
    """Whether it is a whole answer to the first request of its row, and there is nothing but text."""
    key = o.key
    return not (
        key[1] or key[2] or key[3] != 1 or key[4] or o.finish_reason == "length" or o.reasoning is not None
        or o.stop_reason is not None or o.logprobs is not None or o.score is not None or o.numbers is not None
        or o.tool_calls is not None
    )  # fmt: skip


def _packed(ids: Sequence[int]) -> Sequence[int]:
    """Token ids as four bytes each: as they are where they are packed already."""
    return ids if isinstance(ids, array | bytes) or not ids else array("I", ids)
