"""The terms of a glossary that a text of the row has are translated in the answer as the glossary says.

Terms are found word by word, the longest first: where ``bank account`` is a term, its ``bank`` is not looked for. An answer must
have the translation once, however often the term comes: what is clear is not said again. Small and capital letters are the same,
but for terms in capitals alone (``US``, ``IT``), which are other words in small letters.
"""

from __future__ import annotations

import csv
import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field, field_validator, model_validator

from llmbatch.check.pieces import pieces, plain
from llmbatch.check.rule import AgainstSource, Answer, Rule, not_text, text_of
from llmbatch.check.strict_json import JsonError, parse
from llmbatch.core.errors import SchemaError
from llmbatch.core.settings import Counts, IsPath
from llmbatch.core.types import FailureKind
from llmbatch.core.words import first_few, quote, short, type_name

Terms = Mapping[str, str | Sequence[str]]
"""Term -> its translation, or several of which one is enough."""

_SHOWN = 6
_HEADERS = frozenset({("source", "target"), ("term", "translation")})
_COMPOUND = 4  # letters of a word that may begin a longer one
_ENDING, _SHORT_ENDING, _SHORT = 4, 2, 5  # letters that an ending may have; those of a word of at most five letters
_SUFFIXES = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
_DISTINCT = 64  # glossaries of rows that are kept ready


class GlossarySettings(AgainstSource):
    """The terms, and how alike a word must be to be one."""

    terms: Annotated[dict[str, str | tuple[str, ...]] | str | None, IsPath(), Counts.CONTENT] = Field(
        None,
        description="{term: translation}, with a list where several will do; or a file: CSV or TSV with a term and a translation "
        "a line, or JSON",
    )
    terms_from: str | None = Field(
        None, description="or where they are: a variable of the prompt, or a field of the row, with {term: translation}"
    )
    case: bool = Field(False, description="a word in other small and capital letters is another word")
    inflected: bool = Field(False, description="a word with another ending is the same word, by its first letters")

    @field_validator("terms", mode="before")
    @classmethod
    def _lists(cls, terms: Any) -> Any:
        if not isinstance(terms, Mapping):
            return terms
        return {term: tuple(given) if isinstance(given, list) else given for term, given in terms.items()}

    @model_validator(mode="after")
    def _one_way(self) -> GlossarySettings:
        if (self.terms is None) == (self.terms_from is None):
            raise ValueError("needs one of terms (for all rows) and terms_from (where the prompt or each row has them)")
        if isinstance(self.terms, dict):
            _checked(self.terms)
        return self


class _Way(NamedTuple):
    """How words are compared."""

    case: bool
    inflected: bool


class _Term(NamedTuple):
    term: str
    words: tuple[str, ...]
    exact: bool  # letter for letter
    translations: tuple[str, ...]


