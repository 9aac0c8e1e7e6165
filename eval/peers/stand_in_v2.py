"""A stand-in for a server of the V2 protocol, in Triton's manner: it answers a prompt with the prompt, and fails when told to.

    stand_in_v2.py [--busy N] [--cut N] [--bad TEXT] [--seconds S]

prints its URL once it listens, and ends when its standard input does. Of every N requests for an answer one is refused as too many
(429), and one loses its connection. It takes so many seconds for each.
It speaks for nobody: what a real Triton and a real mlserver do is shown with those (``make peers``, ``make engines``).
"""

from __future__ import annotations

import argparse
import json
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from llmbatch.formats import kserve

BAD = "BOOM"
"""A prompt with this in it is refused, and with it all that came in its request."""


class Seen(NamedTuple):
    """One request for an answer."""

    number: int  # from 1
    path: str
    prompts: tuple[str, ...]
    values: Mapping[str, Any]
    headers: Mapping[str, str]


class Reply(NamedTuple):
    """What a request gets instead of its answer; status 0 is a connection that is lost."""

    status: int
    body: Any = None  # text, or JSON
    headers: Mapping[str, str] = {}
    kind: str = "application/json"


def _inputs(*names: str, shape: Sequence[int] = (1,), datatype: str = "BYTES") -> list[dict[str, Any]]:
    return [{"name": name, "datatype": datatype, "shape": list(shape)} for name in names]


VLLM = (
    {
        "name": "vllm_model", "versions": ["1"], "platform": "python",
        "inputs": [
            *_inputs("text_input", "sampling_parameters"),
            *_inputs(
                "stream", "exclude_input_in_output", "return_finish_reason", "return_num_input_tokens",
                "return_num_output_tokens", datatype="BOOL",
            ),
        ],
        "outputs": _inputs("text_output", "finish_reason", shape=(-1,)),
    },
    {"max_batch_size": 0},
)  # fmt: skip
BATCHED = (
    {
        "name": "batched", "versions": ["1"], "platform": "python",
        "inputs": [*_inputs("text_input", shape=(-1, 1)), *_inputs("max_tokens", shape=(-1, 1), datatype="INT32")],
        "outputs": _inputs("text_output", shape=(-1, 1)),
    },
    {"max_batch_size": 8},
)  # fmt: skip
DECOUPLED = (
    {**VLLM[0], "name": "decoupled"},
    {"max_batch_size": 0, "model_transaction_policy": {"decoupled": True}},
)
UNTOLD = ({"name": "echo", "versions": [], "platform": "", "inputs": [], "outputs": []}, None)  # as mlserver


