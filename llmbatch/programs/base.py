"""The contract of a program: a row in, the row's value out, by way of as many requests as it takes.

A program is a generator. It yields what it wants to ask, is sent the checked answers, and returns the row's value (bare,
as ``Complete`` or as ``Incomplete``):

| it yields | it is sent |
|---|---|
| an ``Ask`` | an ``Accepted``, or None where every attempt failed (with ``tells`` the last one's ``Failure``) |
| an ``Ask`` with ``samples`` n > 1, or ``more`` prompts | a list of as many of these, those to the first prompt first |
| a ``Failure``, as ``RowAsk.ask`` gives one | None: it counts as a request that failed unsent |
| a list of these | a list with one of the above for each |
| ``Branches`` of programs | a list of what each of them returned, in their order |

It does no input or output and reads no clock, so that it can be replayed from answers that are on disk. Requests of one
yield run at the same time; those of the next begin when all of them are answered. Branches do not wait for each other: each goes
on as soon as its own requests are answered, and may have branches too. Retries happen around the program.

What a program does must follow from its row and its answers alone, and not from which of its branches came first: they share
nothing that one writes and another reads.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from llmbatch.core.check import Check
from llmbatch.core.errors import JobError
from llmbatch.core.fast_dataclass import fast_dataclass
from llmbatch.core.imports import is_import_path, load_object, source_of
from llmbatch.core.table import find
from llmbatch.core.types import Constraint, Failure, Pooling, Prompt, Row, Sampling
from llmbatch.core.words import near, short
from llmbatch.programs import PROGRAMS
from llmbatch.programs.given import given, is_given, source_of_given


@fast_dataclass(frozen=True, slots=True)
class Ask:
    """What a program wants answered: a ``Request`` without its key, and how many answers to it.

    With a ``target`` it asks for the likelihood of that continuation of the prompt: the accepted value is a ``Score``. Whoever has
    tokenized it gives ``token_ids``, and of a target ``target_ids`` besides, which then stand for the text. With ``pooling`` it
    asks for numbers: the accepted value is an array of them. ``origin`` is what it was made from, where it may have to be made
    again with less of its row; of a pair it is that of the second text, which is the one that is cut.
    ``check`` judges its answers, None for the job's own check. Of ``samples`` > 1, ``sampling`` must not have vLLM's
    ``n``: each sample is a request of its own, and where there is a seed, sample i has seed + i, as vLLM has it. ``tells``: for an
    answer that there is not, the program is sent why. ``more`` are further prompts that are asked alike, ``samples`` times each.
    """

    prompt: Prompt
    sampling: Sampling
    constraint: Constraint | None = None
    seed: int | None = None
    max_tokens: int | None = None
    lora: str | None = None
    token_ids: Sequence[int] | None = None
    samples: int = 1
    target: str | None = None
    check: Check | None = None
    target_ids: Sequence[int] = ()
    tells: bool = False
    origin: Any = None
    pooling: Pooling | None = None
    more: Sequence[Prompt] = ()

    @property
    def answers(self) -> int:
        """How many requests it is."""
        return self.samples * (1 + len(self.more))


@fast_dataclass(frozen=True, slots=True)
class Complete:
    """Returned by a program in place of a bare value, with ``details`` (JSON) of how it came to it, for the record.

    Without ``logprobs`` the record has none: they were asked for to be looked at by the program alone.
    """

    output: Any
    details: Mapping[str, Any] | None = None
    logprobs: bool = True


@fast_dataclass(frozen=True, slots=True)
class Incomplete:
    """Returned by a program in place of a value when the row is not ok. ``output`` is what there is all the same.

    ``failure`` is the program's own reason; without one, the reason is that of the first request that failed.
    """

    output: Any = None
    failure: Failure | None = None
    details: Mapping[str, Any] | None = None
    logprobs: bool = True


@fast_dataclass(frozen=True, slots=True)
class Branches:
    """Yielded by a program to have other programs go on side by side, each at its own pace.

    It is sent a list of what they returned (as they returned it: bare, ``Complete`` or ``Incomplete``) once all of them are done.
    """

    programs: Sequence[Program]


class RowAsk(Protocol):
    """One row, and the means to ask about it: what a program is made from."""

    @property
    def row(self) -> Row: ...

    @property
    def settings(self) -> Any:
        """The program's own settings (``program.settings`` of the job): as its ``ProgramKind`` has them, else the plain mapping."""

    def ask(self, prompt: str = "main", /, **extra: Any) -> Ask | Failure:
        """One of the job's prompts (``main``, or one of ``program.prompts``) rendered for the row.

        ``extra`` are values that stand before the row's fields, such as the answer of an earlier step, by the names of fields.
        An ask has its check, which holds an answer to the values that it was rendered with. A prompt that cannot be rendered is a
        ``Failure``, to be yielded like an ask. Raises ``JobError`` for an unknown prompt.
        """

    @property
    def context_length(self) -> int | None:
        """Tokens that prompt and answer may have together; None where only a server knows. The first call waits for the engine."""

    def tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each of the texts has by itself, in one batch. An estimate where only a server could tell."""

    def ids(self, texts: Sequence[str]) -> list[Sequence[int] | Failure] | None:
        """The tokens of each of the texts by itself, however long it is, or why it has none. None: only a server knows them."""

    def room(self, ask: Ask) -> int | None:
        """Tokens by which the ask's prompt could be longer and still leave its answer all of ``max_tokens``.

        Below 0 it is too long by so many. None where the context length is unknown.
        """


Program = Generator[Ask | Failure | Branches | Sequence[Ask | Failure], Any, Any]
Shape = Callable[[RowAsk], Program]
"""A row in; its program out."""


class NoSettings(BaseModel):
    """Of a program that has none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _main_alone(_settings: Any) -> Iterable[str]:
    return ("main",)


