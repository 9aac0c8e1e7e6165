from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from llmbatch.check.answer import make_check
from llmbatch.check.base import OutputSettings
from llmbatch.core.errors import SchemaError
from llmbatch.core.types import FailureKind

TERMS = {
    "bank account": "Bankkonto",
    "bank": "Bank",
    "US": ["USA", "Vereinigte Staaten"],
    "data protection": "Datenschutz",
}


def said(answer: str, source: str, terms: object = TERMS, **settings: object) -> str | None:
    check = make_check(OutputSettings.model_validate({"glossary": {"field": "text", "terms": terms, **settings}}))
    failure = check(answer, {"text": source}).failure
    assert failure is None or failure.kind is FailureKind.GLOSSARY
    return failure.message if failure else None


def test_the_terms_of_the_source_must_be_translated_as_given() -> None:
    assert said("Die Bank ist zu.", "The bank is closed.") is None
    assert said("Das Geldhaus ist zu.", "The bank of the US is closed.") == (
        "the answer does not translate the words of the glossary as given: "
        "'bank' must be 'Bank', 'US' must be 'USA' or 'Vereinigte Staaten'"
    )


def test_the_longest_term_goes_first_and_words_are_whole() -> None:
    assert said("Das Bankkonto ist leer.", "The bank account is empty.") is None
    assert said("Sie ist pleite.", "She is bankrupt.") is None


def test_small_and_capital_letters_are_the_same_but_for_terms_in_capitals_alone() -> None:
    assert said("die bank", "BANK") is None
    assert said("Tell us.", "Tell us.") is None
    assert said("die bank", "bank", case=True) is not None
    assert said("irgendwas", "BANK", case=True) is None


@pytest.mark.parametrize(
    ("term", "translation", "source", "answer"),
    [
        ("bank", "Bank", "The banks are closed.", "Die Bänke und Banken sind zu."),
        ("contract", "contrato", "All contracts", "todos los contratos"),
        ("data protection", "Datenschutz", "data protection officer", "Datenschutzbeauftragte"),
        ("contract", "Vertrag", "the contract", "des Vertrags und der Verträge"),
        ("house", "casa", "houses", "las casas"),
    ],
)
def test_inflected_forms_count_where_that_is_asked_for(term: str, translation: str, source: str, answer: str) -> None:
    assert said(answer, source, {term: translation}, inflected=True) is None
    assert said(answer, term, {term: translation}) is not None or translation.lower() in answer.lower()


def test_another_word_is_no_inflected_form() -> None:
    assert said("der Kasten", "houses", {"house": "casa"}, inflected=True) is not None
    assert said("el casino", "the house", {"house": "casa"}, inflected=True) is not None
    assert said("irgendwas", "bankruptcy", inflected=True) is None


def test_terms_of_scripts_without_spaces_are_found() -> None:
    assert said("China ist groß.", "中国很大。", {"中国": "China"}) is None
    assert said("Das Land ist groß.", "中国很大。", {"中国": "China"}) is not None
    assert said("银行关门了。", "The bank is closed.", {"bank": "银行"}) is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("terms.csv", "source,target\nbank,Bank\nUS,USA\nUS,Vereinigte Staaten\n\n"),
        ("terms.tsv", "\ufeffbank\tBank\ta comment\nUS\tUSA\nUS\tVereinigte Staaten\n"),
        ("terms.json", '{"bank": "Bank", "US": ["USA", "Vereinigte Staaten"]}'),
    ],
)
def test_a_glossary_can_be_a_file(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    given = {"glossary": {"field": "text", "terms": name}}
    check = make_check(OutputSettings.model_validate(given), tmp_path)
    assert check("Bank der USA", {"text": "bank of the US"}).failure is None
    failure = check("x", {"text": "the source of the US"}).failure
    assert failure is not None and failure.message.endswith("'US' must be 'USA' or 'Vereinigte Staaten'")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("terms.csv", "bank,Bank\nmoney\n", r"terms\.csv:2: has no term with a translation beside it: 'money'"),
        ("terms.csv", 'bank,"Ba\n', r"terms\.csv:1: "),
        ("terms.csv", "\n", "it has no terms"),
        ("terms.json", "[1]", "is of type array"),
        ("terms.json", '{"a": 1}', "translated as 1, which is neither text nor a list of texts"),
        ("terms.json", '{"a": "b", "a": "c"}', "more than once"),
        ("terms.xlsx", "", r"a glossary is a \.csv, \.tsv or \.json file"),
        ("none.csv", None, "there is no such glossary"),
    ],
)
def test_a_glossary_that_cannot_be_used_is_named_with_the_line(
    tmp_path: Path, name: str, text: str | None, words: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(SchemaError, match=words):
        make_check(OutputSettings.model_validate({"glossary": {"field": "text", "terms": name}}), tmp_path)


@pytest.mark.parametrize(
    "given",
    [{}, {"terms": {}}, {"terms": {"a": " "}}, {"terms": {"a": []}}, {"terms": {"a": "b"}, "terms_from": "x"}],
)
def test_terms_that_no_answer_could_be_held_to_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        OutputSettings.model_validate({"glossary": {"field": "text", **given}})


def test_terms_can_come_with_the_row() -> None:
    check = make_check(OutputSettings.model_validate({"glossary": {"field": "text", "terms_from": "words"}}))
    assert check("die Bank", {"text": "the bank", "words": {"bank": "Bank"}}).failure is None
    assert check("das Geldhaus", {"text": "the bank", "words": {"bank": "Bank"}}).failure is not None
    assert check("das Geldhaus", {"text": "the bank", "words": {}}).failure is None
    assert check.misfit({"text": "a", "words": {}}) is None
    assert "and the row has none" in str(check.misfit({"text": "a"}))
    assert "it is of type array" in str(check.misfit({"text": "a", "words": ["b"]}))
    assert "is translated as 3" in str(check.misfit({"text": "a", "words": {"b": 3}}))
