"""A job in; its rows run for the time that they take, and when the engine was given each request and when it answered, out.

The records of a run do not depend on time and so do not tell of it: it is taken around the engine, as requests go in and outcomes
come out.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from llmbatch.core.events import Watcher
from llmbatch.core.types import Constraint, Failure, Outcome, Prompt, Request, Usage
from llmbatch.engines.base import Engine, EngineInfo
from llmbatch.engines.feed import Feed
from llmbatch.engines.keeper import EngineKeeper
from llmbatch.engines.kinds import kind_of
from llmbatch.engines.settings import EngineSettings
from llmbatch.folder.folder import RunFolder
from llmbatch.folder.records import parse
from llmbatch.job.job import Job
from llmbatch.model.tokenizer import ChatSettings
from llmbatch.report import trtllm_bench
from llmbatch.runs.session import RunResult, run_job


@dataclass(slots=True)
class Times:
    """By the index of a row, in seconds of one clock: when its request was given to the engine, and when it was answered."""

    start: dict[int, float] = field(default_factory=dict)
    end: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measured:
    """A run that was measured. ``engine`` is None where no request came to one."""

    result: RunResult
    times: Times
    engine: EngineInfo | None
    records: Sequence[Mapping[str, Any]]


def measured(job: Job, folder: Path, warmup: int, watchers: Sequence[Watcher] = ()) -> Measured:
    """Run a job in the folder, after its first ``warmup`` rows were run unmeasured on the same engine. Raises as ``run_job``."""
    job = job.model_copy(update={"run": job.run.model_copy(update={"page": False})})
    with EngineKeeper() as keeper:
        if warmup:
            rows = job.input.model_copy(update={"limit": min(warmup, job.input.limit or warmup)})
            run_job(job.model_copy(update={"output": folder / "warmup", "input": rows}), make=keeper.make)
        clock = _Clock(keeper)
        result = run_job(job.model_copy(update={"output": folder / "run"}), watchers, make=clock.make)
    records = list(map(parse, RunFolder(result.folder).record_lines()))
    return Measured(result, clock.times, clock.info, records)


def facts_of(job: Job, dataset: str, found: Measured, machine: dict[str, Any] | None) -> trtllm_bench.Bench:
    """What is reported of a measured run; ``machine`` is its GPU."""
    engine, times, known = found.engine, found.times, kind_of(job.engine.name).arguments

    def argument(meaning: str) -> Any:
        """As it came out, else as it was given."""
        name, given = known.get(meaning, ""), job.engine.args
        came_out = {**engine.details, **engine.settled} if engine else {}
        return came_out.get(name, given.get(name))

    numbers, cache, quantized = map(argument, ("numbers", "numbers_of_cache", "quantized"))
    good = [record for record in found.records if record["status"] == "ok"]
    requests = [
        trtllm_bench.Request(
            times.start[record["index"]],
            times.end[record["index"]],
            record["usage"]["prompt_tokens"],
            record["usage"]["completion_tokens"],
        )
        for record in good
    ]
    return trtllm_bench.Bench(
        requests,
        failed=len(found.records) - len(good),
        dataset=dataset,
        model=job.model,
        model_path=job.model_path if Path(job.model_path).is_dir() else None,
        version=engine.version if engine else None,
        backend=job.engine.name,
        machine=machine,
        dtype=None if numbers is None else str(numbers),
        kv_cache_dtype=None if cache is None else str(cache),
        quantization=None if quantized is None else str(quantized),
        tp_size=argument("gpus_of_tensors") or 1,
        pp_size=argument("gpus_of_layers") or 1,
        max_batch_size=engine.max_num_seqs if engine else None,
        max_num_tokens=engine.max_num_batched_tokens if engine else None,
        kv_cache_percentage=argument("memory"),
    )


def times_of(found: Measured) -> Iterator[dict[str, Any]]:
    """Of each request that was answered, in nanoseconds of one clock."""
    for record in found.records:
        if record["status"] == "ok":
            start, end = found.times.start[record["index"]], found.times.end[record["index"]]
            yield {
                "id": record["id"],
                "num_input_tokens": record["usage"]["prompt_tokens"],
                "start_timestamp": int(start * 1e9),
                "end_timestamp": int(end * 1e9),
                "output_tokens": record["usage"]["completion_tokens"],
                "output": record["output"],
            }


class _Clock:
    """Makes engines that note when they are given a request and when they answer it."""

    def __init__(self, keeper: EngineKeeper) -> None:
        self.times = Times()
        self.info: EngineInfo | None = None
        self._keeper = keeper

    def make(self, model: str, settings: EngineSettings, chat: ChatSettings, log: Path) -> Engine:
        return _Timed(self, self._keeper.make(model, settings, chat, log))


class _Timed:
    """Implements ``Engine`` by another one."""

    def __init__(self, clock: _Clock, engine: Engine) -> None:
        self._clock = clock
        self._engine = engine

    def start(self) -> EngineInfo:
        self._clock.info = self._engine.start()
        return self._clock.info

    def expect(self, constraints: Sequence[Constraint]) -> None:
        self._engine.expect(constraints)

    def tokenize(self, prompts: Sequence[Prompt]) -> Sequence[Sequence[int] | Failure] | None:
        return self._engine.tokenize(prompts)

    def stream(self, feed: Feed) -> Iterator[list[Outcome]]:
        times = self._clock.times
        for outcomes in self._engine.stream(cast(Feed, _Noted(feed, times))):
            now = time.perf_counter()
            times.end.update((outcome.key.index, now) for outcome in outcomes)
            yield outcomes

    def abort(self) -> None:
        self._engine.abort()

    def stop(self) -> None:
        self._engine.stop()

    def counts(self) -> Usage:
        return self._engine.counts()

    def busy(self) -> float:
        return self._engine.busy()


class _Noted:
    """A feed of which it is noted what is taken, and when; in all else it is the feed itself."""

    def __init__(self, feed: Feed, times: Times) -> None:
        self._feed = feed
        self._times = times

    def take(self, slots: int, tokens: int) -> list[Request]:
        taken = self._feed.take(slots, tokens)
        if taken:
            now = time.perf_counter()
            for request in taken:  # after a death it is asked again, and has waited since the first time
                self._times.start.setdefault(request.key.index, now)
        return taken

    def __getattr__(self, name: str) -> Any:
        return getattr(self._feed, name)


__all__ = ["Measured", "Times", "facts_of", "measured", "times_of"]
