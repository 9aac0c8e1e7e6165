"""How long a live request waits for its first word: on an engine that has nothing else to do, and beside a full batch.

    python eval/server/live.py [--vllm MODEL] [--requests N] [--rows N] [--seqs N] [--json FILE]

By default the engine is scripted, which shows what feeding costs; with ``--vllm`` it is the real one, in a process of its own. The
batch has more rows than the engine has places at any time, and is ended when the live requests are answered. ``--cost`` measures
besides how many rows a second a batch does on a shared engine, which keeps places free, and on one of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from llmbatch.core.types import Piece, Prompt, Request, RequestKey, Sampling
from llmbatch.engines.making import Maker
from llmbatch.engines.shared import SharedEngine
from llmbatch.job.job import Job, job_from
from llmbatch.runs.brakes import Stop
from llmbatch.runs.session import run_job
from llmbatch.server.live import Live

_PROMPT = "Translate to French: "
_LIVE = Sampling((("ignore_eos", True), ("max_tokens", 16), ("temperature", 0.0)))
_WARM = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--vllm", metavar="MODEL", help="the real engine with this model (demo: the one that comes along)"
    )
    parser.add_argument("--requests", type=int, default=40, help="live requests of each kind (%(default)s)")
    parser.add_argument(
        "--rows", type=int, default=20_000, help="of the batch; those of --cost are a tenth (%(default)s)"
    )
    parser.add_argument("--seqs", type=int, default=32, help="sequences that the engine runs at a time (%(default)s)")
    parser.add_argument("--latency", type=float, default=1.0, help="seconds of a scripted answer (%(default)s)")
    parser.add_argument("--args", type=json.loads, default={}, help="engine arguments besides, as JSON")
    parser.add_argument("--cost", action="store_true", help="measure what the places that are kept free cost a batch")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="llmbatch-live-") as name:
        figures = _measure(Path(name), given)
    text = json.dumps(figures, indent=2)
    print(text)
    if given.json is not None:
        given.json.write_text(text + "\n", encoding="utf-8")


def _measure(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    job = _job(folder, given, "batch", given.rows)
    shared = _shared(job, folder)
    figures: dict[str, Any] = {"engine": job.engine.name, "model": job.model, "seqs": given.seqs}
    try:
        idle, beside, rows = asyncio.run(_first_words(shared, job, given.requests))
        figures["version"] = shared.info.version if shared.info is not None else None
    finally:
        shared.close()
    figures |= {"idle_ms": _spread(idle), "beside_a_batch_ms": _spread(beside), "rows_of_the_batch": rows}
    figures["ratio_of_medians"] = round(statistics.median(beside) / statistics.median(idle), 2)
    if given.cost:
        figures["rows_per_s"] = _cost(folder, given)
    return figures


async def _first_words(shared: SharedEngine, job: Job, count: int) -> tuple[list[float], list[float], int]:
    live = Live(shared)
    await live.info()
    for number in range(_WARM):
        await _first_word(live, number)
    idle = [await _first_word(live, number) for number in range(count)]
    stop = Stop()
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(run_job, job, stop=stop, driver=shared.share("batch"))
        while not (shared.waiting and shared.in_flight):
            await asyncio.sleep(0.05)
        await asyncio.sleep(2.0)  # by now its requests are not all at the same place
        beside = []
        for number in range(count):
            beside.append(await _first_word(live, number))
            await asyncio.sleep(0.05)
        if run.done():
            raise SystemExit("the batch was done before the live requests: give more --rows")
        stop.ask("measured")
        result = await asyncio.to_thread(run.result)
    live.close()
    return idle, beside, int(result.report["rows"]["done"])


async def _first_word(live: Live, number: int) -> float:
    """Milliseconds."""
    request = Request(RequestKey(number), Prompt(messages=({"role": "user", "content": f"{_PROMPT}{number}"},)), _LIVE)
    began, first = time.perf_counter(), None
    async for each in live.stream(request):
        if first is None and isinstance(each, Piece):
            first = time.perf_counter()
    return ((first or time.perf_counter()) - began) * 1000


def _cost(folder: Path, given: argparse.Namespace) -> dict[str, float]:
    """Rows a second of a batch while its engine is up: on a shared engine, and on its own."""
    found = {}
    job = _job(folder, given, "cost-shared", given.rows // 10)
    shared = _shared(job, folder)
    try:
        shared.wait_ready()
        found["shared"] = _rate(job, driver=shared.share("batch"))
    finally:
        shared.close()
    found["own"] = _rate(_job(folder, given, "cost-own", given.rows // 10))
    return found


def _rate(job: Job, **more: Any) -> float:
    session = run_job(job, **more).report["sessions"][0]
    return round(session["rows"] / session["seconds"]["running"], 2)


def _shared(job: Job, folder: Path) -> SharedEngine:
    settings = job.engine.model_copy(update={"hosted": True})
    make = Maker(job.model_path, settings, job.chat, folder)
    return SharedEngine(make, make.settings)


def _job(folder: Path, given: argparse.Namespace, name: str, rows: int) -> Job:
    path = folder / f"{name}.jsonl"
    path.write_text(
        "".join(json.dumps({"id": i, "text": f"{_PROMPT}{i}"}) + "\n" for i in range(rows)), encoding="utf-8"
    )
    return job_from(
        {
            "model": given.vllm or "any",
            "input": {"path": str(path)},
            "prompt": {"path": "{{ text }}"},
            "output": str(folder / name),
            "engine": _engine(given),
            "sampling": {"temperature": 0, "max_tokens": 64, "ignore_eos": True},
            "plan": {"fold": False},
            "run": {"grace": 0},
        }
    )


def _engine(given: argparse.Namespace) -> Mapping[str, Any]:
    if given.vllm is None:
        args = {"latency": given.latency, "jitter": 0.5, "concurrency": given.seqs, **given.args}
        return {"name": "scripted", "args": args}
    return {"name": "vllm", "hosted": True, "args": {"max_num_seqs": given.seqs, **given.args}}


def _spread(milliseconds: list[float]) -> dict[str, float]:
    ordered = sorted(milliseconds)
    return {
        "median": round(statistics.median(ordered), 2),
        "p95": round(ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))], 2),
        "most": round(ordered[-1], 2),
    }


if __name__ == "__main__":
    main()
