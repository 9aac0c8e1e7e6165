"""A document of any length, translated in chunks and joined again without seams: all but its paragraphs stays byte for byte.

    program:
      name: translate
      settings: {chunk: 512, context: 100}

The job's prompt is asked with each chunk as ``text``, with the end of what stands before it in the source as ``before``, so all
chunks of all documents run at once. The rules of ``answer`` (language, markup, glossary) hold an answer against the chunk itself.
An answer must have the paragraphs of its chunk, else it is sent back; after the last attempt its paragraphs are asked one by one.
Where that fails too the row is not ok, and its output has all the rest. The record's ``details``:

    {"chunks": [{"start": 0, "end": 181, "output_start": 0, "output_end": 202, "paragraphs": 7, "status": "ok", "usage": {...}},
                ...], "kept": 3}

Places are in characters; ``kept`` counts the paragraphs that stay as they are. A chunk whose paragraphs were asked one by one has
``one_by_one``, and under ``failed`` those that could not be translated, with their places.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from llmbatch.core.types import Accepted, Failure, FailureKind, Status, Usage
from llmbatch.core.words import short, type_name
from llmbatch.programs.base import Ask, Complete, Incomplete, Program, ProgramKind, PromptFacts, RowAsk
from llmbatch.programs.chunks import markup_of, split, splitter_of
from llmbatch.programs.paragraphs import Paragraph, Reader, Staying, one_newline, put
from llmbatch.programs.passages import Passage, PassageCheck, alone, together, with_marks

_CHUNK = 512  # tokens: a model leaves more out the more it is given at a time
_CHARACTERS = 6  # more than a token has in most languages: what stands before a chunk is tried shorter then
_LONGEST_WORD = 40  # characters
_REQUESTS = 8  # of a document, where nothing is known of how long they are
_SENTENCE = re.compile(r"(?<=[.!?…])[\"')\]”’»]*\s+|(?<=[。！？])")
_NO_OTHER_WAY = (FailureKind.ENGINE_DIED, FailureKind.ENGINE, FailureKind.REFUSED)


class TranslateSettings(BaseModel):
    """How a document is taken apart, and what becomes of what cannot be translated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    field: str = Field("text", description="the field with the document; prompts are given a chunk under this name")
    markup: Literal["auto", "text", "markdown"] = Field(
        "auto", description="how it is read; auto: by the row's media_type, as text where there is none"
    )
    chunk: int | None = Field(
        None, ge=1, description="tokens of a chunk, at most; by default 512. Never more than leave room for the answer"
    )
    paragraphs: int | None = Field(None, ge=1, description="paragraphs of a chunk, at most")
    lines: bool = Field(
        False, description="each line is a paragraph, as in subtitles, verses, texts without blank lines"
    )
    context: int = Field(100, ge=0, description="tokens of the source in front of a chunk that its prompt is given")
    before: str = Field("before", description="the variable that they are given in")
    growth: float = Field(2.0, gt=0, description="times as many tokens as its source that an answer may have")
    marks: bool = Field(
        True, description="show the model what stands in front of paragraphs (#, -, 1., >); the source's is kept anyway"
    )
    keep: frozenset[Staying] = Field(
        frozenset({"code", "front_matter", "links", "no_words"}),
        description="what stays as it is: code blocks, front_matter, links (the lines that say where they point to), "
        "no_words (paragraphs of numbers, addresses and the like)",
    )
    keep_source: bool = Field(
        False, description="what cannot be translated stands in the output in the source's words; else it is left out"
    )
    details: bool = Field(True, description="keep the chunks' places, status and usage in the record's details")

    @model_validator(mode="after")
    def _two_names(self) -> TranslateSettings:
        if self.field == self.before:
            raise ValueError(f"field and before are both {self.field!r}: a chunk and what stands before it")
        return self


