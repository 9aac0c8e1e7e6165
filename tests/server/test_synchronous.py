"""The fronts that answer at once: V2 with Triton's generate, Seldon's V1, Verta's wire; by requests as their clients send them."""

from __future__ import annotations

import gzip
import json
import struct
from typing import Any

import pytest

RULES = {"rules": [{"when": {"contains": "BOOM"}, "fail": "the model says no"}]}


@pytest.fixture
def ask(sites) -> Any:
    site = sites.start(RULES)

    def post(path: str, body: Any, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], Any]:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        status, answered, content = site.ask("POST", path, raw, {"Content-Type": "application/json", **(headers or {})})
        return status, answered, json.loads(content) if answered.get("content-type") == "application/json" else content

    post.site = site  # type: ignore[attr-defined]
    return post


def tensor(*texts: str, shape: list[int] | None = None) -> dict[str, Any]:
    return {"name": "text_input", "shape": shape or [len(texts), 1], "datatype": "BYTES", "data": list(texts)}


def test_v2_answers_in_the_shape_that_it_was_asked_in(ask) -> None:
    status, _, said = ask("/v2/models/demo/infer", {"id": "a", "inputs": [tensor("one", "two")]})
    assert status == 200, said
    assert (said["model_name"], said["id"]) == ("demo", "a")
    (output,) = [output for output in said["outputs"] if output["name"] == "text_output"]
    assert (output["shape"], output["data"]) == ([2, 1], ["one", "two"])


def test_v2_takes_texts_in_binary_form(ask) -> None:
    raw = b"".join(struct.pack("<I", len(text)) + text for text in (b"one loaf", b"two"))
    described = {"name": "text_input", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [described]}).encode()
    length = {"Inference-Header-Content-Length": str(len(head))}
    status, _, said = ask("/v2/models/demo/versions/1/infer", head + raw, length)
    assert status == 200, said
    assert said["outputs"][0]["data"] == ["one loaf", "two"]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v2/models/nope/infer", {"inputs": [tensor("x")]}, 404),
        ("/v2/models/demo/infer", {"inputs": []}, 400),
        ("/v2/models/demo/infer", {}, 400),
        ("/v2/models/demo/infer", b"{broken", 400),
        ("/v2/models/demo/infer", b"[]", 400),
        ("/v2/models/demo/infer", {"inputs": [tensor("x", shape=[7])]}, 400),
        ("/v2/models/demo/infer", {"inputs": [tensor(" ")]}, 400),
        ("/v2/models/demo/infer", {"inputs": [tensor("BOOM")]}, 500),
        ("/v2/models/demo/generate", {"text_input": 7}, 400),
    ],
    ids=["model", "no-inputs", "nothing", "broken", "list", "shape", "blank", "engine", "generate"],
)
def test_v2_refuses_with_words(ask, path: str, body: Any, status: int) -> None:
    seen, _, said = ask(path, body)
    assert seen == status
    assert said["error"]


@pytest.mark.parametrize("length", ["-1", "x", "999999"])
def test_v2_binary_lengths_that_lie_are_refused(ask, length: str) -> None:
    assert ask("/v2/models/demo/infer", b"{}", {"Inference-Header-Content-Length": length})[0] == 400


def test_v2_generates_whole_and_streamed(ask) -> None:
    status, _, said = ask("/v2/models/demo/generate", {"text_input": "one loaf", "parameters": {"max_tokens": 3}})
    assert (status, said["text_output"]) == (200, "one")
    _, headers, content = ask("/v2/models/demo/generate_stream", {"text_input": "one loaf"})
    assert headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line[6:]) for line in content.decode().splitlines() if line.startswith("data: ")]
    assert "".join(event["text_output"] for event in events) == "one loaf"


def test_v2_says_what_it_serves(ask) -> None:
    site = ask.site
    assert site.ask("GET", "/v2/health/ready")[0] == site.ask("GET", "/v2/health/live")[0] == 200
    assert json.loads(site.ask("GET", "/v2/models/demo")[2])["inputs"][0]["name"] == "text_input"
    assert site.ask("GET", "/v2/models/demo/ready")[0] == 200
    assert site.ask("GET", "/v2/models/nope/ready")[0] == 404


def test_seldon_answers_a_message_in_its_own_form(ask) -> None:
    asked = {"data": {"names": ["a"], "ndarray": [["one"], ["two"]]}, "meta": {"tags": {"batch_index": 3}}}
    status, _, said = ask("/api/v1.0/predictions", asked)
    assert status == 200, said
    assert said["data"]["ndarray"] == [["one"], ["two"]]
    assert said["meta"]["tags"] == {"batch_index": 3}
    assert ask("/api/v1.0/predictions", {"strData": "one"})[2]["strData"] == "one"
    assert ask("/seldon/ns/name/api/v1.0/predictions", {"strData": "one"})[0] == 200


def test_seldon_refuses_in_its_own_form(ask) -> None:
    for body, wanted in (({"meta": {}}, 400), ({"strData": "BOOM"}, 500)):
        status, _, said = ask("/api/v1.0/predictions", body)
        assert (status, said["status"]["info"]) == (wanted, "FAILURE")
        assert said["status"]["reason"]


def test_verta_keeps_the_index_of_a_frame(ask) -> None:
    frame = {"index": [10, "b"], "columns": ["prompt"], "data": [["one"], ["two"]]}
    status, headers, said = ask("/api/v1/batch-predict/abc", frame, {"verta-request-id": "mine"})
    assert (status, headers["verta-request-id"]) == (200, "mine")
    assert said == {"index": [10, "b"], "columns": ["output"], "data": [["one"], ["two"]]}
    status, headers, said = ask("/api/v1/predict/abc", "one loaf")
    assert (status, said) == (200, "one loaf")
    assert headers["verta-request-id"]


def test_verta_takes_gzip_up_to_a_bound(sites) -> None:
    site = sites.start(RULES, max_body=100_000)
    packed = {"Content-Encoding": "gzip"}
    assert site.ask("POST", "/predict/a", gzip.compress(b'"one"'), packed)[2] == b'"one"'
    assert site.ask("POST", "/predict/a", gzip.compress(b" " * 100_001), packed)[0] == 413
    assert site.ask("POST", "/predict/a", gzip.compress(b" " * 9_000_000), packed)[0] == 413
    assert site.ask("POST", "/predict/a", b"no gzip", packed)[0] == 400
    assert site.ask("POST", "/v1/batches", gzip.compress(b"{}"), packed)[0] == 415


@pytest.mark.parametrize(
    "frame",
    [
        [], {"index": [1]}, {"index": [1], "columns": ["a"], "data": [["x"], ["y"]]},
        {"index": [1], "columns": ["a", "b"], "data": [["x"]]}, {"index": [1], "columns": ["a", "b"], "data": [["x", "y"]]},
        {"index": [1], "columns": ["prompt"], "data": [[float("nan")]]},
    ],
    ids=["list", "parts", "index", "columns", "prompt", "nan"],
)  # fmt: skip
def test_verta_refuses_a_frame_that_is_none(ask, frame: Any) -> None:
    status, _, said = ask("/batch-predict/a", frame)
    assert status == 400
    assert said["message"]
