"""The contract of a program: a row in, the row's value out, by way of as many requests as it takes.

A program is a generator. It yields what it wants to ask, is sent the checked answers, and returns the row's value:

| it yields | it is sent |
|---|---|
| an ``Ask`` | an ``Accepted``, or None where every attempt failed |
| an ``Ask`` with ``samples`` n > 1 | a list of n of these |
| a ``Failure``, as ``RowAsk.ask`` gives one | None: it counts as a request that failed unsent |
| a list of these | a list with one of the above for each |

It does no input or output and reads no clock, so that it can be replayed from answers that are on disk. Requests of one
yield run at the same time; those of the next begin when all of them are answered. Retries happen around the program.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Protocol

from llmbatch.core.check import Check
from llmbatch.core.fast_dataclass import fast_dataclass
from llmbatch.core.imports import is_import_path, load_object
from llmbatch.core.table import find
from llmbatch.core.types import Constraint, Failure, Prompt, Row, Sampling
from llmbatch.programs import PROGRAMS


@fast_dataclass(frozen=True, slots=True)
class Ask:
    """What a program wants answered: a ``Request`` without its key, and how many answers to it.

    With a ``target`` it asks for the likelihood of that continuation of the prompt: the accepted value is a ``Score``.
    ``check`` judges its answers, None for the job's own check. Of ``samples`` > 1, ``sampling`` must not have vLLM's
    ``n``: each sample is a request of its own, and where there is a seed, sample i has seed + i, as vLLM has it.
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


@fast_dataclass(frozen=True, slots=True)
class Incomplete:
    """Returned by a program in place of a value when the row is not ok. ``output`` is what there is all the same.

    ``failure`` is the program's own reason; without one, the reason is that of the first request that failed.
    """

    output: Any = None
    failure: Failure | None = None


class RowAsk(Protocol):
    """One row, and the means to ask about it: what a program is made from."""

    @property
    def row(self) -> Row: ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """The program's own settings (``program.settings`` of the job)."""

    def ask(self, prompt: str = "main", /, **extra: Any) -> Ask | Failure:
        """One of the job's prompts (``main``, or one of ``program.prompts``) rendered for the row.

        ``extra`` are values for the prompt's variables that go before the row's fields, such as the answer of an earlier step.
        A prompt that cannot be rendered is a ``Failure``, to be yielded like an ask. Raises ``JobError`` for an unknown prompt.
        """


Program = Generator[Ask | Failure | Sequence[Ask | Failure], Any, Any]
Shape = Callable[[RowAsk], Program]
"""A row in; its program out."""


def make_program(name: str) -> Shape:
    """A shape by its name in the table, or by its import path (``module:function``). Raises ``JobError`` for an unknown one."""
    shape: Shape = load_object(name) if is_import_path(name) else find(PROGRAMS, name, "program")
    return shape


__all__ = ["Ask", "Incomplete", "Program", "RowAsk", "Shape", "make_program"]
