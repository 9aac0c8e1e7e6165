"""A ``CreateTransformJob`` of SageMaker in, the same job of ours out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from llmbatch.core.errors import JobError, UsageError
from llmbatch.core.remote_files import read_whole
from llmbatch.core.words import short
from llmbatch.formats.json_path import JsonPath
from llmbatch.formats.sagemaker import SageMakerSettings
from llmbatch.sources.places import is_url
from llmbatch.systems.aws import Objects, Pascal, checked, given, listed, model_of, place_of, starting_with
from llmbatch.systems.base import Assets, FromDocument

_MIB = 1 << 20
_MOST_AT_A_TIME = 100  # MiB of requests, as SageMaker has it
_LONGEST_MANIFEST = 256 << 20  # bytes
_CONTENTS: dict[str, Literal["json", "csv", "text"]] = {
    "application/json": "json",
    "application/jsonlines": "json",
    "application/x-jsonlines": "json",
    "text/csv": "csv",
    "text/plain": "text",
}
_WITHOUT_EFFECT = (
    "TransformResources", "BatchStrategy", "Environment", "Tags", "ExperimentConfig", "TransformOutput.KmsKeyId",
)  # fmt: skip
_OF_THE_ENGINE = ("MaxConcurrentTransforms", "ModelClientConfig.InvocationsTimeoutInSeconds")
_FIRST_CELL = "{{ c0 }}"
"""What a row of CSV is asked with where the job has no prompt: its first cell, as a container without one takes it."""


class _S3DataSource(Pascal):
    s3_data_type: Literal["S3Prefix", "ManifestFile"]
    s3_uri: str = Field(min_length=1)

    @field_validator("s3_data_type", mode="before")
    @classmethod
    def _no_augmented(cls, value: Any) -> Any:
        if value == "AugmentedManifestFile":
            raise ValueError("AugmentedManifestFile is not for transform jobs: take ManifestFile, or S3Prefix")
        return value


class _DataSource(Pascal):
    s3_data_source: _S3DataSource


class _TransformInput(Pascal):
    data_source: _DataSource
    content_type: str | None = None
    compression_type: Literal["None", "Gzip"] = "None"
    split_type: Literal["None", "Line"] = "None"

    @field_validator("split_type", mode="before")
    @classmethod
    def _text_alone(cls, value: Any) -> Any:
        if value in ("RecordIO", "TFRecord"):
            raise ValueError(
                f"{value} is not done here, as its records are no text: take Line, or None for a record an object"
            )
        return value


class _TransformOutput(Pascal):
    s3_output_path: str = Field(min_length=1)
    accept: str | None = None
    assemble_with: Literal["None", "Line"] = "None"
    kms_key_id: str | None = None


class _DataProcessing(Pascal):
    input_filter: str = "$"
    output_filter: str = "$"
    join_source: Literal["None", "Input"] = "None"


class _ModelClientConfig(Pascal):
    invocations_timeout_in_seconds: int | None = Field(None, ge=1, le=3600)
    invocations_max_retries: int | None = Field(None, ge=0, le=3)


class _Transform(Pascal):
    transform_job_name: str = Field(pattern=r"^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}$")
    model_name: str = Field(alias="ModelName", min_length=1)
    max_concurrent_transforms: int = Field(0, ge=0)
    max_payload_in_mb: int = Field(6, alias="MaxPayloadInMB", ge=0, le=100)
    batch_strategy: Literal["SingleRecord", "MultiRecord"] | None = None
    transform_input: _TransformInput
    transform_output: _TransformOutput
    transform_resources: dict[str, Any]
    data_processing: _DataProcessing = _DataProcessing()
    model_client_config: _ModelClientConfig = _ModelClientConfig()
    environment: dict[str, str] = Field(default_factory=dict, max_length=16)
    tags: list[Any] = Field(default_factory=list)
    experiment_config: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits_together(self) -> _Transform:
        transforms, payload = self.max_concurrent_transforms, self.max_payload_in_mb
        if (product := transforms * payload) > _MOST_AT_A_TIME:
            raise ValueError(
                f"MaxConcurrentTransforms * MaxPayloadInMB may be at most {_MOST_AT_A_TIME}, and {transforms} * {payload} is "
                f"{product}: lower one of them, or leave MaxConcurrentTransforms out, with which the engine takes as many as it can"
            )
        return self

    @model_validator(mode="after")
    def _whole_objects_are_single(self) -> _Transform:
        if self.batch_strategy == "MultiRecord" and self.transform_input.split_type == "None":
            raise ValueError(
                "BatchStrategy MultiRecord needs TransformInput.SplitType Line: without it an object is one record"
            )
        return self


class SageMakerTransform:
    """Implements ``System``."""

    name = "sagemaker"

    def recognizes(self, document: Any, path: Path) -> bool:  # noqa: ARG002
        return isinstance(document, dict) and not document.keys().isdisjoint(("TransformInput", "TransformOutput"))

    def job(self, document: Any, path: Path, assets: Assets) -> FromDocument:
        """One record of the input, as it is split, is a row."""
        asked = checked(_Transform, document, path)
        options = _options(asked, path)
        objects = _objects(asked.transform_input.data_source.s3_data_source, path, assets)
        model, said = model_of(asked.model_name, "ModelName", assets)
        layout = {
            "folder": objects.folder,
            "assemble": "line" if asked.transform_output.assemble_with == "Line" else "none",
        }
        job: dict[str, Any] = {
            "model": model,
            "input": {
                "path": objects.path,
                "more": list(objects.more),
                "format": "sagemaker",
                "options": options.model_dump(exclude_defaults=True),
            },
            "answer": {"allow_truncated": True, "allow_empty": True},
            "engine": {},
            "sinks": {
                "layout": {"name": "sagemaker", "settings": layout},
                "to": place_of(asked.transform_output.s3_output_path, assets),
            },
        }
        if asked.max_payload_in_mb:
            job["input"]["max_record_bytes"] = asked.max_payload_in_mb * _MIB
        if options.content == "csv":
            job["prompt"] = {"path": _FIRST_CELL}
        if asked.max_concurrent_transforms:
            job["engine"]["in_flight"] = asked.max_concurrent_transforms
        client = asked.model_client_config
        if client.invocations_timeout_in_seconds is not None:
            job["engine"]["timeout"] = client.invocations_timeout_in_seconds
        if client.invocations_max_retries is not None:
            job["retry"] = {"max_attempts": client.invocations_max_retries + 1}
        read = [_what_is_read(asked, options), *said, *_notices(asked, options)]
        without_effect, of_the_engine = given(document, _WITHOUT_EFFECT), given(document, _OF_THE_ENGINE)
        return FromDocument(job, asked.transform_job_name, read, without_effect, of_the_engine)


def _options(asked: _Transform, path: Path) -> SageMakerSettings:
    given_ = asked.transform_input.content_type or "application/json"
    content = _content(given_, "TransformInput.ContentType", path)
    accept = asked.transform_output.accept
    written = None if accept is None else _content(accept, "TransformOutput.Accept", path)
    if written == "text":
        raise JobError(f"{path}: TransformOutput.Accept: {accept} is not done here: take application/json or text/csv")
    filters = asked.data_processing
    if content == "csv" and asked.transform_output.assemble_with != "Line":
        raise JobError(
            f"{path}: TransformOutput.AssembleWith: text/csv needs Line, here as in TransformInput.SplitType"
        )
    try:
        return SageMakerSettings(
            content=content,
            split="line" if asked.transform_input.split_type == "Line" else "none",
            input_filter=filters.input_filter,
            join=filters.join_source == "Input",
            output_filter=filters.output_filter,
            accept=written,
        )
    except ValidationError as error:
        said = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise JobError(f"{path}: TransformInput, TransformOutput, DataProcessing: {said}") from None


def _content(kind: str, key: str, path: Path) -> Literal["json", "csv", "text"]:
    """``application/json; charset=utf-8`` is JSON too."""
    content = _CONTENTS.get(kind.partition(";")[0].strip().lower())
    if content is None:
        raise JobError(f"{path}: {key}: {short(kind)} is not done here; known are {', '.join(_CONTENTS)}")
    return content


def _objects(source: _S3DataSource, path: Path, assets: Assets) -> Objects:
    if source.s3_data_type == "S3Prefix":
        return starting_with(source.s3_uri, assets)
    where = f"{path}: the manifest {source.s3_uri}"
    place = place_of(source.s3_uri, assets)
    try:
        text = read_whole(place, _LONGEST_MANIFEST) if is_url(place) else Path(place).read_bytes()
        manifest = json.loads(text)
    except (OSError, UsageError) as error:
        raise JobError(f"{where} cannot be read: {error}") from error
    except ValueError as error:
        raise JobError(f"{where} is not JSON: {error}") from None
    head = manifest[0] if isinstance(manifest, list) and manifest else None
    prefix = head.get("prefix") if isinstance(head, dict) and len(head) == 1 else None
    if not isinstance(prefix, str):
        raise JobError(
            f'{where} must be a list that begins with {{"prefix": "s3://..."}}, and begins with {short(head)}'
        )
    keys = manifest[1:]
    if not keys or not all(isinstance(key, str) and key for key in keys):
        raise JobError(
            f"{where}: behind the prefix there must be the keys of objects, relative to it, and there is {short(keys)}"
        )
    return listed([prefix + key for key in keys], prefix[: prefix.rfind("/") + 1], assets, where)


def _what_is_read(asked: _Transform, options: SageMakerSettings) -> str:
    source = asked.transform_input.data_source.s3_data_source
    what = (
        "the objects of the manifest" if source.s3_data_type == "ManifestFile" else "every object whose key starts with"
    )
    record = "a record a line" if options.split == "line" else "a record an object"
    filters = f", filtered by {options.input_filter}" if options.input_filter != "$" else ""
    joined = " beside their records" if options.join else ""
    picked = f", filtered by {options.output_filter}" if options.output_filter != "$" else ""
    return (
        f"transform job {asked.transform_job_name}: {what} {source.s3_uri}, {record} of {options.content}{filters}; answers"
        f"{joined}{picked} as KEY.out for each object below {asked.transform_output.s3_output_path}"
    )


def _notices(asked: _Transform, options: SageMakerSettings) -> list[str]:
    said = []
    if any(JsonPath(text).has_slice_end for text in (options.input_filter, options.output_filter)):
        said.append("DataProcessing: a slice ends before its second number: $[1:3] is the items 1 and 2")
    if options.content == "csv":
        said.append(
            "a row of CSV is asked with its first cell, after the filter; --prompt can have others: {{ c0 }}, {{ c1 }}"
        )
    if most := asked.max_concurrent_transforms:
        said.append(
            f"MaxConcurrentTransforms {most}: so many requests at a time; 0 leaves it to the engine, which is faster"
        )
    return said
