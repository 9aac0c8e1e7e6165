"""One row's work: outcomes of its requests in, the requests to send next and at the end its record out.

It drives the row's program and keeps the books of every attempt. It does no input or output and reads no clock: the
same outcomes, in whatever order the requests of one step were answered, give the same record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llmbatch.core.check import Check, Verdict
from llmbatch.core.errors import LlmbatchError, RunError
from llmbatch.core.sampling import NO_SEED
from llmbatch.core.types import (
    Accepted,
    Attempt,
    Completion,
    Failure,
    FailureKind,
    Outcome,
    Prompt,
    Record,
    Refusal,
    Request,
    RequestKey,
    Reused,
    Row,
    Sampling,
    Status,
    Usage,
)
from llmbatch.core.words import quote, short
from llmbatch.programs.base import Ask, Complete, Incomplete, Program

Retry = Callable[[Request, Failure, Completion | None, Sequence[FailureKind]], Request | None]
"""(request, why it failed, its answer, kinds of the failures before) -> the next request, or None to give up."""

_NOTHING = Usage()
_END_CHARACTERS = 120  # of an answer that repeats itself, enough to see how
_ONE = (Ask, Failure)  # what a program yields for one thing; else it yields several
_NO_PROMPT, _NO_SAMPLING = Prompt(), Sampling()


@dataclass(frozen=True, slots=True)
class Rules:
    """What is the same for every row of a job: how answers are judged, and what follows a failure."""

    check: Check
    next_request: Retry


class Work:
    """The state of one row between its first request and its record.

    ``start`` once, then ``feed`` each outcome once, until ``record`` is set. The record's books are exact:

    - ``attempts`` counts the requests that were answered, be it by a refusal; ``usage`` is the sum of theirs.
    - ``history`` holds every attempt that failed, by step, sample and attempt, but for the one that ``failure`` and
      ``raw`` tell of.
    - ``wasted`` is the usage of the attempts in ``history``. Where an answer that was cut off was gone on from, its
      tokens are part of the later answer and count with that; wasted is only that the prompt was sent again.
    """

    __slots__ = ("_lines", "_open", "_program", "_rules", "_steps", "_wanted", "kept", "record", "reused", "row")

    def __init__(self, row: Row, program: Program, rules: Rules, kept: Mapping[str, Any] | None = None) -> None:
        """``row`` is what predicates see; ``kept`` are the fields of the input that the record carries."""
        self.row = row
        self.record: Record | None = None
        self.kept = kept
        self.reused: Reused | None = None  # the part of the record's usage that was not computed for this row
        self._program = program
        self._rules = rules
        self._open: dict[RequestKey, _Line] = {}
        self._lines: list[_Line] = []
        self._wanted: Ask | Failure | Sequence[Ask | Failure] = ()
        self._steps = 0

    @classmethod
    def failed(cls, row: Row, failure: Failure, rules: Rules, details: Mapping[str, Any] | None = None) -> Work:
        """The work of a row that cannot be asked about at all: its record is there."""
        work = cls(row, _never(), rules)
        work.record = Record(row.index, row.id, failure.kind.status, failure=failure, details=details)
        return work

    def start(self) -> list[Request]:
        """The row's first requests; none where its program needs none, and then the record is set."""
        return [] if self.record is not None else self._advance(None)

    def feed(self, outcome: Outcome) -> list[Request]:
        """Take the outcome of one of the row's requests, and say what to send next: retries, or the next step.

        Raises ``KeyError`` for a request that is not waited for, and ``RunError``, naming the row, where code of the
        job's author fails on the answer.
        """
        line = self._open.pop(outcome.key)
        if isinstance(outcome, Completion) and outcome.reused_from is not None:
            before = self.reused or Reused(_NOTHING)
            self.reused = Reused(before.usage + outcome.usage, before.cached or outcome.reused_from == "cache")
        try:
            following = line.take(outcome, self._rules, self.row)
        except RunError as error:
            raise type(error)(f"row {self.row.id!r}: {error}") from error
        if following is not None:
            self._open[following.key] = line
            return [following]
        return [] if self._open else self._advance(self._answer())

    def _advance(self, answer: Any) -> list[Request]:
        while True:
            try:
                wanted = self._program.send(answer)
            except StopIteration as stop:
                self.record = self._finish(stop.value)
                return []
            except LlmbatchError:
                raise
            except Exception as error:
                raise RunError(f"row {self.row.id!r}: its program raised {type(error).__name__}: {error}") from error
            self._wanted = wanted
            requests = self._ask((wanted,) if isinstance(wanted, _ONE) else self._several(wanted))
            if requests:
                return requests
            answer = self._answer()  # all that it asked for failed unsent, or it asked for nothing

    def _several(self, wanted: Any) -> Sequence[Ask | Failure]:
        if isinstance(wanted, Sequence) and all(isinstance(each, _ONE) for each in wanted):
            return wanted
        raise RunError(
            f"row {self.row.id!r}: its program yielded {short(wanted)}: it yields what row.ask(...) gives, or a list of that"
        )

    def _ask(self, asks: Sequence[Ask | Failure]) -> list[Request]:
        requests = []
        for ask in asks:
            if isinstance(ask, Failure):
                self._lines.append(_Line.unsent(RequestKey(self.row.index, self._steps), ask))
                self._steps += 1
                continue
            for sample in range(ask.samples):
                key = RequestKey(self.row.index, self._steps, sample)
                request = Request(
                    key,
                    ask.prompt,
                    ask.sampling,
                    ask.constraint,
                    ask.seed if ask.samples == 1 else _seed(ask, sample),
                    ask.max_tokens,
                    ask.lora,
                    (),
                    ask.token_ids,
                    ask.target,
                    ask.target_ids,
                )
                line = _Line(request, ask.check)
                self._open[key] = line
                self._lines.append(line)
                requests.append(request)
            self._steps += 1
        return requests

    def _answer(self) -> Any:
        """What the program is sent for its last yield, whose requests are the last of the lines."""
        wanted = self._wanted
        if isinstance(wanted, Ask) and wanted.samples == 1:  # nearly every row's
            return self._lines[-1].sent(wanted)
        asks = (wanted,) if isinstance(wanted, _ONE) else wanted
        lines = iter(self._lines[len(self._lines) - sum(map(_lines_of, asks)) :])
        answers = [
            [next(lines).sent(ask) for _ in range(ask.samples)]
            if isinstance(ask, Ask) and ask.samples > 1
            else next(lines).sent(ask)
            for ask in asks
        ]
        return answers[0] if isinstance(wanted, _ONE) else answers

    def _finish(self, value: Any) -> Record:
        row, lines = self.row, self._lines
        details, has_logprobs = None, True
        if isinstance(value, Complete):
            value, details, has_logprobs = value.output, value.details, value.logprobs
        if (
            len(lines) == 1
            and lines[0].answered == 1
            and (done := lines[0].accepted)
            and not isinstance(value, Incomplete)
        ):
            last = done.completion  # nearly every row: one request, answered well at once
            return Record(
                row.index,
                row.id,
                Status.OK,
                value,
                last.finish_reason,
                1,
                last.usage,
                reasoning=last.reasoning,
                logprobs=last.logprobs if has_logprobs else None,
                input=self.kept,
                details=details,
            )
        failure: Failure | None = None
        told: _Line | None = None  # the line that the record's failure tells of
        if isinstance(value, Incomplete):
            value, failure, details, has_logprobs = value.output, value.failure, value.details, value.logprobs
            if failure is None:
                told = next((line for line in lines if line.accepted is None), None)
                failure = _tell(told, lines)
        shown = told or (lines[-1] if lines else None)
        group = [line for line in lines if shown and line.key.step == shown.key.step]
        usage = wasted = _NOTHING
        history: list[Attempt] = []
        for line in lines:
            usage = usage + line.usage
            history += line.failed if line is not told else line.failed[:-1]
            kept = line.kept if line.accepted or line is told else _NOTHING
            wasted = wasted + (line.usage - kept)
        last_answer = shown.completion if shown else None
        return Record(
            index=row.index,
            id=row.id,
            status=Status.OK if failure is None else failure.kind.status,
            output=value,
            finish_reason=last_answer.finish_reason if last_answer else None,
            attempts=sum(line.answered for line in lines),
            usage=usage,
            wasted=wasted,
            failure=failure,
            raw=None if failure is None or shown is None else shown.text,
            reasoning=_each([line.completion.reasoning if line.completion else None for line in group]),
            logprobs=_each([line.completion.logprobs if line.completion and has_logprobs else None for line in group]),
            history=tuple(history),
            input=self.kept,
            details=details,
        )


