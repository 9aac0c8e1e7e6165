"""Lines of results in, a file of some of them out, in the format that the job wants its pieces in."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from llmbatch.core.files import atomic_write, writing
from llmbatch.sinks.parquet import write_table


def write_piece(lines: Iterable[bytes], path: Path) -> None:
    """A file whose suffix says its format, whole or not at all; its folder is made. Raises ``WriteError``."""
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        write_table(lines, path)
    else:
        atomic_write(path, lines)


def remove_others(found: Iterable[Path], written: Collection[Path]) -> None:
    """Remove those pieces found that were not written now: an earlier session, with other settings, gave them other names."""
    kept = frozenset(written)
    for path in found:
        if path not in kept and path.suffix in (".jsonl", ".parquet") and path.is_file():
            with writing(path):
                path.unlink(missing_ok=True)
