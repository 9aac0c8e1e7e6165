"""The openai engine against vLLM's own server, with the demo model."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

from llmbatch.core.errors import JobError
from llmbatch.job.job import DEMO_MODEL, job_from
from llmbatch.runs.session import run_job

pytestmark = pytest.mark.vllm

ARGUMENTS = [
    "--model", str(DEMO_MODEL), "--served-model-name", "tiny", "--dtype", "float32", "--enforce-eager", "--max-model-len", "512",
    "--max-num-seqs", "64", "--kv-cache-memory-bytes", str(1 << 28), "--host", "127.0.0.1",
    "--enable-auto-tool-choice", "--tool-call-parser", "hermes",
]  # fmt: skip
SCHEMA = {
    "type": "object",
    "properties": {"size": {"enum": ["small", "large"]}, "count": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["size", "count"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def vllm_server(tmp_path_factory: pytest.TempPathFactory, fork_servers: Any) -> Iterator[str]:
    log = tmp_path_factory.mktemp("vllm") / "server.log"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--port", str(port), *ARGUMENTS]
    with log.open("wb") as out:
        process = fork_servers.popen("vllm")(command, stdout=out, stderr=out, start_new_session=True)
    try:
        while True:
            assert process.poll() is None, log.read_text()[-3000:]
            with contextlib.suppress(URLError, OSError), urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def data(jobs: Any, vllm_server: str) -> Callable[..., dict[str, Any]]:
    def make(count: int = 8, **sections: Any) -> dict[str, Any]:
        rows = jobs.rows([{"id": i, "text": f"Order {i}: {i + 2} large boxes of tea for Anna."} for i in range(count)])
        engine = {"name": "openai", "urls": [vllm_server], **sections.pop("engine", {})}
        sampling = {"temperature": 0, "max_tokens": 64}
        sections = {"retry": {"max_attempts": 1}, **sections}
        found: dict[str, Any] = jobs.data(rows, model="tiny", sampling=sampling, **sections)
        return {**found, "engine": engine}

    return make


def text_prompt(path: Path) -> dict[str, str]:
    path.write_text('name: plain\nvariables: {text: {}}\ntext: "{{ text }}"\n')
    return {"path": str(path)}


def test_the_answers_are_those_of_the_engine_in_this_process(jobs: Any, data: Any) -> None:
    result = jobs.run(job_from(data(24)))
    engine = result.report["engine"]
    assert engine["version"].startswith("vllm 0.")
    assert (engine["context_length"], engine["details"]["dialect"]) == (512, "vllm")
    args = {
        "enforce_eager": True,
        "kv_cache_memory_bytes": 1 << 28,
        "max_num_seqs": 64,
        "dtype": "float32",
        "max_model_len": 512,
    }
    bare = {
        **data(24),
        "model": str(DEMO_MODEL),
        "output": str(jobs.path / "bare"),
        "engine": {"name": "vllm", "args": args},
    }
    run_job(job_from(bare))
    served, own = jobs.records(), jobs.records("bare")
    assert [(text_of(r), r["finish_reason"]) for r in served] == [(text_of(r), r["finish_reason"]) for r in own]
    assert [r["usage"]["prompt_tokens"] for r in served] == [r["usage"]["prompt_tokens"] for r in own]
    assert [r["usage"]["completion_tokens"] for r in served] == [r["usage"]["completion_tokens"] for r in own]


def test_an_answer_is_held_to_a_schema(jobs: Any, data: Any) -> None:
    jobs.run(job_from(data(4, answer={"schema": SCHEMA})))
    for (
        record
    ) in jobs.records():  # without white space, with which this model else fills its answers until they are cut off
        assert record["status"] == "ok", record
        assert record["output"]["size"] in ("small", "large")


def test_a_schema_may_go_as_it_is(jobs: Any, data: Any) -> None:
    """One in which no white space can be, without an end, between the parts of an answer."""
    schema = {"enum": ["small", {"size": "large"}]}
    jobs.run(job_from(data(4, answer={"schema": schema}, engine={"schemas": "response_format"})))
    assert [record["status"] for record in jobs.records()] == ["ok"] * 4
    assert all(record["output"] in schema["enum"] for record in jobs.records())
    plain = data(4, output=str(jobs.path / "plain"))
    jobs.run(job_from(plain))
    assert not any(text_of(record) in ("small", '"small"') for record in jobs.records("plain")), "it was held to it"


@pytest.mark.parametrize("answer", [{"choice": ["alpha", "beta"]}, {"regex": "x{3}y"}])
def test_an_answer_is_held_to_a_choice_and_to_a_regex(jobs: Any, data: Any, answer: dict[str, Any]) -> None:
    jobs.run(job_from(data(3, answer=answer)))
    assert {record["status"] for record in jobs.records()} == {"ok"}


def test_plain_completions_and_their_logprobs(jobs: Any, data: Any) -> None:
    asked = data(2, prompt=text_prompt(jobs.path / "prompt.yaml"))
    asked["sampling"] = {"temperature": 0, "max_tokens": 4, "logprobs": 2}
    jobs.run(job_from(asked))
    for record in jobs.records():
        assert len(record["logprobs"]) == record["usage"]["completion_tokens"]
        assert {len(token["top"]) for token in record["logprobs"]} == {2}


def test_logprobs_of_chat(jobs: Any, data: Any) -> None:
    asked = data(2)
    asked["sampling"]["logprobs"] = 2
    jobs.run(job_from(asked))
    for record in jobs.records():
        first = record["logprobs"][0]
        assert first["top"][0] == {"token": first["token"], "logprob": first["logprob"]}, "greedy: the likeliest of all"
        assert len(first["top"]) == 2


def test_tool_calls_are_kept_as_they_come(jobs: Any, data: Any, vllm_server: str) -> None:
    # any value at all, as the server lets a model put white space without an end between the parts of what has parts
    function = {"name": "order", "parameters": {"type": "object", "enum": [{"size": "large"}]}}
    choice = {"type": "function", "function": {"name": "order"}}
    args = {"tools": [{"type": "function", "function": function}], "tool_choice": choice}
    jobs.run(job_from(data(1, engine={"args": args})))
    record = jobs.records()[0]
    text = json.loads((jobs.path / "rows.jsonl").read_text())["text"]
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "max_tokens": 64,
        **args,
    }
    said = ask(vllm_server, body)["choices"][0]["message"]
    assert [call["function"] for call in record["tool_calls"]] == [call["function"] for call in said["tool_calls"]]
    assert record["tool_calls"][0]["function"]["name"] == "order"
    assert record["output"] is None


def test_what_does_not_fit_is_its_row_alone(jobs: Any, data: Any) -> None:
    asked = data(3)
    jobs.rows([{"id": 0, "text": "short"}, {"id": 1, "text": "long " * 900}, {"id": 2, "text": "short"}])
    jobs.run(job_from(asked))
    assert [record["status"] for record in jobs.records()] == ["ok", "failed", "ok"]
    assert jobs.records()[1]["error"]["kind"] == "too_long"


def test_an_answer_may_be_as_long_as_the_context(jobs: Any, data: Any) -> None:
    asked = data(1)
    asked["sampling"]["max_tokens"] = 5000
    jobs.run(job_from(asked))
    assert jobs.records()[0].get("error", {}).get("kind") != "refused"


def test_a_model_that_it_lacks_is_refused_with_the_one_that_it_has(jobs: Any, data: Any) -> None:
    with pytest.raises(JobError, match="has no model 'other'; it has tiny"):
        jobs.run(job_from({**data(1), "model": "other"}))


def test_a_killed_run_goes_on_with_the_same_bytes(jobs: Any, data: Any) -> None:
    asked = data(100, run={"window": 25, "commit_seconds": 0.01}, engine={"in_flight": 4})
    asked["sampling"]["max_tokens"] = 24
    run_job(job_from({**asked, "output": str(jobs.path / "plain")}))
    process = jobs.start(asked)
    while not any((jobs.path / "out/parts").glob("part-*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    jobs.run(job_from(asked))
    assert without_cache(jobs, "out") == without_cache(jobs, "plain")


def ask(url: str, body: dict[str, Any]) -> Any:
    """What the server says to that, asked by nobody's client."""
    asked = Request(f"{url}/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"})  # noqa: S310
    with urlopen(asked, timeout=60) as answer:  # noqa: S310 - the server of this file
        return json.load(answer)


def text_of(record: dict[str, Any]) -> Any:
    """The answer, also where it was cut off."""
    return record["output"] if record["output"] is not None else record.get("raw")


def without_cache(jobs: Any, folder: str) -> list[Any]:
    """The records, but for what the server's prefix cache spared: it is warmer the second time."""
    records = jobs.records(folder)
    for record in records:
        record["usage"]["cached_tokens"] = 0
    return list(records)
