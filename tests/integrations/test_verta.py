"""Our client of Verta's wire against a stand-in of a server with that wire, which keeps every request as it came.

There is no client of Verta's own to compare with: its name in the package index is another project's now.
"""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import requests

from llmbatch.core.errors import FolderError, JobError
from llmbatch.verta import DeployedModel

EXAMPLES = Path(__file__).parents[1] / "examples" / "verta"
PREDICT, BATCH = "/api/v1/predict/model-1", "/api/v1/batch-predict/model-1"


@dataclass
class StandIn:
    """Answers with the prompt, or first with each of ``replies``: (status, content type, body)."""

    port: int = 0
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    replies: list[tuple[int, str, bytes]] = field(default_factory=list)
    refuses: Callable[[Any], bool] = lambda _: False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{PREDICT}"

    def bodies(self) -> list[Any]:
        return [json.loads(body) for _, _, body in self.requests]

    def answer(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, str, bytes]:
        self.requests.append((path, headers, body))
        if self.replies:
            return self.replies.pop(0)
        plain = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
        given = json.loads(plain)
        if self.refuses(given):
            return 400, "application/json", b'{"message": "the model says no"}'
        if path == PREDICT:
            return 200, "application/json", json.dumps({"said": given}).encode()
        place = given["columns"].index("prompt")
        data = [[row[place]] for row in given["data"]]
        return (
            200,
            "application/json",
            json.dumps({"index": given["index"], "columns": ["output"], "data": data}).encode(),
        )


@pytest.fixture
def server() -> Iterator[StandIn]:
    stand_in = StandIn()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, kind, content = stand_in.answer(
                self.path, {name.lower(): value for name, value in self.headers.items()}, body
            )
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("verta-request-id", self.headers.get("verta-request-id", "made-by-the-server"))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stand_in.port = http.server_port
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield stand_in
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture
def frame() -> pd.DataFrame:
    return pd.read_csv(EXAMPLES / "frame.csv", index_col="row")


def test_a_frame_is_sent_in_parts_and_comes_back_under_its_index(server: StandIn, frame: pd.DataFrame) -> None:
    found = DeployedModel(server.url, token="secret").batch_predict(frame, batch_size=2, prediction_id="call-1")
    assert found.index.equals(frame.index)
    assert found.index.name == "row"
    assert found.columns.tolist() == ["output"]
    assert found["output"].tolist() == frame["prompt"].tolist()
    assert [path for path, _, _ in server.requests] == [BATCH, BATCH]
    for _, headers, _ in server.requests:
        assert headers["access-token"] == "secret"
        assert headers["verta-request-id"] == "call-1"
        assert headers["content-type"] == "application/json"
        assert "content-encoding" not in headers


def test_the_first_part_is_byte_for_byte_the_example(server: StandIn, frame: pd.DataFrame) -> None:
    DeployedModel(server.url).batch_predict(frame, batch_size=2)
    example = json.loads((EXAMPLES / "batch-predict.request.json").read_text())
    _, headers, body = server.requests[0]
    assert body == json.dumps(example).encode()
    assert headers["content-length"] == str(len(body))
    assert {"access-token", "verta-request-id"}.isdisjoint(headers)


def test_compressed_it_is_the_same_in_gzip(server: StandIn, frame: pd.DataFrame) -> None:
    found = DeployedModel(server.url).batch_predict(frame, compress=True)
    _, headers, body = server.requests[0]
    assert headers["content-encoding"] == "gzip"
    assert body == gzip.compress(json.dumps(frame.to_dict(orient="split")).encode(), mtime=0)
    assert found["output"].tolist() == frame["prompt"].tolist()


def test_what_json_has_not_is_sent_as_text_and_what_is_missing_as_nan(server: StandIn) -> None:
    index = pd.date_range("2026-01-01", periods=2)
    frame = pd.DataFrame(
        {"prompt": ["a", "b"], "n": [1.5, float("nan")], "m": pd.array([1, None], "Int64")}, index=index
    )
    found = DeployedModel(server.url).batch_predict(frame)
    assert server.requests[0][2] == (
        b'{"index": ["2026-01-01T00:00:00", "2026-01-02T00:00:00"], "columns": ["prompt", "n", "m"], '
        b'"data": [["a", 1.5, 1], ["b", NaN, null]]}'
    )
    assert found.index.equals(index)


