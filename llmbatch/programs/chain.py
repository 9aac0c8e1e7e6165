"""Several steps a row, each with a prompt that sees the answers before it: draft, critique, revise; question, answer, check.

    program:
      name: chain
      prompts: {critique: critique.yaml, revise: {path: revise.yaml, sampling: {temperature: 0.3}, lora: editor}}
      settings:
        steps:
          - {name: draft, prompt: main}
          - repeat: 3
            until: critique.score >= 4
            steps: [critique, {name: draft, prompt: revise}]
        output: {text: draft, score: critique.score}

What a step is: ``steps.py``. Where a step fails the row ends there, with what came so far. The record's ``details`` has every
answer in the order asked:

    {"steps": [{"step": "draft", "output": "..."}, {"step": "critique", "round": 1, "output": {"score": 2}}, ...]}

``round`` only within a repetition; a step that failed has ``error`` (kind, message) in place of ``output``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from llmbatch.core.types import Failure, FailureKind
from llmbatch.programs.base import Complete, Incomplete, Program, ProgramKind, PromptFacts, RowAsk
from llmbatch.programs.references import Steps, problems
from llmbatch.programs.steps import Course, Outputs, Step, most_asked, plain_steps, walk


class ChainSettings(BaseModel):
    """The steps of a chain, and what becomes of their answers."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    steps: tuple[Step, ...] = Field(min_length=1, description="one after another; main is the job's own prompt")
    output: Outputs | None = Field(
        None,
        description="the record's output: an expression over the answers, or one for each of its keys; by default the answer "
        "of the last step that has one",
    )
    details: bool = Field(True, description="keep every step's answer in the record's details")


def chain(row: RowAsk) -> Program:
    settings: ChainSettings = row.settings
    course = Course(row, {})
    yield from walk(course, settings.steps)
    output = course.output(settings.output, settings.steps)
    details = {"steps": course.trail} if settings.details else None
    if course.failed:
        return Incomplete(output, details=details)
    if course.failure is None and not course.trail and settings.output is None:
        said = f"row {row.row.id!r}: no step was asked, as what each says under when is not true"
        course.failure = Failure(FailureKind.PROMPT, said)
    return Complete(output, details) if course.failure is None else Incomplete(output, course.failure, details)


def _prompts(settings: ChainSettings) -> Iterable[str]:
    return [step.asks for step in plain_steps(settings.steps)]


def _problems(settings: ChainSettings, prompts: Mapping[str, PromptFacts]) -> Iterable[str]:
    return problems(Steps(settings.steps, prompts, {}), settings.output)


def _later(settings: Any) -> str:
    most = most_asked(settings.steps)
    return f"what a row is asked after the first of its up to {most} steps" if most > 1 else ""


def _requests(settings: ChainSettings) -> int:
    return most_asked(settings.steps)


KIND = ProgramKind(chain, ChainSettings, _prompts, _requests, problems=_problems, later=_later)
