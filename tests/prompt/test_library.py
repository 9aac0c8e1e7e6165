from __future__ import annotations

from pathlib import Path

import pytest

from llmbatch.core.errors import PromptError
from llmbatch.prompt.library import read_prompt
from llmbatch.prompt.shipped import shipped_prompts


def test_the_shipped_prompts_are_these() -> None:
    assert shipped_prompts() == [
        "answer-question",
        "check-answer",
        "classify",
        "compare",
        "draft-critique-revise",
        "extract",
        "judge",
        "merge-summaries",
        "passthrough",
        "qa-generate",
        "question-answer-check",
        "revise",
        "rewrite",
        "summarize",
        "summarize-long",
        "topic-questions",
        "translate",
        "translate-document",
    ]


def test_a_shipped_prompt_is_found_by_its_name() -> None:
    found = read_prompt("summarize")
    assert found.source == "shipped:summarize"
    assert found.text.startswith("name: summarize")


def test_a_file_of_one_s_own_is_found_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "summarize.yaml"
    path.write_text("name: mine\n")
    assert read_prompt(str(path)) == ("name: mine\n", str(path), str(path))


def test_a_text_with_template_code_is_the_prompt_itself() -> None:
    assert read_prompt("Say {{ x }}") == ("Say {{ x }}", "inline", "inline prompt")


def test_an_unknown_name_lists_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(
        PromptError,
        match=r"called 'sumarize' \(did you mean 'summarize'\?\); the shipped prompts are answer-question, ",
    ):
        read_prompt("sumarize")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", None])
def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "p.yaml"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(PromptError, match=r"p\.yaml: "):
        read_prompt(str(path))


def test_a_name_with_a_nul_byte_is_an_error() -> None:
    with pytest.raises(PromptError, match="cannot be read"):
        read_prompt("a\0b.yaml")
