"""Verta's wire, by requests as its client sends them."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from llmbatch.verta import DeployedModel

RULES = {"rules": [{"when": {"contains": "BOOM"}, "fail": "the model says no"}]}


@pytest.fixture(scope="module")
def ask(lasting) -> Any:
    site = lasting(RULES)

    def post(path: str, body: Any, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], Any]:
        given = {"Content-Type": "application/json", **(headers or {})}
        status, answered, content = site.ask("POST", path, json.dumps(body).encode(), given)
        return status, answered, json.loads(content)

    return post


def test_the_index_of_a_frame_is_kept(ask) -> None:
    frame = {"index": [10, "b"], "columns": ["prompt"], "data": [["one"], ["two"]]}
    status, headers, said = ask("/api/v1/batch-predict/abc", frame, {"verta-request-id": "mine"})
    assert (status, headers["verta-request-id"]) == (200, "mine"), said
    assert said == {"index": [10, "b"], "columns": ["output"], "data": [["one"], ["two"]]}


def test_one_value_is_answered_under_an_id(ask) -> None:
    status, headers, said = ask("/api/v1/predict/abc", "one loaf")
    assert (status, said) == (200, "one loaf")
    assert headers["verta-request-id"]
    assert ask("/predict/abc", {"prompt": "one loaf", "max_tokens": 3})[2] == "one"


def test_gzip_is_unpacked_up_to_a_bound_and_for_nobody_else(sites) -> None:
    site = sites.start(RULES, max_body=100_000)
    packed = {"Content-Encoding": "gzip"}
    assert site.ask("POST", "/predict/a", gzip.compress(b'"one"'), packed)[2] == b'"one"'
    assert site.ask("POST", "/predict/a", gzip.compress(b" " * 100_001), packed)[0] == 413
    assert site.ask("POST", "/predict/a", gzip.compress(b" " * 9_000_000), packed)[0] == 413
    assert site.ask("POST", "/predict/a", b"no gzip", packed)[0] == 400
    assert site.ask("POST", "/v1/batches", gzip.compress(b"{}"), packed)[0] == 415


def test_the_key_is_the_access_token(sites) -> None:
    site = sites.start(RULES, "alice alice-has-a-long-key\n")
    assert site.ask("POST", "/predict/a", b'"one"', {"Access-Token": "alice-has-a-long-key"})[0] == 200
    assert site.ask("POST", "/predict/a", b'"one"', {"Access-Token": "another-key-of-nobody"})[0] == 401


@pytest.mark.parametrize(
    "frame",
    [
        [], {"index": [1]}, {"index": [1], "columns": ["a"], "data": [["x"], ["y"]]},
        {"index": [1], "columns": ["a", "b"], "data": [["x"]]}, {"index": [1], "columns": ["a", "b"], "data": [["x", "y"]]},
        {"index": [1], "columns": ["prompt"], "data": [[float("nan")]]},
    ],
    ids=["list", "parts", "index", "columns", "prompt", "nan"],
)  # fmt: skip
def test_a_frame_that_is_none_is_refused(ask, frame: Any) -> None:
    status, _, said = ask("/batch-predict/a", frame)
    assert status == 400
    assert said["message"]


def test_one_row_that_fails_fails_the_call(ask) -> None:
    frame = {"index": [1, 2], "columns": ["prompt"], "data": [["one"], ["BOOM"]]}
    status, _, said = ask("/batch-predict/a", frame)
    assert (status, said["message"]) == (502, "the model says no")


def test_what_the_model_refuses_is_asked_once_by_our_client_and_is_a_runtime_error(sites) -> None:
    site = sites.start(RULES)
    model = DeployedModel(f"http://127.0.0.1:{site.port}/api/v1/predict/a")
    with pytest.raises(RuntimeError, match="the model says no"):
        model.predict("BOOM")
    assert model.predict_with_id({"prompt": "one", "max_tokens": 64}, prediction_id="mine") == ("mine", "one")