@pytest.mark.parametrize("name", ["predict", "predict_with_id"])
def test_a_value_is_predicted_by_itself(server: StandIn, name: str) -> None:
    model = DeployedModel(server.url)
    found = getattr(model, name)(["one", 2], prediction_id="id-7")
    assert found == ({"said": ["one", 2]} if name == "predict" else ("id-7", {"said": ["one", 2]}))
    assert server.requests[0][0] == PREDICT
    assert model.predict_with_id("x") == ("made-by-the-server", {"said": "x"})


def test_a_server_that_is_busy_is_asked_again(server: StandIn, frame: pd.DataFrame) -> None:
    server.replies = [(503, "text/plain", b""), (429, "text/plain", b"")]
    found = DeployedModel(server.url).batch_predict(frame, backoff_factor=0.001)
    assert found["output"].tolist() == frame["prompt"].tolist()
    assert len(server.requests) == 3
    assert len({body for _, _, body in server.requests}) == 1


def test_pauses_double_up_to_two_minutes(server: StandIn) -> None:
    model = DeployedModel(server.url)
    model.predict("x")
    retry = model._session.get_adapter(server.url).max_retries  # type: ignore[attr-defined]
    pauses = []
    for _ in range(retry.status):
        retry = retry.increment("POST", PREDICT, response=_Reply(503))
        pauses.append(retry.get_backoff_time())
    assert pauses[:4] == [0, pytest.approx(0.6), pytest.approx(1.2), pytest.approx(2.4)]
    assert pauses[-1] == 120
    assert len(pauses) == 13


