"""What the server does, counted, for Prometheus. No label holds what somebody sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from llmbatch.server.store import Batch

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The counters of one server; ``standing`` says how many batches are in which state, ``stored`` how many bytes files have."""

    def __init__(self, standing: Callable[[], Mapping[str, int]], stored: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "llmbatch_http_requests",
            "Requests by route and status.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self.seconds = Histogram(
            "llmbatch_http_request_seconds", "Time to the end of an answer.", ("route",), registry=self._registry
        )
        self.uploaded = Counter("llmbatch_uploaded_bytes", "Bytes of uploaded files.", registry=self._registry)
        self.live = Counter(
            "llmbatch_live_requests", "Live requests by how they ended.", ("outcome",), registry=self._registry
        )
        self.live_tokens = Counter(
            "llmbatch_live_tokens", "Tokens of live requests.", ("kind",), registry=self._registry
        )
        self.rows = Counter(
            "llmbatch_batch_rows",
            "Rows of batches that are over, by what became of them.",
            ("outcome",),
            registry=self._registry,
        )
        self.tokens = Counter(
            "llmbatch_batch_tokens", "Tokens of batches that are over.", ("kind",), registry=self._registry
        )
        self._registry.register(_Batches(standing))
        files = Gauge("llmbatch_stored_bytes", "Bytes of files, uploaded and of results.", registry=self._registry)
        files.set_function(stored)

    def over(self, batch: Batch) -> None:
        """A batch came to its end."""
        facts = batch.facts
        for kind, tokens in (facts.usage or {}).items():
            self.tokens.labels(kind).inc(tokens)
        self.rows.labels("answered").inc(facts.done)
        self.rows.labels("failed").inc(facts.failed)  # last: who sees all rows sees their tokens too

    def text(self) -> bytes:
        return generate_latest(self._registry)


class _Batches(Collector):
    def __init__(self, standing: Callable[[], Mapping[str, int]]) -> None:
        self._standing = standing

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily("llmbatch_batches", "Batches by state.", labels=("state",))
        for state, count in sorted(self._standing().items()):
            family.add_metric((state,), count)
        yield family


__all__ = ["CONTENT_TYPE", "Metrics"]
