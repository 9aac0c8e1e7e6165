"""Vectors from a server with OpenAI's API: requests and replies, and whole runs on a stand-in."""

from __future__ import annotations

import base64
import json
import struct
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from llmbatch.cli.main import main
from llmbatch.core.errors import EngineError, JobError
from llmbatch.core.types import Completion, Failure, Pooling, Prompt, Refusal, Request, RequestKey, Sampling, Usage
from llmbatch.engines.http.base import NoAnswer, Packed, Reply
from llmbatch.engines.openai.dialect import DIALECTS
from llmbatch.engines.openai.settings import OpenAISettings
from llmbatch.engines.openai.wire import OpenAIWire
from llmbatch.job.job import job_from
from llmbatch.measure.job_survey import Assumptions, survey_job

USER = {"role": "user", "content": "hi"}
TEXT = Prompt(text="hi")


def wire(dialect: str = "other", **args: Any) -> OpenAIWire:
    ours = OpenAIWire("m", DIALECTS[dialect], args, {}, lambda _: None)
    ours.context_length = 512
    return ours


def request(prompt: Prompt = TEXT, **more: Any) -> Request:
    dimensions = more.pop("dimensions", None)
    return Request(RequestKey(0), prompt, Sampling(), pooling=Pooling("embed", dimensions), **more)


def body(packed: Packed | Failure) -> dict[str, Any]:
    assert isinstance(packed, Packed)
    assert packed.path == "/embeddings"
    found: dict[str, Any] = json.loads(packed.body)
    return found


def read(embedding: Any, asked: Request | None = None) -> Any:
    whole = {"data": [{"embedding": embedding}], "usage": {"prompt_tokens": 3, "total_tokens": 3}}
    return wire().read(asked or request(), Reply(200, {}, json.dumps(whole).encode()))


