"""Steps in; a row asked with their prompts one after another, each of which sees the answers before it, out.

A step is a prompt and a name for its answer. Later prompts have that as a variable (``{{ draft }}``), and the keys inside of a JSON
answer as ``{{ question.text }}``, or as a field to map from (``fields: {task: question.text}``). A later step of the same name
replaces the answer: a revised draft is the draft from then on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from llmbatch.core.errors import PromptError
from llmbatch.core.sandbox import Expression, RenderError, compile_expression
from llmbatch.core.types import Accepted, Failure, FailureKind, Usage
from llmbatch.programs.base import Program, RowAsk

ROW = "row"
"""What expressions call the row: its fields are ``row.text``."""


def _compiled(value: Any) -> Any:
    if isinstance(value, bool | int | float):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError("is an expression over earlier answers, such as critique.score >= 4")  # noqa: TRY004 - pydantic's
    try:
        return compile_expression(value)
    except PromptError as error:
        raise ValueError(str(error)) from None


AnExpression = Annotated[Expression, BeforeValidator(_compiled)]


def _outputs(value: Any) -> Any:
    return {name: _compiled(each) for name, each in value.items()} if isinstance(value, Mapping) else _compiled(value)


Outputs = Annotated[Expression | dict[str, Expression], BeforeValidator(_outputs)]
"""What a record's output is made of: an expression over the answers, or one for each of its keys."""


