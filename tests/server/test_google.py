"""Google's wire against the front, as its clients send it (they themselves are in ``make systems``)."""

from __future__ import annotations

import errno
import importlib.util
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.errors import WriteError
from llmbatch.server import working
from llmbatch.server.fronts import google_results

EXAMPLES = Path(__file__).parents[1] / "examples"
VERTEX = EXAMPLES / "vertex"
JOBS = "/v1/projects/p/locations/us-central1/batchPredictionJobs"
CLIENT = {"x-goog-api-client": "google-genai-sdk/3", "content-type": "application/json"}
OVER = ("SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED")
SLOW = {"latency": 0.05, "concurrency": 8}


class Google:
    """A client of a site, with a bucket in a folder."""

    def __init__(self, site: Any, until: Callable[..., Any] | None, headers: dict[str, str] | None = None) -> None:
        self._site = site
        self._until = until
        self._headers = headers or {}

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], Any]:
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        status, answered, said = self._site.ask(method, path, content, {**CLIENT, **self._headers, **headers})
        return status, answered, json.loads(said) if answered["content-type"] == "application/json" else said

    def good(self, method: str, path: str, body: Any = None) -> Any:
        status, _, said = self.ask(method, path, body)
        assert status == 200, said
        return said

    def job(self, document: Any) -> Any:
        """A job of Vertex AI, once it is over."""
        name = self.good("POST", JOBS, document)["name"]
        return self._until(lambda: self.good("GET", f"/v1/{name}"), lambda job: job["state"].endswith(OVER))

    def upload(self, content: bytes, pieces: int = 1) -> str:
        status, headers, _ = self.ask("POST", "/upload/v1/files", {"file": {"display_name": "in.jsonl"}})
        assert status == 200 and headers["x-goog-upload-status"] == "active"
        path = "/" + headers["x-goog-upload-url"].split("/", 3)[3]
        size = -(-len(content) // pieces)
        for start in range(0, len(content), size):
            last = start + size >= len(content)
            command = {
                "x-goog-upload-command": "upload, finalize" if last else "upload",
                "x-goog-upload-offset": str(start),
            }
            status, headers, said = self.ask("POST", path, content[start : start + size], **command)
            assert status == 200 and headers["x-goog-upload-status"] == ("final" if last else "active"), said
        return str(said["file"]["name"])

    def batch(self, model: str = "demo", **source: Any) -> Any:
        """A batch of the Gemini API, once it is over."""
        body = {"batch": {"displayName": "d", "inputConfig": source}}
        name = self.good("POST", f"/v1/models/{model}:batchGenerateContent", body)["name"]
        return self._until(lambda: self.good("GET", f"/v1/{name}"), lambda operation: operation["done"])

    def lines(self, operation: Any) -> list[Any]:
        name = operation["response"]["responsesFile"]
        return [json.loads(line) for line in self.good("GET", f"/v1/{name}:download?alt=media").splitlines()]


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    folder = tmp_path / "bucket"
    folder.mkdir()
    return folder


@pytest.fixture
def google(sites: Any, until: Any, bucket: Path) -> Callable[..., Google]:
    """A client of a server that has its buckets in a folder."""

    def made(script: Any = None, **given: Any) -> Google:
        return Google(sites.start(script, assets={"gs://corpus": str(bucket)}, **given), until)

    return made


@pytest.fixture(scope="module")
def refusing(lasting: Any, tmp_path_factory: pytest.TempPathFactory) -> Google:
    """A client of one server, for tests that leave nothing there."""
    return Google(lasting(assets={"gs://corpus": str(tmp_path_factory.mktemp("bucket"))}), None)


@pytest.fixture(scope="session")
def difference() -> Callable[[Any, Any], str | None]:
    spec = importlib.util.spec_from_file_location("alike", EXAMPLES / "alike.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.difference  # type: ignore[no-any-return]


def put(bucket: Path, name: str, lines: list[Any]) -> None:
    (bucket / name).parent.mkdir(exist_ok=True)
    (bucket / name).write_text("".join(json.dumps(line) + "\n" for line in lines))


def document(**changes: Any) -> dict[str, Any]:
    return {**json.loads((VERTEX / "custom" / "job.key.json").read_text()), **changes}


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_job_of_vertex_reads_a_bucket_and_leaves_in_it_what_its_example_has(google, bucket, difference) -> None:
    rows = lines_of(VERTEX / "custom" / "gcs" / "in" / "rows.jsonl")
    put(bucket, "in/rows.jsonl", rows)
    job = google().job(document())
    assert job["state"] == "JOB_STATE_SUCCEEDED"
    assert job["completionStats"] == {"successfulCount": "3", "failedCount": "1", "incompleteCount": "0"}
    folder = bucket / job["outputInfo"]["gcsOutputDirectory"].removeprefix("gs://corpus/")
    expected = VERTEX / "custom" / "expected.key"
    assert {path.name for path in folder.iterdir()} == {path.name for path in expected.iterdir()}
    for path in expected.iterdir():
        assert difference(lines_of(folder / path.name), lines_of(path)) is None
    assert job["modelParameters"] == {"max_tokens": 64, "temperature": 0}


def test_what_of_a_job_of_vertex_has_no_effect_is_said(google, bucket, caplog) -> None:
    put(bucket, "in/rows.jsonl", lines_of(VERTEX / "custom" / "gcs" / "in" / "rows.jsonl"))
    client = google()
    with caplog.at_level(logging.INFO, "llmbatch.server"):
        client.good("POST", JOBS, document(labels={"a": "b"}, serviceAccount="x@example.com"))
    (shown,) = json.loads(client._site.ask("GET", "/llmbatch/batches")[2])["data"]
    assert shown["given"]["no_effect"] == ["manualBatchTuningParameters", "labels", "serviceAccount"]
    assert "a job gives what has no effect here: manualBatchTuningParameters, labels, serviceAccount" in caplog.text


def test_a_job_for_gemini_leaves_its_lines(google, bucket, difference) -> None:
    (bucket / "in.jsonl").write_bytes((VERTEX / "gemini" / "gcs" / "in.jsonl").read_bytes())
    job = google(names=("gemini-2.5-flash",)).job(json.loads((VERTEX / "gemini" / "job.json").read_text()))
    [path] = (bucket / job["outputInfo"]["gcsOutputDirectory"].removeprefix("gs://corpus/")).iterdir()
    expected = lines_of(VERTEX / "gemini" / "expected" / "prediction-model-TIME" / "predictions.jsonl")
    assert difference(lines_of(path), expected) is None
    assert lines_of(path)[0]["response"]["modelVersion"] == "gemini-2.5-flash"


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_job_whose_bucket_may_not_be_written_to_comes_to_an_end(
    google, bucket, until, monkeypatch, cancelled: bool
) -> None:
    def refused(*_: Any) -> None:
        raise WriteError("in a place of this machine") from PermissionError(errno.EACCES, "Access Denied")

    monkeypatch.setattr(working, "_PAUSES", (0.01,))
    monkeypatch.setattr(google_results, "upload", refused)
    if cancelled:  # while it is tried again, which has no end here
        monkeypatch.setattr(working, "_REFUSALS", 1 << 30)
    (bucket / "in.jsonl").write_bytes((VERTEX / "gemini" / "gcs" / "in.jsonl").read_bytes())
    client = google(names=("gemini-2.5-flash",))
    name = client.good("POST", JOBS, json.loads((VERTEX / "gemini" / "job.json").read_text()))["name"]
    if cancelled:
        [batch] = client._site.server.store.unfinished()
        until(lambda: client._site.server.store.batch(batch.id).state, lambda state: state == "finalizing")
        client.good("POST", f"/v1/{name}:cancel", {})
    job = until(lambda: client.good("GET", f"/v1/{name}"), lambda job: job["state"].endswith(OVER))
    assert job["state"] == ("JOB_STATE_CANCELLED" if cancelled else "JOB_STATE_FAILED")
    assert "could not be written, again and again: Access Denied" in job["error"]["message"]
    assert "machine" not in job["error"]["message"]
    monkeypatch.undo()
    number = name.rpartition("/")[2]
    status = client._site.ask("POST", f"/llmbatch/batches/vertex-{number}/retry")[0]
    if cancelled:
        assert status == 409
        return
    assert status == 200  # it is taken up again
    job = until(lambda: client.good("GET", f"/v1/{name}"), lambda job: job["state"].endswith(OVER))
    assert (job["state"], "error" in job) == ("JOB_STATE_SUCCEEDED", False)
    assert list(bucket.glob("**/predictions.jsonl"))


@pytest.mark.parametrize("pieces", [1, 3])
def test_a_file_of_the_gemini_api_is_answered_line_by_line(google, difference, pieces: int) -> None:
    client = google()
    api = VERTEX / "gemini-api"
    operation = client.batch(fileName=client.upload((api / "requests.jsonl").read_bytes(), pieces))
    assert operation["metadata"]["state"] == "BATCH_STATE_SUCCEEDED"
    assert operation["metadata"]["batchStats"] == {
        "requestCount": "3", "successfulRequestCount": "2", "failedRequestCount": "1", "pendingRequestCount": "0",
    }  # fmt: skip
    assert difference(client.lines(operation), lines_of(api / "expected.jsonl")) is None


def test_requests_that_come_with_a_batch_are_answered_in_it_with_their_metadata(google) -> None:
    contents = [{"role": "user", "parts": [{"text": "one loaf"}]}]
    requests = [{"request": {"contents": contents}, "metadata": {"key": "r1"}}, {"request": {}}]
    operation = google().batch(requests={"requests": requests})
    one, two = operation["response"]["inlinedResponses"]["inlinedResponses"]
    assert one["metadata"] == {"key": "r1"}
    assert one["response"]["candidates"][0]["content"]["parts"] == [{"text": "one loaf"}]
    assert two["error"]["code"] == 3 and "metadata" not in two


def many(count: int) -> bytes:
    request = {"contents": [{"role": "user", "parts": [{"text": "x"}]}]}
    return b"".join(json.dumps({"key": f"r{i}", "request": request}).encode() + b"\n" for i in range(count))


def test_a_cancelled_batch_keeps_what_is_finished_and_says_of_the_rest_that_it_was_not_run(google, until) -> None:
    client = google(SLOW, job={"run": {"window": 64, "grace": 0.1}})
    body = {"batch": {"inputConfig": {"fileName": client.upload(many(1000))}}}
    name = client.good("POST", "/v1/models/demo:batchGenerateContent", body)["name"]
    until(
        lambda: client.good("GET", f"/v1/{name}")["metadata"]["batchStats"],
        lambda stats: stats["successfulRequestCount"] != "0",
    )
    assert client.good("POST", f"/v1/{name}:cancel", {}) == {}
    operation = until(lambda: client.good("GET", f"/v1/{name}"), lambda operation: operation["done"])
    assert operation["metadata"]["state"] == "BATCH_STATE_CANCELLED"
    assert operation["error"]["code"] == 1
    file = operation["metadata"]["output"]["responsesFile"]
    lines = [json.loads(line) for line in client.good("GET", f"/v1/{file}:download?alt=media").splitlines()]
    assert [line["key"] for line in lines] == [f"r{i}" for i in range(1000)]
    assert {line["error"]["code"] for line in lines if "error" in line} == {1}
    assert any("response" in line for line in lines)


def test_a_batch_of_the_gemini_api_has_two_days(google, moved, until) -> None:
    client = google({"rules": [{"hang": True}]}, job={"run": {"grace": 0.0}})
    body = {"batch": {"displayName": "d", "inputConfig": {"fileName": client.upload(many(2))}}}
    name = client.good("POST", "/v1/models/demo:batchGenerateContent", body)["name"]

    def state() -> Any:
        return client.good("GET", f"/v1/{name}")["metadata"]["state"]

    until(state, lambda seen: seen == "BATCH_STATE_RUNNING")
    moved.forward(hours=47)
    assert state() == "BATCH_STATE_RUNNING"
    moved.forward(hours=2)
    assert until(state, lambda seen: seen != "BATCH_STATE_RUNNING") == "BATCH_STATE_EXPIRED"


def test_a_server_that_is_started_again_goes_on_with_its_jobs(sites, until, bucket) -> None:
    put(bucket, "in/rows.jsonl", [{"id": f"r{i}", "prompt": f"text {i}"} for i in range(300)])
    assets = {"gs://corpus": str(bucket)}
    site = sites.start(SLOW, assets=assets, job={"run": {"window": 16, "grace": 0.1}})
    client = Google(site, until)
    name = client.good("POST", JOBS, document())["name"]
    until(
        lambda: client.good("GET", f"/v1/{name}"),
        lambda job: job.get("completionStats", {}).get("successfulCount", "0") != "0",
    )
    site.stop()
    client = Google(sites.start(assets=assets), until)
    job = until(lambda: client.good("GET", f"/v1/{name}"), lambda job: job["state"].endswith(OVER))
    assert job["completionStats"] == {"successfulCount": "300", "failedCount": "0", "incompleteCount": "0"}
    folder = bucket / job["outputInfo"]["gcsOutputDirectory"].removeprefix("gs://corpus/")
    lines = lines_of(folder / "prediction.results-00000-of-00001")
    assert [line["key"] for line in lines] == [f"r{i}" for i in range(300)]


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"model": "projects/p/locations/l/models/other"}, 404, "is not served here; demo are"),
        ({"explanationSpec": {"parameters": {}, "metadata": {"a": 1}}}, 400, "explanationSpec is not done here"),
        ({"inputConfig": {"gcsSource": {"uris": ["/etc/passwd"]}}}, 400, "/etc/passwd: is no address of an object store"),
        ({"inputConfig": {"gcsSource": {"uris": ["file:///etc/passwd"]}}}, 400, "is no address of an object store"),
        ({"inputConfig": {"gcsSource": {"uris": ["gs://corpus/../secret"]}}}, 400, "is no address of an object store"),
        ({"inputConfig": {"gcsSource": {"uris": ["gs://a::file:///etc/passwd"]}}}, 400, "is no address of an object store"),
        ({"outputConfig": {"gcsDestination": {"outputUriPrefix": "/etc"}}}, 400, "is no address of an object store"),
        ({"inputConfig": {}}, 400, "inputConfig.gcsSource.uris must be a list of addresses"),
        ({"inputConfig": None}, 400, "a job has an inputConfig"),
    ],
)  # fmt: skip
def test_a_document_that_cannot_be_done_is_refused_in_googles_form(
    refusing, changes: Any, status: int, said: str
) -> None:
    code, _, answer = refusing.ask("POST", JOBS, document(**changes))
    assert (code, answer["error"]["code"]) == (status, status)
    assert answer["error"]["status"] == {400: "INVALID_ARGUMENT", 404: "NOT_FOUND"}[status]
    assert said in answer["error"]["message"]
    assert refusing.good("GET", JOBS) == {"batchPredictionJobs": []}


