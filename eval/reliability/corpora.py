"""A folder in; out the inputs and jobs of the chaos runs, which together bring a run into every state that it can be killed in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from llmbatch.job.job import Job, job_from

ROWS = 240
FAILS_ONCE = {"when": {"attempt": 1, "matches": "[05]$"}, "answer": ""}
FAILS_TWICE = {"when": {"attempt": [1, 2], "matches": "7$"}, "answer": ""}
FAILS_ALWAYS = {"when": {"matches": "3[12]$"}, "answer": ""}


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of run. ``script`` is the scripted engine's; the answer to a row is its text, unless a rule says otherwise."""

    name: str
    script: Mapping[str, Any] = field(default_factory=dict)
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    distinct: int = ROWS


SCENARIOS = (
    Scenario("retries", {"rules": [FAILS_ONCE, FAILS_TWICE, FAILS_ALWAYS]}, {"run": {"window": 16, "windows_open": 3}}),
    Scenario("duplicates", {"rules": [FAILS_ONCE]}, {"run": {"window": 48}, "sinks": {"keep": ["id"]}}, distinct=90),
    Scenario("cut-off", {}, {"run": {"window": 32}, "sampling": {"max_tokens": 6}, "retry": {"max_attempts": 4}}),
    Scenario(
        "samples", {"rules": [FAILS_ONCE]}, {"run": {"window": 24}, "sampling": {"n": 3, "temperature": 1, "seed": 1}}
    ),
    Scenario("engine-deaths", {"rules": [FAILS_ONCE], "die_after": [30, 80, 81]}, {"run": {"window": 40}}),
    Scenario(
        "poison-row", {"rules": [{"when": {"index": 101}, "die": True}]}, {"run": {"window": 20, "windows_open": 2}}
    ),
    Scenario("one-row-windows", {"rules": [FAILS_TWICE]}, {"run": {"window": 1, "windows_open": 6}}),
    Scenario("one-window", {"rules": [FAILS_ONCE]}, {"run": {"window": 1000, "windows_open": 1}}),
)


def write_input(scenario: Scenario, folder: Path) -> Path:
    """Rows in two files, with blank lines, lines that are not JSON, and rows that cannot be rendered among them."""
    lines = list(_lines(scenario))
    for name, part in (("a", lines[: len(lines) // 3]), ("b", lines[len(lines) // 3 :])):
        (folder / f"{name}.jsonl").write_text("".join(line + "\n" for line in part), encoding="utf-8")
    return folder


def make_job(scenario: Scenario, folder: Path, output: Path, *, latency: float = 0.05, concurrency: int = 12) -> Job:
    """The scenario's job on the input in the folder, each answer taking about ``latency`` seconds."""
    script = folder / "script.yaml"
    timing = {"latency": latency, "jitter": 0.9, "concurrency": concurrency}
    script.write_text(yaml.safe_dump({**timing, **scenario.script}), encoding="utf-8")
    data: dict[str, Any] = {
        "model": "any",
        "prompt": {"path": "Say: {{ text }}"},
        "input": {"path": str(folder / "*.jsonl"), "format": "jsonl"},
        "output": str(output),
        "engine": {"name": "scripted", "script": str(script)},
        "sampling": {"temperature": 0},
    }
    for name, section in scenario.sections.items():
        data[name] = {**data.get(name, {}), **section}
    data.setdefault("run", {})["grace"] = 0.2
    return job_from(data)


def _lines(scenario: Scenario) -> Iterator[str]:
    for i in range(ROWS):
        if i % 37 == 5:
            yield ""
        if i % 41 == 7:
            yield '{"text": cut'
        if i % 59 == 11:
            yield '{"id": "no text"}'
        yield json.dumps({"id": f"row-{i}", "text": f"number {i % scenario.distinct}"})
