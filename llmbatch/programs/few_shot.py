"""One request a row, with worked examples before its prompt; the row's value is that of ``single``.

program: {name: few_shot, settings: {shots: examples}}       # examples: [{row: {text: two}, answer: deux}, ...]
"""

from __future__ import annotations

from llmbatch.core.types import Failure
from llmbatch.programs.base import Incomplete, Program, ProgramKind, RowAsk
from llmbatch.programs.shots import ShotSettings, asked


def few_shot(row: RowAsk) -> Program:
    ask = asked(row, row.settings)
    del row  # its fields may be large, and from here on its prompt is enough
    answer = yield ask
    if isinstance(ask, Failure) or ask.samples == 1:
        return Incomplete() if answer is None else answer.value
    values = [None if sample is None else sample.value for sample in answer]
    return Incomplete(values) if None in answer else values


KIND = ProgramKind(few_shot, ShotSettings, keeps_row=False, first=lambda row: asked(row, row.settings))
