"""A job in; out what its rows go through before and after the engine: rendering, the row's program, checks and retries.

All that can be wrong about prompt, answer and sampling is found here, before a model is loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmbatch.check.answer import check_from_mapping, make_check
from llmbatch.check.base import OutputSettings
from llmbatch.core.check import Check
from llmbatch.core.errors import JobError, SchemaError
from llmbatch.core.sampling import DEFAULT_MAX_TOKENS, sampling_problem
from llmbatch.core.types import Completion, Constraint, Failure, FailureKind, Request, Row, Sampling
from llmbatch.formats import FORMATS
from llmbatch.formats.base import Asked
from llmbatch.job.job import Job
from llmbatch.programs.base import Ask, make_program
from llmbatch.programs.retry import next_request
from llmbatch.programs.work import Rules, Work
from llmbatch.prompt.base import Rendered, RowPrompt
from llmbatch.prompt.requests import RequestsPrompt
from llmbatch.prompt.template import load_prompt
from llmbatch.sources.opening import guess_format

_DISTINCT_REQUESTS = 4096


class Recipe:
    """The stages of one job. Raises ``UsageError`` for whatever is wrong with them."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._template = prompt_of(job)
        self.prompt_name = self._template.name
        self._answer = job.answer or OutputSettings()
        self._check = check_of(job, self._template)
        self._defaults = {"max_tokens": DEFAULT_MAX_TOKENS, **self._template.sampling}
        self._settings = _sampling(self._defaults, job.sampling)
        if self._check.constraint is not None and getattr(self._template, "prefill", None):
            raise JobError(
                "a prefilled answer cannot be combined with constrained decoding: set answer.constrained to false"
            )
        self._variants: dict[str, tuple[Sampling, int]] = {}
        self._base = self._variant({})
        self._rules = Rules(self._check, self._next_request)
        self._shape = make_program("single")
        self.context_length: Callable[[], int | None] = lambda: None  # known once the engine is up

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """What the engine holds the answers to, where a row does not say otherwise itself."""
        return () if self._check.constraint is None else (self._check.constraint,)

    def identity(self) -> dict[str, str]:
        """What the results depend on besides the job's own keys: the prompt's text, and sampling as it is after all defaults."""
        text = hashlib.sha256(self._template.text.encode()).hexdigest()[:16]
        return {
            "prompt (text)": text,
            **{
                f"sampling.{k}": json.dumps(v, ensure_ascii=False, default=str)
                for k, v in sorted(self._settings.items())
            },
        }

    def render(self, row: Row) -> Rendered | Failure:
        """The row's prompt, or why there is none."""
        rendered = self._template.render(row)
        if isinstance(rendered, Rendered) and rendered.output is not None:
            try:
                check_from_mapping(rendered.output, self._answer)
            except SchemaError as error:
                return Failure(FailureKind.PROMPT, f"row {row.id!r}: {error}")
        return rendered

    def begin(self, row: Row, rendered: Rendered) -> Work:
        """The work of a row whose prompt is rendered."""
        sampling, samples = self._variant(rendered.sampling) if rendered.sampling else self._base
        check: Check | None = None
        constraint = self._check.constraint
        if rendered.output is not None:
            check = check_from_mapping(rendered.output, self._answer)
            constraint = check.constraint
        ask = Ask(rendered.prompt, sampling, constraint, lora=rendered.lora, samples=samples, check=check)
        return Work(row, self._shape(ask), self._rules)

    def asked(self, row: Row) -> Asked:
        """How a row was asked, as its prompt says; of one that has no prompt nothing is known."""
        rendered = self._template.render(row)
        if isinstance(rendered, Failure):
            return Asked()
        _, samples = self._variant(rendered.sampling) if rendered.sampling else self._base
        return Asked(rendered.prompt.messages is not None, samples)

    def keep(self, row: Row) -> Mapping[str, Any] | None:
        """The input fields that the record carries."""
        keep = self._job.sinks.keep
        if not keep or not row.data:
            return None
        if keep == "all":
            return row.data
        return {name: row.data[name] for name in keep if name in row.data}

    def _variant(self, asked: Mapping[str, Any]) -> tuple[Sampling, int]:
        """(sampling, number of samples) for what one row asks for; equal settings are one object."""
        key = json.dumps(asked, sort_keys=True, default=str) if asked else ""
        if key not in self._variants:
            if len(self._variants) >= _DISTINCT_REQUESTS:
                self._variants.clear()
            settings = _sampling({**self._defaults, **asked}, self._job.sampling)
            samples = int(settings.pop("n", 1) or 1)
            self._variants[key] = Sampling(tuple(sorted((k, _frozen(v)) for k, v in settings.items()))), samples
        return self._variants[key]

    def _next_request(
        self, request: Request, failure: Failure, completion: Completion | None, earlier: Sequence[FailureKind]
    ) -> Request | None:
        if not failure.kind.retryable:
            return None
        context = self.context_length()
        if context is None:  # refused before the engine was up: nothing about it can be changed
            return None
        return next_request(request, failure, completion, earlier, settings=self._job.retry, context_length=context)


def prompt_of(job: Job) -> RowPrompt:
    """What makes prompts of the job's rows. Raises ``JobError`` where there is nothing."""
    if job.prompt is not None:
        return load_prompt(job.prompt)
    if (format_ := job.input.format or guess_format(job.input.path)) in FORMATS:
        return RequestsPrompt(job.engine.lora, format_)
    raise JobError(
        "prompt is missing: give --prompt, a file, a shipped prompt (see llmbatch prompts) or the text itself"
    )


def check_of(job: Job, prompt: RowPrompt) -> Check:
    """What the job asks of an answer, or else its prompt."""
    answer = job.answer or OutputSettings()
    if prompt.output is None or answer.kind != "text":
        return make_check(answer)
    return make_check(
        OutputSettings.model_validate({**answer.model_dump(exclude_defaults=True, by_alias=True), **prompt.output})
    )


def _sampling(defaults: Mapping[str, Any], job: Mapping[str, Any]) -> dict[str, Any]:
    settings = {k: v for k, v in {**defaults, **job}.items() if v is not None}
    for name, value in settings.items():
        if problem := sampling_problem(name, value):
            raise JobError(f"sampling.{name} {problem}")
    return settings


def _frozen(value: Any) -> Any:
    """Sampling values are compared and hashed: lists become tuples, mappings sorted pairs."""
    if isinstance(value, list):
        return tuple(map(_frozen, value))
    if isinstance(value, dict):
        return tuple(sorted((k, _frozen(v)) for k, v in value.items()))
    return value


__all__ = ["Recipe", "check_of", "prompt_of"]
