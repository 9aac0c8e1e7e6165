"""One prompt of a job in; what its rows are asked with it, out: rendered, with sampling, adapter and the check of the answers.

All that can be wrong about it is found when it is made, before a model is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from llmbatch.check.answer import make_check, with_content
from llmbatch.check.base import OutputSettings
from llmbatch.check.code import author_code
from llmbatch.core.check import Check
from llmbatch.core.digest import short_digest
from llmbatch.core.errors import JobError, SchemaError
from llmbatch.core.sampling import DEFAULT_MAX_TOKENS, LOOPS, NO_SEED, SAMPLING, frozen, sampling_problem
from llmbatch.core.types import Constraint, Failure, FailureKind, Rendered, Row, Sampling
from llmbatch.core.words import first_few, short
from llmbatch.engines.kinds import kind_of
from llmbatch.job.image_places import ImagePlaces
from llmbatch.job.job import Job
from llmbatch.job.overflow import Origin, keeps_origin
from llmbatch.programs.base import Ask, Need, PromptFacts
from llmbatch.programs.numbers import pooling_of
from llmbatch.prompt.base import RowPrompt
from llmbatch.prompt.requests import RequestsPrompt

_DISTINCT_REQUESTS = 4096
_THINKING = "thinking_token_budget"
_FIELDS_SHOWN = 8


class Step:
    """One prompt of a job, with the check of its answers, its sampling and adapter.

    ``output`` is what an answer must be. ``sampling`` goes before the prompt's.
    """

    def __init__(
        self,
        template: RowPrompt,
        output: OutputSettings,
        job: Job,
        sampling: Mapping[str, Any],
        *,
        lora: str | None = None,
    ) -> None:
        self.template = template
        self.output = output
        self._lora = lora
        self._places = ImagePlaces(job.input, job.output, job.engine.images.allow)
        if template.takes_images and not kind_of(job.engine.name).images(job.engine, job.model_path):
            raise JobError(
                f"the prompt {template.name} has images, and the model {job.model} on the engine {job.engine.name} takes text "
                "alone: give a model that sees, or a prompt without images"
            )
        self.check = make_check(output)
        if self.check.constraint is not None and getattr(template, "prefill", None):
            raise JobError(
                "a prefilled answer cannot be combined with constrained decoding: set answer.constrained to false"
            )
        self._overrides, self._of_fields = _by_field({**job.sampling, **sampling})
        if output.thinking_budget is not None:
            self._overrides[_THINKING] = output.thinking_budget
        self._defaults = {"max_tokens": DEFAULT_MAX_TOKENS, **template.sampling}
        self.settings = self._settings({})
        if problem := _thinking_problem(self.settings, job):
            raise JobError(problem)
        self._no_tools = partial(kind_of(job.engine.name).tools, job.engine)
        self._keeps_origin = keeps_origin(job.plan)
        self._max_samples = job.plan.max_samples
        if problem := self._too_many(self.settings):
            raise JobError(f"sampling.n {problem}")
        least, most = self.settings.get("min_tokens") or 0, self.settings.get("max_tokens")
        if most is not None and least > most:
            raise JobError(f"sampling.min_tokens is {least:,}, above sampling.max_tokens, which is {most:,}")
        self._held_to = _as_output(self.check.constraint)
        self._variants: dict[Any, tuple[Sampling, int]] = {}
        self._base = self._variant({})

    @property
    def gives_text(self) -> bool:
        """Whether its answers are any text, unless a row says otherwise."""
        return self.output.kind == "text"

    @property
    def checks_answers(self) -> bool:
        """Whether an answer must be something, whatever a row says, or is held to a rule."""
        return not self.gives_text or any(self.output.rules())

    def identity(self) -> dict[str, str]:
        """What the answers depend on besides the row: as ``Recipe.identity``, by what comes behind the step's name."""
        asked = with_content(self.output).model_dump(mode="json", by_alias=True, exclude_defaults=True)
        found = {
            " (text)": short_digest(self.template.text),
            ".answer": json.dumps(asked, sort_keys=True),
            ".lora": self._lora or "",
        }
        found |= {f".{key}": digest for key, digest in author_code(self.output).items()}
        found |= {f".sampling.{key}": json.dumps(value, default=str) for key, value in sorted(self.settings.items())}
        return found

    def facts(self) -> PromptFacts:
        """What is known of the prompt before there is a row."""
        template = self.template
        needs: dict[str, Need] = {}
        for variable in template.row_variables:
            parts = frozenset(key for name, key in template.parts if name == variable.name)
            needs[variable.field] = Need(variable.type, variable.required, parts)
        return PromptFacts(needs, self._answer_schema(), self.settings)

    def _answer_schema(self) -> Mapping[str, Any] | None:
        """The JSON Schema of the answers, an empty one where it is not known, None where they are text."""
        if isinstance(self.template, RequestsPrompt):
            return {}
        schema = with_content(self.output).json_schema
        if schema is None or isinstance(schema, dict):
            return schema
        constraint = self.check.constraint
        return json.loads(constraint.spec) if constraint is not None and constraint.kind == "json" else {}

    def render(self, row: Row) -> Rendered | Failure:
        """The row's prompt, or why there is none."""
        rendered = self.template.render(row)
        if self._of_fields and not isinstance(rendered, Failure):
            rendered = self._with_fields(rendered, row)
        if isinstance(rendered, Failure):
            return rendered
        if rendered.prompt.images:
            prompt = self._places.located(rendered.prompt, row, ready_made=self.template.ready_made)
            if isinstance(prompt, Failure):
                return prompt
            rendered = replace(rendered, prompt=prompt)
        if (offered := rendered.prompt.tools) is not None and (problem := self._no_tools(offered)):
            return Failure(FailureKind.PROMPT, f"row {short(row.id)}: {problem}")
        if "n" in rendered.sampling and (problem := self._too_many(self._merged(rendered.sampling))):
            return Failure(FailureKind.PROMPT, f"row {short(row.id)}: n {problem}")
        if rendered.output is not None:
            try:
                self.check.for_request(rendered.output)
            except SchemaError as error:
                return Failure(FailureKind.PROMPT, f"row {row.id!r}: {error}")
        if self.check.names and (problem := self.check.misfit(self._named(row))):
            return Failure(FailureKind.PROMPT, f"row {short(row.id)}: {problem}; {_fields_of(row)}")
        return rendered

    def ask(self, row: Row) -> Ask | Failure:
        """What to ask for the row, or why nothing can be asked."""
        rendered = self.render(row)
        if isinstance(rendered, Failure):
            return rendered
        asked, seed = rendered.sampling, None
        if "seed" in self._of_fields and asked["seed"] != NO_SEED:  # not one setting more for every row
            asked = {**asked}
            seed = asked.pop("seed")
        sampling, samples = self._variant(asked) if asked else self._base
        ours = self.check if rendered.output is None else self.check.for_request(rendered.output)
        check: Check = ours.of(self._named(row)) if ours.names else ours
        lora = self._lora or rendered.lora
        origin = Origin(self, row, check) if self._keeps_origin else None
        prompt, vector = rendered.prompt, rendered.dimensions
        return Ask(
            prompt,
            sampling,
            ours.constraint,
            seed,
            lora=lora,
            token_ids=prompt.ids,
            samples=samples,
            check=check,
            origin=origin,
            pooling=None if vector is None else pooling_of("embed", vector),
            more=rendered.more,
        )

    def answers(self, rendered: Rendered) -> int:
        """How many answers are asked for with a row's prompt, or its prompts."""
        samples = self._merged(rendered.sampling).get("n") or 1
        return int(samples) * (1 + len(rendered.more))

    def size(self, row: Row) -> int:
        """About how many characters of a row its check holds on to, where it does."""
        own = set(map(id, row.data.values()))  # what all rows share is there once
        return sum(size_of(value) for value in self._named(row).values() if id(value) in own)

    def _named(self, row: Row) -> dict[str, Any]:
        """What the rules hold the row's answers against, by the names that they have for it."""
        return {name: self.template.value(name, row) for name in self.check.names}

    def settled(self, row: Row) -> Rendered | Failure:
        rendered = self.render(row)
        if isinstance(rendered, Failure):
            return rendered
        asked = rendered.sampling
        sampling = self._settings(asked) if asked else self.settings
        return replace(rendered, sampling=sampling, output=rendered.output or self._held_to)

    def _with_fields(self, rendered: Rendered, row: Row) -> Rendered | Failure:
        """The prompt with the sampling that the row's fields say."""
        values = {}
        for name, field in self._of_fields.items():
            value = row.data.get(field)
            if (problem := sampling_problem(name, value)) is not None:
                said = problem if field in row.data else "is a field that the row does not have"
                return Failure(FailureKind.PROMPT, f"row {short(row.id)}: sampling.{name}, its field {field!r}, {said}")
            values[name] = value
        return replace(rendered, sampling={**rendered.sampling, **values})

    def _merged(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The sampling of a row that asks for this: the job's own goes before it, and the prompt's behind it."""
        return {**self._defaults, **asked, **self._overrides}

    def _settings(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The same without what is null. Raises ``JobError`` for a setting that is wrong."""
        settings = {name: value for name, value in self._merged(asked).items() if value is not None}
        for name, value in settings.items():
            if problem := sampling_problem(name, value):
                raise JobError(f"sampling.{name} {problem}")
        return settings

    def _too_many(self, sampling: Mapping[str, Any]) -> str | None:
        """What is wrong with the number of samples: each is a request, and all of a row's are in memory at a time."""
        count = sampling.get("n") or 1
        if count <= self._max_samples:
            return None
        return (
            f"is {count:,}, and a row may have {self._max_samples:,} answers: raise plan.max_samples if that is meant"
        )

    def _variant(self, asked: Mapping[str, Any]) -> tuple[Sampling, int]:
        """(sampling, number of samples) for what one row asks for; equal settings are one object."""
        key: Any = tuple(asked.items())
        try:
            known = self._variants.get(key)
        except TypeError:  # a list, or a mapping, is among the values
            key = json.dumps(asked, sort_keys=True, default=str)
            known = self._variants.get(key)
        if known is None:
            if len(self._variants) >= _DISTINCT_REQUESTS:
                self._variants.clear()
            settings = self._settings(asked)
            samples = int(settings.pop("n", 1) or 1)
            if self.output.repetition is not None:
                settings[LOOPS] = self.output.repetition.loops
            known = Sampling(tuple(sorted((k, frozen(v)) for k, v in settings.items()))), samples
            self._variants[key] = known
        return known


def size_of(value: Any) -> int:
    """About how many characters a value of a row has as JSON: what it takes in memory, not to the byte."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(size_of(item) for item in value.values())
    if isinstance(value, list | tuple):
        return sum(map(size_of, value))
    return 0 if value is None else 8


def _thinking_problem(settings: Mapping[str, Any], job: Job) -> str | None:
    """What is wrong with a limit on the thinking before the answer; None where nothing is, or there is none."""
    budget, most = settings.get(_THINKING), settings.get("max_tokens")
    if budget is None or budget < 0:
        return None
    if most is not None and budget >= most:
        return (
            f"a thinking budget of {budget:,} tokens leaves no room for an answer: sampling.max_tokens is {most:,}, for both; "
            "raise that, or lower the budget"
        )
    if not kind_of(job.engine.name).tells_thinking(job.engine):
        return "a thinking budget needs engine.reasoning_parser, which tells the thinking from the answer"
    return None


def _fields_of(row: Row) -> str:
    return f"the row's fields are {first_few(row.data, _FIELDS_SHOWN, short)}" if row.data else "it has no fields"


def _by_field(sampling: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """(sampling that is the same for all rows, by setting the field of the row that says it: ``{"field": NAME}``)."""
    fields = {}
    for name, value in sampling.items():
        if isinstance(value, Mapping) and value.keys() == {"field"}:
            if name not in SAMPLING:
                raise JobError(f"sampling.{name} {sampling_problem(name, value)}")
            fields[name] = str(value["field"])
    return {name: value for name, value in sampling.items() if name not in fields}, fields


def _as_output(constraint: Constraint | None) -> Mapping[str, Any] | None:
    """What decoding is held to, as a prompt or a row asks for it."""
    if constraint is None:
        return None
    if constraint.kind == "json":
        return {"schema": json.loads(constraint.spec)}
    return {constraint.kind: json.loads(constraint.spec) if constraint.kind == "choice" else constraint.spec}


__all__ = ["Step", "size_of"]
