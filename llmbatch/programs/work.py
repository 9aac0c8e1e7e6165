"""One row's work: outcomes of its requests in, the requests to send next and at the end its record out.

It drives the row's program and keeps the books of every attempt. It does no input or output and reads no clock: the
same outcomes, in whatever order the requests were answered, give the same requests with the same keys, and the same record.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any

from llmbatch.core.errors import LlmbatchError, RunError
from llmbatch.core.sampling import NO_SEED
from llmbatch.core.types import (
    Attempt,
    Completion,
    Failure,
    FailureKind,
    Outcome,
    Record,
    Request,
    RequestKey,
    Reused,
    Row,
    Status,
)
from llmbatch.core.words import short
from llmbatch.programs.base import Ask, Branches, Complete, Incomplete, Program
from llmbatch.programs.branches import ONE, Branch
from llmbatch.programs.line import NOTHING, Line, Rules

_OF_ITS_OWN = (Complete, Incomplete)  # what a program returns that has to say something besides the value
_MOST_STEPS = 1 << 63  # what a column of integers holds


class Work:
    """The state of one row between its first request and its record.

    ``start`` once, then ``feed`` each outcome once, until ``record`` is set. The record's books are exact:

    - ``attempts`` counts the requests that were answered, be it by a refusal; ``usage`` is the sum of theirs.
    - ``history`` holds every attempt that failed, by step, sample and attempt, but for the one that ``failure`` and
      ``raw`` tell of.
    - ``wasted`` is the usage of the attempts in ``history``. Where an answer that was cut off was gone on from, its
      tokens are part of the later answer and count with that; wasted is only that the prompt was sent again.
    """

    __slots__ = ("_branched", "_lines", "_open", "_program", "_rules", "kept", "record", "reused", "row")

    def __init__(self, row: Row, program: Program, rules: Rules, kept: Mapping[str, Any] | None = None) -> None:
        """``row`` is what predicates see; ``kept`` are the fields of the input that the record carries."""
        self.row = row
        self.record: Record | None = None
        self.kept = kept
        self.reused: Reused | None = None  # the part of the record's usage that was not computed for this row
        self._program = Branch(program)
        self._rules = rules
        self._open: dict[RequestKey, Line] = {}
        self._lines: list[Line] = []  # as they were begun: with branches that is not the order of their keys
        self._branched = False

    @classmethod
    def failed(cls, row: Row, failure: Failure, rules: Rules, details: Mapping[str, Any] | None = None) -> Work:
        """The work of a row that cannot be asked about at all: its record is there."""
        work = cls(row, _never(), rules)
        work.record = Record(row.index, row.id, failure.kind.status, failure=failure, details=details)
        return work

    @property
    def shortened(self) -> list[Mapping[str, Any]]:
        """What was done so far to make requests fit."""
        return [line.shortened for line in self._lines if line.shortened is not None]

    def start(self) -> list[Request]:
        """The row's first requests; none where its program needs none, and then the record is set."""
        return [] if self.record is not None else self._advance(self._program, None)

    def feed(self, outcome: Outcome) -> list[Request]:
        """Take the outcome of one of the row's requests, and say what to send next: retries, or the next step.

        Raises ``KeyError`` for a request that is not waited for, and ``RunError``, naming the row, where code of the
        job's author fails on the answer.
        """
        line = self._open.pop(outcome.key)
        if isinstance(outcome, Completion) and outcome.reused_from is not None:
            before = self.reused or Reused(NOTHING)
            self.reused = Reused(before.usage + outcome.usage, before.cached or outcome.reused_from == "cache")
        try:
            following = line.take(outcome, self._rules, self.row)
        except RunError as error:
            raise type(error)(f"row {self.row.id!r}: {error}") from error
        if following is not None:
            self._open[following.key] = line
            return [following]
        branch = line.branch
        branch.open -= 1
        requests = [] if branch.open else self._advance(branch, branch.answer())
        if self.record is None:
            line.release()
        return requests

    def _advance(self, branch: Branch, answer: Any) -> list[Request]:
        """Let a branch go on, and then whatever that lets go on: branches that it begins, the one that waited for its end."""
        requests: list[Request] = []
        begun: list[Branch] = []  # and did not go on yet, the first of them last
        while True:
            try:
                wanted = branch.program.send(answer)
            except StopIteration as stop:
                parent = branch.end(stop.value)
                if parent is None:
                    self.record = self._finish(stop.value)
                    return requests
                branch = parent
            except LlmbatchError:
                raise
            except Exception as error:
                raise RunError(f"row {self.row.id!r}: its program raised {type(error).__name__}: {error}") from error
            else:
                if isinstance(wanted, Branches):
                    self._branched = True
                    begun += reversed(branch.fork(self._checked(wanted)))
                else:
                    requests += self._ask(branch, wanted)
            if (
                not branch.open
            ):  # its branches are done, or all that it asked for failed unsent, or it asked for nothing
                answer = branch.answer()
            elif begun:
                branch, answer = begun.pop(), None
            else:
                return requests

    def _checked(self, wanted: Branches) -> Branches:
        programs = wanted.programs
        if any(not isinstance(each, Generator) for each in programs) or len(set(map(id, programs))) < len(programs):
            raise RunError(
                f"row {self.row.id!r}: its program yielded Branches of {short(programs)}: they are made of generators, each once"
            )
        return wanted

    def _ask(self, branch: Branch, wanted: Any) -> list[Request]:
        """The requests for what a branch yielded, which it waits for from now on."""
        if wanted.__class__ is Ask and wanted.samples == 1 and not wanted.more:
            return self._ask_one(branch, wanted)
        lines: list[Line] = []
        requests: list[Request] = []
        index = self.row.index
        for ask in (wanted,) if isinstance(wanted, ONE) else self._several(wanted):
            step = self._next_step(branch)
            if isinstance(ask, Failure):
                lines.append(Line.unsent(RequestKey(index, step), ask, branch))
                continue
            prompt, ids, sample, samples = ask.prompt, ask.token_ids, 0, ask.samples
            answers = samples * (1 + len(ask.more)) if ask.more else samples
            while sample < answers:
                if sample >= samples:
                    prompt = ask.more[sample // samples - 1]
                    ids = prompt.ids
                request = Request(
                    RequestKey(index, step, sample),
                    prompt,
                    ask.sampling,
                    ask.constraint,
                    ask.seed if samples == 1 else _seed(ask, sample % samples),
                    ask.max_tokens,
                    ask.lora,
                    (),
                    ids,
                    ask.target,
                    ask.target_ids,
                    ask.pooling,
                )
                line = self._open[request.key] = Line(request, ask.check, branch, ask.origin)
                lines.append(line)
                requests.append(request)
                sample += 1
        self._lines += lines
        branch.wanted, branch.lines, branch.open = wanted, lines, len(requests)
        return requests

    def _ask_one(self, branch: Branch, ask: Ask) -> list[Request]:
        """The same of nearly every row: one ask for one answer."""
        request = Request(
            RequestKey(self.row.index, self._next_step(branch)),
            ask.prompt,
            ask.sampling,
            ask.constraint,
            ask.seed,
            ask.max_tokens,
            ask.lora,
            (),
            ask.token_ids,
            ask.target,
            ask.target_ids,
            ask.pooling,
        )
        line = self._open[request.key] = Line(request, ask.check, branch, ask.origin)
        self._lines.append(line)
        branch.wanted, branch.lines, branch.open = ask, (line,), 1
        return [request]

    def _next_step(self, branch: Branch) -> int:
        step = branch.number()
        if step >= _MOST_STEPS:
            raise RunError(
                f"row {self.row.id!r}: its program has branches in branches, too deep for their requests to be numbered"
            )
        return step

    def _several(self, wanted: Any) -> Sequence[Ask | Failure]:
        if isinstance(wanted, Sequence) and all(isinstance(each, ONE) for each in wanted):
            return wanted
        raise RunError(
            f"row {self.row.id!r}: its program yielded {short(wanted)}: it yields what row.ask(...) gives, or a list of that, "
            "or Branches"
        )

    def _finish(self, value: Any) -> Record:
        row, lines = self.row, self._lines
        if len(lines) == 1 and (record := self._quickly(lines[0], value)) is not None:
            return record
        if self._branched:
            lines.sort(key=lambda line: line.key)
        details, has_logprobs = None, True
        if isinstance(value, Complete):
            value, details, has_logprobs = value.output, value.details, value.logprobs
        failure: Failure | None = None
        told: Line | None = None  # the line that the record's failure tells of
        if isinstance(value, Incomplete):
            value, failure, details, has_logprobs = value.output, value.failure, value.details, value.logprobs
            if failure is None:
                told = next((line for line in lines if line.accepted is None), None)
                failure = _tell(told, lines, branched=self._branched)
        if shortened := _shortened(lines):
            details = {**(details or {}), "overflow": shortened}
        shown = told or (lines[-1] if lines else None)
        group = [line for line in lines if shown and line.key.step == shown.key.step]
        usage = wasted = NOTHING
        history: list[Attempt] = []
        for line in lines:
            usage = usage + line.usage
            history += line.failed if line is not told else line.failed[:-1]
            kept = line.kept if line.accepted or line is told else NOTHING
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
            stop_reason=_each([_stop(line.completion) for line in group]),
            tool_calls=_each([line.completion.tool_calls if line.completion else None for line in group]),
        )

    def _quickly(self, line: Line, value: Any) -> Record | None:
        """The record of nearly every row: its only request was answered well at once. None for any other."""
        done = line.accepted
        if done is None or line.answered > 1 or line.shortened is not None or isinstance(value, _OF_ITS_OWN):
            return None
        row, last = self.row, done.completion
        return Record(
            row.index,
            row.id,
            Status.OK,
            value,
            last.finish_reason,
            1,
            last.usage,
            NOTHING,
            None,
            None,
            last.reasoning,
            last.logprobs,
            (),
            self.kept,
            None,
            _stop(last),
            last.tool_calls,
        )


def _stop(completion: Completion | None) -> str | None:
    """The stop sequence that ended an answer. Tokens that end it are the model's own as a rule, and not told."""
    reason = None if completion is None else completion.stop_reason
    return reason if isinstance(reason, str) else None


def _never() -> Program:
    return None
    yield ()


def _shortened(lines: list[Line]) -> Any:
    """What was done to make requests fit: of a row's only ask, or of several steps a list that says of which."""
    said = {line.key.step: line.shortened for line in lines if line.shortened is not None}
    if said and lines[-1].key.step == 0:
        return said[0]
    return [{"step": step, **each} for step, each in said.items()]


def _tell(told: Line | None, lines: list[Line], *, branched: bool) -> Failure:
    """The failure of a row whose program says only that it is incomplete."""
    if told is None:
        return Failure(FailureKind.REJECTED, "every answer passed, but the row's program made no value of them")
    failure = told.failed[-1].failure
    if len(lines) == 1:
        return failure
    failed = [line for line in lines if line.accepted is None]
    if branched:  # the numbers of whose steps say nothing to a person
        return Failure(failure.kind, f"{len(failed)} of {len(lines)} requests failed; the first: {failure.message}")
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
