"""What a batch deployment and a parallel job have in common: files in mini-batches, a script for them, and how much may fail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


class Thresholds(NamedTuple):
    """How much may fail before the job is ended. A negative number: any number may.

    ``items`` are files over the whole input, ``mini_batches`` those that failed or of which rows are missing, ``percent`` is such
    mini-batches' share.
    """

    items: int = -1
    mini_batches: int = -1
    percent: float = 100.0


ALL_TOLERATED = Thresholds()


@dataclass(frozen=True, slots=True)
class Script:
    """A scoring script: the folder of its code, the file in it, and what it is given."""

    code: Path
    file: str
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return self.code / self.file


@dataclass(frozen=True, slots=True)
class Scoring:
    """A document as it is run here. Paths in it are absolute.

    ``script`` is ``None`` where the document has none, and llmbatch itself is to answer. ``model`` is a folder or file, or a name
    that only llmbatch's engines know. ``output_file`` is ``None`` where rows are counted, and not written. ``processes`` is
    ``None`` where it goes by the machine. ``input`` and ``outputs`` are what the document itself says of them. ``read`` and
    ``without_effect`` say, a sentence each, what was read and what has no effect here.
    """

    name: str
    script: Script | None
    model: str | None = None
    mini_batch_size: int = 10
    processes: int | None = 1
    retries: int = 3
    timeout: float = 30.0
    start_timeout: float = 600.0
    thresholds: Thresholds = ALL_TOLERATED
    output_file: str | None = "predictions.csv"
    output_folders: tuple[str, ...] = ()
    logging_level: str = "info"
    input: str | None = None
    read: tuple[str, ...] = ()
    without_effect: tuple[str, ...] = ()
