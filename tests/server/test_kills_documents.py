"""A server that is killed at every point of the life of a batch whose document names buckets: started again, it fills them."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from llmbatch.audit.audit import audit
from llmbatch.server.fronts.google import GoogleFront
from llmbatch.server.keys import Owner
from llmbatch.server.running import open_server
from llmbatch.server.server import Server
from llmbatch.server.settings import ServerSettings
from llmbatch.server.store import Batch

EXAMPLES = Path(__file__).parents[1] / "examples"
WINDOW = {"run": {"window": 1, "grace": 0.1}}
FAULTS = [
    "batch-folder-made", "batch-created", "batch-checked", "journal-opened", "part-sealed:2", "results-written", "report-written",
    "batch-run", "batch-results-written",
]  # fmt: skip


class Kind(NamedTuple):
    """``document`` and what lies in its bucket are an example's; ``begun`` makes the batch."""

    bucket: str
    document: str
    content: str
    begun: Callable[[Server, Any], Batch]
    model: str


def _of_aws(front: str) -> Callable[[Server, Any], Batch]:
    def begun(_: Server, document: Any) -> Batch:
        given = {
            "document": document, "model": document.get("ModelName") or document.get("modelId"), "name": "job",
            "job": "abcdefghijkl", "region": "eu-west-1", "metadata": None,
        }  # fmt: skip
        return Batch("one", "", front, int(time.time()), None, given)

    return begun


def _vertex(server: Server, document: Any) -> Batch:
    front = server.fronts["google"]
    assert isinstance(front, GoogleFront)
    made = front._job(document, "projects/p/locations/l", Owner())
    return replace(made, id="vertex-1", given={**made.given, "number": "1"})


KINDS = {
    "sagemaker": Kind(
        "s3://corpus-b", "aws/sagemaker/create-transform-job.json", "aws/sagemaker/s3", _of_aws("sagemaker"), "demo-model"
    ),
    "bedrock": Kind(
        "s3://corpus-b", "aws/bedrock/create-model-invocation-job.json", "aws/bedrock/s3", _of_aws("bedrock"),
        "anthropic.claude-3-haiku-20240307-v1:0",
    ),
    "gemini": Kind("gs://corpus", "vertex/gemini/job.json", "vertex/gemini/gcs", _vertex, "gemini-2.5-flash"),
    "vertex": Kind("gs://corpus", "vertex/custom/job.key.json", "vertex/custom/gcs", _vertex, "demo"),
}  # fmt: skip


def settings(sites: Any, kind: Kind, bucket: Path) -> ServerSettings:
    shutil.rmtree(bucket, ignore_errors=True)
    shutil.copytree(EXAMPLES / kind.content, bucket)
    found: ServerSettings = sites.settings(job=WINDOW, assets={kind.bucket: str(bucket)}, names=(kind.model,))
    return found


def served(given: ServerSettings, kind: Kind) -> Batch:
    """What a client does, whatever is there already; returns the batch once it is over."""
    document = json.loads((EXAMPLES / kind.document).read_text())
    with open_server(given) as server:
        server.start()
        batch = kind.begun(server, document)
        if server.store.batch(batch.id) is None:
            server.batches.add(batch)
        end = time.monotonic() + 60
        while not (found := server.store.batch(batch.id)).ended:  # type: ignore[union-attr]
            assert time.monotonic() < end
            time.sleep(0.005)
    assert found is not None
    assert audit(given.data / "batches" / found.id / "run").complete
    return found


def filled(bucket: Path) -> dict[str, list[Any]]:
    """What lies in the bucket, without the times of day in names and lines."""
    return {
        f"{path.parent.name.partition('-20')[0]}/{path.name}": [
            _timeless(line) for line in path.read_text().splitlines()
        ]
        for path in sorted(bucket.rglob("*"))
        if path.is_file()
    }


def _timeless(line: str) -> Any:
    said = json.loads(line) if line.startswith("{") else line
    if isinstance(said, dict):
        said.pop("processed_time", None)
        if isinstance(said.get("response"), dict):
            said["response"].pop("createTime", None)
    return said


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", KINDS)
def test_a_killed_server_fills_the_bucket_as_one_that_was_not(
    sites: Any, tmp_path: Path, kill_at: Any, name: str, fault: str
) -> None:
    kind, bucket = KINDS[name], tmp_path / "bucket"
    given = settings(sites, kind, bucket)
    kill_at(fault, lambda: served(given, kind))
    batch = served(given, kind)
    assert batch.state == "completed"
    found = filled(bucket)
    assert [path.name for path in (given.data / "uploads").iterdir()] == []
    shutil.rmtree(given.data)
    whole = served(settings(sites, kind, bucket), kind)
    assert (batch.facts.rows, batch.facts.done, batch.facts.failed) == (
        whole.facts.rows,
        whole.facts.done,
        whole.facts.failed,
    )
    assert found == filled(bucket)
    assert len(found) > sum(path.is_file() for path in (EXAMPLES / kind.content).rglob("*"))
