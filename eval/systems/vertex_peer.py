"""In an environment with Google's packages: a question by its name, with JSON on stdin, in; the answer as JSON out."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from typing import Any


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


if __name__ == "__main__":
    question = {each.__name__: each for each in (version_of, documents, fields, responses)}[sys.argv[1]]
    print(json.dumps(question(json.loads(sys.stdin.read() or "null"))))
