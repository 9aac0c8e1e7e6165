"""One thing that an audit looked at, with the problems that it found."""

from __future__ import annotations

from dataclasses import dataclass, field

SHOWN = 5  # problems of one check that are spelled out


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
        if len(self.problems) < SHOWN:
            self.problems.append(text)
        else:
            more = 1 if len(self.problems) == SHOWN else int(self.problems.pop().split()[1]) + 1
            self.problems.append(f"and {more} more")
