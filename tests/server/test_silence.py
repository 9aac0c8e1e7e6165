"""Nothing of what is asked is in the log, whichever API it came by: neither of what is answered nor of what is refused."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from llmbatch.server import answering

AMZ = {"content-type": "application/x-amz-json-1.1", "x-amz-target": "SageMaker.CreateTransformJob"}
GOOGLE = {"content-type": "application/json", "x-goog-api-client": "google-genai-sdk/3"}
JSON = {"content-type": "application/json"}
SECRET = "a-secret-text"  # noqa: S105 - what requests say
RULES = {"rules": [{"when": {"contains": "fails"}, "fail": f"the engine repeats {SECRET}"}]}

TRANSFORM = {
    "TransformJobName": SECRET, "ModelName": "demo", "TransformResources": {"InstanceType": SECRET, "InstanceCount": 1},
    "TransformInput": {"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://bucket/{SECRET}"}},
                       "SplitType": "Line"},
    "TransformOutput": {"S3OutputPath": f"s3://bucket/out-{SECRET}", "AssembleWith": "Line"}, "Environment": {SECRET: SECRET},
}  # fmt: skip
INVOCATION = {
    "jobName": SECRET, "modelId": "demo", "roleArn": "arn:aws:iam::123456789012:role/x",
    "inputDataConfig": {"s3InputDataConfig": {"s3Uri": f"s3://bucket/{SECRET}/"}},
    "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": f"s3://bucket/out-{SECRET}/"}},
}  # fmt: skip
VERTEX = {
    "displayName": SECRET, "model": "publishers/google/models/demo",
    "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": [f"gs://bucket/{SECRET}.jsonl"]}},
    "outputConfig": {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": f"gs://bucket/out-{SECRET}"}},
}  # fmt: skip
JOBS = "/v1/projects/p/locations/l/batchPredictionJobs"


def gemini(text: str) -> Any:
    contents = [{"role": "user", "parts": [{"text": text}]}]
    return {"batch": {"displayName": SECRET, "inputConfig": {"requests": {"requests": [
        {"request": {"contents": contents}, "metadata": {"key": SECRET}}
    ]}}}}  # fmt: skip


def v2(text: str) -> Any:
    return {"id": SECRET, "inputs": [{"name": "text_input", "shape": [1], "datatype": "BYTES", "data": [text]}]}


BOTH = (SECRET, f"{SECRET} fails")
ASKED: dict[str, list[tuple[str, Any, dict[str, str]]]] = {
    "sagemaker": [("/", TRANSFORM, AMZ), ("/", {**TRANSFORM, "DataCaptureConfig": {"DestinationS3Uri": SECRET}}, AMZ),
                  ("/", {**TRANSFORM, "ModelName": SECRET}, AMZ), ("/", {}, {**AMZ, "x-amz-target": SECRET})],
    "bedrock": [("/model-invocation-job", INVOCATION, JSON), ("/model-invocation-job", {**INVOCATION, "modelId": SECRET}, JSON),
                (f"/model-invocation-job/{SECRET}/stop", None, JSON)],
    "vertex": [(JOBS, VERTEX, GOOGLE), (JOBS, {**VERTEX, "model": SECRET}, GOOGLE), (f"{JOBS}/{SECRET}:cancel", {}, GOOGLE)],
    "gemini": [*(("/v1/models/demo:batchGenerateContent", gemini(text), GOOGLE) for text in BOTH),
               (f"/v1/models/{SECRET}:batchGenerateContent", gemini("x"), GOOGLE)],
    "v2": [*(("/v2/models/demo/infer", v2(text), JSON) for text in BOTH), (f"/v2/models/{SECRET}/infer", v2("x"), JSON)],
    "seldon": [*(("/api/v1.0/predictions", {"data": {"ndarray": [text]}}, JSON) for text in BOTH),
               ("/api/v1.0/predictions", {SECRET: SECRET}, JSON)],
    "verta": [*((f"/predict/{SECRET}", text, JSON) for text in BOTH),
              ("/batch-predict/a", {"index": [SECRET], "columns": ["prompt"], "data": [[SECRET]]}, JSON)],
}  # fmt: skip


@pytest.mark.parametrize("front", ASKED)
def test_nothing_of_what_is_asked_is_logged(sites, until, caplog, tmp_path, front: str) -> None:
    store = tmp_path / "bucket"
    store.mkdir()
    (store / SECRET).mkdir()
    for name in (f"{SECRET}.jsonl", f"{SECRET}/a.jsonl"):
        (store / name).write_text(json.dumps({"inputs": SECRET, SECRET: SECRET}) + "\nbroken " + SECRET + "\n")
    caplog.set_level(logging.DEBUG)
    site = sites.start(RULES, assets={"s3://bucket": str(store), "gs://bucket": str(store)})
    statuses = []
    for path, body, headers in ASKED[front]:
        content = None if body is None else json.dumps(body).encode()
        statuses.append(site.ask("POST", path, content, headers)[0])
    assert 200 in statuses
    assert any(400 <= status < 600 for status in statuses)
    until(lambda: site.server.store.unfinished(), lambda batches: not batches)
    batches = site.server.store.batches("", front=None, after=None, limit=9)
    assert bool(batches) == (front in ("sagemaker", "bedrock", "vertex", "gemini"))
    site.stop()
    ours = [record.getMessage() for record in caplog.records if record.name.startswith(("llmbatch", "uvicorn"))]
    assert len(ours) >= len(statuses)
    assert not [said for said in ours if SECRET in said]


def test_what_goes_wrong_in_the_middle_of_a_live_answer_is_said_without_its_words(site, monkeypatch, caplog) -> None:
    async def fails(*_: Any) -> None:
        raise RuntimeError(f"the prompt is {SECRET}")

    monkeypatch.setattr(answering.Answering, "answer", fails)
    status, _, body = site.ask("POST", "/v2/models/demo/infer", json.dumps(v2(SECRET)).encode(), JSON)
    assert status == 500
    assert SECRET not in body.decode() + caplog.text
    assert "RuntimeError" in caplog.text
