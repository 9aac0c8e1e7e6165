"""``llmbatch doctor``: nothing in; what is installed and what the machine has, what is missing and how to get it, out."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from llmbatch.cli import complete
from llmbatch.core.errors import UsageError
from llmbatch.core.screen import shown
from llmbatch.core.words import near, printable

if TYPE_CHECKING:
    from llmbatch.doctor.base import Finding

EPILOG = """\b
Exit codes: 0 nothing is wrong (what is only missing, or may be too little, is said);
1 something is wrong; 2 wrong usage."""

_COLOURS = {"ok": "green", "note": "cyan", "warning": "yellow", "wrong": "red"}


@click.command(epilog=EPILOG)
@click.option(
    "--start", "started", is_flag=True, help="Really start each engine, with the small model that comes along."
)
@click.option(
    "--engine", "names", metavar="NAME", multiple=True, shell_complete=complete.engines, help="Start only this one."
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def doctor(ctx: click.Context, started: bool, names: tuple[str, ...], as_json: bool) -> None:
    """Say what is installed and what this machine has, what is missing and how to get it.

    Versions, engines, extras, GPUs, memory, disks, shared memory, the Hugging Face cache and token (which is not shown), limits
    and the clock. Nothing is changed, and nothing is asked over the network.

    \b
    Example: llmbatch doctor --start
    """
    from llmbatch.engines import ENGINES

    for name in names:
        if name not in ENGINES:
            raise UsageError(
                f"--engine: there is no engine {name!r}{near(name, ENGINES)}; there is {', '.join(ENGINES)}"
            )
    found = []
    for check, finding in _findings(started, names):
        found.append((check, finding))
        if not as_json:
            _print(finding)
    wrong = [finding for _, finding in found if finding.state == "wrong"]
    if as_json:
        body = {"ok": not wrong, "findings": [{"check": check, **finding._asdict()} for check, finding in found]}
        click.echo(json.dumps(body, ensure_ascii=False))
    ctx.exit(1 if wrong else 0)


def _findings(started: bool, names: tuple[str, ...]) -> Iterator[tuple[str, Finding]]:
    from llmbatch.core.table import find
    from llmbatch.doctor import CHECKS

    for check in CHECKS:
        for finding in find(CHECKS, check, "check")():
            yield check, finding
    if started or names:
        from llmbatch.doctor.engines import start, startable

        for finding in start(names or startable()):
            yield "start", finding


def _print(finding: Finding) -> None:
    with shown(sys.stdout):
        state = click.style(f"{finding.state:8}", fg=_COLOURS[finding.state])
        click.echo(f"{state}{finding.name:22}{printable(finding.seen)}")
        if finding.advice:
            click.echo(f"{'':30}{click.style('-> ', dim=True)}{printable(finding.advice)}")
