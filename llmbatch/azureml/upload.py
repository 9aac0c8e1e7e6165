"""A job's output folder in; copies of its files elsewhere out, the output file last: where that is, all are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from llmbatch.azureml.run import HIDDEN, Scored
from llmbatch.core.words import count
from llmbatch.sinks.base import SinkSettings
from llmbatch.sinks.upload import check_destination, copy_file


def check(to: str, output: Path) -> None:
    """See that files can be copied there, as far as that can be known. Raises ``JobError``."""
    check_destination(SinkSettings(to=to), output)


def upload(scored: Scored, to: str, say: Callable[[str], None]) -> None:
    """Copy all that the job and its script left, each file whole or not at all.

    Raises ``WriteError`` where that cannot be done; then the same command copies them again.
    """
    settings, output = SinkSettings(to=to), scored.output.absolute()
    files = [
        path for path in sorted(output.rglob("*")) if path.is_file() and path.relative_to(output).parts[0] != HIDDEN
    ]
    for path in sorted(files, key=lambda path: path == scored.file):
        copy_file(settings, path, f"{to.rstrip('/')}/{path.relative_to(output).as_posix()}", output)
    say(f"copied to {to}: {count(len(files))} files")
