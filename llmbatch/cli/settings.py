"""Command-line flags in, the nested settings of a job out: the same plain data that a job file holds.

Each flag is one line in a table and names the one setting that it overrides. A command takes the flags it needs with
``@job_options(...)`` and reads the job with ``job_of(ctx)``, so no flag is a parameter of a command.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from llmbatch.cli import complete
from llmbatch.core.merge import merged

if TYPE_CHECKING:
    from llmbatch.cli.complete import Completer
    from llmbatch.job.job import Job

_META = "llmbatch.cli.settings"
_SHORTHANDS = {"prompt": "path", "input": "path"}
"""Sections that a job file may also give as one string, and the setting that the string stands for."""

Command = TypeVar("Command", bound=Callable[..., Any])


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _fields(text: str) -> str | list[str]:
    return "all" if text.strip() == "all" else _listed(text)


def _whole_or_text(text: str) -> int | str:
    return int(text) if text.strip().isdecimal() else text.strip()


class Flag(NamedTuple):
    """One flag and the setting, ``section.key``, that it overrides. One of type ``bool`` takes no value, and switches it on.

    One of ``many`` can be repeated, and its setting is a list.
    """

    name: str
    metavar: str
    setting: str
    type: Callable[[str], Any]
    help: str
    many: bool = False
    complete: Completer | None = None


FLAGS = {
    "Corpus": (
        Flag("--model", "MODEL", "model", str, "The model: a folder or a name on the hub.", complete=complete.folders),
        Flag(
            "--prompt",
            "PROMPT",
            "prompt.path",
            str,
            "A prompt file, or the name of one that comes with llmbatch.",
            complete=complete.prompts,
        ),
        Flag(
            "--program",
            "NAME",
            "program.name",
            str,
            "By which steps a row is done: single, chain, best_of, ...",
            complete=complete.programs,
        ),
        Flag(
            "--input",
            "INPUT",
            "input.path",
            str,
            "File, glob, folder, URL of these, or dataset; - for stdin.",
            complete=complete.files,
        ),
        Flag(
            "--format",
            "FORMAT",
            "input.format",
            str,
            "The input's format, where its name does not tell.",
            complete=complete.input_formats,
        ),
        Flag("--id-field", "FIELD", "input.id_field", str, "The field with a row's id; else `id`, else the index."),
        Flag("--limit", "N", "input.limit", int, "Only the first N rows."),
        Flag(
            "--overflow",
            "MODE",
            "plan.overflow",
            str,
            "Of a row that does not fit: error, skip, truncate-tail, ...",
            complete=complete.overflow_modes,
        ),
        Flag("--shard", "I/N", "input.shard", str, "Only slice I of N, from 1; llmbatch merge puts slices together."),
        Flag("--rows", "N", "input.rows", int, "So many rows without an input: see input.draw."),
    ),
    "Run": (
        Flag(
            "--output",
            "DIR",
            "output",
            str,
            "The run folder: results, report, and what a resumed run needs.",
            complete=complete.folders,
        ),
        Flag(
            "--to",
            "URL|DIR",
            "sinks.to",
            str,
            "Copy the finished files there, e.g. to s3://bucket/prefix/.",
            complete=complete.folders,
        ),
        Flag(
            "--engine",
            "ENGINE",
            "engine.name",
            str,
            "vllm, transformers; openai, kserve: servers; scripted: a dry run.",
            complete=complete.engines,
        ),
        Flag("--replicas", "N|auto", "engine.replicas", str, "Engines side by side; auto: as the GPUs allow."),
        Flag("--cluster", "ray[://H:P]|auto", "engine.cluster", str, "Engines on the machines of a Ray cluster."),
        Flag("--engine-timeout", "S", "engine.timeout", float, "Seconds without progress before a restart."),
        Flag(
            "--max-failures", "N|P%", "run.max_failures", _whole_or_text, "Stop when so many rows, or this share, fail."
        ),
        Flag("--max-time", "TIME", "run.max_time", _whole_or_text, "Stop after, e.g., 90m or 8h; can be resumed."),
        Flag(
            "--cache",
            "PATH",
            "reuse.cache",
            str,
            "Keep answers in this file, and take from it what it has.",
            complete=complete.files,
        ),
        Flag("--max-total-tokens", "N", "run.max_total_tokens", int, "Stop after so many tokens; can be resumed."),
        Flag("--max-cost", "C", "run.max_cost", float, "Stop when it cost so much; needs a price; can be resumed."),
        Flag("--price-per-gpu-hour", "P", "run.price_per_gpu_hour", float, "Price of an hour of one GPU."),
        Flag(
            "--price-per-million", "P[,P[,P]]", "run.price_per_million", str, "Of a million tokens; in, out, cached in."
        ),
        Flag("--order", "ORDER", "run.order", str, "Of rows: input, window, corpus or auto (corpus where it saves)."),
        Flag("--autotune", "", "run.autotune", bool, "First try other engine settings on the job's own rows."),
        Flag(
            "--tolerance",
            "exact|P",
            "run.tuning.tolerance",
            str,
            "Let it change answers: to none, or to a share alike.",
        ),
        Flag(
            "--autotune-time", "TIME", "run.tuning.max_time", _whole_or_text, "For at most, e.g., 5m; by default 10m."
        ),
        Flag("--draft-model", "MODEL", "run.tuning.draft", str, "A small model that it may guess tokens with."),
    ),
    "Sampling": (
        Flag("--max-tokens", "N", "sampling.max_tokens", int, "The longest answer, in tokens."),
        Flag("--temperature", "T", "sampling.temperature", float, "0 is greedy."),
        Flag("--seed", "S", "sampling.seed", int, "Makes sampling repeatable, row by row."),
    ),
    "Answers": (
        Flag(
            "--schema",
            "FILE|MODULE:MODEL",
            "answer.schema",
            str,
            "A JSON Schema file, or a pydantic model to import.",
            complete=complete.files,
        ),
        Flag("--choice", "A,B,C", "answer.choice", _listed, "The answer is one of these."),
        Flag("--regex", "REGEX", "answer.regex", str, "The whole answer matches this."),
        Flag("--max-attempts", "N", "retry.max_attempts", int, "How often a row is tried, the first time included."),
        Flag("--accept", "N", "accept.rows", int, "End with N accepted rows; more are asked until they are there."),
        Flag(
            "--accept-when", "CONDITION", "accept.when", str, "Such as 'output.score >= 4'. Can be repeated.", many=True
        ),
        Flag("--unique", "FIELD", "accept.unique", str, "Accept no near-duplicate; of output, or a part of it."),
        Flag("--keep", "FIELD,FIELD|all", "sinks.keep", _fields, "Input fields to join into the results."),
    ),
}
"""The flags under the headings that ``--help`` lists them under."""


@dataclass(slots=True)
class _Given:
    """What one command line gave, in the order it is applied."""

    job_file: Path | None = None
    assets: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    flags: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


def _given(ctx: click.Context) -> _Given:
    return ctx.meta.setdefault(_META, _Given())  # type: ignore[no-any-return]


class JobOption(click.Option):
    """An option that knows under which heading ``--help`` lists it."""

    def __init__(self, *arguments: Any, section: str = "Options", **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.section = section


class JobCommand(click.Command):
    """A command whose ``--help`` lists its many flags under headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            line = parameter.get_help_record(ctx)
            if line is not None and isinstance(parameter, click.Option):
                sections.setdefault(getattr(parameter, "section", "Options"), []).append(line)
        for heading, lines in sections.items():
            with formatter.section(heading):
                formatter.write_dl(lines)


