"""Paragraphs in; the text that a model is shown of them, and the check that takes its answer apart into as many, out.

An answer is read as the text was: it must have the same paragraphs in the same order, or it is sent back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmbatch.core.check import MESSAGE_LIMIT, Check, Verdict
from llmbatch.core.types import Constraint, Failure, FailureKind
from llmbatch.core.words import clip
from llmbatch.programs.paragraphs import Paragraph, Reader, one_newline

_BLOCKS = Reader()
_CALLED = {
    "heading": "a heading",
    "item": "an item of a list",
    "quote": "a quotation",
    "table": "a table",
    "code": "a block of code",
    "html": "HTML",
    "line": "a further line",
}


@dataclass(frozen=True, slots=True)
class Passage:
    """What a model is shown of some paragraphs. ``single``: it is one, shown without its mark, whose answer is one too."""

    text: str
    kinds: tuple[str, ...]
    reader: Reader
    single: bool = False

    def apart(self, answer: str) -> list[str] | str:
        """The texts of an answer's paragraphs, or what is wrong with them."""
        answer = one_newline(answer).strip()
        if self.single:
            found, wanted = len(_BLOCKS.read(answer)), len(_BLOCKS.read(self.text))
            return [self._unmarked(answer)] if found == wanted else _other_count(found, wanted, "paragraph")
        paragraphs = self.reader.read(answer)
        if len(paragraphs) != len(self.kinds):
            return _other_count(len(paragraphs), len(self.kinds), "line" if self.reader.lines else "paragraph")
        for number, (paragraph, kind) in enumerate(zip(paragraphs, self.kinds, strict=True), 1):
            if paragraph.kind != kind:
                seen, there = (_CALLED.get(each, "plain text") for each in (paragraph.kind, kind))
                return (
                    f"number {number} of its paragraphs is {seen}, and in the text it is {there}: keep what stands in front of "
                    "paragraphs (#, -, 1., >)"
                )
        return [paragraph.text for paragraph in paragraphs]

    def _unmarked(self, answer: str) -> str:
        """The answer without a mark that the model was not shown and put there all the same: the source's stands there already."""
        given, shown = self.reader.read(answer), self.reader.read(self.text)
        if len(given) == len(shown) == 1 and given[0].mark and not shown[0].mark:
            return given[0].text
        return answer


def _other_count(found: int, wanted: int, unit: str) -> str:
    has, text = (f"{count:,} {unit}{'' if count == 1 else 's'}" for count in (found, wanted))
    between = "" if unit == "line" else ", with a blank line between them" if wanted > 1 else ""
    return f"the answer has {has}, and the text has {text}: translate each by itself, in the same order{between}"


@dataclass(slots=True)
class PassageCheck:
    """The check of an answer, which is a list of texts where it passes. Implements ``Check``; ``inner`` is asked before."""

    passage: Passage
    inner: Check | None
    constraint: Constraint | None = None

    def __call__(self, text: str, row: Mapping[str, Any] | None = None, *, cut_off: bool = False) -> Verdict:
        value, failure = (text, None) if self.inner is None else self.inner(text, row, cut_off=cut_off)
        if failure is not None:
            return Verdict(None, failure)
        found = self.passage.apart(str(value))
        if isinstance(found, str):
            return Verdict(None, Failure(FailureKind.MARKUP, clip(found, MESSAGE_LIMIT)))
        return Verdict(found, None)


def alone(paragraph: Paragraph, reader: Reader) -> Passage:
    """A paragraph shown by itself, without the mark in front of it."""
    return Passage(paragraph.text, (paragraph.kind,), reader._replace(keep=()), single=True)


def together(source: str, paragraphs: Sequence[Paragraph], reader: Reader, *, marks: bool) -> Passage | None:
    """Paragraphs of a source, which the reader read, shown one after another: with their marks if that can be told apart again.

    None where it cannot without them either, as where one has a blank line in it.
    """
    if len(paragraphs) == 1:
        return alone(paragraphs[0], reader)
    if marks:
        text = _written(source, paragraphs, marks=True, near=True)
        if (passage := _told_apart(text, paragraphs, reader._replace(keep=()))) is not None:
            return passage
    text = _written(source, paragraphs, marks=False, near=reader.lines)
    return _told_apart(text, paragraphs, Reader(lines=reader.lines))


def _told_apart(text: str, paragraphs: Sequence[Paragraph], reader: Reader) -> Passage | None:
    found = reader.read(text)
    if [paragraph.text for paragraph in found] != [paragraph.text for paragraph in paragraphs]:
        return None
    return Passage(text, tuple(paragraph.kind for paragraph in found), reader)


def _written(source: str, paragraphs: Sequence[Paragraph], *, marks: bool, near: bool) -> str:
    """Paragraphs with a blank line between them; ``near``: without one where there is none in the source."""
    parts: list[str] = []
    before: Paragraph | None = None
    for paragraph in paragraphs:
        if before is not None:
            between = one_newline(source[before.end : paragraph.start])
            parts.append("\n" if near and between.count("\n") == 1 else "\n\n")
        parts.append(with_marks(paragraph) if marks else paragraph.text)
        before = paragraph
    text = "".join(parts)
    indent = text[: len(text) - len(text.lstrip(" "))]
    lines = text.split("\n")
    if indent and all(not line or line.startswith(indent) for line in lines):
        text = "\n".join(line[len(indent) :] for line in lines)
    return text.strip()  # as an answer is


def with_marks(paragraph: Paragraph) -> str:
    """The text of a paragraph with what stands in front of its lines."""
    first, *others = paragraph.text.split("\n")
    return "\n".join([paragraph.mark + first, *(paragraph.prefix + line for line in others)])


__all__ = ["Passage", "PassageCheck", "alone", "together", "with_marks"]
