"""OpenAI-batch requests (JSON lines) in, rows out: the id is ``custom_id``, the data the whole object."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmbatch.sources.base import Source, SourceSettings
from llmbatch.sources.input_files import InputFiles
from llmbatch.sources.jsonl import json_lines
from llmbatch.sources.lines import first_line


def open_requests(settings: SourceSettings) -> Source:
    """A source of requests; what ``body`` means is the prompt stage's matter."""
    return json_lines(InputFiles.named(settings.path), settings.id_field or "custom_id", _complaint)


def looks_like_requests(files: Sequence[Path]) -> bool:
    """Whether the first line that is not blank is a request. Raises ``ReadError``."""
    try:
        first = json.loads(first_line(InputFiles(files)))
    except (ValueError, RecursionError):
        return False
    return isinstance(first, dict) and "custom_id" in first and "body" in first


def _complaint(data: dict[str, Any]) -> str | None:
    missing = [name for name in ("custom_id", "body") if name not in data]
    if missing:
        return (
            f'a request has the form {{"custom_id": ..., "body": {{...}}}}, and this has no {" and no ".join(missing)}'
        )
    if not isinstance(data["body"], dict):
        return 'a request has the form {"custom_id": ..., "body": {...}}, and the body of this is not an object'
    return None
