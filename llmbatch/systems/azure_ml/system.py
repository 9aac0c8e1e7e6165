"""A batch deployment without a scoring script in; a run of ours over the rows of its files, with its output file, out."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from llmbatch.core.errors import JobError
from llmbatch.systems.azure_ml.reading import read_scoring, recognizes
from llmbatch.systems.azure_ml.scoring import Scoring
from llmbatch.systems.base import Assets, FromDocument

_OF_SCRIPTS = ("mini_batch_size", "max_concurrency_per_instance", "retry_settings", "environment_variables")


class AzureML:
    """Implements ``System``."""

    name = "azure_ml"

    def recognizes(self, document: Any, path: Path) -> bool:  # noqa: ARG002 - its keys are enough
        return recognizes(document)

    def job(self, document: Any, path: Path, assets: Assets) -> FromDocument:
        scoring = read_scoring(path, assets.places)
        if scoring.script is not None:
            raise JobError(
                f"{path}: has a scoring script, {scoring.script.file}, which is run by "
                f"llmbatch azureml run {shlex.quote(str(path))} --input FOLDER --output FOLDER"
            )
        settings = {"output_file_name": scoring.output_file, "error_threshold": scoring.thresholds.items}
        job: dict[str, Any] = {
            "answer": {"allow_truncated": True, "allow_empty": True},  # a deployment checks no answer
            "sinks": {"layout": {"name": "azure_ml", "settings": settings}},
        }
        if scoring.model is not None:
            job["model"] = scoring.model
        if scoring.input is not None:
            job["input"] = {"path": scoring.input}
        if scoring.thresholds.items >= 0:
            job["run"] = {"max_failures": scoring.thresholds.items}
        read = [f"{line}, without a scoring script: llmbatch answers every row of its files" for line in scoring.read]
        return FromDocument(job, scoring.name, read, [*_names(document, scoring), *_given_of_scripts(document)])


def _names(document: Any, scoring: Scoring) -> list[str]:
    """The keys without effect, of which a run says itself that they are."""
    return [line.partition(":")[0] for line in scoring.without_effect if line.partition(":")[0] in document]


def _given_of_scripts(document: Any) -> list[str]:
    settings = document.get("settings")
    given = settings if isinstance(settings, dict) else document
    return [key for key in _OF_SCRIPTS if key in given]
