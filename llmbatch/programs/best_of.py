"""Several samples of the job's prompt a row, of which one is chosen: by a judge, a vote, a score or a predicate.

    program:
      name: best_of
      prompts: {judge: {path: judge, fields: {task: question}}}      # the shipped judge: task and response in, a score out
      settings: {n: 8, judge: judge}

One of:

- ``judge: judge``, or ``{prompt, variable, score}``: a prompt is asked about each sample alone (as the variable ``response``), and
  its answer has the ``score``; with ``compare: true`` it is asked once with all of them (``responses``, a list) and answers with
  the number of the best, counted from 1 (``best``).
- ``vote: true``: the most frequent value; ``vote: answer`` or ``vote: [city, day]``: by these keys of JSON answers.
- ``score: confidence``: a number in the answer; ``score: logprob``: the mean log-probability of its tokens;
  ``score: module:function`` of one's own, given the value and, if it takes two arguments, the row's data.
- ``predicate: module:function``: the first that it finds good.

Of equals the first is chosen. A sample or a judgement that fails is left out; a row is not ok where nothing is left, or where the
best is below ``at_least``. Samples are drawn with seeds from ``seed`` on, so the same job draws the same ones again. With
``at_a_time`` and ``enough`` no further samples are drawn once the best score is so high; what was drawn is then the same too.

The record's ``output`` is the chosen sample, and ``details``:

    {"by": "judge", "chosen": 1, "samples": [{"output": "...", "score": 2, "judged": {...}}, {"output": "...", "score": 5}, null]}

``samples`` are all that were drawn, in order, null for one that failed; ``chosen`` counts from 0, null where none was. ``judged``
is the judge's answer. ``score``: of a vote how many samples agree, of a predicate 1 or 0, of a comparison 1 for the best and 0 for
the others, null where it could not be told. So a pair of a chosen and a rejected answer is two entries of ``samples`` with
different scores.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from llmbatch.core.errors import JobError
from llmbatch.core.imports import is_import_path
from llmbatch.core.types import Accepted, Failure, FailureKind, Sampling
from llmbatch.core.words import short
from llmbatch.programs.base import Ask, Complete, Incomplete, Program, ProgramKind, PromptFacts, RowAsk
from llmbatch.programs.own import Own, own
from llmbatch.programs.references import Schema, no_key, part_of, schema_of, type_of
from llmbatch.programs.scores import JudgeSettings, Sample, compare, count_votes, judge_each, number_in, seed_of

_LOGPROB = "logprob"
_WAYS = ("judge", "vote", "score", "predicate")


def _keys(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _own(value: Any) -> Any:
    if not isinstance(value, str) or not is_import_path(value):
        return value
    try:
        return own(value)
    except JobError as error:
        raise ValueError(str(error)) from None


def _predicate(value: Any) -> Any:
    if isinstance(value, str) and not is_import_path(value):
        raise ValueError("is no import path: it has the form module:function")
    return _own(value)


class BestOfSettings(BaseModel):
    """How many samples, and how one of them is chosen."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    n: int = Field(4, ge=2, le=1024, description="samples a row")
    judge: JudgeSettings | None = Field(None, description="by a prompt: its name, or prompt, compare, variable, score")
    vote: Annotated[tuple[str, ...] | bool, BeforeValidator(_keys)] = Field(
        False, description="by the most frequent value: true, or the keys of JSON answers that count"
    )
    score: Annotated[Own | str | None, BeforeValidator(_own)] = Field(
        None, description="by a number: a key of the JSON answer, logprob, or module:function of your own"
    )
    predicate: Annotated[Own | None, BeforeValidator(_predicate)] = Field(
        None, description="the first that module:function finds good"
    )
    at_least: float | None = Field(None, description="a row whose best score is lower is not ok")
    at_a_time: int | None = Field(
        None, ge=1, description="samples that are drawn before it is looked whether that is enough"
    )
    enough: float | None = Field(None, description="no further samples once the best score is so high")
    seed: int | None = Field(
        0, ge=0, description="of the first sample, where the job has none; null: another every time"
    )
    details: bool = Field(True, description="keep all samples and scores in the record's details")

    @model_validator(mode="after")
    def _fits_together(self) -> BestOfSettings:
        given = [name for name in _WAYS if getattr(self, name) not in (None, False)]
        if len(given) != 1:
            seen = f"{' and '.join(given)} were" if given else "none was"
            raise ValueError(f"one of {', '.join(_WAYS)} chooses the best; {seen} given")
        if (self.at_a_time is None) != (self.enough is None):
            raise ValueError(
                "at_a_time and enough go together: after how many samples to look, and at which score to stop"
            )
        if self.judge is not None and self.judge.compare and self.enough is not None:
            raise ValueError("enough needs scores, and a judge that compares all samples gives none")
        return self

    @property
    def by(self) -> str:
        return next(name for name in _WAYS if getattr(self, name) not in (None, False))

    @property
    def functions(self) -> list[Own]:
        """The author's functions."""
        return [each for each in (self.score, self.predicate) if isinstance(each, Own)]


