"""The Gemini API's files and batches, by requests as google-genai sends them, beside OpenAI's on the same paths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples" / "vertex" / "gemini-api"
GOOGLE = {"x-goog-api-key": "none", "x-goog-api-client": "google-genai-sdk"}


@pytest.fixture
def ask(site) -> Any:
    def call(method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], Any]:
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        given = {"Content-Type": "application/json", **GOOGLE, **{k.replace("_", "-"): v for k, v in headers.items()}}
        status, answered, content = site.ask(method, path.removeprefix(site.url), raw, given)
        return status, answered, json.loads(content) if answered["content-type"] == "application/json" else content

    return call


def uploaded(ask: Any, content: bytes) -> str:
    _, headers, _ = ask(
        "POST", "/upload/v1beta/files", {"file": {"display_name": "d", "size_bytes": str(len(content))}}
    )
    half = len(content) // 2
    url = headers["x-goog-upload-url"]
    _, headers, _ = ask("POST", url, content[:half], x_goog_upload_command="upload", x_goog_upload_offset="0")
    assert headers["x-goog-upload-status"] == "active"
    assert (
        ask("POST", url, content[half:], x_goog_upload_command="upload, finalize", x_goog_upload_offset="1")[0] == 400
    )
    _, headers, said = ask(
        "POST", url, content[half:], x_goog_upload_command="upload, finalize", x_goog_upload_offset=str(half)
    )
    assert headers["x-goog-upload-status"] == "final"
    assert said["file"]["sizeBytes"] == str(len(content))
    return str(said["file"]["name"])


def done(ask: Any, until: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = until(lambda: ask("GET", f"/v1/{name}")[2], lambda batch: batch["done"])
    return found


def test_a_file_of_requests_becomes_a_file_of_responses(ask, until) -> None:
    name = uploaded(ask, (EXAMPLES / "requests.jsonl").read_bytes())
    status, _, made = ask(
        "POST", "/v1beta/models/demo:batchGenerateContent", {"batch": {"inputConfig": {"fileName": name}}}
    )
    assert status == 200, made
    batch = done(ask, until, made["name"])
    assert batch["metadata"]["state"] == "BATCH_STATE_SUCCEEDED"
    stats = batch["metadata"]["batchStats"]
    assert (stats["successfulRequestCount"], stats["failedRequestCount"]) == ("2", "1")
    content = ask("GET", f"/v1/{batch['response']['responsesFile']}:download?alt=media")[2]
    seen = [json.loads(line) for line in content.splitlines()]
    assert [line["key"] for line in seen] == ["request-1", "request-2", "request-3"]
    assert seen[0]["response"]["candidates"][0]["content"]["parts"][0]["text"] == "one loaf of rye"
    assert seen[2]["error"]["code"] == 3
    assert [each["name"] for each in ask("GET", "/v1/batches")[2]["operations"]] == [made["name"]]


def test_requests_that_come_with_the_batch_are_answered_in_it(ask, until) -> None:
    requests = [
        {"request": {"contents": [{"parts": [{"text": text}]}]}, "metadata": {"key": text}} for text in ("one", "two")
    ]
    body = {"batch": {"inputConfig": {"requests": {"requests": requests}}}}
    batch = done(ask, until, ask("POST", "/v1/models/demo:batchGenerateContent", body)[2]["name"])
    each = batch["response"]["inlinedResponses"]["inlinedResponses"]
    assert [one["metadata"]["key"] for one in each] == ["one", "two"]
    assert each[1]["response"]["candidates"][0]["content"]["parts"][0]["text"] == "two"


def test_openais_clients_do_not_see_them(ask, site) -> None:
    uploaded(ask, b"{}\n{}\n")
    assert site.openai().batches.list().data == []
    assert ask("GET", "/v1/models/none:x")[2]["error"]["status"] in ("NOT_FOUND", "INVALID_ARGUMENT")
    assert ask("POST", "/v1/models/other:batchGenerateContent", {})[2]["error"]["status"] == "NOT_FOUND"
    assert ask("POST", "/v1/models/demo:batchGenerateContent", {})[2]["error"]["status"] == "INVALID_ARGUMENT"
