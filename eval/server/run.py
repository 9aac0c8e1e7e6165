"""``make server``: what the server costs and stands, measured part by part: ``results.json`` and ``RESULTS.md``.

    run.py [PART...] [--try]

A part is a program beside this one, in a process of its own; with names only those are measured anew, and the other parts' rows
stay. ``--try`` does a little of each, to see that it runs, and keeps nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "engines"))  # whose program is called run too, and says what figures are made with

from run import made_with  # noqa: E402

RESULTS, ROWS = HERE / "RESULTS.md", HERE / "results.json"
Figures = Mapping[str, Any]
_FLAT = 64 << 20  # bytes that memory may grow by, whatever the file's size
_MARKS = {True: "yes", False: "**no**"}
_HEAD = """# The server under load

Made by `make server`, on a machine that does nothing else meanwhile. The server is a process of its own; its engine is the scripted
one where nothing else is said, so that what is measured is the server.

| part | what is wanted | met | what was seen | when, and on what |
|---|---|---|---|---|
"""


class Part(NamedTuple):
    """What is measured by which command, what is wanted of it, and what is said of the figures. ``little`` makes it a try."""

    command: tuple[str, ...]
    little: tuple[str, ...]
    wanted: str
    met: Callable[[Figures], bool]
    said: Callable[[Figures], str]


def _kills(f: Figures) -> str:
    return (
        f"{f['batches']} batches of {f['rows']:,} rows by {f['clients']} clients, killed {f['kills']} times: ended "
        f"{', '.join(f['states'])}; {len(f['problems'])} problems; {f['audited']} run folders whole by `llmbatch audit`; "
        f"{f['seconds']:g} s, an answer again {_list(f['restart_seconds'])} s after a kill"
    )


def _upload(f: Figures) -> str:
    return (
        f"{f['bytes'] / 1e9:g} GB in {f['seconds']:g} s, {f['megabytes_per_second']} MB/s; memory {f['memory_before'] >> 20} MiB "
        f"before, {f['memory_most'] >> 20} MiB at most"
    )


def _polling(f: Figures) -> str:
    return (
        f"{f['rate_had']:,} requests/s (of {f['rate_wanted']:,}) beside a batch of {f['rows']:,} rows: "
        f"{_list(f['seconds_polled'])} s, without {_list(f['seconds_alone'])} s, the best of each {f['slower_by']:+.1%}"
    )


def _start(f: Figures) -> str:
    return f"{_list(f['seconds_to_first_answer'])} s"


def _live(f: Figures) -> str:
    idle, beside = f["idle_ms"], f["beside_a_batch_ms"]
    engine = f["engine"] if f.get("version") is None else f"{f['engine']} {f['version']}"
    return (
        f"{engine}, {f['seqs']} sequences: first word after {idle['median']:g} ms (95%: {idle['p95']:g}), beside a batch "
        f"{beside['median']:g} ms (95%: {beside['p95']:g}): {f['ratio_of_medians']:g} times"
    )


def _description(f: Figures) -> str:
    found = "; ".join([*f["failures"], *f["errors"]]) or "nothing found"
    return (
        f"schemathesis {f['schemathesis']}: {f['requests']:,} requests to {f['operations_tried']} of {f['operations']} operations, "
        f"{f['requests_that_failed']} not as described: {found}"
    )


PARTS = {
    "kills": Part(
        ("load.py", "kills"), ("--batches", "12", "--rows", "50", "--clients", "4", "--kills", "2"),
        "killed (-9) five times under 200 batches of 1,000 rows by 20 clients: no line lost or doubled, every batch completed, "
        "every run folder whole",
        lambda f: not f["problems"] and f["states"] == ["completed"] and f["audited"] == f["batches_there"], _kills,
    ),
    "upload": Part(
        ("load.py", "upload"), ("--bytes", str(10**8)), f"10 GB come in while memory grows by less than {_FLAT >> 20} MiB",
        lambda f: f["memory_grown"] < _FLAT, _upload,
    ),
    "polling": Part(
        ("load.py", "polling"), ("--rate", "100", "--rows", "200", "--rounds", "1"),
        "1,000 requests/s of polling slow a batch by less than 5%",
        lambda f: f["slower_by"] < 0.05 and f["rate_had"] >= 0.95 * f["rate_wanted"], _polling,
    ),
    "start": Part(
        ("load.py", "start"), (), "the first answer less than 2 s after the start, without the engine",
        lambda f: max(f["seconds_to_first_answer"]) < 2, _start,
    ),
    "live": Part(
        ("live.py",), ("--requests", "4", "--rows", "3000"),
        "a live request beside a full batch: its first word within twice the time of an idle engine",
        lambda f: f["ratio_of_medians"] <= 2, _live,
    ),
    "live-vllm": Part(
        ("live.py", "--vllm", "demo"), ("--requests", "4",), "the same with vLLM and the demo model",
        lambda f: f["ratio_of_medians"] <= 2, _live,
    ),
    "description": Part(
        ("description.py",), ("--examples", "2"), "every answer is one that the server's own description has",
        lambda f: f["exit_code"] == 0, _description,
    ),
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; by default all")
    parser.add_argument("--try", action="store_true", dest="little", help="do a little of each, and keep nothing")
    given = parser.parse_args()
    if unknown := sorted(set(given.parts) - set(PARTS)):
        parser.error(f"{', '.join(unknown)}: known are {', '.join(PARTS)}")
    failed = []
    for name in given.parts or PARTS:
        part = PARTS[name]
        figures = _measured(part, little=given.little)
        if figures is None:
            failed.append(name)
            continue
        met = part.met(figures)
        print(f"{name}: {'met' if met else 'NOT met'}: {part.said(figures)}", flush=True)
        if not given.little:
            failed += [] if met else [name]
            _keep(name, figures)
    if failed:
        print(f"not met, or not measured: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _measured(part: Part, *, little: bool) -> Figures | None:
    """The figures; None where its program left none."""
    with tempfile.TemporaryDirectory(prefix="llmbatch-figures-") as name:
        to = Path(name) / "figures.json"
        program, *more = part.command
        command = [sys.executable, str(HERE / program), *more, *(part.little if little else ()), "--json", str(to)]
        done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
        if not to.exists():
            print(f"{' '.join(part.command)} ended with exit code {done.returncode}", file=sys.stderr)
            return None
        figures: Figures = json.loads(to.read_text(encoding="utf-8"))
    return figures


def _keep(name: str, figures: Figures) -> None:
    """Put a part's figures in the place of its earlier ones, and write the table anew."""
    known = json.loads(ROWS.read_text(encoding="utf-8")) if ROWS.exists() else {}
    known[name] = {
        "date": time.strftime("%Y-%m-%d"), **made_with(HERE), "processors": os.cpu_count(), "figures": figures,
    }  # fmt: skip
    known = {part: known[part] for part in PARTS if part in known}
    ROWS.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    RESULTS.write_text(_HEAD + "".join(map(_row, known, known.values())), encoding="utf-8")


def _row(name: str, kept: Mapping[str, Any]) -> str:
    part, figures = PARTS[name], kept["figures"]
    versions = kept["versions"]
    when = f"{kept['date']}, {kept['processors']} processors, Python {versions['python']}, llmbatch {versions['llmbatch']} "
    when += f"({kept['commit']})"
    return f"| {name} | {part.wanted} | {_MARKS[part.met(figures)]} | {part.said(figures)} | {when} |\n"


def _list(numbers: list[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)


if __name__ == "__main__":
    sys.exit(main())
