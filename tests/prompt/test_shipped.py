"""The prompts that come with llmbatch: what ``prompts check`` cannot know of them."""

from __future__ import annotations

from typing import Any

import pytest

from llmbatch.core.types import Cursor, Rendered, Row
from llmbatch.prompt.base import PromptSettings
from llmbatch.prompt.library import load_file
from llmbatch.prompt.shipped import shipped_prompts
from llmbatch.prompt.template import bind, load_prompt

OF_TASKS = ("compare", "draft-critique-revise", "judge", "merge-summaries", "revise", "topic-questions")
WITH_A_QUESTION = ("answer-question", "check-answer")
WITH_TEXT = [name for name in shipped_prompts() if name not in ("passthrough", *OF_TASKS, *WITH_A_QUESTION)]


def last_message(name: str, variables: dict[str, Any], row: dict[str, Any]) -> str:
    rendered = load_prompt(PromptSettings(path=name, variables=variables)).render(Row(0, 0, row, Cursor(0)))
    assert isinstance(rendered, Rendered), rendered
    assert rendered.prompt.messages is not None
    return str(rendered.prompt.messages[-1]["content"])


@pytest.mark.parametrize("name", WITH_TEXT)
def test_the_row_s_text_comes_last_in_marks_of_its_own(name: str) -> None:
    variables = load_file(name).file.examples[0].variables
    assert last_message(name, variables, {"text": "THE ROW", "max_words": 9}) == "<text>\nTHE ROW\n</text>"


@pytest.mark.parametrize("name", WITH_TEXT)
def test_rows_differ_in_the_last_message_alone(name: str) -> None:
    loaded = load_file(name)
    prompt = bind(loaded, loaded.file.examples[0].variables, {})
    results = [prompt.render(Row(i, i, {"text": text}, Cursor(i))) for i, text in enumerate(["one", "two"])]
    first, second = (list(result.prompt.messages or ()) for result in results if isinstance(result, Rendered))
    assert first[:-1] == second[:-1]
    assert prompt.notes == ()


@pytest.mark.parametrize("name", shipped_prompts())
def test_a_file_has_its_own_name_a_description_and_two_examples(name: str) -> None:
    file = load_file(name).file
    assert file.name == name
    assert file.description.endswith(".")
    assert all(variable.description for variable in file.variables.values())
    assert len(file.examples) >= 2
    assert all(example.output is not None for example in file.examples)


@pytest.mark.parametrize("name", shipped_prompts())
def test_no_message_begins_or_ends_with_white_space(name: str) -> None:
    loaded = load_file(name)
    for example in loaded.file.examples:
        rendered = bind(loaded, example.variables, {}).render(Row(0, 0, example.row, Cursor(0)))
        assert isinstance(rendered, Rendered)
        for message in rendered.prompt.messages or ():
            assert message["content"] == message["content"].strip()
            assert "\n\n\n" not in message["content"]


def test_a_judge_gives_its_reasons_before_its_score() -> None:
    output = load_prompt(PromptSettings(path="judge")).output
    assert output is not None
    assert list(output["schema"]["properties"]) == ["reasoning", "score"]


@pytest.mark.parametrize("name", ["check-answer", "compare"])
def test_who_judges_otherwise_gives_reasons_first_too(name: str) -> None:
    output = load_prompt(PromptSettings(path=name)).output
    assert output is not None
    assert next(iter(output["schema"]["properties"])) == "reasoning"