def test_a_job_whose_input_is_not_there_fails_and_says_so(google) -> None:
    job = google().job(document())
    assert job["state"] == "JOB_STATE_FAILED"
    assert "there is no folder" in job["error"]["message"]
    assert "outputInfo" not in job


def test_a_job_with_more_rows_than_the_server_takes_fails(google, bucket) -> None:
    put(bucket, "in/rows.jsonl", [{"id": str(i), "prompt": "x"} for i in range(4)])
    assert "more than 3 rows" in google(max_lines=3).job(document())["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", f"{JOBS}/123", None, 404),
        ("POST", f"{JOBS}/123:cancel", {}, 404),
        ("GET", f"{JOBS}?filter=a", None, 400),
        ("POST", JOBS, [], 400),
        ("GET", "/v1/batches/123", None, 404),
        ("GET", "/v1/files/123", None, 404),
        ("DELETE", "/v1/files/123", None, 404),
        ("GET", "/v1/files/..%2F..%2Fserver.sqlite:download", None, 404),
        ("POST", "/v1/models/other:batchGenerateContent", {"batch": {"inputConfig": {}}}, 404),
        ("POST", "/v1/models/demo:batchGenerateContent", {}, 400),
        (
            "POST",
            "/v1/models/demo:batchGenerateContent",
            {"batch": {"inputConfig": {"requests": {"requests": []}}}},
            400,
        ),
        ("POST", "/v1/models/demo:batchGenerateContent", {"batch": {"inputConfig": {"fileName": "files/no"}}}, 404),
        ("POST", "/upload/v1/files/123", b"x", 404),
        ("POST", "/upload/v1/files", b"[", 400),
        ("GET", "/v1/nothing", None, 404),
    ],
)
def test_what_is_not_there_is_refused_in_googles_form(refusing, method: str, path: str, body: Any, status: int) -> None:
    code, _, answer = refusing.ask(method, path, body)
    assert (code, answer["error"]["code"]) == (status, status)
    assert answer["error"]["status"] and answer["error"]["message"]


