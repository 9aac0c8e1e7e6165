from __future__ import annotations

from typing import Any

import pytest

from llmbatch.core.types import Failure, FailureKind, Prompt, Rendered
from llmbatch.formats.base import Answered, Asked, wire_format

EXACTLY = {"max_tokens": 8, "ignore_eos": True}


def read(eos_id: int = -1, **line: Any) -> Any:
    made = wire_format("trtllm_bench", {"eos_id": eos_id})
    given = {"task_id": 0, "output_tokens": 8, **line}
    assert made.problem(given) is None
    return made.read(given, ("lora_0",))


@pytest.mark.parametrize(
    ("line", "rendered"),
    [
        ({"prompt": "a"}, Rendered(Prompt(text="a"), EXACTLY)),
        ({"input_ids": [5, 6], "prompt": "a"}, Rendered(Prompt(ids=(5, 6)), EXACTLY)),
        ({"logits": [5, 6]}, Rendered(Prompt(ids=(5, 6)), EXACTLY)),
        ({"turns": ["a"], "category": "x", "question_id": 81}, Rendered(Prompt(text="a"), EXACTLY)),
        ({"prompt": "a", "lora_request": {"lora_name": "lora_0"}}, Rendered(Prompt(text="a"), EXACTLY, lora="lora_0")),
    ],
    ids=str,
)
def test_a_line_asks_for_exactly_so_many_tokens(line: Any, rendered: Rendered) -> None:
    assert read(**line) == rendered
    back = wire_format("trtllm_bench").write(3, rendered, "m")
    assert wire_format("trtllm_bench").read(back, ("lora_0",)) == rendered


def test_a_token_that_ends_answers_ends_them() -> None:
    assert read(eos_id=2, prompt="a").sampling == {"max_tokens": 8, "ignore_eos": False, "stop_token_ids": [2]}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"turns": ["a", "b"]}, "turns is a list of one text here, and this is 2 of them"),
        ({"turns": "a"}, "turns is a list of one text here"),
        ({"prompt": "a", "media_paths": ["a.png"]}, "images are not taken here"),
        ({"prompt": 5}, "the prompt is of type integer"),
        ({"input_ids": ["a"]}, "input_ids is a list of token ids"),
        (
            {"prompt": "a", "lora_request": {"lora_name": "x"}},
            "there is no adapter 'x': engine.lora (name: path) has lora_0",
        ),
        ({"prompt": "a", "temperature": 1}, "temperature is not supported"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_the_row_s_failure(line: Any, said: str) -> None:
    found = read(**line)
    assert isinstance(found, Failure)
    assert said in found.message


def test_a_blank_prompt_is_a_failure_of_its_kind() -> None:
    assert read(prompt=" ").kind is FailureKind.EMPTY_PROMPT


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"task_id": 2, "output_tokens": 4}, "has no prompt, and neither input_ids nor turns"),
        ({"task_id": 3, "prompt": "a"}, "has no output_tokens"),
        ({"task_id": 3, "prompt": "a", "output_tokens": 0}, "output_tokens of this is 0"),
        ({"task_id": 3, "prompt": "a", "output_tokens": "4"}, "output_tokens of this is '4'"),
    ],
    ids=str,
)
def test_a_line_without_what_every_line_has_is_no_request(line: Any, said: str) -> None:
    assert said in (wire_format("trtllm_bench").problem(line) or "")


def test_a_result_tells_the_answer_or_why_there_is_none() -> None:
    record = {
        "id": 4,
        "index": 4,
        "status": "ok",
        "output": "x",
        "finish_reason": "length",
        "usage": {"completion_tokens": 8},
    }
    result = wire_format("trtllm_bench").result
    assert result(Answered(record, {}, Asked(), "m", 0)) == {"id": 4, "output": "x", "output_tokens": 8}
    failed = {**record, "status": "failed", "output": None, "error": {"kind": "engine", "message": "no"}}
    assert result(Answered(failed, {}, Asked(), "m", 0))["error"] == "no"
