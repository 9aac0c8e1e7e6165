"""A file, a folder or a glob of documents in, here or elsewhere; rows out, a row a document.

A row has ``text``, ``path`` (below the folder that was named), ``name``, ``media_type``, and ``title`` where the document has one.
Its id is its path. A document that is empty or that cannot be read has a record that says so. One document is in memory at a time.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import lzma
import zlib
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

import zstandard

from llmbatch.core.errors import ReadError, SourceError
from llmbatch.core.table import find
from llmbatch.core.types import Cursor, Failure, FailureKind, Row
from llmbatch.sources.base import START, Mark, Seeker, Source, SourceSettings
from llmbatch.sources.documents import DOCUMENTS, LIBRARIES, READERS
from llmbatch.sources.documents.base import LIMITS, MAX_TEXT, Document, ReadDocument, Unreadable, too_long
from llmbatch.sources.input_files import InputFiles, find_input, reading, suffix_of
from llmbatch.sources.places import Found, as_text, is_url, suffixes
from llmbatch.sources.rows import make_row

_CHUNK = 1 << 20
_DAMAGED = (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError)


def open_documents(settings: SourceSettings) -> Source:
    """A source of documents. Raises ``SourceError`` where there is none, or the library for one is not installed."""
    if settings.path == "-":
        raise SourceError("documents cannot be read from stdin: a row is a file; name it, its folder or a glob")
    return DocumentSource(find_input(settings.path, settings.storage_options, folders=True), settings)


class DocumentSource:
    """Rows of documents. In a cursor only ``index`` and ``file`` count, which are the same."""

    def __init__(self, found: Found, settings: SourceSettings) -> None:
        """Raises as ``open_documents`` does."""
        self._name = settings.path
        self._id_field = settings.id_field
        self._hidden = found.hidden
        # what was named although its suffix is none of a document is taken for plain text
        kinds = [
            DOCUMENTS.get(suffix_of(file.name), None if found.is_folder else "text/plain") for file in found.place.files
        ]
        self._passed_over = [file.name for file, kind in zip(found.place.files, kinds, strict=True) if kind is None]
        self._kinds = [kind for kind in kinds if kind is not None]
        if not self._kinds:
            raise SourceError("; ".join([f"{settings.path}: there is no document in it", *self.notes()]))
        documents = (file for file, kind in zip(found.place.files, kinds, strict=True) if kind is not None)
        self._files = InputFiles(found.place.only(documents))
        self._first = {kind: self._kinds.index(kind) for kind in LIBRARIES if kind in self._kinds}
        for kind, number in self._first.items():
            if importlib.util.find_spec(LIBRARIES[kind]) is None:
                raise SourceError(
                    f"{self._files.name(number)}: reading {kind} needs {LIBRARIES[kind]}: pip install 'llmbatch[documents]'"
                )

    def rows(self, start: Cursor = START) -> Iterator[Row]:
        return (self._row(number) for number in range(start.file, len(self._files)))

    def places(self, start: Cursor = START) -> Iterator[Row]:
        if self._id_field not in (None, "path", "name", "media_type"):
            return self.rows(start)
        return map(self._place, range(start.file, len(self._files)))

    def seeks(self) -> Seeker | None:
        return None if is_url(self._files.name(0)) else self

    def at(self, cursors: Sequence[Cursor]) -> Iterator[Row]:
        return (self._row(cursor.file) for cursor in cursors)

    def marks(self, rows: int) -> Iterator[Mark]:
        count = len(self._files)
        return (Mark(Cursor(at, at), min(rows, count - at)) for at in range(0, count, rows))

    def files(self) -> list[str]:
        return self._files.names()

    def notes(self) -> list[str]:
        passed_over = (
            [f"{len(self._passed_over):,} of other kinds ({suffixes(self._passed_over)})"] if self._passed_over else []
        )
        if self._hidden:
            passed_over.append(f"{self._hidden:,} hidden")
        if not passed_over:
            return []
        return [f"{self._name}: files passed over: {', '.join(passed_over)}; documents are {' '.join(DOCUMENTS)}"]

    def locate(self, cursor: Cursor) -> str:
        return self._files.name(cursor.file)

    def _called(self, cursor: Cursor) -> str:
        return self._files.called(cursor.file)

    def fingerprint(self, files: int | None = None) -> list[dict[str, Any]]:
        """First the packages that documents are read with, where there are some: what a row holds depends on them."""
        count = len(self._files) if files is None else files
        used = {
            kind: f"{LIBRARIES[kind]} {version(LIBRARIES[kind])}"
            for kind, first in self._first.items()
            if first < count
        }
        return [*([{"read_with": used}] if used else []), *self._files.fingerprint(files)]

    def digest(self, start: Cursor, stop: Cursor | None) -> str | None:
        """Of names and bytes."""
        sha256 = hashlib.sha256()
        end = len(self._files) if stop is None else stop.file
        if end > len(self._files):
            return None
        for number, file in islice(enumerate(self._files.place.files), start.file, end):
            sha256.update(f"{file.name}\0{file.size}\0".encode("utf-8", "surrogateescape"))
            with reading(self._files.name(number), lambda: 0), self._files.raw(number) as raw:
                while chunk := raw.read(_CHUNK):
                    sha256.update(chunk)
        return sha256.hexdigest()

    def progress(self, cursor: Cursor) -> float | None:
        return self._files.progress(cursor)

    def _known(self, number: int) -> dict[str, str]:
        """The fields that are known of a document that was not read."""
        path = as_text(self._files.place.files[number].name)
        return {"path": path, "name": PurePosixPath(path).name, "media_type": self._kinds[number]}

    def _id(self, known: Mapping[str, str]) -> str:
        return known.get(self._id_field or "path", known["path"])

    def _place(self, number: int) -> Row:
        return Row(number, self._id(self._known(number)), {}, Cursor(number, number))

    def _row(self, number: int) -> Row:
        cursor, known = Cursor(number, number), self._known(number)
        try:
            document = self._read(number, known["media_type"])
            if not document.text.strip():
                raise Unreadable("the document is empty: there is no text in it")
        except Unreadable as problem:
            failure = Failure(FailureKind.MALFORMED_ROW, f"{self._called(cursor)}: {problem}")
            return Row(number, self._id(known), {}, cursor, failure)
        title = {} if document.title is None else {"title": document.title}
        return make_row({"text": document.text, **title, **known}, cursor, self._id_field or "path", self._called)

    def _read(self, number: int, kind: str) -> Document:
        """Raises ``Unreadable``, and ``ReadError`` where it is the file system that fails."""
        limit = LIMITS.get(kind, MAX_TEXT)
        try:
            with self._files.open(number) as stream, reading(self._files.name(number), lambda: 0):
                content = stream.read(limit + 1)
        except ReadError as error:
            if not isinstance(error.__cause__, _DAMAGED):
                raise
            raise Unreadable(f"it cannot be decompressed: {error.__cause__}; fetch it anew") from error
        if len(content) > limit:
            raise too_long(limit)
        if not content:
            raise Unreadable("the document is empty")
        read: ReadDocument = find(READERS, kind, "kind of document", error=SourceError)
        return read(content)
