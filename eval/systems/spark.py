"""``ai_query`` and its like, and MLflow's ``spark_udf`` of our models, on a real, local Spark: see ``spark_peer.py`` and
``spark_udf_peer.py``, each in the environment of a peer.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from shown import Shown, from_peer

SYSTEM = "Databricks, Spark"


def results() -> Iterator[Shown]:
    """Everything on the scripted engine, and the six statements once on a real model."""
    program = Path(__file__).with_name("spark_peer.py")
    yield from from_peer("spark", program, system=SYSTEM, claim="ai_query on a local Spark")
    program = Path(__file__).with_name("spark_udf_peer.py")
    yield from from_peer("sparkudf", program, system=SYSTEM, claim="mlflow.pyfunc.spark_udf on a local Spark")
