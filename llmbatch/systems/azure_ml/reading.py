"""The YAML file of a batch deployment, or of a parallel job, in; what is to be run out. What is not done is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmbatch.core.errors import JobError
from llmbatch.systems.azure_ml.deployment import scoring_of_deployment
from llmbatch.systems.azure_ml.document import read_yaml
from llmbatch.systems.azure_ml.parallel import scoring_of_step
from llmbatch.systems.azure_ml.scoring import Scoring


def read_scoring(path: Path, assets: Mapping[str, str], step: str | None = None) -> Scoring:
    """Read a file. Of a pipeline ``step`` is the parallel job that is meant, which may be left out where it is the only step.

    Raises ``JobError``.
    """
    document = read_yaml(path)
    kind = str(document.value.get("type", "")).lower()
    if kind in ("parallel", "pipeline") and "endpoint_name" not in document.value:
        return scoring_of_step(document, path.parent, assets, step)
    if step is not None:
        raise JobError(f"{path}: is a batch deployment, which has no steps: leave --step {step} out")
    return scoring_of_deployment(document, path.parent, assets)


def has_script(value: Any) -> bool:
    """Whether a document of Azure ML brings the script that does its work."""
    return recognizes(value) and ("code_configuration" in value or value.get("type") in ("parallel", "pipeline"))


def recognizes(value: Any) -> bool:
    """Whether a document looks like one of these, by what no other system's has."""
    if not isinstance(value, Mapping):
        return False
    if "endpoint_name" in value and ("compute" in value or "code_configuration" in value):
        return True
    if str(value.get("$schema", "")).startswith("https://azuremlschemas."):
        return True
    return value.get("type") == "parallel" and isinstance(value.get("task"), Mapping)