class Need(NamedTuple):
    """What a prompt takes from a field of the row, or from an earlier answer: a value of this JSON type (or any).

    ``parts`` are the keys that it reads inside of the value.
    """

    type: str = "any"
    required: bool = True
    parts: frozenset[str] = frozenset()


class PromptFacts(NamedTuple):
    """What is known of a prompt before there is a row.

    ``needs`` is by field. ``answer`` is the JSON Schema of its answers (an empty one: any JSON), None where they are text;
    ``sampling`` is by vLLM's names.
    """

    needs: Mapping[str, Need]
    answer: Mapping[str, Any] | None
    sampling: Mapping[str, Any]


def _one(_settings: Any) -> int:
    return 1


def _nothing(_settings: Any) -> Sequence[str]:
    return ()


def _no_words(_settings: Any) -> str:
    return ""


def _answers(_settings: Any) -> None:
    return None


def _no_problem(_settings: Any, _prompts: Mapping[str, PromptFacts]) -> Iterable[str]:
    return ()


def _as_given(settings: Any, _prompts: Mapping[str, PromptFacts]) -> Any:
    return settings


class ProgramKind(NamedTuple):
    """All that a job must know of a program of the table before a row is asked.

    ``prompts`` are the names that it asks with by its settings, so that one that is missing is found before a model is loaded;
    ``problems`` is what else is wrong with settings and prompts together, and ``settled`` are the settings with what they leave to
    the prompts, once nothing is. ``requests`` is about how many requests a row has, whose
    answers are in memory until the row's window is sealed: windows are sized by it. ``later`` says in words what a row is asked
    after its first requests, where that is anything. ``keeps_row``: it looks at the row's fields after its first requests, or a
    predicate may. ``code`` are import paths of the author's functions that its settings name. ``sinks`` are written for it always.
    ``first`` says what a row is first asked, where that is not the job's prompt as it is: for whoever looks at prompts.
    ``pooling`` says which numbers the model is to give by its settings, of a program that asks for numbers and not for answers;
    ``gives_vectors``: the value of its rows is a vector. ``default_prompts`` are those that it asks with where the job names none.
    ``several``: its value is a list where a row brings several prompts; of other programs such a row has none.
    """

    shape: Shape
    settings: type[BaseModel] = NoSettings
    prompts: Callable[[Any], Iterable[str]] = _main_alone
    requests: Callable[[Any], int] = _one
    keeps_row: bool = True
    problems: Callable[[Any, Mapping[str, PromptFacts]], Iterable[str]] = _no_problem
    settled: Callable[[Any, Mapping[str, PromptFacts]], Any] = _as_given
    later: Callable[[Any], str] = _no_words
    code: Callable[[Any], Iterable[str]] = _nothing
    sinks: tuple[str, ...] = ()
    first: Callable[[RowAsk], Ask | Failure] | None = None
    pooling: Callable[[Any], Pooling | None] = _answers
    gives_vectors: bool = False
    default_prompts: Mapping[str, str] = MappingProxyType({})
    several: bool = False