def _never() -> Program:
    return None
    yield ()


def _lines_of(ask: Ask | Failure) -> int:
    return ask.samples if isinstance(ask, Ask) else 1


class _Line:
    """One answer that is wanted, and its attempts one after another."""

    __slots__ = ("accepted", "answered", "check", "completion", "failed", "kept", "key", "request", "text", "usage")

    def __init__(self, request: Request, check: Check | None) -> None:
        self.request = request  # the last one sent
        self.key = request.key
        self.check = check
        self.answered = 0
        self.usage = _NOTHING  # of all attempts
        self.kept = _NOTHING  # the part of it that went into the answer as it now stands
        self.failed: list[Attempt] = []
        self.completion: Completion | None = None  # the last one that came
        self.text: str | None = None  # its text, with the prefill
        self.accepted: Accepted | None = None

    @classmethod
    def unsent(cls, key: RequestKey, failure: Failure) -> _Line:
        """The line of something that could not be asked."""
        line = cls(Request(key, _NO_PROMPT, _NO_SAMPLING), None)
        line.failed.append(Attempt(key, failure, _NOTHING))
        return line

    def sent(self, ask: Ask | Failure) -> Accepted | Failure | None:
        """What the program is sent, once the line is at its end."""
        if self.accepted is None and isinstance(ask, Ask) and ask.tells:
            return self.failed[-1].failure
        return self.accepted

    def take(self, outcome: Outcome, rules: Rules, row: Row) -> Request | None:
        """Judge the outcome; returns the next attempt, or None when the line is at its end, well or not."""
        request = self.request
        if self.failed and isinstance(outcome, Refusal) and outcome.failure.kind is FailureKind.TOO_LONG:
            return None  # there is no room to try again, as with the answer shown to the model: what came of it so far stands
        self.answered += 1
        completion: Completion | None = None
        if isinstance(outcome, Completion):
            completion = self.completion = outcome = self._with_all_logprobs(outcome)
            prefill = request.prompt.prefill
            text = self.text = prefill + outcome.text if prefill else outcome.text
            self._count(outcome.usage)
            if request.target is not None:
                value, failure = _scored(outcome)
            else:
                value, failure = _verdict(self.check or rules.check, text, outcome, request, row)
            if failure is None:
                self.accepted = Accepted(value, outcome)
                return None
            attempt = Attempt(request.key, failure, outcome.usage, text, outcome.finish_reason)
        else:
            failure = outcome.failure
            attempt = Attempt(request.key, failure, _NOTHING)
            if not request.partial:
                self.kept = _NOTHING
        following = rules.next_request(request, failure, completion, [each.failure.kind for each in self.failed])
        self.failed.append(attempt)
        if following is not None:
            self.request = following
        return following

    def _with_all_logprobs(self, outcome: Completion) -> Completion:
        """The engine gives those of the new tokens; where it went on from a partial answer, that one's come before them."""
        before = self.completion
        if not self.request.partial or before is None or before.logprobs is None or outcome.logprobs is None:
            return outcome
        return replace(outcome, logprobs=[*before.logprobs, *outcome.logprobs])

    def _count(self, usage: Usage) -> None:
        self.usage = self.usage + usage if self.answered > 1 else usage
        if self.request.partial:
            kept = self.kept
            self.kept = Usage(kept.prompt_tokens, kept.completion_tokens + usage.completion_tokens, kept.cached_tokens)
        else:
            self.kept = usage


