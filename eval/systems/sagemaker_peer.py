"""Run in the environment of the SageMaker SDK: its ``Transformer`` against a server of ours, with an S3 that the environment names.

sagemaker_peer.py URL BUCKET
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))
from shown import tried, version_of

_ROLE = "arn:aws:iam::123456789012:role/demo"


def main() -> None:
    url, bucket = sys.argv[1:3]
    claim = "the SDK's Transformer creates a job and waits for it"
    row = tried("AWS SageMaker", claim, "sagemaker SDK", version_of("sagemaker"), lambda: _transformed(url, bucket))
    print(row.as_line(), flush=True)


def _transformed(url: str, bucket: str) -> str:
    os.environ.setdefault("SAGEMAKER_ROLE", _ROLE)
    import boto3
    import sagemaker
    from sagemaker.transformer import Transformer

    boto: Any = boto3.Session(region_name="us-east-1")
    client = boto.client("sagemaker", endpoint_url=url)
    session = sagemaker.Session(boto, sagemaker_client=client, default_bucket=bucket)
    transformer = Transformer(
        model_name="demo-model", instance_count=1, instance_type="ml.m5.large", strategy="SingleRecord",
        assemble_with="Line", accept="application/jsonlines", output_path=f"s3://{bucket}/output", max_payload=1,
        max_concurrent_transforms=4, sagemaker_session=session,
    )  # fmt: skip
    transformer.transform(
        data=f"s3://{bucket}/input/", content_type="application/jsonlines", split_type="Line", input_filter="$.features",
        join_source="Input", output_filter="$['id','SageMakerOutput']", job_name="by-the-sdk", wait=False,
    )  # fmt: skip
    transformer.wait(logs=False)
    job = client.describe_transform_job(TransformJobName="by-the-sdk")
    assert job["TransformJobStatus"] == "Completed", job
    return str(job["TransformJobStatus"])


if __name__ == "__main__":
    main()
