"""A text in; its paragraphs out, each with its place, so that others can be put there and all between them stays as it is.

Plain text has paragraphs between its blank lines. Of Markdown, which markdown-it reads as CommonMark with tables, headings and the
items of lists are paragraphs of their own, and what stands in front of a line (``##``, ``-``, ``>``, indentation) belongs to none.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

Markup = Literal["text", "markdown"]
Staying = Literal["code", "front_matter", "links", "no_words"]
"""What may stay as it is: code blocks, the data in front of a document, lines that say where links point to, what has no words."""

_LINE = re.compile(r"([^\r\n]*)(?:\r\n|\r|\n|\Z)")
_NEWLINE = re.compile(r"\r\n?|\n")
_FRONT_MATTER = re.compile(  # with a blank line below it the first is a rule, and what follows is text
    r"(---|\+\+\+)[ \t]*(?:\r\n|\r|\n)(?![ \t]*[\r\n])(?s:.*?)(?:(?<=\n)|(?<=\r))\1[ \t]*(?=[\r\n]|\Z)"
)
_UNSPOKEN = re.compile(r"<(?:script|style|pre|textarea|!|\?)", re.IGNORECASE)  # how HTML begins that is no text
_NO_WORDS = re.compile(
    r"`[^`]*`|<[^<>]*>|(?:https?|ftp)://\S+|www\.\S+|(?<![\w.+-])[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+"
    r"|\$?\{[^{}]*\}|%\(\w+\)[a-z]|(?<![\w%])%[sdif](?!\w)"
)
_DEEPEST = 100  # lists and quotes in each other


class Paragraph(NamedTuple):
    """One paragraph; ``start`` and ``end`` are offsets in the text that it is of.

    ``text`` has its lines joined by ``\\n``, without what stands in front of them: of the first that is ``mark``, of the others
    ``prefix``. ``stays``: it is not to be replaced.
    """

    start: int
    end: int
    text: str
    kind: str = "paragraph"
    mark: str = ""
    prefix: str = ""
    newline: str = "\n"
    stays: bool = False


class Reader(NamedTuple):
    """How a text is read. With ``lines`` each line of a paragraph is one by itself; ``keep`` is what stays as it is."""

    markup: Markup = "text"
    lines: bool = False
    keep: Collection[Staying] = ()

    def read(self, text: str) -> list[Paragraph]:
        """The paragraphs of a text, in order."""
        found = _of_markdown(text, self.lines) if self.markup == "markdown" else _blocks(text, 0, len(text), self.lines)
        return [paragraph._replace(stays=self._stays(paragraph)) for paragraph in found]

    def _stays(self, paragraph: Paragraph) -> bool:
        if paragraph.kind in self.keep:
            return True
        return "no_words" in self.keep and not has_words(paragraph.text)


def put(source: str, paragraph: Paragraph, text: str) -> str:
    """What stands in the place of a paragraph of the source once it has this text: with the line breaks and prefixes of the source.

    A paragraph of one line stays one.
    """
    if text == paragraph.text:
        return source[paragraph.start : paragraph.end]
    lines = one_newline(text).strip().split("\n")
    if "\n" not in paragraph.text:
        return " ".join(line.strip() for line in lines if line.strip())
    return (paragraph.newline + paragraph.prefix).join(lines)


def has_words(text: str) -> bool:
    """Whether a text has a letter outside of code, tags, addresses and placeholders."""
    return any(map(str.isalpha, _NO_WORDS.sub(" ", text)))


def one_newline(text: str) -> str:
    """The text with ``\\n`` for every line break."""
    return _NEWLINE.sub("\n", text) if "\r" in text else text


def _blocks(text: str, start: int, end: int, lines: bool, kind: str = "paragraph") -> list[Paragraph]:
    """What stands between the blank lines of a part of a text."""
    found: list[Paragraph] = []
    first = last = -1
    for match in _LINE.finditer(text, start, end):
        blank = not match[1].strip()
        if not blank:
            first = match.start() if first < 0 else first
            last = match.end(1)
        if first >= 0 and (blank or lines):
            found.append(_whole(text, first, last, kind))
            first = -1
    if first >= 0:
        found.append(_whole(text, first, last, kind))
    return found


def _whole(text: str, start: int, end: int, kind: str) -> Paragraph:
    """A paragraph as it stands there, without the white space around it."""
    raw = text[start:end]
    start += len(raw) - len(raw.lstrip())
    raw = raw.strip()
    return Paragraph(start, start + len(raw), one_newline(raw), kind, newline=_newline_of(raw))


def _newline_of(raw: str) -> str:
    found = _NEWLINE.search(raw)
    return "\n" if found is None else found.group()


# Markdown


class _Lines:
    """A text by its lines, of which some are known to be something already."""

    def __init__(self, text: str, start: int) -> None:
        self.text = text
        self.spans = [match.span(1) for match in _LINE.finditer(text, start)]
        self.known = [False] * len(self.spans)

    def taken(self, where: list[int]) -> tuple[int, int]:
        """The place of some lines, which are known from now on."""
        first, behind = where[0], max(min(where[1], len(self.spans)), where[0] + 1)
        self.known[first:behind] = [True] * (behind - first)
        return self.spans[first][0], self.spans[behind - 1][1]


def _of_markdown(text: str, each_line: bool) -> list[Paragraph]:
    front = _FRONT_MATTER.match(text)
    begin = 0 if front is None else front.end()
    found = [] if front is None else [_whole(text, 0, begin, "front_matter")]
    lines = _Lines(text, begin)
    references: dict[str, Any] = {}
    tokens = _parser().parse(text[begin:], references)
    found += _of_tokens(tokens, lines, each_line)
    found += _left_over(lines, references, each_line)
    return sorted((paragraph for paragraph in found if paragraph.text), key=lambda paragraph: paragraph.start)


def _of_tokens(tokens: list[Token], lines: _Lines, each_line: bool) -> Iterator[Paragraph]:
    heading: Token | None = None
    in_quotes = in_table = 0
    new_item = False
    for token in tokens:
        match token.type:
            case "list_item_open":
                new_item = True
            case "blockquote_open" | "blockquote_close":
                in_quotes += token.nesting
            case "table_open" if token.map:
                in_table = 1
                yield _whole(lines.text, *lines.taken(token.map), "table")
            case "table_close":
                in_table = 0
            case "fence" | "code_block" if token.map:
                yield _whole(lines.text, *lines.taken(token.map), "code")
            case "html_block" if token.map:
                kind = "code" if _UNSPOKEN.match(token.content.lstrip()) else "html"
                yield _whole(lines.text, *lines.taken(token.map), kind)
            case "hr" if token.map:
                lines.taken(token.map)
            case "heading_open" if token.map:
                lines.taken(token.map)
                heading = token
            case "inline" if token.map and not in_table:
                lines.taken(token.map)
                kind = "heading" if heading else "item" if new_item else "quote" if in_quotes else "paragraph"
                underlined = heading is not None and heading.markup in ("=", "-")
                mark = "#" * int(heading.tag[1:]) + " " if heading is not None and underlined else ""
                yield from _of_inline(lines, token, kind, mark, each_line)
                heading, new_item = None, False


def _of_inline(lines: _Lines, token: Token, kind: str, mark: str, each_line: bool) -> Iterator[Paragraph]:
    """The paragraph of a token, or one for each of its lines. ``mark`` is one that it could have where it is underlined instead."""
    number, behind = token.map or (0, 0)
    parts: list[tuple[int, str, str]] = []  # of each line: where its words begin, what stands before them, and they
    for words in map(str.lstrip, token.content.split("\n")):
        # the parser leaves out what it takes for white space, as a line with nothing but a form feed
        while number < behind and words not in lines.text[slice(*lines.spans[number])]:
            number += 1
        if number == behind:
            yield from _blocks(lines.text, *lines.taken(token.map or []), each_line)
            return
        start, end = lines.spans[number]
        line = lines.text[start:end]
        column = line.rfind(words)
        parts.append((start + column, line[:column], words))
        number += 1
    groups = [[part] for part in parts] if each_line else [parts]
    for place, group in enumerate(groups):
        start, before, _ = group[0]
        last, _, last_words = group[-1]
        end = last + len(last_words.rstrip())
        yield Paragraph(
            start,
            end,
            "\n".join(words for _, _, words in group).rstrip(),
            "line" if place else kind,
            before if place else before + mark,
            group[1][1] if len(group) > 1 else "",
            _newline_of(lines.text[start:end]),
        )


def _left_over(lines: _Lines, references: Mapping[str, Any], each_line: bool) -> Iterator[Paragraph]:
    """What the parser makes no token of: where links point to, and what lies too deep in lists and quotes to be read."""
    targets = [*references.get("references", {}).values(), *references.get("duplicate_refs", ())]
    for target in targets:
        if target.get("map"):
            yield _whole(lines.text, *lines.taken(target["map"]), "links")
    first = -1
    for number, known in enumerate([*lines.known, True]):
        if first < 0 and not known:
            first = number
        elif first >= 0 and known:
            blocks = _blocks(lines.text, lines.spans[first][0], lines.spans[number - 1][1], each_line)
            yield from (block for block in blocks if has_words(block.text))
            first = -1


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"maxNesting": _DEEPEST}).enable("table")
    parser.core.ruler.enableOnly(["normalize", "block"])  # what is within a line is left to the model
    return parser


__all__ = ["Markup", "Paragraph", "Reader", "Staying", "has_words", "one_newline", "put"]
