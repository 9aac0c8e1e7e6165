"""V2 and Seldon requests: whole, in binary, refused, each in its own form; and our own V2 engine against this server."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from llmbatch.job.job import job_from
from llmbatch.runs.session import run_job
from tests.examples.alike import difference, difference_of_lines

EXAMPLES = Path(__file__).parents[1] / "examples" / "seldon"
SAYS_NO = {"rules": [{"when": {"contains": "BOOM"}, "fail": "the model says no"}]}


@pytest.fixture(scope="module")
def site(lasting) -> Any:
    return lasting(SAYS_NO)


def text_input(*texts: str) -> dict[str, Any]:
    return {"name": "text_input", "shape": [len(texts), 1], "datatype": "BYTES", "data": list(texts)}


def infer(site, body: Any, path: str = "/v2/models/demo/infer", **headers: str) -> tuple[int, Any]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, _, said = site.ask("POST", path, content, {"content-type": "application/json", **headers})
    return status, json.loads(said)


def test_health_and_metadata_are_told_as_the_protocol_has_them(site) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/demo/ready", "/v2/models/demo/versions/1/ready"):
        assert site.ask("GET", path)[::2] == (200, b"")
    assert json.loads(site.ask("GET", "/v2")[2])["name"] == "llmbatch"
    told = json.loads(site.ask("GET", "/v2/models/demo")[2])
    assert (told["name"], told["inputs"][0]["name"]) == ("demo", "text_input")


@pytest.mark.parametrize("path", ["/v2/models/demo/infer", "/v2/models/demo/versions/1/infer"])
def test_prompts_are_answered_in_their_shape(site, path: str) -> None:
    status, body = infer(site, {"id": "a", "inputs": [text_input("one", "two")]}, path)
    assert status == 200
    assert (body["model_name"], body["id"], body["outputs"][0]["shape"]) == ("demo", "a", [2, 1])
    assert body["outputs"][0]["data"] == ["one", "two"]


def test_binary_data_behind_the_json_is_read(site) -> None:
    texts = b"".join(struct.pack("<I", len(text)) + text for text in (b"one", b"two"))
    told = [
        {"name": "text_input", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(texts)}},
        {"name": "stream", "shape": [1], "datatype": "BOOL", "parameters": {"binary_data_size": 1}},
    ]
    header = json.dumps({"inputs": told}).encode()
    status, body = infer(site, header + texts + b"\0", **{"inference-header-content-length": str(len(header))})
    assert (status, body["outputs"][0]["data"]) == (200, ["one", "two"])


@pytest.mark.parametrize(
    ("body", "headers", "status", "said"),
    [
        (b"{", {}, 400, "no JSON"),
        ([1], {}, 400, "a request is an object"),
        ({"wrong": True}, {}, 400, "has no list of inputs"),
        ({"inputs": [text_input("a")], "parameters": {"temperature": "hot"}}, {}, 400, "temperature is of type string"),
        ({"inputs": [text_input("BOOM")]}, {}, 500, "the model says no"),
        ({"inputs": [text_input("a")]}, {"inference-header-content-length": "x"}, 400, "a number of bytes"),
        (
            {"inputs": [text_input("a")]},
            {"inference-header-content-length": "9999"},
            400,
            "is said to have 9,999 bytes",
        ),
        ({"inputs": [{**text_input("a"), "parameters": {"binary_data_size": 5}}]}, {}, 400, "ends behind the body"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_said_in_the_protocol_s_form(
    site, body: Any, headers: Any, status: int, said: str
) -> None:
    got, answer = infer(site, body, **headers)
    assert got == status
    assert set(answer) == {"error"}
    assert said in answer["error"]


def test_an_unknown_model_is_not_found(site) -> None:
    status, answer = infer(site, {"inputs": [text_input("a")]}, "/v2/models/nope/infer")
    assert (status, "unknown model: 'nope' is not found" in answer["error"]) == (404, True)


def test_our_own_v2_engine_gets_the_expected_lines_from_this_server(site, tmp_path: Path) -> None:
    engine = {"name": "kserve", "urls": [site.url], "served_name": "demo"}
    sinks = {"layout": {"name": "v2"}}
    path = str(EXAMPLES / "v2.jsonl")
    given = {"model": "demo", "engine": engine, "input": {"path": path, "format": "v2"}, "sinks": sinks}
    result = run_job(job_from({**given, "output": str(tmp_path / "run"), "retry": {"max_attempts": 1}}))
    assert difference_of_lines(result.folder / "output" / "output.jsonl", EXAMPLES / "v2.expected.jsonl") is None


def predict(site, message: Any, path: str = "/api/v1.0/predictions") -> tuple[int, Any]:
    status, _, said = site.ask("POST", path, json.dumps(message).encode(), {"content-type": "application/json"})
    return status, json.loads(said)


@pytest.mark.parametrize("path", ["/api/v1.0/predictions", "/seldon/default/mine/api/v1.0/predictions"])
def test_a_message_of_seldon_s_is_answered_with_its_tags(site, path: str) -> None:
    sent, expected = (
        json.loads((EXAMPLES / name).read_text().splitlines()[0]) for name in ("v1.raw.txt", "v1.raw.expected.txt")
    )
    tags = {**sent["meta"]["tags"], "batch_id": "batch-1", "batch_instance_id": "x", "batch_index": 0}
    status, answer = predict(site, {**sent, "meta": {"tags": tags}}, path)
    assert status == 200
    assert difference(answer, expected) is None


@pytest.mark.parametrize(
    ("message", "status", "said"),
    [({"strData": "BOOM"}, 500, "the model says no"), ({"meta": {}}, 400, "has one of data, strData, jsonData")],
    ids=str,
)
def test_what_cannot_be_done_is_a_failure_in_seldon_s_form(site, message: Any, status: int, said: str) -> None:
    got, answer = predict(site, message)
    assert got == status
    assert answer["status"]["status"] == "FAILURE"
    assert said in answer["status"]["info"]


@pytest.mark.parametrize("path", ["/v2/models/demo/infer", "/api/v1.0/predictions"])
def test_without_a_key_where_one_is_needed_nothing_is_answered(sites, path: str) -> None:
    site = sites.start(keys="me a-secret-key-of-some-length\n")
    status, _, said = site.ask("POST", path, b"{}", {"content-type": "application/json"})
    assert status == 401
    assert {"error", "status"} & set(json.loads(said))


@pytest.mark.parametrize(("answer", "status"), [({}, 200), ({"choice": ["yes"], "constrained": False}, 422)])
def test_an_answer_that_was_cut_off_is_an_error_where_the_server_itself_asks_for_a_check(
    sites, answer: dict[str, Any], status: int
) -> None:
    script = {"rules": [{"answer": "ye", "finish_reason": "length"}]}
    site = sites.start(script, job={"answer": answer, "retry": {"max_attempts": 1}})
    assert infer(site, {"inputs": [text_input("x", "y")]})[0] == status
    assert predict(site, {"data": {"ndarray": [["x"], ["y"]]}})[0] == status
