"""AWS's own clients against ``llmbatch serve``: boto3's sagemaker (with its waiter) and bedrock, the SageMaker SDK's Transformer.

The server is the command in a process of its own, on the scripted engine; its S3 is moto's server. It is killed with -9 while jobs
run.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aws import AWS, BEDROCK, SAGEMAKER, adds_up, filled, has
from shown import ROOT, Shown, from_peer, tried, version_of
from stores import Bucket, Store

_PATIENCE = 240.0
_NAMES = ("demo-model", "anthropic.claude-3-haiku-20240307-v1:0")  # what the documents call the model
_ROWS = 3_000  # of a job during which the server is killed
_ENDED = ("Completed", "PartiallyCompleted", "Failed", "Stopped", "Expired")
_SLOW = ("--set", "engine.args.latency=0.05", "--set", "engine.args.concurrency=64", "--set", "run.window=200")
_GOES_ON = "the server killed with -9 and started again: the same bytes as of a job that nobody disturbed"
_LISTENS = re.compile(r" at (http://[^/\s]+)/v1")


def results() -> Iterator[Shown]:
    with tempfile.TemporaryDirectory(prefix="llmbatch-aws-server-") as name, Store("s3", Path(name)) as store:
        work = Path(name)
        claims: list[tuple[str, str, Callable[[Store, Path], str]]] = [
            (SAGEMAKER, "boto3 creates a job and waits: the bucket has exactly the expected objects", _transform),
            (SAGEMAKER, "with a bad record the job is Failed, and the other object is there", _bad_transform),
            (SAGEMAKER, _GOES_ON, _killed_transform),
            (BEDROCK, "boto3 creates a job and asks until it is Completed: the expected lines, counts that add up", _invocation),
            (BEDROCK, "a job that is stopped keeps what is finished", _stopped_invocation),
            (BEDROCK, _GOES_ON, _killed_invocation),
        ]  # fmt: skip
        for number, (system, claim, show) in enumerate(claims):
            folder = work / f"server-{number}"
            folder.mkdir()
            yield tried(system, claim, "boto3", version_of("boto3"), lambda s=show, f=folder: s(store, f))  # type: ignore[misc]
        yield from _transformer(store, work / "sdk")


def _transformer(store: Store, work: Path) -> Iterator[Shown]:
    work.mkdir()
    bucket = filled(store, work, "sagemaker/s3")
    program = Path(__file__).with_name("sagemaker_peer.py")
    with _server(work) as url:
        yield from from_peer(
            "sagemaker", program, [url, bucket.name], system=SAGEMAKER, claim="the SDK's Transformer, and its wait()"
        )
    yield tried(
        SAGEMAKER, "what the SDK's Transformer made is what is expected", "sagemaker SDK, boto3", version_of("boto3"),
        lambda: f"{has(bucket.tree('output/'), AWS / 'sagemaker' / 'expected' / 'output')} objects",
    )  # fmt: skip


# The server


@contextmanager
def _server(work: Path, *more: str) -> Iterator[str]:
    process, url = _start(work, *more)
    try:
        yield url
    finally:
        process.terminate()
        process.wait(60)


def _start(work: Path, *more: str) -> tuple[subprocess.Popen[str], str]:
    """(the process, its URL)."""
    command = [sys.executable, "-m", "llmbatch.cli", "serve", "--model", "demo", "--engine", "scripted", "--port", "0"]
    command += [part for name in _NAMES for part in ("--model-name", name)]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    with (work / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, "--data", str(work / "data"), *more], cwd=work, stdout=subprocess.PIPE, stderr=log, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
    for line in process.stdout or ():
        if found := _LISTENS.search(line):
            return process, found[1]
    raise RuntimeError(f"the server did not start: {(work / 'server.log').read_text()[-300:]}")


def _client(service: str, url: str) -> Any:
    import boto3

    return boto3.client(service, endpoint_url=url)


def _document(name: str, bucket: Bucket, **changes: Any) -> Any:
    return {**json.loads((AWS / name).read_text().replace("corpus-b", bucket.name)), **changes}


# SageMaker


def _waited(sagemaker: Any, name: str) -> Any:
    """The job once boto3's own waiter is done with it."""
    from botocore.exceptions import WaiterError

    waiter = sagemaker.get_waiter("transform_job_completed_or_stopped")
    waiter.config.delay, waiter.config.max_attempts = 0.2, int(_PATIENCE / 0.2)
    try:
        waiter.wait(TransformJobName=name)
    except WaiterError as error:
        if "terminal failure state" not in str(error):
            raise
    return sagemaker.describe_transform_job(TransformJobName=name)