def best_of(row: RowAsk) -> Program:
    settings: BestOfSettings = row.settings
    ask = row.ask()
    drawn: list[Sample | None] = []
    while len(drawn) < settings.n:
        if isinstance(ask, Failure):
            yield ask
            return Incomplete()
        count = min(settings.at_a_time or settings.n, settings.n - len(drawn))
        answer = yield _asked(ask, settings, len(drawn), count)
        answers = answer if count > 1 else [answer]
        new = [None if each is None else Sample(each) for each in answers]
        drawn += new
        yield from _scored(row, settings, drawn, new)
        best = _best(drawn)
        if settings.enough is not None and best is not None and best[2] >= settings.enough:
            break
    return _chosen(row, settings, drawn)


def _asked(ask: Ask, settings: BestOfSettings, drawn: int, count: int) -> Ask:
    """The next so many samples. Which seed a sample has depends on its number alone."""
    seed = seed_of(ask, settings.seed)
    sampling = _with_logprobs(ask.sampling) if settings.score == _LOGPROB else ask.sampling
    return replace(ask, samples=count, seed=None if seed is None else seed + drawn, sampling=sampling)


@lru_cache(maxsize=64)
def _with_logprobs(sampling: Sampling) -> Sampling:
    """One object for equal settings, so that an engine still knows them by identity."""
    return sampling if sampling.get("logprobs") is not None else sampling.replace(logprobs=0)


def _scored(
    row: RowAsk, settings: BestOfSettings, drawn: Sequence[Sample | None], new: Sequence[Sample | None]
) -> Generator[Any, Any, None]:
    """Give the new samples their scores; a vote and a comparison are of all."""
    fresh = [sample for sample in new if sample is not None]
    if settings.judge is not None:
        judge = compare if settings.judge.compare else judge_each
        yield from judge(row, settings.judge, fresh, settings.seed)
    elif settings.vote:
        count_votes(settings.vote, [sample for sample in drawn if sample is not None])
    else:
        for sample in fresh:
            sample.score = _score(row, settings, sample.accepted)


def _score(row: RowAsk, settings: BestOfSettings, accepted: Accepted) -> float | None:
    if settings.predicate is not None:
        return float(bool(settings.predicate(accepted.value, row.row)))
    if isinstance(settings.score, Own):
        return number_in(settings.score(accepted.value, row.row))
    if settings.score == _LOGPROB:
        logprobs = [token["logprob"] for token in accepted.completion.logprobs or ()]
        return sum(logprobs) / len(logprobs) if logprobs else None
    return number_in(accepted.value, settings.score or "")


def _best(drawn: Iterable[Sample | None]) -> tuple[int, Sample, float] | None:
    """(number of the best sample, it, its score); None where none has one."""
    scored = [(at, each, each.score) for at, each in enumerate(drawn) if each is not None and each.score is not None]
    return max(scored, key=lambda found: found[2], default=None)


def _chosen(row: RowAsk, settings: BestOfSettings, drawn: Sequence[Sample | None]) -> Complete | Incomplete:
    samples = [sample for sample in drawn if sample is not None]
    logprobs = settings.score != _LOGPROB
    if not samples:
        return Incomplete(details=_details(settings, drawn, None), logprobs=logprobs)
    best = _best(drawn)
    at, sample, score = best or (None, samples[0], None)
    output = sample.accepted.value
    least = 1.0 if settings.predicate is not None else settings.at_least
    if score is not None and (least is None or score >= least):
        return Complete(output, _details(settings, drawn, at), logprobs)
    said = _unscored(settings, samples) if score is None else _too_low(settings, samples, score)
    failure = Failure(FailureKind.REJECTED, f"row {short(row.row.id)}: {said}")
    return Incomplete(output, failure, _details(settings, drawn, None), logprobs)


