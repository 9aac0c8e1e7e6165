"""The contract of a kind of candidates: settings, and what is around them, in; what may be faster, or why that cannot be, out.

A kind is a function ``candidates(settings, around)`` and a line in the table. It says of each candidate what it changes, and
whether that can change answers. What this machine, this vLLM or this model cannot do it gives with a reason (``left_out``), as far
as that is known without a start; for the rest there is the trial.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from llmbatch.engines.kinds import Around, Candidate
from llmbatch.engines.settings import EngineSettings
from llmbatch.model.contents import config_here
from llmbatch.model.memory import text_config

Candidates = Callable[[EngineSettings, Around], Iterable[Candidate]]


def with_args(settings: EngineSettings, changes: Mapping[str, Any]) -> dict[str, Any]:
    """What of the settings a candidate changes, that changes these of vLLM's arguments."""
    return {"args": {**settings.args, **changes}}


def left_out(kind: str, name: str, why: str) -> Candidate:
    """A candidate that cannot be tried."""
    return Candidate(name, {}, kind, why_not=why)


def set_by_the_job(kind: str, settings: EngineSettings, *names: str) -> list[Candidate]:
    """The reason for a kind that the job itself decides, by one of these arguments; else nothing."""
    given = [f"engine.args.{name}" for name in names if name in settings.args]
    return [left_out(kind, kind, f"the job sets {' and '.join(given)}")] if given else []


def on_cpu(around: Around) -> bool:
    """Whether the engine runs on the processor."""
    return around.info.device == "cpu"


def config_of(settings: EngineSettings, around: Around) -> Mapping[str, Any]:
    """The model's config, its language model's part on top; empty where it is not on this machine."""
    return text_config(
        config_here(around.model, settings.args.get("revision"), settings.args.get("download_dir")) or {}
    )


def lacks_instructions(*names: str) -> bool:
    """Whether this machine's processor tells what it has, and has none of these instructions."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return False
    return bool(flags) and not flags.intersection(names)