def _transform(store: Store, work: Path) -> str:
    bucket = filled(store, work, "sagemaker/s3")
    with _server(work) as url:
        sagemaker = _client("sagemaker", url)
        sagemaker.create_transform_job(**_document("sagemaker/create-transform-job.json", bucket))
        job = _waited(sagemaker, "demo-transform")
    assert job["TransformJobStatus"] == "Completed", job
    return f"{has(bucket.tree('output/'), AWS / 'sagemaker' / 'expected' / 'output')} objects"


def _bad_transform(store: Store, work: Path) -> str:
    bucket = filled(store, work, "sagemaker/s3-bad")
    with _server(work) as url:
        sagemaker = _client("sagemaker", url)
        sagemaker.create_transform_job(**_document("sagemaker/create-transform-job.json", bucket))
        job = _waited(sagemaker, "demo-transform")
    assert job["TransformJobStatus"] == "Failed", job
    has(bucket.tree("output/"), AWS / "sagemaker" / "expected-bad" / "output")
    return str(job["FailureReason"])[:120]


def _killed_transform(store: Store, work: Path) -> str:
    bucket = store.bucket(f"corpus-{work.name}")
    lines = [json.dumps({"id": i, "features": {"inputs": f"number {i}"}}) + "\n" for i in range(_ROWS)]
    bucket.put("input/a.jsonl", "".join(lines[:1000]).encode())
    bucket.put("input/deep/b.jsonl", "".join(lines[1000:]).encode())

    def create(url: str, name: str) -> None:
        output = {"S3OutputPath": f"{bucket.url}/{name}", "Accept": "application/jsonlines", "AssembleWith": "Line"}
        changes = {"TransformJobName": name, "TransformOutput": output}
        _client("sagemaker", url).create_transform_job(
            **_document("sagemaker/create-transform-job.json", bucket, **changes)
        )

    def done(url: str, name: str) -> None:
        job = _waited(_client("sagemaker", url), name)
        assert job["TransformJobStatus"] == "Completed", job

    return _killed(bucket, work, create, done, lambda name: f"{name}/")


# Bedrock


def _ended(bedrock: Any, arn: str) -> Any:
    end = time.monotonic() + _PATIENCE
    while (job := bedrock.get_model_invocation_job(jobIdentifier=arn))["status"] not in _ENDED:
        assert time.monotonic() < end, job["status"]
        time.sleep(0.2)
    return job


def _invocation(store: Store, work: Path) -> str:
    bucket = filled(store, work, "bedrock/s3")
    with _server(work) as url:
        bedrock = _client("bedrock", url)
        given = _document("bedrock/create-model-invocation-job.json", bucket)
        arn = bedrock.create_model_invocation_job(**given)["jobArn"]
        job = _ended(bedrock, arn)
        listed = bedrock.list_model_invocation_jobs()["invocationJobSummaries"]
    assert job["status"] == "Completed" and [each["jobArn"] for each in listed] == [arn], job
    folder = f"bedrock-out/{arn.rpartition('/')[2]}/"
    has(bucket.tree(folder), AWS / "bedrock" / "expected" / "JOBID")
    return adds_up(bucket, folder)


