from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from llmbatch.core.events import Replica, Snapshot
from llmbatch.core.ledger import WorstFailure
from llmbatch.core.types import Usage
from llmbatch.folder.progress import read_progress, write_progress


def test_a_snapshot_comes_back_from_the_file(tmp_path: Path, snapshot: Snapshot) -> None:
    (tmp_path / "progress.json").write_text(json.dumps({"written_at": 5.0, "pid": 1, **asdict(snapshot)}))
    progress = read_progress(tmp_path)
    assert progress is not None
    assert progress.snapshot == snapshot
    assert progress.written_at == 5.0


def test_the_engines_of_a_snapshot_come_back_too(tmp_path: Path, snapshot: Snapshot) -> None:
    two = (Replica(0, "up", 2.0, 1.0, Usage(3, 2, 1), 0), Replica(1, "starting", 0.0, 0.0, Usage(), 1))
    many = replace(snapshot, replicas=two)
    write_progress(tmp_path, many)
    progress = read_progress(tmp_path)
    assert progress is not None and progress.snapshot == many


def test_the_worst_failure_of_a_snapshot_comes_back_too(tmp_path: Path, snapshot: Snapshot) -> None:
    write_progress(tmp_path, bad := replace(snapshot, worst=WorstFailure("schema", 12, "c", "'age' is missing")))
    progress = read_progress(tmp_path)
    assert progress is not None and progress.snapshot == bad


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"written_at": 1}', "\x00"])
def test_a_file_that_cannot_be_understood_says_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "progress.json").write_text(content)
    assert read_progress(tmp_path) is None


def test_no_file_says_nothing(tmp_path: Path) -> None:
    assert read_progress(tmp_path) is None
