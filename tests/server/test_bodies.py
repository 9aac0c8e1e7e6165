"""What a request may be made of: JSON that can be kept and shown again, in every front and in its own form."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from llmbatch.server import bodies
from llmbatch.server.fronts import v2

JSON = {"content-type": "application/json"}
DEEP = "[" * 300 + "]" * 300
UNSOUND = {"half-a-pair": '"\\ud800"', "nan": "NaN", "infinity": "-Infinity", "deep": DEEP}
PATHS = (
    "/v1/chat/completions", "/openai/deployments/demo/chat/completions", "/api/v1.0/predictions", "/v2/models/demo/infer",
    "/model-invocation-job", "/google/v1/models/demo:batchGenerateContent",
    "/google/v1/projects/p/locations/l/batchPredictionJobs", "/", "/api/v1/batch-predict/demo",
)  # fmt: skip


@pytest.mark.parametrize("value", [{"a": [1, "ü", None, 1e308]}, "text", []], ids=["object", "text", "list"])
@pytest.mark.parametrize("large", [False, True])
def test_json_stays_as_it_is(value: Any, large: bool) -> None:
    text = json.dumps(value) + (" " * 100_000 if large else "")
    assert asyncio.run(bodies.json_body(text.encode())) == value


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v2/models/demo/infer", "/api/v1/predict/demo", "/"])
def test_others_are_answered_while_a_large_body_is_read(shared, monkeypatch, path: str) -> None:
    begun, answered = threading.Event(), threading.Event()

    def slowly(raw: bytes) -> Any:
        begun.set()
        assert answered.wait(60), "nothing else was answered meanwhile"
        return json.loads(raw)

    monkeypatch.setattr(bodies, "json_value", slowly)
    monkeypatch.setattr(v2, "json_value", slowly)
    statuses: list[int] = []
    body = json.dumps({"model": "demo", "messages": "x" * 100_000})
    headers = {**JSON, "x-amz-target": "SageMaker.ListTransformJobs"}
    asking = threading.Thread(target=lambda: statuses.append(shared.ask("POST", path, body, headers)[0]))
    asking.start()
    assert begun.wait(60)
    assert shared.ask("GET", "/health")[0] == 200
    answered.set()
    asking.join(60)
    assert statuses[0] in (200, 400)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("what", UNSOUND)
def test_what_cannot_be_written_again_is_refused_and_no_list_breaks_by_it(shared, path: str, what: str) -> None:
    status, _, body = shared.ask("POST", path, f'{{"model": "demo", "batch": {UNSOUND[what]}}}', JSON)
    assert status == 400
    assert json.loads(body)


def test_what_was_refused_is_in_no_list(site) -> None:
    document = {"jobName": "a", "roleArn": "\ud800", "modelId": "demo"}
    for where, form in (("input", "s3://b/x.jsonl"), ("output", "s3://b/o")):
        document[f"{where}DataConfig"] = {f"s3{where.capitalize()}DataConfig": {"s3Uri": form}}  # type: ignore[assignment]
    assert site.ask("POST", "/model-invocation-job", json.dumps(document), JSON)[0] == 400
    for path in ("/model-invocation-jobs", "/llmbatch/batches", "/google/v1/batches"):
        assert site.ask("GET", path)[0] == 200


@pytest.mark.parametrize("length", ["9" * 5000, "-1", "\u00b2"], ids=["long", "negative", "no-digit"])
def test_a_length_that_is_no_number_is_refused(shared, length: str) -> None:
    headers = {**JSON, "Inference-Header-Content-Length": length.encode("latin-1")}
    assert shared.ask("POST", "/v2/models/demo/infer", "{}", headers)[0] == 400


def test_a_document_of_any_length_is_not_kept(shared) -> None:
    document = {"inputConfig": {"gcsSource": {"uris": ["gs://b/" + "a" * (1 << 20)]}}, "model": "demo"}
    document["outputConfig"] = {"gcsDestination": {"outputUriPrefix": "gs://b/o"}}
    path = "/google/v1/projects/p/locations/l/batchPredictionJobs"
    assert shared.ask("POST", path, json.dumps(document), JSON)[0] == 413


@pytest.mark.parametrize("url", ["{site}/health", "file://{file}", "{file}", "s3://bucket/a.png", "README.md"])
@pytest.mark.parametrize("batch", [False, True], ids=["live", "batch"])
def test_an_image_that_is_not_in_the_request_is_not_looked_for(
    shared, begin, ended, lines, tmp_path, url: str, batch: bool
) -> None:
    (tmp_path / "own.txt").write_text("secret")
    url = url.format(site=shared.url, file=tmp_path / "own.txt")
    content = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": url}}]
    line = lines.chat("a", "")
    line["body"]["messages"][0]["content"] = content
    if batch:
        client = shared.openai()
        [error] = lines.of(client, ended(client, begin(client, lines.jsonl([line]))).error_file_id)
        said = json.dumps(error)
    else:
        status, _, body = shared.ask("POST", "/v1/chat/completions", json.dumps(line["body"]), JSON)
        assert status == 400
        said = body.decode()
    assert "is not in engine.images.allow" in said
    assert "secret" not in said


def test_a_frame_may_have_more_rows_than_are_answered_at_a_time(sites) -> None:
    site = sites.start(live_requests=2)
    frame = {"index": list(range(9)), "columns": ["prompt"], "data": [[f"text {number}"] for number in range(9)]}
    status, _, body = site.ask("POST", "/api/v1/batch-predict/demo", json.dumps(frame), JSON)
    assert status == 200
    assert json.loads(body)["data"] == frame["data"]
