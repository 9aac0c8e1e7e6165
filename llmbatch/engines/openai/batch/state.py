"""What a run knows of its batches, on disk before it matters: a kill at any time costs no second payment.

A folder with, for each batch: ``NAME.jsonl`` (what is asked, before it is uploaded), ``NAME.json`` (how far it is: the file's id,
that a batch is being made, the batch's id), and ``NAME.out.jsonl`` (what came back). NAME is a digest of what is asked. The
outputs are kept, as the run may be killed before it has written down what they say; the folder can be removed once it is finished.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from llmbatch.core.errors import FolderError
from llmbatch.core.files import atomic_write, writing
from llmbatch.engines.openai.batch.lines import Line, read_line

_RUN = "run.json"


@dataclass(frozen=True, slots=True)
class Batch:
    """How far one is."""

    name: str
    path: str
    lines: int
    file: str | None = None  # the uploaded file's id
    asked: bool = False  # a batch of it was asked for, and may have been made
    id: str | None = None
    ended: bool = False  # its output is here


class State:
    """The folder. ``run`` is an id of this run alone, by which its batches are known among others of the account."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with writing(folder):
            folder.mkdir(exist_ok=True)
        self.run = self._own_id()
        self.batches = {batch.name: batch for batch in self._read()}

    def add(self, lines: Sequence[Line]) -> Batch:
        """A new batch of these lines, which has yet to be sent."""
        digest = sha256()
        for line in lines:
            digest.update(line.text)
        name = digest.hexdigest()[:24]
        # an equal one ended without an answer to any of them
        name = f"{name}-{sum(known.startswith(name) for known in self.batches)}"
        atomic_write(self.asked(name), (line.text for line in lines))
        return self.set(Batch(name, lines[0].path, len(lines)))

    def set(self, batch: Batch, **changes: object) -> Batch:
        """Write down how far it is."""
        batch = replace(batch, **changes)  # type: ignore[arg-type]
        atomic_write(self.told(batch.name), json.dumps(asdict(batch)).encode())
        self.batches[batch.name] = batch
        return batch

    def end(self, batch: Batch, outputs: Iterable[bytes]) -> Batch:
        """Keep what came back."""
        atomic_write(
            self.output(batch.name), (part if part.endswith(b"\n") else part + b"\n" for part in outputs if part)
        )
        return self.set(batch, ended=True)

    def told(self, name: str) -> Path:
        """How far it is: without this file it was never asked for."""
        return self._folder / f"{name}.json"

    def asked(self, name: str) -> Path:
        return self._folder / f"{name}.jsonl"

    def output(self, name: str) -> Path:
        return self._folder / f"{name}.out.jsonl"

    def lines(self, name: str) -> Iterator[Line]:
        """What a batch asks."""
        with self.asked(name).open("rb") as lines:
            yield from map(read_line, lines)

    def _own_id(self) -> str:
        path = self._folder / _RUN
        if not path.exists():
            atomic_write(path, json.dumps({"run": uuid.uuid4().hex}).encode())
        return str(self._load(path)["run"])

    def _read(self) -> Iterator[Batch]:
        for path in sorted(self._folder.glob("*.json")):
            if path.name != _RUN:
                yield Batch(**self._load(path))

    def _load(self, path: Path) -> dict[str, Any]:
        try:
            return dict(json.loads(path.read_bytes()))
        except (OSError, ValueError) as error:
            raise FolderError(
                f"{path} is damaged: {error}. It says what was paid for: see the provider's list of batches"
            ) from error


def on_their_way(folder: Path) -> int:
    """How many batches that a run asked for have not been brought back."""
    return sum(not batch.ended for batch in State(folder).batches.values()) if folder.is_dir() else 0


__all__ = ["Batch", "State", "on_their_way"]
