"""A job in; the recipe by which its rows become requests, and their answers records, out: prompts, program, checks, retries.

All that can be wrong about prompt, answer and sampling is found here, before a model is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from types import GeneratorType
from typing import Any, get_args

from llmbatch.accept.base import AcceptSettings, details_of_fall
from llmbatch.accept.conditions import Conditions
from llmbatch.check.answer import with_content
from llmbatch.check.base import OutputSettings
from llmbatch.check.code import author_code
from llmbatch.core.digest import short_digest
from llmbatch.core.errors import JobError, RunError
from llmbatch.core.imports import is_import_path, load_object, source_of
from llmbatch.core.minhash import sketcher
from llmbatch.core.types import Completion, Constraint, Failure, FailureKind, PoolingTask, Rendered, Request, Row
from llmbatch.core.words import short
from llmbatch.engines.base import EngineInfo
from llmbatch.engines.kinds import kind_of
from llmbatch.engines.settings import EngineSettings
from llmbatch.formats.base import Asked
from llmbatch.job.job import Job, StepSettings
from llmbatch.job.lengths import Lengths
from llmbatch.job.overflow import check_overflow, in_chunks, keeps_origin
from llmbatch.job.prompts import further_step, output_of, program_of, prompt_of
from llmbatch.job.step import Step, size_of
from llmbatch.programs.base import Ask, Complete, Incomplete, Program, PromptFacts, default_prompts, make_program
from llmbatch.programs.line import Rules
from llmbatch.programs.noted import noted
from llmbatch.programs.retry import next_request
from llmbatch.programs.work import Work

PROMPT_TEXT = "prompt (text)"
"""The key in an identity of what rows are asked with first."""
_NO_DATA: Mapping[str, Any] = {}


class Recipe:
    """How the rows of one job become requests, and their answers records. Raises ``UsageError`` for whatever is wrong with it."""

    def __init__(self, job: Job, *, lora: str | None = None) -> None:
        """``lora`` is the adapter of the first prompt."""
        self._job = job
        template = prompt_of(job)
        self.prompt_name = template.name
        self.program = program_of(job, template)
        self._steps = {"main": Step(template, output_of(job, template), job, {}, lora=lora)}
        defaults = {n: StepSettings(path=path) for n, path in default_prompts(self.program.name).items() if n != "main"}
        for name, step in {**defaults, **self.program.prompts}.items():
            self._steps[name] = further_step(job, name, step)
        self._main = self._steps["main"]
        facts = {name: step.facts() for name, step in self._steps.items()}
        self._kind, self._settings, self._source = make_program(self.program.name, self.program.settings, facts)
        check_overflow(job.plan, self.program.name, {name: step.template for name, step in self._steps.items()})
        self._in_chunks = in_chunks(job.plan) if job.plan.overflow == "chunk" else None
        self._conditions = Conditions((job.accept or AcceptSettings()).when)
        self._has_conditions = bool(self._conditions)
        if job.accept is not None and job.accept.unique is not None:
            sketcher()  # the library that it needs is there
        # a predicate is given the row
        self._keeps_rows = (
            self._kind.keeps_row
            or keeps_origin(job.plan)
            or self._conditions.needs_row
            or any(map(is_import_path, (job.answer or OutputSettings()).reject))
        )
        self.images = job.engine.images
        self.requests_a_row = max(1, self._kind.requests(self._settings))  # about, at a time
        self.later = self._kind.later(self._settings)  # what rows are asked after their first requests, in words
        self.sinks = self._kind.sinks
        self.pooling = self._kind.pooling(self._settings)  # which numbers the model is to give; None: answers
        self.gives_vectors = self._kind.gives_vectors
        if self.pooling is not None and kind_of(job.engine.name).pooled is None:
            raise JobError(
                f"the program {self.program.name} asks for numbers, and the {job.engine.name} engine gives text: take another "
                "engine, such as --engine vllm"
            )
        asked = [name for name, step in self._steps.items() if step.output != OutputSettings()]
        if self.pooling is not None and asked:
            where = "answer" if asked[0] == "main" else f"program.prompts.{asked[0]}.answer"
            raise JobError(
                f"{where}: the program {self.program.name} asks for numbers, for which no schema, choice or rule holds: leave it "
                "out, also of the prompt"
            )

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """What the engine holds the answers to, where a row does not say otherwise itself."""
        found = (step.check.constraint for step in self._steps.values())
        return tuple(constraint for constraint in found if constraint is not None)

    @cached_property
    def takes_images(self) -> bool:
        """Whether the engine gives the model images, and nothing tells that the model takes none."""
        return kind_of(self._job.engine.name).images(self._job.engine, self._job.model_path)

    def identity(self) -> dict[str, str]:
        """What the results depend on besides the job's own keys: the prompts' texts, sampling with defaults, the author's code."""
        found = {PROMPT_TEXT: short_digest(self._main.template.text)}
        found |= author_code(self._main.output)
        if self._main.output.glossary is not None and (self._job.answer is None or self._job.answer.glossary is None):
            terms = with_content(self._main.output).model_dump_json(include={"glossary"})
            found["prompt.output.glossary (content)"] = short_digest(terms)
        if self.pooling is not None:
            found["engine (gives)"] = json.dumps("numbers")  # it may come out otherwise than one that gives text
        found |= self._conditions.identity()
        if self._source is not None:
            found["program.name (source)"] = short_digest(self._source)
        for path in self._kind.code(self._settings):
            found[f"program.settings ({path})"] = short_digest(source_of(load_object(path), path.partition(":")[0]))
        for name, step in self._steps.items():
            if name != "main":
                found |= {f"program.prompts.{name}{key}": value for key, value in step.identity().items()}
        for key, value in sorted(self._main.settings.items()):
            found[f"sampling.{key}"] = json.dumps(value, ensure_ascii=False, default=str)
        return found

    @property
    def facts(self) -> PromptFacts:
        """What is known of the first prompt before there is a row."""
        return self._main.facts()

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
        rendered = self._main.render(row) if row.failure is None else row.failure
        if isinstance(rendered, Failure):
            return Asked()
        samples = self._main.answers(rendered) if self.program.name == "single" else 1
        return Asked(
            chat=rendered.prompt.messages is not None,
            samples=samples,
            vector=self.gives_vectors,
            own_check=rendered.output is not None,
            job_check=self._main.checks_answers,
        )

    def settled(self, row: Row) -> Rendered | Failure:
        """As ``render``, with all that is asked with the prompt: sampling after all defaults, and what the answer is held to."""
        settled = self._main.settled(row)
        if not self.gives_vectors or isinstance(settled, Failure):
            return settled
        return replace(settled, sampling=_NO_DATA, output=None, vector=True)

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
        asks = _RowAsk(row, self._steps, self._settings, lengths)
        program = self._kind.shape(asks) if self._in_chunks is None else self._in_chunks(asks, lengths)
        # the plain question is the quick one
        if type(program) is not GeneratorType and not isinstance(program, Generator):
            raise RunError(
                f"row {row.id!r}: the program {self.program.name} returned {short(program)}: it is to be a generator function, "
                "which yields what it asks"
            )
        if self._has_conditions:
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
        size = self._main.size(row) if self._main.check.names else 0
        return size if work.kept is None else size + size_of(work.kept)

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


