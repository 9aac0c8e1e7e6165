"""``llmbatch bench``: a ``trtllm-bench`` data set and a model in, that tool's report out, printed and as JSON.

The options are called as there, with - or _ between words. What is measured is the engine alone, by a clock around it.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from llmbatch.cli.complete import engines
from llmbatch.cli.settings import JobCommand, job_options, overrides_of
from llmbatch.core.errors import UsageError
from llmbatch.core.merge import merged

if TYPE_CHECKING:
    from llmbatch.job.job import Job

EPILOG = """\b
Exit codes: 0 every request was answered; 3 some were not; 1 the run broke; 2 wrong usage."""
_MOST = 1 << 20  # requests that an engine is given at a time where nothing limits them
_ARGUMENTS = {
    "tp": "gpus_of_tensors",
    "pp": "gpus_of_layers",
    "max_batch_size": "requests_a_step",
    "max_num_tokens": "tokens_a_step",
    "max_seq_len": "longest",
    "kv_cache_free_gpu_mem_fraction": "memory",
}
"""Its options, and what these are called in ``EngineKind.arguments``."""

_FILES = ("report_json", "output_json", "request_json")
"""The options that name a file to write."""


def _option(name: str, **looks: Any) -> Callable[[Any], Any]:
    """An option by both spellings of its name."""
    spelled = dict.fromkeys((f"--{name.replace('_', '-')}", f"--{name}"))
    return click.option(*spelled, name, **looks)


@click.command(cls=JobCommand, epilog=EPILOG)
@click.option("--model", metavar="MODEL", required=True, help="The model: a folder, a name on the hub, or demo.")
@click.option(
    "--dataset", metavar="FILE", required=True, help="Its lines: task_id, prompt or input_ids, output_tokens."
)
@_option("num_requests", metavar="N", type=click.IntRange(0), default=0, help="Only the first N; 0: all.")
@_option("concurrency", metavar="N", type=int, default=-1, help="Requests at a time; 0 or less: all at once.")
@_option("warmup", metavar="N", type=click.IntRange(0), default=2, show_default=True, help="Run first, unmeasured.")
@_option("eos_id", metavar="ID", type=click.IntRange(-1), default=-1, help="The token that ends an answer; -1: none.")
@_option("report_json", metavar="FILE", type=click.Path(path_type=Path), help="Where to write the report.")
@_option("output_json", metavar="FILE", type=click.Path(path_type=Path), help="Where to write the answers.")
@_option("request_json", metavar="FILE", type=click.Path(path_type=Path), help="Where to write each request's times.")
@_option("tp", metavar="N", type=click.IntRange(1), help="GPUs that the model's tensors are divided over.")
@_option("pp", metavar="N", type=click.IntRange(1), help="GPUs that the model's layers are divided over.")
@_option("max_batch_size", metavar="N", type=click.IntRange(1), help="Requests in a step of the engine.")
@_option("max_num_tokens", metavar="N", type=click.IntRange(1), help="Tokens in a step of the engine.")
@_option("max_seq_len", metavar="N", type=click.IntRange(1), help="Tokens of prompt and answer.")
@_option(
    "kv_cache_free_gpu_mem_fraction", metavar="F", type=float, help="vLLM's gpu_memory_utilization, weights included."
)
@_option(
    "backend",
    metavar="NAME",
    help="An engine of llmbatch: vllm (the default), scripted, transformers.",
    shell_complete=engines,
)
@_option("streaming", is_flag=True, help="Refused: answers are not streamed here.")
@job_options(job_file=False)
@click.pass_context
def bench(ctx: click.Context, /, model: str, dataset: str, **given: Any) -> None:
    """Measure how fast a model answers the requests of a data set, as trtllm-bench throughput does."""
    if given["streaming"]:
        raise UsageError(
            "--streaming: answers are not streamed here, so times of first tokens cannot be told: leave it out"
        )
    from llmbatch.report.trtllm_bench import printed, report_of
    from llmbatch.runs.bench import facts_of, measured, times_of
    from llmbatch.watch.watching import watching

    _see_folders(given)
    job = _job(model, dataset, given, overrides_of(ctx))
    with TemporaryDirectory(prefix="llmbatch-bench-") as folder, watching("quiet") as watcher:
        found = measured(job, Path(folder), given["warmup"], [watcher])
    facts = facts_of(job, dataset, found, _gpu())
    report = report_of(facts)
    click.echo(printed(report))
    written: dict[str, Callable[[], str]] = {
        "report_json": lambda: json.dumps(report, indent=4),
        "output_json": lambda: "".join(map(_line, map(_answer, found.records))),
        "request_json": lambda: "".join(map(_line, times_of(found))),
    }
    for name in _FILES:
        if (path := given[name]) is not None:
            _write(path, written[name]())
    ctx.exit(3 if facts.failed else 0)


def _see_folders(given: Mapping[str, Any]) -> None:
    """Raises ``UsageError`` for a file that could not be written when all is measured."""
    for name in _FILES:
        path = given[name]
        if path is None:
            continue
        option = f"--{name.replace('_', '-')} {path}"
        if path.is_dir():
            raise UsageError(f"{option}: is a folder; name a file in it")
        if not path.parent.is_dir():
            raise UsageError(f"{option}: there is no folder {path.parent}; make it, or name another file")


def _job(model: str, dataset: str, given: Mapping[str, Any], over: Mapping[str, Any]) -> Job:
    from llmbatch.engines import DEFAULT_ENGINE, ENGINES
    from llmbatch.engines.kinds import kind_of
    from llmbatch.job.job import job_from

    engine = given["backend"] or DEFAULT_ENGINE
    if engine not in ENGINES:
        raise UsageError(f"--backend: there is no engine {engine!r} here; there is {', '.join(ENGINES)}")
    known = kind_of(engine).arguments
    args: dict[str, Any] = {}
    for option, meaning in _ARGUMENTS.items():
        if given[option] is not None:
            if meaning not in known:
                raise UsageError(
                    f"--{option}: the {engine} engine has nothing of that kind; leave it out, or see --set"
                )
            args[known[meaning]] = given[option]
    concurrency = given["concurrency"]
    data: dict[str, Any] = {
        "model": model,
        "output": "-",  # a folder that is gone afterwards takes its place
        "input": {
            "path": dataset,
            "format": "trtllm_bench",
            "options": {"eos_id": given["eos_id"]},
            **({"limit": given["num_requests"]} if given["num_requests"] else {}),
        },
        "engine": {"name": engine, "args": args, "in_flight": concurrency if concurrency > 0 else _MOST},
        "plan": {"fold": False, "order": "input"},
        "retry": {"max_attempts": 1},
        "answer": {"allow_truncated": True},
    }
    job = job_from(merged(data, over))
    if job.plan.fold or job.sweep is not None:
        raise UsageError("--set: plan.fold, sweep: each request is measured, asked once and for itself: leave them out")
    return job


def _gpu() -> dict[str, Any] | None:
    """The first GPU: its name, its memory in GiB, the clock of that in GHz."""
    asked = ["nvidia-smi", "--query-gpu=name,memory.total,clocks.mem", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    fields = [field.strip() for field in said.partition("\n")[0].split(",")]
    if len(fields) != 3 or not fields[1].isdecimal():
        return None
    return {
        "name": fields[0],
        "memory.total": int(fields[1]) / 1024,
        "clocks.mem": int(fields[2]) / 1000 if fields[2].isdecimal() else None,
    }


def _answer(record: Mapping[str, Any]) -> dict[str, Any]:
    from llmbatch.formats.base import Answered, Asked, wire_format

    return wire_format("trtllm_bench").result(Answered(record, {}, Asked(chat=False), "", 0))


def _line(value: Mapping[str, Any]) -> str:
    return f"{json.dumps(value, ensure_ascii=False)}\n"


def _write(path: Path, text: str) -> None:
    from llmbatch.core.files import atomic_write

    atomic_write(path, text.encode())
