"""boto3's own clients of SageMaker and Bedrock against the fronts, with an S3 of this process."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, WaiterError

from llmbatch.server import working

AWS = Path(__file__).parents[1] / "examples" / "aws"
_PATIENCE = 60.0
BODY = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 64}


NAMES = ("demo-model", "demo", "anthropic.claude-3-haiku-20240307-v1:0")


@pytest.fixture
def site(sites: Any) -> Any:
    """A server whose model has the names that the examples call it by."""
    return sites.start(names=NAMES)


def client(site: Any, service: str, key: str = "test") -> Any:
    return boto3.client(
        service, endpoint_url=site.url, region_name="eu-west-1", aws_access_key_id=key, aws_secret_access_key="x",
        config=Config(retries={"total_max_attempts": 1}),
    )  # fmt: skip


def document(name: str, bucket: Any, **changes: Any) -> Any:
    return {**json.loads((AWS / name).read_text().replace("corpus-b", bucket.name)), **changes}


def put_tree(bucket: Any, example: str) -> None:
    for path in sorted((AWS / example).rglob("*")):
        if path.is_file():
            content = path.read_bytes().replace(b"corpus-b", bucket.name.encode())
            bucket.put(str(path.relative_to(AWS / example)), content)


def tree(bucket: Any, prefix: str) -> dict[str, list[Any]]:
    names = [name for name in bucket.names() if name.startswith(prefix)]
    return {name.removeprefix(prefix): [json.loads(line) for line in bucket.get(name).splitlines()] for name in names}


def expected(folder: Path) -> dict[str, list[Any]]:
    return {
        str(path.relative_to(folder)): [json.loads(line) for line in path.read_text().splitlines()]
        for path in folder.rglob("*.out")
    }


def transformed(sagemaker: Any, name: str) -> Any:
    """The job, once boto3's own waiter says that it is over."""
    waiter = sagemaker.get_waiter("transform_job_completed_or_stopped")
    waiter.config.delay, waiter.config.max_attempts = 0.05, int(_PATIENCE / 0.05)
    with contextlib.suppress(WaiterError):  # that of a job which failed; whatever else it is, the state tells
        waiter.wait(TransformJobName=name)
    return sagemaker.describe_transform_job(TransformJobName=name)


def invoked(bedrock: Any, arn: str, *states: str) -> Any:
    end = time.monotonic() + _PATIENCE
    wanted = states or ("Completed", "PartiallyCompleted", "Failed", "Stopped", "Expired")
    while (job := bedrock.get_model_invocation_job(jobIdentifier=arn))["status"] not in wanted:
        assert time.monotonic() < end, job
        time.sleep(0.02)
    return job


# SageMaker


@pytest.mark.parametrize("name", ["create-transform-job.json", "create-transform-job.manifest.json"])
def test_a_transform_job_fills_the_bucket_as_expected(site: Any, bucket: Any, name: str) -> None:
    put_tree(bucket, "sagemaker/s3")
    sagemaker = client(site, "sagemaker")
    given = document(f"sagemaker/{name}", bucket)
    arn = sagemaker.create_transform_job(**given)["TransformJobArn"]
    assert arn == f"arn:aws:sagemaker:eu-west-1:000000000000:transform-job/{given['TransformJobName']}"
    job = transformed(sagemaker, given["TransformJobName"])
    assert job["TransformJobStatus"] == "Completed"
    assert job["TransformInput"] == given["TransformInput"]
    assert job["TransformStartTime"] <= job["TransformEndTime"]
    assert tree(bucket, "output/") == expected(AWS / "sagemaker" / "expected" / "output")


