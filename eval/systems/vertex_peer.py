"""In an environment with Google's packages: a question by its name, with JSON on stdin, in; the answer as JSON out."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

_PATIENCE_SECONDS = 120.0
_PARENT = "projects/p/locations/us-central1"


def version_of(given: str) -> str:
    """Of an installed package."""
    return version(given)


def documents(given: dict[str, str]) -> dict[str, str | None]:
    """By document what the message's own reader says against it."""
    from google.cloud.aiplatform_v1 import BatchPredictionJob

    said: dict[str, str | None] = {}
    for name, text in given.items():
        try:
            BatchPredictionJob.from_json(text)
            said[name] = None
        except Exception as error:
            said[name] = str(error)
    return said


def fields(_given: Any) -> dict[str, list[str]]:
    """The names of the fields of the messages that a document is made of, as JSON has them."""
    from google.cloud import aiplatform_v1 as v1

    job = v1.BatchPredictionJob
    messages = (job, job.InputConfig, job.OutputConfig, job.InstanceConfig, v1.GcsSource, v1.GcsDestination)
    return {each.__name__: [field.json_name for field in each.pb().DESCRIPTOR.fields] for each in messages}


def responses(given: list[Any]) -> list[dict[str, Any]]:
    """What google-genai's own type makes of responses; it refuses unknown keys."""
    from google.genai.types import GenerateContentResponse

    said = []
    for response in given:
        try:
            read = GenerateContentResponse.model_validate(response)
            said.append({"problem": None, "finish_reason": read.candidates[0].finish_reason.value})
        except Exception as error:
            said.append({"problem": str(error), "finish_reason": None})
    return said


# Clients of a server.


def _until(look: Callable[[], Any], good: Callable[[Any], bool]) -> Any:
    end = time.monotonic() + _PATIENCE_SECONDS
    while not good(seen := look()):
        assert time.monotonic() < end, f"it did not come to that: {seen}"
        time.sleep(0.2)
    return seen


def _jobs(url: str) -> Any:
    """Vertex AI's own client of jobs, over HTTP."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.aiplatform_v1.services.job_service import JobServiceClient
    from google.cloud.aiplatform_v1.services.job_service.transports.rest import JobServiceRestTransport

    host = url.removeprefix("http://")
    transport = JobServiceRestTransport(host=host, credentials=AnonymousCredentials(), url_scheme="http")
    return JobServiceClient(transport=transport)


def create_job(given: dict[str, Any]) -> str:
    """The name of a job that is made of a document."""
    from google.cloud.aiplatform_v1 import BatchPredictionJob

    job = BatchPredictionJob.from_json(given["document"])
    name: str = _jobs(given["url"]).create_batch_prediction_job(parent=_PARENT, batch_prediction_job=job).name
    return name


def job(given: dict[str, Any]) -> dict[str, Any]:
    """A job, once it is over, or once that many of its rows are done."""
    client, least = _jobs(given["url"]), given.get("least")

    def good(job: Any) -> bool:
        over = job.state.name.endswith(("SUCCEEDED", "FAILED", "CANCELLED"))
        return over or (least is not None and job.completion_stats.successful_count >= least)

    if given.get("cancel"):
        client.cancel_batch_prediction_job(name=given["name"])
    found = _until(lambda: client.get_batch_prediction_job(name=given["name"]), good)
    listed = [each.name for each in client.list_batch_prediction_jobs(parent=_PARENT)]
    stats = found.completion_stats
    return {
        "state": found.state.name, "folder": found.output_info.gcs_output_directory, "listed": found.name in listed,
        "counts": [stats.successful_count, stats.failed_count, stats.incomplete_count], "error": found.error.message,
    }  # fmt: skip


def refused(given: dict[str, Any]) -> str:
    """What the client raises for a document."""
    from google.api_core.exceptions import GoogleAPICallError

    try:
        create_job(given)
    except GoogleAPICallError as error:
        return f"{type(error).__name__}: {error.message}"
    return "nothing"


def gemini(given: dict[str, Any]) -> dict[str, Any]:
    """google-genai with the Gemini API: a file up, a batch of it, its results down; and one of requests that come with it."""
    from google import genai

    client = genai.Client(api_key="none", http_options={"base_url": given["url"]})
    file = client.files.upload(file=given["path"], config={"display_name": "in", "mime_type": "application/jsonl"})
    batch = client.batches.create(model="demo", src=file.name, config={"display_name": "d"})
    batch = _until(lambda: client.batches.get(name=batch.name), lambda batch: batch.done)
    content = client.files.download(file=batch.dest.file_name)
    request = {"contents": [{"role": "user", "parts": [{"text": "one loaf of rye"}]}]}
    inline = client.batches.create(model="demo", src=[request, request])
    inline = _until(lambda: client.batches.get(name=inline.name), lambda batch: batch.done)
    listed = [each.name for each in client.batches.list()]
    late = client.batches.create(model="demo", src=file.name)
    client.batches.cancel(name=late.name)
    late = _until(lambda: client.batches.get(name=late.name), lambda batch: batch.done)
    try:
        client.batches.create(model="other", src=file.name)
        error = ""
    except genai.errors.ClientError as raised:
        error = f"{raised.code} {raised.status}: {raised.message}"
    return {
        "state": batch.state.name, "lines": content.decode(), "listed": {batch.name, inline.name} <= set(listed),
        "inline": [each.response.text for each in inline.dest.inlined_responses], "error": error, "late": late.state.name,
    }  # fmt: skip


def gemini_vertex(given: dict[str, Any]) -> dict[str, Any]:
    """google-genai with Vertex AI: a batch from a bucket to a bucket."""
    from google import genai
    from google.oauth2.credentials import Credentials

    client = genai.Client(
        vertexai=True, project="p", location="us-central1", credentials=Credentials("none"),
        http_options={"base_url": given["url"]},
    )  # fmt: skip
    batch = client.batches.create(
        model="gemini-2.5-flash", src="gs://corpus/in.jsonl", config={"dest": "gs://corpus/out"}
    )
    batch = _until(lambda: client.batches.get(name=batch.name), lambda batch: batch.done)
    listed = [each.name for each in client.batches.list()]
    return {"state": batch.state.name, "listed": batch.name in listed}


_QUESTIONS = (version_of, documents, fields, responses, create_job, job, refused, gemini, gemini_vertex)

if __name__ == "__main__":
    question = {each.__name__: each for each in _QUESTIONS}[sys.argv[1]]
    print(json.dumps(question(json.loads(sys.stdin.read() or "null"))))
