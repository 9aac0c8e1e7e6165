"""Prompts with images: variables of type image, ready-made messages, and what cannot be one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.errors import PromptError
from llmbatch.core.messages import image_part
from llmbatch.core.types import Cursor, Failure, FailureKind, Rendered, Row
from llmbatch.prompt.base import PromptSettings
from llmbatch.prompt.template import load_prompt

LOOK = """
name: look
variables:
  picture: {type: image}
  more: {type: images, default: []}
  logo: {type: image, default: null}
  question: {}
messages:
  - {role: system, content: "{% if logo %}Ours: {{ logo }}{% else %}Look.{% endif %}"}
  - role: user
    content: |
      {{ picture }}
      {% for each in more %}
      Photo {{ loop.index }} of {{ more | length }}: {{ each }}
      {% endfor %}
      {{ question }}
"""


def rendered(text: str, tmp_path: Path, row: dict[str, Any], **variables: Any) -> Rendered | Failure:
    path = tmp_path / "look.yaml"
    path.write_text(text)
    prompt = load_prompt(PromptSettings(path=str(path), variables=variables))
    return prompt.render(Row(0, "r", row, Cursor(0)))


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def test_images_stand_where_the_text_writes_them(tmp_path: Path) -> None:
    made = rendered(LOOK, tmp_path, {"picture": "a.png", "more": ["b.png", {"path": "c.png"}], "question": "Why?"})
    assert isinstance(made, Rendered)
    assert made.prompt.messages is not None
    system, user = made.prompt.messages
    assert system["content"] == "Look."
    assert user["content"] == [
        image_part("a.png"), text("\nPhoto 1 of 2: "), image_part("b.png"), text("\nPhoto 2 of 2: "), image_part("c.png"),
        text("\nWhy?"),
    ]  # fmt: skip
    assert [image.url for image in made.prompt.images] == ["a.png", "b.png", "c.png"]


def test_a_list_of_images_may_be_written_as_it_is(tmp_path: Path) -> None:
    prompt = "name: all\nvariables: {pictures: {type: images}}\nmessages: [{role: user, content: 'See {{ pictures }}'}]"
    made = rendered(prompt, tmp_path, {"pictures": ["a", "b"]})
    assert isinstance(made, Rendered)
    assert made.prompt.messages is not None
    assert made.prompt.messages[0]["content"] == [text("See "), image_part("a"), image_part("b")]


def test_an_image_may_be_the_same_for_all_rows(tmp_path: Path) -> None:
    made = rendered(LOOK, tmp_path, {"picture": "a.png", "question": "Why?"}, logo="logo.png")
    assert isinstance(made, Rendered)
    assert made.prompt.messages is not None
    assert made.prompt.messages[0]["content"] == [text("Ours: "), image_part("logo.png")]


def test_a_prompt_of_an_image_alone_is_not_blank(tmp_path: Path) -> None:
    prompt = "name: one\nvariables: {picture: {type: image}}\nmessages: [{role: user, content: '{{ picture }}'}]"
    made = rendered(prompt, tmp_path, {"picture": "a"})
    assert isinstance(made, Rendered)


def test_a_text_of_a_row_is_never_an_image(tmp_path: Path) -> None:
    mark = "\ue0000123456789abcdef:secret.png\ue001"
    made = rendered(LOOK, tmp_path, {"picture": "a.png", "question": mark})
    assert isinstance(made, Rendered)
    assert made.prompt.messages is not None
    assert made.prompt.messages[1]["content"][-1] == text(f"\n{mark}")
    assert len(made.prompt.images) == 1


@pytest.mark.parametrize(
    ("row", "kind", "words"),
    [
        ({"picture": 3}, FailureKind.PROMPT, "'picture' is of type integer (3), and must be of type image"),
        ({"picture": {"size": 1}}, FailureKind.IMAGE, "'picture' (field 'picture') is an object with ['size']"),
        ({"picture": "a", "more": ["b", 3]}, FailureKind.IMAGE, "'more' (field 'more') is of type integer"),
        ({"picture": " "}, FailureKind.EMPTY_PROMPT, "'picture' is blank"),
        ({}, FailureKind.PROMPT, "'picture' is missing"),
    ],
)
def test_a_value_that_is_no_image_fails_its_row(
    tmp_path: Path, row: dict[str, Any], kind: FailureKind, words: str
) -> None:
    made = rendered(LOOK, tmp_path, {"question": "?", **row})
    assert isinstance(made, Failure)
    assert made.kind is kind
    assert words in made.message


def test_an_image_that_goes_through_a_filter_fails_its_row(tmp_path: Path) -> None:
    prompt = "name: up\nvariables: {p: {type: image}}\nmessages: [{role: user, content: 'x {{ p | upper }}'}]"
    made = rendered(prompt, tmp_path, {"p": "a.png"})
    assert isinstance(made, Failure)
    assert "without a filter" in made.message


@pytest.mark.parametrize("key", ["text", "prefill", "lora"])
def test_images_stand_in_messages_alone(tmp_path: Path, key: str) -> None:
    messages = "" if key == "text" else "messages: [{role: user, content: x}]\n"
    prompt = f"name: wrong\nvariables: {{p: {{type: image}}}}\n{messages}{key}: 'see {{{{ p }}}}'\n"
    with pytest.raises(PromptError, match=rf"'p' is an image, and images stand in messages, not in {key}"):
        rendered(prompt, tmp_path, {"p": "a.png"})


def test_ready_made_messages_of_a_variable_may_have_images(tmp_path: Path) -> None:
    prompt = "name: ready\nvariables: {chat: {type: array}}\nmessages_from: chat"
    part = {"type": "image_url", "image_url": {"url": "a.png", "detail": "high"}}
    made = rendered(prompt, tmp_path, {"chat": [{"role": "user", "content": ["Look: ", part]}]})
    assert isinstance(made, Rendered)
    assert made.prompt.messages is not None
    assert made.prompt.messages[0]["content"] == [text("Look: "), image_part("a.png", "high")]
    assert [image.url for image in made.prompt.images] == ["a.png"]
