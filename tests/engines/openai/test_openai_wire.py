"""Requests as bodies, replies as completions: pure."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from typing import Any

import pytest

from llmbatch.core.sampling import LOOPS, Loops
from llmbatch.core.types import (
    Completion,
    Constraint,
    Failure,
    Prompt,
    Refusal,
    Request,
    RequestKey,
    Sampling,
    Tools,
    Usage,
)
from llmbatch.engines.http.base import NoAnswer, Packed, Reply
from llmbatch.engines.openai.dialect import DIALECTS, vllm_dialect
from llmbatch.engines.openai.wire import OpenAIWire

USER = {"role": "user", "content": "hi"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}


def wire(dialect: str = "vllm", notes: list[str] | None = None, **args: Any) -> OpenAIWire:
    return OpenAIWire("m", DIALECTS[dialect], args, {}, (notes if notes is not None else []).append)


def request(prompt: Prompt | None = None, constraint: Constraint | None = None, **more: Any) -> Request:
    sampling = Sampling(tuple(sorted(more.pop("sampling", {}).items())))
    return Request(RequestKey(0), prompt or Prompt(messages=(USER,)), sampling, constraint, **more)


def body(packed: Packed | Failure) -> dict[str, Any]:
    assert isinstance(packed, Packed)
    found: dict[str, Any] = json.loads(packed.body)
    return found


def completion(choice: dict[str, Any], asked: Request | None = None, dialect: str = "vllm", **more: Any) -> Completion:
    whole = {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 2}, **more}
    outcome = wire(dialect).read(asked or request(), Reply(200, {}, json.dumps(whole).encode()))
    assert isinstance(outcome, Completion)
    return outcome


def test_only_what_was_asked_for_is_sent() -> None:
    assert body(wire().pack(request())) == {"model": "m", "messages": [USER]}


def test_a_requests_own_seed_and_budget_go_before_the_shared_ones() -> None:
    asked = request(sampling={"max_tokens": 5, "seed": 1, "top_k": 3}, seed=7, max_tokens=9, lora="legal")
    assert body(wire().pack(asked)) == {
        "model": "legal", "messages": [USER], "max_tokens": 9, "seed": 7, "top_k": 3,
    }  # fmt: skip


def test_openai_itself_is_told_the_budget_by_its_newer_name() -> None:
    asked = request(sampling={"max_tokens": 5}, max_tokens=9)
    assert body(wire("openai").pack(asked))["max_completion_tokens"] == 9
    assert "max_tokens" not in body(wire("openai").pack(asked))
    plain = request(Prompt(text="x"), sampling={"max_tokens": 5})
    assert body(wire("openai").pack(plain)) == {"model": "m", "prompt": "x", "max_tokens": 5}


@pytest.mark.parametrize(("asked", "sent"), [(None, 511), (2000, 511), (512, 511), (5, 5)])
def test_no_answer_is_asked_for_that_is_longer_than_the_context(asked: int | None, sent: int) -> None:
    ours = wire()
    ours.context_length = 512
    assert body(ours.pack(request(Prompt(text="x"), max_tokens=asked)))["max_tokens"] == sent


@pytest.mark.parametrize("dialect", sorted(set(DIALECTS) - {"vllm"}))
def test_a_server_that_refuses_a_budget_beyond_its_context_is_given_none(dialect: str) -> None:
    ours = wire(dialect)
    ours.context_length = 512
    assert not {"max_tokens", "max_completion_tokens"} & set(body(ours.pack(request())))


@pytest.mark.parametrize("dialect", [name for name in DIALECTS if name != "vllm"])
def test_a_schema_is_sent_as_a_response_format(dialect: str) -> None:
    sent = body(wire(dialect).pack(request(constraint=Constraint("json", json.dumps(SCHEMA)))))
    assert sent["response_format"]["json_schema"] == {"name": "output", "schema": SCHEMA, "strict": True}


def test_a_schema_that_openai_would_not_take_as_strict_is_not_sent_as_such() -> None:
    loose = {**SCHEMA, "required": []}
    sent = body(wire("openai").pack(request(constraint=Constraint("json", json.dumps(loose)))))
    assert "strict" not in sent["response_format"]["json_schema"]


def test_vllm_is_sent_a_schema_as_a_grammar_without_white_space_to_fill_answers_with() -> None:
    pytest.importorskip("xgrammar")
    sent = body(wire("vllm").pack(request(constraint=Constraint("json", json.dumps(SCHEMA)))))
    assert "response_format" not in sent
    assert re.search(r'^root ::= .*"a\\"" ": " ', sent["structured_outputs"]["grammar"], re.MULTILINE)
    assert "root ::= " in sent["structured_outputs"]["grammar"]


def test_vllm_is_sent_a_response_format_where_grammars_are_not_wanted() -> None:
    ours = OpenAIWire("m", replace(DIALECTS["vllm"], grammars=False), {}, {}, lambda _: None)
    sent = body(ours.pack(request(constraint=Constraint("json", json.dumps(SCHEMA)))))
    spaced = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    assert sent["response_format"]["json_schema"]["schema"] == {**SCHEMA, "x-guidance": spaced}


def test_without_xgrammar_vllm_is_sent_a_response_format_which_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xgrammar", None)
    notes: list[str] = []
    sent = body(wire("vllm", notes).pack(request(constraint=Constraint("json", json.dumps(SCHEMA)))))
    assert "response_format" in sent
    assert "pip install xgrammar" in notes[0]


def test_a_server_that_takes_no_such_grammar_is_answered_with_what_to_set() -> None:
    said = {"error": {"message": "Failed to convert the grammar from GBNF to Lark", "code": 400}}
    reply = Reply(400, {}, json.dumps(said).encode())
    asked = request(constraint=Constraint("json", json.dumps(SCHEMA)))
    assert "engine.schemas=response_format" in wire("vllm").refusal(asked, reply).message
    assert "engine.schemas" not in wire("openai").refusal(asked, reply).message
    assert "engine.schemas" not in wire("vllm").refusal(request(), reply).message


def test_an_older_vllm_is_sent_a_response_format() -> None:
    assert "response_format" in vllm_dialect("0.9.2").fields(Constraint("json", json.dumps(SCHEMA)))


CHOICE = Constraint("choice", '["yes", "no"]')


@pytest.mark.parametrize(
    ("dialect", "constraint", "fields"),
    [
        ("vllm", CHOICE, {"structured_outputs": {"choice": ["yes", "no"]}}),
        ("vllm", Constraint("regex", "a+"), {"structured_outputs": {"regex": "a+"}}),
        ("vllm", Constraint("grammar", "root ::= x"), {"structured_outputs": {"grammar": "root ::= x"}}),
        ("sglang", Constraint("regex", "a+"), {"regex": "a+"}),
        ("sglang", Constraint("grammar", "root ::= x"), {"ebnf": "root ::= x"}),
        ("llamacpp", Constraint("grammar", "root ::= x"), {"grammar": "root ::= x"}),
        ("openai", Constraint("regex", "a+"), {}),
    ],
)
def test_each_kind_of_server_is_told_a_constraint_in_its_own_words(
    dialect: str, constraint: Constraint, fields: dict[str, Any]
) -> None:
    sent = body(wire(dialect).pack(request(constraint=constraint)))
    assert {key: value for key, value in sent.items() if key not in ("model", "messages")} == fields


def test_a_constraint_that_the_server_cannot_hold_is_said() -> None:
    notes: list[str] = []
    wire("openai", notes).pack(request(constraint=Constraint("regex", "a+")))
    assert "cannot hold an answer to a regex" in notes[0]


def test_older_versions_of_vllm_have_a_field_for_each() -> None:
    assert vllm_dialect("0.9.2").fields(CHOICE) == {"guided_choice": ["yes", "no"]}
    assert vllm_dialect("0.32.0").fields(CHOICE) == {"structured_outputs": {"choice": ["yes", "no"]}}


def test_a_choice_is_taken_out_of_what_it_was_wrapped_in() -> None:
    asked = request(constraint=CHOICE)
    sent = body(wire("openai").pack(asked))["response_format"]["json_schema"]["schema"]
    assert sent["properties"]["answer"]["enum"] == ["yes", "no"]
    assert completion({"message": {"content": '{"answer": "no"}'}}, asked, "openai").text == "no"
    assert completion({"message": {"content": "no"}}, asked, "openai").text == "no"
    assert completion({"message": {"content": '{"answer": "no"}'}}, asked, "vllm").text == '{"answer": "no"}'


def test_a_prefill_is_gone_on_from() -> None:
    asked = request(Prompt(messages=(USER,), prefill="So, "))
    begun = {"role": "assistant", "content": "So, "}
    assert body(wire().pack(asked)) == {
        "model": "m", "messages": [USER, begun], "continue_final_message": True, "add_generation_prompt": False,
    }  # fmt: skip
    assert body(wire("llamacpp").pack(asked)) == {"model": "m", "messages": [USER, begun]}
    assert body(wire().pack(request(Prompt(text="a", prefill="b")))) == {"model": "m", "prompt": "ab"}


@pytest.mark.parametrize("text", ["then", " then", "So, then"])
def test_a_prefill_is_not_in_the_answer_twice(text: str) -> None:
    asked = request(Prompt(messages=(USER,), prefill="So, "))
    assert completion({"message": {"content": text}}, asked).text == "then"


def test_the_thinking_is_apart_by_either_name() -> None:
    for name in ("reasoning", "reasoning_content"):
        found = completion({"message": {"content": "42", name: "hm"}})
        assert (found.text, found.reasoning) == ("42", "hm")


def test_tool_calls_are_kept_as_they_come() -> None:
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}]
    found = completion({"message": {"content": None, "tool_calls": calls}, "finish_reason": "tool_calls"})
    assert (found.text, found.tool_calls, found.finish_reason) == ("", calls, "stop")


def test_calls_of_an_answer_that_was_cut_off_are_text() -> None:
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": '}}]
    found = completion({"message": {"content": None, "tool_calls": calls}, "finish_reason": "length"})
    assert (found.text, found.tool_calls, found.finish_reason) == ('{"x": ', None, "length")


def test_calls_without_a_function_are_no_answer() -> None:
    with pytest.raises(NoAnswer, match="a call of a tool without a function"):
        completion({"message": {"content": None, "tool_calls": [{"id": "1", "function": {"arguments": None}}]}})


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_tools_are_offered_to_the_server_which_holds_the_answer_to_them(choice: Any) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    schema = Constraint("json", '{"type": "array"}')
    asked = replace(request(Prompt(messages=(USER,), tools=Tools((tool,), choice))), constraint=schema)
    sent = body(wire().pack(asked))
    assert (sent["tools"], sent["tool_choice"]) == ([tool], choice)
    assert any(key in sent for key in ("response_format", "structured_outputs")) is (choice == "auto")


def test_logprobs_of_chat_and_of_completions_come_in_the_same_shape() -> None:
    ours = [{"token": "a", "logprob": -0.5, "top": [{"token": "b", "logprob": -0.1}, {"token": "a", "logprob": -0.5}]}]
    tops = [{"token": "a", "logprob": -0.5, "bytes": None}, {"token": "b", "logprob": -0.1}]
    chat = {"content": [{"token": "a", "logprob": -0.5, "top_logprobs": tops}]}
    assert completion({"message": {"content": "a"}, "logprobs": chat}).logprobs == ours
    plain = {"tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": [{"a": -0.5, "b": -0.1}]}
    assert completion({"text": "a", "logprobs": plain}).logprobs == ours
    asked = request(sampling={"logprobs": 2})
    assert body(wire().pack(asked)) == {"model": "m", "messages": [USER], "logprobs": True, "top_logprobs": 2}
    text = request(Prompt(text="x"), sampling={"logprobs": 2})
    assert body(wire().pack(text)) == {"model": "m", "prompt": "x", "logprobs": 2}


@pytest.mark.parametrize(
    "said", [{"content": [{"logprob": -1}]}, {"content": [7]}, {"tokens": ["a"], "token_logprobs": ["low"]}], ids=str
)
def test_log_probabilities_that_cannot_be_read_are_no_answer(said: Any) -> None:
    with pytest.raises(NoAnswer, match="log-probabilities that cannot be read"):
        completion({"message": {"content": "x"}, "logprobs": said})


def test_a_log_probability_that_is_no_number_is_the_lowest() -> None:
    tokens = [{"token": "a", "logprob": each} for each in (float("nan"), float("-inf"), None, -0.5)]
    found = completion({"message": {"content": "x"}, "logprobs": {"content": tokens}}).logprobs or []
    assert [each["logprob"] for each in found] == [-9999.0, -9999.0, -9999.0, -0.5]


def test_usage_tells_what_the_cache_spared() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 8}}
    found = completion({"message": {"content": "x"}}, usage=usage).usage
    assert (found.prompt_tokens, found.completion_tokens, found.cached_tokens) == (9, 2, 8)


@pytest.mark.parametrize("said", ["2", 2.5, True, None, [2]])
def test_a_count_of_tokens_that_is_no_whole_number_is_none(said: Any) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": said, "prompt_tokens_details": {"cached_tokens": said}}
    assert completion({"message": {"content": "x"}}, usage=usage).usage == Usage(9)


def test_what_a_content_filter_keeps_back_is_refused() -> None:
    reply = Reply(200, {}, json.dumps({"choices": [{"message": {}, "finish_reason": "content_filter"}]}).encode())
    assert isinstance(wire().read(request(), reply), Refusal)


@pytest.mark.parametrize(
    "said", [b"<html>", b'{"choices": []}', b"[]", b'{"error": {"message": "x"}}', b'{"choices": [{']
)
def test_what_is_no_answer_is_said_to_be_none(said: bytes) -> None:
    with pytest.raises(NoAnswer):
        wire().read(request(), Reply(200, {}, said))


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"error": {"message": "a\nb", "code": 400}}, "a b"),
        ({"error": "a b"}, "a b"),
        ({"object": "error", "message": "a b"}, "a b"),
        ({"detail": [{"loc": ["body"], "msg": "a b"}]}, "a b"),
        ([{"error": {"message": "a b"}}], "a b"),
    ],
)
def test_the_servers_words_are_found_in_whichever_shape_they_come(said: Any, words: str) -> None:
    refusal = wire().refusal(request(), Reply(400, {}, json.dumps(said).encode()))
    assert words in refusal.message
    assert "(status 400)" in refusal.message


def test_a_request_for_a_likelihood_is_refused() -> None:
    assert isinstance(wire().pack(request(target="x")), Failure)


@pytest.mark.parametrize("dialect", sorted(set(DIALECTS) - {"vllm"}))
def test_a_server_that_cannot_be_told_of_answers_in_circles_is_asked_without_and_that_is_said(dialect: str) -> None:
    notes: list[str] = []
    made, asked = wire(dialect, notes), request(sampling={LOOPS: Loops(4, 2, 30)})
    assert body(made.pack(asked)) == body(made.pack(asked)) == {"model": "m", "messages": [USER]}
    assert [f"({dialect}) cannot be told to end an answer that runs in circles" in note for note in notes] == [True]