def default_prompts(name: str) -> Mapping[str, str]:
    """The prompts that a program of the table asks with where a job names none; none for one of somebody's own.

    Raises ``JobError`` for an unknown program.
    """
    if is_given(name) or is_import_path(name):
        return {}
    return _in_table(name).default_prompts


def takes_several(name: str) -> bool:
    """Whether rows that bring several prompts can be done by a program. Raises ``JobError`` for an unknown one."""
    return not (is_given(name) or is_import_path(name)) and _in_table(name).several


def _in_table(name: str) -> ProgramKind:
    if name not in PROGRAMS:
        raise JobError(
            f"unknown program {name!r}{near(name, PROGRAMS)}: known are {', '.join(PROGRAMS)}, or give the import path of one of "
            "your own (module:function)"
        )
    kind: ProgramKind = find(PROGRAMS, name, "program")
    return kind


class Made(NamedTuple):
    """A program as a job has it: its kind, and its settings, checked. ``source`` is its text, where it is the author's own."""

    kind: ProgramKind
    settings: Any
    source: str | None = None


def make_program(name: str, settings: Mapping[str, Any], prompts: Mapping[str, PromptFacts]) -> Made:
    """A program by its name in the table, or by its import path (``module:function``), for a job with these settings and prompts.

    A program of one's own is a function, which gets its settings as they are, or a ``ProgramKind``. Raises ``JobError`` for an
    unknown program, for settings that are wrong, and for a prompt that it asks with and the job has not.
    """
    source: str | None = None
    if is_given(name):
        found = given(name)
        return Made(_of_ones_own(name, found), settings, source_of_given(found))
    if is_import_path(name):
        found = load_object(name)
        if not isinstance(found, ProgramKind):
            return Made(_of_ones_own(name, found), settings, source_of(found, name.partition(":")[0]))
        kind, source = found, source_of(found.shape, name.partition(":")[0])
    else:
        kind = _in_table(name)
    try:
        checked = kind.settings.model_validate(settings)
    except ValidationError as error:
        raise JobError("; ".join(_problems(error, kind.settings))) from None
    if missing := [wanted for wanted in kind.prompts(checked) if wanted not in prompts]:
        raise JobError(
            f"the program {name} asks with a prompt {missing[0]!r}, and the job has {', '.join(prompts)}: "
            "name it under program.prompts"
        )
    if problem := next(iter(kind.problems(checked, prompts)), None):
        raise JobError(f"the program {name}: {problem}")
    return Made(kind, kind.settled(checked, prompts), source)


def _of_ones_own(name: str, shape: Any) -> ProgramKind:
    if not callable(shape):
        raise JobError(f"the program {name} is no function but {short(shape)}: it takes a row and yields what it asks")
    return ProgramKind(shape, later=lambda _settings: f"what {name} asks after a row's first requests")


def _problems(error: ValidationError, settings: type[BaseModel]) -> Iterable[str]:
    for problem in error.errors(include_url=False):
        where = ".".join(("program.settings", *map(str, problem["loc"])))
        said = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            *path, key = problem["loc"]
            known = _keys(settings, path)
            yield f"unknown key {where!r}{near(str(key), known)}; known keys: {', '.join(known) or 'none'}"
        elif problem["type"] == "missing":
            yield f"{where} is missing"
        else:
            yield f"{where}: {said} (got {short(problem.get('input'))})"


def _keys(settings: type[BaseModel], path: Iterable[str | int]) -> list[str]:
    """The keys of settings, or of the settings in them that a path leads to."""
    for part in path:
        field = settings.model_fields.get(str(part))
        inner = [field.annotation, *get_args(field.annotation)] if field is not None else []
        settings = next((kind for kind in inner if isinstance(kind, type) and issubclass(kind, BaseModel)), settings)
    return [field.alias or name for name, field in settings.model_fields.items()]


__all__ = [
    "Ask",
    "Branches",
    "Complete",
    "Incomplete",
    "Made",
    "Need",
    "NoSettings",
    "Program",
    "ProgramKind",
    "PromptFacts",
    "RowAsk",
    "Shape",
    "default_prompts",
    "make_program",
    "takes_several",
]
