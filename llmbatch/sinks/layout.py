"""A finished run in; below ``output/`` the files of the layout that the job names out."""

from __future__ import annotations

from pathlib import Path

from llmbatch.core.files import atomic_folder
from llmbatch.sinks.base import LAYOUT_FOLDER, Finished, Output
from llmbatch.sinks.layouts.base import layout_of


def write_layout(finished: Finished, output: Output) -> list[Path]:
    """The folder is made anew: what an earlier session wrote into it is gone."""
    settings, place = output.settings.layout, output.folder / LAYOUT_FOLDER
    if settings is None:
        return []
    with atomic_folder(place) as folder:
        written = layout_of(settings).write(finished, folder)
        names = [path.relative_to(folder) for path in written.files]
    finished.laid_out(written.failure)
    return [place / name for name in names]
