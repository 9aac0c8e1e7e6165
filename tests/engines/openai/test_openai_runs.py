"""Whole runs on a stand-in for a server with OpenAI's API."""

from __future__ import annotations

import base64
import json
import signal
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.errors import EngineError, JobError
from llmbatch.core.types import Prompt, Request, RequestKey, Sampling
from llmbatch.engines.feed import Feed
from llmbatch.engines.kinds import make_engine
from llmbatch.engines.openai.settings import OpenAISettings
from llmbatch.job.job import job_from
from llmbatch.model.tokenizer import ChatSettings
from llmbatch.runs.session import run_job


def rows_of(jobs: Any, count: int = 40) -> Path:
    return Path(jobs.rows([{"id": f"r{i}", "text": f"text {i}"} for i in range(count)]))


def outputs(jobs: Any, folder: str = "out") -> list[Any]:
    return [record["output"] for record in jobs.records(folder)]


def test_every_row_is_answered_once(jobs: Any, server: Any, online: Any) -> None:
    result = jobs.run(job_from(online(rows_of(jobs))))
    assert outputs(jobs) == [f"text {i}" for i in range(40)]
    assert set(server.answered.values()) == {1}
    assert {path for path, _ in server.asked} == {"/v1/chat/completions"}
    assert server.asked[0][1] == {
        "model": "any", "messages": server.asked[0][1]["messages"], "max_tokens": 1024, "temperature": 0,
    }  # fmt: skip
    assert result.report["engine"]["details"]["dialect"] == "other"
    assert result.report["sessions"][0]["tokens"]["completion_tokens"] == 80


def test_a_text_prompt_goes_to_completions(jobs: Any, server: Any, online: Any) -> None:
    prompt = jobs.path / "prompt.yaml"
    prompt.write_text('name: plain\nvariables: {text: {}}\ntext: "{{ text }}"\n')
    jobs.run(job_from(online(rows_of(jobs, 3), prompt={"path": str(prompt)})))
    assert {path for path, _ in server.asked} == {"/v1/completions"}
    assert outputs(jobs) == ["text 0", "text 1", "text 2"]


def test_images_go_as_data_uris_and_a_broken_one_is_its_row_alone(jobs: Any, server: Any, online: Any) -> None:
    png = b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    (jobs.path / "red.png").write_bytes(base64.b64decode(png))
    (jobs.path / "broken.png").write_bytes(b"no image")
    whole = f"data:image/png;base64,{png.decode()}"
    prompt = jobs.path / "prompt.yaml"
    prompt.write_text(
        "name: seen\nvariables: {picture: {type: image}}\nmessages: [{role: user, content: 'See {{ picture }}'}]\n"
    )
    pictures = [str(jobs.path / "red.png"), str(jobs.path / "broken.png"), whole]
    rows = jobs.rows([{"id": i, "picture": picture} for i, picture in enumerate(pictures)])
    server.answer = lambda _: {"message": {"content": "seen"}, "finish_reason": "stop"}
    result = jobs.run(job_from(online(rows, prompt={"path": str(prompt)})))
    assert [record["status"] for record in jobs.records()] == ["ok", "failed", "ok"]
    assert jobs.records()[1]["error"]["kind"] == "image"
    parts = [body["messages"][0]["content"] for _, body in server.asked]
    urls = [part["image_url"]["url"] for content in parts for part in content if part["type"] == "image_url"]
    assert set(urls) == {whole}
    assert "images" in result.report["engine"]["can"]


WAYS: dict[str, Callable[[Any], Any]] = {
    "500": lambda _: 500,
    "503 with a wait": lambda say: say(503, {"retry-after": "0.01"}),
    "429 with a date": lambda say: say(429, {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}),
    "a page": lambda _: "html",
    "cut off": lambda _: "cut",
    "closed": lambda _: "drop",
}


