"""A folder with evaluations in; one page over all of them out: what each task came to, and the group's figure where there is one.

It is made of what lies there (``TASK/scores.json``, ``TASK/report.json``, ``group.json``), so it can be made anew at any time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from llmbatch.core.errors import FolderError, LlmbatchError
from llmbatch.core.files import atomic_write
from llmbatch.core.words import count, duration
from llmbatch.evals.group import GroupScores, read_group
from llmbatch.evals.plot import figure_words, scored_dots
from llmbatch.evals.scores import SCORES, Figure, Scores, read_scores
from llmbatch.folder.folder import PAGE, find_report, read_manifest
from llmbatch.report.page.frame import page
from llmbatch.report.page.plots import Dots, Drawn
from llmbatch.report.page.story import Tile
from llmbatch.report.report import Report


class Evaluation(NamedTuple):
    """One that lies in a folder of the group's. ``link`` leads to its own page, where there is one."""

    folder: Path
    scores: Scores
    report: Report | None
    link: str | None

    @property
    def first(self) -> tuple[str, Figure]:
        """The first metric and its figure."""
        name = self.scores.metrics[0].name
        return name, self.scores.overall.figures[name]


def holds_evaluations(folder: Path) -> bool:
    """Whether a folder that is no run itself has evaluations in it."""
    return read_manifest(folder) is None and any(folder.glob(f"*/{SCORES}"))


def write_group_page(folder: Path, to: Path | None = None) -> Path:
    """The page of the evaluations in a folder, into that folder unless ``to`` says where; returns where it is.

    Raises ``FolderError`` where there is none, and ``WriteError``.
    """
    group = read_group(folder)
    left_out: list[str] = []
    found = sorted(_evaluations(folder, left_out), key=lambda each: _place(each, group))
    if not found:
        raise FolderError(
            left_out[0] if left_out else f"{folder}: no evaluation is in it: give the --output of llmbatch eval"
        )
    path = to or folder / PAGE
    shown = page(
        "group.html",
        name=folder.resolve().name,
        headline=_headline(found, group),
        models=", ".join(dict.fromkeys(each.scores.scored.model for each in found)),
        tiles=_tiles(found, group),
        plots=_plots(found, group),
        found=[_row(each) for each in found],
        left_out=left_out,
        version=next((each.report["versions"].get("llmbatch", "") for each in found if each.report is not None), ""),
    )
    atomic_write(path, shown)
    return path


def _evaluations(folder: Path, left_out: list[str]) -> Iterator[Evaluation]:
    """``left_out`` is told of those that cannot be read, such as of a metric that is not installed here."""
    for path in sorted(folder.glob(f"*/{SCORES}")):
        own = path.parent
        link = f"{own.name}/{PAGE}" if (own / PAGE).exists() else None
        try:
            yield Evaluation(own, read_scores(own), find_report(own), link)
        except LlmbatchError as error:
            left_out.append(str(error))


def _place(each: Evaluation, group: GroupScores | None) -> tuple[int, str]:
    """Those of the group first, in its order."""
    tasks = [] if group is None else list(group.tasks)
    task = each.scores.scored.task
    return (tasks.index(task) if task in tasks else len(tasks)), task


def _headline(found: Sequence[Evaluation], group: GroupScores | None) -> str:
    tasks = f"{count(len(found))} {'task' if len(found) == 1 else 'tasks'}"
    if group is not None and group.figure is not None:
        return f"{group.name}: {group.metric} {figure_words(group.figure)} over {count(group.figure.rows)} rows"
    models = dict.fromkeys(each.scores.scored.model for each in found)
    return f"{next(iter(models))} on {tasks}" if len(models) == 1 else f"{tasks}, {count(len(models))} models"


def _tiles(found: Sequence[Evaluation], group: GroupScores | None) -> list[Tile]:
    counts = [each.scores.overall.counts for each in found]
    failed, unread = sum(each.failed for each in counts), sum(each.unreadable for each in counts)
    reports = [each.report for each in found if each.report is not None]
    tokens = [report["tokens"] for report in reports]
    parts = [part for each in tokens for part in (each["useful"], each["wasted"])]
    computed = sum(part["prompt_tokens"] + part["completion_tokens"] for part in parts)
    weight = "" if group is None else f"the mean of {'tasks' if group.weight == 'tasks' else 'rows'}"
    return [
        Tile("tasks", count(len(found)), weight),
        Tile(
            "rows",
            count(sum(each.rows for each in counts)),
            f"{count(unread)} answers could not be read" if unread else "every answer was read",
        ),
        Tile("rows failed", count(failed), "they count as wrong" if failed else "", "bad" if failed else "ok"),
        Tile("took", duration(sum(r["seconds"]["total"] for r in reports)), f"{count(computed)} tokens"),
    ]


def _plots(found: Sequence[Evaluation], group: GroupScores | None) -> list[Dots]:
    """A plot for each first metric that tasks have, with the group's figure below its tasks."""
    by_metric: dict[str, list[Evaluation]] = {}
    for each in found:
        by_metric.setdefault(each.scores.metrics[0].kind_name, []).append(each)
    plots = []
    for metric, some in by_metric.items():
        figures = list(_figures(some, group if group is not None and group.metric == metric else None))
        if figures:
            higher_is_better = some[0].scores.metrics[0].kind.higher_is_better
            plots.append(scored_dots(metric, higher_is_better, figures, some[0].scores.confidence))
    return plots


def _figures(found: Sequence[Evaluation], group: GroupScores | None) -> Iterator[Drawn]:
    for each in found:
        _, figure = each.first
        if figure.value is not None:
            yield _label(each, found), figure.value, figure.low, figure.high, figure_words(figure), "in", False
    if group is not None and (over := group.figure) is not None and over.value is not None:
        yield f"all of {group.name}", over.value, over.low, over.high, figure_words(over), "ok", True


def _label(each: Evaluation, found: Sequence[Evaluation]) -> str:
    """The task; where others have it too, the folder."""
    task = each.scores.scored.task
    return task if sum(other.scores.scored.task == task for other in found) == 1 else each.folder.name


def _row(each: Evaluation) -> Mapping[str, object]:
    """What the table says of a task: each metric with its figure."""
    counts = each.scores.overall.counts
    return {
        "task": each.scores.scored.task,
        "folder": each.folder.name,
        "link": each.link,
        "model": each.scores.scored.model,
        "figures": [(name, figure_words(figure)) for name, figure in each.scores.overall.figures.items()],
        "rows": counts.rows,
        "failed": counts.failed,
        "unread": counts.unreadable,
        "took": None if each.report is None else duration(each.report["seconds"]["total"]),
    }


__all__ = ["holds_evaluations", "write_group_page"]