def job_options(*sections: str, job_file: bool = True) -> Callable[[Command], Command]:
    """Give a command these sections' flags, ``--var``, ``--map``, ``--set`` and, with ``job_file``, ``[JOB.yaml]``."""

    def decorate(command: Command) -> Command:
        decorators = [_job_file_argument()] if job_file else []
        decorators += [_flag_option(flag, section) for section in sections for flag in FLAGS[section]]
        decorators.append(_pairs_option("--var", "NAME=VALUE", _keep_variables, "A variable of the prompt."))
        decorators.append(_pairs_option("--map", "NAME=FIELD", _keep_fields, "The field that a variable comes from."))
        if job_file:
            decorators.append(asset_option())
        text = "Any setting of a job, in YAML."
        decorators.append(_pairs_option("--set", "SECTION.KEY=VALUE", _keep_settings, text, complete.settings))
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def asset_option() -> Callable[[Command], Command]:
    """``--asset``, of which ``assets_of`` says what was given."""
    text = "What a name or the beginning of an address in another system's job document stands for."
    return _pairs_option("--asset", "NAME=PLACE", _keep_assets, text)


def assets_of(ctx: click.Context) -> dict[str, str]:
    return _given(ctx).assets


def job_file_of(ctx: click.Context) -> Path | None:
    return _given(ctx).job_file


def overrides_of(ctx: click.Context) -> dict[str, Any]:
    """The settings that the command line itself gives, nested as in a job file."""
    given = _given(ctx)
    data: dict[str, Any] = {}
    for setting, value in given.flags.items():
        put(data, setting, value)
    if given.variables:
        put(data, "prompt.variables", given.variables)
    if given.fields:
        put(data, "prompt.fields", given.fields)
    for setting, value in given.settings.items():
        put(data, setting, value)
    return data


def job_data_of(ctx: click.Context) -> dict[str, Any]:
    """The job file's settings, where one is given, with those of the command line over them."""
    from llmbatch.job.job import load_job_data

    job_file, over = _given(ctx).job_file, overrides_of(ctx)
    data = _document_of(ctx, job_file) if job_file else None
    if data is None:
        data = load_job_data(job_file) if job_file else {}
    for section in _SHORTHANDS.keys() & data.keys() & over.keys():
        data[section] = _as_section(section, data[section])
    return merged(data, over)