def _details(settings: BestOfSettings, drawn: Sequence[Sample | None], chosen: int | None) -> dict[str, Any] | None:
    if not settings.details:
        return None
    samples = [None if sample is None else sample.entry() for sample in drawn]
    return {"by": settings.by, "chosen": chosen, "samples": samples}


def _unscored(settings: BestOfSettings, samples: Sequence[Sample]) -> str:
    if settings.judge is not None:
        key = settings.judge.gives
        wanted = f"a number from 1 to {len(samples)}" if settings.judge.compare else "a number"
        return f"none of {len(samples)} samples has a score: no answer of {settings.judge.prompt} has {wanted} as {key}"
    if settings.score == _LOGPROB:
        return "the engine gave no log-probabilities of the samples' tokens"
    return f"none of {len(samples)} samples has what it is chosen by ({settings.by})"


def _too_low(settings: BestOfSettings, samples: Sequence[Sample], best: float) -> str:
    if settings.predicate is not None:
        return f"none of {len(samples)} samples is good by {settings.predicate.path}"
    return f"the best of {len(samples)} samples has the score {best:g}, and at least {settings.at_least:g} is asked for"


# what is known before there is a row


def _prompts(settings: BestOfSettings) -> Iterable[str]:
    return ("main",) if settings.judge is None else ("main", settings.judge.prompt)


def _problems(settings: BestOfSettings, prompts: Mapping[str, PromptFacts]) -> Iterator[str]:
    main = prompts["main"]
    if main.sampling.get("temperature") == 0:
        yield (
            f"the temperature of the job's prompt is 0, so its {settings.n} samples would all be the same: set "
            "sampling.temperature above 0"
        )
    answer: Schema = {} if main.answer is None and settings.vote is True else schema_of(main._replace(sampling={}))
    if isinstance(settings.score, str) and settings.score != _LOGPROB:
        yield from _nonumber_in("score", settings.score, answer)
    for key in settings.vote if isinstance(settings.vote, tuple) else ():
        yield from _no_path("vote", key, answer)
    if settings.judge is not None:
        yield from _judge_problems(settings.judge, prompts[settings.judge.prompt])


def _judge_problems(judge: JudgeSettings, facts: PromptFacts) -> Iterator[str]:
    if not any(field.partition(".")[0] == judge.takes for field in facts.needs):
        taken = ", ".join(map(repr, facts.needs)) or "nothing"
        yield (
            f"the prompt {judge.prompt} does not take {judge.takes!r}, in which it is given what it judges, but {taken}: name the "
            f"variable as judge.variable, or map it: program.prompts.{judge.prompt}.fields: {{VARIABLE: {judge.takes}}}"
        )
    if facts.answer is not None:
        yield from _nonumber_in(f"the answer of {judge.prompt}", judge.gives, facts.answer)


def _nonumber_in(what: str, path: str, schema: Schema) -> Iterator[str]:
    found = False
    for problem in _no_path(what, path, schema):
        found = True
        yield problem
    inner: Schema = schema
    for key in () if found else path.split("."):
        inner = part_of(inner, key) or {}
    if not found and type_of(inner) not in (None, "number", "integer", "string"):
        yield f"{what}: {path} is of type {type_of(inner)}, and a score is a number"


def _no_path(what: str, path: str, schema: Schema) -> Iterator[str]:
    """What is wrong with a path in an answer, if anything is."""
    inner: Schema = schema
    for key in path.split("."):
        if type_of(inner) == "string":
            yield f"{what}: looks for {path} in an answer that is text: give the prompt a schema"
            return
        part = part_of(inner, key)
        if part is None:
            yield f"{what}: looks for {path}, {no_key(key, inner)}"
            return
        inner = part


def _requests(settings: BestOfSettings) -> int:
    return settings.n * (1 if settings.judge is None or settings.judge.compare else 2)


def _later(settings: BestOfSettings) -> str:
    said = []
    if settings.at_a_time is not None and settings.at_a_time < settings.n:
        said.append(f"samples beyond the first {settings.at_a_time} of a row")
    if settings.judge is not None:
        said.append("what the judge is asked")
    return " and ".join(said)


def _code(settings: BestOfSettings) -> Iterable[str]:
    return [function.path for function in settings.functions]


KIND = ProgramKind(best_of, BestOfSettings, _prompts, _requests, problems=_problems, later=_later, code=_code)
