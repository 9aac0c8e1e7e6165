from __future__ import annotations

import sys

import pytest

from llmbatch.check.answer import make_check
from llmbatch.check.base import OutputSettings
from llmbatch.core.errors import JobError
from llmbatch.core.types import FailureKind

GERMAN = "Das Treffen wurde auf Donnerstag verlegt, weil der Raum belegt war."
ENGLISH = "The meeting was moved to Thursday because the room was taken."


def said(language: object, answer: str, row: dict[str, str] | None = None) -> str | None:
    check = make_check(OutputSettings.model_validate({"language": language}))
    failure = check(answer, row).failure
    assert failure is None or failure.kind is FailureKind.LANGUAGE
    return failure.message if failure else None


@pytest.mark.parametrize("language", ["de", "DE", "deu", "de-AT", "de_CH", "German", "german"])
def test_a_language_is_given_by_code_or_name(language: str) -> None:
    assert said(language, GERMAN) is None
    assert said(language, ENGLISH) == "the answer is in English, and must be in German"


@pytest.mark.parametrize(
    ("language", "answer"),
    [
        ("no", "Møtet er flyttet til torsdag ettermiddag."),
        ("nb", "Møtet er flyttet til torsdag ettermiddag."),
        ("Brazilian Portuguese", "Você precisa reiniciar o computador agora mesmo."),
        ("zh-Hant", "會議改到星期四下午了，請大家準時參加。"),
        ("ja", "会議は木曜日に延期されました。"),
        ("tl", "Inilipat ang pulong sa Huwebes ng hapon dahil okupado ang silid."),
        ("Arabic", "تم تأجيل الاجتماع إلى يوم الخميس لأن القاعة مشغولة."),
    ],
)
def test_a_right_answer_passes_whatever_the_language_is_called(language: str, answer: str) -> None:
    assert said(language, answer) is None
    assert said(language, ENGLISH) is not None


def test_a_near_language_is_no_ground_to_send_an_answer_back() -> None:
    assert said("nl", "Klik hier om verder te gaan met de instellingen") is None
    assert said("hr", "Sastanak je pomeren za četvrtak zbog praznika") is None


@pytest.mark.parametrize(
    "answer",
    [
        "Yes, of course.",
        "42 / 17 = 2.47",
        "https://example.org/the/meeting/was/moved/to/thursday",
        "```\nfor each in the_list: print(each)\n```",
    ],
)
def test_short_answers_and_those_without_words_are_not_judged(answer: str) -> None:
    assert said("de", answer) is None


def test_each_row_can_name_its_language_and_a_language_that_is_none_is_a_misfit() -> None:
    by_row = {"field": "to"}
    assert said(by_row, GERMAN, {"to": "de"}) is None
    assert said(by_row, GERMAN, {"to": "French"}) == "the answer is in German, and must be in French"
    check = make_check(OutputSettings.model_validate({"language": by_row}))
    assert check.names == ("to",)
    assert check.misfit({"to": "fr"}) is None
    assert check.misfit({"to": "Gibberish"}) == (
        "'to' is 'Gibberish', which is no language: give a code such as de, or its name"
    )
    assert check.misfit({"to": "tlh"}) == "'to' is 'tlh', a language that cannot be told here; take the rule out for it"


@pytest.mark.parametrize("language", ["xq", "", "no language"])
def test_a_language_that_is_none_is_refused(language: str) -> None:
    with pytest.raises(JobError, match=r"answer\.language is .*, which is no language"):
        make_check(OutputSettings.model_validate({"language": language}))


def test_without_the_library_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from llmbatch.check import language

    language._identifier.cache_clear()
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    try:
        with pytest.raises(JobError, match=r"pip install 'llmbatch\[language\]'"):
            make_check(OutputSettings.model_validate({"language": "de"}))
    finally:
        language._identifier.cache_clear()
