"""A task's data set and a split in; the source of its rows out, from the hub, a file, or a local copy of either.

A local copy (``--data PATH``) is a file, a folder of ``save_to_disk``, or a folder with a file for each split, as on the hub:
``test.jsonl``, ``ARC-Challenge/test-00000-of-00001.parquet``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from llmbatch.core.errors import SourceError
from llmbatch.core.words import near
from llmbatch.sources.base import Source, SourceSettings
from llmbatch.sources.opening import open_source

_FILE = re.compile(r"(?P<split>[\w.]+?)(?:-\d+-of-\d+)?\.(?:jsonl|ndjson|json|csv|tsv|parquet)(?:\.(?:gz|zst|bz2|xz))?")
_OF_ANOTHER_PLACE = {
    "config": None,
    "split": None,
    "revision": None,
    "streaming": False,
    "format": None,
    "columns": None,
}


def open_split(dataset: SourceSettings, split: str | None = None, data: Path | None = None) -> Source:
    """The rows of a split, by default the data set's own. ``data`` is a local copy. Raises ``SourceError``."""
    if data is not None:
        return open_source(_local(dataset, split or dataset.split or "train", data))
    if split is not None and not _has_splits(dataset):
        raise SourceError(
            f"few_shot.split: {dataset.path} is a file, which has no split {split!r}; name the examples' file as few_shot.dataset"
        )
    return open_source(dataset if split is None else dataset.model_copy(update={"split": split}))


def _has_splits(dataset: SourceSettings) -> bool:
    if dataset.format is not None:
        return dataset.format == "dataset"
    return dataset.split is not None or not Path(dataset.path).expanduser().is_file()


def _local(dataset: SourceSettings, split: str, data: Path) -> SourceSettings:
    if data.is_file():
        if split != (dataset.split or "train"):
            raise SourceError(
                f"{data}: is one file, and examples are to come from the split {split!r}: give --data a folder with a file for "
                f"each split, such as {split}.jsonl"
            )
        return dataset.model_copy(update={**_OF_ANOTHER_PLACE, "path": str(data)})
    if not data.is_dir():
        raise SourceError(f"{data}: there is no such file or folder; --data names a local copy of {dataset.path}")
    if any((data / marker).is_file() for marker in ("dataset_dict.json", "state.json")):
        return dataset.model_copy(update={"path": str(data), "format": "dataset", "split": split, "revision": None})
    found: dict[str, list[Path]] = {}
    for name, file in _files(data, dataset.config):
        found.setdefault(name, []).append(file)
    if split not in found:
        seen = f"there are {', '.join(sorted(found))}" if found else "there are no files of data in it"
        raise SourceError(
            f"{data}: no split {split!r}{near(split, found)}: {seen}; a split is a file such as {split}.jsonl"
        )
    paths = sorted(found[split])
    path = str(paths[0]) if len(paths) == 1 else _pattern(paths)
    return dataset.model_copy(update={**_OF_ANOTHER_PLACE, "path": path})


def _files(data: Path, config: str | None) -> Iterator[tuple[str, Path]]:
    """(split, file) of a folder: in the first place where there are any."""
    for folder in ([data / config] if config else []) + [data, data / "data"]:
        files = [path for path in folder.glob("*") if path.is_file()] if folder.is_dir() else []
        matches = [(match["split"], path) for path in files if (match := _FILE.fullmatch(path.name))]
        if matches:
            yield from matches
            return


def _pattern(paths: list[Path]) -> str:
    name = re.sub(r"-\d+-of-", "-*-of-", paths[0].name)
    return str(paths[0].with_name(name))


__all__ = ["open_split"]
