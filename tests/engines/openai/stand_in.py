"""A stand-in for a server with OpenAI's API, of this process or, run as a script, of its own, which can be killed.

It answers with the prompt's last text, a word a token, and makes vectors of a digest of it. What it does besides is said by
``behave``, which is given the number of a request (from 1) and its body, and gives a status, or one of ``html``, ``cut`` (the
body ends before its end), ``drop`` (the connection closes without an answer), ``hang``; None: an answer. It keeps what it was asked
and what it answered.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from hashlib import shake_256
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import web


class Say(NamedTuple):
    """A status with headers and the error's words."""

    status: int
    headers: Mapping[str, str] = {}
    message: str = "as the stand-in was told"
    code: str = "told"


Behave = Callable[[int, dict[str, Any]], "Say | int | str | None"]
HTML = "<html><body>Welcome to nginx</body></html>"


class StandIn:
    """The server. ``models`` are those it lists: name -> further fields. All that is public may be changed while it runs."""

    def __init__(self, behave: Behave = lambda *_: None, *, key: str | None = None, seconds: float = 0.0) -> None:
        self.behave = behave
        self.key = key
        self.seconds = seconds
        self.slots: int | None = None  # how many it answers at a time; the others wait
        self.most: int | None = None  # more than so many at a time get a 429
        self.models: dict[str, dict[str, Any]] = {"any": {}}
        self.owner = "stand-in"
        self.version: str | None = None
        self.metrics: str | None = None  # what it tells of itself, as vLLM does
        self.lists_models: Say | str | None = None  # what it does in place of listing its models
        self.usage = True
        self.answer: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda _: (
            None
        )  # a choice, where not the usual one
        # of a path and a request's body: what vLLM's own paths for numbers reply
        self.numbers: Callable[[str, dict[str, Any]], dict[str, Any]] = lambda *_: {}
        self.embedding: Callable[[dict[str, Any]], Any] = embedding_of  # of a request's body
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.headers: list[Mapping[str, str]] = []
        self.answered: Counter[str] = Counter()  # by the prompt's text
        self.at_a_time = 0
        self.most_seen = 0
        self.log: Path | None = (
            None  # where each text that was answered is a line; beside it, as FILE.sending, each that was about to be
        )
        self.batches = Batches(self)
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._runner: web.AppRunner | None = None
        self._slots: asyncio.Semaphore | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def start(self, port: int = 0, tls: ssl.SSLContext | None = None) -> StandIn:
        """Listen, again too after ``die``, at the same port."""
        self._call(self._start(port or self.port, tls))
        return self

    def die(self) -> None:
        """Close all connections, whatever is on them, and listen no more."""
        self._call(self._die())

    def stop(self) -> None:
        if self._runner is not None:
            self._call(self._die())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1].split("/")[0]) if self.url else 0

    def _call(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _start(self, port: int, tls: ssl.SSLContext | None) -> None:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_get("/version", self._version)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_post("/v1/completions", self._complete)
        app.router.add_post("/v1/embeddings", self._complete)
        app.router.add_post("/classify", self._complete)
        app.router.add_post("/v1/score", self._complete)
        self.batches.routes(app)
        self._slots = None if self.slots is None else asyncio.Semaphore(self.slots)
        self._runner = web.AppRunner(app, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port, ssl_context=tls, reuse_address=True)
        await site.start()
        bound = self._runner.addresses[0][1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{bound}/v1"

    async def _die(self) -> None:
        assert self._runner is not None
        server = self._runner.server
        assert server is not None
        for connection in list(server.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await self._runner.cleanup()
        self._runner = None
        self.at_a_time = 0

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": self.version}) if self.version else web.Response(status=404)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(status=404) if self.metrics is None else web.Response(text=self.metrics)

    async def _models(self, request: web.Request) -> web.Response:
        if denied := self.denied(request):
            return denied
        if self.lists_models == "html":
            return web.Response(text=HTML, content_type="text/html")
        if isinstance(self.lists_models, Say):
            return error(self.lists_models)
        data = [{"id": name, "object": "model", "owned_by": self.owner, **more} for name, more in self.models.items()]
        return web.json_response({"object": "list", "data": data})

    def denied(self, request: web.Request) -> web.Response | None:
        self.headers.append(dict(request.headers))
        given = request.headers.get("authorization", "")
        if self.key is None or given == f"Bearer {self.key}":
            return None
        return error(
            Say(401, message=f"Incorrect API key provided: {given.removeprefix('Bearer ')}", code="invalid_api_key")
        )

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        if denied := self.denied(request):
            return denied
        body = json.loads(await request.read())
        self.asked.append((request.path, body))
        number = len(self.asked)
        if self.most is not None and self.at_a_time >= self.most:
            return error(Say(429, message="too many requests", code="rate_limit_exceeded"))
        self.at_a_time += 1
        self.most_seen = max(self.most_seen, self.at_a_time)
        try:
            return await self._behaved(request, number, body)
        finally:
            self.at_a_time -= 1

    async def _behaved(self, request: web.Request, number: int, body: dict[str, Any]) -> web.StreamResponse:
        how = self.behave(number, body)
        if isinstance(how, int):
            how = Say(how)
        if isinstance(how, Say):
            return error(how)
        if how == "html":
            return web.Response(text=HTML, content_type="text/html")
        if how == "hang":
            await asyncio.sleep(3600)
        if how == "drop":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if self._slots is None:
            await asyncio.sleep(self.seconds)
        else:
            async with self._slots:
                await asyncio.sleep(self.seconds)
        whole = json.dumps(self.completion(request.path, body)).encode()
        if how == "cut":
            cut = web.StreamResponse(headers={"content-length": str(len(whole)), "content-type": "application/json"})
            await cut.prepare(request)
            await cut.write(whole[:20])
            assert request.transport is not None
            request.transport.close()
            return cut
        reply = web.Response(body=whole, content_type="application/json")
        self._write(".sending", body)
        await reply.prepare(request)
        await reply.write_eof()
        self.answered[text_of(body)] += 1
        self._write("", body)
        return reply

    def _write(self, suffix: str, body: dict[str, Any]) -> None:
        """Before an answer is sent and after: one that is killed in between may have answered, and cannot say so."""
        if self.log is not None:
            with self.log.with_name(self.log.name + suffix).open("a") as log:
                log.write(json.dumps(text_of(body)) + "\n")

    def completion(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path.endswith("embeddings"):
            return self._embedded(body)
        if path in ("/classify", "/v1/score"):
            return self.numbers(path, body)
        chat = path.endswith("chat/completions")
        words = constrained(body) or text_of(body).split(" ")
        limit = body.get("max_tokens") or body.get("max_completion_tokens") or len(words)
        text = " ".join(words[:limit])
        choice: dict[str, Any] = {"index": 0, "finish_reason": "length" if len(words) > limit else "stop"}
        choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        choice |= self.answer(body) or {}
        whole: dict[str, Any] = {
            "id": "x",
            "object": "chat.completion" if chat else "text_completion",
            "choices": [choice],
        }
        if self.usage:
            whole["usage"] = {"prompt_tokens": len(text_of(body).split(" ")), "completion_tokens": len(words[:limit])}
        return whole

    def _embedded(self, body: dict[str, Any]) -> dict[str, Any]:
        data = [{"object": "embedding", "index": 0, "embedding": self.embedding(body)}]
        tokens = len(text_of(body).split(" "))
        usage = {"usage": {"prompt_tokens": tokens, "total_tokens": tokens}} if self.usage else {}
        return {"object": "list", "data": data, "model": body["model"], **usage}


class Batches:
    """Its Batch API: what is uploaded is answered once its batch has been looked at ``looks`` times."""

    def __init__(self, server: StandIn) -> None:
        self.server = server
        self.files: dict[str, bytes] = {}
        self.made: dict[str, dict[str, Any]] = {}
        self.looks = 2
        self.looked: Counter[str] = Counter()
        self.uploads = 0
        self.fails: Callable[[dict[str, Any]], Say | None] = lambda _: (
            None
        )  # of a line: what it gets in place of an answer
        self.ends: Callable[[int], str] = lambda _: "completed"  # of the number of a batch (from 1)
        self.before_create: Callable[[], None] = lambda: None
        self.after_create: Callable[[], None] = lambda: None

    def routes(self, app: web.Application) -> None:
        app.router.add_post("/v1/files", self._upload)
        app.router.add_get("/v1/files/{id}/content", self._content)
        app.router.add_delete("/v1/files/{id}", self._delete)
        app.router.add_post("/v1/batches", self._create)
        app.router.add_get("/v1/batches", self._list)
        app.router.add_get("/v1/batches/{id}", self._get)
        app.router.add_post("/v1/batches/{id}/cancel", self._cancel)

    async def _upload(self, request: web.Request) -> web.Response:
        if denied := self.server.denied(request):
            return denied
        form = await request.post()
        assert form["purpose"] == "batch"
        file = form["file"]
        assert isinstance(file, web.FileField)
        self.uploads += 1
        name = f"file-{self.uploads}"
        self.files[name] = file.file.read()
        return web.json_response({"id": name, "object": "file", "filename": file.filename, "purpose": "batch"})

    async def _content(self, request: web.Request) -> web.Response:
        content = self.files.get(request.match_info["id"])
        return error(Say(404, message="no such file")) if content is None else web.Response(body=content)

    async def _delete(self, request: web.Request) -> web.Response:
        self.files.pop(request.match_info["id"], None)
        return web.json_response({"deleted": True})

    async def _create(self, request: web.Request) -> web.Response:
        if denied := self.server.denied(request):
            return denied
        asked = json.loads(await request.read())
        self.before_create()
        name = f"batch-{len(self.made) + 1}"
        self.made[name] = {
            "id": name, "object": "batch", "status": "validating", "endpoint": asked["endpoint"],
            "input_file_id": asked["input_file_id"], "metadata": asked.get("metadata") or {}, "number": len(self.made) + 1,
            "completion_window": asked["completion_window"],
        }  # fmt: skip
        self.after_create()
        return web.json_response(self.made[name])

    async def _list(self, request: web.Request) -> web.Response:
        names = sorted(self.made, key=lambda name: -self.made[name]["number"])
        after, limit = request.query.get("after"), int(request.query.get("limit", "20"))
        begin = names.index(after) + 1 if after else 0
        page = [self.made[name] for name in names[begin : begin + limit]]
        return web.json_response({"object": "list", "data": page, "has_more": begin + limit < len(names)})

    async def _get(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        if name not in self.made:
            return error(Say(404, message="no such batch"))
        batch = self.made[name]
        self.looked[name] += 1
        if batch["status"] in ("validating", "in_progress"):
            batch["status"] = "in_progress"
            if self.looked[name] > self.looks:
                self._finish(batch)
        return web.json_response(batch)

    async def _cancel(self, request: web.Request) -> web.Response:
        batch = self.made[request.match_info["id"]]
        batch["status"] = "cancelled"
        return web.json_response(batch)

    def _finish(self, batch: dict[str, Any]) -> None:
        batch["status"] = self.ends(batch["number"])
        if batch["status"] == "failed":
            batch["errors"] = {
                "data": [{"message": "the file is not as it must be", "code": "invalid_file", "line": 1}]
            }
            return
        good, bad = [], []
        lines = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        if batch["status"] in ("expired", "cancelled"):
            lines = lines[: len(lines) // 2]
        for line in reversed(lines):  # an output need not be in the order of the input
            body = line["body"]
            self.server.asked.append((line["url"], body))
            if told := self.fails(body):
                response = {"status_code": told.status, "body": {"error": {"message": told.message, "code": told.code}}}
                bad.append({"custom_id": line["custom_id"], "response": response, "error": None})
            else:
                self.server.answered[text_of(body)] += 1
                response = {"status_code": 200, "body": self.server.completion(line["url"], body)}
                good.append({"custom_id": line["custom_id"], "response": response, "error": None})
        for key, found in (("output_file_id", good), ("error_file_id", bad)):
            if found:
                batch[key] = f"{key}-{batch['number']}"
                self.files[batch[key]] = "".join(json.dumps(each) + "\n" for each in found).encode()


def text_of(body: Mapping[str, Any]) -> str:
    """The prompt's last text that is not the start of the answer."""
    for name in ("prompt", "input", "text_2"):
        if name in body:
            return str(body[name])
    return str([m["content"] for m in body["messages"] if m["role"] == "user"][-1])


def vector_of(text: str, dimensions: int = 16) -> list[float]:
    """Numbers of 32 bits that follow from a text alone."""
    drawn = struct.unpack(f"<{dimensions}I", shake_256(text.encode()).digest(4 * dimensions))
    return list(struct.unpack(f"<{dimensions}f", struct.pack(f"<{dimensions}f", *(n / 2**31 - 1 for n in drawn))))


def embedding_of(body: Mapping[str, Any]) -> str | list[float]:
    """The vector of a request, as it asks for it."""
    numbers = vector_of(text_of(body), body.get("dimensions") or 16)
    if body.get("encoding_format") != "base64":
        return numbers
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def constrained(body: Mapping[str, Any]) -> list[str] | None:
    """A smallest answer to what the request is held to, as words; None where it is held to nothing."""
    if choices := (body.get("structured_outputs") or {}).get("choice"):
        return [choices[-1]]
    described = (body.get("response_format") or {}).get("json_schema")
    if described is None:
        return None
    properties = described["schema"].get("properties", {})
    values = {name: (spec.get("enum") or ["x"])[-1] for name, spec in properties.items()}
    return [json.dumps(values, separators=(",", ":"))]


def error(say: Say) -> web.Response:
    body = {"error": {"message": say.message, "type": "error", "code": say.code}}
    return web.json_response(body, status=say.status, headers=dict(say.headers))


def main() -> None:
    """Serve until killed. Of every so many requests one fails."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--fail-every", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--slots", type=int)
    parser.add_argument("--log", type=Path)
    given = parser.parse_args()
    ways: list[Any] = [500, "cut", "drop", Say(503, {"retry-after": "0.05"}), Say(429, {"retry-after": "0.05"}), "html"]

    def behave(number: int, _: dict[str, Any]) -> Any:
        return (
            ways[number // given.fail_every % len(ways)]
            if given.fail_every and number % given.fail_every == 0
            else None
        )

    server = StandIn(behave, seconds=given.seconds)
    server.slots, server.log = given.slots, given.log
    print(server.start(given.port).url, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
