"""What ``/metrics`` counts: requests, batches with their rows and tokens, live answers, and bytes."""

from __future__ import annotations

import json
import re
import shutil
import socket
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.errors import EngineError
from llmbatch.server import working
from llmbatch.server.store import Batch

AWS = Path(__file__).parents[1] / "examples" / "aws"
JSON = {"content-type": "application/json"}
RULES = {"rules": [{"when": {"contains": "text 7"}, "fail": "no"}]}


def figures(site: Any) -> dict[str, float]:
    """Every figure by its name and labels."""
    text = site.ask("GET", "/metrics")[2].decode()
    return {name: float(value) for name, value in re.findall(r"^(llmbatch_\S+) (\S+)$", text, re.MULTILINE)}


def of(site: Any, name: str) -> dict[str, float]:
    """The figures of one name, by their labels."""
    return {key.removeprefix(name): value for key, value in figures(site).items() if key.partition("{")[0] == name}


def test_requests_and_batches_are_counted(site, begin, ended, lines) -> None:
    client = site.openai()
    ended(client, begin(client, lines.many(2)))
    seen = figures(site)
    assert seen['llmbatch_batches{state="completed"}'] == 1
    assert seen['llmbatch_http_requests_total{method="POST",route="/v1/batches",status="200"}'] == 1


def test_rows_and_tokens_of_batches_are_counted_once_they_are_over(sites, begin, ended, until, lines) -> None:
    site = sites.start(RULES)
    client = site.openai()
    assert of(site, "llmbatch_batch_rows_total") == {}
    batches = [ended(client, begin(client, lines.many(count))) for count in (10, 3)]
    usages = [line["response"]["body"]["usage"] for batch in batches for line in lines.of(client, batch.output_file_id)]
    rows = until(lambda: of(site, "llmbatch_batch_rows_total"), lambda rows: sum(rows.values()) == 13)
    assert rows == {'{outcome="answered"}': 12, '{outcome="failed"}': 1}
    tokens = of(site, "llmbatch_batch_tokens_total")
    assert tokens['{kind="output"}'] == sum(usage["completion_tokens"] for usage in usages) > 0
    assert tokens['{kind="input"}'] >= sum(usage["prompt_tokens"] for usage in usages) > 0


def test_a_batch_that_is_cancelled_counts_what_was_answered_and_what_was_not(sites, begin, ended, until, lines) -> None:
    site = sites.start({"rules": [{"when": {"contains": "text 4"}, "hang": True}]}, job={"run": {"grace": 0.0}})
    client = site.openai()
    batch = begin(client, lines.many(5))
    until(lambda: client.batches.retrieve(batch).request_counts.completed, lambda done: done == 4)
    client.batches.cancel(batch)
    ended(client, batch)
    rows = until(lambda: of(site, "llmbatch_batch_rows_total"), lambda rows: sum(rows.values()) == 5)
    assert rows == {'{outcome="answered"}': 4, '{outcome="failed"}': 1}


