"""A task file (YAML), a mapping or the name of a shipped task in; the task out, checked, before anything is read or loaded.

    name: capitals
    dataset: {path: capitals.jsonl}             any source of llmbatch; of a data set on the hub also config, split, revision
    prompt: "What is the capital of {{ country }}?"     any prompt of llmbatch: a file, a shipped one, the text itself
    references: capital                         an expression over the row: what would be right, one value or a list
    read: text                                  how the answer is read from the output: text, choice, number, regex, json, ...
    metrics: [exact_match]

``text`` in place of ``prompt`` is a prompt of plain text, for models that are no chat models. With ``ask: likelihood`` nothing is
generated: each of the row's ``choices`` is scored as a continuation of the prompt; with ``ask: perplexity`` the text itself is.

``fields``, ``references``, ``choices``, ``category``, ``cluster`` and ``few_shot.answer`` are expressions in Jinja over the row's
fields, such as ``choices.text`` or ``answer.split('####')[1]``. ``fields`` are given to the prompt and to the other expressions
beside the row's own. ``prepare`` names a function (``module:function``) that makes the row's fields of the row, where that takes
code.

A file with ``tasks`` is a group: a list of task files or names, of which each is scored, and all together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError, model_validator

from llmbatch.core.errors import JobError, PromptError
from llmbatch.core.sampling import sampling_problem
from llmbatch.core.sandbox import Expression, compile_expression
from llmbatch.core.settings import IsPath
from llmbatch.core.words import near
from llmbatch.evals.base import AnswerKind, Metric, check_metrics, make_metrics
from llmbatch.evals.readers.base import Reader, make_reader
from llmbatch.job.file import resolve_paths
from llmbatch.job.problems import explain
from llmbatch.programs.score import By
from llmbatch.prompt.base import PromptSettings
from llmbatch.prompt.document import read_document
from llmbatch.sources.base import SourceSettings

SHIPPED = Path(__file__).parent / "tasks"


def _as_path(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


def _expression(value: Any) -> Any:
    if isinstance(value, Expression) or value is None:
        return value
    if not isinstance(value, str):
        raise ValueError("is an expression over the row's fields, such as question.text")  # noqa: TRY004 - pydantic's way
    try:
        return compile_expression(value)
    except PromptError as error:
        raise ValueError(str(error)) from None


def _choices(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else _expression(value)


def _source(value: Any) -> Any:
    return value.source if isinstance(value, Expression) else value


AnExpression = Annotated[Expression, BeforeValidator(_expression), PlainSerializer(_source)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class FewShotSettings(_Strict):
    """Worked examples before the prompt. The row itself is never one of its examples."""

    number: int = Field(ge=0, le=1000, description="how many")
    split: str | None = Field(None, description="of the task's data set, in which they lie")
    dataset: Annotated[SourceSettings | None, BeforeValidator(_as_path)] = Field(
        None, description="where they lie, if that is another data set"
    )
    rows: tuple[dict[str, Any], ...] | None = Field(None, description="the examples themselves")
    draw: Literal["first", "once", "each"] = Field(
        "once", description="the first ones; drawn once for all rows; or drawn anew for each row"
    )
    seed: int = Field(0, ge=0, description="other ones are drawn with another seed")
    same: AnExpression | None = Field(
        None, description="an expression that is to have the same value for a row and its examples, such as subject"
    )
    answer: AnExpression | None = Field(
        None, description="an expression: the answer that is shown; by default the first reference"
    )
    separator: str = Field("\n\n", description="between two examples, in a prompt of plain text")
    fewer: bool = Field(
        False, description="where the context does not hold them all, leave some out; otherwise such a row fails"
    )
    pool: int = Field(1000, ge=1, description="so many rows, the first ones, are there to be drawn from")

    @model_validator(mode="after")
    def _from_one_place(self) -> FewShotSettings:
        given = [name for name in ("split", "dataset", "rows") if getattr(self, name) is not None]
        if self.number and len(given) != 1:
            raise ValueError(
                f"examples come from one of split, dataset and rows; given are {' and '.join(given) or 'none'}"
            )
        return self


class Task(_Strict):
    """What is asked of a model, and what of its answers counts."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    description: str = ""
    dataset: Annotated[SourceSettings, BeforeValidator(_as_path)]
    prepare: str | None = Field(None, description="module:function that makes a row's fields of the row")
    fields: dict[str, AnExpression] = Field(
        default_factory=dict, description="more fields, by expressions over the row"
    )
    prompt: Annotated[PromptSettings | None, BeforeValidator(_as_path)] = None
    text: str | None = Field(None, description="a prompt of plain text, in place of prompt")
    ask: Literal["text", "likelihood", "perplexity"] = "text"
    choices: Annotated[Expression | tuple[str, ...] | None, BeforeValidator(_choices), PlainSerializer(_source)] = (
        Field(None, description="an expression that gives a list of texts, or the same texts for every row")
    )
    by: By = Field("sum", description="likelihood: by what the likeliest choice is told that the record has as output")
    references: AnExpression | None = Field(
        None, description="an expression: what would be right, one value or a list of which each would be"
    )
    delimiter: str | None = Field(
        None,
        description="between the prompt and an answer; by default a space behind a prompt of plain text, else nothing",
    )
    few_shot: FewShotSettings = FewShotSettings(number=0)
    read: str | dict[str, Any] = "text"
    metrics: tuple[str | dict[str, Any], ...] = Field(min_length=1)
    repeats: int = Field(1, ge=1, description="how often each row is asked; its value is the mean")
    category: AnExpression | None = Field(
        None, description="an expression: figures are also given for each of its values"
    )
    cluster: AnExpression | None = Field(
        None, description="an expression: rows with the same value, such as of one document, are not independent"
    )
    sampling: dict[str, Any] = Field(default_factory=dict, description="by vLLM's names")
    answer: dict[str, Any] | None = Field(
        None, description="what an answer is held to, as in a job's section of that name"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Task:
        if (self.prompt is None) == (self.text is None):
            raise ValueError("a task has one of prompt and text")
        if (self.ask == "likelihood") != (self.choices is not None) and self.ask != "text":
            raise ValueError(f"ask: {self.ask} {'needs choices' if self.ask == 'likelihood' else 'has no choices'}")
        if self.ask != "text" and self.repeats > 1:
            raise ValueError(f"repeats: a {self.ask} is the same every time; leave it out")
        if self.ask != "text" and self.read != "text":
            raise ValueError(f"read: nothing is generated with ask: {self.ask}, so nothing is read; leave it out")
        if self.ask == "perplexity" and (self.few_shot.number or self.text is None):
            raise ValueError("ask: perplexity is of a text, without examples: give the text as text: '{{ FIELD }}'")
        for name, value in self.sampling.items():
            if problem := sampling_problem(name, value):
                raise ValueError(f"sampling.{name} {problem}")
        if "n" in self.sampling:
            raise ValueError("sampling.n: how often a row is asked is called repeats")
        if self.repeats > 1 and self.sampling.get("temperature") == 0:
            raise ValueError(
                f"repeats is {self.repeats} and sampling.temperature 0, so all answers to a row would be the same"
            )
        return self

    @property
    def reader(self) -> Reader:
        """Raises ``JobError``."""
        return make_reader(self.read)

    @property
    def gives(self) -> AnswerKind:
        """What kind of answer is scored."""
        return self.reader.gives if self.ask == "text" else "likelihood"

    @property
    def between(self) -> str:
        """What stands between a prompt and an answer."""
        return self.delimiter if self.delimiter is not None else "" if self.text is None else " "

    def metrics_made(self, *, allow_code: bool = False) -> list[Metric]:
        """The metrics, seen to fit the task. Raises ``JobError``."""
        metrics = make_metrics(self.metrics)
        check_metrics(metrics, self.gives, references=self.references is not None, allow_code=allow_code)
        return metrics

    def data(self) -> dict[str, Any]:
        """The task as plain data, of which ``task_from`` makes the same."""
        return self.model_dump(mode="json", exclude_defaults=True, by_alias=True)


class TaskGroup(_Strict):
    """Several tasks under one name, and how their figures make one."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    description: str = ""
    tasks: Annotated[tuple[str, ...], IsPath(lambda value, _: value.endswith((".yaml", ".yml")), each=True)] = Field(
        min_length=1, description="task files, or names of shipped tasks"
    )
    weight: Literal["rows", "tasks"] = Field(
        "tasks", description="each task counts the same in the figure of all, or by its rows"
    )

    @model_validator(mode="after")
    def _each_once(self) -> TaskGroup:
        if twice := [name for name in self.tasks if self.tasks.count(name) > 1]:
            raise ValueError(f"the task {twice[0]} is there twice")
        return self


def shipped_tasks() -> list[str]:
    """The names of the tasks that come with llmbatch."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load_task(place: str) -> Task | TaskGroup:
    """The task of a file, or the shipped one of this name. Raises ``JobError``, with the file's line where that helps."""
    path = SHIPPED / f"{place}.yaml" if place in shipped_tasks() else Path(place).expanduser()
    if not path.is_file():
        known = shipped_tasks()
        raise JobError(
            f"no task file and no shipped task is called {place!r}{near(place, known)}; shipped are {', '.join(known)}"
        )
    try:
        document = read_document(path.read_text(encoding="utf-8-sig"), str(path))
    except PromptError as error:
        raise JobError(str(error)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"{path}: cannot be read: {error}") from error
    if not isinstance(document.value, dict):
        raise JobError(f"{path}: a task file is a mapping with keys such as name, dataset, prompt and metrics")
    return task_from(document.value, path.parent, str(path))


def task_from(data: Mapping[str, Any], base: Path | None = None, where: str = "task") -> Task | TaskGroup:
    """The task that plain data says; relative paths in it are from ``base``. Raises ``JobError``."""
    kind: type[Task | TaskGroup] = TaskGroup if "tasks" in data else Task
    plain = dict(data)
    if isinstance(plain.get("few_shot"), int) and not isinstance(plain["few_shot"], bool):
        raise JobError(f"{where}: few_shot: is a mapping: {{number: {plain['few_shot']}, split: train}}")
    if base is not None:
        plain = _resolved(plain, base, kind)
    try:
        made = kind.model_validate(plain)
    except ValidationError as error:
        said = "; ".join(explain(error, plain, kind))
        raise JobError(f"{where}: {_of_a_task(said)}") from None
    if isinstance(made, Task):
        made.metrics_made(allow_code=True)  # whether code may be run is said where it is run
    return made


def _resolved(data: dict[str, Any], base: Path, kind: type[BaseModel]) -> dict[str, Any]:
    found = resolve_paths(data, base, kind)
    if isinstance(found.get("tasks"), Sequence) and not isinstance(found["tasks"], str):
        found["tasks"] = [
            str(base / task) if isinstance(task, str) and task.endswith((".yaml", ".yml")) else task
            for task in found["tasks"]
        ]
    return found


def _of_a_task(said: str) -> str:
    """What is said of a job's setting that is missing, as it is for a task."""
    return (
        said.replace("give --", "give ")
        .replace(" or the key", ", the key")
        .replace("in the job file", "in the task file")
    )


__all__ = ["FewShotSettings", "Task", "TaskGroup", "load_task", "shipped_tasks", "task_from"]
