"""A run folder's ``progress.json`` in, where its run stood when it last said so out: for another terminal than the run's."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path

from llmbatch.core.events import Snapshot
from llmbatch.core.types import Usage


@dataclass(frozen=True, slots=True)
class Progress:
    """A run's last snapshot. ``written_at`` is in seconds since the epoch."""

    snapshot: Snapshot
    written_at: float


def read_progress(folder: Path) -> Progress | None:
    """What the run of a folder last said; ``None`` where it said nothing, or another version of llmbatch did."""
    try:
        data = json.loads((folder / "progress.json").read_bytes())
        values = {field.name: data[field.name] for field in fields(Snapshot)}
        return Progress(Snapshot(**{**values, "usage": Usage(**values["usage"])}), float(data["written_at"]))
    except (OSError, ValueError, KeyError, TypeError):  # it is only for show
        return None
