"""What each reader reads, and what it does not take for an answer."""

from __future__ import annotations

from typing import Any

import pytest

from llmbatch.core.errors import JobError
from llmbatch.evals.readers import READERS
from llmbatch.evals.readers.base import make_reader

CHOICES = ["Paris", "Rome", "New York", "York"]


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("42", 42),
        ("It is 1,234.50 km.", 1234.5),
        ("1 234 567 and no more", 1234567),
        ("first 3, then 4", 4),
        ("-5 degrees", -5),
        ("\u22127", -7),
        ("$3,000", 3000),
        ("6.02e23", 6.02e23),
        ("3.0", 3),
        ("\\boxed{18}", 18),
        ("about 12,50", 50),
        (".5", 0.5),
        ("it is -.25 of it", -0.25),
        ("1e500", None),
        ("page17 has none, x2 neither", None),
        ("none", None),
    ],
)
def test_a_number_is_read_with_its_separators_sign_and_exponent(output: str, answer: Any) -> None:
    assert make_reader("number").read(output) == answer


def test_a_number_may_be_written_with_a_comma_and_have_a_unit() -> None:
    assert make_reader({"kind": "number", "decimal": ","}).read("1.234,5 km") == 1234.5
    units = make_reader({"kind": "number", "units": {"million": 1e6, "%": 0.01}})
    assert [units.read(text) for text in ("$3 million", "12 %", "12%.", "7 millionaires")] == [3_000_000, 0.12, 0.12, 7]
    assert make_reader({"kind": "number", "which": "first"}).read("2 of 3") == 2


def test_a_number_too_long_to_be_one_is_none() -> None:
    assert make_reader("number").read("9" * 5000) is None


def test_a_reference_is_the_same_number_however_it_is_written() -> None:
    reader = make_reader("number")
    assert {reader.reference(value) for value in ("1,000", 1000, 1000.0, "$1,000.00")} == {1000}
    with pytest.raises(ValueError, match="no number"):
        reader.reference("many")


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("B", "Rome"),
        ("b", "Rome"),
        ("(B)", "Rome"),
        ("B) because it is old", "Rome"),
        ("**B.** Rome", "Rome"),
        ("The answer is (B).", "Rome"),
        ("Let me think.\nA is wrong.\nAnswer: B", "Rome"),
        ("rome.", "Rome"),
        ("I think it is Rome, of course", "Rome"),
        ("It is New York", "New York"),
        ("It is York", "York"),
        ("Paris or Rome", None),
        ("Option A is wrong, Paris lies elsewhere.\nThe answer is (B).", "Rome"),
        ("A city", None),
        ("E", None),
        ("", None),
    ],
)
def test_a_choice_is_read_by_its_letter_or_its_text(output: str, answer: Any) -> None:
    assert make_reader("choice").read(output, CHOICES) == answer


def test_a_choice_that_begins_with_a_letter_is_not_that_letter() -> None:
    assert make_reader("choice").read("The answer is A dog.", ["A cat", "A dog"]) == "A dog"
    assert make_reader("choice").read("The answer is A.", ["A cat", "A dog"]) == "A cat"


def test_labels_are_the_same_for_every_row() -> None:
    reader = make_reader({"kind": "choice", "labels": ["yes", "no"]})
    assert [reader.read(text) for text in ("Yes.", "no", "No, never", "yes and no", "maybe")] == [
        "yes",
        "no",
        "no",
        None,
        None,
    ]
    assert reader.reference("no") == "no"


@pytest.mark.parametrize("value", [1, "1", "B", "b", "Rome"])
def test_the_right_choice_may_be_named_by_number_letter_or_text(value: Any) -> None:
    assert make_reader("choice").reference(value, CHOICES) == "Rome"


@pytest.mark.parametrize("value", [4, -1, "E", "Berlin", True, None])
def test_a_reference_that_is_no_choice_is_an_error_that_lists_them(value: Any) -> None:
    with pytest.raises(ValueError, match="Paris"):
        make_reader("choice").reference(value, CHOICES)


