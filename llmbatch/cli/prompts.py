"""``llmbatch prompts``: names or paths of prompt files in; what there is, what they say, and what is wrong with them out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from llmbatch.check.answer import AnswerCheck
    from llmbatch.core.types import Row
    from llmbatch.prompt.library import LoadedFile
    from llmbatch.prompt.template import PromptTemplate


@click.group(invoke_without_command=True)
@click.pass_context
def prompts(ctx: click.Context) -> None:
    """List, show and check prompt files."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_prompts)


@prompts.command("list")
def list_prompts() -> None:
    """The prompts that come with llmbatch."""
    from llmbatch.prompt.library import load_file
    from llmbatch.prompt.shipped import shipped_prompts

    names = shipped_prompts()
    width = max(map(len, names), default=0)
    for name in names:
        click.echo(f"{name:<{width}}  {load_file(name).file.description}")


@prompts.command("show")
@click.argument("name")
def show_prompt(name: str) -> None:
    """The file of a prompt, to read or to begin one's own with."""
    from llmbatch.prompt.library import read_prompt

    click.echo(read_prompt(name).text, nl=False)


@prompts.command("check")
@click.argument("paths", nargs=-1, metavar="[NAME|PATH]...")
@click.pass_context
def check_prompts(ctx: click.Context, paths: tuple[str, ...]) -> None:
    """Check prompt files: their form, their variables, their program, and that their own examples render and pass their output.

    Without a name or path, the prompts that come with llmbatch. Exit code 2 if anything is wrong.
    """
    from llmbatch.core.errors import UsageError
    from llmbatch.prompt.library import load_file
    from llmbatch.prompt.shipped import shipped_prompts

    wrong = 0
    for path in paths or shipped_prompts():
        try:
            loaded = load_file(path)
            problems, notes = _findings(loaded)
            if loaded.file.program is not None:
                _check_program(path, loaded)
        except UsageError as error:
            problems, notes = str(error).splitlines(), []
        else:
            if not problems:
                click.echo(f"ok: {path} ({len(loaded.file.examples)} examples)")
        for problem in problems:
            click.echo(f"error: {problem}", err=True)
        for note in notes:
            click.echo(f"warning: {note}", err=True)
        wrong += bool(problems)
    if wrong:
        ctx.exit(UsageError.exit_code)


def _findings(loaded: LoadedFile) -> tuple[list[str], list[str]]:
    """What is wrong with a prompt, and what could be better. Raises ``UsageError`` for what stops the check."""
    from llmbatch.core.errors import SchemaError
    from llmbatch.core.types import Cursor, Row
    from llmbatch.prompt.template import bind

    examples = loaded.file.examples
    problems: list[str] = []
    notes: list[str] = []
    if not examples:
        notes.append(f"{loaded.document.name}: it has no examples, so nothing was rendered")
    templates = [bind(loaded, example.variables, {}) for example in examples] or [bind(loaded, {}, {})]
    try:
        _check_of(templates[0], loaded)
    except SchemaError as error:
        raise SchemaError(f"{loaded.document.where(('output',))}: {error}") from error
    for name in templates[0].unused:
        problems.append(
            f"{loaded.document.where(('variables', name))}: the variable {name!r} is declared and never used"
        )
    notes += [f"{loaded.document.name}: {note}" for note in templates[0].notes]
    for number, (template, example) in enumerate(zip(templates, examples, strict=False)):
        place = loaded.document.where(("examples", number))
        found = _example_problems(template, loaded, Row(number, number, example.row, Cursor(number)), example.output)
        problems += [f"{place}: example {number + 1}: {problem}" for problem in found]
    return problems, notes


def _check_program(path: str, loaded: LoadedFile) -> None:
    """The program that the file brings, with the prompts of its steps. Raises ``UsageError`` for what is wrong with it."""
    from llmbatch.job.job import job_from
    from llmbatch.job.recipe import Recipe

    program = loaded.file.program or {}
    steps = [step for step in dict(program.get("prompts") or {}).values() if isinstance(step, dict)]
    variables = loaded.file.examples[0].variables if loaded.file.examples else {}
    Recipe(
        job_from(
            {
                "model": "none",
                "prompt": {"path": path, "variables": variables},
                "input": {"path": "-", "format": "jsonl"},
                "output": "-",
                # which adapters there are only a job knows
                "engine": {"lora": {step["lora"]: "." for step in steps if step.get("lora")}},
            }
        )
    )


def _check_of(template: PromptTemplate, loaded: LoadedFile) -> AnswerCheck:
    """What the prompt's own output asks of an answer. Raises ``UsageError`` for one that cannot be used."""
    from llmbatch.check.answer import make_check
    from llmbatch.job.prompts import output_of_prompt

    return make_check(output_of_prompt(template, loaded.document.name))


def _example_problems(template: PromptTemplate, loaded: LoadedFile, row: Row, output: Any) -> Iterator[str]:
    from llmbatch.core.types import Failure
    from llmbatch.job.prompts import output_of_prompt

    rendered = template.render(row)
    if isinstance(rendered, Failure):
        yield rendered.message
    if output is None:
        return
    if output_of_prompt(template, loaded.document.name).kind == "text" and not isinstance(output, str):
        yield "its output must be text, because the prompt has no output of another kind"
        return
    check = _check_of(template, loaded)
    values = {name: template.value(name, row) for name in check.names}
    if (problem := check.misfit(values)) is not None:
        yield problem
        return
    verdict = check.of(values)(output if isinstance(output, str) else json.dumps(output, ensure_ascii=False), row.data)
    if verdict.failure is not None:
        yield f"its output does not pass: {verdict.failure.message}"
