"""A list that the job's prompt answers with, each item of which is asked about by itself: one topic, ten questions, ten answers.

    program:
      name: fan_out
      prompts: {child: "Answer in two sentences: {{ item }}"}
      settings: {most: 10, unique: true}

The answer is a list: a JSON array, the array under the key ``items`` of a JSON object, or else text with an item a line (numbers
and bullets in front of lines are no part of the items). Each item becomes a child, whose steps (``steps.py``; by default one,
``child``) see it as the variable ``item``, what is inside of it as ``item.question``, and the row's fields. A row's children are
asked at the same time. One that fails fails alone; a row is not ok where it has children and none of them is.

The record's ``output`` counts: ``{"children": 10, "ok": 9}``, with ``repeated`` and ``left_out``, where there are any: items that
were there before (``unique``), and those beyond ``most``. Its ``details`` are ``{"children": [...]}``, one entry a child, in order:

    {"item": "...", "status": "ok", "output": "...", "usage": {"prompt_tokens": 60, "completion_tokens": 52}, "steps": [...]}

``usage`` is of the answers that passed; ``error`` (kind, message) is there only where a child is not ok, ``steps`` only where it
has several. The children are rows of the output of their own in ``children.jsonl``, see ``sinks/children.py``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, field_validator

from llmbatch.core.types import Failure, FailureKind, Status
from llmbatch.core.words import short, type_name
from llmbatch.programs.base import Complete, Incomplete, Program, ProgramKind, PromptFacts, RowAsk
from llmbatch.programs.references import Schema, Steps, no_key, part_of, problems, schema_of, type_of
from llmbatch.programs.steps import ROW, Course, Outputs, Step, most_asked, plain_steps, walk

_MARK = re.compile(r"\s*(?:[-*•–]\s+|\(?\d{1,4}[.):]\s+)?")  # in front of an item on a line


class FanOutSettings(BaseModel):
    """Where the items are, which of them become children, and what these are asked."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    items: str = Field("", description="the key of the JSON answer that has the list, dots go deeper")
    item: str = Field("item", description="the variable that a child's prompts have its item in")
    steps: tuple[Step, ...] = Field((Step(name="child"),), min_length=1, description="what a child is asked")
    output: Outputs | None = Field(
        None, description="a child's output, made of the answers to its steps as a chain's is"
    )
    most: int = Field(
        100, ge=1, description="children a row; further items are left out, and counted. It bounds memory"
    )
    unique: bool = Field(False, description="an item that a row has before is left out")
    details: bool = Field(True, description="keep the answers to a child's steps, where it has several")

    @field_validator("item")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not name.isidentifier() or name == ROW:
            raise ValueError(f"a variable is letters, digits and _, and not {ROW}")
        return name


class _Items(NamedTuple):
    """The items that become children, and how many others there were."""

    items: Sequence[Any]
    repeated: int
    left_out: int


def fan_out(row: RowAsk) -> Program:
    settings: FanOutSettings = row.settings
    answer = yield row.ask()
    if isinstance(answer, list):  # of several samples
        answer = None if None in answer else answer
        found = (
            None
            if answer is None
            else [item for sample in answer for item in _listed(sample.value, settings.items) or ()]
        )
    else:
        found = None if answer is None else _listed(answer.value, settings.items)
    if answer is None:
        return Incomplete()
    if found is None:
        return Incomplete(answer.value, _no_list(row, settings, answer.value))
    kept = _kept(found, settings)
    courses = [Course(row, {settings.item: item}) for item in kept.items]
    yield from _together([walk(course, settings.steps) for course in courses])
    children = [_child(course, settings) for course in courses]
    ok = sum(child["status"] == Status.OK for child in children)
    more = {"repeated": kept.repeated, "left_out": kept.left_out}
    output = {"children": len(children), "ok": ok, **{name: count for name, count in more.items() if count}}
    if children and not ok:
        return Incomplete(output, _all_failed(row, courses), {"children": children})
    return Complete(output, {"children": children})


def _listed(value: Any, path: str) -> list[Any] | None:
    """The items of an answer; None where it has no list."""
    for key in path.split(".") if path else ():
        value = value.get(key) if isinstance(value, Mapping) else None
    if isinstance(value, str):
        lines = (line[_matched(line) :].strip() for line in value.splitlines())
        return [line for line in lines if line]
    return [item for item in value if item is not None] if isinstance(value, list) else None


