"""``llmbatch status``: a run folder in, where its run stands out, be it over, stopped, dead or going on in another terminal.

Nothing is written and no lock is taken. What is read is bounded: the parts' meta files, the open journals, and what the run
says of itself.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmbatch.cli.complete import run_folders

if TYPE_CHECKING:
    from rich.console import RenderableType

    from llmbatch.folder.progress import Progress
    from llmbatch.runs.standing import Standing

SECONDS_BETWEEN_LOOKS = 1.0


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path), shell_complete=run_folders)
@click.option(
    "--watch", is_flag=True, help="Go on showing it until the run is over. Ctrl-C ends the view, not the run."
)
@click.option("--json", "as_json", is_flag=True, help="As JSON; with --watch a line each time that something changed.")
@click.option(
    "--html",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write its page there instead, as llmbatch report does.",
)
def status(folder: Path, watch: bool, as_json: bool, html: Path | None) -> None:
    """Counts, speed, worst failure and time left of the run in DIR, also while it goes on in another terminal.

    \b
    Example: llmbatch status --watch out
    """
    from llmbatch.runs.standing import standing_of

    standing = standing_of(folder)
    if html is not None:
        from llmbatch.cli.report import write

        write(folder, standing, html)
        return
    if watch:
        if not _watch(folder, as_json):
            return
        standing = standing_of(folder)
    if as_json:
        click.echo(json.dumps(_as_dict(standing), ensure_ascii=False))
    else:
        _print(standing)


def _watch(folder: Path, as_json: bool) -> bool:
    """Show where a run stands as long as it goes on; whether it went on to its end."""
    from llmbatch.folder.folder import find_report
    from llmbatch.folder.progress import read_progress
    from llmbatch.runs.standing import state_of

    told: Progress | None = None
    try:
        with _screen(as_json) as show:
            while True:
                progress = read_progress(folder)
                state, sentence = state_of(folder, find_report(folder), progress)
                if state != "running":
                    return True
                if progress != told or told is None:
                    show(sentence, progress)
                told = progress
                time.sleep(SECONDS_BETWEEN_LOOKS)
    except KeyboardInterrupt:
        return False


@contextlib.contextmanager
def _screen(as_json: bool) -> Iterator[Callable[[str, Progress | None], None]]:
    """How a run is shown that goes on: a view that is drawn anew on a terminal, elsewhere lines, of JSON where asked for."""
    if as_json or not sys.stdout.isatty():
        from llmbatch.watch.jsonl import JsonLog
        from llmbatch.watch.lines import LineLog

        log = JsonLog(sys.stdout) if as_json else LineLog(sys.stdout, at_once=True)
        yield lambda _, progress: None if progress is None else log(progress.snapshot)
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(), transient=True, auto_refresh=False) as live:
        yield lambda sentence, progress: live.update(_view(sentence, progress), refresh=True)


def _view(sentence: str, progress: Progress | None) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from llmbatch.core import words
    from llmbatch.watch.live import snapshot_view

    heading = Text(words.printable(sentence), style="bold")
    return heading if progress is None else Group(heading, snapshot_view(progress.snapshot))


def _print(standing: Standing) -> None:
    from rich.console import Console
    from rich.text import Text

    from llmbatch.core import words
    from llmbatch.report.summary import print_summary
    from llmbatch.watch.lines import worst_text

    console = Console()
    if standing.progress is not None:
        console.print(_view(standing.sentence, standing.progress))
        return
    if standing.report is not None and standing.state == standing.report["outcome"]:
        print_summary(console, standing.report)
        return
    rows = words.count(standing.ledger.rows)
    of = f" of about {words.count(standing.rows_total)}" if standing.rows_total else ""
    console.print(Text(words.printable(standing.sentence), style="bold yellow"))
    console.print(f"{rows}{of} rows are safe: {words.counts(standing.ledger.by_status) or 'none yet'}", highlight=False)
    if standing.ledger.by_failure:
        console.print(f"failures: {words.counts(standing.ledger.by_failure)}", highlight=False)
    if (worst := standing.ledger.worst) is not None:
        console.print(Text(f"worst: {worst_text(worst)}", style="red"))


def _as_dict(standing: Standing) -> dict[str, Any]:
    from llmbatch.watch.jsonl import event_to_dict

    return {
        "state": standing.state,
        "message": standing.sentence,
        "rows": standing.ledger.rows,
        "rows_total": standing.rows_total,
        "by_status": standing.ledger.as_dict()["by_status"],
        "by_failure": standing.ledger.as_dict()["by_failure"],
        "worst": worst._asdict() if (worst := standing.ledger.worst) is not None else None,
        "snapshot": event_to_dict(standing.progress.snapshot) if standing.progress else None,
        "report": standing.report,
    }
