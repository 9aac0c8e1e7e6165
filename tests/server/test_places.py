"""What clients are told names no place of the server's machine, whichever front they came by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from llmbatch.server.places import Places

EXAMPLES = Path(__file__).parents[1] / "examples"
MODELS = ("demo", "demo-model", "anthropic.claude-3-haiku-20240307-v1:0", "gemini-2.5-flash")
GOOGLE = {"x-goog-api-client": "google-genai-sdk/3"}
VERTEX_JOBS = "/v1/projects/p/locations/us-central1/batchPredictionJobs"


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the server's, in which it was started; its buckets are folders below it."""
    place = tmp_path / "secret"
    (place / "corpus").mkdir(parents=True)
    monkeypatch.chdir(place)
    return place


def read(name: str) -> Any:
    return json.loads((EXAMPLES / name).read_text())


def sagemaker(site: Any, place: str) -> Any:
    document = read("aws/sagemaker/create-transform-job.json")
    document["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"] = f"s3://corpus/{place}"
    document["TransformOutput"]["S3OutputPath"] = "s3://corpus/out"
    said = ask(site, "POST", "/", document, {"x-amz-target": "SageMaker.CreateTransformJob"})
    if "TransformJobArn" not in said:
        return said  # it looks whether there are such objects before it takes the job
    named, target = {"TransformJobName": document["TransformJobName"]}, "SageMaker.DescribeTransformJob"
    return lambda: ask(site, "POST", "/", named, {"x-amz-target": target}), "TransformJobStatus"


def bedrock(site: Any, place: str) -> Any:
    document = read("aws/bedrock/create-model-invocation-job.json")
    document["inputDataConfig"]["s3InputDataConfig"]["s3Uri"] = f"s3://corpus/{place}"
    document["outputDataConfig"]["s3OutputDataConfig"]["s3Uri"] = "s3://corpus/out/"
    arn = ask(site, "POST", "/model-invocation-job", document)["jobArn"]
    return lambda: ask(site, "GET", f"/model-invocation-job/{arn}"), "status"


def vertex(site: Any, place: str, name: str = "vertex/custom/job.key.json") -> Any:
    document = read(name)
    document["inputConfig"]["gcsSource"]["uris"] = [f"gs://corpus/{place}"]
    made = ask(site, "POST", VERTEX_JOBS, document, GOOGLE)["name"]
    return lambda: ask(site, "GET", f"/v1/{made}", headers=GOOGLE), "state"


def gemini(site: Any, place: str) -> Any:
    return vertex(site, place, "vertex/gemini/job.json")


def ask(site: Any, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
    content = None if body is None else json.dumps(body).encode()
    return json.loads(site.ask(method, path, content, {"content-type": "application/json", **(headers or {})})[2])


@pytest.mark.parametrize("place", ["no/file.jsonl", "file.jsonl", "no/"])
@pytest.mark.parametrize("asset", ["absolute", "relative"])
@pytest.mark.parametrize("front", [sagemaker, bedrock, vertex, gemini])
def test_of_an_input_that_is_not_there_the_client_reads_its_own_address(
    sites: Any, until: Any, secret: Path, front: Any, asset: str, place: str
) -> None:
    address = "gs://corpus" if front in (vertex, gemini) else "s3://corpus"
    site = sites.start(names=MODELS, assets={address: str(secret / "corpus") if asset == "absolute" else "./corpus"})
    asked = front(site, place)
    said = asked
    if isinstance(asked, tuple):
        look, state = asked
        told = until(look, lambda job: "fail" in job[state].lower())
        listed = ask(site, "GET", "/llmbatch/batches")
        said = [told, listed, ask(site, "GET", f"/llmbatch/batches/{listed['data'][0]['id']}")]
        assert any(address in error["message"] for error in listed["data"][0]["errors"]), listed
    text = json.dumps(said)
    assert address in text
    assert str(secret.parent) not in text
    assert "./corpus" not in text


def asked_live(site: Any) -> list[bytes]:
    """What each live front says of a request that the engine fails, and OpenAI's also in a stream."""
    chat = {"model": "demo", "messages": [{"role": "user", "content": "fail"}]}
    text = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["fail"]}]}
    asked: list[tuple[str, Any]] = [
        ("/v1/chat/completions", chat),
        ("/v1/chat/completions", {**chat, "stream": True}),
        ("/v1/responses", {"model": "demo", "input": "fail"}),
        ("/openai/v1/chat/completions", chat),
        ("/v2/models/demo/infer", text),
        ("/api/v1.0/predictions", {"data": {"ndarray": ["fail"]}}),
        ("/api/v1/predict/demo", "fail"),
    ]
    return [
        site.ask("POST", path, json.dumps(body).encode(), {"content-type": "application/json"})[2]
        for path, body in asked
    ]


def test_what_the_engine_says_of_its_own_files_stays_here(
    sites: Any, secret: Path, tmp_path: Path, lines: Any, begin: Any, ended: Any
) -> None:
    words = f"cannot open {tmp_path}/data/engine/x.so, {secret}/corpus/model and /etc/of-the-client"
    site = sites.start({"rules": [{"when": {"contains": "fail"}, "fail": words}]}, assets={"s3://corpus": "./corpus"})
    said = asked_live(site)
    client = site.openai()
    batch = ended(client, begin(client, lines.jsonl([lines.chat("a", "fail")])))
    said.append(client.files.content(batch.error_file_id).content)
    said.append(site.ask("GET", f"/llmbatch/batches/{batch.id}/rows")[2])
    said.append(site.ask("GET", f"/llmbatch/batches/{batch.id}/rows/0")[2])
    for each in said:
        text = each.decode()
        assert "cannot open (the server's data)/engine/x.so, s3://corpus/model and /etc/of-the-client" in text, text
        assert str(tmp_path) not in text


def test_only_whole_names_of_folders_are_hidden(sites: Any, secret: Path) -> None:
    settings = sites.settings(assets={"s3://corpus": str(secret / "corpus"), "gs://far": "gs://elsewhere"})
    places = Places(settings)
    corpus = secret / "corpus"
    assert places.hidden(f"{corpus}: no; looked in {corpus}/in.") == "s3://corpus: no; looked in s3://corpus/in."
    kept = f"{corpus}-2/in, /x{corpus}/in, gs://elsewhere/in, corpus, a/b"
    assert places.hidden(kept).replace("(a folder of the server)", str(secret)) == kept
