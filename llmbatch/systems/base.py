"""The contract of a system: its job document in, a job of ours that does the same out, and what of it has no effect here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from llmbatch.core.errors import JobError, PromptError
from llmbatch.core.table import find
from llmbatch.prompt.document import read_document
from llmbatch.systems import SYSTEMS

_LINES = re.compile(r"\.(jsonl|ndjson)(\.(gz|zst|bz2|xz))?\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Assets:
    """What names and addresses in a document stand for here: a model's name, the beginning of an address."""

    places: Mapping[str, str] = field(default_factory=dict)

    def place(self, address: str) -> str:
        """A file's or a folder's address, with the longest beginning that is known put in its place."""
        known = [name for name in self.places if address == name or address.startswith(f"{name.rstrip('/')}/")]
        if not known:
            return address
        name = max(known, key=len)
        rest = address[len(name) :].lstrip("/")
        return f"{self.places[name].rstrip('/')}/{rest}" if rest else self.places[name]

    def model(self, name: str) -> str:
        """What a model is called here; its own name where nothing else is known."""
        return self.places.get(name, name)


@dataclass(frozen=True, slots=True)
class FromDocument:
    """A job for ``job_from``, with absolute paths, and what a person should know: what was read, and which keys do nothing here.

    ``output`` need not be in it: ``name`` says what the run folder is called where nobody names one. ``of_the_engine`` are the keys
    that set the job's own engine: where it runs on one that is shared they do nothing either.
    """

    job: Mapping[str, Any]
    name: str
    read: Sequence[str] = ()
    without_effect: Sequence[str] = ()
    of_the_engine: Sequence[str] = ()

    def notes(self) -> list[str]:
        """Sentences, one a thing."""
        keys = self.without_effect
        said = [f"{', '.join(keys)}: {'has' if len(keys) == 1 else 'have'} no effect here"] if keys else []
        return [*self.read, *said]


class System(Protocol):
    """One system. Documents are plain data."""

    name: str

    def recognizes(self, document: Any, path: Path) -> bool:
        """Whether the document is one of its own, by its keys."""

    def job(self, document: Any, path: Path, assets: Assets) -> FromDocument:
        """What the document asks for; ``path`` is the file that it stands in.

        Raises ``JobError`` that names a key which is not done here, and says what to do.
        """


def read_job_document(path: Path, assets: Assets) -> FromDocument | None:
    """What a file asks for that is some system's job document, or an input of JSON lines; ``None`` for any other file.

    Raises ``JobError``.
    """
    if is_lines(path):
        return FromDocument({"input": {"path": str(path.absolute())}}, _LINES.sub("", path.name))
    document = _read(path)
    if document is None:
        return None
    for name in SYSTEMS:
        system: System = find(SYSTEMS, name, "system")()
        if system.recognizes(document, path):
            return system.job(document, path, assets)
    return None


def is_lines(path: Path) -> bool:
    """Whether a file is an input of JSON lines, by its name."""
    return _LINES.search(path.name) is not None


def unused_assets(path: Path, assets: Mapping[str, str]) -> list[str]:
    """Sentences about the beginnings of addresses that no address of a document has, as where one is misspelt."""
    names = [name for name in assets if "/" in name]
    if not names or is_lines(path):
        return []
    addresses = list(_texts(_read(path)))
    return [
        f"--asset {name}: no address in {path} begins with it"
        for name in names
        if not any(f"{text}/".startswith(f"{name.rstrip('/')}/") for text in addresses)
    ]


def _texts(document: Any) -> Iterator[str]:
    if isinstance(document, str):
        yield document
    elif isinstance(document, dict | list):
        for inner in document.values() if isinstance(document, dict) else document:
            yield from _texts(inner)


def _read(path: Path) -> Any:
    """A file's JSON or YAML; ``None`` for one that is neither, which others complain about."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError):
        return None
    if path.suffix.lower() == ".json":
        try:
            return json.loads(text)
        except ValueError as error:
            raise JobError(f"{path}: not JSON: {error}; a job document is one JSON object") from None
    try:
        return read_document(text, str(path)).value
    except PromptError:
        return None
