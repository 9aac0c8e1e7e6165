"""A server's own counters in (vLLM's ``/metrics``); whether it can use more requests at a time, out."""

from __future__ import annotations

import re

from llmbatch.engines.http.base import NotSent
from llmbatch.engines.http.client import Client
from llmbatch.engines.openai.server import root_of

_GAUGE = re.compile(r"^vllm:num_requests_(running|waiting)(?:\{[^}]*\})? (\S+)$", re.MULTILINE)
_ENOUGH = 0.5  # that wait for each that runs: whatever ends, others are there to take its place


async def has_use_for_more(client: Client, url: str) -> bool:
    """False where the server at this URL says that requests wait in it already; a server that tells nothing has."""
    try:
        reply = await client.get(f"{root_of(url)}/metrics")
    except NotSent:
        return True
    return reply.status != 200 or not waits(reply.body.decode("utf-8", "replace"))


def waits(metrics: str) -> bool:
    """Whether about as many requests wait as are of use, by a server's metrics. Each of its engines has gauges of its own."""
    counted = {"running": 0.0, "waiting": 0.0}
    for name, value in _GAUGE.findall(metrics):
        counted[name] += float(value)
    return counted["waiting"] > 0 and counted["waiting"] >= _ENOUGH * counted["running"]


__all__ = ["has_use_for_more", "waits"]
