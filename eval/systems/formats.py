"""How fast each format of other systems goes in and out, against plain JSON lines, and whether memory stays flat: ``FORMATS.md``.

    formats.py [NAME...] [--rows N] [--work DIR]

Each format is a run of its own in a process of its own, on the scripted engine, which answers at once: rows in, layout out.
``read`` is how fast its rows are read and become prompts, ``run`` the whole run, layout included, each as a share of what plain
JSON lines with a prompt of one variable do. No row says how answers are drawn: with a temperature of 0 equal requests would be
looked for, which costs every format the same. Memory is the most that the process had, at a tenth of the rows and at all of them:
it is flat where the two are close. No other program may run beside it.

A new format is one line in ``FORMATS``: what a line of its input is, and the sections of its job.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
RESULTS, FIGURES = HERE / "FORMATS.md", HERE / "formats.json"
PLAIN = "jsonl"
_WORDS = "the quick brown fox jumps over the lazy dog while seven bakers count their loaves and jars of plum jam before noon "
_LEAST = 0.7  # of plain JSON lines
_NUMBERS = 16  # of a vector


class Form(NamedTuple):
    """``line(i, text)`` is row i with a text, as it stands in the file: a value of JSON, or with a ``head`` a line of CSV below it.

    ``sections`` are laid over a job without a prompt.
    """

    line: Callable[[int, str], Any]
    sections: Mapping[str, Any]
    head: str | None = None  # empty: there is none


def _openai(url: str, body: Callable[[str], dict[str, Any]]) -> Callable[[int, str], Any]:
    names = {"/v1/responses": "max_output_tokens", "/v1/embeddings": None}
    name = names.get(url, "max_tokens")
    limit = {} if name is None else {name: 64}

    def line(i: int, text: str) -> dict[str, Any]:
        said = {"model": "demo", **limit, **body(text)}
        return {"custom_id": f"r{i}", "method": "POST", "url": url, "body": said}

    return line


def _v2(i: int, text: str) -> dict[str, Any]:
    return {"id": f"r{i}", "inputs": [{"name": "text_input", "shape": [1, 1], "datatype": "BYTES", "data": [text]}]}


def _seldon(i: int, text: str) -> dict[str, Any]:
    return {"data": {"names": ["prompt"], "ndarray": [[text]]}, "meta": {"tags": {"mine": i}}}


def _gemini(text: str) -> dict[str, Any]:
    said = [{"role": "user", "parts": [{"text": text}]}]
    return {"contents": said, "generationConfig": {"maxOutputTokens": 64}}


def _of(format_: str, layout: str | None = None, **options: Any) -> dict[str, Any]:
    sinks = {} if layout is None else {"sinks": {"layout": {"name": layout}}}
    return {"input": {"format": format_, "options": options}, **sinks}


FORMATS: Mapping[str, Form] = {
    PLAIN: Form(lambda i, text: {"id": f"r{i}", "text": text}, {"prompt": {"path": "{{ text }}"}}),
    "openai chat": Form(
        _openai("/v1/chat/completions", lambda text: {"messages": [{"role": "user", "content": text}]}),
        _of("openai", "openai_batch"),
    ),
    "openai completions": Form(
        _openai("/v1/completions", lambda text: {"prompt": text}), _of("openai", "openai_batch")
    ),
    "openai responses": Form(_openai("/v1/responses", lambda text: {"input": text}), _of("openai", "openai_batch")),
    "openai embeddings": Form(
        _openai("/v1/embeddings", lambda text: {"input": text}),
        {
            **_of("openai", "openai_batch"),
            "program": {"name": "embed"},
            "engine": {"args": {"dimensions": _NUMBERS}},
            "answer": None,
        },
    ),
    "v2": Form(_v2, _of("v2", "v2")),
    "seldon": Form(_seldon, _of("seldon", "seldon", data_type="raw")),
    "sagemaker": Form(
        lambda i, text: {"id": f"r{i}", "features": {"inputs": text, "parameters": {"max_new_tokens": 64}}},
        _of("sagemaker", "sagemaker", input_filter="$.features", join=True, output_filter="$['id','SageMakerOutput']"),
    ),
    "sagemaker csv": Form(
        lambda i, text: f"{i},{text}",
        {
            **_of("sagemaker", "sagemaker", content="csv", input_filter="$[1]", join=True),
            "prompt": {"path": "{{ c0 }}"},
        },
        head="",
    ),
    "bedrock": Form(
        lambda i, text: {
            "recordId": f"r{i}",
            "modelInput": {
                "anthropic_version": "bedrock-2023-05-31",
                "max_tokens": 64,
                "messages": [{"role": "user", "content": [{"type": "text", "text": text}]}],
            },
        },
        _of("bedrock", "bedrock"),
    ),
    "azure_ml": Form(
        lambda i, text: {"id": f"r{i}", "text": text},
        {"prompt": {"path": "{{ text }}"}, "sinks": {"layout": {"name": "azure_ml"}}},
    ),
    "vertex": Form(lambda i, text: {"id": f"r{i}", "prompt": text}, _of("vertex", "vertex")),
    "vertex csv": Form(
        lambda i, text: f"{i},{text}",
        {
            "input": {"format": "vertex", "options": {"instances": "csv"}},
            "sinks": {"layout": {"name": "vertex", "settings": {"instances": "csv", "predictions": "csv"}}},
        },
        head="id,prompt\n",
    ),
    "gemini": Form(lambda _, text: {"request": _gemini(text)}, _of("gemini", "gemini")),
    "gemini_api": Form(lambda i, text: {"key": f"r{i}", "request": _gemini(text)}, _of("gemini_api", "gemini_api")),
    "trtllm_bench": Form(lambda i, text: {"task_id": i, "prompt": text, "output_tokens": 64}, _of("trtllm_bench")),
}


class Measured(NamedTuple):
    """Of one run. Seconds, and bytes."""

    read: float
    run: float
    memory: int


def job_of(name: str, folder: Path) -> dict[str, Any]:
    """The data of the format's job on the input in the folder."""
    data: dict[str, Any] = {
        "model": "demo",
        "output": str(folder / "out"),
        "input": {"path": str(folder / "rows.jsonl")},
        "engine": {"name": "scripted"},
        "answer": {"allow_truncated": True},
    }
    for section, value in FORMATS[name].sections.items():
        data[section] = {**data.get(section, {}), **value} if value is not None else {}
    return data


