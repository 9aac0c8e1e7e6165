"""One request a row: its checked value; of several samples the list of their values, with None for each that failed."""

from __future__ import annotations

from llmbatch.programs.base import Ask, Incomplete, Program


def single(ask: Ask) -> Program:
    answer = yield ask
    if ask.samples == 1:
        return Incomplete() if answer is None else answer.value
    values = [None if sample is None else sample.value for sample in answer]
    return Incomplete(values) if None in answer else values
