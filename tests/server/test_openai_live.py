"""Live requests by OpenAI's own client: whole, streamed, refused, and beside batches on the same engine."""

from __future__ import annotations

import json
import socket
from contextlib import closing
from typing import Any

import openai
import pytest

ASKED: Any = [{"role": "user", "content": "one loaf of rye"}]
RULES = {"rules": [{"when": {"contains": "hang"}, "hang": True}, {"when": {"contains": "fail"}, "fail": "no"},
                   {"when": {"contains": "json"}, "answer": '{"a": 1}'}]}  # fmt: skip

BODY = json.dumps({"model": "demo", "messages": [{"role": "user", "content": "hang"}]})
HANGS = (
    "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    f"Content-Length: {len(BODY)}\r\n\r\n{BODY}"
).encode()


@pytest.fixture(scope="module")
def client(lasting) -> Any:
    return lasting(RULES).openai()


def test_a_conversation_is_answered(client) -> None:
    answers = [client.chat.completions.create(model="demo", messages=ASKED, max_tokens=64) for _ in range(2)]
    assert answers[0].choices[0].message.content == "one loaf of rye"
    assert answers[0].choices[0].finish_reason == "stop"
    assert answers[0].usage.total_tokens > 0
    assert answers[0].id.startswith("chatcmpl-")
    assert answers[0].id != answers[1].id


def test_several_answers_come_as_choices(client) -> None:
    answer = client.chat.completions.create(model="demo", messages=ASKED, n=3, seed=1)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]


def test_an_answer_that_is_cut_off_is_an_answer(client) -> None:
    answer = client.chat.completions.create(model="demo", messages=ASKED, max_completion_tokens=3)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("one", "length")


def test_a_schema_holds(client) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = client.chat.completions.create(
        model="demo", messages=[{"role": "user", "content": "json"}], response_format=form
    )
    assert json.loads(answer.choices[0].message.content) == {"a": 1}


def test_a_stream_gives_the_same_answer_in_pieces(client) -> None:
    stream = client.chat.completions.create(
        model="demo", messages=ASKED, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == "one loaf of rye"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len(chunks) > 4
    assert [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason] == ["stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens > 0
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stream_of_several_answers_says_whose_each_piece_is(client) -> None:
    texts = {0: "", 1: ""}
    for chunk in client.chat.completions.create(model="demo", messages=ASKED, n=2, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == {0: "one loaf of rye", 1: "one loaf of rye"}


def test_a_text_is_gone_on_from_whole_and_streamed(client) -> None:
    whole = client.completions.create(model="demo", prompt="one loaf", max_tokens=64)
    assert whole.choices[0].text == "one loaf"
    pieces = client.completions.create(model="demo", prompt="one loaf", max_tokens=64, stream=True)
    assert "".join(choice.text for piece in pieces for choice in piece.choices) == "one loaf"


def test_a_response_is_given_whole_and_streamed(client) -> None:
    whole = client.responses.create(model="demo", input="one loaf", instructions="Repeat.")
    assert (whole.output_text, whole.status) == ("one loaf", "completed")
    events = list(client.responses.create(model="demo", input="one loaf", stream=True))
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "one loaf"
    assert events[-1].response.output_text == "one loaf"
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_a_response_may_ask_for_reasoning_as_inspect_does_where_there_is_none(client) -> None:
    asked: Any = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "one loaf"}]}]
    answer = client.responses.create(
        model="demo", input=asked, include=["reasoning.encrypted_content"], reasoning={"summary": "auto"}, store=False
    )
    assert answer.output_text == "one loaf"
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model="demo", input=asked, reasoning={"effort": "high"})