@dataclass(slots=True)
class StandIn:
    """What it has, and how it behaves. ``fails`` is given each request for an answer."""

    models: tuple[tuple[Mapping[str, Any], Mapping[str, Any] | None], ...] = (VLLM, BATCHED, DECOUPLED, UNTOLD)
    fails: Callable[[Seen], Reply | None] = lambda _: None
    answer: Callable[[str], str] = lambda prompt: prompt
    bad: str = BAD
    seconds: float = 0.0
    ready: bool = True
    html: bool = False  # all that it says is a page
    key: str | None = None  # without it all is denied
    seen: list[Seen] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def prompts(self) -> list[str]:
        """All that it was asked, in that order."""
        return [prompt for seen in self.seen for prompt in seen.prompts]

    def reply(self, path: str, body: bytes | None, headers: Mapping[str, str]) -> Reply:
        """The reply to a request; it has a body where it is a POST."""
        if self.key is not None and headers.get("authorization") != f"Bearer {self.key}":
            return Reply(401, {"error": "no such key"})
        if self.html:
            return Reply(200, "<!doctype html><html><body>Welcome</body></html>", kind="text/html")
        match path.strip("/").split("/"):
            case ["v2"]:
                return Reply(200, {"name": "stand-in", "version": "1.0", "extensions": []})
            case ["v2", "health", "live"]:
                return Reply(200, "")
            case ["v2", "health", "ready"]:
                return Reply(200 if self.ready else 400, "")
            case ["v2", "repository", "index"]:
                state = "READY" if self.ready else "LOADING"
                return Reply(200, [{"name": told["name"], "version": "1", "state": state} for told, _ in self.models])
            case ["v2", "models", name, *rest]:
                return self._of_model(name, rest, path, body, headers)
        return Reply(404, {"error": "Not Found"})

    def _of_model(self, name: str, rest: list[str], path: str, body: bytes | None, headers: Mapping[str, str]) -> Reply:
        found = next((model for model in self.models if model[0]["name"] == name), None)
        if rest[:1] == ["versions"] and len(rest) > 1:
            found = found if rest[1] == "1" else None
            rest = rest[2:]
        if found is None:
            return Reply(404, {"error": f"Request for unknown model: '{name}' is not found"})
        metadata, config = found
        match rest, body is not None:
            case [], False:
                return Reply(200, metadata)
            case ["config"], False:
                return Reply(404, {"detail": "Not Found"}) if config is None else Reply(200, config)
            case ["ready"], False:
                return Reply(200 if self.ready else 400, "")
            case [("infer" | "generate") as call], True:
                return self._asked(kserve.read_model(metadata, config), call, path, body or b"", headers)
        return Reply(404, {"error": "Not Found"})

    def _asked(self, model: kserve.Model, call: str, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        try:
            parsed = json.loads(body)
            asked = _generate(parsed) if call == "generate" else kserve.read_request(parsed)
        except kserve.WireError as error:
            return Reply(400, {"error": str(error)})
        except ValueError as error:
            return Reply(500, {"error": f"failed to parse the request JSON buffer: {error}"})
        with self.lock:
            seen = Seen(len(self.seen) + 1, path, asked.prompts, asked.values, headers)
            self.seen.append(seen)
        time.sleep(self.seconds)
        if (failed := self.fails(seen)) is not None:
            return failed
        if model.decoupled and call == "infer":
            return Reply(501, {"error": "HTTP end point doesn't support models with decoupled transaction policy"})
        if unknown := [n for n in (parsed.get("inputs") or ()) if model.inputs and n["name"] not in model.inputs]:
            return Reply(400, {"error": f"unexpected inference input '{unknown[0]['name']}' for model '{model.name}'"})
        if len(asked.prompts) > max(1, model.most) and model.inputs:
            return Reply(400, {"error": f"inference request batch-size must be <= {model.most} for '{model.name}'"})
        if any(self.bad in prompt for prompt in asked.prompts):
            return Reply(500 if call == "infer" else 400, {"error": "the model says no"})
        answers = [
            self._answer(prompt, {k: v[i] if isinstance(v, list) else v for k, v in asked.values.items()})
            for i, prompt in enumerate(asked.prompts)
        ]
        if call == "infer":
            return Reply(200, kserve.written_answers(model.name, asked, answers))
        answer = answers[0]
        told = {"finish_reason": answer.finish_reason, "num_output_tokens": answer.completion_tokens}
        return Reply(
            200, {"model_name": model.name, "text_output": answer.text, **{k: v for k, v in told.items() if v}}
        )

    def _answer(self, prompt: str, values: Mapping[str, Any]) -> kserve.Answer:
        """Its tokens are words. It tells of them where it is asked to."""
        settings = {**values, **json.loads(values.get("sampling_parameters") or "{}")}
        words, most = self.answer(prompt).split(), settings.get("max_tokens") or 1024
        text = " ".join(words[:most])
        if "sampling_parameters" in values and not values.get("exclude_input_in_output"):
            text = prompt + text
        if not values.get("return_finish_reason"):
            return kserve.Answer(text)
        reason = "stop" if len(words) <= most else "length"
        return kserve.Answer(text, reason, len(prompt.split()), min(len(words), most))


def _generate(body: Any) -> kserve.Asked:
    if not isinstance(body, dict) or not isinstance(body.get("text_input"), str):
        raise kserve.WireError("expected a text_input")
    return kserve.Asked(body.get("id"), (body["text_input"],), {**body.get("parameters", {}), **body}, (1,))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    stand_in: StandIn

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.connections: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else what follows the headers waits 40 ms for the client's word that it has those
    server: _Server

    def do_GET(self) -> None:
        self._send(self.server.stand_in.reply(self.path, None, dict(self.headers)))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._send(self.server.stand_in.reply(self.path, body, dict(self.headers)))

    def _send(self, reply: Reply) -> None:
        if reply.status == 0:
            self.close_connection = True
            self.connection.close()
            return
        content = reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
        data = content.encode()
        try:
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.kind)
            self.send_header("Content-Length", str(len(data)))
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)
        except OSError:  # whoever asked is gone
            self.close_connection = True

    def finish(self) -> None:
        try:
            super().finish()
        except (OSError, ValueError):
            pass

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing."""


@contextmanager
def serving(stand_in: StandIn, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serves in a thread; gives the URL."""
    server = _Server(("127.0.0.1", 0), _Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.stand_in = stand_in
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        for connection in list(server.connections):  # they would live on, in threads of their own
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        thread.join()


def _every(busy: int, cut: int) -> Callable[[Seen], Reply | None]:
    def fails(seen: Seen) -> Reply | None:
        if busy and seen.number % busy == 0:
            return Reply(429, {"error": "busy"}, {"Retry-After": "0"})
        if cut and seen.number % cut == 0:
            return Reply(0)
        return None

    return fails


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--busy", type=int, default=0)
    parser.add_argument("--cut", type=int, default=0)
    parser.add_argument("--bad", default=BAD)
    parser.add_argument("--seconds", type=float, default=0.0)
    given = parser.parse_args()
    with serving(StandIn(fails=_every(given.busy, given.cut), bad=given.bad, seconds=given.seconds)) as url:
        print(url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
