"""A job in; its recipe out: of a job with a sweep, one for each of its settings, which the rows are done by in turn."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from llmbatch.core.digest import short_digest
from llmbatch.core.errors import JobError
from llmbatch.core.types import Constraint, Failure, Rendered, Row
from llmbatch.formats.base import Asked
from llmbatch.job.job import Job
from llmbatch.job.lengths import Lengths
from llmbatch.job.recipe import PROMPT_TEXT, Recipe
from llmbatch.job.sweep import Setting, label
from llmbatch.programs.base import PromptFacts
from llmbatch.programs.line import Rules
from llmbatch.programs.work import Work
from llmbatch.prompt.base import PromptSettings


def recipe_of(job: Job) -> Recipe:
    """How the rows of a job become requests. Raises ``UsageError`` for whatever is wrong with it."""
    return Recipe(job) if job.sweep is None else SweptRecipe(job, job.sweep.each())


class SweptRecipe(Recipe):
    """The recipe of each setting, where row i of an input that has each row once for every setting is done by number i mod K."""

    def __init__(self, job: Job, settings: Iterable[Setting]) -> None:
        self._job = job
        self._labels: list[Setting] = []
        self._recipes: list[Recipe] = []
        for setting in settings:
            self._labels.append(label(setting))
            try:
                self._recipes.append(Recipe(_changed(job, setting), lora=_adapter(job, setting)))
            except JobError as error:
                raise JobError(f"sweep, with {json.dumps(self._labels[-1], ensure_ascii=False)}: {error}") from None
        first = self._recipes[0]
        if any(recipe.pooling != first.pooling for recipe in self._recipes):
            named = ", ".join(dict.fromkeys(recipe.program.name for recipe in self._recipes))
            raise JobError(
                f"sweep: its prompts name programs that ask the model for different things ({named}), and an engine gives text, or "
                "numbers of one kind: run them apart"
            )
        self.program = first.program
        self.images, self.later, self.sinks = first.images, first.later, first.sinks
        self.pooling, self.gives_vectors = first.pooling, first.gives_vectors
        self.prompt_name = ", ".join(dict.fromkeys(recipe.prompt_name for recipe in self._recipes))
        self.requests_a_row = max(recipe.requests_a_row for recipe in self._recipes)

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        return tuple(dict.fromkeys(each for recipe in self._recipes for each in recipe.constraints))

    def identity(self) -> dict[str, str]:
        """What is the same under all settings as it is, and else a digest over all of them."""
        each = [recipe.identity() for recipe in self._recipes]
        found: dict[str, str] = {}
        for key in sorted({key for identity in each for key in identity}):
            values = [identity.get(key) for identity in each]
            first = values[0]
            if first is not None and values.count(first) == len(values):
                found[key] = first
            else:
                digest = short_digest(json.dumps(values, sort_keys=True, default=str))
                found[key if key == PROMPT_TEXT else f"{key} (under each setting)"] = digest
        return found

    @property
    def facts(self) -> PromptFacts:
        """Of the first of them."""
        return self._recipes[0].facts

    def render(self, row: Row) -> Rendered | Failure:
        return self._of(row).render(row)

    def asked(self, row: Row) -> Asked:
        return self._of(row).asked(row)

    def settled(self, row: Row) -> Rendered | Failure:
        return self._of(row).settled(row)

    def rules(self, context_length: Callable[[], int | None] | None) -> Rules:
        """As of any of them: what is asked under a setting has its own check."""
        return self._recipes[0].rules(context_length)

    def begin(self, row: Row, rules: Rules, lengths: Lengths, details: Mapping[str, Any] | None = None) -> Work:
        """As under its setting; the record's details say which that is, and of which row of the input it is."""
        of = str(row.id) if len(self._labels) == 1 else str(row.id).rpartition("#")[0]
        said = {"row": of, "setting": self._labels[row.index % len(self._labels)], **(details or {})}
        return self._of(row).begin(row, rules, lengths, said)

    def size(self, row: Row, work: Work) -> int:
        return self._of(row).size(row, work)

    def _of(self, row: Row) -> Recipe:
        return self._recipes[row.index % len(self._recipes)]


def _changed(job: Job, setting: Setting) -> Job:
    """The job under a setting."""
    prompt = {} if job.prompt is None else job.prompt.model_dump()
    sampling = dict(job.sampling)
    for place, value in setting.items():
        section, _, name = place.rpartition(".")
        if place == "prompt":
            prompt["path"] = value
        elif section == "sampling":
            sampling[name] = value
        elif section:
            prompt[section.removeprefix("prompt.")] = {**prompt.get(section.removeprefix("prompt."), {}), name: value}
    if prompt and not isinstance(prompt.get("path"), str):
        raise JobError("there is no prompt for it: give --prompt, or a text or file in sweep.prompt")
    made = PromptSettings(**prompt) if prompt else None
    return job.model_copy(update={"prompt": made, "sampling": sampling, "sweep": None})


def _adapter(job: Job, setting: Setting) -> str | None:
    name = setting.get("lora")
    if name is not None and name not in job.engine.lora:
        known = ", ".join(job.engine.lora) or "none"
        raise JobError(f"there is no adapter {name!r}: engine.lora has {known}")
    return name
