"""The files of a finished run in; copies of them elsewhere out, in a folder or at a URL, each whole or not at all.

What could not be copied is owed: the run folder keeps its files, and the same command copies what is missing. What an earlier
session of the run put there, and this one does not, is removed.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from llmbatch.core.errors import FolderError, JobError, WriteError
from llmbatch.core.files import atomic, writing
from llmbatch.folder.folder import PAGE, REPORT
from llmbatch.folder.uploads import PLAN, Uploads
from llmbatch.sinks.base import LAYOUT_FOLDER, SinkSettings
from llmbatch.sources import remote
from llmbatch.sources.places import expand, is_url

LAST = REPORT
"""Copied behind all others, unless there is a layout: where it is, they are."""

_AGAIN_SECONDS = (1.0, 4.0, 15.0, 40.0)  # an endpoint that fails is given so long between two tries
_AT_A_TIME = 8  # small files that are copied at the same time; a long one is up to 100 MB of memory, and has it alone
_SMALL = 8 << 20  # bytes


def check_destination(settings: SinkSettings, folder: Path) -> None:
    """See that files can be copied where the job says, as far as that can be known before there are any. Raises ``JobError``."""
    if settings.to is None:
        if settings.storage_options:
            raise JobError("sinks.storage_options is for the URL of sinks.to, and there is none: leave it out")
    elif is_url(settings.to):
        remote.check_target(_below(settings.to, LAST), settings.storage_options, JobError)
    else:
        if settings.storage_options:
            raise JobError(f"sinks.storage_options is for URLs, and {settings.to} is none: leave it out")
        to, run = Path(expand(settings.to)).absolute(), folder.expanduser().absolute()
        if to == run or run in to.parents:
            raise JobError(f"sinks.to: {settings.to} is the run folder, or lies in it: give another folder, or a URL")


def plan_upload(settings: SinkSettings, folder: Path, files: Sequence[Path], *, page: bool = False) -> None:
    """Note that these files, and the report behind them, are to be copied, where the job says so. Raises ``WriteError``.

    ``page``: the run's page too, which is still to be made, and may come to nothing.
    """
    if settings.to is not None:
        if settings.layout is not None:
            laid_out = folder / LAYOUT_FOLDER
            names = [str(path.relative_to(folder)) for path in files if laid_out in path.parents]
        else:
            names = [*(str(path.relative_to(folder)) for path in files), *([PAGE] if page else []), LAST]
        Uploads(folder).plan(_place(settings.to), names)


def upload_more(settings: SinkSettings, folder: Path, files: Sequence[Path], say: Callable[[str], None]) -> None:
    """Copy these files too, which were made of the finished run, and the others with them once more. Raises as ``upload``."""
    if settings.to is None:
        return
    planned = [folder / name for name in Uploads(folder).planned() if name != LAST]
    plan_upload(settings, folder, list(dict.fromkeys([*planned, *files])))
    upload(settings, folder, say)


def to_upload(settings: SinkSettings, folder: Path) -> list[str] | None:
    """What is left to be copied; ``None`` where nothing was planned for this place yet. Raises ``FolderError``."""
    return [] if settings.to is None else Uploads(folder).owed(_place(settings.to))


def upload(settings: SinkSettings, folder: Path, say: Callable[[str], None]) -> None:
    """Copy what is planned and not there. Raises ``WriteError`` where that cannot be done; what has arrived is not copied again.

    Raises ``FolderError`` where a file is gone from the run folder.
    """
    owed = to_upload(settings, folder)
    if settings.to is None or not owed:
        return
    uploads, to = Uploads(folder), settings.to
    if PAGE in owed and not (folder / PAGE).is_file():  # it could not be made, which a note in the report says
        owed.remove(PAGE)
        uploads.arrived(PAGE)
    if gone := next((name for name in owed if not (folder / name).is_file()), None):
        raise FolderError(
            f"{folder / gone}: is to be copied to {to}, and is not there; remove {folder / PLAN}, and the same command makes and "
            "copies all files anew"
        )
    concurrent = is_url(to) and remote.is_concurrent(_below(to, LAST), settings.storage_options)

    def copy(name: str) -> None:
        copy_file(settings, folder / name, _below(to, _there(settings, name)), folder)
        uploads.arrived(name)

    last = owed[-1]  # where it is, all are
    files = owed[:-1]
    small = {name: None for name in files if concurrent and (folder / name).stat().st_size <= _SMALL}
    for name in files:
        if name not in small:
            copy(name)
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        copies = [pool.submit(copy, name) for name in small]
        try:
            for each in copies:
                each.result()
        finally:
            for each in copies:
                each.cancel()
    for name in uploads.outdated():
        _removed(settings, _below(to, _there(settings, name)), folder)
    copy(last)
    say(f"copied to {to}: {len(owed):,} files")


def copy_file(settings: SinkSettings, file: Path, to: str, folder: Path) -> None:
    """Copy one file to a URL or a path, tried again with pauses where that may help; ``folder`` is what messages call its own.

    Raises ``WriteError``.
    """
    if is_url(to):
        _tried(partial(remote.put, file, to, settings.storage_options), to, folder)
        return
    target = Path(expand(to))
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    with file.open("rb") as source, atomic(target) as stream:
        shutil.copyfileobj(source, stream, 1 << 20)


def _removed(settings: SinkSettings, to: str, folder: Path) -> None:
    if is_url(to):
        _tried(partial(remote.remove, to, settings.storage_options), to, folder)
        return
    with writing(Path(expand(to))):
        Path(expand(to)).unlink(missing_ok=True)


def _tried(step: Callable[[], None], to: str, folder: Path) -> None:
    for pause in (*_AGAIN_SECONDS, None):
        try:
            step()
            return
        except OSError as error:
            if pause is None or isinstance(error, FileNotFoundError | PermissionError):
                raise WriteError(
                    f"{to}: could not be copied there: {error}. The results are in {folder}; run the same command again, and it "
                    "copies what is missing"
                ) from error
        time.sleep(pause)


def _there(settings: SinkSettings, name: str) -> str:
    """What a file of the run folder is called where it is copied to: of a layout only its own tree is."""
    return name.removeprefix(f"{LAYOUT_FOLDER}/") if settings.layout is not None else name


def _place(to: str) -> str:
    """The same for the same place, from whatever folder it is named."""
    return to if is_url(to) else str(Path(expand(to)).absolute())


def _below(to: str, name: str) -> str:
    return f"{to.rstrip('/')}/{name}"
