"""A whole job over hostile bytes, and what must be true of its folder whatever they are."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import pytest

from llmbatch.audit.audit import audit
from llmbatch.job.job import job_from
from llmbatch.runs.session import run_job

MUTATE = Path(__file__).parents[2] / "eval" / "fuzz" / "mutate.py"


class Hostile:
    """Runs jobs over bytes. The engine echoes, so an answer is the text of its row."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._runs = 0

    def run(self, content: bytes, **sections: Any) -> list[dict[str, Any]]:
        """The records of a job over an input with this content; that the folder is sound is seen to."""
        self._runs += 1
        base = self._base / str(self._runs)
        base.mkdir()
        (base / "rows.jsonl").write_bytes(content)
        data = {
            "model": "any",
            "prompt": "{{ text }}",
            "engine": {"name": "scripted"},
            "retry": {"max_attempts": 1},
            "run": {"window": 64},
            **sections,
            "input": {"format": "jsonl", **sections.get("input", {}), "path": str(base / "rows.jsonl")},
            "output": str(base / "out"),
        }
        run_job(job_from(data))
        records = sound_records(base / "out")
        assert sorted(path.name for path in base.iterdir()) == ["out", "rows.jsonl"]
        shutil.rmtree(base)
        return records

    def lines(self, lines: Iterable[bytes], **sections: Any) -> list[dict[str, Any]]:
        """As ``run``, over lines; each has one record."""
        lines = list(lines)
        records = self.run(b"\n".join(lines) + b"\n", **sections)
        assert len(records) == len(lines)
        return records


def sound_records(folder: Path) -> list[dict[str, Any]]:
    """The records of a run folder, which are seen to be strict JSON in UTF-8, one a row, and proved by the audit."""
    lines = (folder / "results.jsonl").read_bytes().decode("utf-8", "strict").split("\n")
    assert lines.pop() == ""
    records = [json.loads(line, parse_constant=refuse) for line in lines]
    for record in records:
        json.dumps(record, ensure_ascii=False).encode("utf-8", "strict")  # no half of a surrogate pair
    assert [record["index"] for record in records] == list(range(len(records)))
    for name in ("errors.jsonl", "report.json", "run.json", "job.yaml"):
        (folder / name).read_bytes().decode("utf-8", "strict")
    found = audit(folder)
    assert found.complete, [problem for check in found.checks for problem in check.problems]
    return records


def refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


@pytest.fixture
def hostile(tmp_path: Path) -> Hostile:
    return Hostile(tmp_path)


@pytest.fixture(scope="session")
def mutate() -> ModuleType:
    """The mutator that the script under ``eval/fuzz`` uses with more lines."""
    spec = importlib.util.spec_from_file_location("mutate", MUTATE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
