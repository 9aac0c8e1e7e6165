"""The client of servers, and what it says of connections that do not come about."""

from __future__ import annotations

import asyncio

import pytest

from llmbatch.engines.http.base import Unreachable
from llmbatch.engines.http.client import Client


def test_a_proxy_that_has_no_connection_to_the_server_is_no_fault_of_the_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async def run() -> None:
        proxy = await asyncio.start_server(refuse, "127.0.0.1", 0)
        monkeypatch.setenv("https_proxy", f"http://user:hidden@127.0.0.1:{proxy.sockets[0].getsockname()[1]}")
        monkeypatch.setenv("no_proxy", "")
        async with proxy, Client(None, 5.0) as client:
            with pytest.raises(Unreachable, match="503") as raised:
                await client.get("https://server.invalid/v1/models")
        assert "hidden" not in str(raised.value)

    asyncio.run(run())