def _scored(outcome: Completion) -> Verdict:
    if outcome.score is None:
        return Verdict(None, Failure(FailureKind.ENGINE, "the engine gave no likelihood of the continuation"))
    return Verdict(outcome.score, None)


def _verdict(check: Check, text: str, completion: Completion, request: Request, row: Row) -> Verdict:
    finish_reason = completion.finish_reason
    if finish_reason == "stop":
        return check(text, row.data)
    if finish_reason == "length":
        # where the end of text is ignored the budget is the length that was asked for
        return check(text, row.data, cut_off=not request.sampling.get("ignore_eos"))
    if finish_reason == "repetition":
        end = (text or completion.reasoning or "")[-_END_CHARACTERS:]
        return Verdict(
            None,
            Failure(
                FailureKind.REPETITION,
                f"the answer repeats itself, so the engine stopped it; it ends with {quote(end, 200)}",
            ),
        )
    return Verdict(
        None, Failure(FailureKind.ENGINE, f"the engine ended the request with finish_reason {finish_reason!r}")
    )


def _tell(told: _Line | None, lines: list[_Line]) -> Failure:
    """The failure of a row whose program says only that it is incomplete."""
    if told is None:
        return Failure(FailureKind.REJECTED, "every answer passed, but the row's program made no value of them")
    failure = told.failed[-1].failure
    if len(lines) == 1:
        return failure
    failed = [line for line in lines if line.accepted is None]
    sampled = all(line.key.step == lines[0].key.step for line in lines)
    names = [str(line.key.sample if sampled else line.key.step) for line in failed]
    word = ("sample" if sampled else "step") + ("s" if len(names) > 1 else "")
    return Failure(failure.kind, f"{word} {', '.join(names)} of {len(lines)} failed; the first: {failure.message}")


def _each(values: list[Any]) -> Any:
    """What a record says of the answers of its last step: one thing, of several samples a list, None if none has it."""
    if all(value is None for value in values):
        return None
    return values[0] if len(values) == 1 else values


def _seed(ask: Ask, sample: int) -> int | None:
    seed = ask.sampling.get("seed") if ask.seed is None else ask.seed
    return None if seed in (None, NO_SEED) else seed + sample
