"""The kserve engine against a real Triton and a real mlserver: what becomes of bad rows, and where server or run is killed.

    kserve_servers.py [--rows N] [--only NAME]

Needs the environments of ``make peers``. Nothing here is a timing.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import yaml

HERE = Path(__file__).parent
FIGURES = HERE / "kserve_servers.json"
sys.path.insert(0, str(HERE.parent / "peers"))

import servers  # noqa: E402 - eval/peers is no package

from llmbatch.audit.audit import audit  # noqa: E402
from llmbatch.core.versions import versions  # noqa: E402

ROWS = 1000
KILLS = 3
_STEP_SECONDS = 0.02


class Case(NamedTuple):
    """One way to ask one model of one server."""

    name: str
    peer: str
    model: str
    engine: Mapping[str, Any]


CASES = (
    Case("Triton, infer, the vLLM backend's tensors", "triton", "vllm_model", {}),
    Case("Triton, generate, a decoupled model", "triton", "decoupled", {}),
    Case("Triton, infer, 8 rows in a request", "triton", "batched", {}),
    Case("mlserver, infer", "mlserver", "echo", {}),
    Case("mlserver, infer, 4 rows in a request", "mlserver", "echo", {"batch": 4}),
)
_IN_FLIGHT = {"triton": 16, "mlserver": 8}  # few, so that there is a middle to kill a server in


class Bad(NamedTuple):
    """What of the corpus is to fail, by line: the kind that its record has to have."""

    lines: list[str]
    kinds: dict[int, frozenset[str]]


def corpus(rows: int) -> Bad:
    """Lines, with some among them that are no JSON, have no text, or are refused by the model."""
    lines, kinds = [], {}
    for i in range(rows):
        text = f"row {i}: one loaf of rye, two jars of plum jam – für {i % 7} Gäste 🥖"
        line = json.dumps({"id": f"row-{i}", "text": text}, ensure_ascii=i % 2 == 0)
        if i % 97 == 13:
            line, kinds[i] = '{"id": "cut", "text": ', frozenset({"malformed_row"})
        elif i % 89 == 5:
            line, kinds[i] = json.dumps({"id": f"row-{i}"}), frozenset({"prompt"})
        elif i % 61 == 7:
            line = json.dumps({"id": f"row-{i}", "text": f"BOOM {text}"})
            kinds[i] = frozenset({"refused", "engine"})  # Triton's infer says 500 of it, all others 400
        lines.append(line)
    return Bad(lines, kinds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--only", help="a part of a case's name")
    given, _ = parser.parse_known_args()
    figures: dict[str, Any] = {"versions": versions(), "rows": given.rows, "cases": []}
    with tempfile.TemporaryDirectory(prefix="llmbatch-kserve-") as folder:
        for number, case in enumerate(CASES):
            if given.only is None or given.only in case.name:
                figures["cases"].append(measured(case, Path(folder) / str(number), given.rows))
                print(json.dumps(figures["cases"][-1]), file=sys.stderr, flush=True)
    FIGURES.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    wrong = [case["name"] for case in figures["cases"] if "not_shown" not in case and not case.get("right")]
    if wrong:
        raise RuntimeError(f"did not come out right: {', '.join(wrong)}")


def measured(case: Case, folder: Path, rows: int) -> dict[str, Any]:
    """The figures of one case; why there are none, where its server cannot be had."""
    folder.mkdir(parents=True)
    try:
        server = servers.Server(case.peer, folder / "server")
    except servers.Missing as error:
        return {"name": case.name, "not_shown": str(error)}
    bad = corpus(rows)
    (folder / "rows.jsonl").write_text("".join(f"{line}\n" for line in bad.lines), encoding="utf-8")
    with server:
        runs = _Runs(case, server, folder)
        figures: dict[str, Any] = {"name": case.name, "server": server.version(), "rows": rows}
        runs.finish("plain")
        figures |= _judged(runs.records("plain"), bad)
        kills = runs.finish("server-killed", server_kills=KILLS)
        run_kills = runs.finish("run-killed", run_kills=KILLS)
        for name, count in (("server", kills), ("run", run_kills)):
            folder_name = f"{name}-killed"
            records = runs.records(folder_name)
            figures[folder_name] = {
                "kills": count,
                "lost": rows - len({record["index"] for record in records}),
                "doubled": len(records) - len({record["index"] for record in records}),
                "same_bytes": runs.bytes(folder_name) == runs.bytes("plain"),
                "audit": [p for check in audit(folder / folder_name).checks for p in check.problems],
                "restarts": runs.restarts(folder_name),
                "connections_lost": runs.connections_lost(folder_name),
            }
    figures["right"] = figures["wrong_rows"] == [] and all(
        part["kills"] and part["same_bytes"] and not (part["lost"] or part["doubled"] or part["audit"])
        for part in (figures["server-killed"], figures["run-killed"])
    )
    return figures


def _judged(records: Sequence[Mapping[str, Any]], bad: Bad) -> dict[str, Any]:
    """One record a line in order, the bad rows failed with their own kind and nobody else, each answer its own prompt."""
    wrong = []
    if [record["index"] for record in records] != list(range(len(bad.lines))):
        wrong.append("not one record a line, in order")
    for record, line in zip(records, bad.lines, strict=False):
        kinds = bad.kinds.get(record["index"])
        if kinds is not None:
            fine = record["status"] == "failed" and record["error"]["kind"] in kinds
        else:
            fine = record["status"] == "ok" and record["output"] == json.loads(line)["text"]
        if not fine:
            wrong.append(f"{record['index']}: {record['status']} {record.get('error')}")
    refused = [record["attempts"] for record in records if record["status"] == "failed" and record["attempts"]]
    return {
        "ok": sum(record["status"] == "ok" for record in records),
        "bad": len(bad.kinds),
        "refused_by_the_model": len(refused),
        "attempts_of_those": sorted(set(refused)),
        "wrong_rows": wrong[:20],
    }


class _Runs:
    """Runs of one case's job, each in a folder and a process of its own."""

    def __init__(self, case: Case, server: servers.Server, folder: Path) -> None:
        self._case = case
        self._server = server
        self._folder = folder

    def finish(self, name: str, *, server_kills: int = 0, run_kills: int = 0) -> int:
        """Run to the end, the server or the run killed -9 so often on the way; returns how often that was."""
        total = len((self._folder / "rows.jsonl").read_bytes().splitlines())
        kills, process = 0, self._start(name)
        while process.poll() is None:
            time.sleep(_STEP_SECONDS)
            due = (kills + 1) * total / (server_kills + run_kills + 1)
            if kills < server_kills + run_kills and self._answered(name) >= due:
                kills += 1
                if server_kills:
                    self._server.kill()
                    self._server.start()
                else:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                    process = self._start(name)
        if process.returncode not in (0, 3):
            raise RuntimeError(
                f"{self._case.name}, {name}: exit code {process.returncode}: {self._log(name).read_text()[-2000:]}"
            )
        return kills

    def records(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.bytes(name).splitlines()]

    def bytes(self, name: str) -> bytes:
        return (self._folder / name / "results.jsonl").read_bytes()

    def restarts(self, name: str) -> int:
        """How often the run took its server for gone, over its sessions."""
        report = json.loads((self._folder / name / "report.json").read_bytes())
        return sum(session["engine_restarts"] for session in report["sessions"])

    def connections_lost(self, name: str) -> int:
        """How many different losses of a connection the engine noted in its log."""
        log = (self._folder / name / "engine.log").read_text(encoding="utf-8")
        return sum("cannot be reached" in line or "the connection ended" in line for line in log.splitlines())

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        job = {
            "model": self._case.model,
            "prompt": {"path": "{{ text }}"},
            "input": {"path": str(self._folder / "rows.jsonl")},
            "output": str(self._folder / name),
            "engine": {
                "name": "kserve", "urls": self._server.url, "in_flight": _IN_FLIGHT[self._case.peer], **self._case.engine,
            },
            "sampling": {"temperature": 0, "max_tokens": 64},
            "run": {"window": 100, "commit_seconds": 0.05},
        }  # fmt: skip
        file = self._folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(job), encoding="utf-8")
        with self._log(name).open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "llmbatch.cli", "run", str(file), "--json"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _answered(self, name: str) -> int:
        """Records that are on the disk, in parts and journals."""
        parts = self._folder / name / "parts"
        files = [path for path in parts.glob("part-*") if path.suffix in (".jsonl", ".journal")]
        found = 0
        for path in files:
            with suppress(FileNotFoundError):  # a journal goes as its part comes
                found += path.read_bytes().count(b"\n")
        return found


def report(figures: Mapping[str, Any]) -> list[str]:
    """The section of ``RESULTS.md``."""
    lines = [
        "## kserve: a real Triton and a real mlserver",
        "",
        f"{figures['rows']:,} lines each; some are no JSON, have no text, or are refused by the model, and with them all of their "
        "request. The models stand in for language models inside the real servers: each answers a prompt with the prompt. A "
        "server killed -9 is started again on its port, a run killed -9 by the same command; the bytes are compared with those of "
        "a run that nobody disturbed, and the folder is audited.",
        "",
        "| server | case | ok | bad rows | wrong | kills of the server | of the run | lost | doubled | same bytes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for case in figures["cases"]:
        if "not_shown" in case:
            lines.append(f"| | {case['name']}: not shown: {case['not_shown']} | | | | | | | | |")
            continue
        parts = [case["server-killed"], case["run-killed"]]
        cells = [
            case["server"], case["name"], case["ok"], case["bad"], len(case["wrong_rows"]), *(part["kills"] for part in parts),
            *(sum(part[what] for part in parts) for what in ("lost", "doubled")),
            "yes" if all(part["same_bytes"] for part in parts) else "NO",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


if __name__ == "__main__":
    main()
