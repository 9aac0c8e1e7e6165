"""MLflow: runs that a real server follows, models that it logs and loads. All in MLflow's own environment: ``mlflow_peer.py``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
sys.path.append(str(HERE))
from shown import Shown, from_peer  # noqa: E402


def results() -> Iterator[Shown]:
    """The rows of this part."""
    yield from from_peer(
        "mlflow", HERE / "mlflow_peer.py", system="MLflow", claim="runs and models of llmbatch in a real MLflow server"
    )