@dataclass(slots=True)
class _Chunk:
    """Some paragraphs of a document, and what came of them: a text each, where there is one."""

    paragraphs: list[Paragraph]
    passage: Passage
    texts: list[str | None] = field(default_factory=list)
    failures: dict[int, Failure] = field(default_factory=dict)  # by the paragraph's number
    usage: Usage = field(default_factory=Usage)
    one_by_one: bool = False

    @property
    def start(self) -> int:
        return self.paragraphs[0].start

    @property
    def end(self) -> int:
        return self.paragraphs[-1].end

    def take(self, answer: Accepted | Failure) -> None:
        """The answer of the whole chunk."""
        if isinstance(answer, Accepted):
            self.texts = list(answer.value)
            self.usage = answer.completion.usage
        else:
            self.texts = [None] * len(self.paragraphs)
            self.failures = dict.fromkeys(range(len(self.paragraphs)), answer)

    def take_one(self, number: int, answer: Accepted | Failure) -> None:
        """The answer of one paragraph, after that of the whole failed."""
        self.one_by_one = True
        if isinstance(answer, Accepted):
            del self.failures[number]
            self.texts[number] = answer.value[0]
            self.usage = self.usage + answer.completion.usage
        else:
            self.failures[number] = answer

    @property
    def can_be_taken_apart(self) -> bool:
        """Whether its paragraphs are to be asked one by one."""
        failure = next(iter(self.failures.values()), None)
        return failure is not None and failure.kind not in _NO_OTHER_WAY and len(self.paragraphs) > 1


def translate(row: RowAsk) -> Program:
    settings: TranslateSettings = row.settings
    source = row.row.data.get(settings.field)
    if not isinstance(source, str) or not source.strip():
        return Incomplete(source, _nothing(row, settings.field, source))
    markup = markup_of(settings.markup, row.row.data.get("media_type"))
    reader = Reader(markup, settings.lines, settings.keep)
    paragraphs = reader.read(source)
    chunks: list[_Chunk] = []
    if not all(paragraph.stays for paragraph in paragraphs):
        most = _most(row, settings)
        if isinstance(most, Failure):
            yield most
            return Incomplete()
        chunks = list(_chunks(row, source, paragraphs, reader, most))
        yield from _translated(row, source, chunks)
    output, places = _joined(source, chunks, keep_source=settings.keep_source)
    kept = sum(paragraph.stays for paragraph in paragraphs)
    details = {"chunks": list(map(_entry, chunks, places)), "kept": kept} if settings.details else None
    failure = _failure(row, chunks)
    return Complete(output, details) if failure is None else Incomplete(output, failure, details)


def _nothing(row: RowAsk, name: str, source: Any) -> Failure:
    where = f"row {short(row.row.id)}: {short(name)}, the field with the document,"
    if isinstance(source, str):
        return Failure(FailureKind.EMPTY_PROMPT, f"{where} is blank: there is nothing to translate")
    seen = "is missing" if source is None else f"is of type {type_name(source)}, and no text"
    return Failure(FailureKind.PROMPT, f"{where} {seen}: name another one as program.settings.field")


# a document's chunks


def _most(row: RowAsk, settings: TranslateSettings) -> int | Failure:
    """Tokens of a chunk at most: source and answer must have room, and the answer again where it is sent back."""
    empty = row.ask("main", **{settings.field: ".", settings.before: ""})
    if isinstance(empty, Failure):
        return empty
    budget = empty.max_tokens or empty.sampling.get("max_tokens")
    most: float = settings.chunk or _CHUNK
    if budget:
        most = min(most, budget / settings.growth)
    room = row.room(empty)
    if room is not None:
        room += int(budget or 1) - settings.context
        most = min(most, room / (1 + 2 * settings.growth))
    if most >= 1:
        return int(most)
    said = f"row {short(row.row.id)}: the prompt without a text leaves no room for a chunk and its translation"
    context = f", program.settings.context is {settings.context:,}" if settings.context else ""
    return Failure(
        FailureKind.TOO_LONG,
        f"{said}: the context holds {row.context_length or 0:,} tokens, max_tokens is {budget}{context}",
    )


def _chunks(row: RowAsk, source: str, paragraphs: Sequence[Paragraph], reader: Reader, most: int) -> Iterator[_Chunk]:
    """The paragraphs that are translated, those together that are shown together."""
    settings: TranslateSettings = row.settings
    asked = [paragraph for paragraph in paragraphs if not paragraph.stays]
    parts: list[tuple[Paragraph, int]] = []
    for paragraph, size in zip(asked, _sizes(row, asked), strict=True):
        if size <= most:
            parts.append((paragraph, size))
        else:
            pieces = _pieces(source, paragraph, most, row)
            parts += zip(pieces, _sizes(row, pieces), strict=True)
    for group in _groups(parts, most, settings.paragraphs):
        passage = together(source, group, reader, marks=settings.marks)
        if passage is not None:
            yield _Chunk(group, passage)
        else:
            yield from (_Chunk([paragraph], alone(paragraph, reader)) for paragraph in group)