def test_pieces_of_a_file_come_in_their_order(google) -> None:
    client = google()
    _, headers, _ = client.ask("POST", "/upload/v1/files", {"file": {}})
    path = "/" + headers["x-goog-upload-url"].split("/", 3)[3]
    code, _, answer = client.ask("POST", path, b"xx", **{"x-goog-upload-offset": "5"})
    assert code == 400
    assert "from 0 on, and not from 5" in answer["error"]["message"]


def test_a_file_that_is_too_large_leaves_nothing(google) -> None:
    client = google(max_bytes=100)
    _, headers, _ = client.ask("POST", "/upload/v1/files", {"file": {}})
    path = "/" + headers["x-goog-upload-url"].split("/", 3)[3]
    command = {"x-goog-upload-command": "upload", "x-goog-upload-offset": "0"}
    assert client.ask("POST", path, b"x" * 80, **command)[0] == 200
    assert client.ask("POST", path, b"x" * 80, **{**command, "x-goog-upload-offset": "80"})[0] == 413
    assert client.ask("POST", path, b"x", **command)[0] == 404
    assert list((client._site.server.store.folder / "uploads").iterdir()) == []


def test_a_disk_that_is_full_in_the_middle_of_a_file_is_said_and_leaves_nothing(google) -> None:
    client = google()
    _, headers, _ = client.ask("POST", "/upload/v1/files", {"file": {}})
    path = "/" + headers["x-goog-upload-url"].split("/", 3)[3]
    uploads = client._site.server.store.folder / "uploads"
    (uploads / path.rpartition("/")[2].partition("?")[0]).symlink_to("/dev/full")  # a disk without any room
    command = {"x-goog-upload-command": "upload, finalize", "x-goog-upload-offset": "0"}
    status, _, said = client.ask("POST", path, b"x" * 300_000, **command)
    assert (status, "No space left on device" in said["error"]["message"]) == (507, True), said
    assert list(uploads.iterdir()) == []
    assert client.good("GET", "/v1/files") == {"files": []}
    assert client.ask("POST", path, b"x", **command)[0] == 404
    assert client.upload(b"x" * 300_000)


