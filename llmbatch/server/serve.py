"""Settings in; a server that listens until it is told to stop, out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Generator

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from llmbatch.core.errors import UsageError
from llmbatch.server.app import application
from llmbatch.server.server import Server
from llmbatch.server.settings import ServerSettings

_HEADER_SECONDS = 20.0  # that a client gets from connecting to the end of its request's headers
_HEADER_BYTES = 64 << 10
_KEEP_SECONDS = 75  # that a connection without a request stays open
_LAST_SECONDS = 300.0  # that a client gets to take what was written to it, once its connection is to end
_CONNECTIONS = 2048
_BACKLOG = 1024
_GRACE_SECONDS = 10  # that answers get which are being given when the server ends


class _Protocol(HttpToolsProtocol):
    """HTTP/1.1 as uvicorn has it, but headers are to come within a time and a size."""

    _patience: asyncio.TimerHandle | None = None
    _end_of_all: asyncio.TimerHandle | None = None
    _header_bytes: int | None = None  # of headers that are coming in

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        if self._end_of_all is not None:
            self._end_of_all.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._header_bytes is not None:
            self._header_bytes += len(data)
            if self._header_bytes > _HEADER_BYTES:
                self._end()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"]["abort"] = self.transport.abort  # of a client that takes nothing, closing would wait for it
        self._header_bytes = 0
        self._wait_for_headers()

    def on_headers_complete(self) -> None:
        self._header_bytes = None
        self._stop_waiting()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._end()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._end()

    def _end(self) -> None:
        """Close the connection: by itself that waits without end for a client that takes nothing of an answer that is written."""
        self.transport.close()
        if self._end_of_all is None:
            self._end_of_all = self.loop.call_later(_LAST_SECONDS, self.transport.abort)

    def _wait_for_headers(self) -> None:
        if self._patience is None:
            self._patience = self.loop.call_later(_HEADER_SECONDS, self._end)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


def listen(settings: ServerSettings) -> socket.socket:
    """A socket that listens. Raises ``UsageError`` where that is not to be had."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, proto)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}; give another --port or --host"
        ) from error
    return listener


class _Server(uvicorn.Server):
    """As uvicorn has it, but whoever runs it goes on behind its end: by itself it ends the process by the signal that came."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        with super().capture_signals():
            yield
            self._captured_signals.clear()


def http_server(server: Server) -> uvicorn.Server:
    """What serves it, once it is given a socket to ``run`` on."""
    config = uvicorn.Config(
        application(server),
        http=_Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        limit_concurrency=_CONNECTIONS,
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    return _Server(config)


def serve(server: Server, listener: socket.socket, say: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; batches that are not over go on when the server is started again."""
    host, port = listener.getsockname()[:2]
    at = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    say(f"llmbatch serves {server.settings.model} at {at}/v1; the page is at {at}/")
    if not server.settings.keys:
        say("There are no API keys (--api-key-file): only this machine can reach it, and everybody on this machine may")
    if server.store.taken:
        say(server.store.taken)
    http_server(server).run(sockets=[listener])


__all__ = ["http_server", "listen", "serve"]
