"""A ``CreateModelInvocationJob`` of Bedrock in, the same job of ours out."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from llmbatch.systems.aws import Camel, below, checked, given, model_of, place_of
from llmbatch.systems.base import Assets, FromDocument

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_ID_LENGTH = 12
_MOST_HOURS = 24 * 365 * 1000  # Bedrock takes 24 to 168; what ends later than this has no date that programs can write
_WITHOUT_EFFECT = (
    "roleArn", "vpcConfig", "tags", "inputDataConfig.s3InputDataConfig.s3BucketOwner",
    "outputDataConfig.s3OutputDataConfig.s3EncryptionKeyId", "outputDataConfig.s3OutputDataConfig.s3BucketOwner",
)  # fmt: skip


class _S3Input(Camel):
    s3_input_format: Literal["JSONL"] = "JSONL"
    s3_uri: str = Field(min_length=1)
    s3_bucket_owner: str | None = None


class _S3Output(Camel):
    s3_uri: str = Field(min_length=1)
    s3_encryption_key_id: str | None = None
    s3_bucket_owner: str | None = None


class _Input(Camel):
    s3_input_data_config: _S3Input


class _Output(Camel):
    s3_output_data_config: _S3Output


class _Invocation(Camel):
    job_name: str = Field(pattern=r"^[a-zA-Z0-9]{1,63}(-*[a-zA-Z0-9+\-.]){0,63}$")
    role_arn: str
    model_id: str = Field(min_length=1)
    input_data_config: _Input
    output_data_config: _Output
    timeout_duration_in_hours: int | None = Field(None, ge=1, le=_MOST_HOURS)
    model_invocation_type: Literal["InvokeModel", "Converse"] = "InvokeModel"
    client_request_token: str | None = None
    vpc_config: dict[str, Any] | None = None
    tags: list[Any] | None = None


class BedrockInvocation:
    """Implements ``System``."""

    name = "bedrock"

    def recognizes(self, document: Any, path: Path) -> bool:  # noqa: ARG002
        return isinstance(document, dict) and not document.keys().isdisjoint(("inputDataConfig", "outputDataConfig"))

    def job(self, document: Any, path: Path, assets: Assets) -> FromDocument:
        asked = checked(_Invocation, document, path)
        source, target = asked.input_data_config.s3_input_data_config, asked.output_data_config.s3_output_data_config
        objects = below(source.s3_uri, assets, "*.jsonl")
        model, said = model_of(asked.model_id, "modelId", assets)
        options = {"model": asked.model_id}
        if asked.model_invocation_type == "Converse":
            options["invocation"] = "Converse"
        layout = {"job": job_id(document), "folder": objects.folder}
        job: dict[str, Any] = {
            "model": model,
            "input": {"path": objects.path, "more": list(objects.more), "format": "bedrock", "options": options},
            "answer": {"allow_truncated": True, "allow_empty": True},
            "sinks": {
                "layout": {"name": "bedrock", "settings": layout},
                "to": place_of(target.s3_uri, assets),
            },
        }
        if asked.timeout_duration_in_hours is not None:
            job["run"] = {"max_time": asked.timeout_duration_in_hours * 3600}
        read = (
            f"model invocation job {asked.job_name}: the *.jsonl objects at {source.s3_uri}, a record a line; answers as "
            f"NAME.jsonl.out for each below {target.s3_uri.rstrip('/')}/{layout['job']}; {asked.model_invocation_type} bodies"
        )
        return FromDocument(job, asked.job_name, [read, *said], given(document, _WITHOUT_EFFECT))


def job_id(document: Any) -> str:
    """The last part of the job's ARN. Of the same document, or the same token of a client, it is the same job."""
    token = document.get("clientRequestToken")
    named = token if isinstance(token, str) and token else json.dumps(document, sort_keys=True)
    number = int.from_bytes(sha256(named.encode()).digest())
    digits = []
    for _ in range(_ID_LENGTH):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "".join(digits)


__all__ = ["BedrockInvocation", "job_id"]
