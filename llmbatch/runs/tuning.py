"""A run's job in; the settings that its engines start with out: those that were tuned, now or in an earlier session."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from llmbatch.core.errors import JobError
from llmbatch.engines.base import Engine, EngineInfo, Speculation
from llmbatch.engines.devices import this_machine
from llmbatch.engines.making import Maker
from llmbatch.engines.settings import EngineSettings
from llmbatch.engines.side_by_side import SideBySide
from llmbatch.job.job import Job
from llmbatch.measure.autotune import Known, autotune, read, sentences, write
from llmbatch.measure.tuning_sample import sample_requests
from llmbatch.sources.base import Source


class Tuner:
    """Called when there is work for an engine. ``found`` is what was tried, once it was; ``path`` keeps it for later sessions."""

    def __init__(self, job: Job, source: Source, path: Path, make: Maker, say: Callable[[str], None]) -> None:
        if job.reuse.cache is not None and job.run.tuning.tolerance is not None:
            raise JobError(
                "run.tuning.tolerance with reuse.cache: which answers the cache gives is decided before anything is tuned, and "
                "tuned answers may differ from these: leave one of the two out"
            )
        self._job = job
        self._source = source
        self._path = path
        self._make = make
        self._say = say
        self.found: dict[str, Any] | None = None

    def __call__(self, settings: EngineSettings) -> EngineSettings:
        """Try, or read what was found. Raises ``WriteError``."""
        job = self._job
        asked = job.run.tuning.model_dump(mode="json")
        about = json.dumps([job.model, settings.model_dump(mode="json"), asked], sort_keys=True)
        found = read(self._path, about)
        if found is None:
            sample = partial(sample_requests, job, self._source, job.run.tuning.requests)
            found = autotune(self._one, settings, sample, self._say, self._known())
            write(self._path, about, found)
        for said in sentences(found):
            self._say(said)
        self.found = found
        return settings.model_copy(update=found["changes"])

    def settled(self, info: EngineInfo) -> EngineInfo:
        """What an engine is, and with which arguments that answers depend on: those of the choice are none of the job's."""
        if self.found is None:
            return info
        chosen = next(tried for tried in self.found["tried"] if tried["name"] == self.found["chosen"])
        if chosen["exact"]:
            return info
        changed = {name: value for name, value in chosen["settings"].items() if name != "args"}
        return replace(info, settled={**info.settled, **changed, **chosen["settings"].get("args", {})})

    def _known(self) -> Known:
        job = self._job
        priced = job.run.price_per_gpu_hour is not None
        why = "the job has a price for each GPU-hour, which counts the GPUs that it asks for: leave the price out to try more"
        return Known(job.run.tuning, job.model_path, this_machine(), (("replicas", why),) if priced else ())

    def _one(self, settings: EngineSettings) -> Engine:
        """One engine, or where a candidate is another number of them, these as one; of several that the job asks for the first."""
        if settings.engines == self._make.settings.engines:
            return self._make(settings)
        return SideBySide(self._make, settings)


def speculation_report(speculation: Speculation) -> dict[str, Any]:
    """As JSON data, for the report."""
    drafts, fell = speculation.drafts, None
    if speculation.fell_back:
        fell = {
            "engines": speculation.fell_back,
            "after_requests": speculation.after_requests,
            "share": speculation.share,
        }
    return {
        "draft_tokens": drafts.tokens,
        "accepted_tokens": drafts.accepted,
        "share": drafts.share,
        "least": speculation.least,
        "engines": speculation.engines,
        "fell_back": fell,
    }


__all__ = ["Tuner", "speculation_report"]
