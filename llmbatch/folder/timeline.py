"""A run's timeline in, its ``timeline.json`` out, and back. It is small, and of a fixed size however long the run takes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmbatch.core.files import writing
from llmbatch.report.timeline import Timeline

TIMELINE = "timeline.json"


def read_timeline(folder: Path) -> Timeline | None:
    """What a run did over time; ``None`` where that is not known."""
    try:
        return Timeline.from_dict(json.loads((folder / TIMELINE).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # it is only for show
        return None


def write_timeline(folder: Path, timeline: Mapping[str, Any]) -> None:
    """Write a timeline as JSON data. Raises ``WriteError``.

    Not through ``atomic_write``: nothing is lost with it, so it need not wait for the disk.
    """
    path = folder / TIMELINE
    temporary = path.with_name(f"{TIMELINE}.tmp")
    with writing(path):
        temporary.write_text(json.dumps(timeline, separators=(",", ":")), encoding="utf-8")
        temporary.replace(path)


__all__ = ["TIMELINE", "read_timeline", "write_timeline"]
