"""A job in; the prompts that its rows are asked with, and what these ask of an answer, out.

Paths in a prompt file are relative to that file.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from llmbatch.check.base import KIND_KEYS, OutputSettings
from llmbatch.core.errors import JobError
from llmbatch.core.settings import is_there
from llmbatch.formats import FORMATS
from llmbatch.formats.base import wire_format
from llmbatch.job.file import resolve_paths
from llmbatch.job.job import Job, ProgramSettings, StepSettings
from llmbatch.job.problems import explain
from llmbatch.job.step import Step
from llmbatch.programs.base import default_prompts, takes_several
from llmbatch.prompt.base import PromptSettings, RowPrompt
from llmbatch.prompt.library import load_file
from llmbatch.prompt.requests import RequestsPrompt
from llmbatch.prompt.template import bind, load_prompt
from llmbatch.sources.opening import guess_format


def prompt_of(job: Job) -> RowPrompt:
    """What makes prompts of the job's rows. Raises ``JobError`` where there is nothing.

    A program that asks for numbers takes plain text, and has a prompt of its own where the job has none.
    """
    default = default_prompts(job.program.name).get("main")
    given = None if job.prompt is None else load_prompt(job.prompt, chat=default is None)
    name = job.input.format
    if name is None and given is None:
        name = guess_format(job.input.path, job.input.storage_options)
    if name in FORMATS:
        format_ = wire_format(name, job.input.options)
        if given is None or format_.takes_prompt:
            vectors = job.program.name == "embed"
            several = takes_several(job.program.name) and job.plan.overflow != "chunk"
            return RequestsPrompt(format_, job.engine.lora, vectors=vectors, several=several, template=given)
    if given is not None:
        return given
    if default is not None:
        return load_prompt(PromptSettings(path=default), chat=False)
    raise JobError(
        "prompt is missing: give --prompt, a file, a shipped prompt (see llmbatch prompts) or the text itself"
    )


def program_of(job: Job, prompt: RowPrompt) -> ProgramSettings:
    """The job's program, or else the one that its prompt file asks for, whose paths are relative to that file.

    What the job says of that one's settings and prompts goes over what the file says.
    """
    ours = job.program
    if ours.name != ProgramSettings().name or prompt.program is None or job.prompt is None:
        return ours
    try:
        given = resolve_paths({"program": prompt.program}, _folder_of(job.prompt.path), Job)
        theirs = ProgramSettings.model_validate(given["program"])
    except ValidationError as error:
        said = "; ".join(explain(error, prompt.program, ProgramSettings))
        raise JobError(f"{prompt.name}: program: {said}") from None
    prompts, settings = {**theirs.prompts, **ours.prompts}, {**theirs.settings, **ours.settings}
    return theirs.model_copy(update={"prompts": prompts, "settings": settings})


def further_step(job: Job, name: str, step: StepSettings) -> Step:
    """A prompt of ``program.prompts``; of the job's variables and fields those count that it declares."""
    if step.lora is not None and step.lora not in job.engine.lora:
        known = ", ".join(job.engine.lora) or "none"
        raise JobError(f"program.prompts.{name}.lora: there is no adapter {step.lora!r}: engine.lora has {known}")
    loaded = load_file(step.path, chat=not default_prompts(job.program.name))
    settings = job.prompt
    known_variables = loaded.file.variables
    variables = {k: v for k, v in (settings.variables if settings else {}).items() if k in known_variables}
    fields = {k: v for k, v in (settings.fields if settings else {}).items() if k in known_variables}
    template = bind(loaded, {**variables, **step.variables}, {**fields, **step.fields})
    return Step(template, _output(step.answer, template, step.path), job, step.sampling, lora=step.lora)


def output_of(job: Job, prompt: RowPrompt) -> OutputSettings:
    """What the job asks of an answer, or else its prompt."""
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


__all__ = ["further_step", "output_of", "output_of_prompt", "program_of", "prompt_of"]
