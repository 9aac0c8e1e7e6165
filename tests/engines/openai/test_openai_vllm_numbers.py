"""Classes, scores of pairs and vectors from a stand-in that reads and answers by the classes of vLLM's own server."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llmbatch.core.types import Pooling, Prompt, Request, RequestKey, Sampling
from llmbatch.engines.http.base import NoAnswer, Packed, Reply
from llmbatch.engines.openai.dialect import VLLM
from llmbatch.engines.openai.wire import OpenAIWire
from llmbatch.job.job import job_from

pytestmark = pytest.mark.vllm

PROBABILITIES = [0.25, 0.625, 0.125]


def share(query: str, document: str) -> float:
    """Of the query's words those that the document has."""
    words = query.split()
    return sum(word in document.split() for word in words) / len(words)


def answered(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """As vLLM's server does, but for the model. Raises where vLLM would refuse the body."""
    from pydantic import TypeAdapter
    from vllm.entrypoints.pooling.classify import protocol as classify
    from vllm.entrypoints.pooling.scoring import protocol as scoring
    from vllm.entrypoints.serve.engine.protocol import UsageInfo

    usage = UsageInfo(prompt_tokens=7, total_tokens=7)
    whole: Any
    if path == "/classify":
        asked: Any = TypeAdapter(classify.ClassificationRequest).validate_python(body)
        assert isinstance(asked, classify.ClassificationCompletionRequest)
        assert not asked.model_extra, "it knows every field"
        raw = asked.to_pooling_params().use_activation is False
        probs = [-1.0, 2.0, -3.0] if raw else PROBABILITIES
        data = classify.ClassificationData(index=0, label="good", probs=probs, num_classes=3)
        whole = classify.ClassificationResponse(model="any", data=[data], usage=usage)
    else:
        asked = TypeAdapter(scoring.ScoreRequest).validate_python(body)
        assert isinstance(asked, scoring.ScoreTextRequest)
        assert not asked.model_extra
        score = share(str(asked.data_1), str(asked.data_2))
        score = 8 * score if asked.to_pooling_params().use_activation is False else score
        whole = scoring.ScoreResponse(model="any", data=[scoring.ScoreResponseData(index=0, score=score)], usage=usage)
    found: dict[str, Any] = whole.model_dump()
    return found


@pytest.fixture
def records(jobs: Any, server: Any, online: Any) -> Any:
    """Runs a program on rows: its records."""
    server.owner, server.numbers = "vllm", answered

    def run(rows: list[dict[str, Any]], name: str, engine: Any = None, **settings: Any) -> list[dict[str, Any]]:
        data = online(jobs.rows(rows), program={"name": name, "settings": settings}, engine=engine)
        del data["prompt"]
        jobs.run(job_from(data))
        found: list[dict[str, Any]] = jobs.records()
        return found

    return run


def test_classes_without_names_have_their_numbers_in_every_row(jobs: Any, server: Any, records: Any) -> None:
    rows = [{"text": "one"}, {"text": ""}, {"text": "two"}]
    one, empty, two = records(rows, "classify")
    assert (one["output"], one["details"]["probabilities"]) == (
        "LABEL_1", {"LABEL_0": 0.25, "LABEL_1": 0.625, "LABEL_2": 0.125},
    )  # fmt: skip
    assert one["usage"]["prompt_tokens"] == 7
    assert (empty["status"], two["status"]) == ("failed", "ok")
    assert [path for path, _ in server.asked] == ["/classify"] * 2
    assert "classify" in jobs.report()["engine"]["can"]


def test_the_job_may_name_the_classes(records: Any, server: Any) -> None:
    (record,) = records([{"text": "one"}], "classify", {"classes": ["bad", "fair", "odd"]}, activation=False)
    assert (record["output"], record["details"]["probabilities"]) == ("fair", {"bad": -1.0, "fair": 2.0, "odd": -3.0})


def test_names_for_another_number_of_classes_are_said(records: Any) -> None:
    (record,) = records([{"text": "one"}], "classify", {"classes": ["bad", "fair"]})
    assert "has 3 classes, and engine.classes names 2" in record["error"]["message"]


def test_names_in_another_order_than_the_servers_are_said(records: Any) -> None:
    (record,) = records([{"text": "one"}], "classify", {"classes": ["good", "fair", "odd"]})
    assert "calls the likeliest class 'good', and by engine.classes it is 'fair'" in record["error"]["message"]


@pytest.mark.parametrize("base", ["", "/gateway", "/v1/models"])
def test_classes_are_asked_for_beside_the_api_wherever_that_is(base: str) -> None:
    wire = OpenAIWire("m", VLLM, {}, {}, lambda _: None)
    asked = Request(RequestKey(0), Prompt(text="a", pair="b"), Sampling(), pooling=Pooling("classify"))
    packed = wire.pack(asked)
    assert isinstance(packed, Packed)
    for url in (f"http://server{base}", f"http://server{base}/v1"):
        assert packed.at(url) == f"http://server{base}/classify"
    packed = wire.pack(replace(asked, pooling=Pooling("pairs")))
    assert isinstance(packed, Packed)
    assert packed.at(f"http://server{base}/v1") == f"http://server{base}/v1/score"


def test_pairs_are_scored_and_documents_come_in_the_order_of_their_scores(records: Any, server: Any) -> None:
    documents = ["dog", "a red fish", "fish"]
    (record,) = records([{"query": "red fish", "documents": documents}], "rerank")
    assert [(each["index"], each["score"]) for each in record["output"]] == [(1, 1.0), (2, 0.5), (0, 0.0)]
    assert {path for path, _ in server.asked} == {"/v1/score"}
    assert sorted(body["text_2"] for _, body in server.asked) == sorted(documents)


def test_a_pair_may_be_scored_without_what_makes_probabilities_of_it(records: Any) -> None:
    (record,) = records([{"query": "red fish", "document": "fish"}], "score_pairs", activation=False)
    assert record["output"] == 4.0


def test_whether_vectors_are_made_as_long_as_one_is_told(server: Any, records: Any) -> None:
    from vllm.entrypoints.pooling.embed.protocol import EmbeddingCompletionRequest

    records([{"text": "one"}], "embed", normalize=False)
    ((path, body),) = server.asked
    assert path == "/v1/embeddings"
    assert EmbeddingCompletionRequest.model_validate(body).to_pooling_params().use_activation is False


@pytest.mark.parametrize("task", ["classify", "pairs"])
@pytest.mark.parametrize(
    "body", [b"{}", b'{"data": []}', b'{"data": [{}]}', b'{"data": [{"probs": [], "score": "x"}]}', b"[]"]
)
def test_what_holds_no_numbers_is_no_answer(task: Any, body: bytes) -> None:
    wire = OpenAIWire("m", VLLM, {}, {}, lambda _: None)
    request = Request(RequestKey(0), Prompt(text="a", pair="b"), Sampling(), pooling=Pooling(task))
    with pytest.raises(NoAnswer):
        wire.read(request, Reply(200, {}, body))