def _sizes(row: RowAsk, paragraphs: Sequence[Paragraph]) -> list[int]:
    """The tokens of each paragraph as it is shown."""
    return row.tokens([with_marks(each) if row.settings.marks else each.text for each in paragraphs])


def _pieces(source: str, paragraph: Paragraph, most: int, row: RowAsk) -> list[Paragraph]:
    """A paragraph that is too long, in pieces that are not: its sentences, or first its lines where they have a prefix."""
    if paragraph.prefix:
        lines = _lines(source, paragraph)
        return [piece for line in lines for piece in _pieces(source, line, most, row)]
    pieces: list[Paragraph] = []
    for part in split(source[paragraph.start : paragraph.end], most, row.tokens):
        text = part.text.strip()
        if text:
            start = paragraph.start + part.start + part.text.index(text)
            mark = "" if pieces else paragraph.mark
            pieces.append(paragraph._replace(start=start, end=start + len(text), text=one_newline(text), mark=mark))
    return pieces


def _lines(source: str, paragraph: Paragraph) -> Iterator[Paragraph]:
    place = paragraph.start
    for number, line in enumerate(paragraph.text.split("\n")):
        text = line.strip()
        if text:
            start = source.index(text, place)
            place = start + len(text)
            mark = paragraph.prefix if number else paragraph.mark
            yield paragraph._replace(start=start, end=place, text=text, mark=mark, prefix="")


def _groups(
    parts: Iterable[tuple[Paragraph, int]], most: int, most_paragraphs: int | None
) -> Iterator[list[Paragraph]]:
    """Paragraphs one after another, as many as may be in a chunk. A heading goes with what comes below it."""
    group: list[Paragraph] = []
    sizes: list[int] = []  # a line break between two counts as a token
    for paragraph, size in parts:
        full = sum(sizes) + len(sizes) + size > most or len(group) == most_paragraphs
        new_section = paragraph.kind == "heading" and sum(sizes) * 2 >= most
        if group and (full or new_section):
            with_heading = (
                group[-1].kind == "heading" and len(group) > 1 and sizes[-1] + 1 + size <= most and most_paragraphs != 1
            )
            behind = len(group) - with_heading
            yield group[:behind]
            group, sizes = group[behind:], sizes[behind:]
        group.append(paragraph)
        sizes.append(size)
    if group:
        yield group


def _ends(row: RowAsk, source: str, places: Sequence[int], context: int) -> list[str]:
    """What stands in the source before each place, as much of it as the tokens allow, from the beginning of a sentence or word."""
    if not context:
        return [""] * len(places)
    lengths = [min(place, context * _CHARACTERS) for place in places]
    found = [""] * len(places)
    left = list(range(len(places)))
    while left:
        for number in left:
            found[number] = _end(source, places[number], lengths[number])
        sizes = row.tokens([found[number] for number in left])
        longer = [(number, size) for number, size in zip(left, sizes, strict=True) if size > context]
        for number, size in longer:
            lengths[number] = min(lengths[number] - 1, int(len(found[number]) * context / size))
        left = [number for number, _ in longer]
    return found


def _end(source: str, place: int, length: int) -> str:
    start = max(0, place - length)
    text = source[start:place]
    if start and not source[start - 1].isspace():  # not half a word, where there are words
        words = text.split(maxsplit=1)
        text = words[1] if len(words) > 1 and len(words[0]) <= _LONGEST_WORD else text
    if start and (sentence := _SENTENCE.search(text)) is not None and sentence.end() <= len(text) // 2:
        text = text[sentence.end() :]
    return one_newline(text).strip()


# asking


def _translated(row: RowAsk, source: str, chunks: Sequence[_Chunk]) -> Generator[Any, Any, None]:
    """Ask all chunks at once, and then the paragraphs of those that failed."""
    settings: TranslateSettings = row.settings
    befores = _ends(row, source, [chunk.start for chunk in chunks], settings.context)
    asks = [_ask(row, chunk.passage, before) for chunk, before in zip(chunks, befores, strict=True)]
    answers = yield asks
    for chunk, ask, answer in zip(chunks, asks, answers, strict=True):
        chunk.take(ask if isinstance(ask, Failure) else answer)
    apart = [(chunk, number) for chunk in chunks if chunk.can_be_taken_apart for number in chunk.failures]
    if not apart:
        return
    befores = _ends(row, source, [chunk.paragraphs[number].start for chunk, number in apart], settings.context)
    asks = [
        _ask(row, alone(chunk.paragraphs[number], chunk.passage.reader), before)
        for (chunk, number), before in zip(apart, befores, strict=True)
    ]
    answers = yield asks
    for (chunk, number), ask, answer in zip(apart, asks, answers, strict=True):
        chunk.take_one(number, ask if isinstance(ask, Failure) else answer)


