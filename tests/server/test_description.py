"""The server against its own description: whatever schemathesis makes of it, the answers are those that it announces."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

schemathesis = pytest.importorskip("schemathesis")
EXAMPLES = 3  # of each path, sound ones and others; eval/server/description.py makes very many


@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
def test_every_answer_is_as_described(shared, mode: str) -> None:
    from schemathesis.specs.openapi import checks

    schema = schemathesis.openapi.from_url(f"{shared.url}/openapi.json")
    held_to = [
        schemathesis.checks.not_a_server_error, checks.status_code_conformance, checks.content_type_conformance,
        checks.unsupported_method, checks.allow_header_conformance, checks.negative_data_rejection,
    ]  # fmt: skip
    seen = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        if mode == "POSITIVE" or _can_be_wrong(operation):
            _try(operation, getattr(schemathesis.GenerationMode, mode), held_to)
            seen += 1
    assert seen > 20


def _can_be_wrong(operation: Any) -> bool:
    """Whether something can be asked that its description does not allow: every text is a sound part of a path.

    For the others schemathesis tries hundreds of times to make what cannot be.
    """
    places = list(operation.path_parameters)
    whatever = all(place.definition.get("schema", {}).keys() <= {"type", "title", "minLength"} for place in places)
    return bool(operation.body or operation.query or operation.headers or operation.cookies or not whatever)


def _try(operation: Any, mode: Any, checks: list[Any]) -> None:
    @settings(
        max_examples=EXAMPLES, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode))
    def attempt(case: Any) -> None:
        case.call_and_validate(checks=checks)

    try:
        attempt()
    except schemathesis.errors.InvalidSchema:
        raise
    except Exception as error:
        if type(error).__name__ == "Unsatisfiable":  # such as no wrong value of a path without parameters
            return
        raise


def test_each_part_of_a_path_is_described(shared) -> None:
    paths = json.loads(shared.ask("GET", "/openapi.json")[2])["paths"]
    told = {
        path: {
            each["name"]
            for operation in methods.values()
            for each in operation.get("parameters", ())
            if each["in"] == "path"
        }
        for path, methods in paths.items()
    }
    assert told == {path: set(re.findall(r"{(\w+)}", path)) for path in paths}


def test_a_method_that_a_path_does_not_take_is_refused_with_those_that_it_takes(shared) -> None:
    for path, taken in (
        ("/v1/batches", "GET, POST"),
        ("/health", "GET"),
        ("/model-invocation-job", "POST"),
        ("/google/v1/batches/1:cancel", "POST"),
        ("/google/v1/batches/1", "GET"),
    ):
        status, headers, _ = shared.ask("TRACE", path)
        assert (status, headers["allow"]) == (405, taken)
