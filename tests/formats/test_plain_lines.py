"""The quick lines of rows that are answered with one text: the same bytes as those that are put together in full."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as some

from llmbatch.core.quick_json import json_line
from llmbatch.core.record import json_encoder
from llmbatch.formats import seldon, v2
from llmbatch.formats.base import Answered, Asked
from llmbatch.formats.bedrock import lines as bedrock
from llmbatch.formats.bedrock.format import Bedrock, BedrockSettings
from llmbatch.formats.gemini import lines as gemini
from llmbatch.formats.openai import lines as openai

TEXT = some.text(some.characters(exclude_categories=["Cs"]))
COUNT = some.integers(0, 2**40)
ANY = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
SPACED = json_encoder(json.JSONEncoder(ensure_ascii=False))
NUMBER = 4  # of the line in its file
TIME = "2026-01-01T00:00:00.000+00:00"
SAID = {"instructions", "max_output_tokens", "parallel_tool_calls", "temperature", "tool_choice", "top_p", "model"}


class Run(NamedTuple):
    model: str
    created: int


class Way(NamedTuple):
    """A format: rows that it answers, a line in the quick way, and what the line in full is made of."""

    rows: some.SearchStrategy[dict[str, Any]]
    quick: Callable[[dict[str, Any], dict[str, Any], Run], bytes | None]
    full: Callable[[Answered], Any]
    write: Callable[[Any], bytes] = json_line


def _openai_row(url: str) -> some.SearchStrategy[dict[str, Any]]:
    body = some.fixed_dictionaries({"messages": ANY, "echo": some.just(False)}, optional=dict.fromkeys(SAID, ANY))
    return some.fixed_dictionaries(
        {"custom_id": TEXT, "url": some.sampled_from([url, url.removeprefix("/v1")]), "body": body}
    )


def _openai(url: str) -> Way:
    def quick(record: dict[str, Any], row: dict[str, Any], run: Run) -> bytes | None:
        return openai.PlainLines(run.model, run.created).line(record, row)

    return Way(_openai_row(url), quick, lambda answered: openai.line_of(answered).data)


_MESSAGE = some.fixed_dictionaries({"role": some.just("user"), "content": ANY})
_BODIES: dict[str, dict[str, Any]] = {
    "anthropic": {"anthropic_version": TEXT, "max_tokens": COUNT}, "titan": {"inputText": TEXT},
    "meta": {"prompt": TEXT, "max_gen_len": COUNT},
    "mistral": {"prompt": TEXT}, "deepseek": {"prompt": TEXT, "top_p": COUNT}, "cohere": {"prompt": TEXT, "k": COUNT},
    "ai21": {"prompt": TEXT, "maxTokens": COUNT},
    "converse": {"schemaVersion": TEXT, "messages": some.lists(_MESSAGE, max_size=2)},
}  # fmt: skip
_MODELS = {"deepseek": "deepseek.r1", "meta": "us.meta.llama", "cohere": "cohere.command", "ai21": "ai21.j2"}


def _bedrock(name: str) -> Way:
    format_ = Bedrock(BedrockSettings(model=_MODELS.get(name)))
    row = some.fixed_dictionaries(
        {"modelInput": some.fixed_dictionaries(_BODIES[name])}, optional={"recordId": ANY, "beside": ANY}
    )

    def quick(record: dict[str, Any], row: dict[str, Any], run: Run) -> bytes | None:
        return bedrock.PlainLines(format_, run.model).line(record, row)

    return Way(row, quick, format_.line)


def _gemini(time: str | None) -> Way:
    def quick(record: dict[str, Any], row: dict[str, Any], run: Run) -> bytes | None:
        return gemini.PlainLines(run.model, time).line(record, row)

    def full(answered: Answered) -> Any:
        return gemini.api_line(answered) if time is None else gemini.vertex_line(answered, time=time)

    beside = {"key": ANY} if time is None else {}
    return Way(some.fixed_dictionaries({"request": ANY}, optional=beside), quick, full)


def _v2_quick(record: dict[str, Any], row: dict[str, Any], run: Run) -> bytes | None:
    return v2.PlainLines(run.model, run.created).line(record, row, NUMBER)


_INPUT = some.fixed_dictionaries({
    "name": some.sampled_from(["text_input", "prompt"]), "datatype": some.just("BYTES"),
    "data": some.lists(TEXT, min_size=1, max_size=1), "shape": some.lists(some.just(1), min_size=1, max_size=3),
})  # fmt: skip
_V2 = Way(
    some.fixed_dictionaries(
        {"inputs": some.lists(_INPUT, min_size=1, max_size=1)}, optional={"id": ANY, "parameters": some.just({})}
    ),
    _v2_quick,
    lambda answered: v2.line_of(answered, strict=False),
)


def _seldon(data_type: seldon.DataType | None) -> Way:
    def quick(record: dict[str, Any], row: dict[str, Any], run: Run) -> bytes | None:
        return seldon.PlainLines(data_type, run.model, SPACED).line(record, row, NUMBER)

    def full(answered: Answered) -> Any:
        return seldon.line_of(answered, data_type, answered.model, strict=False)

    data = some.fixed_dictionaries(
        {"ndarray": some.lists(some.lists(TEXT, min_size=1, max_size=1), min_size=1, max_size=1)}
    )
    tags = some.dictionaries(TEXT | some.sampled_from(["batch_id", "batch_index", "mine"]), ANY, max_size=3)
    meta = some.fixed_dictionaries({}, optional={"tags": ANY | tags, "more": ANY})
    message = some.fixed_dictionaries({"data": data}, optional={"meta": ANY | meta, "names": ANY})
    return Way(some.fixed_dictionaries({"record": message}), quick, full, lambda value: SPACED(value).encode() + b"\n")


WAYS = {
    "openai chat": _openai("/v1/chat/completions"),
    "openai completions": _openai("/v1/completions"),
    "openai responses": _openai("/v1/responses"),
    **{f"bedrock {name}": _bedrock(name) for name in _BODIES},
    "gemini": _gemini(TIME),
    "gemini_api": _gemini(None),
    "v2": _V2,
    "seldon": _seldon(None),
    "seldon raw": _seldon("raw"),
}
each_way = pytest.mark.parametrize("name", WAYS)


def record(**fields: Any) -> dict[str, Any]:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "cached_tokens": 1}
    base = {
        "id": "a", "index": 0, "status": "ok", "output": "said", "finish_reason": "stop", "attempts": 1,
        "usage": {**usage, "wasted": usage},
    }  # fmt: skip
    return {**base, **fields}


def in_full(way: Way, record: dict[str, Any], row: dict[str, Any], run: Run) -> bytes:
    return way.write(way.full(Answered(record, row, Asked(), run.model, run.created, NUMBER)))


@each_way
@given(some.data())
def test_a_quick_line_has_the_bytes_of_the_full_one(name: str, data: Any) -> None:
    way, draw = WAYS[name], data.draw
    usage = {name: draw(COUNT) for name in ("prompt_tokens", "completion_tokens", "cached_tokens")}
    answered = record(
        id=draw(TEXT | some.integers()),
        index=draw(COUNT),
        output=draw(TEXT),
        finish_reason=draw(some.sampled_from(["stop", "length", "repetition", "abort", None])),
        usage={**usage, "wasted": usage},
    )
    row, run = draw(way.rows), Run(draw(TEXT), draw(COUNT))
    assert way.quick(answered, row, run) == in_full(way, answered, row, run)


@each_way
@given(some.data())
def test_texts_that_look_like_what_lines_are_made_of_are_texts(name: str, data: Any) -> None:
    way = WAYS[name]
    row = data.draw(way.rows)
    for text in ("\0text\0", "%(text)s %s %%", '"\\\n\x7f\x1f', "\u2028ö😀", ""):
        run, answered = Run(text, 1), record(id=text, output=text)
        assert way.quick(answered, row, run) == in_full(way, answered, row, run)


MORE: list[dict[str, Any]] = [
    {"output": {"a": 1}}, {"output": ["a", "b"]}, {"reasoning": "hm"}, {"stop_reason": "x"}, {"logprobs": []}, {"history": []},
    {"status": "failed", "output": None}, {"status": "invalid"}, {"status": "truncated", "raw": "a"},
]  # fmt: skip


@each_way
@given(some.data())
def test_a_row_with_more_to_say_has_no_quick_line(name: str, data: Any) -> None:
    row = data.draw(WAYS[name].rows)
    quick = {str(fields): WAYS[name].quick(record(**fields), row, Run("m", 1)) for fields in MORE}
    assert quick == dict.fromkeys(quick)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("openai chat", {"url": "/v1/embeddings", "body": {}}),
        ("openai chat", {"url": None, "body": {}}),
        ("openai chat", {"url": ["/v1/responses"], "body": {}}),
        ("openai chat", {"url": "/v1/responses", "body": None}),
        ("openai chat", {"url": "/v1/completions", "body": {"echo": True, "prompt": "a"}}),
        ("openai chat", {"text": "no request"}),
        ("bedrock anthropic", {"modelInput": {"messages": [{"role": "assistant", "content": "and"}]}}),
        ("bedrock anthropic", {"modelInput": {"messages": [{"role": "user", "content": "in OpenAI's form"}]}}),
        ("bedrock anthropic", {"text": "no request"}),
        ("gemini", {"request": {}, "beside": 1}),
        ("gemini", {"text": "no request"}),
        ("v2", {"inputs": [{"name": "a", "shape": [2], "datatype": "BYTES", "data": ["a", "b"]}]}),
        ("v2", {"inputs": [{"name": "a", "shape": [1, 1], "datatype": "BYTES", "data": [["a"]]}]}),
        ("v2", {"inputs": [{"name": "a", "shape": [1], "datatype": "BYTES", "data": ["a"]}], "parameters": {"n": 1}}),
        ("v2", {"inputs": [{}, {}]}),
        ("v2", {"text": "no request"}),
        ("seldon", {"record": {"strData": "a"}}),
        ("seldon", {"record": {"data": {"ndarray": [["a", "b"]]}}}),
        ("seldon", {"record": {"data": {"ndarray": ["a"]}}}),
        ("seldon", {"record": {"data": ["a"]}}),
        ("seldon", {"record": [["a"]]}),
        ("seldon", {"record": "a"}),
        ("seldon", {"text": "no request"}),
    ],
)
def test_of_a_row_that_asks_for_something_else_there_is_no_quick_line(name: str, row: dict[str, Any]) -> None:
    assert WAYS[name].quick(record(), row, Run("m", 1)) is None
