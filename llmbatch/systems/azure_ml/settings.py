"""The keys of Azure ML's YAML, as its own loader knows them: values in, checked settings with Azure's defaults out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

LONGEST_TIMEOUT = 259_200  # seconds


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _as_text(value: Any) -> Any:
    """Variables of an environment are text, and YAML has numbers and booleans."""
    if not isinstance(value, Mapping):
        return value
    return {
        key: str(item).lower() if isinstance(item, bool) else str(item) if isinstance(item, int | float) else item
        for key, item in value.items()
    }


def _is_name(name: str) -> str:
    if "/" in name or name in ("", ".", ".."):
        raise ValueError("a file name is needed, without folders")
    return name


def _is_script(name: str) -> str:
    parts = name.split("/")
    if not name.endswith(".py") or name.startswith("/") or ".." in parts:
        raise ValueError("a Python file below the folder of the code is needed, such as score.py")
    return name


Variables = Annotated[dict[str, str], BeforeValidator(_as_text)]
FileName = Annotated[str, AfterValidator(_is_name)]
ScriptName = Annotated[str, AfterValidator(_is_script)]
Level = Annotated[Literal["warning", "info", "debug"], BeforeValidator(_lower)]
Threshold = Annotated[int, Field(ge=-1, strict=True)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Retry(_Strict):
    """How often a mini-batch is tried again, and how long one ``run()`` may take. ``None``: the default of where it stands."""

    max_retries: int | None = Field(None, ge=0)
    timeout: int | None = Field(None, gt=0, le=LONGEST_TIMEOUT)


class Settings(_Strict):
    """How a deployment is run, as both forms have it."""

    mini_batch_size: int = Field(10, ge=1)
    max_concurrency_per_instance: int = Field(1, ge=1)
    error_threshold: Threshold = -1
    retry_settings: Retry = Retry()
    output_action: Annotated[Literal["append_row", "summary_only"], BeforeValidator(_lower)] = "append_row"
    output_file_name: FileName = "predictions.csv"
    logging_level: Level = "info"
    environment_variables: Variables = Field(default_factory=dict)


class SettingsOfModel(Settings):
    """``settings`` of a deployment of ``type: model``."""

    instance_count: int = Field(1, ge=1)


class Code(_Strict):
    code: str
    scoring_script: ScriptName


class InlineModel(_Strict):
    """A model that is described in place; but for its path, only the workspace has use of it."""

    path: str
    name: str | None = None
    version: str | int | None = None
    type: str | None = None
    description: str | None = None
    tags: dict[str, Any] | None = None
    properties: dict[str, Any] | None = None
    flavors: dict[str, Any] | None = None
    stage: str | None = None


class _AnyDeployment(_Strict):
    schema_: str | None = Field(None, alias="$schema")
    name: str = Field(min_length=1)
    endpoint_name: str = Field(min_length=1)
    description: str | None = None
    id: str | None = None
    tags: dict[str, Any] | None = None
    properties: dict[str, Any] | None = None
    model: str | InlineModel | None = None
    code_configuration: Code | None = None
    environment: str | dict[str, Any] | None = None
    environment_variables: Variables = Field(default_factory=dict)
    compute: str
    resources: dict[str, Any] | None = None


class ModelDeployment(_AnyDeployment):
    """A deployment with ``type: model``."""

    type: Annotated[Literal["model"], BeforeValidator(_lower)]
    settings: SettingsOfModel = SettingsOfModel()


class LegacyDeployment(_AnyDeployment, Settings):
    """A deployment without a ``type``, which has its settings at the root."""


class Task(_Strict):
    """What a parallel job does with each mini-batch."""

    type: Annotated[Literal["run_function", "function"], BeforeValidator(_lower)]
    code: str = "."
    entry_script: ScriptName
    environment: str | dict[str, Any] | None = None
    program_arguments: str = ""
    append_row_to: str | None = None


class Parallel(_Strict):
    """A parallel job, as it stands in a pipeline."""

    type: Annotated[Literal["parallel"], BeforeValidator(_lower)]
    schema_: str | None = Field(None, alias="$schema")
    name: str | None = None
    display_name: str | None = None
    description: str | None = None
    experiment_name: str | None = None
    tags: dict[str, Any] | None = None
    properties: dict[str, Any] | None = None
    compute: str | None = None
    resources: dict[str, Any] | None = None
    identity: dict[str, Any] | None = None
    inputs: dict[str, Any] = Field(default_factory=dict)
    outputs: dict[str, Any] = Field(default_factory=dict)
    input_data: str
    mini_batch_size: str = "1"  # Azure's own loader takes a text alone here, and the levels in capitals
    max_concurrency_per_instance: int | None = Field(None, ge=1)
    error_threshold: Threshold = -1
    mini_batch_error_threshold: Threshold = -1
    logging_level: Literal["WARNING", "INFO", "DEBUG"] = "INFO"
    retry_settings: Retry = Retry()
    environment_variables: Variables = Field(default_factory=dict)
    task: Task
