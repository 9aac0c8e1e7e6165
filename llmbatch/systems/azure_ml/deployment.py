"""The YAML of a batch deployment in, with its settings below ``settings`` or at its root; what is to be run out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from llmbatch.core.errors import JobError
from llmbatch.prompt.document import Document
from llmbatch.systems.azure_ml.assets import place_of
from llmbatch.systems.azure_ml.document import WITHOUT_EFFECT, checked, no_effect, script_file
from llmbatch.systems.azure_ml.scoring import Scoring, Script, Thresholds
from llmbatch.systems.azure_ml.settings import LegacyDeployment, ModelDeployment, Settings

_RETRIES, _TIMEOUT = 3, 30


def scoring_of_deployment(document: Document, base: Path, assets: Mapping[str, str]) -> Scoring:
    """Raises ``JobError``."""
    kind = document.value.get("type")
    if str(kind).lower() == "pipeline":
        raise JobError(
            f"{document.where(['type'])}: type pipeline deploys a component of a pipeline, which is not done here: give the YAML "
            "of its parallel job, or a deployment of type model"
        )
    deployment: ModelDeployment | LegacyDeployment
    if kind is None:
        if "settings" in document.value:
            raise JobError(
                f"{document.where(['settings'])}: settings belongs to deployments of type model: add `type: model`, or put its "
                "keys at the root"
            )
        deployment = checked(LegacyDeployment, document)
        settings: Settings = deployment
    else:
        misplaced = sorted((document.value.keys() & Settings.model_fields.keys()) - {"environment_variables"})
        if misplaced:
            raise JobError(
                f"{document.where([misplaced[0]])}: {', '.join(misplaced)}: with type model these belong below settings"
            )
        deployment = checked(ModelDeployment, document)
        settings = deployment.settings
        if deployment.resources is not None and "instance_count" in document.value.get("settings", {}):
            raise JobError(
                f"{document.where(['settings', 'instance_count'])}: settings.instance_count and resources cannot both be given: "
                "leave one of them out"
            )
    code = deployment.code_configuration
    script = None
    if code is not None:
        folder = Path(place_of(code.code, assets, base, document.where(["code_configuration", "code"])))
        script_file(document, folder, code.scoring_script, ("code_configuration",))
        variables = {**deployment.environment_variables, **settings.environment_variables}
        script = Script(folder, code.scoring_script, (), variables)
    retry = settings.retry_settings
    return Scoring(
        name=deployment.name,
        script=script,
        model=_model(deployment, document, base, assets),
        mini_batch_size=settings.mini_batch_size,
        processes=settings.max_concurrency_per_instance,
        retries=_RETRIES if retry.max_retries is None else retry.max_retries,
        timeout=_TIMEOUT if retry.timeout is None else retry.timeout,
        thresholds=Thresholds(settings.error_threshold),
        output_file=settings.output_file_name if settings.output_action == "append_row" else None,
        logging_level=settings.logging_level,
        read=(
            f"batch deployment {deployment.name}"
            + (" in the older form, with its settings at the root" if kind is None else ""),
        ),
        without_effect=tuple(no_effect(document, WITHOUT_EFFECT)),
    )


def _model(
    deployment: ModelDeployment | LegacyDeployment, document: Document, base: Path, assets: Mapping[str, str]
) -> str | None:
    model = deployment.model
    if model is None:
        return None
    text = model if isinstance(model, str) else model.path
    return place_of(text, assets, base, document.where(["model"]))
