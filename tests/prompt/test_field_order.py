from __future__ import annotations

from pathlib import Path

import pytest

from llmbatch.core.errors import PromptError
from llmbatch.core.types import Cursor, Failure, Row
from llmbatch.prompt.base import PromptSettings
from llmbatch.prompt.template import load_prompt

TEXT = "Look:\nName: {{ name }}\n\nText:\n{{ text }}\nBoth: {{ name }} of {{ shop }}\nShop: {{ shop }}\nEnd."


def rendered(*order: str, text: str = TEXT) -> str:
    data = {"name": "N", "text": "T\nT", "shop": "S"}
    made = load_prompt(PromptSettings(path=text, field_order=order)).render(Row(0, 0, data, Cursor(0)))
    assert not isinstance(made, Failure)
    assert made.prompt.messages is not None
    return str(made.prompt.messages[-1]["content"])


@pytest.mark.parametrize(
    ("order", "content"),
    [
        ((), "Look:\nName: N\n\nText:\nT\nT\nBoth: N of S\nShop: S\nEnd."),
        (("shop", "text", "name"), "Look:\nShop: S\n\nText:\nT\nT\nBoth: N of S\nName: N\nEnd."),
        (("shop", "name"), "Look:\nShop: S\n\nText:\nT\nT\nBoth: N of S\nName: N\nEnd."),
        (("text", "name"), "Look:\nT\nT\n\nText:\nName: N\nBoth: N of S\nShop: S\nEnd."),
    ],
    ids=["as it is", "all", "two of them", "two others"],
)
def test_lines_of_the_variables_stand_in_their_order_and_all_else_stays(order: tuple[str, ...], content: str) -> None:
    assert rendered(*order) == content


def test_what_the_template_decides_stays_where_it_is() -> None:
    text = "{% if shop %}{{ shop }}{% endif %}\n{{ text }}\n{{ name }}"
    assert rendered("name", "text", text=text) == "SN\nT\nT"  # the line break behind a block is the template's


@pytest.mark.parametrize("name", ["other", "both"])
def test_a_variable_without_a_line_of_its_own_is_refused(name: str) -> None:
    text = "{{ text }} and {{ both }}\n{{ name }}"
    with pytest.raises(
        PromptError, match=f"prompt.field_order: '{name}' has no line of its own .* that have one are name"
    ):
        load_prompt(PromptSettings(path=text, field_order=(name, "name")))


def test_a_prompt_file_s_messages_are_ordered_each_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(
        "name: p\ndescription: d\nvariables: {a: {type: string}, b: {type: string}}\nmessages:\n"
        '  - {role: system, content: "{{ a }}"}\n  - {role: user, content: "{{ a }}\\n{{ b }}"}\n'
    )
    made = load_prompt(PromptSettings(path=str(path), field_order=("b", "a")))
    found = made.render(Row(0, 0, {"a": "A", "b": "B"}, Cursor(0)))
    assert not isinstance(found, Failure)
    assert [message["content"] for message in found.prompt.messages or ()] == ["A", "B\nA"]
