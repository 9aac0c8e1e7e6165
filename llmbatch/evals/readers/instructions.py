"""An output and the instructions of its row in; 1 where it keeps all of them, else 0, or the share that it keeps, out.

The row has the names of instructions in a list, and the arguments of each beside it, as in IFEval.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from llmbatch.core.words import near, short
from llmbatch.evals.instructions import INSTRUCTIONS, keeps
from llmbatch.evals.readers.base import ReaderKind, ReaderSettings


class InstructionsSettings(ReaderSettings):
    names: str = Field("instruction_id_list", description="the field with the names of a row's instructions")
    arguments: str = Field("kwargs", description="the field with the arguments of each")
    share: bool = Field(False, description="the share of the instructions that are kept, and not whether all are")


def read(text: str, settings: InstructionsSettings, row: Mapping[str, Any]) -> float:
    kept = [keeps(text, name, given) for name, given in _instructions(row, settings)]
    return sum(kept) / len(kept) if settings.share else float(all(kept))


def problem(row: Mapping[str, Any], settings: InstructionsSettings) -> str | None:
    """What is wrong with a row's instructions."""
    names, arguments = row.get(settings.names), row.get(settings.arguments)
    if not isinstance(names, list) or not names or not isinstance(arguments, list) or len(names) != len(arguments):
        return (
            f"has no instructions: {settings.names} is {short(names)} and {settings.arguments} is {short(arguments)}, and they "
            "must be lists of the same length"
        )
    if unknown := [name for name in names if name not in INSTRUCTIONS]:
        return f"has an unknown instruction {short(unknown[0])}{near(str(unknown[0]), INSTRUCTIONS)}"
    for name, given in _instructions(row, settings):
        try:
            keeps("Some text.", name, given)
        except (KeyError, TypeError, ValueError, re.error) as error:
            return f"its instruction {name} has the arguments {short(given)}: {type(error).__name__}: {error}"
    return None


def _instructions(row: Mapping[str, Any], settings: InstructionsSettings) -> list[tuple[str, dict[str, Any]]]:
    """In a table every row has all arguments there are, most of them null."""
    return [
        (name, {key: value for key, value in (given or {}).items() if value is not None})
        for name, given in zip(row[settings.names], row[settings.arguments], strict=True)
    ]


def reference(value: Any, _settings: InstructionsSettings, _choices: Sequence[str]) -> Any:
    raise ValueError(f"is {short(value)}, and what is checked by instructions needs no references: leave it out")


KIND = ReaderKind(
    InstructionsSettings, lambda _text, _settings, _choices: None, lambda _: "number", reference, read, problem
)
