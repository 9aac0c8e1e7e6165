from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from llmbatch.core.events import Snapshot
from llmbatch.folder.progress import read_progress


def test_a_snapshot_comes_back_from_the_file(tmp_path: Path, snapshot: Snapshot) -> None:
    (tmp_path / "progress.json").write_text(json.dumps({"written_at": 5.0, "pid": 1, **asdict(snapshot)}))
    progress = read_progress(tmp_path)
    assert progress is not None
    assert progress.snapshot == snapshot
    assert progress.written_at == 5.0


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"written_at": 1}', "\x00"])
def test_a_file_that_cannot_be_understood_says_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "progress.json").write_text(content)
    assert read_progress(tmp_path) is None


def test_no_file_says_nothing(tmp_path: Path) -> None:
    assert read_progress(tmp_path) is None
