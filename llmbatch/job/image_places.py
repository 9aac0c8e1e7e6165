"""A row whose prompt names images in; the same prompt with their paths made absolute, and where the row stands, for messages, out.

A path in a row is relative to the folder of the file that the row stands in; of rows that stand in no file of their own (stdin,
rows in memory) to the folder that this process is in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from llmbatch.core.errors import ReadError, SourceError
from llmbatch.core.messages import images_in
from llmbatch.core.remote_files import is_http
from llmbatch.core.types import Cursor, Failure, FailureKind, Prompt, Row
from llmbatch.core.words import short
from llmbatch.folder.folder import JOB_FILE
from llmbatch.folder.input_copy import KEPT
from llmbatch.images.naming import is_allowed, relocated, shown
from llmbatch.sources.base import SourceSettings
from llmbatch.sources.input_files import InputFiles, find_input
from llmbatch.sources.places import Place, called, is_url


class ImagePlaces:
    """Where the images of one input's rows lie. The input is looked for when the first row names one."""

    def __init__(self, settings: SourceSettings, output: Path, allowed: Sequence[str] | None) -> None:
        self._settings = settings
        self._output = output
        self._allowed = allowed

    def located(self, prompt: Prompt, row: Row, *, ready_made: bool) -> Prompt | Failure:
        """The prompt with images that anybody can find, who say which row they are of.

        Whoever wrote a row's ready-made messages need not be who runs the job: they name web addresses, what lies below the
        folder of their file, and what the job allows. A variable that the prompt's author declared an image may name any file.
        """
        file = self._file(row.cursor)
        folder = self._folder(None if file is None or self._place is None else self._place.folder + file)
        messages = tuple(relocated(message, folder) for message in prompt.messages or ())
        place = (
            f"row {short(row.id)}"
            if file is None
            else f"{self._called(file)}:{row.cursor.line + 1}, row {short(row.id)}"
        )
        images = tuple(image._replace(place=place) for image in images_in(messages))
        if ready_made and self._allowed is None:
            for image in images:
                if not is_http(image.url) and not is_allowed(image.url, (folder,)):
                    said = f"{shown(image.url)} is not below {folder}, and ready-made messages name no other files"
                    return Failure(FailureKind.IMAGE, f"{place}: the image {said}: allow it with engine.images.allow")
        return replace(prompt, messages=messages, images=images)

    @cached_property
    def _place(self) -> Place | None:
        """Where the input's files lie; None where it is not one of files."""
        path = self._settings.path
        if not path or path == "-" or _is_copy(Path(path), self._output):
            return None
        try:
            if self._settings.more:
                return InputFiles.of(self._settings).place
            return find_input(path, self._settings.storage_options, folders=True).place
        except (SourceError, ReadError):  # a dataset of the hub
            return None

    @cached_property
    def _called(self) -> Callable[[str], str]:
        return called(self._place) if self._place is not None else str

    def _file(self, cursor: Cursor) -> str | None:
        """The name of a row's file, as its place has it."""
        files = () if self._place is None else self._place.files
        return files[cursor.file].name if cursor.file < len(files) else None

    def _folder(self, file: str | None) -> str:
        """The folder of a file, with its slash; this process's where there is no file."""
        if file is None:
            return f"{Path.cwd()}/"
        folder = file[: len(file) - len(file.rpartition("/")[2])]
        return folder if is_url(file) else f"{Path(folder).absolute()}/"


def _is_copy(path: Path, output: Path) -> bool:
    """Whether an input is what a run folder keeps of rows that are nowhere else: the job's own, begun or not, or another run's."""
    if path.name != KEPT:
        return False
    return path.parent.absolute() == output.expanduser().absolute() or (path.parent / JOB_FILE).exists()


__all__ = ["ImagePlaces"]
