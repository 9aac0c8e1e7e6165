"""``llmbatch demo``: nothing in, a small real run out, with the model, the corpora and the prompts that come with llmbatch."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llmbatch.engines import DEFAULT_ENGINE

if TYPE_CHECKING:
    from rich.console import Console

    from llmbatch.demo.demo import Score


@click.command()
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("demo-output"), show_default=True, metavar="DIR"
)
@click.option(
    "--engine",
    default=DEFAULT_ENGINE,
    show_default=True,
    help="scripted shows the way of a row without vLLM, and knows no answer.",
)
@click.pass_context
def demo(ctx: click.Context, output: Path, engine: str) -> None:
    """Run the model that comes with llmbatch over two small corpora, some rows of them broken on purpose.

    It needs vLLM and no GPU. At the end stands the share of answers that are exactly right against the known truth. The exit
    code is 0 where both runs finished.
    """
    from rich.console import Console

    from llmbatch.demo.demo import JOBS, demo_job, score
    from llmbatch.engines.keeper import EngineKeeper
    from llmbatch.report.summary import print_summary
    from llmbatch.runs.session import run_job
    from llmbatch.watch.watching import watching

    console = Console()
    scores = []
    with EngineKeeper() as keeper:  # one start for both jobs
        for name in JOBS:
            with watching("auto") as watcher:
                result = run_job(demo_job(name, output, engine), [watcher], make=keeper.make)
            print_summary(console, result.report, shlex.join(["llmbatch", "demo", "--output", str(output)]))
            if result.outcome != "finished":
                ctx.exit(result.exit_code)
            scores.append(score(name, result))
    _print_scores(console, scores)
    _print_next(console, scores)


def _print_scores(console: Console, scores: Sequence[Score]) -> None:
    from rich.table import Table

    from llmbatch.core import words
    from llmbatch.demo.demo import TASKS

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("corpus", no_wrap=True)
    table.add_column("what")
    table.add_column("exactly right", justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    for each in scores:
        right = f"{words.count(each.right)} of {words.count(each.rows)}"
        table.add_row(each.name, TASKS[each.name], right, words.share(each.share), style="bold")
    console.print()
    console.print(table)


def _print_next(console: Console, scores: Sequence[Score]) -> None:
    """What there is to see, as commands to paste."""
    from llmbatch.folder.folder import ERRORS, RESULTS

    console.print(
        "\nThe rows that are not ok were broken on purpose; each has a record that says what is wrong. Look at"
    )
    first, last = scores[0].result.folder, scores[-1].result.folder
    for command, what in (
        (["less", str(last / RESULTS)], "the results, one record a line"),
        (["less", str(first / ERRORS)], "those that are not ok"),
        (["llmbatch", "show", str(last), "orders-0001"], "one row on its way: input, prompt, answer"),
        (["llmbatch", "audit", str(first)], "the proof that no row was lost or doubled"),
    ):
        console.print(f"  {shlex.join(command)}  [dim]# {what}[/dim]", soft_wrap=True, highlight=False)
