"""The classes of settings, and the names in the tables of rooms, in; pages of Markdown out, which so are never out of date."""

from __future__ import annotations

import inspect
import json
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from llmbatch.cli import COMMANDS
from llmbatch.core.table import find
from llmbatch.core.types import FailureKind, Status
from llmbatch.engines import ENGINES
from llmbatch.engines.kinds import kind_of
from llmbatch.engines.settings import EngineSettings
from llmbatch.evals.metrics import METRICS
from llmbatch.evals.readers import READERS
from llmbatch.evals.task import Task, shipped_tasks
from llmbatch.formats import FORMATS
from llmbatch.job.job import Job
from llmbatch.programs import PROGRAMS
from llmbatch.prompt.file import PromptFile
from llmbatch.prompt.library import load_file, shipped_prompts
from llmbatch.sinks.layouts import LAYOUTS

_WORDS = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Path: "path",
    Any: "anything",
    object: "anything",
}


def settings_page() -> str:
    """Every setting of a job, with its default."""
    parts = [
        "# Settings of a job",
        "",
        "Made from the code. Every setting is a key of a [job file](../how-to/job-file.md), `--set SECTION.KEY=VALUE` on "
        "the command line, and an argument of `llmbatch.run(..., SECTION={KEY: VALUE})`.",
        "",
        *_sections("", Job, 2),
        "## Settings of single engines",
        "",
    ]
    common = set(EngineSettings.model_fields)
    for name in ENGINES:
        own = kind_of(name).settings
        fields = {key: field for key, field in own.model_fields.items() if key not in common}
        if fields:
            parts += [f"### engine: {name}", "", *_rows("engine.", fields), ""]
    return "\n".join(parts) + "\n"


def parts_page() -> str:
    """What the tables of the rooms hold: programs, formats, layouts, rules, prompts, with the settings of each."""
    parts = ["# Programs, formats, layouts, prompts", "", "Made from the code.", ""]
    for title, table, what, setting in (
        ("Programs", PROGRAMS, "program", "program.settings"),
        ("Wire formats of the input", FORMATS, "wire format", "input.options"),
        ("Layouts of the output", LAYOUTS, "layout", "sinks.layout.settings"),
    ):
        parts += [f"## {title}", "", f"Their settings are below `{setting}`.", ""]
        for name in table:
            parts += _part(name, find(table, name, what))
    parts += ["## Prompts that come along", "", "| prompt | what it does | variables |", "|---|---|---|"]
    for name in shipped_prompts():
        file = load_file(name).file
        variables = ", ".join(f"`{key}`" for key in file.variables)
        parts.append(f"| `{name}` | {_cell(file.description)} | {variables} |")
    parts += ["", "## Keys of a prompt file", "", "```text", _format(PromptFile), "```", ""]
    return "\n".join(parts) + "\n"


def tasks_page() -> str:
    """Tasks: the keys of their files, what comes along, readers and metrics."""
    parts = [
        "# Tasks of evaluations",
        "",
        "Made from the code.",
        "",
        "## Keys of a task file",
        "",
        *_rows("", Task.model_fields),
        "",
    ]
    parts += ["## Tasks that come along", "", ", ".join(f"`{name}`" for name in shipped_tasks()), ""]
    for title, table, what in (("Readers of answers", READERS, "reader"), ("Metrics", METRICS, "metric")):
        parts += [f"## {title}", ""]
        for name in table:
            parts += _part(name, find(table, name, what))
    return "\n".join(parts) + "\n"


def commands_page() -> str:
    """Every command with its arguments and options, as its ``--help`` has them."""
    from llmbatch.cli.main import main

    parts = ["# Commands", "", "Made from the code; `llmbatch COMMAND --help` says the same.", ""]
    parts += [
        "| command | |",
        "|---|---|",
        *(f"| [`{name}`](#{name}) | {_cell(said)} |" for name, (_, said) in COMMANDS.items()),
        "",
    ]
    for name in COMMANDS:
        command = main.get_command(click.Context(main, info_name="llmbatch"), name)
        assert command is not None
        parts += _command(
            command, click.Context(command, info_name=name, parent=click.Context(main, info_name="llmbatch")), 2
        )
    parts += _harness()
    return "\n".join(parts) + "\n"


def _harness() -> Iterator[str]:
    """The other program that is installed: its options are the harness's own, and only what its module says is ours."""
    from llmbatch.integrations import lm_eval_command

    yield "## llmbatch-lm-eval"
    yield ""
    yield "```text"
    yield "llmbatch-lm-eval run --model llmbatch --model_args model=MODEL,KEY=VALUE,... --tasks TASK ... [OPTIONS]"
    yield "```"
    yield ""
    yield (inspect.getdoc(lm_eval_command) or "").replace("``", "`")
    yield ""
    yield "Its options are the harness's: `llmbatch-lm-eval run --help`. What `--model_args` takes of ours:"
    yield "[evaluation harnesses](../how-to/harnesses.md)."