def test_owners_see_their_own_files_and_batches_alone(sites, until) -> None:
    keys = {name: f"{name}-0123456789abcdef" for name in ("ann", "bob")}
    site = sites.start(keys="".join(f"{name} {key}\n" for name, key in keys.items()))
    ann, bob = (Google(site, until, {"x-goog-api-key": key}) for key in keys.values())
    file = ann.upload(many(2))
    operation = ann.batch(fileName=file)
    for path in (file, operation["name"], operation["response"]["responsesFile"]):
        assert ann.ask("GET", f"/v1/{path}")[0] == 200
        assert bob.ask("GET", f"/v1/{path}")[0] == 404
    assert bob.good("GET", "/v1/batches") == {"operations": []}
    assert bob.good("GET", "/v1/files") == {"files": []}
    assert [each["name"] for each in ann.good("GET", "/v1/batches")["operations"]] == [operation["name"]]
    code, _, answer = Google(site, until).ask("GET", "/v1/files")
    assert (code, answer["error"]["status"]) == (401, "UNAUTHENTICATED")


def test_a_file_can_be_deleted_and_the_same_paths_are_openais_for_others(google) -> None:
    client = google()
    file = client.upload(many(1))
    assert client.good("GET", f"/v1/{file}")["sizeBytes"] == str(len(many(1)))
    status, _, said = client._site.ask("GET", "/v1/files")
    assert (status, json.loads(said)["object"]) == (200, "list")
    assert client.good("DELETE", f"/v1/{file}") == {}
    assert client.ask("GET", f"/v1/{file}")[0] == 404