@pytest.mark.parametrize("prompt", ["abc", [97, 98, 99]], ids=["text", "ids"])
@pytest.mark.parametrize("most", [0, 1])
def test_a_prompt_that_is_said_again_has_the_log_probabilities_of_its_tokens(client, prompt: Any, most: int) -> None:
    said = client.completions.create(model="demo", prompt=prompt, max_tokens=most, logprobs=1, echo=True).choices[0]
    answer = said.text.removeprefix("abc")
    assert said.text.startswith("abc") and len(answer) == most
    assert said.logprobs.tokens == ["a", "b", "c", *answer]
    assert said.logprobs.text_offset == list(range(3 + most))
    first, *others = said.logprobs.token_logprobs
    assert first is None and said.logprobs.top_logprobs[0] is None
    assert others[:2] == [-(98 - 32) / 256, -(99 - 32) / 256]
    assert said.logprobs.top_logprobs[1:3] == [{" ": 0.0}] * 2


def test_of_several_prompts_each_has_its_own_tokens(client) -> None:
    said = client.completions.create(model="demo", prompt=[[97, 98], [99]], max_tokens=0, logprobs=0, echo=True)
    assert [(choice.text, choice.logprobs.tokens) for choice in said.choices] == [("ab", ["a", "b"]), ("c", ["c"])]


def test_without_echo_only_the_answer_has_log_probabilities(client) -> None:
    given = {"prompt_logprobs": 1}
    said = client.completions.create(model="demo", prompt="ab", max_tokens=1, logprobs=1, extra_body=given).choices[0]
    assert said.logprobs.tokens == [said.text]
    said = client.completions.create(model="demo", prompt="ab", max_tokens=1, extra_body=given).choices[0]
    assert said.logprobs is None


def test_a_prompt_of_token_ids_is_said_again_only_with_log_probabilities(client) -> None:
    with pytest.raises(openai.BadRequestError, match="token ids without logprobs"):
        client.completions.create(model="demo", prompt=[[5, 6], [7]], max_tokens=1, echo=True)


def test_texts_become_vectors_where_the_model_gives_them(sites) -> None:
    client = sites.start({"dimensions": 4}, job={"program": {"name": "embed"}}).openai()
    answer = client.embeddings.create(model="demo", input=["one", "two"], encoding_format="float")
    assert [len(item.embedding) for item in answer.data] == [4, 4]
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="demo", messages=ASKED)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("given", "status", "param"),
    [
        ({"model": "other"}, 404, "model"),
        ({"temperature": "hot"}, 400, "temperature"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "user", "content": " "}]}, 400, None),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, 400, None),
        ({"tools": [{"type": "function"}]}, 400, "tools"),
        ({"n": 100_000}, 400, None),
    ],
    ids=["model", "temperature", "no-messages", "blank", "no-parser", "tools", "many"],
)
def test_what_cannot_be_asked_is_refused_once(
    client, given: dict[str, Any], status: int, param: str | None, stream: bool
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(**{"model": "demo", "messages": ASKED, "stream": stream, **given})
    assert caught.value.status_code == status
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert caught.value.message
    if param is not None:
        assert caught.value.param == param


def test_an_engine_that_fails_a_request_says_so(client) -> None:
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "fail"}])


def test_a_client_that_goes_away_leaves_its_place(sites, until) -> None:
    site = sites.start(RULES)
    live = site.server.answering.live
    with closing(socket.create_connection(("127.0.0.1", site.port))) as client:
        client.sendall(HANGS)
        until(lambda: live.in_flight, lambda count: count == 1)
    assert until(lambda: live.in_flight, lambda count: count == 0) == 0


def test_more_at_a_time_than_is_taken_are_sent_away_for_a_while(sites, until) -> None:
    site = sites.start(RULES, live_requests=1)
    with closing(socket.create_connection(("127.0.0.1", site.port))) as client:
        client.sendall(HANGS)
        until(lambda: site.server.answering.live.in_flight, lambda count: count == 1)
        with pytest.raises(openai.RateLimitError) as caught:
            site.openai().chat.completions.create(model="demo", messages=ASKED)
    assert "x-should-retry" not in caught.value.response.headers