def _command(command: click.Command, context: click.Context, level: int) -> Iterator[str]:
    yield f"{'#' * level} {context.info_name}"
    yield ""
    yield "```text"
    yield " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield "```"
    yield ""
    yield inspect.cleandoc(command.help or "").replace("\b\n", "").replace("<", "&lt;")
    yield ""
    sections: dict[str, list[tuple[str, str]]] = {}
    for option in command.get_params(context):
        record = option.get_help_record(context) if isinstance(option, click.Option) else None
        if record is not None:
            sections.setdefault(getattr(option, "section", "Options"), []).append(record)
    for heading, records in sections.items():
        yield f"| {heading} | |"
        yield "|---|---|"
        for option, said in records:
            yield f"| `{option.replace('|', chr(92) + '|')}` | {_cell(said)} |"
        yield ""
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None:
                yield from _command(inner, click.Context(inner, info_name=name, parent=context), level + 1)


def statuses() -> str:
    return _enum("status", Status)


def kinds() -> str:
    rows = _enum("kind", FailureKind, lambda kind: f" | {kind.status} | {'yes' if kind.retryable else ''}")
    return rows.replace("| kind | meaning |", "| kind | meaning | the row's status | tried again |").replace(
        "|---|---|", "|---|---|---|---|", 1
    )


def _enum(title: str, kind: Any, more: Any = lambda _: "") -> str:
    """Members with what the comments beside them say."""
    said = dict(re.findall(r'= "(\w+)"  # (.+)', inspect.getsource(kind)))
    lines = [f"| {title} | meaning |", "|---|---|"]
    lines += [f"| `{each.value}` | {_cell(said.get(each.value, ''))}{more(each)} |" for each in kind]
    return "\n".join(lines)


def _sections(path: str, model: type[BaseModel], level: int) -> Iterator[str]:
    """The plain settings of a class, then each of its sections."""
    plain = {name: field for name, field in model.model_fields.items() if not list(_models(field.annotation))}
    if plain:
        yield from _rows(f"{path}." if path else "", plain)
        yield ""
    for name, field in model.model_fields.items():
        for inner in _models(field.annotation):
            key = field.alias or name
            place = f"{path}.{key}" if path else key
            yield f"{'#' * min(level, 4)} {place}"
            yield ""
            yield _first_line(inner) + (f" ({_cell(field.description)})" if field.description else "")
            yield ""
            yield from _sections(place, inner, level + 1)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that a setting may be: classes in unions and ``Annotated``, and of lists and mappings not those within."""
    origin = get_origin(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif origin in (Union, types.UnionType):
        for each in get_args(annotation):
            yield from _models(each)
    elif origin is Annotated:
        yield from _models(get_args(annotation)[0])


def _rows(prefix: str, fields: Mapping[str, Any]) -> Iterator[str]:
    yield "| setting | what it is | default | |"
    yield "|---|---|---|---|"
    for name, field in fields.items():
        kind = _cell(_type(field.annotation))
        yield f"| `{prefix}{field.alias or name}` | {kind} | {_default(field)} | {_cell(field.description or '')} |"


def _part(name: str, kind: Any) -> Iterator[str]:
    """One entry of a room's table: what its module says first, and its settings."""
    module = inspect.getmodule(
        getattr(kind, "shape", None) or getattr(kind, "of", None) or getattr(kind, "read", None) or kind
    )
    said = (inspect.getdoc(module) or "").partition("\n\n")[0] if module is not None else ""
    yield f"### {name}"
    yield ""
    yield " ".join(said.split())
    yield ""
    settings = getattr(kind, "settings", None) or getattr(kind, "Settings", None)
    if isinstance(settings, type) and issubclass(settings, BaseModel) and settings.model_fields:
        yield from _rows("", settings.model_fields)
        yield ""


def _type(annotation: Any) -> str:
    """A type in words."""
    if annotation in _WORDS:
        return _WORDS[annotation]
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(map(str, inner))
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(each) for each in inner if each is not type(None)))
    if origin is Annotated:
        return _type(inner[0])
    if origin in (list, tuple, set, frozenset, Sequence, typing.Sequence):
        named = [each for each in inner if each is not Ellipsis]
        return f"list of {_type(named[0])}" if named else "list"
    if origin in (dict, Mapping) or annotation is dict:
        return f"mapping to {_type(inner[1])}" if inner and inner[1] is not Any else "mapping"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping"
    return (
        "expression"
        if getattr(annotation, "__name__", "") == "Expression"
        else getattr(annotation, "__name__", str(annotation))
    )


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined or value is None or value in ({}, (), [], ""):
        return ""
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_defaults=True) or ""
        return f"`{value}`" if value else ""
    if isinstance(value, bool) or (isinstance(value, str) and value != value.strip()):
        return f"`{json.dumps(value)}`"
    return f"`{value}`"


def _format(model: type[BaseModel]) -> str:
    """The format that the module of a class gives in its docstring: the indented block in it."""
    doc = inspect.getdoc(inspect.getmodule(model)) or ""
    block = re.search(r"\n\n((?:    .*\n|\n)+)", doc)
    return inspect.cleandoc(block[1]) if block else doc


def _first_line(model: type[BaseModel]) -> str:
    return (inspect.getdoc(model) or "").partition("\n\n")[0].replace("\n", " ")


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").replace("{", "&#123;").split())


__all__ = ["commands_page", "kinds", "parts_page", "settings_page", "statuses", "tasks_page"]
