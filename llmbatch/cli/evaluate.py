"""``llmbatch eval``: a task and a model in, scores with intervals out, in a run folder that can be gone on with."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmbatch.cli.complete import run_folders
from llmbatch.cli.main import RESUMABLE, command_line
from llmbatch.cli.run import track_option
from llmbatch.cli.settings import JobCommand, job_options, overrides_of
from llmbatch.core.errors import UsageError
from llmbatch.core.screen import shown

if TYPE_CHECKING:
    from llmbatch.evals.evaluate import Asked
    from llmbatch.evals.group import GroupScores
    from llmbatch.evals.scores import Scores
    from llmbatch.evals.task import Task, TaskGroup

EPILOG = """\b
Exit codes: 0 every row was asked and answered; 3 scored, some rows failed; 1 the run broke;
2 wrong usage, nothing was started; 130 stopped, the same command goes on."""


@click.command("eval", cls=JobCommand, epilog=EPILOG)
@click.argument("tasks", metavar="TASK...", nargs=-1)
@click.option("--model", metavar="MODEL", help="The model: a folder, a name on the hub, or demo.")
@click.option("--data", metavar="PATH", type=click.Path(path_type=Path), help="A local copy of the task's data set.")
@click.option("--limit", metavar="N", type=click.IntRange(1), help="Only the first N rows.")
@click.option("--shuffle-seed", metavar="S", type=int, help="Rows in another order, so that --limit is a fair sample.")
@click.option(
    "--until-interval", "until", metavar="W", type=float, help="End once the first metric is known to W to either side."
)
@click.option("--allow-code", is_flag=True, help="Let metrics run the code that the model writes.")
@click.option(
    "--scores",
    "again",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Score the records of DIR anew.",
    shell_complete=run_folders,
)
@click.option("--list", "listed", is_flag=True, help="The tasks that come with llmbatch.")
@job_options("Run", "Sampling", job_file=False)
@click.option("--quiet", is_flag=True, help="Say nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="Tell events and scores on stdout, as lines of JSON.")
@track_option
@click.pass_context
def evaluate(
    ctx: click.Context,
    tasks: Sequence[str],
    model: str | None,
    data: Path | None,
    limit: int | None,
    shuffle_seed: int | None,
    until: float | None,
    allow_code: bool,
    again: Path | None,
    listed: bool,
    quiet: bool,
    as_json: bool,
    track: str | None,
) -> None:
    """Score a model on a task.

    TASK is a task file, or the name of one that comes with llmbatch (--list). The run folder (--output, by default
    evals/MODEL/TASK) gets scores.json, with an interval for every figure, and examples.jsonl, with every row. The same command
    again goes on where an interrupted run stopped. Of several tasks each has a folder in --output, with a page over all.
    """
    from llmbatch.evals.evaluate import Asked, score_folder
    from llmbatch.evals.group import one_metric
    from llmbatch.evals.page import write_scored_page
    from llmbatch.evals.task import TaskGroup, load_task
    from llmbatch.folder.folder import PAGE, find_report

    mode = "json" if as_json else "quiet" if quiet else "auto"
    if listed:
        return _list()
    if again is not None:
        scores = score_folder(again, allow_code=allow_code)
        if (again / PAGE).exists() and (report := find_report(again)) is not None:
            write_scored_page(again, report)
        return _show([(again, scores)], None, mode)
    if not tasks or model is None:
        missing = "TASK" if not tasks else "--model"
        raise UsageError(
            f"{missing} is missing: llmbatch eval TASK --model MODEL; llmbatch eval --list lists the tasks"
        )
    settings = overrides_of(ctx)
    given = settings.pop("output", None)
    loaded = [load_task(task) for task in tasks]
    group = loaded[0] if len(loaded) == 1 and isinstance(loaded[0], TaskGroup) else None
    flat = [task for each in loaded for task in _flat(each)]
    if group is not None:  # said before hours are spent on the tasks
        one_metric(group.name, {task.name: task.metrics_made(allow_code=True)[0].kind_name for task in flat})
    base = Path(given).expanduser() if given else Path("evals") / _folder(model)
    nested = given is None or len(flat) > 1
    asked = [
        (
            task,
            Asked(model, base / task.name if nested else base, data, limit, shuffle_seed, until, allow_code, settings),
        )
        for task in flat
    ]
    return _run(ctx, asked, group, base, mode, track)


def _run(
    ctx: click.Context,
    asked: Sequence[tuple[Task, Asked]],
    group: TaskGroup | None,
    base: Path,
    mode: str,
    track: str | None,
) -> None:
    from llmbatch.engines.keeper import EngineKeeper
    from llmbatch.engines.kinds import make_engine
    from llmbatch.evals.evaluate import evaluate as run_task
    from llmbatch.evals.group import group_scores, write_group
    from llmbatch.evals.group_page import write_group_page
    from llmbatch.integrations.tracking import tracking
    from llmbatch.watch.watching import watching

    found: list[tuple[Path, Scores]] = []
    worst = 0
    # one start for all tasks; several engines side by side are started for each
    kept = len(asked) > 1 and asked[0][1].settings.get("engine", {}).get("replicas", 1) == 1
    try:
        with EngineKeeper() as keeper:
            for task, how in asked:
                with watching(mode) as screen, tracking(track, screen) as watcher:
                    done = run_task(task, how, [watcher], make=keeper.make if kept else make_engine)
                if done.scores is None:
                    ctx.exit(done.result.exit_code)
                found.append((how.output, done.scores))
                worst = max(worst, done.result.exit_code)
    except RESUMABLE as error:
        error.add_note(f"What was finished is kept; to go on: {command_line(ctx)}")
        raise
    over = None
    if group is not None:
        over = group_scores(group.name, group.weight, [scores for _, scores in found])
        write_group(over, base)
    if len(found) > 1 and asked[0][1].settings.get("run", {}).get("page", True):
        write_group_page(base)
    _show(found, over, mode)
    ctx.exit(worst)


def _flat(task: Task | TaskGroup) -> list[Task]:
    """The tasks of a group, also of groups in it."""
    from llmbatch.evals.task import Task, load_task

    return [task] if isinstance(task, Task) else [one for name in task.tasks for one in _flat(load_task(name))]


def _folder(model: str) -> str:
    """A folder's name for a model."""
    return Path(model.rstrip("/")).name or "model"


def _list() -> None:
    from llmbatch.evals.task import load_task, shipped_tasks

    with shown(sys.stdout):
        for name in shipped_tasks():
            click.echo(f"{name:24}{load_task(name).description}")


def _show(found: Sequence[tuple[Path, Scores]], group: GroupScores | None, mode: str) -> None:
    from llmbatch.evals.scores import scores_to_dict

    with shown(sys.stdout):
        if mode == "json":
            for folder, scores in found:
                body: dict[str, Any] = {"event": "scores", "folder": str(folder), "scores": scores_to_dict(scores)}
                click.echo(json.dumps(body, ensure_ascii=False))
        elif mode == "auto":
            from rich.console import Console

            from llmbatch.evals.table import print_group, print_scores

            for folder, scores in found:
                print_scores(Console(), scores, folder)
            if group is not None:
                print_group(Console(), group)
