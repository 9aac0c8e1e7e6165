"""A program on its way: what it yielded in; its steps, what it waits for, and what it is sent in the end, out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from llmbatch.core.types import Accepted, Failure
from llmbatch.programs.base import Ask, Branches, Program

ONE = (Ask, Failure)  # what a program yields for one thing; else it yields several
_NONE: list[Any] = []  # nothing is ever put into it


class Answered(Protocol):
    """One answer that a program waits for, and gets whatever becomes of it."""

    def sent(self, ask: Ask | Failure) -> Accepted | Failure | None:
        """What the program is sent, once the last attempt is over."""


class Branch:
    """A program on its way: the row's own, or one of several that another one waits for.

    Each counts its own steps. Its step i is the row's step ``first + i * stride``: of n branches the steps are dealt out in turn,
    one to each, so that which step is whose does not depend on which of them came along faster.
    """

    __slots__ = (
        "first",
        "lines",
        "longest",
        "open",
        "parent",
        "place",
        "program",
        "returned",
        "steps",
        "stride",
        "wanted",
    )

    def __init__(
        self, program: Program, parent: Branch | None = None, place: int = 0, first: int = 0, stride: int = 1
    ) -> None:
        self.program = program
        self.parent = parent
        self.place = place  # among the branches of its parent
        self.first = first
        self.stride = stride
        self.steps = 0  # that it has had, those of its own branches included
        self.open = 0  # requests, or branches, that it waits for
        self.wanted: Any = ()  # what it yielded last
        self.lines: Sequence[Answered] = ()  # of that
        self.returned: list[Any] = _NONE  # by its branches
        self.longest = 0  # steps of the longest of them

    def number(self) -> int:
        """The row's step that is this branch's next one."""
        step = self.first + self.steps * self.stride
        self.steps += 1
        return step

    def fork(self, wanted: Branches) -> list[Branch]:
        """Its branches, for which it waits from now on."""
        count = self.open = len(wanted.programs)
        self.wanted, self.lines, self.longest = wanted, (), 0
        self.returned = [None] * count
        first, stride = self.first + self.steps * self.stride, self.stride
        return [
            Branch(program, self, place, first + place * stride, stride * count)
            for place, program in enumerate(wanted.programs)
        ]

    def end(self, value: Any) -> Branch | None:
        """It returned a value: its parent has that, and waits for one branch less."""
        parent = self.parent
        self.wanted, self.lines, self.returned = (), (), _NONE
        if parent is not None:
            parent.returned[self.place] = value
            parent.open -= 1
            parent.longest = max(parent.longest, self.steps)
        return parent

    def answer(self) -> Any:
        """What the program is sent for its last yield."""
        wanted = self.wanted
        if isinstance(wanted, Ask) and wanted.samples == 1 and not wanted.more:  # nearly every row's
            return self.lines[0].sent(wanted)
        if isinstance(wanted, Branches):
            self.steps += self.longest * len(self.returned)  # its next step comes after all of theirs
            return self.returned
        asks = (wanted,) if isinstance(wanted, ONE) else wanted
        lines = iter(self.lines)
        answers = [
            [next(lines).sent(ask) for _ in range(ask.answers)]
            if isinstance(ask, Ask) and (ask.samples > 1 or ask.more)
            else next(lines).sent(ask)
            for ask in asks
        ]
        return answers[0] if isinstance(wanted, ONE) else answers
