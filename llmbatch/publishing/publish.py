"""Where this room's parts meet: finished runs in, a dataset folder out."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llmbatch import __version__
from llmbatch.core.errors import FolderError, JobError
from llmbatch.core.files import atomic_write, writing
from llmbatch.folder.folder import PAGE
from llmbatch.job.problems import explain
from llmbatch.publishing.base import PublishSettings
from llmbatch.publishing.card import REPORTS, card
from llmbatch.publishing.facts import facts_of
from llmbatch.publishing.filters import Filter
from llmbatch.publishing.finished import FinishedRun
from llmbatch.publishing.making import Making, Tell
from llmbatch.publishing.target import CARD, Target, write_provenance


@dataclass(frozen=True, slots=True)
class Published:
    """A dataset that was published.

    ``records`` were read, ``rows`` are in the dataset, by split in ``splits``; ``dropped`` counts what was left out by the reason.
    ``url`` is that of its commit on the hub, where it was pushed.
    """

    folder: Path
    records: int
    rows: int
    splits: Mapping[str, int]
    dropped: Mapping[str, int]
    url: str | None = None


def settings_from(data: Mapping[str, Any]) -> PublishSettings:
    """Raises ``JobError`` for a setting that is unknown or wrong."""
    given = {name: value for name, value in data.items() if value is not None}
    try:
        return PublishSettings.model_validate(given)
    except ValidationError as error:
        raise JobError("; ".join(explain(error, given, PublishSettings))) from None


def publish(
    folders: Sequence[Path],
    output: Path,
    settings: PublishSettings,
    tell: Tell = lambda _: None,
) -> Published:
    """Make a dataset of finished runs in the folder ``output``. Where it lies there already, made of the same, nothing is written.

    Raises ``UsageError`` for what is wrong with the settings or fits no row, ``FolderError`` for a folder that is no finished run,
    or that holds something else than an earlier publication, ``RunError`` where nothing is left, and ``WriteError``.
    """
    keep = Filter(settings)
    target = Target(output)
    runs = _runs(folders, settings)
    made_of = _made_of(runs, settings)
    provenance = target.published(made_of)
    if provenance is None:
        inside = target.folder.parent == runs[0].folder.resolve()
        title = settings.title or (runs[0].name if inside else target.folder.name)
        with target.making() as folder:
            provenance = _make(folder, runs, settings, keep, title, tell)
            write_provenance(folder, provenance, made_of)
    counts = provenance["counts"]
    return Published(target.folder, counts["records"], counts["kept"], counts["splits"], counts["dropped"])


def _make(
    folder: Path, runs: Sequence[FinishedRun], settings: PublishSettings, keep: Filter, title: str, tell: Tell
) -> dict[str, Any]:
    """Put the dataset and its card into the folder; returns its provenance."""
    with Making(folder, runs, settings, tell) as making:
        making.read(keep)
        making.write()
    if settings.report:
        _copy_pages(runs, folder)
    facts = [facts_of(run) for run in runs]
    text = card(title, settings, making.counts, facts, making.compared, making.types())
    atomic_write(folder / CARD, text.encode())
    shown = settings.model_dump(mode="json", exclude_defaults=True)
    return {"settings": shown, "counts": making.counts.as_dict(), "runs": facts}


def _copy_pages(runs: Sequence[FinishedRun], folder: Path) -> None:
    """Put the page of each run beside the dataset. Raises ``FolderError`` for a run without one, and ``WriteError``."""
    for run in runs:
        try:
            page = (run.folder / PAGE).read_bytes()
        except OSError as error:
            raise FolderError(
                f"{run.folder / PAGE}: cannot be read: {error.strerror}; llmbatch report {run.folder} writes it"
            ) from error
        with writing(folder / REPORTS):
            (folder / REPORTS).mkdir(exist_ok=True)
        atomic_write(folder / REPORTS / f"{run.name}.html", page)


def _runs(folders: Sequence[Path], settings: PublishSettings) -> list[FinishedRun]:
    if not folders:
        raise JobError("there is no run to publish: name at least one run folder")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise JobError("a run is named twice: its rows would only be dropped as duplicates")
    runs, named = [], Counter[str]()
    for folder in folders:
        name = folder.resolve().name
        named[name] += 1
        unique = name if named[name] == 1 else f"{name}-{named[name]}"
        runs.append(FinishedRun(folder, unique, settings.rows, with_input=settings.input))
    return runs


def _made_of(runs: Sequence[FinishedRun], settings: PublishSettings) -> str:
    """A digest of all that a dataset depends on: where it is the same, so is the dataset."""
    sources = []
    for run in runs:
        stat = run.path.stat()
        sources.append([run.name, run.manifest.identity, run.path.name, stat.st_size, stat.st_mtime_ns])
        if settings.report and (run.folder / PAGE).is_file():
            sources[-1].append((run.folder / PAGE).stat().st_mtime_ns)
    said = json.dumps([__version__, sources, settings.model_dump(mode="json")], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


__all__ = ["Published", "publish", "settings_from"]