class _Reply:
    """What urllib3 looks at of a reply."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.headers: dict[str, str] = {}

    def get_redirect_location(self) -> None:
        return None


@pytest.mark.parametrize(
    ("reply", "kind", "said"),
    [
        ((400, "application/json", b'{"message": "no such column"}'), RuntimeError, "model encountered an error: no such column"),
        ((502, "application/json", b'{"why": 1}'), RuntimeError, r'encountered an error: {"why": 1}'),
        ((400, "text/html", b"<p>bad gateway"), requests.HTTPError, "400 for .*bad gateway"),
        ((401, "application/json", b'{"message": "token"}'), requests.HTTPError, "401 for .*: token"),
        ((200, "text/plain", b"hello"), RuntimeError, "no JSON: hello"),
        ((200, "application/json", b"[]"), RuntimeError, "no frame with index"),
        ((200, "application/json", b'{"index": [], "columns": [], "data": []}'), RuntimeError, "answered 3 rows with 0"),
        ((302, "text/plain", b""), requests.HTTPError, "302 for"),
    ],
    ids=["model", "model-502", "gateway", "token", "text", "list", "short", "elsewhere"],
)  # fmt: skip
def test_another_reply_is_an_error_at_once(
    server: StandIn, frame: pd.DataFrame, reply: tuple[int, str, bytes], kind: type[Exception], said: str
) -> None:
    server.replies = [reply]
    with pytest.raises(kind, match=said):
        DeployedModel(server.url).batch_predict(frame)
    assert len(server.requests) == 1


def test_a_status_that_is_not_to_be_retried_is_not(server: StandIn) -> None:
    server.replies = [(503, "application/json", b'{"message": "busy"}')] * 3
    with pytest.raises(requests.HTTPError, match="busy"):
        DeployedModel(server.url).predict("x", max_retries=0)
    with pytest.raises(requests.HTTPError, match="busy"):
        DeployedModel(server.url).predict("x", retry_status=set())
    assert len(server.requests) == 2


def test_a_server_that_is_not_there_is_not_tried_again(frame: pd.DataFrame) -> None:
    with pytest.raises(requests.ConnectionError):
        DeployedModel("http://127.0.0.1:9/predict/x").batch_predict(frame)


def test_kept_errors_cost_their_own_part_alone(server: StandIn, frame: pd.DataFrame) -> None:
    server.refuses = lambda given: "two jars of plum jam" in given["data"][0]
    found = DeployedModel(server.url).batch_predict(frame, batch_size=1, on_error="keep")
    assert found.index.equals(frame.index)
    assert found.columns.tolist() == ["output", "error"]
    assert found["output"].isna().tolist() == [False, True, False]
    assert found["error"].astype(object).tolist() == [
        None,
        "deployed model encountered an error: the model says no",
        None,
    ]


def test_where_every_part_fails_there_are_only_errors(server: StandIn, frame: pd.DataFrame) -> None:
    server.refuses = lambda _: True
    found = DeployedModel(server.url).batch_predict(frame, on_error="keep")
    assert found.columns.tolist() == ["error"]
    assert found["error"].notna().all()
    assert found.index.equals(frame.index)


def test_a_call_that_broke_asks_only_for_the_missing_parts_when_it_is_repeated(
    server: StandIn, frame: pd.DataFrame, tmp_path: Path
) -> None:
    server.refuses = lambda given: given["index"] == [20]
    model = DeployedModel(server.url, token="secret")
    with pytest.raises(RuntimeError, match="says no"):
        model.batch_predict(frame, batch_size=1, output=tmp_path / "kept")
    server.refuses = lambda _: False
    asked = len(server.requests)
    found = model.batch_predict(frame, batch_size=1, output=tmp_path / "kept")
    assert [body["index"] for body in server.bodies()[asked:]] == [[20], [30]]
    assert found["output"].tolist() == frame["prompt"].tolist()
    assert found.index.equals(frame.index)
    assert all(b"secret" not in path.read_bytes() for path in (tmp_path / "kept").iterdir())
    again = model.batch_predict(frame, batch_size=1, output=tmp_path / "kept")
    assert len(server.requests) == asked + 2
    pd.testing.assert_frame_equal(again, found)


def test_other_rows_or_another_model_are_not_answered_from_the_folder(
    server: StandIn, frame: pd.DataFrame, tmp_path: Path
) -> None:
    DeployedModel(server.url).batch_predict(frame, output=tmp_path / "kept")
    DeployedModel(f"{server.url}-b").batch_predict(frame, output=tmp_path / "kept")
    DeployedModel(server.url).batch_predict(frame.iloc[:2], output=tmp_path / "kept")
    assert len(server.requests) == 3


def test_a_frame_without_rows_asks_nothing(server: StandIn, frame: pd.DataFrame) -> None:
    assert DeployedModel(server.url).batch_predict(frame.iloc[:0]).index.name == "row"
    assert server.requests == []


def test_headers_and_curl_tell_how_it_asks() -> None:
    class Credentials:
        def headers(self) -> dict[str, str]:
            return {"email": "a@b.example"}

    model = DeployedModel("https://host/api/v1/predict/1", "it's", Credentials())
    assert model.headers()["Access-Token"] == "it's"
    assert model.headers()["Grpc-Metadata-email"] == "a@b.example"
    assert model.get_curl().startswith("curl -X POST https://host/api/v1/predict/1 -d '' ")
    assert "'Access-Token: it'\"'\"'s'" in model.get_curl()
    assert repr(model) == "<DeployedModel at https://host/api/v1/predict/1>"
    assert "it's" not in repr(model)


def test_what_is_wrong_with_a_call_is_said_before_anything_is_sent(frame: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a valid prediction_url"):
        DeployedModel("host/predict")
    model = DeployedModel("http://127.0.0.1:9/somewhere")
    with pytest.raises(JobError, match="no /predict/ in it"):
        model.batch_predict(frame)
    with pytest.raises(JobError, match="on_error"):
        model.batch_predict(frame, on_error="ignore")  # type: ignore[arg-type]
    with pytest.raises(JobError, match="batch_size is 0"):
        model.batch_predict(frame, batch_size=0)
    (tmp_path / "mine.txt").touch()
    with pytest.raises(FolderError, match=r"mine\.txt"):
        DeployedModel("http://127.0.0.1:9/predict/1").batch_predict(frame, output=tmp_path)


def test_the_signature_is_that_of_the_original() -> None:
    import inspect

    def said(function: Any) -> str:
        return str(inspect.signature(function, eval_str=False).replace(return_annotation=inspect.Signature.empty))

    names = list(inspect.signature(DeployedModel.batch_predict).parameters)
    assert names == [
        "self", "df", "batch_size", "compress", "max_retries", "retry_status", "backoff_factor", "prediction_id", "on_error",
        "output",
    ]  # fmt: skip
    assert "max_retries: 'int' = 13" in said(DeployedModel.predict)
    assert list(inspect.signature(DeployedModel.predict).parameters) == [
        "self", "x", "compress", "max_retries", "always_retry_404", "always_retry_429", "retry_status", "backoff_factor",
        "prediction_id",
    ]  # fmt: skip
    assert inspect.signature(DeployedModel.batch_predict).parameters["retry_status"].default == {
        404,
        429,
        500,
        503,
        504,
    }
