"""A job in; the recipe by which its rows become requests, and their answers records, out: prompts, program, checks, retries.

All that can be wrong about prompt, answer and sampling is found here, before a model is loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llmbatch.accept.base import AcceptSettings, details_of_fall
from llmbatch.accept.conditions import Conditions
from llmbatch.check.answer import make_check, with_content
from llmbatch.check.base import KIND_KEYS, OutputSettings
from llmbatch.check.code import author_code
from llmbatch.core.check import Check
from llmbatch.core.errors import JobError, RunError, SchemaError
from llmbatch.core.imports import is_import_path, load_object, source_of
from llmbatch.core.minhash import sketcher
from llmbatch.core.sampling import DEFAULT_MAX_TOKENS, LOOPS, SAMPLING, sampling_problem
from llmbatch.core.settings import is_there
from llmbatch.core.types import Completion, Constraint, Failure, FailureKind, Rendered, Request, Row, Sampling
from llmbatch.core.words import short
from llmbatch.engines.base import kind_of
from llmbatch.formats import FORMATS
from llmbatch.formats.base import Asked
from llmbatch.job.file import resolve_paths
from llmbatch.job.job import Job, ProgramSettings, StepSettings
from llmbatch.job.lengths import Lengths
from llmbatch.job.problems import explain
from llmbatch.programs.base import Ask, Complete, Incomplete, Need, Program, PromptFacts, make_program
from llmbatch.programs.noted import noted
from llmbatch.programs.retry import next_request
from llmbatch.programs.work import Rules, Work
from llmbatch.prompt.base import RowPrompt
from llmbatch.prompt.library import load_file
from llmbatch.prompt.requests import RequestsPrompt
from llmbatch.prompt.template import bind, load_prompt
from llmbatch.sources.opening import guess_format

_DISTINCT_REQUESTS = 4096
_THINKING = "thinking_token_budget"
_FIELDS_SHOWN = 8
PROMPT_TEXT = "prompt (text)"
"""The key in an identity of what rows are asked with first."""
_NO_DATA: Mapping[str, Any] = {}


class Recipe:
    """How the rows of one job become requests, and their answers records. Raises ``UsageError`` for whatever is wrong with it."""

    def __init__(self, job: Job, *, lora: str | None = None, own_check: bool = False) -> None:
        """``lora`` is the adapter of the first prompt; with ``own_check`` what is asked with it says itself how it is judged."""
        self._job = job
        template = prompt_of(job)
        self.prompt_name = template.name
        self.program = program_of(job, template)
        self._steps = {"main": _Step(template, output_of(job, template), job, {}, own_check=own_check, lora=lora)}
        for name, step in self.program.prompts.items():
            self._steps[name] = _further_step(job, name, step)
        self._main = self._steps["main"]
        facts = {name: step.facts() for name, step in self._steps.items()}
        self._kind, self._settings, self._source = make_program(self.program.name, self.program.settings, facts)
        self._conditions = Conditions((job.accept or AcceptSettings()).when)
        if job.accept is not None and job.accept.unique is not None:
            sketcher()  # the library that it needs is there
        # a predicate is given the row
        self._keeps_rows = (
            self._kind.keeps_row
            or self._conditions.needs_row
            or any(map(is_import_path, (job.answer or OutputSettings()).reject))
        )
        self.requests_a_row = max(1, self._kind.requests(self._settings))  # about, at a time
        self.later = self._kind.later(self._settings)  # what rows are asked after their first requests, in words
        self.sinks = self._kind.sinks

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """What the engine holds the answers to, where a row does not say otherwise itself."""
        found = (step.check.constraint for step in self._steps.values())
        return tuple(constraint for constraint in found if constraint is not None)

    def identity(self) -> dict[str, str]:
        """What the results depend on besides the job's own keys: the prompts' texts, sampling with defaults, the author's code."""
        found = {PROMPT_TEXT: _digest(self._main.template.text)}
        found |= author_code(self._main.output)
        if self._main.output.glossary is not None and (self._job.answer is None or self._job.answer.glossary is None):
            terms = with_content(self._main.output).model_dump_json(include={"glossary"})
            found["prompt.output.glossary (content)"] = _digest(terms)
        found |= self._conditions.identity()
        if self._source is not None:
            found["program.name (source)"] = _digest(self._source)
        for path in self._kind.code(self._settings):
            found[f"program.settings ({path})"] = _digest(source_of(load_object(path), path.partition(":")[0]))
        for name, step in self._steps.items():
            if name != "main":
                found |= {f"program.prompts.{name}{key}": value for key, value in step.identity().items()}
        for key, value in sorted(self._main.settings.items()):
            found[f"sampling.{key}"] = json.dumps(value, ensure_ascii=False, default=str)
        return found

    def render(self, row: Row) -> Rendered | Failure:
        """The prompt that a row is first asked with, or why there is none."""
        rendered = self._main.render(row)
        if self._kind.first is None or isinstance(rendered, Failure):
            return rendered
        # without a tokenizer nothing is left out for want of room
        ask = self._kind.first(_RowAsk(row, self._steps, self._settings, Lengths(lambda _: None, None)))
        return ask if isinstance(ask, Failure) else replace(rendered, prompt=ask.prompt)

    def asked(self, row: Row) -> Asked:
        """How a row was asked; nothing is known of one without a prompt. All programs but ``single`` make one value of answers."""
        asked = self._main.ask(row) if row.failure is None else row.failure
        if isinstance(asked, Failure):
            return Asked()
        return Asked(asked.prompt.messages is not None, asked.samples if self.program.name == "single" else 1)

    def settled(self, row: Row) -> Rendered | Failure:
        """As ``render``, with all that is asked with the prompt: sampling after all defaults, and what the answer is held to."""
        return self._main.settled(row)

    def rules(self, context_length: Callable[[], int | None] | None) -> Rules:
        """How answers are judged and tried again. ``context_length`` is asked once one came; None where none ever will."""

        def following(
            request: Request, failure: Failure, completion: Completion | None, earlier: Sequence[FailureKind]
        ) -> Request | None:
            if not failure.kind.retryable or context_length is None:
                return None
            retry = self._job.retry
            return next_request(request, failure, completion, earlier, settings=retry, context_length=context_length())

        return Rules(self._main.check, following)

    def begin(self, row: Row, rules: Rules, lengths: Lengths, details: Mapping[str, Any] | None = None) -> Work:
        """The work of a row; one that could not be read has its record already. ``lengths`` measures for its program.

        ``details`` are said in the record besides what the program says.
        """
        if row.failure is not None:
            return Work.failed(row, row.failure, rules, details)
        program = self._kind.shape(_RowAsk(row, self._steps, self._settings, lengths))
        if not isinstance(program, Generator):
            raise RunError(
                f"row {row.id!r}: the program {self.program.name} returned {short(program)}: it is to be a generator function, "
                "which yields what it asks"
            )
        if self._conditions:
            program = self._judged(program, row)
        if details is not None:
            said = details
            program = noted(program, lambda _: said)
        held = row if self._keeps_rows else Row(row.index, row.id, _NO_DATA, row.cursor)
        return Work(held, program, rules, self._fields_kept(row))

    def size(self, row: Row, work: Work) -> int:
        """About how many characters a row's work holds on to, besides its requests."""
        if self._keeps_rows:
            return size_of(row.data)
        return self._main.size(row) + (0 if work.kept is None else size_of(work.kept))

    def _judged(self, program: Program, row: Row) -> Program:
        """The program, whose record says which condition the row does not meet."""
        conditions, row_id = self._conditions, row.id
        data = row.data if conditions.needs_row else _NO_DATA

        def note(done: Complete | Incomplete) -> Mapping[str, Any]:
            if isinstance(done, Incomplete):  # not ok, and that is reason enough
                return _NO_DATA
            fell = conditions.judge(row_id, data, done.output, done.details)
            return _NO_DATA if fell is None else details_of_fall(fell)

        return noted(program, note)

    def _fields_kept(self, row: Row) -> Mapping[str, Any] | None:
        """The input fields that the record carries."""
        keep = self._job.sinks.keep
        if not keep or not row.data:
            return None
        if keep == "all":
            return row.data
        return {name: row.data[name] for name in keep if name in row.data}