def _put_invocations(bucket: Bucket) -> None:
    body = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 64}
    asked = ([{"role": "user", "content": f"number {i}"}] for i in range(_ROWS))
    lines = [json.dumps({"recordId": f"R{i}", "modelInput": {**body, "messages": m}}) for i, m in enumerate(asked)]
    bucket.put("bedrock-in/a.jsonl", "\n".join(lines).encode())


def _stopped_invocation(store: Store, work: Path) -> str:
    bucket = store.bucket(f"corpus-{work.name}")
    _put_invocations(bucket)
    with _server(work, *_SLOW) as url:
        bedrock = _client("bedrock", url)
        given = _document("bedrock/create-model-invocation-job.json", bucket)
        arn = bedrock.create_model_invocation_job(**given)["jobArn"]
        _until_parts(work, 3)
        bedrock.stop_model_invocation_job(jobIdentifier=arn)
        assert (status := _ended(bedrock, arn)["status"]) == "Stopped", status
    folder = f"bedrock-out/{arn.rpartition('/')[2]}/"
    counts = json.loads(bucket.get(f"{folder}manifest.json.out"))
    lines = bucket.get(f"{folder}a.jsonl.out").splitlines()
    assert counts["totalRecordCount"] == _ROWS
    assert 600 <= counts["processedRecordCount"] == counts["successRecordCount"] == len(lines) < _ROWS, counts
    return f"{len(lines):,} of {_ROWS:,} records"


def _killed_invocation(store: Store, work: Path) -> str:
    bucket = store.bucket(f"corpus-{work.name}")
    _put_invocations(bucket)
    arns: dict[str, str] = {}

    def create(url: str, name: str) -> None:
        output = {"s3OutputDataConfig": {"s3Uri": f"{bucket.url}/{name}/"}}
        given = _document("bedrock/create-model-invocation-job.json", bucket, jobName=name, outputDataConfig=output)
        arns[name] = _client("bedrock", url).create_model_invocation_job(**given)["jobArn"]

    def done(url: str, name: str) -> None:
        job = _ended(_client("bedrock", url), arns[name])
        assert job["status"] == "Completed", job

    return _killed(bucket, work, create, done, lambda name: f"{name}/{arns[name].rpartition('/')[2]}/")


def _killed(
    bucket: Bucket,
    work: Path,
    create: Callable[[str, str], None],
    done: Callable[[str, str], None],
    folder: Callable[[str], str],
) -> str:
    """A job whose server is killed twice, and another one on the same input that nobody disturbs: their objects are the same."""
    process, url = _start(work, *_SLOW)
    sealed = []
    try:
        create(url, "killed")
        for parts in (3, 7):
            sealed.append(_until_parts(work, parts))
            process.send_signal(signal.SIGKILL)
            process.wait()
            process, url = _start(work, *_SLOW)
        done(url, "killed")
        create(url, "whole")
        done(url, "whole")
    finally:
        process.terminate()
        process.wait(60)
    killed, whole = (bucket.tree(folder(name)) for name in ("killed", "whole"))
    assert killed == whole, [sorted(killed), sorted(whole)]
    lines = sum(len(content.splitlines()) for name, content in killed.items() if not name.endswith("manifest.json.out"))
    assert lines == _ROWS, f"{lines} lines of {_ROWS} rows"
    return f"killed with {' and '.join(f'{rows:,}' for rows in sealed)} of {_ROWS:,} rows sealed; {lines:,} lines, the same bytes"


def _until_parts(work: Path, count: int) -> int:
    """Wait until so many windows are done; returns how many rows those are."""
    end = time.monotonic() + _PATIENCE
    while len(parts := list((work / "data" / "batches").glob("*/run/parts/part-*.jsonl"))) < count:
        assert time.monotonic() < end, "no windows were done"
        time.sleep(0.02)
    return sum(len(part.read_bytes().splitlines()) for part in parts)