@pytest.mark.parametrize("way", WAYS)
def test_what_fails_now_and_then_is_asked_again_and_nothing_is_lost(
    jobs: Any, server: Any, online: Any, stand_in: Any, way: str
) -> None:
    how = WAYS[way](stand_in.Say)
    server.behave = lambda number, _: how if number % 10 == 3 else None
    jobs.run(job_from(online(rows_of(jobs))))
    assert outputs(jobs) == [f"text {i}" for i in range(40)]
    assert len(server.asked) > 40
    assert set(server.answered.values()) == {1}, "nothing that was answered is asked again"
    assert {record["attempts"] for record in jobs.records()} == {1}, "that a server failed is no attempt"


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_the_server_refuses_is_its_row_alone_with_the_servers_words(
    jobs: Any, server: Any, online: Any, stand_in: Any, status: int
) -> None:
    refused = stand_in.Say(status, message="I do not like\nthis one")
    server.behave = lambda _, body: refused if body["messages"][-1]["content"] == "text 7" else None
    jobs.run(job_from(online(rows_of(jobs, 10))))
    assert [record["status"] for record in jobs.records()] == ["ok"] * 7 + ["failed"] + ["ok"] * 2
    failed = jobs.records()[7]["error"]
    assert f"(status {status}): I do not like this one" in failed["message"]
    assert len(server.asked) == 10, "it is not asked again"


def test_what_is_too_long_is_said_as_such(jobs: Any, server: Any, online: Any, stand_in: Any) -> None:
    server.behave = lambda *_: stand_in.Say(400, message="too many tokens", code="context_length_exceeded")
    jobs.run(job_from(online(rows_of(jobs, 2))))
    assert {record["error"]["kind"] for record in jobs.records()} == {"too_long"}


