from __future__ import annotations

from typing import Any

import pytest

from llmbatch.core.messages import image_part, images_in, ready_messages, text_of, with_urls


def test_plain_messages_are_kept() -> None:
    given = [{"role": "system", "content": "s"}, {"role": "user", "content": "u", "name": "anna"}]
    assert ready_messages(given) == tuple(given)


def test_text_parts_become_lines_of_one_text() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert ready_messages([{"role": "user", "content": parts}]) == ({"role": "user", "content": "a\nb"},)


def test_keys_that_are_null_or_empty_do_not_matter() -> None:
    message = {"role": "assistant", "content": "a", "refusal": None, "tool_calls": [], "name": None}
    assert ready_messages([message]) == ({"role": "assistant", "content": "a"},)


def test_calls_of_tools_and_what_they_gave_are_kept() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    given = [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{**call, "function": {"name": "f", "arguments": {"x": 1}}}],
        },
        {"role": "assistant", "content": "so", "tool_calls": [call, {"function": {"name": "g"}}]},
        {"role": "tool", "content": "5", "tool_call_id": "1"},
    ]
    assert ready_messages(given) == (
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {
            "role": "assistant", "content": "so",
            "tool_calls": [call, {"type": "function", "function": {"name": "g", "arguments": "{}"}}],
        },
        {"role": "tool", "content": "5", "tool_call_id": "1"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("hello", "must be a list of messages, not of type string"),
        (None, "not of type null"),
        ([], "has no message"),
        (["hello"], "message 1 of 1 must be an object"),
        ([{"role": "user", "content": "x"}, {"content": "x"}], "message 2 of 2 has the role None"),
        ([{"role": "asistant", "content": "x"}], "did you mean 'assistant'?"),
        ([{"role": ["user"], "content": "x"}], "has the role ['user']"),
        (
            [{"role": "user", "content": None}],
            "must have a content of text, or of text and image parts, not of type null",
        ),
        ([{"role": "user", "content": 5}], "not of type integer"),
        (
            [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "x"}}]}],
            "has a part that is neither text nor an image (of the type 'video_url')",
        ),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": " "}}]}], "an image without a URL"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x", "detail": "best"}}]}],
            "has an image with the detail 'best'; known are auto, low, high, original",
        ),
        ([{"role": "user", "content": [{"type": "text", "text": 5}]}], "has a part that is neither text nor an image"),
        ([{"role": "assistant", "content": "", "tool_calls": [{"id": "x"}]}], "has a call that cannot be read"),
        ([{"role": "assistant", "content": "", "tool_calls": "x"}], "has tool_calls of type string"),
        ([{"role": "user", "content": "", "tool_calls": [{"id": "x"}]}], "which a message by assistant has"),
        ([{"role": "user", "content": "x", "tool_call_id": "x"}], "which a message by tool has"),
        ([{"role": "tool", "content": "x", "tool_call_id": 5}], "has the tool_call_id 5"),
        ([{"role": "tool", "content": None, "tool_call_id": "x"}], "must have a content of text"),
        ([{"role": "assistant", "content": None, "tool_calls": []}], "must have a content of text"),
        ([{"role": "user", "content": "x", "task": "y"}], "has the key 'task'"),
        ([{"role": "user", "content": "a\udc00"}], "half a surrogate pair"),
    ],
)
def test_what_is_wrong_is_said(value: Any, words: str) -> None:
    problem = ready_messages(value)
    assert isinstance(problem, str)
    assert words in problem


def test_a_content_with_images_stays_in_parts_and_says_which_they_are() -> None:
    image = {"type": "image_url", "image_url": {"url": "a.png", "detail": "low"}}
    content = ["See", image, {"type": "input_text", "text": "and"}, {"type": "input_image", "image_url": "b.png"}]
    messages = ready_messages([{"role": "user", "content": content}, {"role": "assistant", "content": ["x", "y"]}])
    assert isinstance(messages, tuple)
    assert messages[0]["content"] == [
        {"type": "text", "text": "See"}, image, {"type": "text", "text": "and"}, image_part("b.png"),
    ]  # fmt: skip
    assert messages[1]["content"] == "x\ny"
    assert [each.url for each in images_in(messages)] == ["a.png", "b.png"]
    changed = with_urls(messages, {"a.png": "c.png"})
    assert [each.url for each in images_in(changed)] == ["c.png", "b.png"]
    assert changed[0]["content"][1]["image_url"]["detail"] == "low"
    assert text_of(messages[0]["content"]) == "See\nand"