def packed(*numbers: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


# requests and replies


def test_a_text_is_sent_with_what_was_asked_for_alone() -> None:
    assert body(wire("vllm").pack(request())) == {"model": "m", "input": "hi", "encoding_format": "base64"}
    asked = request(dimensions=5, lora="legal")
    assert body(wire().pack(asked)) == {"model": "legal", "input": "hi", "dimensions": 5, "encoding_format": "base64"}


def test_fields_of_the_job_go_along_and_a_server_without_base64_can_be_asked_for_lists() -> None:
    sent = body(wire("vllm", encoding_format="float", truncate_prompt_tokens=9).pack(request()))
    assert (sent["encoding_format"], sent["truncate_prompt_tokens"]) == ("float", 9)


def test_a_chat_goes_to_vllm_as_it_would_be_answered() -> None:
    sent = body(wire("vllm").pack(request(Prompt(messages=(USER,)))))
    assert sent == {"model": "m", "messages": [USER], "add_generation_prompt": True, "encoding_format": "base64"}
    sent = body(wire("vllm").pack(request(Prompt(messages=(USER,), prefill="So"))))
    assert (sent["continue_final_message"], sent["add_generation_prompt"]) == (True, False)


@pytest.mark.parametrize("dialect", sorted(set(DIALECTS) - {"vllm"}))
def test_a_chat_goes_to_no_other_server(dialect: str) -> None:
    refused = wire(dialect).pack(request(Prompt(messages=(USER,))))
    assert isinstance(refused, Failure)
    assert "give the prompt as text" in refused.message


def test_base64_and_lists_are_the_same_numbers() -> None:
    numbers = array("f", [0.1, -2.5e-8, 1 / 3, 3e38])
    for said in (packed(*numbers), list(numbers), json.loads(json.dumps(numbers.tolist()))):
        found = read(said)
        assert isinstance(found, Completion)
        assert found.numbers == numbers
        assert (found.text, found.usage) == ("", Usage(3))


BAD = {
    "not base64": "§§§§",
    "not of 32 bits each": base64.b64encode(b"12345").decode(),
    "words": ["a"],
    "lists": [[0.5]],
    "null": None,
    "a number": 1.5,
    "an object": {"a": 1},
}


@pytest.mark.parametrize("said", BAD.values(), ids=BAD.keys())
def test_what_is_no_vector_is_no_answer(said: Any) -> None:
    with pytest.raises(NoAnswer, match="no vector that can be read"):
        read(said)


@pytest.mark.parametrize(
    "said", [{}, {"data": []}, {"data": [{}, {}]}, {"data": ["x"]}, {"data": None}, {"error": "x"}, [], "x"], ids=str
)
def test_a_reply_without_one_vector_is_no_answer(said: Any) -> None:
    with pytest.raises(NoAnswer):
        wire().read(request(), Reply(200, {}, json.dumps(said).encode()))


def test_another_number_of_dimensions_than_was_asked_for_is_refused() -> None:
    refused = read([0.5, 0.25], request(dimensions=5))
    assert isinstance(refused, Refusal)
    assert "gave 2 numbers, and program.settings.dimensions is 5" in refused.failure.message
    assert isinstance(read([0.5, 0.25], request(dimensions=2)), Completion)


# whole runs


@pytest.fixture
def embedding(jobs: Any, online: Any) -> Callable[..., dict[str, Any]]:
    """The data of a job on the server that asks for vectors."""

    def data(rows: list[Any] | Path, to: str = "out", **sections: Any) -> dict[str, Any]:
        path = rows if isinstance(rows, Path) else jobs.rows(rows)
        sections = {"prompt": None, "program": {"name": "embed"}, "output": str(jobs.path / to), **sections}
        return {name: section for name, section in online(path, **sections).items() if section is not None}

    return data


def rows_of(count: int, distinct: int | None = None) -> list[dict[str, Any]]:
    return [{"id": f"r{i}", "text": f"text {i % (distinct or count)}"} for i in range(count)]


def vector(stand_in: Any, text: str, dimensions: int = 16) -> array[float]:
    return array("f", stand_in.vector_of(text, dimensions))


def test_every_line_has_the_vector_of_its_text_or_a_record_that_says_why_not(
    jobs: Any, server: Any, embedding: Any, stand_in: Any
) -> None:
    rows = [{"text": "one"}, "no JSON", {"text": " "}, {"no": 1}, {"text": "two words"}]
    result = jobs.run(job_from(embedding(rows)))
    records = jobs.records()
    assert [record["status"] for record in records] == ["ok", "failed", "failed", "failed", "ok"]
    assert array("f", records[0]["output"]) == vector(stand_in, "one")
    assert array("f", records[4]["output"]) == vector(stand_in, "two words")
    assert (records[4]["usage"]["prompt_tokens"], records[4]["usage"]["completion_tokens"]) == (2, 0)
    assert [record["error"]["kind"] for record in records[1:4]] == ["malformed_row", "empty_prompt", "prompt"]
    assert {path for path, _ in server.asked} == {"/v1/embeddings"}
    assert "embed" in result.report["engine"]["can"]


def test_lists_give_the_same_bytes(jobs: Any, server: Any, embedding: Any, stand_in: Any) -> None:
    jobs.run(job_from(embedding(rows_of(20))))
    server.embedding = lambda body: stand_in.vector_of(stand_in.text_of(body))
    jobs.run(job_from(embedding(rows_of(20), "lists")))
    assert jobs.results() == jobs.results("lists")


def test_dimensions_are_asked_for(jobs: Any, server: Any, embedding: Any, stand_in: Any) -> None:
    jobs.run(job_from(embedding([{"text": "one"}], program={"name": "embed", "settings": {"dimensions": 5}})))
    assert array("f", jobs.records()[0]["output"]) == vector(stand_in, "one", 5)


def test_equal_texts_are_asked_for_once(jobs: Any, server: Any, embedding: Any) -> None:
    jobs.run(job_from(embedding(rows_of(40, distinct=10))))
    assert len(server.asked) == 10
    assert jobs.report()["rows"]["folded"] == 30
    assert len({json.dumps(record["output"]) for record in jobs.records()}) == 10


def test_a_run_that_is_killed_goes_on_to_the_same_bytes(jobs: Any, server: Any, embedding: Any) -> None:
    parts: dict[str, Any] = {"run": {"window": 16}, "sinks": {"formats": ["parquet"]}}
    rows = rows_of(60, distinct=45)
    jobs.run(job_from(embedding(rows, "whole", **parts)))
    jobs.killed(embedding(rows, **parts), "part-sealed:1")
    jobs.run(job_from(embedding(rows, **parts)))
    assert jobs.results() == jobs.results("whole")
    tables = [(jobs.path / name / "results.parquet").read_bytes() for name in ("out", "whole")]
    assert tables[0] == tables[1]


def test_what_fails_now_and_then_is_asked_again(jobs: Any, server: Any, embedding: Any, stand_in: Any) -> None:
    ways = [500, "cut", "drop", "html"]
    server.behave = lambda number, _: ways[number % 4] if number % 5 == 0 else None
    jobs.run(job_from(embedding(rows_of(20))))
    for at, record in enumerate(jobs.records()):
        assert array("f", record["output"]) == vector(stand_in, f"text {at}")
    assert len(server.asked) > 20


def test_a_server_without_embeddings_ends_the_run(jobs: Any, server: Any, embedding: Any, stand_in: Any) -> None:
    server.behave = lambda *_: stand_in.Say(404, message="Not Found")
    with pytest.raises(EngineError, match="/v1/embeddings is not there for this model"):
        jobs.run(job_from(embedding(rows_of(3))))


def test_tokens_that_the_server_does_not_count_are_estimated(jobs: Any, server: Any, embedding: Any) -> None:
    server.usage = False
    jobs.run(job_from(embedding([{"text": "12 characters"}])))
    assert jobs.records()[0]["usage"]["prompt_tokens"] == 4


def test_what_the_server_refuses_is_its_row_alone(jobs: Any, server: Any, embedding: Any, stand_in: Any) -> None:
    refused = stand_in.Say(400, message="this model makes no vectors of that")
    server.behave = lambda _, body: refused if body["input"] == "text 1" else None
    jobs.run(job_from(embedding(rows_of(3))))
    assert [record["status"] for record in jobs.records()] == ["ok", "failed", "ok"]
    assert "this model makes no vectors of that" in jobs.records()[1]["error"]["message"]
    assert len(server.asked) == 3


@pytest.mark.parametrize("bad", [[0.5, float("nan")], [0.5, None], packed(0.5, float("inf"))], ids=str)
def test_numbers_that_are_not_finite_are_their_rows_failure(
    jobs: Any, server: Any, embedding: Any, stand_in: Any, bad: Any
) -> None:
    server.embedding = lambda body: bad if body["input"] == "text 1" else stand_in.embedding_of(body)
    jobs.run(job_from(embedding(rows_of(3))))
    assert [record["status"] for record in jobs.records()] == ["ok", "failed", "ok"]
    assert jobs.records()[1]["error"]["kind"] == "not_finite"
    assert len(server.asked) == 3


def test_a_chat_is_refused_row_by_row_where_the_server_takes_none(jobs: Any, server: Any, embedding: Any) -> None:
    prompt = jobs.path / "chat.yaml"
    prompt.write_text('name: t\nvariables: {text: {}}\nmessages: [{role: user, content: "{{ text }}"}]\n')
    jobs.run(job_from(embedding(rows_of(2), prompt={"path": str(prompt)})))
    assert ["give the prompt as text" in record["error"]["message"] for record in jobs.records()] == [True, True]
    assert not server.asked
    server.owner = "vllm"
    jobs.run(job_from(embedding(rows_of(2), "vllm", prompt={"path": str(prompt)})))
    assert [record["status"] for record in jobs.records("vllm")] == ["ok", "ok"]
    assert server.asked[0][1]["messages"][-1]["content"].startswith("text")


def test_batches_give_the_same_bytes(jobs: Any, server: Any, embedding: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmbatch.engines.openai.batch.loop._QUIET_SECONDS", 0.05)
    jobs.run(job_from(embedding(rows_of(20))))
    batched = {"mode": "batch", "poll": 0.02}
    jobs.run(job_from(embedding(rows_of(20), "batched", engine=batched)))
    assert jobs.results() == jobs.results("batched")
    assert [batch["endpoint"] for batch in server.batches.made.values()] == ["/v1/embeddings"]
    lines = [json.loads(line) for line in server.batches.files["file-1"].splitlines()]
    assert {line["url"] for line in lines} == {"/v1/embeddings"}


@pytest.mark.parametrize("name", ["score_pairs", "rerank"])
def test_pairs_are_compared_by_their_vectors(jobs: Any, server: Any, embedding: Any, name: str) -> None:
    rows = [{"query": "fish", "document": "fish", "documents": ["dog", "fish"]}]
    jobs.run(job_from(embedding(rows, program={"name": name, "settings": {"encoder": "bi"}})))
    output = jobs.records()[0]["output"]
    if name == "score_pairs":
        assert output == pytest.approx(1)
    else:
        assert [each["index"] for each in output] == [1, 0]
        assert output[0]["score"] == pytest.approx(1)
        assert output[1]["score"] < 0.9


REFUSED = {
    "classify": ({"name": "classify"}, "the program classify asks for the probabilities of classes"),
    "score_pairs": ({"name": "score_pairs"}, "program.settings.encoder=bi compares the vectors"),
    "rerank": ({"name": "rerank"}, "program.settings.encoder=bi compares the vectors"),
    "normalize": ({"name": "embed", "settings": {"normalize": False}}, "program.settings.normalize: OpenAI's API"),
}


@pytest.mark.parametrize(("program", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_the_api_has_not_is_refused_before_anything_is_asked(
    jobs: Any, server: Any, embedding: Any, program: dict[str, Any], said: str
) -> None:
    rows = [{"text": "a", "query": "a", "document": "b", "documents": ["b"]}]
    for known in ({"dialect": "other"}, {"urls": ["https://api.openai.com/v1"]}):
        job = job_from(embedding(rows, program=program, engine=known))
        with pytest.raises(JobError, match=said):
            jobs.run(job)
        with pytest.raises(JobError, match=said):
            survey_job(job, Assumptions(None, None, None))
    assert not server.headers
    found_out = "the openai engine can do embed|program.settings.normalize: the openai engine cannot tell"
    with pytest.raises(JobError, match=found_out):
        jobs.run(job_from(embedding(rows, program=program)))
    assert server.headers and not server.asked


def test_whether_vectors_are_made_as_long_as_one_is_told_in_no_batch_of_another_server(
    jobs: Any, server: Any, embedding: Any
) -> None:
    program = {"name": "embed", "settings": {"normalize": False}}
    with pytest.raises(JobError, match=r"program\.settings\.normalize: the openai engine cannot tell"):
        jobs.run(job_from(embedding(rows_of(2), program=program, engine={"mode": "batch", "poll": 0.02})))
    assert not server.batches.made


@pytest.mark.parametrize("program", ["classify", "score_pairs"])
def test_a_batch_has_no_such_numbers_whosever_server_it_is(
    jobs: Any, server: Any, embedding: Any, program: str
) -> None:
    job = embedding([{"text": "a"}], program={"name": program}, engine={"mode": "batch", "dialect": "vllm"})
    with pytest.raises(JobError, match="vLLM's server alone does, and not in batches"):
        jobs.run(job_from(job))
    assert not server.headers


@pytest.mark.parametrize("name", ["input", "dimensions", "embed_dtype", "endianness"])
def test_fields_that_would_change_what_a_vector_is_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=rf"engine\.args\.{name} has a place of its own"):
        OpenAISettings(urls=["http://localhost:1/v1"], args={name: 1})


def test_the_command_does_it(jobs: Any, server: Any, stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(jobs.path)
    jobs.rows([{"body": "one"}], "corpus.jsonl")
    asked = ["run", "--program", "embed", "--input", "corpus.jsonl", "--model", "any", "--engine", "openai", "--quiet"]
    done = CliRunner().invoke(
        main, [*asked, "--set", f"engine.urls={server.url}", "--map", "text=body", "--output", "out"]
    )
    assert done.exit_code == 0, done.output
    assert array("f", jobs.records()[0]["output"]) == vector(stand_in, "one")