@pytest.mark.parametrize(
    ("settings", "output", "answer"),
    [
        ({"pattern": r"#### (.*)"}, "so\n#### 7", "7"),
        ({"pattern": r"\d+"}, "1 2 3", "3"),
        ({"pattern": r"\d+", "which": "first"}, "1 2 3", "1"),
        ({"pattern": r"answer: (\w+)", "ignore_case": True}, "Answer: yes", "yes"),
        ({"pattern": r"a(x)?b|c(y)"}, "cy", "y"),
        ({"pattern": r"z"}, "cy", None),
    ],
)
def test_a_regular_expression_reads_its_first_group_or_all_that_it_finds(
    settings: dict[str, Any], output: str, answer: Any
) -> None:
    assert make_reader({"kind": "regex", **settings}).read(output) == answer


@pytest.mark.parametrize(
    ("settings", "output", "answer"),
    [
        ({}, '{"a": [1]}', {"a": [1]}),
        ({}, {"a": [1]}, {"a": [1]}),
        ({"field": "a.0"}, 'Here it is:\n```json\n{"a": [1]}\n```\nbye', 1),
        ({"field": "a"}, 'I say {"a": "x"} now', "x"),
        ({"field": "b"}, '{"a": 1}', None),
        ({"field": "a", "text": True}, '{"a": {"b": 1}}', '{"b": 1}'),
        ({}, "none {here", None),
        ({"field": "a"}, '{"a": NaN}', None),
        ({"field": "a"}, '{"a": 1e999}', None),
    ],
)
def test_json_is_found_in_a_text_and_a_field_in_it(settings: dict[str, Any], output: Any, answer: Any) -> None:
    assert make_reader({"kind": "json", **settings}).read(output) == answer


def test_the_last_line_that_is_not_blank_is_read_without_its_prefix() -> None:
    assert make_reader("last_line").read("one\ntwo \n\n") == "two"
    assert make_reader({"kind": "last_line", "prefix": "Answer:"}).read("x\nAnswer: two") == "two"
    assert make_reader("last_line").read(" \n") is None


def test_code_is_read_from_its_block() -> None:
    text = "First:\n```python\nx = 1\n```\nthen\n```bash\nls\n```\nand\n```\ny = 2\n```"
    assert make_reader("code").read(text) == "y = 2"
    assert make_reader({"kind": "code", "language": "python", "which": "first"}).read(text) == "x = 1"
    assert make_reader("code").read("x = 3\n") == "x = 3"
    assert make_reader({"kind": "code", "block": True}).read("x = 3") is None
    assert make_reader("code").read("```python\nx = 1\nif x") == "x = 1\nif x"


def test_text_is_read_up_to_where_it_is_to_end() -> None:
    assert make_reader("text").read("  yes \n") == "yes"
    assert make_reader({"kind": "text", "until": "\n\n"}).read("yes\n\nQ: more") == "yes"
    assert make_reader("text").read(" ") is None


@pytest.mark.parametrize("name", READERS)
def test_no_output_has_no_answer(name: str) -> None:
    settings = {"pattern": "."} if name == "regex" else {}
    reader = make_reader({"kind": name, **settings})
    assert reader.read(None) is None
    assert name == "instructions" or reader.read("") is None


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("numbr", "did you mean 'number'"),
        ({"kind": "number", "wich": "last"}, "did you mean 'which'"),
        ({"kind": "regex", "pattern": "("}, "no regular expression"),
        ({"kind": "regex"}, "pattern"),
        ({"pattern": "x"}, "unknown reader"),
    ],
)
def test_a_reader_that_is_unknown_or_set_wrongly_is_an_error(entry: Any, said: str) -> None:
    with pytest.raises(JobError, match=said):
        make_reader(entry)
