"""A real Ray cluster on this machine in; what crossing to its actors costs, and what is lost by kills of actors and nodes, out.

    cluster.py [--actors 1,2,4] [--seconds S] [--kills N] [--vllm-rows N] [--peer-rows N] [--peer-runs whole,killed]
               [--parts crossing,kills,vllm,peer]

All nodes are on one machine, so what a network takes is not in the figures, and engines share its processors. ``peer`` is the same
rows through Ray Data LLM.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peer
import replicas
from nodes import Nodes, actors, nodes_of

from llmbatch.core.events import Event, Snapshot
from llmbatch.job.job import job_from
from llmbatch.runs.session import run_job

PARTS = ("crossing", "kills", "vllm", "peer")
KILL_ROWS = 1500
_RETRIED = {"when": {"attempt": 1, "matches": "[05]$"}, "answer": ""}


@dataclass(frozen=True)
class Kills:
    """What became of the rows of all runs together; ``equal``: runs with the bytes of an undisturbed one."""

    actors: int
    nodes: int
    runs: int
    rows: int
    lost: int
    doubled: int
    equal: int


def crossing(counts: Sequence[int], seconds: float) -> list[replicas.Point]:
    """The same rows through so many processes of this machine, and so many actors, turn about."""
    found = []
    with nodes_of(max(counts)):
        for count in counts:
            found.append(replicas.measure(count, seconds, hosted=True))
            found.append(replicas.measure(count, seconds, hosted=False, cluster="ray"))
    return found


def kills(wanted: int, seed: int = 1) -> Kills:
    """Runs on two nodes, with actors and nodes killed by turns at moments that a seed gives, until there were so many."""
    rng = random.Random(seed)
    killed = {"actor": 0, "node": 0}
    runs = lost = doubled = equal = 0
    with tempfile.TemporaryDirectory(prefix="llmbatch-scale-") as name, nodes_of(2) as nodes:
        path = Path(name) / "rows.jsonl"
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps({"id": f"r{i}", "text": f"text {i % 700}"}) + "\n" for i in range(KILL_ROWS))
        run_job(_scripted(path, Path(name) / "plain", {}))
        plain = (Path(name) / "plain" / "results.jsonl").read_bytes()
        while sum(killed.values()) < wanted:
            output = Path(name) / f"out-{runs}"
            done = run_job(
                _scripted(path, output, {"cluster": "ray", "args": {"latency": 0.1, "concurrency": 4}}),
                [_Killer(nodes, rng, killed, wanted)],
            )  # fmt: skip
            if done.outcome != "finished":
                raise SystemExit(f"a run on the cluster {done.outcome}: {done.report['error']}")
            results = (output / "results.jsonl").read_bytes()
            indexes = [json.loads(line)["index"] for line in results.splitlines()]
            runs += 1
            lost += KILL_ROWS - len(set(indexes))
            doubled += len(indexes) - len(set(indexes))
            equal += results == plain
            print(f"{sum(killed.values())} kills in {runs} runs", file=sys.stderr, flush=True)
    return Kills(killed["actor"], killed["node"], runs, runs * KILL_ROWS, lost, doubled, equal)


class _Killer:
    """A watcher: kills once more each time that some rows were answered since, with two engines up."""

    def __init__(self, nodes: Nodes, rng: random.Random, killed: dict[str, int], wanted: int) -> None:
        self._nodes, self._rng, self._killed, self._wanted = nodes, rng, killed, wanted
        self._next = 60

    def __call__(self, event: Event) -> None:
        if not isinstance(event, Snapshot) or event.rows < self._next or sum(self._killed.values()) >= self._wanted:
            return
        there = actors()
        if len(there) < 2:
            return
        self._next = event.rows + self._rng.randrange(60, 160)
        if self._killed["actor"] <= self._killed["node"]:
            self._rng.choice(there).send_signal(signal.SIGKILL)
            self._killed["actor"] += 1
            return
        self._nodes.kill(self._rng.choice(self._nodes.nodes))
        self._killed["node"] += 1
        self._nodes.add()  # a machine comes back; the other engine goes on meanwhile


def vllm_actors(rows: int) -> dict[str, Any]:
    """Two real engines in actors, a processor each, and one engine in a process of this machine: their bytes, and rows/s."""
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"  # two nodes of one machine would bind to the same processors
    args = {"enforce_eager": True, "dtype": "float32", "enable_prefix_caching": False, "kv_cache_memory_bytes": 1 << 28}
    with tempfile.TemporaryDirectory(prefix="llmbatch-scale-") as name, nodes_of(2):
        path = Path(name) / "rows.jsonl"
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": f"{i} hundred and {i % 97}"}) + "\n" for i in range(rows))
        found: dict[str, Any] = {"rows": rows}
        for who, engine in (("actors", {"cluster": "ray"}), ("one", {"hosted": True})):
            job = replicas._job(path, Path(name) / who, "demo", {"name": "vllm", "args": args, **engine})
            session = run_job(job_from(job)).report["sessions"][0]
            found[who] = float(session["speed"]["rows"] or 0.0)
            if who == "actors":
                found["engines"] = len(session["replicas"])
        found["equal"] = len({(Path(name) / who / "results.jsonl").read_bytes() for who in ("actors", "one")}) == 1
    return found


def _scripted(rows: Path, output: Path, engine: Mapping[str, Any]) -> Any:
    args = {"rules": [_RETRIED], **engine.get("args", {})}
    return job_from(
        {
            **replicas._job(rows, output, "any", {"name": "scripted", **engine, "args": args}),
            "retry": {"max_attempts": 3}, "plan": {"fold": False}, "run": {"window": 200},
        }
    )  # fmt: skip


def report(options: argparse.Namespace) -> list[str]:
    """The parts that were asked for, as lines of Markdown."""
    parts = options.parts.split(",")
    lines = [
        "## A Ray cluster",
        "",
        "Nodes of a real Ray cluster, all on this machine: what a network takes is not in these figures.",
        "",
    ]
    if "crossing" in parts:
        found = crossing([int(count) for count in options.actors.split(",")], options.seconds)
        lines += replicas.table(found)
        more = [
            1e6 * (actor.driver_seconds_per_row - process.driver_seconds_per_row)
            for process, actor in zip(found[::2], found[1::2], strict=True)
        ]
        said = ", ".join(f"{each:+.0f}" for each in more)
        lines += [
            "",
            f"An actor costs the driver {said} µs of processor time a row against a process of this machine.",
            "",
        ]
    if "kills" in parts:
        k = kills(options.kills)
        lines += [
            f"{k.actors} kills of actors and {k.nodes} of nodes in {k.runs} runs of {KILL_ROWS:,} rows: {k.lost} of "
            f"{k.rows:,} rows lost, {k.doubled} doubled, {k.equal} of {k.runs} runs with the bytes of an undisturbed one.",
            "",
        ]
    if "vllm" in parts:
        v = vllm_actors(options.vllm_rows)
        same = "the same bytes" if v["equal"] else "NOT THE SAME"
        lines += [
            f"{v['engines']} real vLLM engines in actors, a processor each, {v['rows']:,} rows of the demo model: "
            f"{v['actors']:,.0f} rows/s, one engine on all processors {v['one']:,.0f}; the results are {same}.",
            "",
        ]
    if "peer" in parts:
        lines += peer.report(options.peer_rows, options.peer_runs.split(","), options.peer_limit)
    return lines


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--actors", default="1,2,4")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--vllm-rows", type=int, default=2000, help="of the run with real engines in actors")
    parser.add_argument("--peer-rows", type=int, default=20_000, help="of the runs beside Ray Data LLM")
    parser.add_argument(
        "--peer-runs", default=",".join(peer.RUNS), help="undisturbed, with what answers killed half-way"
    )
    parser.add_argument("--peer-limit", type=float, default=1200, help="seconds that a run of Ray Data LLM may take")
    parser.add_argument("--parts", default=",".join(PARTS), help="parts of the cluster's figures; empty: none")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="that a run with scripted engines should take")
    add_options(parser)
    print("\n".join(report(parser.parse_args())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
