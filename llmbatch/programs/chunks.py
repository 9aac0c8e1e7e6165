"""A text and how many tokens a chunk may have in; its chunks, cut along headings, paragraphs, sentences and words, out.

The splitter (semantic-text-splitter) cuts by characters, so that no text is tokenized again and again as it grows: by a measured
length of a token first, then what turns out too long once more. The same text and counts give the same chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, Protocol, get_args

from llmbatch.core.clusters import border_before
from llmbatch.core.errors import JobError
from llmbatch.core.words import near

Count = Callable[[Sequence[str]], list[int]]
"""Texts -> the tokens of each, as one batch: ``RowAsk.tokens``."""

Markup = Literal["text", "markdown"]
MARKUPS = get_args(Markup)
_AS_MARKDOWN = ("text/markdown", "text/html")  # of a web page a row has its main text as Markdown

_SAMPLES, _SAMPLE = 16, 512  # by so many texts of so many characters the length of a token is measured
_FILLED = 0.9  # of what would fit by that measure: most pieces are then not too long
_PARTS = 8  # that a text is cut into at a time: the splitter looks at all of an unbroken text again for each of them
_BLOCK = 100_000  # characters that it is given at a time, or some chunks: so long other threads may have to wait for it
_BREAKS = (
    "\n#",
    "\n\n",
    "\n",
    ". ",
    "。",
    " ",
)  # where a block may end, best first; behind a line feed and before a heading
_INDENTATION = 100  # characters, what is longer is none
_OVERLAP_PARTS = 4  # an overlap ends where such a part of it does


class Chunk(NamedTuple):
    """``text`` is ``document[start:end]``. White space between two chunks is in neither."""

    start: int  # characters
    end: int
    text: str


class _Span(NamedTuple):
    start: int
    end: int


class _Splitter(Protocol):
    def __init__(self, capacity: int, *, trim: bool = True) -> None: ...
    def chunk_indices(self, text: str, /) -> Sequence[tuple[int, str]]: ...


def split(text: str, most: int, count: Count, *, overlap: int = 0, markup: str = "text") -> list[Chunk]:
    """The chunks of a text, each of at most ``most`` tokens, but for a single character that has more.

    All but white space is in a chunk. With an ``overlap`` a chunk begins with the end of the text before it, at most so many tokens
    of that; without one chunks are disjoint. Raises ``ValueError`` for limits that cannot be, ``JobError`` where the library is
    not installed.
    """
    if most < 1 or not 0 <= overlap < most:
        raise ValueError(f"chunks of at most {most:,} tokens with an overlap of {overlap:,} are not possible")
    document = _Document(text, count, markup)
    spans = document.spans(most - overlap)
    if overlap:
        spans = document.lapped(spans, most, overlap)
    return [Chunk(span.start, span.end, text[span.start : span.end]) for span in spans]


def markup_of(setting: Literal["auto", "text", "markdown"], media_type: Any) -> Markup:
    """How a text is read; ``auto``: as its media type says, as text where there is none."""
    if setting != "auto":
        return setting
    return "markdown" if media_type in _AS_MARKDOWN else "text"


def splitter_of(markup: str) -> type[_Splitter]:
    """The library's splitter for a kind of text. Raises ``JobError`` where there is none, ``ValueError`` for an unknown kind."""
    try:
        from semantic_text_splitter import MarkdownSplitter, TextSplitter
    except ImportError:
        raise JobError(
            "cutting text into chunks needs semantic-text-splitter: pip install 'llmbatch[documents]'"
        ) from None
    if markup not in MARKUPS:
        raise ValueError(f"unknown markup {markup!r}{near(markup, MARKUPS)}: known are {', '.join(MARKUPS)}")
    return MarkdownSplitter if markup == "markdown" else TextSplitter


