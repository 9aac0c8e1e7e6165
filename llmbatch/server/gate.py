"""Every request comes through here: known, within its bounds and its time, or refused; counted and logged, without what is in it.

What is refused before anything else looks at it: a key that nobody has; a body in an encoding (a small one may unpack to a huge
one) or larger than is taken; a client that falls silent; and, where there are no keys, what a web page elsewhere makes a browser
send here: a strange Host (its name points to this machine) or a strange Origin.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llmbatch.server.errors import ApiError, place_of
from llmbatch.server.keys import Owner
from llmbatch.server.server import Server
from llmbatch.server.settings import LOOPBACK

_log = logging.getLogger("llmbatch.server")
_OPEN = re.compile(r"/|/health|/page/[^/]*")  # what holds nobody's data
_GOOGLE = "x-goog-api-client"  # every client of Google's sends it; at the root some of their paths are OpenAI's too
_VERSIONED = re.compile(r"/(?:upload/)?v[0-9]")
_SIGNED = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/,\s]+)/"
)  # the access key's id is the key, as there is no secret to hold it to
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_FORM_BYTES = 1 << 20  # that a form has besides its file
_SLOWEST = 1000  # bytes a second that a body must come at, after the time that a client may be silent
_SEND_SECONDS = 300.0  # that a client may take nothing of what it is sent
_SAFE = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)


class Gate:
    """ASGI middleware around everything else. Puts ``owner`` and ``request_id`` into the scope's state.

    What serves it puts ``abort`` there, which ends the connection at once.
    """

    def __init__(self, app: ASGIApp, server: Server) -> None:
        self._app = app
        self._server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            elif scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        headers, path = Headers(scope=scope), scope["path"]
        key = _in_query(scope)
        if (_GOOGLE in headers or (key is not None and _VERSIONED.match(path))) and not path.startswith("/google/"):
            path = f"/google{path}"
            scope = {**scope, "path": path, "raw_path": path.encode()}
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        exchange = _Exchange(receive, send, request_id, self._server.settings.body_seconds)
        front = self._server.front_of(path)
        is_open = scope["method"] in ("GET", "HEAD") and _OPEN.fullmatch(path) is not None
        began, owner = time.monotonic(), ""
        try:
            asked_by = self._see(headers, key, is_open=is_open, takes_gzip=getattr(front, "takes_gzip", False))
            owner = asked_by.name
            upload = front.uploads(path)
            exchange.limit = self._server.settings.max_bytes + _FORM_BYTES if upload else self._server.settings.max_body
            self._see_length(headers, exchange.limit)
            scope.setdefault("state", {}).update(owner=asked_by, request_id=request_id)
            await self._app(scope, exchange.receive, exchange.send)
        except _TakesNothing:
            scope["state"]["abort"]()
            await asyncio.sleep(0)  # until then what serves it does not know, and complains of an answer without an end
        except ClientDisconnect:
            exchange.status = exchange.status or 499
        except Exception as error:
            problem = error if isinstance(error, ApiError) else unforeseen(error, request_id)
            if not exchange.status:
                await front.refusal(problem)(scope, receive, exchange.send)
            elif not exchange.answered:  # the connection is cut, so that nobody takes the answer for whole
                raise _Broken from None
        finally:
            self._tell(scope, exchange, time.monotonic() - began, owner)

    def _see(self, headers: Headers, key: str | None, *, is_open: bool, takes_gzip: bool) -> Owner:
        """Whose request it is, by its headers or the ``key`` of its URL; one of a path that is ``is_open`` may be nobody's.

        Raises ``ApiError``.
        """
        keys = self._server.settings.keys
        if not keys:
            self._see_place(headers)
        encoding = headers.get("content-encoding", "identity").lower()
        if encoding != "identity" and not (encoding == "gzip" and takes_gzip):
            raise ApiError(
                415, "a body with a Content-Encoding is not taken: send it as it is", code="unsupported_encoding"
            )
        if len(headers.getlist("content-length")) > 1 or (
            "content-length" in headers and "transfer-encoding" in headers
        ):
            raise ApiError(400, "the request says its length in more than one way", code="invalid_request")
        owner = keys.owner(_key(headers) or key)
        if owner is not None:
            return owner
        if is_open:
            return Owner()
        raise ApiError(
            401,
            "the API key is missing or not known here: send one as Authorization: Bearer KEY",
            code="invalid_api_key",
        )

    def _see_place(self, headers: Headers) -> None:
        host = _host(f"//{headers.get('host', '')}")
        if host not in LOOPBACK:
            raise ApiError(
                403,
                "without API keys this server answers only to the names of this machine (localhost)",
                code="invalid_host",
            )
        origin = headers.get("origin")
        if origin is not None and _at(origin) != headers.get("host"):
            raise ApiError(403, "a web page of another place may not use this server", code="invalid_origin")

    def _see_length(self, headers: Headers, limit: int) -> None:
        length = headers.get("content-length")
        if length is not None and length.isdecimal() and int(length) > limit:
            raise _too_large(limit)

    def _tell(self, scope: Scope, exchange: _Exchange, seconds: float, owner: str) -> None:
        route = getattr(scope.get("route"), "path", "unknown")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._server.metrics.requests.labels(method, route, str(exchange.status)).inc()
        self._server.metrics.seconds.labels(route).observe(seconds)
        level = logging.DEBUG if exchange.status < 300 and method == "GET" else logging.INFO
        _log.log(
            level, "%s %s %s %.0f ms id=%s%s", method, route, exchange.status, 1000 * seconds, exchange.request_id,
            f" owner={owner}" if owner else "",
        )  # fmt: skip


_METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"})


class _TakesNothing(ClientDisconnect):
    """The client is there, and takes nothing of what it is sent any more."""


class _Broken(Exception):
    """An answer that had begun cannot be brought to its end. Says nothing of why: that may hold what was asked."""


class _Exchange:
    """One request and its answer, as they pass."""

    def __init__(self, receive: Receive, send: Send, request_id: str, seconds: float) -> None:
        self._receive = receive
        self._send = send
        self._seconds = seconds
        self._read = 0
        self._began = time.monotonic()
        self._whole = False
        self.request_id = request_id
        self.limit = 0
        self.status = 0
        self.answered = False  # to the end

    async def receive(self) -> Message:
        if self._whole:  # only the client's leaving can come, and may take as long as the answer does
            return await self._receive()
        left = self._began + self._seconds + self._read / _SLOWEST - time.monotonic()
        try:
            async with asyncio.timeout(min(self._seconds, left)):
                message = await self._receive()
        except TimeoutError:
            raise ApiError(
                408,
                f"nothing, or next to nothing, came for {self._seconds:g} s in the middle of the request",
                code="request_timeout",
                retry=True,
            ) from None
        if message["type"] == "http.request":
            self._read += len(message.get("body", b""))
            self._whole = not message.get("more_body", False)
            if self._read > self.limit:
                raise _too_large(self.limit)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self.request_id
            message["headers"] += _SAFE
            if not self._whole and self.status >= 400:
                headers["connection"] = "close"  # what is left of the request is not read
        elif message["type"] == "http.response.body":
            self.answered = not message.get("more_body", False)
        try:
            async with asyncio.timeout(_SEND_SECONDS):
                await self._send(message)
        except TimeoutError:
            raise _TakesNothing from None


def _key(headers: Headers) -> str | None:
    """The API key, as one of the APIs has it."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip()
    if signed := _SIGNED.match(headers.get("authorization", "")):
        return signed[1]
    return headers.get("api-key") or headers.get("x-goog-api-key") or headers.get("access-token")


def _in_query(scope: Scope) -> str | None:
    """The API key in the URL, where Google's documentation has it. Nobody else's clients put one there."""
    return next((value for name, value in parse_qsl(scope["query_string"].decode("latin-1")) if name == "key"), None)


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _at(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _too_large(limit: int) -> ApiError:
    return ApiError(
        413, f"the request is larger than {limit:,} bytes, the most that is taken here", code="request_too_large"
    )


def unforeseen(error: Exception, request_id: str) -> ApiError:
    """What is said of a bug, in the log and to the client."""
    _log.error("request %s failed: %s", request_id, place_of(error))
    return ApiError(
        500, f"the server failed on this request; its log says more under the id {request_id}", code="server_error"
    )


__all__ = ["Gate", "unforeseen"]