class Glossary:
    """The terms of one glossary, ready to be found in texts. Raises ``ValueError`` for one that cannot be used."""

    def __init__(self, terms: Terms, way: _Way) -> None:
        self._way = way
        self._by_start: dict[str, list[_Term]] = {}
        for term, given in _checked(terms, empty=True).items():
            words = tuple(_words(term))
            exact = way.case or term.isupper()
            entry = _Term(term, words if exact else _folded(words), exact, given)
            self._by_start.setdefault(_key(words[0], way), []).append(entry)
        for entries in self._by_start.values():
            entries.sort(key=lambda entry: -len(entry.words))

    def terms_in(self, text: str) -> list[_Term]:
        """The terms that a text has, each once."""
        words = _words(text)
        folded = _folded(words)
        found: dict[str, _Term] = {}
        place = 0
        while place < len(words):
            entry = next(self._at(words, folded, place), None)
            if entry is not None:
                found[entry.term] = entry
            place += 1 if entry is None else len(entry.words)
        return list(found.values())

    def missing(self, source: str, answer: str) -> list[_Term]:
        """The terms of the source of which the answer has no translation."""
        found = self.terms_in(source)
        if not found:
            return []
        words = _words(answer)
        folded = _folded(words)
        return [entry for entry in found if not any(self._has(words, folded, each) for each in entry.translations)]

    def _at(self, words: Sequence[str], folded: Sequence[str], place: int) -> Iterator[_Term]:
        for entry in self._by_start.get(_key(words[place], self._way), ()):
            there = (words if entry.exact else folded)[place : place + len(entry.words)]
            if len(there) == len(entry.words) and all(map(self._is_term, there, entry.words)):
                yield entry

    def _is_term(self, word: str, term: str) -> bool:
        # in the source less is allowed: "banks" is a bank, "bankrupt" is not
        return word == term or (
            self._way.inflected and word.startswith(term) and len(word) - len(term) <= _SHORT_ENDING
        )

    def _has(self, words: Sequence[str], folded: Sequence[str], translation: str) -> bool:
        wanted: Sequence[str] = _words(translation)
        exact = self._way.case or translation.isupper()
        there = words if exact else folded
        wanted = wanted if exact else _folded(wanted)
        return any(
            all(map(self._is_translation, there[place : place + len(wanted)], wanted))
            for place in range(len(there) - len(wanted) + 1)
        )

    def _is_translation(self, word: str, wanted: str) -> bool:
        if word == wanted:
            return True
        if not self._way.inflected:
            return False
        word, wanted = _bare(word), _bare(wanted)
        if len(wanted) >= _COMPOUND and word.startswith(wanted):
            return True
        stem = wanted[: max(3, len(wanted) - len(wanted) // 3)]
        ending = _SHORT_ENDING if len(wanted) <= _SHORT else _ENDING
        return word.startswith(stem) and len(word) - len(stem) <= ending


class _OfRows:
    """Glossaries that rows bring, a few of them ready; most jobs have one, which is the same object for every row."""

    def __init__(self, way: _Way) -> None:
        self._way = way
        self._last: tuple[Terms, Glossary] | None = None
        self._ready: dict[str, Glossary] = {}

    def of(self, terms: Terms) -> Glossary:
        """Raises ``ValueError`` for one that cannot be used."""
        last = self._last
        if last is not None and last[0] is terms:
            return last[1]
        key = json.dumps(terms, sort_keys=True)
        found = self._ready.get(key)
        if found is None:
            found = Glossary(terms, self._way)
            if len(self._ready) >= _DISTINCT:
                self._ready.clear()
            self._ready[key] = found
        self._last = terms, found
        return found


def make(settings: GlossarySettings) -> Rule:
    """Raises ``SchemaError`` for a glossary that cannot be used."""
    name, terms_from = settings.field, settings.terms_from
    way = _Way(settings.case, settings.inflected)
    of_all = None if settings.terms is None else Glossary(with_terms(settings).terms or {}, way)  # type: ignore[arg-type]
    of_rows = _OfRows(way)

    def judge(answer: Answer) -> str | None:
        glossary = of_all or of_rows.of(answer.row[terms_from or ""])
        missing = glossary.missing(answer.row[name], text_of(answer, settings.part))
        if not missing:
            return None
        said = first_few(
            missing, _SHOWN, lambda e: f"{quote(e.term)} must be {' or '.join(map(quote, e.translations))}"
        )
        return f"the answer does not translate the words of the glossary as given: {said}"

    def misfit(row: Mapping[str, Any]) -> str | None:
        if said := not_text("glossary", name, row):
            return said
        if terms_from is None:
            return None
        terms = row.get(terms_from)
        if not isinstance(terms, dict):
            seen = "the row has none" if terms is None else f"it is of type {type_name(terms)} ({short(terms)})"
            return f"answer.glossary needs {{term: translation}} in {short(terms_from)}, and {seen}"
        try:
            of_rows.of(terms)
        except ValueError as error:
            return f"answer.glossary: {short(terms_from)}: {error}"
        return None

    names = (name,) if terms_from is None else (name, terms_from)
    return Rule(FailureKind.GLOSSARY, judge, names, misfit)


def with_terms(settings: GlossarySettings, base: Path | None = None) -> GlossarySettings:
    """The settings with the terms themselves in the place of a file's name. Raises ``SchemaError`` with the line."""
    if not isinstance(settings.terms, str):
        return settings
    return settings.model_copy(update={"terms": _read((base or Path()) / settings.terms)})


def _checked(terms: Mapping[Any, Any], *, empty: bool = False) -> dict[str, tuple[str, ...]]:
    """The terms with the list of translations of each. Raises ``ValueError`` for one that no answer could be held to."""
    if not terms and not empty:
        raise ValueError("it has no terms")
    checked: dict[str, tuple[str, ...]] = {}
    for term, given in terms.items():
        translations = (given,) if isinstance(given, str) else given
        if not isinstance(translations, list | tuple) or not all(isinstance(each, str) for each in translations):
            raise ValueError(
                f"{short(term)} is translated as {short(given)}, which is neither text nor a list of texts"
            )
        if not _words(term) or not translations or not all(map(_words, translations)):
            raise ValueError(f"the term {short(term)} or its translation {short(given)} is blank")
        checked[term] = tuple(translations)
    return checked


def _read(path: Path) -> dict[str, tuple[str, ...]]:
    suffix = path.suffix.lower()
    if suffix != ".json" and suffix not in _SUFFIXES:
        raise SchemaError(f"{path}: a glossary is a .csv, .tsv or .json file, or a mapping in the job itself")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise SchemaError(f"{path}: there is no such glossary") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SchemaError(f"{path}: cannot be read: {error}") from error
    try:
        return _checked(_of_json(text) if suffix == ".json" else _of_lines(text, _SUFFIXES[suffix], path))
    except ValueError as error:
        raise SchemaError(f"{path}: {error}") from error


def _of_json(text: str) -> Mapping[str, Any]:
    try:
        terms = parse(text)
    except JsonError as error:
        raise ValueError(str(error)) from None
    if not isinstance(terms, dict):
        said = f"a glossary is an object {{term: translation}}, and this is of type {type_name(terms)}"
        raise ValueError(said)  # noqa: TRY004 - what is wrong with a glossary is one kind of error
    return terms


def _of_lines(text: str, delimiter: str, path: Path) -> dict[str, list[str]]:
    """A term and a translation a line, further columns do not count; a term that comes again has another translation."""
    terms: dict[str, list[str]] = {}
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            term, translation = ([cell.strip() for cell in cells] + ["", ""])[:2]
            if not any(map(str.strip, cells)) or (not terms and (term.lower(), translation.lower()) in _HEADERS):
                continue
            if not term or not translation:
                seen = quote(delimiter.join(cells).strip())
                raise SchemaError(f"{path}:{reader.line_num}: has no term with a translation beside it: {seen}")
            terms.setdefault(term, []).append(translation)
    except csv.Error as error:
        raise SchemaError(f"{path}:{reader.line_num}: {error}") from error
    return terms


def _words(text: str) -> list[str]:
    return [piece.text for piece in pieces(unicodedata.normalize("NFC", text)) if not piece.text.isspace()]


def _folded(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(plain, words))


def _key(word: str, way: _Way) -> str:
    """What terms are looked up by: the first word, or what every ending leaves of it."""
    folded = plain(word)
    return folded[:3] if way.inflected else folded


def _bare(word: str) -> str:
    """Without accents: an umlaut is an ending too (Bank, Bänke)."""
    return "".join(sign for sign in unicodedata.normalize("NFD", word) if not unicodedata.combining(sign))


__all__ = ["GlossarySettings", "make", "with_terms"]
