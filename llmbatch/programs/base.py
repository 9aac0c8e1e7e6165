"""The contract of a program: a row's prompt in, the row's value out, by way of as many requests as it takes.

A program is a generator. It yields what it wants to ask, is sent the checked answers, and returns the row's value:

| it yields | it is sent |
|---|---|
| an ``Ask`` | a ``Checked``, or None where every attempt failed |
| an ``Ask`` with ``samples`` n > 1 | a list of n of these |
| a list of asks | a list with one of the above for each |

It does no input or output and reads no clock, so that it can be replayed from answers that are on disk. Requests of one
yield run at the same time; those of the next begin when all of them are answered. Retries happen around the program.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Protocol

from llmbatch.core.fast_dataclass import fast_dataclass
from llmbatch.core.table import find
from llmbatch.core.types import Constraint, Failure, Prompt, Sampling
from llmbatch.programs import PROGRAMS


class Judge(Protocol):
    """Answer text in, ``(value, failure)`` out, one of them None; see ``llmbatch.check.Check``."""

    def __call__(
        self, text: str, row: Mapping[str, Any] | None = None, *, cut_off: bool = False
    ) -> tuple[Any, Failure | None]: ...


@fast_dataclass(frozen=True, slots=True)
class Ask:
    """What a program wants answered: a ``Request`` without its key, and how many answers to it.

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
    check: Judge | None = None


@fast_dataclass(frozen=True, slots=True)
class Incomplete:
    """Returned by a program in place of a value when the row is not ok. ``output`` is what there is all the same.

    ``failure`` is the program's own reason; without one, the reason is that of the first request that failed.
    """

    output: Any = None
    failure: Failure | None = None


Program = Generator[Ask | Sequence[Ask], Any, Any]
Shape = Callable[[Ask], Program]
"""The row's own prompt, rendered, in; its program out."""


def make_program(name: str) -> Shape:
    """A shape by name. Raises ``JobError`` for an unknown one."""
    shape: Shape = find(PROGRAMS, name, "program")
    return shape


__all__ = ["Ask", "Incomplete", "Judge", "Program", "Shape", "make_program"]