def test_a_bad_record_fails_the_job_and_its_object_alone(site: Any, bucket: Any) -> None:
    put_tree(bucket, "sagemaker/s3-bad")
    sagemaker = client(site, "sagemaker")
    sagemaker.create_transform_job(**document("sagemaker/create-transform-job.json", bucket))
    job = transformed(sagemaker, "demo-transform")
    assert job["TransformJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("bad.jsonl: record 1 (line 2): malformed_row: ")
    assert tree(bucket, "output/") == expected(AWS / "sagemaker" / "expected-bad" / "output")


def test_a_name_is_taken_once_and_jobs_are_listed(site: Any, bucket: Any) -> None:
    put_tree(bucket, "sagemaker/s3")
    sagemaker = client(site, "sagemaker")
    names = ["one", "two", "three"]
    for name in names:
        given = document("sagemaker/create-transform-job.json", bucket, TransformJobName=name)
        sagemaker.create_transform_job(**given)
    with pytest.raises(ClientError, match="must be unique") as error:
        sagemaker.create_transform_job(**given)
    assert error.value.response["Error"]["Code"] == "ResourceInUse"
    pages = sagemaker.get_paginator("list_transform_jobs").paginate(PaginationConfig={"PageSize": 2})
    listed = [job["TransformJobName"] for page in pages for job in page["TransformJobSummaries"]]
    assert listed == ["three", "two", "one"]
    found = sagemaker.list_transform_jobs(NameContains="tw")["TransformJobSummaries"]
    assert [job["TransformJobName"] for job in found] == ["two"]


def at_once(site: Any, monkeypatch: Any, create: Callable[[], Any]) -> list[Any]:
    """What eight clients get that do the same at the same time: an answer, or the code of an error."""
    together, look = threading.Barrier(8), site.server.store.batch

    def slowly(*asked: Any) -> Any:
        found = look(*asked)
        time.sleep(0.05)  # so that another comes meanwhile, if it may
        return found

    monkeypatch.setattr(site.server.store, "batch", slowly)

    def one(_: int) -> Any:
        together.wait()
        try:
            return create()
        except ClientError as error:
            return error.response["Error"]["Code"]

    with ThreadPoolExecutor(8) as threads:
        return list(threads.map(one, range(8)))


def test_of_jobs_with_one_name_that_are_created_at_once_one_is_made(site: Any, bucket: Any, monkeypatch: Any) -> None:
    put_tree(bucket, "sagemaker/s3")
    sagemaker = client(site, "sagemaker")
    given = document("sagemaker/create-transform-job.json", bucket)
    answers = at_once(site, monkeypatch, lambda: sagemaker.create_transform_job(**given)["TransformJobArn"])
    assert answers.count("ResourceInUse") == 7
    assert transformed(sagemaker, given["TransformJobName"])["TransformJobStatus"] == "Completed"
    assert len(sagemaker.list_transform_jobs()["TransformJobSummaries"]) == 1
    assert tree(bucket, "output/") == expected(AWS / "sagemaker" / "expected" / "output")


def test_a_job_that_is_stopped_stores_nothing(sites: Any, bucket: Any) -> None:
    put_tree(bucket, "sagemaker/s3")
    site = sites.start({"latency": 600}, names=NAMES)
    sagemaker = client(site, "sagemaker")
    sagemaker.create_transform_job(**document("sagemaker/create-transform-job.json", bucket))
    sagemaker.stop_transform_job(TransformJobName="demo-transform")
    assert transformed(sagemaker, "demo-transform")["TransformJobStatus"] == "Stopped"
    assert tree(bucket, "output/") == {}
    with pytest.raises(ClientError, match="is Stopped, and cannot be stopped"):
        sagemaker.stop_transform_job(TransformJobName="demo-transform")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"DataCaptureConfig": {"DestinationS3Uri": "s3://x/"}}, "DataCaptureConfig: is not done here"),
        ({"TransformOutput": {"S3OutputPath": "/etc/out", "AssembleWith": "Line"}}, "is no address of an object store"),
        (
            {"TransformOutput": {"S3OutputPath": "s3://x::file:///etc", "AssembleWith": "Line"}},
            "is no address of an object store",
        ),
        ({"MaxPayloadInMB": 101}, "MaxPayloadInMB"),
    ],
)
def test_a_job_that_is_not_done_here_is_refused_in_the_client_s_form(
    site: Any, bucket: Any, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(ClientError, match=said) as error:
        client(site, "sagemaker").create_transform_job(
            **document("sagemaker/create-transform-job.json", bucket, **change)
        )
    assert error.value.response["Error"]["Code"] == "ValidationException"
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_a_manifest_cannot_lead_to_the_server_s_own_files(site: Any, bucket: Any, tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_text('{"features": "x"}\n')
    bucket.put("lists/input.manifest", json.dumps([{"prefix": f"file://{tmp_path}/"}, "secret.jsonl"]).encode())
    with pytest.raises(ClientError, match="is no address of an object store"):
        client(site, "sagemaker").create_transform_job(
            **document("sagemaker/create-transform-job.manifest.json", bucket)
        )


def test_an_asset_is_not_left_by_dots(sites: Any, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "secret.jsonl").write_text("{}\n")
    site = sites.start(names=NAMES, assets={"s3://corpus-b": str(tmp_path / "store")})
    asked = json.loads((AWS / "sagemaker" / "create-transform-job.json").read_text())
    asked["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"] = "s3://corpus-b/../secret.jsonl"
    with pytest.raises(ClientError, match="is no address of an object store"):
        client(site, "sagemaker").create_transform_job(**asked)


def test_a_folder_may_stand_in_a_bucket_s_place(sites: Any, tmp_path: Path) -> None:
    shutil.copytree(AWS / "sagemaker" / "s3", tmp_path / "store")
    site = sites.start(names=NAMES, assets={"s3://corpus-b": str(tmp_path / "store")})
    sagemaker = client(site, "sagemaker")
    sagemaker.create_transform_job(**json.loads((AWS / "sagemaker" / "create-transform-job.json").read_text()))
    assert transformed(sagemaker, "demo-transform")["TransformJobStatus"] == "Completed"
    assert sorted(path.name for path in (tmp_path / "store" / "output").rglob("*.out")) == [
        "a.jsonl.out",
        "b.jsonl.out",
    ]


def test_what_is_not_there_is_said_in_the_client_s_form(site: Any) -> None:
    sagemaker = client(site, "sagemaker")
    with pytest.raises(ClientError, match="Could not find requested job") as error:
        sagemaker.describe_transform_job(TransformJobName="nobody")
    assert error.value.response["Error"]["Code"] == "ResourceNotFound"
    with pytest.raises(ClientError, match=r"the operations here are CreateTransformJob"):
        sagemaker.list_endpoints()
    assert sagemaker.describe_model(ModelName="demo")["ModelName"] == "demo"
    with pytest.raises(ClientError, match="there is no model 'other' here"):
        sagemaker.describe_model(ModelName="other")
    status, _, body = site.ask("POST", "/", b"[", {"x-amz-target": "SageMaker.DescribeModel"})
    assert (status, json.loads(body)["message"]) == (
        400,
        "the body: not JSON: Expecting value at column 2; saw: [",
    )


def test_an_input_that_is_not_there_fails_the_job(site: Any, bucket: Any) -> None:
    sagemaker = client(site, "sagemaker")
    sagemaker.create_transform_job(**document("sagemaker/create-transform-job.json", bucket))
    job = transformed(sagemaker, "demo-transform")
    assert job["TransformJobStatus"] == "Failed"
    assert "input/**: the pattern matches no file" in job["FailureReason"]


def test_a_job_whose_bucket_may_not_be_written_to_fails(sites: Any, bucket: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(working, "_PAUSES", (0.01,))
    site = sites.start(names=NAMES)
    put_tree(bucket, "sagemaker/s3")
    bucket.server.fails = lambda request: 403 if request.startswith("PUT") else None
    sagemaker = client(site, "sagemaker")
    sagemaker.create_transform_job(**document("sagemaker/create-transform-job.json", bucket))
    job = transformed(sagemaker, "demo-transform")
    assert job["TransformJobStatus"] == "Failed"
    assert "could not be written, again and again: Access Denied; what is finished is kept" in job["FailureReason"]
    [batch] = site.server.store.batches("", front="sagemaker", after=None, limit=9)
    assert batch.facts.done + batch.facts.failed == batch.facts.rows > 0
    bucket.server.fails = lambda _: None
    assert site.ask("POST", f"/llmbatch/batches/{batch.id}/retry")[0] == 200  # it is taken up again
    job = transformed(sagemaker, "demo-transform")
    assert (job["TransformJobStatus"], job.get("FailureReason")) == ("Completed", None)
    assert tree(bucket, "output/") == expected(AWS / "sagemaker" / "expected" / "output")


def test_what_of_a_document_has_no_effect_on_an_engine_for_all_is_said(site: Any, bucket: Any, caplog: Any) -> None:
    put_tree(bucket, "sagemaker/s3")
    sagemaker = client(site, "sagemaker")
    given = document("sagemaker/create-transform-job.json", bucket)
    with caplog.at_level("INFO", "llmbatch.server"):
        sagemaker.create_transform_job(**given)
    job = transformed(sagemaker, given["TransformJobName"])
    assert (job["MaxConcurrentTransforms"], job["ModelClientConfig"]) == (4, given["ModelClientConfig"])  # echoed
    (shown,) = json.loads(site.ask("GET", "/llmbatch/batches")[2])["data"]
    said = shown["given"]["no_effect"]
    assert {"MaxConcurrentTransforms", "ModelClientConfig.InvocationsTimeoutInSeconds", "TransformResources"} <= set(
        said
    )
    assert "ModelClientConfig.InvocationsMaxRetries" not in said  # which a job's own rows have
    assert f"a job gives what has no effect here: {', '.join(said)}" in caplog.text
    assert site.server.settings.job["engine"] == {"name": "scripted", "args": {}}


# Bedrock


def test_an_invocation_job_fills_the_bucket_as_expected(site: Any, bucket: Any) -> None:
    put_tree(bucket, "bedrock/s3")
    bedrock = client(site, "bedrock")
    given = document("bedrock/create-model-invocation-job.json", bucket)
    arn = bedrock.create_model_invocation_job(**given)["jobArn"]
    job = invoked(bedrock, arn)
    assert (job["status"], job["jobName"], job["inputDataConfig"]) == (
        "Completed",
        "demo-batch",
        given["inputDataConfig"],
    )
    assert arn.startswith("arn:aws:bedrock:eu-west-1:123456789012:model-invocation-job/")
    found = tree(bucket, f"bedrock-out/{arn.rpartition('/')[2]}/")
    assert found.keys() == {"part-0.jsonl.out", "part-1.jsonl.out", "manifest.json.out"}
    assert [[line["recordId"] for line in found[f"part-{n}.jsonl.out"]] for n in (0, 1)] == [
        ["CALL0000001", "CALL0000002", "REC00000002"], ["CALL0000004"],
    ]  # fmt: skip
    [counts] = found["manifest.json.out"]
    assert (counts["totalRecordCount"], counts["successRecordCount"], counts["errorRecordCount"]) == (4, 3, 1)


def test_what_of_an_invocation_has_no_effect_is_said(site: Any, bucket: Any, caplog: Any) -> None:
    put_tree(bucket, "bedrock/s3")
    given = document("bedrock/create-model-invocation-job.json", bucket, tags=[{"key": "a", "value": "b"}])
    with caplog.at_level("INFO", "llmbatch.server"):
        client(site, "bedrock").create_model_invocation_job(**given)
    (shown,) = json.loads(site.ask("GET", "/llmbatch/batches")[2])["data"]
    assert shown["given"]["no_effect"] == ["roleArn", "tags"]
    assert "a job gives what has no effect here: roleArn, tags" in caplog.text


def test_the_same_token_is_the_same_job_and_jobs_are_listed(site: Any, bucket: Any) -> None:
    put_tree(bucket, "bedrock/s3")
    bedrock = client(site, "bedrock")
    given = document("bedrock/create-model-invocation-job.json", bucket)
    first = bedrock.create_model_invocation_job(**given, clientRequestToken="t1")["jobArn"]
    assert bedrock.create_model_invocation_job(**given, clientRequestToken="t1")["jobArn"] == first
    with pytest.raises(ClientError, match="that of another job") as error:
        bedrock.create_model_invocation_job(**{**given, "jobName": "other"}, clientRequestToken="t1")
    assert error.value.response["Error"]["Code"] == "ConflictException"
    second = bedrock.create_model_invocation_job(**{**given, "jobName": "other"})["jobArn"]
    invoked(bedrock, first)
    invoked(bedrock, second)
    pages = bedrock.get_paginator("list_model_invocation_jobs").paginate(PaginationConfig={"PageSize": 1})
    assert [job["jobArn"] for page in pages for job in page["invocationJobSummaries"]] == [second, first]
    found = bedrock.list_model_invocation_jobs(nameContains="oth", statusEquals="Completed")["invocationJobSummaries"]
    assert [job["jobArn"] for job in found] == [second]


def test_of_jobs_with_one_token_that_are_created_at_once_one_is_made(site: Any, bucket: Any, monkeypatch: Any) -> None:
    put_tree(bucket, "bedrock/s3")
    bedrock = client(site, "bedrock")
    given = document("bedrock/create-model-invocation-job.json", bucket, clientRequestToken="t1")
    (arn,) = set(at_once(site, monkeypatch, lambda: bedrock.create_model_invocation_job(**given)["jobArn"]))
    assert invoked(bedrock, arn)["status"] == "Completed"
    assert len(bedrock.list_model_invocation_jobs()["invocationJobSummaries"]) == 1


def test_what_is_done_of_a_job_that_is_stopped_is_written(sites: Any, bucket: Any) -> None:
    lines = [
        {"recordId": f"R{i}", "modelInput": {**BODY, "messages": [{"role": "user", "content": f"text {i}"}]}}
        for i in range(9)
    ]
    bucket.put("bedrock-in/a.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
    rules = [{"when": {"contains": "text 5"}, "hang": True}]
    site = sites.start(
        names=NAMES, job={"run": {"grace": 0.0}, "engine": {"name": "scripted", "args": {"rules": rules}}}
    )
    bedrock = client(site, "bedrock")
    arn = bedrock.create_model_invocation_job(**document("bedrock/create-model-invocation-job.json", bucket))["jobArn"]
    _until(lambda: _rows_done(site) == 8)
    bedrock.stop_model_invocation_job(jobIdentifier=arn)
    assert invoked(bedrock, arn)["status"] == "Stopped"
    found = tree(bucket, f"bedrock-out/{arn.rpartition('/')[2]}/")
    assert [line["recordId"] for line in found["a.jsonl.out"]] == [f"R{i}" for i in range(9) if i != 5]
    [counts] = found["manifest.json.out"]
    assert (counts["totalRecordCount"], counts["processedRecordCount"], counts["successRecordCount"]) == (9, 8, 8)
    with pytest.raises(ClientError, match="the job is Stopped"):
        bedrock.stop_model_invocation_job(jobIdentifier=arn)


@pytest.mark.parametrize(("hangs", "state"), [({"contains": "text 5"}, "PartiallyCompleted"), ({}, "Expired")])
def test_a_job_of_bedrock_has_the_hours_that_it_gives(
    sites: Any, bucket: Any, moved: Any, hangs: dict[str, Any], state: str
) -> None:
    lines = [
        {"recordId": f"R{i}", "modelInput": {**BODY, "messages": [{"role": "user", "content": f"text {i}"}]}}
        for i in range(9)
    ]
    bucket.put("bedrock-in/a.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
    site = sites.start(
        {"rules": [{"when": hangs, "hang": True}]}, job={"run": {"window": 8, "grace": 0.0}}, names=NAMES
    )
    bedrock = client(site, "bedrock")
    given = document("bedrock/create-model-invocation-job.json", bucket, timeoutDurationInHours=24)
    arn = bedrock.create_model_invocation_job(**given)["jobArn"]
    done = 8 if hangs else 0
    invoked(bedrock, arn, "InProgress")
    _until(lambda: _rows_done(site) == done)
    moved.forward(hours=23)
    assert bedrock.get_model_invocation_job(jobIdentifier=arn)["status"] == "InProgress"
    moved.forward(hours=2)
    job = invoked(bedrock, arn)
    assert job["status"] == state
    assert (job["jobExpirationTime"] - job["submitTime"]).total_seconds() == 24 * 3600
    found = tree(bucket, f"bedrock-out/{arn.rpartition('/')[2]}/")
    if not done:
        assert found == {}
        return
    assert [line["recordId"] for line in found["a.jsonl.out"]] == [f"R{i}" for i in range(9) if i != 5]
    (counts,) = found["manifest.json.out"]
    assert (counts["totalRecordCount"], counts["processedRecordCount"]) == (9, 8)


def _rows_done(site: Any) -> int:
    """Of all batches that are not over."""
    from llmbatch.server.outputs import record_lines

    store = site.server.store
    return sum(1 for batch in store.unfinished() for _ in record_lines(store.run_folder(batch.id)))


def _until(good: Callable[[], bool]) -> None:
    end = time.monotonic() + _PATIENCE
    while not good():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_job_that_is_nobody_s_is_not_found(site: Any, bucket: Any) -> None:
    bedrock = client(site, "bedrock")
    arn = "arn:aws:bedrock:eu-west-1:123456789012:model-invocation-job/abcdefghijkl"
    with pytest.raises(ClientError, match="Could not find the job") as error:
        bedrock.get_model_invocation_job(jobIdentifier=arn)
    assert error.value.response["Error"]["Code"] == "ResourceNotFoundException"
    given = document("bedrock/create-model-invocation-job.json", bucket)
    given["outputDataConfig"] = {"s3OutputDataConfig": {"s3Uri": "s3://x::memory://out"}}
    with pytest.raises(ClientError, match="is no address of an object store") as error:
        bedrock.create_model_invocation_job(**given)
    assert error.value.response["Error"]["Code"] == "ValidationException"


# Both


def test_an_access_key_s_id_is_the_api_key_and_owners_see_only_their_own(sites: Any, bucket: Any) -> None:
    put_tree(bucket, "sagemaker/s3")
    site = sites.start(keys="alice alice-has-a-long-key\nbob bob-has-a-long-key-too\n", names=NAMES)
    alice, bob = (client(site, "sagemaker", key) for key in ("alice-has-a-long-key", "bob-has-a-long-key-too"))
    alice.create_transform_job(**document("sagemaker/create-transform-job.json", bucket))
    assert transformed(alice, "demo-transform")["TransformJobStatus"] == "Completed"
    with pytest.raises(ClientError, match="Could not find"):
        bob.describe_transform_job(TransformJobName="demo-transform")
    assert bob.list_transform_jobs()["TransformJobSummaries"] == []
    for service, call in (("sagemaker", "list_transform_jobs"), ("bedrock", "list_model_invocation_jobs")):
        with pytest.raises(ClientError, match="API key") as error:
            getattr(client(site, service, "an-unknown-key-of-some-length"), call)()
        assert error.value.response["Error"]["Code"] == "AccessDeniedException"


def test_a_job_goes_on_where_a_server_was_stopped(sites: Any, bucket: Any) -> None:
    put_tree(bucket, "sagemaker/s3")
    slow = sites.start({"latency": 600}, names=NAMES, job={"run": {"grace": 0.1}})
    client(slow, "sagemaker").create_transform_job(**document("sagemaker/create-transform-job.json", bucket))
    slow.stop()
    site = sites.start(names=NAMES)
    assert transformed(client(site, "sagemaker"), "demo-transform")["TransformJobStatus"] == "Completed"
    assert tree(bucket, "output/") == expected(AWS / "sagemaker" / "expected" / "output")


def test_a_job_whose_output_bucket_is_not_there_fails_and_says_so(site: Any, bucket: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("llmbatch.server.working._PAUSES", (0.1,))
    put_tree(bucket, "sagemaker/s3")
    sagemaker = client(site, "sagemaker")
    given = document("sagemaker/create-transform-job.json", bucket)
    given["TransformOutput"]["S3OutputPath"] = "s3://no-such-bucket-here/output"
    sagemaker.create_transform_job(**given)
    job = transformed(sagemaker, given["TransformJobName"])
    assert job["TransformJobStatus"] == "Failed"
    assert "no-such-bucket-here" in job["FailureReason"]