def _ask(row: RowAsk, passage: Passage, before: str) -> Ask | Failure:
    settings: TranslateSettings = row.settings
    ask = row.ask("main", **{settings.field: passage.text, settings.before: before})
    if isinstance(ask, Failure):
        return ask
    return replace(ask, check=PassageCheck(passage, ask.check), samples=1, tells=True)


# what came of it


def _joined(source: str, chunks: Sequence[_Chunk], *, keep_source: bool) -> tuple[str, list[tuple[int, int]]]:
    """The document with its paragraphs replaced, and where in it each chunk is."""
    parts: list[str] = []
    places: list[tuple[int, int]] = []
    written = behind = 0
    for chunk in chunks:
        start = -1
        for paragraph, text in zip(chunk.paragraphs, chunk.texts, strict=True):
            if text is not None:
                said = put(source, paragraph, text)
            else:
                said = source[paragraph.start : paragraph.end] if keep_source else ""
            between = source[behind : paragraph.start]
            start = written + len(between) if start < 0 else start
            parts += (between, said)
            written += len(between) + len(said)
            behind = paragraph.end
        places.append((start, written))
    parts.append(source[behind:])
    return "".join(parts), places


def _entry(chunk: _Chunk, place: tuple[int, int]) -> dict[str, Any]:
    failure = next(iter(chunk.failures.values()), None)
    usage = chunk.usage.for_details()
    entry: dict[str, Any] = {
        "start": chunk.start,
        "end": chunk.end,
        "output_start": place[0],
        "output_end": place[1],
        "paragraphs": len(chunk.paragraphs),
        "status": (Status.OK if failure is None else failure.kind.status).value,
        "usage": usage,
    }
    if chunk.one_by_one:
        entry["one_by_one"] = True
    if chunk.failures:
        entry["failed"] = [_failed(chunk.paragraphs[number], each) for number, each in chunk.failures.items()]
    return entry


def _failed(paragraph: Paragraph, failure: Failure) -> dict[str, Any]:
    error = {"kind": failure.kind.value, "message": failure.message}
    return {"start": paragraph.start, "end": paragraph.end, "error": error}


def _failure(row: RowAsk, chunks: Sequence[_Chunk]) -> Failure | None:
    failed = [(chunk.paragraphs[number], each) for chunk in chunks for number, each in chunk.failures.items()]
    if not failed:
        return None
    paragraph, failure = failed[0]
    count = sum(len(chunk.paragraphs) for chunk in chunks)
    place = f"characters {paragraph.start:,} to {paragraph.end:,}"
    said = f"{len(failed):,} of {count:,} paragraphs could not be translated; the first, {place}: {failure.message}"
    return Failure(failure.kind, f"row {short(row.row.id)}: {said}")


# what is known before there is a row


def _problems(settings: TranslateSettings, prompts: Mapping[str, PromptFacts]) -> Iterator[str]:
    splitter_of("text")  # the library that it needs is there
    main = prompts["main"]
    taken = {name.partition(".")[0] for name in main.needs}
    has = ", ".join(sorted(taken)) or "nothing"
    if settings.field not in taken:
        yield (
            f"the prompt does not take {settings.field!r}, in which it is given a chunk, but {has}: name its field as "
            "program.settings.field"
        )
    if "context" in settings.model_fields_set and settings.context and settings.before not in taken:
        yield (
            f"the prompt does not take {settings.before!r}, in which it is given what stands before a chunk, but {has}: use that "
            "variable, name another one as program.settings.before, or set context to 0"
        )
    if main.answer is not None:
        yield "the prompt's answers are JSON, and a translation is text: leave the schema out"
    if (main.sampling.get("n") or 1) > 1:
        yield "a chunk has one translation: leave sampling.n out"


def _requests(_settings: Any) -> int:
    return _REQUESTS


def _later(_settings: Any) -> str:
    return "single paragraphs of chunks whose answers do not do"


KIND = ProgramKind(translate, TranslateSettings, requests=_requests, problems=_problems, later=_later)
