"""Whole runs against the stand-in: what is asked how often, and what each row comes to."""

from __future__ import annotations

import itertools
import json
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from llmbatch.core.errors import EngineError
from llmbatch.core.events import Event, Note
from llmbatch.core.types import Prompt
from llmbatch.job.job import DEMO_MODEL, Job, job_from
from llmbatch.model.tokenizer import ChatSettings, load_tokenizer

Serve = Callable[..., tuple[Any, str]]
MODELS = ["vllm_model", "batched", "decoupled", "echo"]


def job_at(jobs: Any, url: str, rows: Any, model: str = "vllm_model", **sections: Any) -> Job:
    return jobs.job(rows, **data_at(url, model, **sections))


def data_at(url: str, model: str = "vllm_model", **sections: Any) -> dict[str, Any]:
    engine = {"name": "kserve", "urls": url, "timeout": 20, **sections.pop("engine", {})}
    return {"model": model, "engine": engine, **sections}


def texts(count: int, bad: int | None = None) -> list[dict[str, Any]]:
    """Rows; of every ``bad`` of them the third is one that the server refuses."""
    return [{"id": f"r{i}", "text": f"{'BOOM ' if bad and i % bad == 2 else ''}text number {i}"} for i in range(count)]


def statuses(jobs: Any) -> list[str]:
    return [record["status"] for record in jobs.records()]


@pytest.mark.parametrize("model", MODELS)
def test_a_row_that_the_server_refuses_costs_only_itself(jobs: Any, serve: Serve, model: str) -> None:
    server, url = serve()
    jobs.run(job_at(jobs, url, jobs.rows(texts(60, bad=20)), model))
    records = jobs.records()
    assert [record["index"] for record in records if record["status"] != "ok"] == [2, 22, 42]
    assert {record["status"] for record in records} == {"ok", "failed"}
    assert [r["output"] for r in records if r["status"] == "ok"] == [
        r["text"] for r in texts(60, bad=20) if "BOOM" not in r["text"]
    ]
    assert "the model says no" in records[2]["error"]["message"]
    call = "generate" if model == "decoupled" else "infer"
    assert {seen.path for seen in server.seen} == {f"/v2/models/{model}/{call}"}


def test_rows_share_a_request_where_the_model_takes_batches(jobs: Any, serve: Serve) -> None:
    server, url = serve()
    jobs.run(job_at(jobs, url, jobs.rows(texts(64)), "batched"))
    assert statuses(jobs) == ["ok"] * 64
    assert [len(seen.prompts) for seen in server.seen] == [8] * 8
    assert sorted(server.prompts) == sorted(row["text"] for row in texts(64))


def test_the_neighbours_of_a_bad_row_are_asked_once_more_and_alone(jobs: Any, serve: Serve) -> None:
    server, url = serve()
    jobs.run(job_at(jobs, url, jobs.rows(texts(16, bad=16)), "batched"))
    together = next(seen for seen in server.seen if "BOOM text number 2" in seen.prompts and len(seen.prompts) > 1)
    asked = Counter(server.prompts)
    assert asked.pop("1") == 3, "each time that it fails it is seen to work"
    for prompt, times in asked.items():
        if prompt != "BOOM text number 2":
            assert times == (2 if prompt in together.prompts else 1)
    assert asked["BOOM text number 2"] == 3  # of the two alone one is the row's own second attempt: 500 may be a fault


