"""The answer is in the language that was asked for, as py3langid tells it; needs ``pip install 'llmbatch[language]'``.

It was chosen over lingua: from some 16 letters on it is right as often, at a tenth of the time and of the memory. Its probability
of a language is well calibrated, so an answer is sent back only where that of the wanted one is low, and not where two near
languages (Czech and Slovak, Norwegian and Danish) are hard to tell apart. Short answers, and those without letters, are not judged.

A language is given by its code (``de``, ``pt-BR``, ``deu``) or its name (``German``, ``Brazilian Portuguese``). Region and script
do not count: nothing here tells Brazilian from European Portuguese.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Field, model_validator

from llmbatch.check.rule import Answer, Rule, RuleSettings, not_text, short_form, text_of
from llmbatch.core.errors import JobError
from llmbatch.core.types import FailureKind
from llmbatch.core.words import short

_LANGUAGES_KEPT = 1024  # as rows name them
_READ, _JUDGED = 16_000, 4_000  # characters, of these after code and the like is gone; more make it no surer
_NO_LANGUAGE = "zxx"
_ALSO = {  # by the code that langcodes gives: what py3langid calls it, and what it tells apart that is wanted as well
    "ar": ("ar", "ary", "arz"),
    "cmn": ("zh",),
    "fil": ("tl",),
    "ff": ("fuv",),
    "gn": ("gug",),
    "ki": ("kik",),
    "ku": ("ku", "sdh"),
    "nb": ("no",),
    "no": ("no", "nn"),
    "uz": ("uz", "uzs"),
    "yue": ("yue", "zh"),
    "zh": ("zh", "wuu", "yue"),
}
# what is the same in every language: code, tags, addresses, placeholders
_NO_WORDS = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]*`|<[^<>]*>|(?<![A-Za-z])[A-Za-z]{2,10}://\S+|[\w.+-]{1,64}@[\w.-]+|\$?\{[^{}]*\}",
    re.DOTALL,
)


class Language(RuleSettings):
    """Which language, for all rows or by a field of each; and from when on an answer is judged."""

    is_: str | None = Field(None, alias="is", description="the language of all answers: a code such as de, or its name")
    field: str | None = Field(
        None, description="or where each row names its own: a variable of the prompt, or a field of the row"
    )
    least: int = Field(
        30, ge=1, description="answers of fewer letters are not judged; Chinese and Japanese ones count thrice"
    )
    probability: float = Field(
        0.1, gt=0, lt=1, description="send an answer back whose chance to be in the language is below this"
    )

    @model_validator(mode="after")
    def _one_way(self) -> Language:
        if (self.is_ is None) == (self.field is None):
            raise ValueError("needs one of is (a language for all rows) and field (where each row names its own)")
        return self


LanguageSettings = Annotated[Language | None, BeforeValidator(short_form("is"))]


class _Wanted(NamedTuple):
    name: str  # in English
    labels: tuple[str, ...]  # py3langid's


def make(settings: Language) -> Rule:
    """Raises ``JobError`` where the libraries are missing, and for a language that is not known."""
    identifier = _identifier()
    if settings.is_ is not None and isinstance(said := _wanted(settings.is_), str):
        raise JobError(f"answer.language {said}")
    name = settings.field

    def judge(answer: Answer) -> str | None:
        wanted = _wanted(settings.is_ if name is None else answer.row[name])
        text = _NO_WORDS.sub(" ", text_of(answer, settings.part)[:_READ])[:_JUDGED]
        if isinstance(wanted, str) or _letters(text) < settings.least:
            return None
        ranked = identifier.rank(text)
        likeliest = ranked[0][0]
        if likeliest == _NO_LANGUAGE or likeliest in wanted.labels:
            return None
        if sum(chance for label, chance in ranked if label in wanted.labels) >= settings.probability:
            return None
        return f"the answer is in {_english(likeliest)}, and must be in {wanted.name}"

    def misfit(row: Mapping[str, Any]) -> str | None:
        if name is None:
            return None
        if said := not_text("language", name, row):
            return said
        wanted = _wanted(row[name])
        return f"{short(name)} {wanted}" if isinstance(wanted, str) else None

    return Rule(FailureKind.LANGUAGE, judge, () if name is None else (name,), misfit)


@lru_cache(maxsize=_LANGUAGES_KEPT)
def _wanted(language: str) -> _Wanted | str:
    """What a code or name stands for, or what is wrong with it, in words that follow its place."""
    import langcodes
    from langcodes.tag_parser import LanguageTagError

    text = language.strip()
    try:
        found = langcodes.Language.get(text)
        known = found.language_name() if found.is_valid() else None
    except LanguageTagError:
        known = None
    if known is None:
        try:
            found = langcodes.find(text)
        except LookupError:
            return f"is {short(language)}, which is no language: give a code such as de, or its name"
    code = found.language or ""
    labels = tuple(label for label in _ALSO.get(code, (code,)) if label in _identifier().labels)
    if not labels:
        return f"is {short(language)}, a language that cannot be told here; take the rule out for it"
    return _Wanted(found.language_name(), labels)


def _letters(text: str) -> int:
    """How many letters a text has, as many as it takes to tell a language: one of a syllable or a word counts thrice."""
    return sum(3 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text if sign.isalpha())


@cache
def _identifier() -> Any:
    try:
        import langcodes  # noqa: F401
        import language_data  # noqa: F401
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise JobError(
            f"answer.language needs {error.name}, which is not installed: pip install 'llmbatch[language]'"
        ) from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def _english(label: str) -> str:
    import langcodes

    return str(langcodes.Language.get(label).language_name())


__all__ = ["LanguageSettings", "make"]
