"""Vertex AI's batch prediction jobs, by requests as Google's clients send them; the objects lie in a folder in a bucket's place."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

CUSTOM = Path(__file__).parents[1] / "examples" / "vertex" / "custom"
PARENT = "/v1/projects/p/locations/us-central1/batchPredictionJobs"


@pytest.fixture
def ask(sites, tmp_path: Path) -> Any:
    shutil.copytree(CUSTOM / "gcs", tmp_path / "gcs")
    site = sites.start(names=("demo",), assets={"gs://corpus": str(tmp_path / "gcs")})

    def call(method: str, path: str, body: Any = None) -> tuple[int, Any]:
        raw = None if body is None else json.dumps(body).encode()
        status, _, content = site.ask(method, path, raw, {"Content-Type": "application/json"})
        return status, json.loads(content)

    return call


def document(name: str = "job.key.json") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CUSTOM / name).read_text())
    return found


def test_a_job_comes_to_its_end_with_counts_as_texts(ask, until, tmp_path: Path) -> None:
    status, made = ask("POST", PARENT, document())
    assert status == 200, made
    job = until(
        lambda: ask("GET", f"/v1beta1/{made['name']}")[1],
        lambda job: job["state"] in ("JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED"),
    )
    assert job["state"] == "JOB_STATE_SUCCEEDED", job
    stats = job["completionStats"]
    assert (stats["successfulCount"], stats["failedCount"]) == ("3", "1")
    (results,) = (tmp_path / "gcs").rglob("prediction.results-*")
    assert len(results.read_text().splitlines()) == 3
    assert [each["name"] for each in ask("GET", PARENT)[1]["batchPredictionJobs"]] == [made["name"]]


def test_what_is_not_done_is_refused_in_googles_form(ask) -> None:
    wrong = document()
    wrong["inputConfig"]["instancesFormat"] = "bigquery"
    status, said = ask("POST", PARENT, wrong)
    assert (status, said["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert ask("POST", PARENT, {**document(), "model": "projects/p/locations/l/models/other"})[0] == 404
    assert ask("GET", f"{PARENT}/123")[1]["error"]["status"] == "NOT_FOUND"
    elsewhere = document()
    elsewhere["outputConfig"]["gcsDestination"]["outputUriPrefix"] = "/etc"
    assert ask("POST", PARENT, elsewhere)[0] == 400