@pytest.mark.parametrize(("rows", "engine"), [(1, {"batch": 1}), (4, {"batch": 4}), (3, {"batch": 3})])
def test_the_job_says_how_many_rows_share_a_request(jobs: Any, serve: Serve, rows: int, engine: Any) -> None:
    server, url = serve()
    jobs.run(job_at(jobs, url, jobs.rows(texts(12)), "echo", engine=engine))
    assert statuses(jobs) == ["ok"] * 12
    assert [len(seen.prompts) for seen in server.seen] == [rows] * (12 // rows)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
@pytest.mark.parametrize("model", ["vllm_model", "batched"])
def test_what_a_server_has_no_time_for_is_asked_again_and_leaves_no_trace(
    jobs: Any, serve: Serve, v2: Any, status: int, model: str
) -> None:
    def fails(seen: Any) -> Any:
        return v2.Reply(status, {"error": "busy"}, {"Retry-After": "0"}) if seen.number <= 3 else None

    server, url = serve(fails=fails)
    jobs.run(job_at(jobs, url, jobs.rows(texts(4)), model))
    assert [(record["status"], record["attempts"]) for record in jobs.records()] == [("ok", 1)] * 4
    assert len(server.seen) == (4 if model == "batched" else 7)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_a_server_refuses_is_never_asked_again(jobs: Any, serve: Serve, v2: Any, status: int) -> None:
    server, url = serve(fails=lambda seen: v2.Reply(status, {"error": "not this"}) if "1" in seen.prompts[0] else None)
    jobs.run(job_at(jobs, url, jobs.rows(texts(3))))
    assert statuses(jobs) == ["ok", "failed", "ok"]
    error = jobs.records()[1]["error"]
    assert error == {"kind": "refused", "message": f"the server says {status}: not this"}
    assert Counter(server.prompts) == Counter(row["text"] for row in texts(3))


def test_a_fault_of_the_server_is_tried_again_within_the_rows_attempts(jobs: Any, serve: Serve, v2: Any) -> None:
    def fails(seen: Any) -> Any:
        return v2.Reply(500, {"error": "broken"}) if seen.number == 1 else None

    server, url = serve(fails=fails)
    jobs.run(job_at(jobs, url, jobs.rows(texts(1))))
    (record,) = jobs.records()
    assert (record["status"], record["attempts"], record["history"][0]["error"]["kind"]) == ("ok", 2, "engine")
    assert [seen.prompts for seen in server.seen] == [("text number 0",), ("1",), ("text number 0",)], (
        "the server works"
    )


def healed_after(deaths: int, server: Any) -> Callable[[Event], None]:
    """Lets a server answer again once it was given up so often; what was in flight then goes again."""
    given_up = itertools.count(1)

    def watch(event: Event) -> None:
        died = isinstance(event, Note) and "answered nothing while a request failed" in event.message
        if died and next(given_up) == deaths:
            server.fails = lambda _: None

    return watch


@pytest.mark.parametrize("model", ["vllm_model", "batched"])
def test_no_row_is_blamed_while_the_server_fails_at_all_of_them(
    jobs: Any, serve: Serve, v2: Any, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmbatch.engines.http.sender.back_off", lambda *_: 0.0)
    monkeypatch.setattr("llmbatch.engines.supervised._BACKOFF_SECONDS", (0.0,))
    server, url = serve(fails=lambda _: v2.Reply(500, {"error": "CUDA error"}))
    jobs.run(job_at(jobs, url, jobs.rows(texts(4)), model), healed_after(2, server))
    assert [(record["status"], record["attempts"]) for record in jobs.records()] == [("ok", 1)] * 4
    server.fails = lambda _: v2.Reply(500, {"error": "CUDA error"})
    other = str(jobs.path / "other")
    with pytest.raises(EngineError, match=r"answered nothing while a request failed.*status 500"):
        jobs.run(job_at(jobs, url, jobs.rows(texts(4)), model, output=other, engine={"restarts": 1}))
    server.fails = lambda _: None
    jobs.run(job_at(jobs, url, jobs.rows(texts(4)), model, output=other))
    assert [(record["status"], record["attempts"]) for record in jobs.records("other")] == [("ok", 1)] * 4


def test_no_row_that_was_in_flight_when_an_outage_began_is_blamed_for_it(
    jobs: Any, serve: Serve, v2: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmbatch.engines.http.sender.back_off", lambda *_: 0.0)
    monkeypatch.setattr("llmbatch.engines.supervised._BACKOFF_SECONDS", (0.0,))
    begun = threading.Event()

    def fails(seen: Any) -> Any:
        if seen.number > 20:
            begun.set()
        elif "text number 0" not in seen.prompts:
            return None
        else:  # others are answered while this one is in flight
            assert begun.wait(20)
        return v2.Reply(500, {"error": "CUDA error"})

    server, url = serve(fails=fails)
    jobs.run(job_at(jobs, url, jobs.rows(texts(30)), engine={"in_flight": 2}), healed_after(1, server))
    assert begun.is_set()
    assert [(record["status"], record["attempts"]) for record in jobs.records()] == [("ok", 1)] * 30


def test_access_that_is_denied_while_a_gateway_restarts_is_tried_again(
    jobs: Any, serve: Serve, v2: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmbatch.engines.supervised._BACKOFF_SECONDS", (0.0,))
    missing = {"error": "Request for unknown model: 'vllm_model' is not found"}
    _, url = serve(fails=lambda seen: v2.Reply(404, missing) if seen.number == 3 else None)
    answers, denied = v2.StandIn.reply, itertools.count(1)

    def reply(self: Any, path: str, *asked: Any) -> Any:
        looks_again = path == "/v2/health/ready" and len(self.seen) >= 3
        return (
            v2.Reply(403, {"error": "starting"}) if looks_again and next(denied) <= 2 else answers(self, path, *asked)
        )

    monkeypatch.setattr(v2.StandIn, "reply", reply)
    jobs.run(job_at(jobs, url, jobs.rows(texts(8)), engine={"in_flight": 1}))
    assert [(record["status"], record["attempts"]) for record in jobs.records()] == [("ok", 1)] * 8
    assert [note.partition(" (")[0] for note in jobs.notes() if "restarted" in note] == [
        f"the engine could not be restarted: {url} denies access"
    ] * 2


def test_no_row_is_blamed_where_one_of_two_servers_fails_at_all_of_them(
    jobs: Any, serve: Serve, v2: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmbatch.engines.http.sender.back_off", lambda *_: 0.0)
    broken, there = serve(fails=lambda _: v2.Reply(500, {"error": "CUDA error"}))
    _, other = serve(seconds=0.01)
    jobs.run(job_at(jobs, f"{there},{other}", jobs.rows(texts(60)), engine={"in_flight": 4}))
    assert [(record["status"], record["attempts"]) for record in jobs.records()] == [("ok", 1)] * 60
    assert broken.seen


def test_the_last_rows_are_to_blame_where_the_server_answers_something_else(jobs: Any, serve: Serve) -> None:
    _server, url = serve()
    jobs.run(job_at(jobs, url, jobs.rows([*texts(2)[:1], {"id": "bad", "text": "BOOM"}])))
    assert statuses(jobs) == ["ok", "failed"]
    error = jobs.records()[1]["error"]
    assert error == {"kind": "engine", "message": "the server says 500: the model says no"}
    jobs.run(job_at(jobs, url, jobs.rows([{"text": "BOOM"}] * 3), output=str(jobs.path / "bad")))
    assert [record["error"] for record in jobs.records("bad")] == [error] * 3


def test_a_key_that_is_revoked_half_way_ends_the_run_which_goes_on_with_a_right_one(
    jobs: Any, serve: Serve, v2: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUR_KEY", "right-key")
    denied = v2.Reply(401, {"error": "it was revoked"})
    server, url = serve(key="right-key", fails=lambda seen: denied if seen.number >= 10 else None)
    job = job_at(jobs, url, jobs.rows(texts(200)), engine={"key_env": "OUR_KEY", "in_flight": 2})
    with pytest.raises(EngineError, match=r"denies access \(status 401\).*it was revoked.*engine\.key_env") as said:
        jobs.run(job)
    assert "right-key" not in str(said.value)
    assert len(server.seen) < 20
    server.fails = lambda _: None
    jobs.run(job)
    assert statuses(jobs) == ["ok"] * 200


def test_tokens_that_the_server_does_not_tell_are_counted_by_their_length_which_is_said_once(
    jobs: Any, serve: Serve
) -> None:
    server, url = serve()
    result = jobs.run(job_at(jobs, url, jobs.rows(texts(20)), "echo", run={"price_per_million": "1000,3000"}))
    record = jobs.records()[0]
    assert record["output"] == "text number 0"
    assert (record["usage"]["prompt_tokens"], record["usage"]["completion_tokens"]) == (4, 4)
    assert (jobs.path / "out" / "engine.log").read_text().count("does not say how many tokens") == 1
    assert result.report["cost"] == pytest.approx(20 * (4 * 1000 + 4 * 3000) / 1e6)
    server.seconds = 0.01
    dear = {"run": {"price_per_million": 1e6, "max_cost": 5.0}, "engine": {"in_flight": 1}}
    stopped = jobs.run(job_at(jobs, url, jobs.rows(texts(300)), "echo", output=str(jobs.path / "dear"), **dear))
    assert "max_cost of 5 is spent" in stopped.report["error"]
    assert 0 < stopped.report["rows"]["done"] < 300


@pytest.mark.parametrize("body", ["<html>Bad gateway</html>", '{"outputs": [', "{}"], ids=["html", "cut", "empty"])
def test_what_is_no_answer_is_asked_again(jobs: Any, serve: Serve, v2: Any, body: str) -> None:
    server, url = serve(fails=lambda seen: v2.Reply(200, body, kind="text/html") if seen.number == 1 else None)
    jobs.run(job_at(jobs, url, jobs.rows(texts(2))))
    assert statuses(jobs) == ["ok", "ok"]
    assert len(server.seen) == 3


def test_connections_that_are_lost_cost_no_row(jobs: Any, serve: Serve, v2: Any) -> None:
    server, url = serve(fails=lambda seen: v2.Reply(0) if seen.number % 4 == 1 else None)
    result = jobs.run(job_at(jobs, url, jobs.rows(texts(20))))
    assert [(record["status"], record["attempts"]) for record in jobs.records()] == [("ok", 1)] * 20
    assert result.report["sessions"][0]["engine_restarts"] == 0
    assert len(server.seen) > 20


def test_a_server_that_lost_its_model_is_waited_for(jobs: Any, serve: Serve, v2: Any) -> None:
    missing = {"error": "Request for unknown model: 'vllm_model' is not found"}
    _, url = serve(fails=lambda seen: v2.Reply(404, missing) if seen.number == 3 else None)
    result = jobs.run(job_at(jobs, url, jobs.rows(texts(8))))
    assert [(record["status"], record["attempts"]) for record in jobs.records()] == [("ok", 1)] * 8
    assert result.report["sessions"][0]["engine_restarts"] == 1


@pytest.mark.parametrize("model", MODELS)
def test_a_killed_run_goes_on_with_the_same_bytes(jobs: Any, serve: Serve, model: str) -> None:
    server, url = serve()
    rows, window = jobs.rows(texts(40, bad=13)), {"window": 10}
    jobs.run(job_at(jobs, url, rows, model, run=window, output=str(jobs.path / "whole")))
    asked = len(server.prompts)
    jobs.killed(jobs.data(rows, **data_at(url, model, run=window)), "part-sealed:2")
    jobs.run(job_at(jobs, url, rows, model, run=window))
    assert jobs.results() == jobs.results("whole")
    assert len(server.prompts) < 3 * asked


def test_settings_go_to_the_server_and_its_counts_into_the_record(jobs: Any, serve: Serve) -> None:
    server, url = serve()
    sampling = {"temperature": 0, "max_tokens": 2, "stop": ["x"], "seed": 3}
    jobs.run(job_at(jobs, url, jobs.rows(texts(1)), sampling=sampling, retry={"max_attempts": 1}))
    (record,) = jobs.records()
    assert json.loads(server.seen[0].values["sampling_parameters"]) == sampling
    assert (record["status"], record["finish_reason"], record["output"]) == ("truncated", "length", None)
    assert (record["usage"]["prompt_tokens"], record["usage"]["completion_tokens"]) == (3, 2)


def test_an_answer_that_is_cut_off_is_asked_again_with_more_room(jobs: Any, serve: Serve) -> None:
    _, url = serve()
    jobs.run(job_at(jobs, url, jobs.rows(texts(2)), sampling={"temperature": 0, "max_tokens": 2}))
    assert [(record["output"], record["attempts"]) for record in jobs.records()] == [
        ("text number 0", 2),
        ("text number 1", 2),
    ]


def test_that_an_answer_in_circles_goes_on_to_its_end_is_said_once(jobs: Any, serve: Serve) -> None:
    server, url = serve(answer=lambda prompt: "round and " * 40 if "1" in prompt else prompt)
    jobs.run(job_at(jobs, url, jobs.rows(texts(3)), answer={"repetition": True}, retry={"max_attempts": 1}))
    assert [record.get("error", {}).get("kind") for record in jobs.records()] == [None, "repetition", None]
    assert (jobs.path / "out/engine.log").read_text().count("runs in circles") == 1
    assert all("loops" not in str(seen.values) for seen in server.seen)


def test_what_sampling_the_model_has_no_input_for_is_said(jobs: Any, serve: Serve) -> None:
    _, url = serve()
    jobs.run(
        job_at(
            jobs,
            url,
            jobs.rows(texts(1)),
            "batched",
            sampling={"temperature": 0},
            engine={"dialect": "trtllm-ensemble"},
        )
    )
    assert "no input top_k, which sampling.top_k would go to" in jobs.records()[0]["error"]["message"]


def test_several_servers_share_the_work(jobs: Any, serve: Serve) -> None:
    (one, first), (other, second) = serve(), serve()
    jobs.run(job_at(jobs, f"{first},{second}", jobs.rows(texts(200))))
    assert statuses(jobs) == ["ok"] * 200
    assert len(one.seen) + len(other.seen) == 200
    assert one.seen and other.seen


def test_several_messages_need_a_tokenizer_whose_template_makes_one_text_of_them(jobs: Any, serve: Serve) -> None:
    server, url = serve()
    messages = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}]
    data = jobs.data(jobs.rows([{"custom_id": "a", "body": {"messages": messages}}]), **data_at(url))
    del data["prompt"]
    jobs.run(job_from(data))
    assert "this prompt has 2 messages: give engine.tokenizer" in jobs.records()[0]["error"]["message"]
    assert server.seen == []
    engine = {**data["engine"], "tokenizer": str(DEMO_MODEL)}
    jobs.run(job_from({**data, "output": str(jobs.path / "rendered"), "engine": engine}))
    text = load_tokenizer(str(DEMO_MODEL), ChatSettings()).render(Prompt(messages=tuple(messages)))
    assert server.seen[0].prompts == (text,)
    assert "be kind" in str(text) and str(text) != "be kindhi"


def test_the_key_is_sent_and_written_nowhere(jobs: Any, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUR_KEY", "s3cret-s3cret")
    server, url = serve()
    jobs.run(job_at(jobs, url, jobs.rows(texts(2)), engine={"key_env": "OUR_KEY"}))
    assert {seen.headers["authorization"] for seen in server.seen} == {"Bearer s3cret-s3cret"}
    for file in (jobs.path / "out").rglob("*"):
        assert not file.is_file() or b"s3cret" not in file.read_bytes(), file
