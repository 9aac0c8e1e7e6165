"""Blocks of code that need a Ray cluster, on one of this machine, with the scripted engine for the model: ``make cluster``."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytestmark = pytest.mark.cluster
blocks = importlib.import_module("tests.docs.blocks")
REASON = "needs a Ray cluster; make cluster runs it"
FOUND = [block for page in blocks.pages() for block in blocks.blocks_of(page) if block.not_run == REASON]
FILLED_IN = "--model any --prompt '{{ text }}' --input rows.jsonl --output out-"
ENGINE = {"name": "scripted", "args": {"rules": [{"answer": '{"positive": true}'}]}}
SCHEMA = {"type": "object", "properties": {"positive": {"type": "boolean"}}, "required": ["positive"]}


class Head(NamedTuple):
    """Where a cluster is: for who is in it, and for its clients."""

    address: str
    client: str


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """A node with eight processors and eight GPUs, both of which are logical."""
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    sys.path.append(str(Path(__file__).parents[1]))
    from ray_nodes import Nodes

    nodes = Nodes(num_cpus=8, num_gpus=8, object_store_memory=200 << 20)
    ray.init(address=nodes.cluster.address, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield Head(nodes.cluster.address, f"127.0.0.1:{nodes.port}")
    nodes.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With reviews, which the pages name by several places."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name in ("reviews", "bucket/reviews"):
        (tmp_path / name).mkdir(parents=True)
        pq.write_table(pa.table({"text": ["A quiet room.", "Too loud."]}), tmp_path / name / "part.parquet")
    (tmp_path / "review.json").write_text(json.dumps(SCHEMA))
    (tmp_path / "rows.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    return tmp_path


def commands_here(block: Any, head: Head) -> Iterator[list[str]]:
    """A shell block's commands, each with what ``...`` stands for, on the scripted engine."""
    for number, line in enumerate(block.commands):
        if line.split()[0] in blocks.LOOKED_AT:
            continue
        text = line.replace("HEAD:10001", head.client).replace("Qwen/Qwen3-8B", "any").partition(" #")[0]
        text = text.replace(" ...", f" {FILLED_IN}{number}")
        yield ["bash", "-c", f"{sys.executable} -m llmbatch.cli {text.removeprefix('llmbatch')} --engine scripted"]


def run_here(block: Any, folder: Path) -> None:
    """A block of Python in this process, which is in the cluster: with one engine, as each is a process that imports much.

    Paths are those of the folder, as Ray's workers are in one of their own.
    """
    text = block.text.replace('"model": "Qwen/Qwen3-8B",', f'"model": "any", "engine": {ENGINE!r},')
    text = text.replace("s3://bucket/", "bucket/").replace("concurrency=8", "concurrency=1")
    for name in ("bucket/", "reviews/", "judged/", "review.json"):
        text = text.replace(f'"{name}', f'"{folder}/{name}')
    assert "scripted" in text
    assert "concurrency=1" in text
    import ray

    import llmbatch

    exec(text, {"ray": ray, "llmbatch": llmbatch})  # noqa: S102 - a page of ours


@pytest.mark.parametrize("block", FOUND, ids=[block.where for block in FOUND])
def test_a_block_for_a_ray_cluster_runs_on_one(
    block: Any, head: Head, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    if block.language == "python":
        run_here(block, folder)
        left = list(folder.glob("**/judged/*.parquet"))
    else:
        commands = list(commands_here(block, head))
        for command in commands:
            environment = {**os.environ, "RAY_ADDRESS": head.address}
            for _ in range(3):
                done = subprocess.run(
                    command, env=environment, capture_output=True, text=True, check=False, timeout=600
                )
                # Ray gives a client's server half a minute to start, which is short where much else runs
                if f"the client server at ray://{head.client} could not begin" not in done.stderr:
                    break
            assert done.returncode == 0, f"{command}\n{done.stdout[-1500:]}{done.stderr[-3000:]}"
        left = list(folder.glob("*/results.jsonl"))
        assert len(left) == len(commands)
    assert left