def write_rows(name: str, path: Path, rows: int) -> None:
    """An input of so many rows, each of which is asked otherwise."""
    form = FORMATS[name]
    with path.open("w", encoding="utf-8") as stream:
        stream.write(form.head or "")
        for i in range(rows):
            line = form.line(i, f"{i} {_WORDS}")
            stream.write((json.dumps(line) if form.head is None else line) + "\n")


def child(name: str, folder: Path) -> None:
    """One run, in this process; prints what was measured."""
    from llmbatch.core.types import Rendered
    from llmbatch.job.job import job_from
    from llmbatch.job.swept import recipe_of
    from llmbatch.runs.session import run_job
    from llmbatch.sources.opening import open_source

    job = job_from(job_of(name, folder))
    recipe = recipe_of(job)
    began = time.perf_counter()
    for row in open_source(job.input).rows():
        if not isinstance(recipe.render(row), Rendered):
            raise SystemExit(f"{name}: row {row.index} has no prompt: {recipe.render(row)}")
    read = time.perf_counter() - began
    began = time.perf_counter()
    result = run_job(job)
    run = time.perf_counter() - began
    if result.exit_code:
        raise SystemExit(f"{name}: {result.report['rows']['by_status']}")
    print(json.dumps(Measured(read, run, most_memory())))


def most_memory() -> int:
    """The most that this process had, in bytes. What Linux tells of resources may be of the process that it was made of."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(1024 * int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure(name: str, rows: int, work: Path) -> Measured:
    """One run, in a process of its own."""
    folder = Path(tempfile.mkdtemp(dir=work))
    try:
        write_rows(name, folder / "rows.jsonl", rows)
        done = subprocess.run(
            [sys.executable, __file__, "--child", name, str(folder)], stdout=subprocess.PIPE, check=True, text=True
        )
        return Measured(*json.loads(done.stdout.splitlines()[-1]))
    finally:
        shutil.rmtree(folder)


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], Path(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(FORMATS)}; by default all")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--work", type=Path, help="where inputs and runs are for as long as they are measured")
    given = parser.parse_args()
    names = [PLAIN, *(name for name in given.names or FORMATS if name != PLAIN)]
    if unknown := [name for name in names if name not in FORMATS]:
        parser.error(f"{', '.join(unknown)}: known are {', '.join(FORMATS)}")
    known: dict[str, Any] = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
    for name in names:
        few, all_ = (measure(name, rows, given.work) for rows in (max(1, given.rows // 10), given.rows))
        known[name] = {
            "rows": given.rows,
            "read_rows_per_s": given.rows / all_.read,
            "run_rows_per_s": given.rows / all_.run,
            "memory_of_a_tenth": few.memory,
            "memory": all_.memory,
        }
        print(name, json.dumps(known[name]), flush=True)
        FIGURES.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
        RESULTS.write_text("\n".join(table(known)), encoding="utf-8")


def table(known: Mapping[str, Any]) -> list[str]:
    """The lines of ``FORMATS.md``."""
    plain = known[PLAIN]
    slow = [name for name, each in known.items() if each["run_rows_per_s"] < _LEAST * plain["run_rows_per_s"]]
    lines = [
        "# Formats of other systems, against plain JSON lines",
        "",
        "Made by `make formats`: a run of each on the scripted engine, which answers at once: what is measured is ours",
        "alone. Memory is the most that the process had, at a tenth of the rows and at all of them.",
        "",
        f"Below {_LEAST:.0%} of plain JSON lines as a whole run: {', '.join(slow) or 'none'}.",
        "",
        "| format | rows | read, rows/s | of plain | whole run, rows/s | of plain | memory, MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, each in known.items():
        cells = [name, f"{each['rows']:,}"]
        for key in ("read_rows_per_s", "run_rows_per_s"):
            cells += [f"{each[key]:,.0f}", f"{each[key] / plain[key]:.0%}"]
        cells.append(f"{each['memory_of_a_tenth'] / 2**20:,.0f}, {each['memory'] / 2**20:,.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


if __name__ == "__main__":
    main()
