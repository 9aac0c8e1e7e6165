"""Programs that a model wrote and their tests in; the chance that one of k programs passes out.

Of n samples with c that pass it is 1 - C(n-c, k) / C(n, k), which unlike trying k of them is unbiased (Chen et al. 2021). The
programs run in processes of their own (``evals/sandbox.py``), and only where the user allows it.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from pydantic import Field, field_validator

from llmbatch.core.errors import PromptError
from llmbatch.core.sandbox import RenderError, Text, compile_text
from llmbatch.evals.base import Example, MetricKind, MetricSettings, Needs
from llmbatch.evals.sandbox import Allowance, run_python

_VARIABLES = {"answer": "string", "row": "any", "reference": "any"}


class PassAtKSettings(MetricSettings):
    k: int = Field(1, ge=1)
    program: str = Field(
        "{{ answer }}\n\n{{ reference }}\n",
        description="what is run, a template of answer, row and reference, which by default is the test",
    )
    seconds: int = Field(10, ge=1, le=600, description="of processor time that a program may take")
    memory_mb: int = Field(1024, ge=64)

    @field_validator("program")
    @classmethod
    def _compiles(cls, program: str) -> str:
        try:
            _compiled(program)
        except PromptError as error:
            raise ValueError(str(error)) from error
        return program


@cache
def _compiled(program: str) -> Text:
    return compile_text(program, _VARIABLES, "program", 1)


def program_of(example: Example, answer: object, settings: PassAtKSettings) -> str:
    """What is run for an answer. Raises ``RenderError``."""
    reference = example.references[0] if example.references else ""
    test = "\n".join(map(str, reference)) if isinstance(reference, list) else str(reference)
    return _compiled(settings.program).render({"answer": str(answer), "row": example.row, "reference": test})


def pass_at_k(example: Example, settings: PassAtKSettings) -> float:
    programs = [program_of(example, answer, settings) for answer in example.answers if answer is not None]
    if not programs:
        return 0.0
    limits = Allowance(settings.seconds, settings.memory_mb)
    with ThreadPoolExecutor(min(len(programs), os.cpu_count() or 1)) as pool:
        passed = sum(verdict.passed for verdict in pool.map(lambda program: run_python(program, limits), programs))
    return chance(len(example.answers), passed, settings.k)


def chance(samples: int, passed: int, k: int) -> float:
    """That at least one of k samples, drawn from all of them, is one that passed."""
    k = min(k, samples)
    return 1 - math.comb(samples - passed, k) / math.comb(samples, k)


def _doubt(example: Example, settings: PassAtKSettings) -> str | None:
    few = len(example.answers) < settings.k
    return (
        f"it has {len(example.answers)} samples, and k is {settings.k}; set the task's repeats to k or more"
        if few
        else None
    )


def _complaint(example: Example, settings: PassAtKSettings) -> str | None:
    try:
        program_of(example, "pass", settings)
    except RenderError as error:
        return f"its program cannot be written: {error}"
    return None


KIND = MetricKind(
    PassAtKSettings,
    pass_at_k,
    Needs(frozenset({"code", "text"}), references=False),
    complaint=_complaint,
    doubt=_doubt,
    runs_code=True,
)