def engine_of(job: Job, recipe: Recipe) -> EngineSettings:
    """The settings of the job's engine as its program needs it: for text, or for numbers.

    Raises ``JobError`` where the model is not of that kind, as far as its config is here and tells.
    """
    pooled = kind_of(job.engine.name).pooled
    return job.engine if pooled is None else pooled(job.engine, job.model_path, recipe.pooling)


def see_engine(info: EngineInfo, recipe: Recipe) -> None:
    """Look at an engine that is up. Raises ``JobError`` where its model cannot do what the program asks for."""
    pooling = recipe.pooling
    if pooling is None:
        return
    if pooling.task not in info.can:
        able = ", ".join(sorted(info.can & set(get_args(PoolingTask)))) or "none of embed, classify and pairs"
        raise JobError(
            f"the program {recipe.program.name} asks for {pooling.task}, and with the model {info.model!r} the {info.name} "
            f"engine can do {able}: take a model of that kind"
        )
    if pooling.activation is not None and "activation" not in info.can:
        name = "normalize" if pooling.task == "embed" else "activation"
        raise JobError(
            f"program.settings.{name}: the {info.name} engine cannot tell the model {info.model!r} what to do to its numbers at "
            "the end: leave it out, and they are as the model makes them. vLLM's server can be told: engine.dialect=vllm says "
            "that it is one"
        )


class _RowAsk:
    """Implements ``llmbatch.programs.base.RowAsk``."""

    __slots__ = ("_lengths", "_steps", "row", "settings")

    def __init__(self, row: Row, steps: Mapping[str, Step], settings: Any, lengths: Lengths) -> None:
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


__all__ = ["PROMPT_TEXT", "Recipe", "engine_of", "see_engine"]
