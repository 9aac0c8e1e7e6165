"""What is printed in; on a terminal, where it is longer than the screen, the person's pager, else the same as printed, out."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

pager_option = click.option(
    "--pager/--no-pager", default=True, help="Whether a terminal shows in $PAGER what is longer than its screen."
)


@contextlib.contextmanager
def paged(wanted: bool = True) -> Iterator[Console]:
    """A console to print to. What is printed is shown when the block ends."""
    from rich.console import Console

    console = Console()
    if not wanted or not (console.is_terminal and sys.stdin.isatty()) or console.is_dumb_terminal:
        yield console
        return
    with console.capture() as captured:
        yield console
    text = captured.get()
    if _lines(text, console.width) < console.height:
        click.echo(text, nl=False)
    else:
        click.echo_via_pager(text)


def _lines(text: str, width: int) -> int:
    """How many lines of a screen a text takes."""
    from rich.cells import cell_len

    return sum(max(1, -(-cell_len(line) // width)) for line in click.unstyle(text).splitlines())
