"""One thing that an audit looked at, with the problems that it found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

_SHOWN = 5  # problems of one check that are spelled out


@dataclass(slots=True)
class Finding:
    """Without problems it holds."""

    name: str
    seen: str = ""
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems

    def problem(self, text: str) -> None:
        """Note a problem; of many the first few are kept, and how many more there are."""
        if len(self.problems) < _SHOWN:
            self.problems.append(text)
        else:
            more = 1 if len(self.problems) == _SHOWN else int(self.problems.pop().split()[1]) + 1
            self.problems.append(f"and {more} more")


def listed(numbers: Sequence[int]) -> str:
    """The first few of many numbers."""
    shown = ", ".join(map(str, numbers[:_SHOWN]))
    return shown + (", ..." if len(numbers) > _SHOWN else "")
