"""One request a row: its checked value; of several samples the list of their values, with None for each that failed."""

from __future__ import annotations

from llmbatch.core.types import Failure
from llmbatch.programs.base import Incomplete, Program, ProgramKind, RowAsk


def single(row: RowAsk) -> Program:
    ask = row.ask()
    del row  # its fields may be large, and from here on its prompt is enough
    answer = yield ask
    if isinstance(ask, Failure) or ask.samples == 1:
        return Incomplete() if answer is None else answer.value
    values = [None if sample is None else sample.value for sample in answer]
    return Incomplete(values) if None in answer else values


KIND = ProgramKind(single, keeps_row=False)
