"""Request lines: whatever the JSON, each is rendered or a failure; what it asks of the answer is a check or refused."""

from __future__ import annotations

import json

import atheris
from harness import JSON_LINES, fuzz, scratch

with atheris.instrument_imports(include=["llmbatch.prompt", "llmbatch.check", "llmbatch.sources"]):
    import llmbatch.check.choice
    import llmbatch.check.grammar
    import llmbatch.check.json_schema
    import llmbatch.check.regex  # noqa: F401 - imported now, so that they are instrumented
    from llmbatch.check.answer import check_from_mapping
    from llmbatch.core.errors import SchemaError, SourceError
    from llmbatch.core.types import Failure, Rendered
    from llmbatch.formats.base import wire_format
    from llmbatch.prompt.requests import RequestsPrompt
    from llmbatch.sources.base import SourceSettings
    from llmbatch.sources.opening import open_source

FOLDER = scratch()
PATH = FOLDER / "requests.jsonl"
PROMPT = RequestsPrompt(wire_format("openai"), adapters=["adapter"])
FORMAT = wire_format("requests")
ANSWERS = ("", "yes", '{"a": 1}', "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!")


def target(data: bytes) -> None:
    PATH.write_bytes(data)
    try:
        source = open_source(SourceSettings(path=str(PATH), format="requests"))
    except SourceError:
        return
    for row in source.rows():
        rendered = PROMPT.render(row)
        if isinstance(rendered, Failure):
            assert len(rendered.message) < 2000
            continue
        assert isinstance(rendered, Rendered)
        line = FORMAT.write(row.id, rendered, "model")
        json.dumps(line, ensure_ascii=False, allow_nan=False).encode("utf-8", "strict")
        if rendered.output is not None:
            judge(rendered.output)


def judge(output: object) -> None:
    try:
        check = check_from_mapping(output)  # type: ignore[arg-type]
    except SchemaError:
        return
    for answer in ANSWERS:
        value, failure = check(answer)
        assert failure is None or value is None
        check(answer, cut_off=True)


def request(**body: object) -> bytes:
    return json.dumps({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}).encode()


MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "Hi"}]}]

if __name__ == "__main__":
    dated = {"$ref": "#/$defs/a", "$defs": {"a": {"type": "string", "pattern": "^a", "format": "date"}}}
    begun = [*MESSAGES, {"role": "assistant", "content": "Well"}]
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    seeds = [
        request(messages=MESSAGES, temperature=0, max_completion_tokens=5, seed=1, stop=["\n"], n=2),
        request(messages=MESSAGES, response_format=schema),
        request(messages=MESSAGES, response_format={"type": "json_object"}, logprobs=True, top_logprobs=3),
        request(messages=MESSAGES, structured_outputs={"regex": "a+", "disable_fallback": False}),
        request(messages=MESSAGES, guided_json=dated),
        request(messages=MESSAGES, guided_choice=["yes", "no"], logit_bias={"5": 1.5}),
        request(messages=begun, continue_final_message=True, add_generation_prompt=False),
        request(prompt="Once upon", model="adapter", best_of=1, echo=False, stream=False, tools=[]),
    ]
    words = [
        "custom_id", "body", "messages", "role", "content", "user", "system", "assistant", "prompt",
        "response_format", "json_schema", "schema", "guided_json", "guided_choice", "guided_regex",
        "structured_outputs", "logprobs", "top_logprobs", "logit_bias", "stop", "temperature", "max_tokens", "$ref",
        "$defs", "pattern", "minimum", "maximum", "enum", "anyOf", "allOf", "not", "properties", "required", "type",
        "(a+)+b", "(?=", "\\\\1", "{1000000}", "1e999", "\\ud800",
    ]  # fmt: skip
    fuzz(target, seeds, words, FOLDER, JSON_LINES)
