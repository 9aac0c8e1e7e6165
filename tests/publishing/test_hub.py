from __future__ import annotations

import json
from typing import Any

import pytest

from llmbatch.core.errors import JobError, PushError

ROWS = [{"id": f"r{i}", "text": f"a text of its own number {i}"} for i in range(4)]


def test_a_dataset_is_pushed_in_one_commit(run: Any, published: Any, hub: Any) -> None:
    done = published(run(ROWS), push_to="me/set")
    assert len(hub.commits) == 1
    assert done.url == f"{hub.url}/datasets/me/set/commit/{hub.sha}"
    assert set(hub.files) == {"README.md", "provenance.json", "data/train-00000-of-00001.parquet"}
    assert hub.files["README.md"] == published.card().encode()
    parquet = published.folder / "data" / "train-00000-of-00001.parquet"
    assert hub.files["data/train-00000-of-00001.parquet"] == parquet.read_bytes()
    assert hub.created == {"name": "set", "organization": "me", "type": "dataset"}