class Step(BaseModel):
    """One step, or several that are repeated. A plain text is the step of that name."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    name: str = Field("", description="what later prompts and expressions call its answer")
    prompt: str = Field("", description="main, or one of program.prompts; by default the one of the step's name")
    when: AnExpression | None = Field(None, description="the step is only asked where this is true")
    stop_if: AnExpression | None = Field(None, description="where this is true of the answer, no further step is asked")
    steps: tuple[Step, ...] = Field((), description="steps that are repeated together")
    repeat: int = Field(1, ge=1, description="how often, at most")
    until: AnExpression | None = Field(
        None, description="looked at after each step that it names: where it is true the repeating ends"
    )

    @model_validator(mode="before")
    @classmethod
    def _text_is_its_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits_together(self) -> Step:
        if self.steps:
            if self.name or self.prompt or self.stop_if:
                raise ValueError("steps that are repeated have no name, prompt or stop_if of their own")
        elif not self.name:
            raise ValueError("needs a name, or steps that are repeated")
        elif not self.name.isidentifier() or self.name == ROW:
            raise ValueError(f"{self.name!r} cannot name a step: a name is letters, digits and _, and not {ROW}")
        if self.until is not None and self.repeat == 1:
            raise ValueError("until ends what is repeated: give repeat, the most times")
        return self

    @property
    def asks(self) -> str:
        """The name of its prompt."""
        return self.prompt or self.name

    @property
    def once(self) -> Sequence[Step]:
        """What is asked each time."""
        return self.steps or (self,)


def plain_steps(steps: Iterable[Step]) -> Iterator[Step]:
    """All steps that ask something, in the order in which they are listed."""
    for step in steps:
        if step.steps:
            yield from plain_steps(step.steps)
        else:
            yield step


def most_asked(steps: Iterable[Step]) -> int:
    """How many requests the steps are at most."""
    return sum(step.repeat * (most_asked(step.steps) if step.steps else 1) for step in steps)


# a row's way through its steps


@dataclass(slots=True)
class Course:
    """How far a row came. ``answers`` begins with what is known before the first step.

    ``failure`` is set where it ended too early; ``failed`` says that this is a request's, which the record tells of by itself.
    """

    row: RowAsk
    answers: dict[str, Any]
    trail: list[dict[str, Any]] = field(default_factory=list)  # every answer, for the record's details
    usage: dict[str, int] = field(default_factory=lambda: {"prompt_tokens": 0, "completion_tokens": 0})
    failure: Failure | None = None
    failed: bool = False
    stopped: bool = False

    def count(self, usage: Usage) -> None:
        """Count what an answer took; how much of it the prefix cache spared is not the same every time."""
        self.usage["prompt_tokens"] += usage.prompt_tokens
        self.usage["completion_tokens"] += usage.completion_tokens

    @property
    def over(self) -> bool:
        return self.stopped or self.failure is not None

    def variables(self) -> dict[str, Any]:
        """What a prompt is given: each answer, and what is inside of the JSON ones by paths such as question.text."""
        given: dict[str, Any] = {}
        for name, value in self.answers.items():
            spread(name, value, given)
        return given

    def value(self, expression: Expression, what: str) -> Any:
        """What an expression gives now; where it cannot be said, the course is over, and it gives null."""
        values = {**dict.fromkeys(expression.names), **self.answers, ROW: self.row.row.data}
        try:
            return expression.value(values)
        except RenderError as error:
            if self.failure is None:
                said = f"row {self.row.row.id!r}: {what} ({expression.source}): {error}"
                self.failure = Failure(FailureKind.PROMPT, said)
            return None

    def output(self, asked: Expression | Mapping[str, Expression] | None, steps: Sequence[Step]) -> Any:
        """The output as it is asked for; by default the answer of the last step that has one."""
        if asked is None:
            names = [step.name for step in plain_steps(steps) if step.name in self.answers]
            return self.answers[names[-1]] if names else None
        if isinstance(asked, Expression):
            return self.value(asked, "output")
        return {name: self.value(each, f"output.{name}") for name, each in asked.items()}


def walk(course: Course, steps: Sequence[Step]) -> Program:
    """Ask the steps of a row, one request at a time, until they are done or the course is over."""
    for step in steps:
        yield from _take(course, step)
        if course.over:
            return


def _take(course: Course, step: Step, number: int = 0) -> Program:
    """A step as often as it is to be repeated; ``number`` is that of the time, where it is inside of what is repeated."""
    if step.when is not None and not course.value(step.when, f"when of step {_called(step)}"):
        return
    for time in range(1, step.repeat + 1):
        number = time if step.repeat > 1 else number
        for each in step.once:
            yield from _ask(course, step, number) if each is step else _take(course, each, number)
            if course.over or _ends(course, step, each):
                return


def _ends(course: Course, step: Step, asked: Step) -> bool:
    """Whether the repeating ends now: not before there is an answer of each step that ``until`` names."""
    if step.until is None:
        return False
    names = {each.name for each in plain_steps(step.once)} & step.until.names
    if not any(each.name in names for each in plain_steps((asked,))) or not names <= course.answers.keys():
        return False
    return bool(course.value(step.until, f"until of step {_called(step)}"))


def _ask(course: Course, step: Step, number: int) -> Program:
    ask = course.row.ask(step.asks, **course.variables())
    answer = yield ask if isinstance(ask, Failure) else replace(ask, tells=True)
    entry: dict[str, Any] = {"step": step.name} | ({"round": number} if number else {})
    course.trail.append(entry)
    samples = answer if isinstance(answer, list) else [answer]
    values = [sample.value for sample in samples if isinstance(sample, Accepted)]
    for sample in samples:
        if isinstance(sample, Accepted):
            course.count(sample.completion.usage)
        elif course.failure is None:
            course.failure, course.failed = ask if isinstance(ask, Failure) else sample, True
            entry["error"] = {"kind": course.failure.kind.value, "message": course.failure.message}
    if course.failure is not None:
        return
    entry["output"] = course.answers[step.name] = values if isinstance(answer, list) else values[0]
    if step.stop_if is not None and course.value(step.stop_if, f"stop_if of step {step.name}"):
        course.stopped = True


def _called(step: Step) -> str:
    return step.name or _called(step.steps[0])


def spread(name: str, value: Any, given: dict[str, Any]) -> None:
    """Add a value under its name, and what is inside of it under the path of that."""
    given[name] = value
    if isinstance(value, Mapping):
        for key, inner in value.items():
            spread(f"{name}.{key}", inner, given)


__all__ = [
    "ROW",
    "AnExpression",
    "Course",
    "Outputs",
    "Step",
    "most_asked",
    "plain_steps",
    "spread",
    "walk",
]