def test_a_request_at_which_the_server_always_fails_is_one_failed_row(
    jobs: Any, server: Any, online: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first: list[int] = []  # how many were answered when it failed for the first time

    def back_off(*_: Any) -> float:
        """Until others have been answered since: of five the answer of one came, as four are in flight."""
        first.append(server.answered.total())
        return 0.0 if server.answered.total() >= first[0] + 5 else 0.25

    monkeypatch.setattr("llmbatch.engines.http.sender.back_off", back_off)
    server.behave = lambda _, body: 500 if body["messages"][-1]["content"] == "text 1" else None
    # one attempt: a second one might begin when all others are answered, and then the server may be the one that fails
    jobs.run(job_from(online(rows_of(jobs, 40), engine={"in_flight": 4}, retry={"max_attempts": 1})))
    assert [record["status"] for record in jobs.records()] == ["ok", "failed", *["ok"] * 38]
    assert "8 times" in jobs.records()[1]["error"]["message"]


def test_a_request_that_always_breaks_the_connection_is_found_and_no_other_is_blamed(
    jobs: Any, server: Any, online: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmbatch.engines.http.sender.back_off", lambda *_: 0.0)

    def behave(_: int, body: dict[str, Any]) -> str | None:
        return "drop" if body["messages"][-1]["content"] == "text 1" else None

    server.behave = behave
    jobs.run(job_from(online(rows_of(jobs, 4))))
    assert [record["status"] for record in jobs.records()] == ["ok", "failed", "ok", "ok"]
    assert jobs.records()[1]["error"]["kind"] == "engine_died"


def test_a_request_that_takes_too_long_is_asked_again(jobs: Any, server: Any, online: Any) -> None:
    server.behave = lambda number, _: "hang" if number == 2 else None
    jobs.run(job_from(online(rows_of(jobs, 5), engine={"request_timeout": 0.3})))
    assert outputs(jobs) == [f"text {i}" for i in range(5)]


def test_one_of_several_servers_that_dies_is_left_out(jobs: Any, server: Any, servers: Any, online: Any) -> None:
    other = servers().start()
    gone = servers().start()
    gone.die()
    server.behave = other.behave = lambda *_: None
    jobs.run(job_from(online(rows_of(jobs, 60), engine={"urls": [server.url, gone.url, other.url], "in_flight": 4})))
    assert outputs(jobs) == [f"text {i}" for i in range(60)]
    assert sum((server.answered + other.answered).values()) == 60
    assert min(server.answered.total(), other.answered.total()) > 0
    assert "cannot be reached" in (jobs.path / "out/engine.log").read_text()


def test_a_server_that_dies_and_comes_back_is_asked_again_what_it_had_not_answered(
    jobs: Any, server: Any, online: Any
) -> None:
    server.seconds = 0.005

    def die_twice(number: int, _: dict[str, Any]) -> str | None:
        return "hang" if number in (20, 50) else None

    server.behave = die_twice
    from threading import Thread

    def kill() -> None:
        for enough in (20, 50):
            while len(server.asked) < enough:
                time.sleep(0.005)
            server.die()
            time.sleep(0.1)
            server.start()

    killer = Thread(target=kill)
    killer.start()
    jobs.run(job_from(online(rows_of(jobs, 80), engine={"in_flight": 8})))
    killer.join()
    assert outputs(jobs) == [f"text {i}" for i in range(80)]


def test_a_server_that_is_gone_ends_the_run_which_goes_on_later(jobs: Any, server: Any, online: Any) -> None:
    data = online(rows_of(jobs, 30), engine={"in_flight": 2, "timeout": 0.4, "restarts": 0})
    plain = {**data, "output": str(jobs.path / "plain")}
    run_job(job_from(plain))

    from threading import Thread

    asked = len(server.asked)
    server.behave = lambda number, _: "hang" if number == asked + 12 else None

    def kill() -> None:
        while len(server.asked) < asked + 12:
            time.sleep(0.005)
        server.die()

    killer = Thread(target=kill)
    killer.start()
    with pytest.raises(EngineError, match="Finished rows are safe"):
        jobs.run(job_from(data))
    killer.join()
    server.start()
    jobs.run(job_from(data))
    assert jobs.results() == jobs.results("plain")


def test_a_killed_run_goes_on_with_the_same_bytes(jobs: Any, server: Any, online: Any) -> None:
    server.seconds = 0.01
    data = online(rows_of(jobs, 60), engine={"in_flight": 4}, run={"window": 16, "commit_seconds": 0.01})
    plain = {**data, "output": str(jobs.path / "plain")}
    run_job(job_from(plain))
    asked = len(server.asked)
    process = jobs.start(data)
    while len(server.asked) < asked + 30:
        time.sleep(0.005)
        assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = len(server.asked)
    jobs.run(job_from(data))
    assert jobs.results() == jobs.results("plain")
    assert len(server.asked) - before < 60, "what was answered is not asked again"


def test_a_certificate_that_does_not_verify_is_said_and_can_be_trusted(
    jobs: Any, servers: Any, online: Any, server: Any, certificate: tuple[Path, ssl.SSLContext]
) -> None:
    pem, context = certificate
    secure = servers().start(tls=context)
    engine = {"urls": [secure.url]}
    said = refused(jobs, online(rows_of(jobs, 3), engine=engine))
    assert "its certificate does not verify" in said
    assert "engine.ca_file" in said
    jobs.run(job_from(online(rows_of(jobs, 3), engine={**engine, "ca_file": str(pem)})))
    assert outputs(jobs) == ["text 0", "text 1", "text 2"]


def test_a_server_that_speaks_no_tls_is_said(jobs: Any, server: Any, online: Any) -> None:
    urls = [server.url.replace("http://", "https://")]
    assert "Is it a server for http://" in refused(jobs, online(rows_of(jobs, 3), engine={"urls": urls}))


# What is said before any work is done.


def refused(jobs: Any, data: dict[str, Any], kind: type[Exception] = JobError) -> str:
    with pytest.raises(kind) as raised:
        jobs.run(job_from(data))
    return str(raised.value)


def test_a_wrong_key_is_said_once_and_ends_the_run(
    jobs: Any, server: Any, online: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = "right-key"
    monkeypatch.setenv("MY_KEY", "wrong-key")
    said = refused(jobs, online(rows_of(jobs), engine={"key_env": "MY_KEY"}))
    assert "denies access (status 401)" in said
    assert "engine.key_env" in said
    assert "wrong-key" not in said
    assert server.asked == []


def test_a_key_that_is_revoked_half_way_ends_the_run(
    jobs: Any, server: Any, online: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = "right-key"
    monkeypatch.setenv("MY_KEY", "right-key")

    def behave(number: int, _: dict[str, Any]) -> int | None:
        return 401 if number >= 10 else None

    server.behave = behave
    said = refused(jobs, online(rows_of(jobs, 1000), engine={"key_env": "MY_KEY", "in_flight": 2}), EngineError)
    assert "denies access (status 401)" in said
    assert len(server.asked) < 20
    server.behave = lambda *_: None
    jobs.run(job_from(online(rows_of(jobs, 1000), engine={"key_env": "MY_KEY", "in_flight": 2})))
    assert outputs(jobs) == [f"text {i}" for i in range(1000)]


def test_the_key_goes_to_the_server_and_nowhere_else(
    jobs: Any, server: Any, online: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = "s3cret-key"
    monkeypatch.setenv("MY_KEY", "s3cret-key")
    jobs.run(job_from(online(rows_of(jobs, 3), engine={"key_env": "MY_KEY"})))
    assert outputs(jobs) == ["text 0", "text 1", "text 2"]
    held = [path for path in (jobs.path / "out").rglob("*") if path.is_file() and b"s3cret" in path.read_bytes()]
    assert held == []


def test_a_variable_that_is_not_set_is_said_before_anything_is_begun(jobs: Any, server: Any, online: Any) -> None:
    assert "NO_SUCH_KEY is not set" in refused(jobs, online(rows_of(jobs), engine={"key_env": "NO_SUCH_KEY"}))
    assert server.headers == []


def test_a_key_in_the_place_of_its_variable_is_refused_without_repeating_it(jobs: Any, online: Any) -> None:
    said = refused(jobs, online(rows_of(jobs), engine={"key_env": "sk-live-123"}))
    assert "name of an environment variable" in said
    assert "sk-live" not in said


def test_a_model_that_the_server_lacks_is_refused_with_those_it_has(jobs: Any, server: Any, online: Any) -> None:
    server.models = {"llama-3": {}, "anyone": {}}
    said = refused(jobs, online(rows_of(jobs)))
    assert "has no model 'any'; it has anyone, llama-3" in said
    jobs.run(job_from(online(rows_of(jobs, 2), engine={"check_model": False})))
    assert outputs(jobs) == ["text 0", "text 1"]


def test_a_server_that_answers_with_pages_is_no_such_server(jobs: Any, server: Any, online: Any) -> None:
    server.lists_models = "html"
    assert "an HTML page" in refused(jobs, online(rows_of(jobs)))


def test_a_path_that_is_not_there_is_said(jobs: Any, server: Any, online: Any) -> None:
    urls = [server.url.removesuffix("/v1") + "/api"]
    assert "no server with OpenAI's API" in refused(jobs, online(rows_of(jobs), engine={"urls": urls}))


def test_a_server_without_its_path_gets_the_usual_one(jobs: Any, server: Any, online: Any) -> None:
    jobs.run(job_from(online(rows_of(jobs, 2), engine={"urls": server.url.removesuffix("/v1")})))
    assert outputs(jobs) == ["text 0", "text 1"]


def test_a_url_where_nothing_listens_is_said_at_once(jobs: Any, server: Any, online: Any) -> None:
    url = server.url
    server.die()
    said = refused(jobs, online(rows_of(jobs), engine={"urls": [url]}), EngineError)
    assert "cannot be reached" in said
    server.start()


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ({"urls": []}, "engine.urls is missing"),
        ({"urls": ["localhost:8000"]}, "begins with http"),
        ({"urls": ["http://x/v1", "http://x/v1/"]}, "twice"),
        ({"args": {"messages": []}}, "engine.args.messages has a place of its own in a job: prompt"),
        ({"args": {"temperature": 1}}, "sampling.temperature"),
        ({"replicas": 2}, "engine.urls"),
        ({"reasoning_parser": "qwen3"}, "vllm serve"),
        ({"tool_call_parser": "hermes"}, "--enable-auto-tool-choice"),
        ({"trust_remote_code": True}, "engine.trust_remote_code"),
        ({"in_flight_tokens": 5}, "engine.in_flight"),
    ],
)
def test_settings_that_are_wrong_are_refused(jobs: Any, online: Any, engine: dict[str, Any], words: str) -> None:
    assert words in refused(jobs, online(rows_of(jobs), engine=engine))


def test_a_password_in_a_url_is_refused_without_repeating_it(jobs: Any, online: Any) -> None:
    said = refused(jobs, online(rows_of(jobs), engine={"urls": ["http://me:pa55@host/v1"]}))
    assert "engine.key_env" in said
    assert "pa55" not in said


def test_a_key_in_a_urls_query_is_refused_without_repeating_it(jobs: Any, online: Any) -> None:
    with pytest.raises(JobError, match="has a query or fragment") as raised:
        job_from(online(rows_of(jobs, 1), engine={"urls": ["https://host/v1?api_key=hidden"]}))
    assert "hidden" not in str(raised.value)


def test_a_key_among_headers_is_refused_without_repeating_it(jobs: Any, online: Any) -> None:
    with pytest.raises(JobError, match="a secret has no place in a job") as raised:
        job_from(online(rows_of(jobs, 1), engine={"args": {"extra_headers": {"Authorization": "Bearer hidden"}}}))
    assert "hidden" not in str(raised.value)


def test_an_account_without_quota_ends_the_run(jobs: Any, server: Any, online: Any, stand_in: Any) -> None:
    server.behave = lambda *_: stand_in.Say(429, message="You exceeded your quota", code="insufficient_quota")
    assert "You exceeded your quota" in refused(jobs, online(rows_of(jobs)), EngineError)


def test_an_endpoint_that_the_server_lacks_ends_the_run(jobs: Any, server: Any, online: Any, stand_in: Any) -> None:
    server.behave = lambda *_: stand_in.Say(404, message="The model does not support Chat Completions API")
    said = refused(jobs, online(rows_of(jobs)), EngineError)
    assert "does not support Chat Completions" in said


def test_an_answer_without_usage_is_counted_by_its_length_and_said_once(jobs: Any, server: Any, online: Any) -> None:
    server.usage = False
    jobs.run(job_from(online(rows_of(jobs, 20))))
    assert jobs.records()[0]["usage"]["completion_tokens"] == 2
    assert (jobs.path / "out/engine.log").read_text().count("does not say how many tokens") == 1


def test_what_it_costs_is_told_by_the_servers_own_counts(jobs: Any, server: Any, online: Any) -> None:
    result = jobs.run(job_from(online(rows_of(jobs, 10), run={"price_per_million": "1000,3000"})))
    assert result.report["cost"] == pytest.approx(10 * (2 * 1000 + 2 * 3000) / 1e6)
    server.seconds = 0.01
    dear = {"price_per_million": 1e6, "max_cost": 20.0}
    output = str(jobs.path / "dear")
    stopped = jobs.run(job_from(online(rows_of(jobs, 400), output=output, run=dear, engine={"in_flight": 1})))
    assert "max_cost of 20 is spent" in stopped.report["error"]
    assert 0 < stopped.report["rows"]["done"] < 400


def test_a_request_that_nobody_wants_any_more_is_ended_at_the_server_too(tmp_path: Path, server: Any) -> None:
    server.behave = lambda _, body: "hang" if body["prompt"] == "text 0" else None
    engine = make_engine(
        "any", OpenAISettings(name="openai", urls=[server.url], timeout=30), ChatSettings(), tmp_path / "engine.log"
    )
    assert "cancel" in engine.start().can
    feed = Feed()
    feed.push([Request(RequestKey(i), Prompt(text=f"text {i}"), Sampling()) for i in range(2)])
    outcomes: list[Any] = []
    for finished in engine.stream(feed):
        outcomes += finished
        for outcome in finished:
            feed.done(outcome.key)
        if len(outcomes) == 1 and server.at_a_time == 1:
            feed.cancel(lambda key: key.index == 0)
        elif len(outcomes) == 2:
            feed.close()
    assert [(outcome.key.index, outcome.finish_reason) for outcome in outcomes] == [(1, "stop"), (0, "abort")]
    end = time.monotonic() + 20
    while server.at_a_time and time.monotonic() < end:
        time.sleep(0.005)
    assert server.at_a_time == 0, "its connection closed, so the server has ended it"
    engine.stop()


def test_further_fields_of_each_request_are_sent(jobs: Any, server: Any, online: Any) -> None:
    jobs.run(
        job_from(
            online(rows_of(jobs, 2), engine={"args": {"service_tier": "flex"}}, chat={"template_kwargs": {"a": 1}})
        )
    )
    assert {body["service_tier"] for _, body in server.asked} == {"flex"}
    assert server.asked[0][1]["chat_template_kwargs"] == {"a": 1}


def test_several_answers_to_a_row_are_as_many_requests_with_seeds_of_their_own(
    jobs: Any, server: Any, online: Any
) -> None:
    jobs.run(job_from(online(rows_of(jobs, 2), sampling={"n": 3, "temperature": 1, "seed": 5})))
    assert outputs(jobs) == [["text 0"] * 3, ["text 1"] * 3]
    assert len({json.dumps(body["seed"]) for _, body in server.asked}) == 3
    assert all("n" not in body for _, body in server.asked)


def test_as_many_are_in_flight_as_the_job_says(jobs: Any, server: Any, online: Any) -> None:
    server.seconds = 0.01
    jobs.run(job_from(online(rows_of(jobs, 40), engine={"in_flight": 5})))
    assert server.most_seen == 5


def test_a_server_that_pushes_back_gets_fewer_at_a_time(jobs: Any, server: Any, online: Any) -> None:
    server.seconds, server.most = 0.005, 6
    jobs.run(job_from(online(rows_of(jobs, 200))))
    assert outputs(jobs) == [f"text {i}" for i in range(200)]
    assert "too much to do (status 429)" in (jobs.path / "out/engine.log").read_text()
