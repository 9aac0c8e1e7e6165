"""AWS's own clients against the fronts of SageMaker and Bedrock, with S3's protocol behind them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

AWS = Path(__file__).parents[1] / "examples" / "aws"
NAMES = ("demo-model", "demo", "anthropic.claude-demo")


@pytest.fixture
def client(sites, bucket) -> Callable[..., Any]:
    """A client of one of AWS's services, of a server whose stores are the test's bucket."""
    site = sites.start(names=NAMES, assets={"s3://corpus-b": bucket.url})

    def of(service: str) -> Any:
        retries = Config(retries={"total_max_attempts": 1})
        return boto3.client(service, endpoint_url=site.url, config=retries)

    of.site = site  # type: ignore[attr-defined]
    return of


def fill(bucket: Any, folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            bucket.put(path.relative_to(folder).as_posix(), path.read_bytes())


def lines(content: bytes) -> list[Any]:
    return [json.loads(line) for line in content.splitlines()]


def document(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((AWS / name).read_text())
    return found


def waited(describe: Callable[[], str], over: tuple[str, ...]) -> str:
    end = time.monotonic() + 60
    while (state := describe()) not in over:
        assert time.monotonic() < end, state
        time.sleep(0.02)
    return state


def transformed(sagemaker: Any, asked: dict[str, Any]) -> dict[str, Any]:
    arn = sagemaker.create_transform_job(**asked)["TransformJobArn"]
    assert arn.endswith(f"transform-job/{asked['TransformJobName']}")
    sagemaker.get_waiter("transform_job_completed_or_stopped").wait(
        TransformJobName=asked["TransformJobName"], WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
    said: dict[str, Any] = sagemaker.describe_transform_job(TransformJobName=asked["TransformJobName"])
    return said


def test_a_transform_job_leaves_exactly_the_expected_objects(client, bucket) -> None:
    fill(bucket, AWS / "sagemaker" / "s3")
    said = transformed(client("sagemaker"), document("sagemaker/create-transform-job.json"))
    assert (said["TransformJobStatus"], said["ModelName"]) == ("Completed", "demo-model")
    expected = AWS / "sagemaker" / "expected"
    wanted = {path.relative_to(expected).as_posix() for path in expected.rglob("*") if path.is_file()}
    assert {name for name in bucket.names() if name.startswith("output/")} == wanted
    for name in wanted:
        assert lines(bucket.get(name)) == lines((expected / name).read_bytes())


def test_a_job_with_a_bad_record_failed_and_says_where(client, bucket) -> None:
    fill(bucket, AWS / "sagemaker" / "s3-bad")
    sagemaker = client("sagemaker")
    asked = document("sagemaker/create-transform-job.json")
    sagemaker.create_transform_job(**asked)
    name = asked["TransformJobName"]
    state = waited(
        lambda: sagemaker.describe_transform_job(TransformJobName=name)["TransformJobStatus"], ("Failed", "Completed")
    )
    assert state == "Failed"
    assert "bad.jsonl" in sagemaker.describe_transform_job(TransformJobName=name)["FailureReason"]
    assert [name for name in bucket.names() if name.startswith("output/")] == ["output/good.jsonl.out"]


def test_names_of_jobs_are_used_once_and_are_listed(client, bucket) -> None:
    fill(bucket, AWS / "sagemaker" / "s3")
    sagemaker = client("sagemaker")
    asked = document("sagemaker/create-transform-job.json")
    transformed(sagemaker, asked)
    with pytest.raises(ClientError, match="ResourceInUse"):
        sagemaker.create_transform_job(**asked)
    with pytest.raises(ClientError, match="ResourceNotFound"):
        sagemaker.describe_transform_job(TransformJobName="another")
    with pytest.raises(ClientError, match="ResourceNotFound"):
        sagemaker.create_transform_job(**{**asked, "TransformJobName": "b", "ModelName": "other"})
    listed = sagemaker.list_transform_jobs()["TransformJobSummaries"]
    assert [job["TransformJobName"] for job in listed] == [asked["TransformJobName"]]
    assert sagemaker.describe_model(ModelName="demo-model")["ModelName"] == "demo-model"


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("TransformInput", "DataSource", "S3DataSource", "S3Uri"), "/etc/passwd"),
        (("TransformInput", "DataSource", "S3DataSource", "S3Uri"), "file:///etc/"),
        (("TransformInput", "DataSource", "S3DataSource", "S3Uri"), "https://example.org/x"),
        (("TransformOutput", "S3OutputPath"), "/tmp/out"),  # noqa: S108 - that it is refused
        (("TransformInput", "SplitType"), "RecordIO"),
    ],
    ids=["input-path", "input-file-url", "input-http", "output-path", "split"],
)
def test_a_document_cannot_reach_files_of_the_server(client, place: tuple[str, ...], value: str) -> None:
    asked = document("sagemaker/create-transform-job.json")
    inner: Any = asked
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with pytest.raises(ClientError, match="ValidationException"):
        client("sagemaker").create_transform_job(**asked)


def test_an_asset_is_not_left_by_dots(sites, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "secret.jsonl").write_text("{}\n")
    site = sites.start(names=NAMES, assets={"s3://corpus-b": str(tmp_path / "store")})
    asked = document("sagemaker/create-transform-job.json")
    asked["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"] = "s3://corpus-b/../secret.jsonl"
    keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x", "region_name": "us-east-1"}
    with pytest.raises(ClientError, match="ValidationException"):
        boto3.client("sagemaker", endpoint_url=site.url, **keys).create_transform_job(**asked)


def test_an_invocation_job_leaves_the_expected_lines_and_a_manifest(client, bucket) -> None:
    fill(bucket, AWS / "bedrock" / "s3")
    bedrock = client("bedrock")
    asked = document("bedrock/create-model-invocation-job.json")
    names = {**asked, "modelId": "demo"} if asked["modelId"] not in NAMES else asked
    names = json.loads(json.dumps(names).replace("s3://corpus-b", "s3://corpus-b"))
    arn = bedrock.create_model_invocation_job(**names)["jobArn"]
    state = waited(lambda: bedrock.get_model_invocation_job(jobIdentifier=arn)["status"], ("Completed", "Failed"))
    assert state == "Completed", bedrock.get_model_invocation_job(jobIdentifier=arn)
    job = arn.rpartition("/")[2]
    written = [name for name in bucket.names() if f"/{job}/" in name]
    assert len([name for name in written if name.endswith(".jsonl.out")]) == 2
    (manifest,) = [json.loads(bucket.get(name)) for name in written if name.endswith("manifest.json.out")]
    assert manifest["totalRecordCount"] == manifest["successRecordCount"] + manifest["errorRecordCount"]
    summaries = bedrock.list_model_invocation_jobs()["invocationJobSummaries"]
    assert [summary["jobArn"] for summary in summaries] == [arn]
    again = bedrock.create_model_invocation_job(
        **{**names, "clientRequestToken": names.get("clientRequestToken", "t" * 10)}
    )
    assert again["jobArn"]
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        bedrock.get_model_invocation_job(jobIdentifier=arn[:-3] + "zzz")
    with pytest.raises(ClientError, match="ConflictException"):
        bedrock.stop_model_invocation_job(jobIdentifier=arn)


def test_a_key_is_the_id_of_the_access_key(sites, bucket) -> None:
    site = sites.start(keys="alice alice-has-a-long-key\n", names=NAMES)
    secret = {"aws_secret_access_key": "any", "endpoint_url": site.url}
    assert boto3.client("sagemaker", aws_access_key_id="alice-has-a-long-key", **secret).list_transform_jobs()
    with pytest.raises(ClientError, match="AccessDenied"):
        boto3.client("sagemaker", aws_access_key_id="somebody-else-here", **secret).list_transform_jobs()
    with pytest.raises(ClientError, match="AccessDenied"):
        boto3.client("bedrock", aws_access_key_id="somebody-else-here", **secret).list_model_invocation_jobs()
