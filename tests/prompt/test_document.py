from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch.core.errors import PromptError
from llmbatch.prompt.document import read_document


@pytest.mark.parametrize("text", ["no", "on", "Yes", "12:30", "010", "2024-01-01", "0x1F", ".inf", "=", "<<"])
def test_text_that_yaml_1_1_takes_for_something_else_stays_text(text: str) -> None:
    assert read_document(f"label: {text}", "p.yaml").value == {"label": text}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("-7", -7),
        ("0", 0),
        ("1e3", 1000.0),
        ("-.5", -0.5),
    ],
)
def test_json_s_scalars_are_read(text: str, value: object) -> None:
    assert read_document(f"x: {text}", "p.yaml").value == {"x": value}


def test_a_key_given_twice_is_an_error_with_both_lines() -> None:
    with pytest.raises(PromptError, match=r"p.yaml:3:1: the key 'a' is given twice, first on line 1"):
        read_document("a: 1\nb: 2\na: 3\n", "p.yaml")


def test_a_broken_file_is_an_error_with_line_and_column() -> None:
    with pytest.raises(PromptError, match=r"p.yaml:2:4: not valid YAML"):
        read_document("a: 1\nb: ]\n", "p.yaml")


def test_a_character_that_yaml_does_not_allow_is_an_error_with_its_line() -> None:
    with pytest.raises(PromptError, match=r"p\.yaml:2: not valid YAML: the character U\+0007"):
        read_document("a: 1\nb: \a", "p.yaml")


def test_an_alias_is_refused() -> None:
    with pytest.raises(PromptError, match=r"p.yaml:2:4: .*alias \*x is not allowed"):
        read_document("a: &x [1]\nb: *x\n", "p.yaml")


@pytest.mark.parametrize("text", ["!!python/object:os.system x", "!!binary aGk=", "!own 1", "!!timestamp 2024-01-01"])
def test_a_tag_is_refused(text: str) -> None:
    with pytest.raises(PromptError, match="tag"):
        read_document(f"a: {text}\n", "p.yaml")


def test_a_key_that_is_not_text_is_refused() -> None:
    with pytest.raises(PromptError, match=r"p.yaml:2:3: the key '1' is not text: put it in quotes"):
        read_document("a:\n  1: x\n", "p.yaml")


def test_a_file_nested_too_deeply_is_an_error() -> None:
    with pytest.raises(PromptError, match="nested too deeply"):
        read_document("[" * 5000, "p.yaml")


def test_a_number_of_thousands_of_digits_is_an_error() -> None:
    with pytest.raises(PromptError, match=r"p\.yaml"):
        read_document("a: " + "9" * 5000, "p.yaml")


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_an_empty_file_is_an_error(text: str) -> None:
    with pytest.raises(PromptError, match="empty"):
        read_document(text, "p.yaml")


def test_a_place_is_that_of_the_key_or_of_the_nearest_ancestor() -> None:
    document = read_document("a:\n  b:\n    - x: 1\n", "p.yaml")
    assert document.where(("a", "b", 0, "x")) == "p.yaml:3:7"
    assert document.where(("a", "missing")) == "p.yaml:1:1"


def test_the_line_of_a_block_scalar_is_that_of_its_first_line() -> None:
    document = read_document("a: |\n  first\nb: first\n", "p.yaml")
    assert document.line(("a",)) == 2
    assert document.line(("b",)) == 3


@given(st.text())
def test_any_text_is_a_document_or_a_prompt_error(text: str) -> None:
    try:
        assert read_document(text, "p.yaml").name == "p.yaml"
    except PromptError:
        return