def test_what_announces_a_file_is_as_small_as_any_request(sites, until) -> None:
    google = Google(sites.start(max_body=1000), until)
    for path in ("/upload/v1/files", "/google/upload/v1/files"):
        assert google.ask("POST", path, b" " * 1001)[0] == 413
    assert google.upload(b"x" * 5000)


def test_a_batch_whose_responses_were_deleted_is_still_there(google) -> None:
    client = google()
    operation = client.batch(requests={"requests": [{"request": {"contents": [{"parts": [{"text": "hi"}]}]}}]})
    [file] = client.good("GET", "/v1/files")["files"]
    client.good("DELETE", f"/v1/{file['name']}")
    said = client.good("GET", f"/v1/{operation['name']}")
    assert said["done"]
    assert "inlinedResponses" not in said["response"]


@pytest.mark.parametrize(
    "name", ["link/a.jsonl", "l*/a.jsonl", "**/a.jsonl", "../secret/a.jsonl", "*/../../secret/a.jsonl"]
)
def test_no_address_leads_out_of_a_folder_that_is_a_bucket(google, bucket, tmp_path, name: str) -> None:
    (tmp_path / "secret").mkdir()
    put(tmp_path / "secret", "a.jsonl", [{"request": {"contents": [{"parts": [{"text": "secret"}]}]}}])
    (bucket / "link").symlink_to(tmp_path / "secret")
    document = {
        "displayName": "d", "model": "publishers/google/models/demo",
        "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": [f"gs://corpus/{name}"]}},
        "outputConfig": {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": "gs://corpus/out"}},
    }  # fmt: skip
    status, _, said = google().ask("POST", JOBS, document)
    assert status == 400
    assert "is no address of an object store" in said["error"]["message"]


def test_the_key_may_be_in_the_url_as_google_has_it(sites, begin, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    key = "ann-0123456789abcdef"
    site = sites.start(keys=f"ann {key}\n")

    def ask(method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        return site.ask(method, path, body, headers)

    assert ask("GET", "/v1beta/files")[0] == 401
    assert ask("GET", "/v1beta/files?key=another-0123456789abcdef")[0] == 401
    status, headers, _ = ask("POST", f"/upload/v1beta/files?key={key}", b"{}")
    assert status == 200
    path = "/" + headers["x-goog-upload-url"].split("/", 3)[3]  # where the bytes go, which has all that is needed
    status, _, said = ask("POST", path, many(2), **{"x-goog-upload-command": "upload, finalize"})
    assert status == 200
    name = json.loads(said)["file"]["name"]
    assert [file["name"] for file in json.loads(ask("GET", f"/v1beta/files?key={key}")[2])["files"]] == [name]
    assert ask("GET", f"/?key={key}")[0] == 200  # the page is nobody's
    assert key not in caplog.text
