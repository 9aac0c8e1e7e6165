"""Instructions that a program can check: an answer that keeps each, and one that does not."""

from __future__ import annotations

from typing import Any

import pytest

from llmbatch.core.errors import JobError
from llmbatch.evals.instructions import INSTRUCTIONS, keeps
from llmbatch.evals.readers.base import make_reader

CASES: list[tuple[str, dict[str, Any], str, str]] = [
    ("keywords:existence", {"keywords": ["pond", "frog"]}, "A frog in a Pond.", "A frog."),
    ("keywords:frequency", {"keyword": "frog", "frequency": 2, "relation": "at least"}, "Frog, frog!", "One frog."),
    ("keywords:frequency", {"keyword": "frog", "frequency": 2, "relation": "less than"}, "One frog.", "Frog, frog!"),
    ("keywords:forbidden_words", {"forbidden_words": ["pond"]}, "Ponds are fine.", "A pond."),
    ("keywords:letter_frequency", {"letter": "o", "let_frequency": 2, "let_relation": "at least"}, "foo", "fo"),
    ("language:response_language", {"language": "de"}, "Das ist ein schöner Tag am See.", "It is a nice day at the lake."),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"}, "One. Two!", "Only one."),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "less than"}, "3.5 is a number.", "One. Two."),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "One.\n***\nTwo.", "One.\n\nTwo."),
    ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}, "one two three", "one two"),
    ("length_constraints:nth_paragraph_first_word",
     {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "frogs"}, "One.\n\nFrogs, two.", "One.\n\nTwo."),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] of [place]", "[name]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\nP.S. One more.", "Bye."),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Bye.\nP.P.S One more.", "P.S. no"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* one\n- two", "* one\n* two\n* three"),
    ("detectable_format:constrained_response", {}, "My answer is maybe.", "Perhaps."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*one* and **two**", "*one* **"),
    ("detectable_format:multiple_sections",
     {"section_spliter": "SECTION", "num_sections": 2}, "SECTION 1\na\nSECTION 2\nb", "SECTION 1\na"),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "{a: 1}"),
    ("detectable_format:title", {}, "<<A pond>>\nWet.", "<< >> A pond"),
    ("combination:two_responses", {}, "One.\n******\nTwo.", "One.\n******\nOne."),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, "say it. Said.", "Said."),
    ("startend:end_checker", {"end_phrase": "The end."}, "So it was. the end.", "The end. Or not"),
    ("startend:quotation", {}, '"so"', '"so'),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "at least"}, "A BIG pond", "a BIG pond"),
    ("change_case:english_capital", {}, "A POND.", "A pond."),
    ("change_case:english_lowercase", {}, "a pond.", "A pond."),
    ("punctuation:no_comma", {}, "one and two", "one, two"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "given", "good", "bad"), CASES, ids=[f"{n}-{case[0]}" for n, case in enumerate(CASES)]
)
def test_an_instruction_is_kept_or_not(name: str, given: dict[str, Any], good: str, bad: str) -> None:
    assert keeps(good, name, given)
    assert not keeps(bad, name, given)
    assert not keeps(" ", name, given)


def test_every_instruction_is_tried() -> None:
    assert {case[0] for case in CASES} == INSTRUCTIONS.keys()


ROW = {
    "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
    "kwargs": [{"num_words": None}, {"num_words": 2, "relation": "at least"}],
}


def test_an_answer_keeps_all_or_a_share_of_its_rows_instructions() -> None:
    whole, share = make_reader("instructions"), make_reader({"kind": "instructions", "share": True})
    assert [whole.read(text, (), ROW) for text in ("one two", "one", "one,")] == [1, 0, 0]
    assert [share.read(text, (), ROW) for text in ("one two", "one", "one,")] == [1, 0.5, 0]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"instruction_id_list": ["punctuation:no_coma"], "kwargs": [{}]}, "did you mean 'punctuation:no_comma'"),
        ({"instruction_id_list": ["keywords:existence"], "kwargs": [{}]}, "has the arguments {}"),
        ({"instruction_id_list": ["punctuation:no_comma"], "kwargs": []}, "lists of the same length"),
        ({}, "has no instructions"),
    ],
    ids=str,
)
def test_a_row_whose_instructions_cannot_be_checked_is_an_error_before_a_run(
    tasks: Any, row: dict[str, Any], said: str
) -> None:
    tasks.rows([{"id": "bad", "prompt": "Do it.", **row}])
    task = tasks.task(prompt="{{ prompt }}", read="instructions", references=None, metrics=["share"])
    with pytest.raises(JobError) as error:
        tasks.run(task)
    assert said in str(error.value)
    assert "row 'bad'" in str(error.value)
