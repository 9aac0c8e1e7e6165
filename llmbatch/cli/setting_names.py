"""Nothing in; the settings that ``--set`` takes, each with a few words on what it is, out.

They are read from the classes of a job. To import these takes most of a second, which is long for a press of a key: so they are
kept in a file of the user's cache until a file of llmbatch changes.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from llmbatch import __version__

if TYPE_CHECKING:
    from pydantic import BaseModel

_PACKAGE = Path(__file__).parents[1]


def setting_names() -> dict[str, str]:
    """By name, as in a job file with dots between a section and its key."""
    kept, mark = _kept_in(), _mark()
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(kept.read_bytes())
        if known["mark"] == mark:
            return dict(known["settings"])
    found = dict(read_settings())
    with contextlib.suppress(OSError):  # it is only for speed
        kept.parent.mkdir(parents=True, exist_ok=True)
        temporary = kept.with_name(f"{kept.name}.{os.getpid()}")
        temporary.write_text(json.dumps({"mark": mark, "settings": found}), encoding="utf-8")
        temporary.replace(kept)
    return found


def read_settings() -> Iterator[tuple[str, str]]:
    """As ``setting_names``, from the classes themselves."""
    from llmbatch.core.sampling import SAMPLING
    from llmbatch.job.job import Job

    yield from _settings_of(Job, "")
    for name, kinds in SAMPLING.items():
        yield f"sampling.{name}", " or ".join(kinds)


def _settings_of(settings: type[BaseModel], section: str) -> Iterator[tuple[str, str]]:
    from pydantic import BaseModel

    for name, field in settings.model_fields.items():
        place = section + (field.alias or name)
        kinds: list[Any] = [field.annotation, *get_args(field.annotation)]
        inner = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if inner is None:
            yield place, field.description or ""
        else:
            yield from _settings_of(inner, f"{place}.")


def _kept_in() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "llmbatch" / "settings.json"


def _mark() -> str:
    """What is another one where llmbatch is."""
    rooms = [entry for entry in os.scandir(_PACKAGE) if entry.is_dir()]
    changed = max(file.stat().st_mtime_ns for room in rooms for file in os.scandir(room) if file.name.endswith(".py"))
    return f"{__version__} {_PACKAGE} {changed}"
