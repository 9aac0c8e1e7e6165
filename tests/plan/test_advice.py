from __future__ import annotations

from array import array
from random import Random

import pytest

from llmbatch.plan.advice import FEWEST_PROMPTS, Advice, advise


def words(count: int, seed: int) -> list[int]:
    random = Random(seed)
    return [random.randrange(30_000) for _ in range(count)]


def advice(prompts: list[list[int]]) -> list[Advice]:
    return advise([array("I", p).tobytes() for p in prompts], 16)


SYSTEM, RULES = words(32, 1), words(100, 2)


def test_instructions_behind_the_row_s_text_are_found() -> None:
    (found,) = advice([SYSTEM + words(100, 10 + i) + RULES for i in range(50)])
    assert found.kind == "fixed"
    assert found.tokens == pytest.approx(100)
    assert found.share == pytest.approx(100 / 232, abs=0.01)
    assert found.saving == pytest.approx(0.5, abs=0.02)  # 200 tokens a row are computed, 100 need not be
    assert found.example == (0, 132)


def test_a_document_behind_its_question_is_found() -> None:
    documents = [words(200, 100 + i) for i in range(10)]
    (found,) = advice([SYSTEM + words(20, 1000 + i) + documents[i // 8] for i in range(80)])
    assert found.kind == "repeated"
    assert found.tokens == pytest.approx(200)
    assert found.saving == pytest.approx(200 / 220 * 7 / 8, abs=0.02)


def test_fixed_text_in_front_needs_no_advice() -> None:
    assert advice([SYSTEM + RULES + words(100, 10 + i) for i in range(50)]) == []


def test_documents_in_front_need_no_advice() -> None:
    documents = [words(200, 100 + i) for i in range(10)]
    assert advice([SYSTEM + documents[i // 8] + words(20, 1000 + i) for i in range(80)]) == []


def test_rows_with_nothing_in_common_get_no_advice() -> None:
    assert advice([words(100, i) for i in range(50)]) == []


def test_the_short_end_of_a_chat_template_is_not_held_against_the_prompt() -> None:
    end = words(8, 3)
    assert advice([words(30, 10 + i) + end for i in range(50)]) == []


def test_too_few_prompts_say_nothing() -> None:
    assert advice([words(100, 10 + i) + RULES for i in range(FEWEST_PROMPTS - 1)]) == []


def test_the_sentence_says_what_was_seen_and_what_to_do() -> None:
    text = Advice("fixed", 310.4, 0.42, 0.4, (0, 9)).sentence("Answer in JSON")
    assert "310 tokens" in text
    assert "42%" in text
    assert "'Answer in JSON'" in text
    assert "save 40%" in text