def test_a_live_request_goes_ahead_of_a_batch_that_fills_the_engine(sites, lines, begin, until) -> None:
    site = sites.start({"latency": 0.2, "concurrency": 2})
    client = site.openai()
    batch = begin(client, lines.many(400))
    until(lambda: client.batches.retrieve(batch).request_counts.completed, bool)
    assert client.chat.completions.create(model="demo", messages=ASKED).choices[0].message.content == "one loaf of rye"
    assert client.batches.retrieve(batch).request_counts.completed < 300
    client.batches.cancel(batch)


def test_azures_client_names_the_model_in_the_path(sites) -> None:
    client = sites.start(RULES).azure()
    answer = client.chat.completions.create(model="demo", messages=ASKED)
    assert answer.choices[0].message.content == "one loaf of rye"
    assert client.completions.create(model="demo", prompt="one", max_tokens=9).choices[0].text == "one"


def test_an_engine_without_work_is_ended_and_started_again(sites, until) -> None:
    site = sites.start(RULES, idle=0.2)
    client = site.openai()
    client.chat.completions.create(model="demo", messages=ASKED)
    shared = site.server.answering.live._shared
    until(lambda: shared.state, lambda state: state == "down")
    before = shared.account.usage
    other: Any = [{"role": "user", "content": "another text, whose answer nobody remembers"}]
    assert (
        client.chat.completions.create(model="demo", messages=other).choices[0].message.content == other[0]["content"]
    )
    assert shared.account.usage != before


def test_a_stream_whose_client_goes_away_before_its_first_piece_leaves_the_engine(sites, until) -> None:
    site = sites.start(RULES)
    live, body = site.server.answering.live, json.dumps({**json.loads(BODY), "stream": True})
    with closing(socket.create_connection(("127.0.0.1", site.port))) as client:
        client.sendall(HANGS.replace(BODY.encode(), body.encode()).replace(b"%d" % len(BODY), b"%d" % len(body)))
        until(lambda: live.in_flight, lambda number: number == 1)
    assert until(lambda: live.in_flight, lambda number: number == 0) == 0


def test_where_a_line_lies_in_the_server_is_not_told(site, lines, begin, ended) -> None:
    line = lines.chat("a", "x")
    line["body"]["metadata"] = json.loads("[" * 300 + "]" * 300)
    client = site.openai()
    [error] = lines.of(client, ended(client, begin(client, lines.jsonl([line]))).error_file_id)
    assert "input.jsonl:1" in json.dumps(error)
    assert str(site.server.store.folder) not in json.dumps(error)


def asked_tokens(site: Any) -> int:
    """Of prompts that the engine was asked, since the server began."""
    return int(site.server.answering.live._shared.account.usage.prompt_tokens)


def test_equal_live_requests_are_asked_once(site) -> None:
    client = site.openai()

    def ask(**given: Any) -> Any:
        messages = [{"role": "user", "content": "hello"}]
        return client.chat.completions.create(model="demo", messages=messages, **given)

    one = ask(temperature=0)
    once = asked_tokens(site)
    assert once > 0
    assert ask(temperature=0).choices == one.choices
    assert asked_tokens(site) == once
    assert "".join(piece.choices[0].delta.content or "" for piece in ask(temperature=0, stream=True)) == "hello"
    assert asked_tokens(site) == 2 * once  # a stream is asked anew


def test_answers_are_cached_over_servers_for_batches_and_live_requests(sites, lines, begin, ended, tmp_path) -> None:
    job = {"reuse": {"cache": str(tmp_path / "answers.cache")}, "sampling": {"temperature": 0}}
    site = sites.start(job=job)
    client = site.openai()
    answers = lines.of(client, ended(client, begin(client, lines.many(5))).output_file_id)
    first = asked_tokens(site)
    assert first > 0
    site.stop()
    site = sites.start(job=job)
    client = site.openai()
    again = lines.of(client, ended(client, begin(client, lines.many(5))).output_file_id)
    live = client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "text 3"}])
    assert said(again) == said(answers)
    assert live.choices[0].message.content == "text 3"
    assert asked_tokens(site) == 0


def said(lines: list[Any]) -> list[str]:
    return [line["response"]["body"]["choices"][0]["message"]["content"] for line in lines]