def test_rows_of_a_batch_that_was_given_up_and_goes_on_are_counted_once(sites, until, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(working, "_PAUSES", (0.01,))
    shutil.copytree(AWS / "sagemaker" / "s3", tmp_path / "bucket")
    site = sites.start(names=("demo-model",), assets={"s3://corpus-b": str(tmp_path / "bucket")})
    worker, store = site.server.batches._worker, site.server.store
    run = worker._run

    def broken(*given: Any) -> None:
        run(*given)
        raise EngineError("it keeps dying")

    monkeypatch.setattr(worker, "_run", broken)
    document = json.loads((AWS / "sagemaker" / "create-transform-job.json").read_text())
    given = {"document": document, "model": "demo-model", "name": "job", "region": "eu-west-1", "metadata": None}
    site.server.batches.add(Batch("one", "", "sagemaker", int(time.time()), None, given))
    until(lambda: store.batch("one").given_up, bool)
    monkeypatch.setattr(worker, "_run", run)
    assert site.ask("POST", "/llmbatch/batches/one/retry")[0] == 200
    batch = until(lambda: store.batch("one"), lambda batch: batch.state == "completed")
    until(lambda: site.server.batches.load, lambda load: load == (0, 0))  # by then it is counted
    assert sum(of(site, "llmbatch_batch_rows_total").values()) == batch.facts.rows > 0
    assert of(site, "llmbatch_batch_tokens_total")['{kind="output"}'] == batch.facts.usage["output"] > 0


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_live_answers_and_their_tokens_are_counted(sites, until, streamed: bool) -> None:
    site = sites.start()
    given: dict[str, Any] = {"model": "demo", "messages": [{"role": "user", "content": "three words here"}]}
    if streamed:
        given |= {"stream": True, "stream_options": {"include_usage": True}}
        usage = list(site.openai().chat.completions.create(**given))[-1].usage
    else:
        usage = site.openai().chat.completions.create(**given).usage
    outcome = "streamed" if streamed else "ok"
    live = until(lambda: of(site, "llmbatch_live_requests_total"), bool)
    assert live == {f'{{outcome="{outcome}"}}': 1}
    assert of(site, "llmbatch_live_tokens_total") == {
        '{kind="prompt"}': usage.prompt_tokens, '{kind="completion"}': usage.completion_tokens,
    }  # fmt: skip
    assert usage.completion_tokens > 0


def live_request(text: str, **more: Any) -> bytes:
    return json.dumps({"model": "demo", "messages": [{"role": "user", "content": text}], **more}).encode()


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("script", "status"), [(RULES, 500), ({"out_of_memory_above": 0}, 503)], ids=["refused", "no-engine"]
)
def test_what_a_live_request_failed_by_is_counted(sites, script: dict[str, Any], status: int, streamed: bool) -> None:
    site = sites.start(script)
    body = live_request("text 7", stream=streamed)
    assert site.ask("POST", "/v1/chat/completions", body, JSON)[0] == status
    assert of(site, "llmbatch_live_requests_total") == {'{outcome="failed"}': 1}


def test_a_stream_that_is_refused_in_its_middle_is_counted_as_failed(sites, until) -> None:
    site = sites.start({"rules": [{"when": {"sample": 1}, "fail": "no"}]})
    site.ask("POST", "/v1/chat/completions", live_request("one two", stream=True, n=2, seed=1), JSON)
    assert until(lambda: of(site, "llmbatch_live_requests_total"), bool) == {'{outcome="failed"}': 1}


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_client_that_leaves_before_it_is_answered_is_counted(sites, until, streamed: bool) -> None:
    site = sites.start({"rules": [{"hang": True}]})
    body = live_request("one two", stream=streamed)
    with closing(socket.create_connection(("127.0.0.1", site.port))) as client:
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        until(lambda: site.server.answering.live.in_flight, bool)
    assert until(lambda: of(site, "llmbatch_live_requests_total"), bool) == {'{outcome="gone"}': 1}


def test_a_client_that_leaves_in_the_middle_of_a_stream_is_counted(sites, until) -> None:
    site = sites.start({"latency": 0.5})
    with site.openai() as client:
        asked: Any = [{"role": "user", "content": "one two three four five six"}]
        stream = client.chat.completions.create(model="demo", messages=asked, stream=True)
        next(stream)
        stream.close()
    assert until(lambda: of(site, "llmbatch_live_requests_total"), bool) == {'{outcome="gone"}': 1}


def test_bytes_are_counted_as_they_come_and_as_they_lie_there(site, begin, ended, lines) -> None:
    client, content = site.openai(), lines.many(3)
    file = client.files.create(file=("a.jsonl", content), purpose="batch")
    assert figures(site)["llmbatch_uploaded_bytes_total"] == len(content)
    assert figures(site)["llmbatch_stored_bytes"] == len(content)
    client.files.delete(file.id)
    assert figures(site)["llmbatch_uploaded_bytes_total"] == len(content)
    assert figures(site)["llmbatch_stored_bytes"] == 0
    batch = ended(client, begin(client, content))
    written = len(client.files.content(batch.output_file_id).content)
    assert figures(site)["llmbatch_stored_bytes"] == len(content) + written
