"""A Hugging Face dataset in (a hub name, a folder of ``save_to_disk`` or of data files), rows out, as JSON values."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llmbatch.core.errors import ReadError, SourceError
from llmbatch.core.settings import is_there
from llmbatch.core.types import Cursor, Row
from llmbatch.core.words import excerpt
from llmbatch.sources.base import START, Mark, Seeker, Source, SourceSettings
from llmbatch.sources.places import expand
from llmbatch.sources.rows import choose_columns
from llmbatch.sources.tables import BATCH, numbered_marks, plain_fields, table_row


def open_dataset(settings: SourceSettings) -> Source:
    """A source of one split. Raises ``SourceError`` where it cannot be had, with the library's words and what to try."""
    if settings.path == "-":
        raise SourceError("a dataset cannot be read from stdin; name it, or its folder")
    identity = {"dataset": settings.path}
    for name in ("config", "split", "revision", "streaming"):
        if value := getattr(settings, name):
            identity[name] = value
    return DatasetSource(_load(settings), settings.path, settings.id_field, settings.columns, identity)


class DatasetSource:
    """Rows of a ``datasets.Dataset`` or ``IterableDataset``.

    A cursor's ``offset`` and ``line`` are both the row's number. A streamed dataset is entered again by skipping, which
    for some of them means reading.
    """

    def __init__(
        self,
        data: Any,
        name: str,
        id_field: str | None = None,
        columns: tuple[str, ...] | None = None,
        identity: dict[str, Any] | None = None,
    ) -> None:
        """Raises ``SourceError`` for a column that is missing or that holds media."""
        self._data = _select(data, name, id_field, columns)
        self._fingerprint = getattr(data, "_fingerprint", None)
        self._name = name
        self._id_field = id_field
        self._identity = identity or {"dataset": name}

    def rows(self, start: Cursor = START) -> Iterator[Row]:
        index, position = start.index, start.offset
        for batch in self._batches(position):
            names = list(batch)
            for values in zip(*batch.values(), strict=True):
                fields = plain_fields(dict(zip(names, values, strict=True)), names)
                yield table_row(fields, Cursor(index, 0, position, position), self._id_field, self._called)
                index, position = index + 1, position + 1

    def locate(self, cursor: Cursor) -> str:
        return f"{self._name}[{cursor.offset}]"

    def _called(self, cursor: Cursor) -> str:
        """As records tell it: however a folder was named."""
        name = Path(self._name).expanduser().absolute().name if is_there(self._name) else self._name
        return f"{name}[{cursor.offset}]"

    def places(self, start: Cursor = START) -> Iterator[Row]:
        return self.rows(start)

    def seeks(self) -> Seeker | None:
        """A streamed one is read forward."""
        return None if self._length() is None else self

    def at(self, cursors: Sequence[Cursor]) -> Iterator[Row]:
        for start in range(0, len(cursors), BATCH):
            some = cursors[start : start + BATCH]
            chosen = self._data.select([cursor.offset for cursor in some]).with_format(None)
            try:
                columns = chosen[:]
            except Exception as error:  # whatever the library raises
                raise self._failed(some[0].offset, error) from error
            for cursor, values in zip(some, zip(*columns.values(), strict=True), strict=True):
                fields = plain_fields(dict(zip(columns, values, strict=True)), list(columns))
                yield table_row(fields, cursor, self._id_field, self.locate)

    def marks(self, rows: int) -> Iterator[Mark]:
        return numbered_marks(self._length() or 0, rows)

    def files(self) -> list[str]:
        return [Path(self._name).name]

    def notes(self) -> list[str]:
        return []

    def fingerprint(self, files: int | None = None) -> list[dict[str, Any]]:  # noqa: ARG002
        """What named the dataset, and where it is not streamed the library's own fingerprint and the number of rows."""
        return [{**self._identity, "fingerprint": self._fingerprint, "rows": self._length()}]

    def digest(self, start: Cursor, stop: Cursor | None) -> str | None:  # noqa: ARG002
        """``None``: the fingerprint tells datasets apart, and reading rows anew may be reading over the network."""
        return None

    def progress(self, cursor: Cursor) -> float | None:
        length = self._length()
        return None if length is None else min(1.0, cursor.offset / max(1, length))

    def _length(self) -> int | None:
        return len(self._data) if hasattr(self._data, "__len__") else None

    def _batches(self, skip: int) -> Iterator[dict[str, list[Any]]]:
        """Columns of some rows at a time, from row ``skip`` on. Raises ``ReadError``."""
        length, position = self._length(), skip
        if length is not None and skip > length:
            raise ReadError(f"{self._name}: has {length} rows, and {skip} were read before")
        try:
            rest = self._data.skip(skip) if length is None else self._data.select(range(skip, length))
            for batch in rest.with_format(None).iter(BATCH):
                yield batch
                position += len(next(iter(batch.values()), ()))
        except Exception as error:  # whatever the library and the network below it raise
            raise self._failed(position, error) from error

    def _failed(self, position: int, error: Exception) -> ReadError:
        return ReadError(
            f"{self._name}: cannot be read beyond row {position}: {type(error).__name__}: {excerpt(str(error))}; "
            "run the same command again to go on from there"
        )