def _matched(line: str) -> int:
    found = _MARK.match(line)
    return found.end() if found is not None else 0


def _kept(found: Sequence[Any], settings: FanOutSettings) -> _Items:
    items, seen = [], set()
    for item in found:
        key = json.dumps(item, sort_keys=True)
        if not settings.unique or key not in seen:
            items.append(item)
        seen.add(key)
    return _Items(items[: settings.most], len(found) - len(items), len(items[settings.most :]))


def _together(programs: Sequence[Program]) -> Generator[Any, Any, None]:
    """Drive programs that ask one thing at a time, each as far as it goes; what they ask at a time is asked together."""
    going = list(programs)
    answers: list[Any] = [None] * len(going)
    while going:
        asks, left = [], []
        for program, answer in zip(going, answers, strict=True):
            try:
                asks.append(program.send(answer))
            except StopIteration:
                continue
            left.append(program)
        going = left
        if going:
            answers = yield asks


def _child(course: Course, settings: FanOutSettings) -> dict[str, Any]:
    output = course.output(settings.output, settings.steps)
    failure = course.failure
    if failure is None and not course.trail and settings.output is None:
        failure = course.failure = Failure(
            FailureKind.PROMPT, "no step was asked, as what each says under when is not true"
        )
    child: dict[str, Any] = {
        "item": course.answers[settings.item],
        "status": (Status.OK if failure is None else failure.kind.status).value,
        "output": output,
        "usage": course.usage,
    }
    if failure is not None:
        child["error"] = {"kind": failure.kind.value, "message": failure.message}
    if settings.details and most_asked(settings.steps) > 1:
        child["steps"] = course.trail
    return child


def _all_failed(row: RowAsk, courses: Sequence[Course]) -> Failure:
    first = next(course.failure for course in courses if course.failure is not None)
    return Failure(
        first.kind, f"row {short(row.row.id)}: each of its {len(courses)} children failed; the first: {first.message}"
    )


def _no_list(row: RowAsk, settings: FanOutSettings, value: Any) -> Failure:
    where = f"the answer has no list under {settings.items}" if settings.items else "the answer is no list"
    return Failure(
        FailureKind.REJECTED,
        f"row {short(row.row.id)}: {where}, but is of type {type_name(value)}: name its key as program.settings.items",
    )


# what is known before there is a row


def _prompts(settings: FanOutSettings) -> Iterable[str]:
    return ("main", *(step.asks for step in plain_steps(settings.steps)))


def _problems(settings: FanOutSettings, prompts: Mapping[str, PromptFacts]) -> Iterator[str]:
    answer = schema_of(prompts["main"]._replace(sampling={}))
    inner: Schema = answer
    for key in settings.items.split(".") if settings.items else ():
        part = part_of(inner, key) if type_of(inner) != "string" else None
        if part is None:
            yield f"items: looks for {settings.items}, {no_key(key, inner)}"
            return
        inner = part
    if type_of(inner) not in (None, "array", "string"):
        lists = [name for name in answer.get("properties", ()) if type_of(part_of(answer, name) or {}) == "array"]
        advice = f"name the key that has it: items: {lists[0]}" if lists else "ask for an array"
        yield f"the prompt's answer is of type {type_of(inner)}, and a list is needed: {advice}"
        return
    item: Schema = {"type": "string"} if type_of(inner) == "string" else inner.get("items") or {}
    first = next(plain_steps(settings.steps))
    if not any(field.partition(".")[0] == settings.item for field in prompts[first.asks].needs):
        yield (
            f"the prompt {first.asks} does not take {settings.item!r}, so every child would be asked the same: use it, or map it: "
            f"program.prompts.{first.asks}.fields: {{VARIABLE: {settings.item}}}"
        )
    given = {settings.item: [item if isinstance(item, Mapping) else {}]}
    yield from problems(Steps(settings.steps, prompts, given), settings.output)


def _requests(settings: FanOutSettings) -> int:
    return settings.most * most_asked(settings.steps)


def _later(_settings: FanOutSettings) -> str:
    return "what children are asked"


KIND = ProgramKind(fan_out, FanOutSettings, _prompts, _requests, problems=_problems, later=_later, sinks=("children",))