class _RowAsk:
    """Implements ``llmbatch.programs.base.RowAsk``."""

    __slots__ = ("_lengths", "_steps", "row", "settings")

    def __init__(self, row: Row, steps: Mapping[str, _Step], settings: Any, lengths: Lengths) -> None:
        self.row = row
        self.settings = settings
        self._steps = steps
        self._lengths = lengths

    def ask(self, prompt: str = "main", /, **extra: Any) -> Ask | Failure:
        try:
            step = self._steps[prompt]
        except KeyError:
            raise JobError(
                f"the program asks with a prompt {prompt!r}, and the job has {', '.join(self._steps)}: "
                "name it under program.prompts"
            ) from None
        row = self.row
        return step.ask(Row(row.index, row.id, {**row.data, **extra}, row.cursor) if extra else row)

    @property
    def context_length(self) -> int | None:
        return self._lengths.context_length

    def tokens(self, texts: Sequence[str]) -> list[int]:
        return self._lengths.tokens(texts)

    def ids(self, texts: Sequence[str]) -> list[Sequence[int] | Failure] | None:
        return self._lengths.ids(texts)

    def room(self, ask: Ask) -> int | None:
        return self._lengths.room(ask)


class _Step:
    """One prompt of a job, with the check of its answers, its sampling and adapter.

    ``output`` is what an answer must be; ``own_check``: that is not what the job's other answers must be. ``sampling`` goes before
    the prompt's.
    """

    def __init__(
        self,
        template: RowPrompt,
        output: OutputSettings,
        job: Job,
        sampling: Mapping[str, Any],
        *,
        own_check: bool = True,
        lora: str | None = None,
    ) -> None:
        self.template = template
        self.output = output
        self._own_check = own_check
        self._lora = lora
        self.check = make_check(output)
        if self.check.constraint is not None and getattr(template, "prefill", None):
            raise JobError(
                "a prefilled answer cannot be combined with constrained decoding: set answer.constrained to false"
            )
        self._overrides, self._of_fields = _by_field({**job.sampling, **sampling})
        if output.thinking_budget is not None:
            self._overrides[_THINKING] = output.thinking_budget
        self._defaults = {"max_tokens": DEFAULT_MAX_TOKENS, **template.sampling}
        self.settings = _sampling(self._defaults, self._overrides)
        if problem := _thinking_problem(self.settings, job):
            raise JobError(problem)
        self._max_samples = job.plan.max_samples
        if problem := self._too_many(self.settings):
            raise JobError(f"sampling.n {problem}")
        least, most = self.settings.get("min_tokens") or 0, self.settings.get("max_tokens")
        if most is not None and least > most:
            raise JobError(f"sampling.min_tokens is {least:,}, above sampling.max_tokens, which is {most:,}")
        self._held_to = _as_output(self.check.constraint)
        self._variants: dict[str, tuple[Sampling, int]] = {}
        self._base = self._variant({})

    def identity(self) -> dict[str, str]:
        """What the answers depend on besides the row: as ``Recipe.identity``, by what comes behind the step's name."""
        asked = with_content(self.output).model_dump(mode="json", by_alias=True, exclude_defaults=True)
        found = {
            " (text)": _digest(self.template.text),
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
        if rendered.sampling and (problem := self._too_many({**rendered.sampling, **self._overrides})):
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
        if "seed" in self._of_fields:  # not one setting more for every row
            asked = {**asked}
            seed = asked.pop("seed")
        sampling, samples = self._variant(asked) if asked else self._base
        ours = self.check if rendered.output is None else self.check.for_request(rendered.output)
        check: Check | None = ours if self._own_check or ours is not self.check else None
        if ours.names:
            check = ours.of(self._named(row))
        lora = self._lora or rendered.lora
        return Ask(rendered.prompt, sampling, ours.constraint, seed, lora=lora, samples=samples, check=check)

    def size(self, row: Row) -> int:
        """About how many characters of a row its check holds on to."""
        if not self.check.names:
            return 0
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
        sampling = _sampling({**self._defaults, **asked}, self._overrides) if asked else self.settings
        return Rendered(rendered.prompt, sampling, rendered.output or self._held_to, rendered.lora)

    def _with_fields(self, rendered: Rendered, row: Row) -> Rendered | Failure:
        """The prompt with the sampling that the row's fields say."""
        values = {}
        for name, field in self._of_fields.items():
            value = row.data.get(field)
            if (problem := sampling_problem(name, value)) is not None:
                said = problem if field in row.data else "is a field that the row does not have"
                return Failure(FailureKind.PROMPT, f"row {short(row.id)}: sampling.{name}, its field {field!r}, {said}")
            values[name] = value
        return Rendered(rendered.prompt, {**rendered.sampling, **values}, rendered.output, rendered.lora)

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
        key = json.dumps(asked, sort_keys=True, default=str) if asked else ""
        known = self._variants.get(key)
        if known is None:
            if len(self._variants) >= _DISTINCT_REQUESTS:
                self._variants.clear()
            settings = _sampling({**self._defaults, **asked}, self._overrides)
            samples = int(settings.pop("n", 1) or 1)
            if self.output.repetition is not None:
                settings[LOOPS] = self.output.repetition.loops
            known = Sampling(tuple(sorted((k, _frozen(v)) for k, v in settings.items()))), samples
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


def prompt_of(job: Job) -> RowPrompt:
    """What makes prompts of the job's rows. Raises ``JobError`` where there is nothing."""
    if job.prompt is not None:
        return load_prompt(job.prompt)
    if (format_ := job.input.format or guess_format(job.input.path, job.input.storage_options)) in FORMATS:
        return RequestsPrompt(job.engine.lora, format_)
    raise JobError(
        "prompt is missing: give --prompt, a file, a shipped prompt (see llmbatch prompts) or the text itself"
    )


def program_of(job: Job, prompt: RowPrompt) -> ProgramSettings:
    """The job's program, or else the one that its prompt file asks for, whose paths are relative to that file."""
    if job.program != ProgramSettings() or prompt.program is None or job.prompt is None:
        return job.program
    try:
        given = resolve_paths({"program": prompt.program}, _folder_of(job.prompt.path), Job)
        return ProgramSettings.model_validate(given["program"])
    except ValidationError as error:
        said = "; ".join(explain(error, prompt.program, ProgramSettings))
        raise JobError(f"{prompt.name}: program: {said}") from None


def _further_step(job: Job, name: str, step: StepSettings) -> _Step:
    """A prompt of ``program.prompts``; of the job's variables and fields those count that it declares."""
    if step.lora is not None and step.lora not in job.engine.lora:
        known = ", ".join(job.engine.lora) or "none"
        raise JobError(f"program.prompts.{name}.lora: there is no adapter {step.lora!r}: engine.lora has {known}")
    loaded = load_file(step.path)
    settings = job.prompt
    known_variables = loaded.file.variables
    variables = {k: v for k, v in (settings.variables if settings else {}).items() if k in known_variables}
    fields = {k: v for k, v in (settings.fields if settings else {}).items() if k in known_variables}
    template = bind(loaded, {**variables, **step.variables}, {**fields, **step.fields})
    return _Step(template, _output(step.answer, template, step.path), job, step.sampling, lora=step.lora)


def check_of(job: Job, prompt: RowPrompt) -> Check:
    """What the job asks of an answer, or else its prompt."""
    return make_check(output_of(job, prompt))


def output_of(job: Job, prompt: RowPrompt) -> OutputSettings:
    """The settings of that check."""
    return _output(job.answer, prompt, "" if job.prompt is None else job.prompt.path)


def output_of_prompt(prompt: RowPrompt, path: str) -> OutputSettings:
    """What the prompt at this path asks of an answer by itself. Raises ``JobError`` for one that cannot be used."""
    return _output(None, prompt, path)


def _output(given: OutputSettings | None, prompt: RowPrompt, path: str) -> OutputSettings:
    """What is asked of an answer: by the job, and what that leaves open by its prompt, whose paths are relative to its file."""
    answer = given or OutputSettings()
    if prompt.output is None:
        return answer
    asked = resolve_paths({"answer": prompt.output}, _folder_of(path), Job)["answer"]
    if answer.kind != "text":
        asked = {key: value for key, value in asked.items() if key not in KIND_KEYS}
    try:
        return OutputSettings.model_validate({**asked, **answer.model_dump(exclude_defaults=True, by_alias=True)})
    except ValidationError as error:
        raise JobError(f"{prompt.name}: output: {'; '.join(explain(error, asked, OutputSettings))}") from None


def _folder_of(prompt: str) -> Path:
    """The folder that the paths in a prompt file are relative to."""
    return Path(prompt).parent if is_there(prompt) else Path()


def _sampling(defaults: Mapping[str, Any], job: Mapping[str, Any]) -> dict[str, Any]:
    settings = {k: v for k, v in {**defaults, **job}.items() if v is not None}
    for name, value in settings.items():
        if problem := sampling_problem(name, value):
            raise JobError(f"sampling.{name} {problem}")
    return settings


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
    names = ", ".join(short(name) for name in list(row.data)[:_FIELDS_SHOWN])
    return (
        f"the row's fields are {names}{', ...' if len(row.data) > _FIELDS_SHOWN else ''}"
        if names
        else "it has no fields"
    )


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


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _frozen(value: Any) -> Any:
    """Sampling values are compared and hashed: lists become tuples, mappings sorted pairs."""
    if isinstance(value, list):
        return tuple(map(_frozen, value))
    if isinstance(value, dict):
        return tuple(sorted((k, _frozen(v)) for k, v in value.items()))
    return value


__all__ = ["PROMPT_TEXT", "Recipe", "check_of", "prompt_of"]
