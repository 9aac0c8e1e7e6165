"""Verta: our client against a stand-in of a server with its wire. There is no client or server of Verta's own to be had."""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))
from shown import EXAMPLES, Shown, tried

import llmbatch
from llmbatch.verta import DeployedModel

_STAND_IN = "a stand-in with Verta's wire, llmbatch behind it"
_URL = "http://127.0.0.1:{}/api/v1/predict/model-1"


class StandIn:
    """Answers a frame by ``llmbatch.generate`` on the scripted engine, after the statuses of ``first``."""

    def __init__(self) -> None:
        self.first: list[int] = []
        self.asked: list[tuple[float, list[Any]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append((time.monotonic(), given["index"]))
                status = outer.first.pop(0) if outer.first else 200
                body = json.dumps(outer.answer(given) if status == 200 else {"message": "no such column"}).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = _URL.format(self._server.server_port)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answer(self, frame: dict[str, Any]) -> dict[str, Any]:
        rows = [dict(zip(frame["columns"], row, strict=True)) for row in frame["data"]]
        records = llmbatch.generate(rows, model="any", prompt="{{ prompt }}", engine={"name": "scripted"})
        return {"index": frame["index"], "columns": ["output"], "data": [[record.output] for record in records]}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def results() -> Iterator[Shown]:
    """The rows of this part."""
    for claim, show in (
        ("batch_predict on the example's frame: the same index and length, the column output", _frame),
        ("503 three times: the same result, and pauses that grow", _busy),
        ("400: one request, RuntimeError with the message", _refused),
        ("an interrupted call given again asks only for the missing parts", _again),
    ):
        server = StandIn()
        try:
            yield tried("Verta", claim, _STAND_IN, "", lambda show=show, server=server: show(server))
        finally:
            server.close()


def _example() -> Any:
    import pandas as pd

    return pd.read_csv(EXAMPLES / "verta" / "frame.csv", index_col="row")


def _frame(server: StandIn) -> str:
    frame = _example()
    found = DeployedModel(server.url).batch_predict(frame, batch_size=2)
    assert found.index.equals(frame.index)
    assert found.columns.tolist() == ["output"]
    assert found["output"].tolist() == frame["prompt"].tolist()
    return f"index {found.index.tolist()} from {len(server.asked)} requests"


def _busy(server: StandIn) -> str:
    frame = _example()
    server.first = [503, 503, 503]
    found = DeployedModel(server.url).batch_predict(frame)
    assert found["output"].tolist() == frame["prompt"].tolist()
    times = [when for when, _ in server.asked]
    pauses = [after - before for before, after in pairwise(times)]
    assert pauses == sorted(pauses)
    return f"{len(times)} requests, pauses of {', '.join(f'{pause:.1f} s' for pause in pauses)}"


def _refused(server: StandIn) -> str:
    server.first = [400]
    try:
        DeployedModel(server.url).batch_predict(_example())
    except RuntimeError as error:
        assert len(server.asked) == 1
        return str(error)
    raise AssertionError("it did not raise")


def _again(server: StandIn) -> str:
    frame = _example()
    server.first = [200, 400]
    with tempfile.TemporaryDirectory() as folder:
        try:
            DeployedModel(server.url).batch_predict(frame, batch_size=1, output=folder)
        except RuntimeError:
            before = len(server.asked)
        found = DeployedModel(server.url).batch_predict(frame, batch_size=1, output=folder)
    assert found["output"].tolist() == frame["prompt"].tolist()
    return f"parts asked for: {[index for _, index in server.asked[:before]]}, then {[index for _, index in server.asked[before:]]}"