class _Document:
    """One text, with the tokens of every part of it that was counted."""

    def __init__(self, text: str, count: Count, markup: str) -> None:
        self._text = text
        self._count = count
        self._splitter = splitter_of(markup)
        self._indented = markup == "markdown"  # there a line's indentation says what it is
        self._tokens: dict[_Span, int] = {}

    def spans(self, most: int) -> list[_Span]:
        """Spans of at most ``most`` tokens, in order."""
        whole = self._trimmed(0, len(self._text))
        if whole is None:
            return []
        spans = self._cut(whole, self._characters(most))
        while self._counted(spans):
            spans = [part for span in spans for part in self._smaller(span, most)]
        spans = self._merged(spans, most)
        return self._with_indentation(spans, most) if self._indented else spans

    def lapped(self, spans: Sequence[_Span], most: int, overlap: int) -> list[_Span]:
        """The spans, each but the first with the end of the one before it, as much as fits."""
        starts = [self._ends(span, overlap) for span in spans[:-1]]
        self._counted(_Span(start, span.end) for span, known in zip(spans, starts, strict=False) for start in known)
        for span, known in zip(spans, starts, strict=False):
            known[:] = [start for start in known if self._tokens[_Span(start, span.end)] <= overlap]
        lapped = [*spans]
        open_ = [number for number, known in enumerate(starts, 1) if known]
        while open_:
            longer = {number: _Span(starts[number - 1].pop(0), spans[number].end) for number in open_}
            self._counted(longer.values())
            for number, span in longer.items():
                if self._tokens[span] <= most:
                    lapped[number] = span
            open_ = [number for number in open_ if lapped[number] == spans[number] and starts[number - 1]]
        return lapped

    def _ends(self, span: _Span, overlap: int) -> list[int]:
        """Where ends of a span begin that may be an overlap, the longest first."""
        token = (span.end - span.start) / max(1, self._tokens[span])
        reach = max(1, int(overlap * token))
        window = _Span(max(span.start, span.end - 2 * reach), span.end)
        # the first part may begin within a word, or is the whole span
        return [part.start for part in self._cut(window, max(1, reach // _OVERLAP_PARTS))][1:]

    def _characters(self, most: int) -> int:
        """About how many characters have so many tokens, by samples from all over the text."""
        step = max(_SAMPLE, len(self._text) // _SAMPLES)
        samples = [self._text[at : at + _SAMPLE] for at in range(0, len(self._text), step)]
        token = sum(map(len, samples)) / max(1, sum(self._count(samples)))
        return max(1, int(most * token * _FILLED))

    def _cut(self, span: _Span, size: int) -> list[_Span]:
        """The span in parts of at most ``size`` characters."""
        length = span.end - span.start
        if length <= size:
            return [span]
        # whole sizes, so that the last part of each is no small rest
        if length > (block := size * max(_BLOCK // size, _PARTS // 2)):
            blocks = self._blocks(span, block)
            return [part for each in blocks if each is not None for part in self._cut(each, size)]
        capacity = size * -(-length // (_PARTS * size))
        found = self._splitter(capacity, trim=False).chunk_indices(self._text[span.start : span.end])
        parts = (self._trimmed(span.start + at, span.start + at + len(part)) for at, part in found)
        return [smaller for part in parts if part is not None for smaller in self._cut(part, size)]

    def _blocks(self, span: _Span, most: int) -> Iterator[_Span | None]:
        """The span in parts of at most so many characters, more than half of that where there is a place to end one."""
        start = span.start
        while span.end - start > most:
            end = self._break(start + most // 2, start + most)
            yield self._trimmed(start, end)
            start = end
        yield self._trimmed(start, span.end)

    def _break(self, least: int, most: int) -> int:
        for mark in _BREAKS:
            if (at := self._text.rfind(mark, least, most)) >= 0:
                return at + 1 if mark == "\n#" else at + len(mark)
        return border_before(self._text, most)

    def _smaller(self, span: _Span, most: int) -> list[_Span]:
        tokens, length = self._tokens[span], span.end - span.start
        if tokens <= most or length == 1:
            return [span]
        # what could not be counted, as no context could hold it, has very many tokens
        return self._cut(span, -(-length // min(_PARTS, tokens // most + 1)))

    def _merged(self, spans: Sequence[_Span], most: int) -> list[_Span]:
        """The spans, neighbours put together as long as they fit."""
        groups: list[list[_Span]] = []
        room = 0
        for span in spans:
            tokens = self._tokens[span]
            if tokens > room:
                groups.append([])
                room = most
            groups[-1].append(span)
            room -= tokens
        # what stood between them has tokens too, and two texts together may have more than both
        while self._counted(map(_over, groups)):
            groups = [part for group in groups for part in self._halves(group, most)]
        return [_over(group) for group in groups]

    def _halves(self, group: list[_Span], most: int) -> list[list[_Span]]:
        if len(group) == 1 or self._tokens[_over(group)] <= most:
            return [group]
        half = len(group) // 2
        return [group[:half], group[half:]]

    def _with_indentation(self, spans: Sequence[_Span], most: int) -> list[_Span]:
        """The spans, each from the start of its first line on, where only an indentation was left out and it fits."""
        longer = [_Span(self._line_start(span.start), span.end) for span in spans]
        self._counted(longer)
        return [more if self._tokens[more] <= most else span for span, more in zip(spans, longer, strict=True)]

    def _line_start(self, at: int) -> int:
        before = self._text[max(0, at - _INDENTATION) : at]
        start = at - len(before) + len(before.rstrip(" \t"))
        return start if start == 0 or self._text[start - 1] in "\r\n" else at

    def _counted(self, spans: Iterable[_Span]) -> bool:
        """Count those that are not counted yet; whether there were any."""
        new = [span for span in dict.fromkeys(spans) if span not in self._tokens]
        if new:
            counts = self._count([self._text[span.start : span.end] for span in new])
            self._tokens.update(zip(new, counts, strict=True))
        return bool(new)

    def _trimmed(self, start: int, end: int) -> _Span | None:
        """The span without white space around it; None where that is all."""
        text = self._text[start:end]
        if not (content := text.lstrip()):
            return None
        lead = text[: len(text) - len(content)]
        return _Span(start + len(lead), start + len(text.rstrip()))


def _over(group: Sequence[_Span]) -> _Span:
    return _Span(group[0].start, group[-1].end)


__all__ = ["MARKUPS", "Chunk", "markup_of", "split", "splitter_of"]
