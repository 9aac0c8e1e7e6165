"""``ai_query`` and its like on a real, local Spark: in the environment of the peer ``spark``, see ``spark_peer.py``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from shown import Shown, from_peer

SYSTEM = "Databricks, Spark"


def results() -> Iterator[Shown]:
    """Everything on the scripted engine, and the six statements once on a real model."""
    program = Path(__file__).with_name("spark_peer.py")
    yield from from_peer("spark", program, system=SYSTEM, claim="ai_query on a local Spark")
