"""One request a row: its checked value; of several samples, or prompts, the list of their values, with None for each that failed.

Where these did not all end for the same reason, the record's details say how each did (``finish_reasons``).
"""

from __future__ import annotations

from llmbatch.core.types import Failure
from llmbatch.programs.base import Complete, Incomplete, Program, ProgramKind, RowAsk


def single(row: RowAsk) -> Program:
    ask = row.ask()
    del row  # its fields may be large, and from here on its prompt is enough
    answer = yield ask
    if isinstance(ask, Failure) or (ask.samples == 1 and not ask.more):
        return Incomplete() if answer is None else answer.value
    values = [None if sample is None else sample.value for sample in answer]
    reasons = [None if sample is None else sample.completion.finish_reason for sample in answer]
    details = {"finish_reasons": reasons} if len({*reasons} - {None}) > 1 else None
    if None in answer:
        return Incomplete(values, details=details)
    return values if details is None else Complete(values, details)


KIND = ProgramKind(single, keeps_row=False, several=True)