def _select(data: Any, name: str, id_field: str | None, columns: tuple[str, ...] | None) -> Any:
    """The dataset with the columns that are to be read."""
    known = data.column_names  # not known of some streamed datasets
    if known is not None:
        chosen = choose_columns(name, known, columns, id_field)
        data = data.select_columns(chosen) if chosen != known else data
    elif columns:
        data = data.select_columns([*columns, *([id_field] if id_field else [])])
    for column, feature in (data.features or {}).items():
        if (as_read := _undecoded(feature)) is not feature:
            data = data.cast_column(column, as_read)
    features = data.features or {}
    if media := [column for column, feature in features.items() if _is_media(feature)]:
        rest = [column for column in features if column not in media]
        raise SourceError(
            f"{name}: the column {media[0]!r} holds media ({type(features[media[0]]).__name__}), and llmbatch reads text, "
            f"JSON and images; name the columns to read: input.columns={json.dumps(rest)}"
        )
    return data


def _undecoded(feature: Any) -> Any:
    """The feature itself, or where it is of images one whose values are bytes or paths: they are decoded ahead of the engine."""
    kind = type(feature).__name__
    if kind == "Image" and feature.decode:
        return dataclasses.replace(feature, decode=False)
    if kind in ("List", "LargeList", "Sequence") and (inner := _undecoded(feature.feature)) is not feature.feature:
        return type(feature)(inner)
    return feature


def _is_media(feature: Any) -> bool:
    """Whether a feature, or one inside it, decodes to something else than JSON: sound, video, documents, images within objects."""
    if type(feature).__name__ == "Image":
        return bool(feature.decode)
    if isinstance(feature, dict):
        return any(_is_media(inner) for inner in feature.values())
    if isinstance(feature, list | tuple):
        return any(_is_media(inner) for inner in feature)
    if hasattr(feature, "decode_example"):
        return type(feature).__name__ != "Json"
    return hasattr(feature, "feature") and _is_media(feature.feature)


def _load(settings: SourceSettings) -> Any:
    import datasets

    path = expand(settings.path)
    try:
        if any((Path(path) / marker).is_file() for marker in ("state.json", "dataset_dict.json")):
            return _of_disk(datasets.load_from_disk(path), settings)
        return datasets.load_dataset(
            path,
            settings.config,
            split=settings.split or "train",
            revision=settings.revision,
            streaming=settings.streaming,
        )
    except SourceError:
        raise
    except Exception as error:  # of the library, the network, the file system: the dataset cannot be had
        raise SourceError(f"{settings.path}: {_explain(error, settings)}") from error


def _of_disk(data: Any, settings: SourceSettings) -> Any:
    """One split of what ``load_from_disk`` gave."""
    if isinstance(data, dict):
        split = settings.split or "train"
        if split not in data:
            raise SourceError(f"{settings.path}: no split {split!r}; set input.split to one of {', '.join(data)}")
        return data[split]
    if settings.split not in {None, str(data.split)}:
        raise SourceError(f"{settings.path}: a single split was saved there ({data.split}); leave input.split out")
    return data


def _explain(error: Exception, settings: SourceSettings) -> str:
    said = " ".join(str(error).split())
    if isinstance(error, ConnectionError):
        return f"{said}: no such file here, and the hub cannot be reached; check the path, or the network"
    if isinstance(error, FileNotFoundError):
        return f"{said}; check the name (a local file is named with its suffix, such as .jsonl)"
    if "split" in said.lower():
        return f"{said} (input.split is {settings.split or 'train'!r})"
    if "config" in said.lower():
        return f"{said} (set input.config)"
    if (
        error.__cause__ is not None and Path(settings.path).is_dir()
    ):  # the library says that it failed, and its cause why
        reason = " ".join(str(error.__cause__).split())
        return (
            f"the folder cannot be loaded as a dataset: {reason}. To have each of its lines be a row, and a broken one fail alone, "
            "name its files, as with '**/*.jsonl' behind the folder"
        )
    return f"{type(error).__name__}: {said}"
