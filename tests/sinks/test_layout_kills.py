"""Every layout, of a run that is killed and finished by the same command: its bytes, and what was asked again for them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from llmbatch.core.types import EMPTY
from llmbatch.job.job import job_from
from llmbatch.sinks.layouts import LAYOUTS

ROWS, WINDOW = 24, 6
_TIME = {"time": "2026-11-24T13:14:15Z"}


class Case(NamedTuple):
    """A layout, the format of its rows and the options of both, and how a row is written."""

    layout: str
    line: Callable[[int], Any]
    format: str = ""
    options: Mapping[str, Any] = EMPTY
    settings: Mapping[str, Any] = EMPTY
    prompt: dict[str, str] | None = None


def _batch(i: int) -> Any:
    body = {"model": "demo", "prompt": [f"one {i}", f"two {i}"], "n": 2, "seed": 1}
    return {"custom_id": f"r{i}", "method": "POST", "url": "/v1/completions", "body": body}


def _v2(i: int) -> Any:
    tensor = {"name": "text_input", "shape": [2, 1], "datatype": "BYTES", "data": [f"one {i}", f"two {i}"]}
    return {"id": f"r{i}", "inputs": [tensor]}


def _gemini(i: int) -> Any:
    return {"key": f"r{i}", "request": {"contents": [{"role": "user", "parts": [{"text": f"number {i}"}]}]}}


def _bedrock(i: int) -> Any:
    said = [{"role": "user", "content": [{"type": "text", "text": f"number {i}"}]}]
    body = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 64, "messages": said}
    return {"recordId": f"r{i}", "modelInput": body}


CASES = {
    "openai_batch": Case("openai_batch", _batch, "openai", settings={"created": 1}),
    "v2": Case("v2", _v2, "v2"),
    "seldon": Case("seldon", lambda i: json.dumps([f"one {i}", f"two {i}"]), "seldon"),
    "seldon raw": Case("seldon", lambda i: {"data": {"ndarray": [[f"number {i}"]]}}, "seldon", {"data_type": "raw"}),
    "sagemaker": Case("sagemaker", lambda i: {"inputs": f"number {i}"}, "sagemaker"),
    "bedrock": Case("bedrock", _bedrock, "bedrock"),
    "vertex": Case("vertex", lambda i: {"prompt": f"number {i}"}, "vertex", settings=_TIME),
    "gemini": Case("gemini", _gemini, "gemini", settings=_TIME),
    "gemini_api": Case("gemini_api", _gemini, "gemini_api"),
    "azure_ml": Case("azure_ml", lambda i: {"text": f"number {i}"}, prompt={"path": "{{ text }}"}),
}


def test_every_layout_is_among_these() -> None:
    assert {case.layout for case in CASES.values()} == set(LAYOUTS)


@pytest.mark.parametrize("name", CASES)
def test_a_killed_run_is_finished_by_the_same_command_with_the_same_bytes_and_no_row_again(
    jobs: Any, name: str
) -> None:
    case = CASES[name]
    input_ = {"format": case.format, "options": dict(case.options)} if case.format else {}
    sinks = {"layout": {"name": case.layout, "settings": dict(case.settings)}}
    rows = jobs.rows([case.line(i) for i in range(ROWS)])
    data = jobs.data(rows, prompt=case.prompt, model="demo", input=input_, sinks=sinks, run={"window": WINDOW})
    whole = _tree(jobs.run(job_from({**data, "output": str(jobs.path / "whole")})).folder)
    lines = {path: content.count(b"\n") for path, content in whole.items() if not path.endswith("manifest.json.out")}
    assert sum(lines.values()) == ROWS
    for fault, left in (("part-sealed:2", ROWS - 2 * WINDOW), ("results-written:1", 0), ("folder-away/output:1", 0)):
        output = str(jobs.path / fault.partition("/")[0])
        killed = {**data, "output": output}
        jobs.killed(killed, fault)
        result = jobs.run(job_from(killed))
        assert _tree(result.folder) == whole
        assert result.report["sessions"][-1]["rows"] == left


def _tree(folder: Path) -> dict[str, bytes]:
    """The files of the layout."""
    output = folder / "output"
    return {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*") if path.is_file()}