def _document_of(ctx: click.Context, path: Path) -> dict[str, Any] | None:
    """The settings that another system's job document asks for; ``None`` for a job file of ours."""
    if not path.is_file():
        return None
    from llmbatch.systems.base import Assets, read_job_document, unused_assets

    read = read_job_document(path, Assets(assets_of(ctx)))
    if read is None:
        return None
    _given(ctx).notes += [*read.notes(), *unused_assets(path, assets_of(ctx))]
    return {"output": f"llmbatch-{read.name}", **read.job}


def document_notes(ctx: click.Context) -> list[str]:
    """What a person should know of the job document that was read."""
    return _given(ctx).notes


def job_of(ctx: click.Context) -> Job:
    """The job that a command line asks for. Raises ``JobError`` for a setting that is missing, unknown or wrong."""
    from llmbatch.job.job import job_from

    return job_from(job_data_of(ctx))


def put(data: dict[str, Any], setting: str, value: Any) -> None:
    """Set ``section.key`` in nested data, in place; a section given as a shorthand string becomes a mapping first."""
    *sections, key = setting.split(".")
    place, path = data, ""
    for section in sections:
        path = f"{path}.{section}" if path else section
        inner = _as_section(path, place.get(section, {}))
        if not isinstance(inner, dict):
            raise click.UsageError(f"{setting} cannot be set: {path} is {inner!r}, not a section with keys of its own")
        place[section] = inner
        place = inner
    place[key] = value


def parsed_value(text: str) -> Any:
    """The value of a ``--set``: JSON where it is JSON, else YAML as in a job file, where ``no`` is text; nothing is null."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    if not text.strip():
        return None
    from llmbatch.core.errors import PromptError
    from llmbatch.prompt.document import read_document

    try:
        return read_document(text, "--set").value
    except PromptError as error:
        raise click.UsageError(f"--set: the value {text!r} is not YAML ({_first_line(error)})") from error


def _as_section(path: str, value: Any) -> Any:
    """A shorthand string as the section it stands for; everything else as it is."""
    if isinstance(value, str) and path in _SHORTHANDS:
        return {_SHORTHANDS[path]: value}
    return value


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _job_file_argument() -> Callable[[Command], Command]:
    looks: dict[str, Any] = {"metavar": "[JOB]", "type": click.Path(path_type=Path)}
    return click.argument("job_file", required=False, callback=_keep_job_file, expose_value=False, **looks)


def _flag_option(flag: Flag, section: str) -> Callable[[Command], Command]:
    def keep(ctx: click.Context, _parameter: click.Parameter, value: Any) -> None:
        if value is not None and value != ():
            _given(ctx).flags[flag.setting] = list(value) if flag.many else value

    looks: dict[str, Any] = {"help": flag.help, "cls": JobOption, "section": section}
    if flag.type is bool:
        looks |= {"is_flag": True, "default": None}
    else:
        looks |= {"metavar": flag.metavar, "type": flag.type, "multiple": flag.many, "shell_complete": flag.complete}
    return click.option(flag.name, callback=keep, expose_value=False, **looks)


def _pairs_option(
    name: str,
    metavar: str,
    keep: Callable[[click.Context, click.Parameter, tuple[str, ...]], None],
    text: str,
    completer: Completer | None = None,
) -> Callable[[Command], Command]:
    looks: dict[str, Any] = {"metavar": metavar, "help": text + " Can be repeated.", "section": "Anything else"}
    looks["shell_complete"] = completer
    return click.option(name, multiple=True, callback=keep, expose_value=False, cls=JobOption, **looks)


def _keep_job_file(ctx: click.Context, _parameter: click.Parameter, value: Path | None) -> None:
    _given(ctx).job_file = value


def _keep_variables(ctx: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> None:
    _given(ctx).variables.update(_pair(ctx, "--var", "NAME=VALUE", text) for text in values)


def _keep_fields(ctx: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> None:
    _given(ctx).fields.update(_pair(ctx, "--map", "NAME=FIELD", text) for text in values)


def _keep_assets(ctx: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> None:
    for text in values:
        name, equals, place = text.partition("=")
        if not equals or not name or not place:
            raise click.UsageError(f"--asset takes NAME=PLACE, not {text!r}", ctx)
        _given(ctx).assets[name] = place


def _keep_settings(ctx: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> None:
    for text in values:
        setting, value = _pair(ctx, "--set", "SECTION.KEY=VALUE", text)
        _given(ctx).settings[setting] = parsed_value(value)


def _pair(ctx: click.Context, option: str, form: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip() or not all(part.strip() for part in name.split(".")):
        raise click.UsageError(f"{option} takes {form}, not {text!r}", ctx)
    return name.strip(), value
