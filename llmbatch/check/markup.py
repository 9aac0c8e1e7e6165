"""The answer keeps the markup of a text of its row: Markdown, HTML tags, placeholders, URLs, numbers, each as often as it is there.

Markdown is read by markdown-it as CommonMark with tables, so that what stands in code is code. What belongs to one class counts for
no other: a number in a URL is no number.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator, Field

from llmbatch.check.pieces import UNSPACED
from llmbatch.check.rule import AgainstSource, Answer, Rule, not_text, short_form, text_of
from llmbatch.core.types import FailureKind
from llmbatch.core.words import clip, first_few, quote

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

_SHOWN = 6  # of what is missing, and of what was added
_ITEM_LENGTH = 60


class Markup(AgainstSource):
    """Which markup must be kept."""

    headings: bool = Field(True, description="headings, by their level")
    lists: bool = Field(True, description="items of lists, with a bullet or a number")
    tables: bool = Field(True, description="tables, by their rows and columns")
    code: bool = Field(True, description="code blocks by their language, and code within a line letter for letter")
    links: bool = Field(True, description="links and images, by where they point to")
    html: bool = Field(True, description="HTML tags by their name, opening and closing")
    placeholders: bool = Field(True, description="{name}, {0}, {{ x }}, ${x}, %s, %(name)s and their like")
    urls: bool = Field(True, description="URLs and e-mail addresses in the text")
    numbers: bool = Field(
        True, description="numbers, however their digits are grouped; not those that are written as words"
    )
    emphasis: bool = Field(
        False,
        description="bold and italic text by how often; Markdown does not always see it beside Chinese or Japanese",
    )


MarkupSettings = Annotated[Markup | None, BeforeValidator(short_form("field"))]
_CLASSES = ("headings", "lists", "tables", "code", "links", "html", "placeholders", "urls", "numbers", "emphasis")

_TAG = re.compile(r"<(/?)([A-Za-z][\w:-]*)(?:\s[^<>]*)?/?>")
_URL = re.compile(
    rf"(?:https?|ftps?)://[^\s<>\"'`{UNSPACED}，。；：！？、（）《》「」]+"
    rf"|www\.[^\s<>\"'`{UNSPACED}，。；：！？、（）《》「」]+"
    r"|(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+"
)
_AFTER_URL = ".,;:!?)]}*_»”’…"
_PLACEHOLDER = re.compile(
    r"\$\{[^{}\s]+\}"
    r"|\{\{[^{}]*\}\}"
    r"|\{%[^{}]*%\}"
    r"|\{(?:[A-Za-z_][\w.\[\]-]*|\d*)(?:[!:][^{}]*)?\}"
    r"|%\([A-Za-z_]\w*\)[-+#0]{0,4}\d{0,4}(?:\.\d{1,4})?[A-Za-z]"
    r"|(?<![\w%])%(?:\d{1,3}\$)?[-+#0]{0,4}\d{0,4}(?:\.\d{1,4})?(?:hh?|ll?|[Lzjt])?[@sdifuoxXeEgGc](?![A-Za-z])"
)
# digits in groups of three, parted by a space or an apostrophe; or digits with points and commas between them
_NUMBER = re.compile(
    r"(?<![A-Za-z_\d])(?:\d{1,3}(?:[ \u00a0\u202f'’]\d{3})+(?!\d)(?:[.,]\d+)?|\d+(?:[.,\u066b\u066c]\d+)*)"
)


def make(settings: Markup) -> Rule:
    name = settings.field
    wanted = [each for each in _CLASSES if getattr(settings, each)]

    def judge(answer: Answer) -> str | None:
        source, given = markup_of(answer.row[name]), markup_of(text_of(answer, settings.part))
        missing: Counter[str] = Counter()
        added: Counter[str] = Counter()
        for each in wanted:
            missing += source[each] - given[each]
            added += given[each] - source[each]
        if not missing and not added:
            return None
        said = [f"{word} {_listed(items)}" for word, items in (("missing", missing), ("added", added)) if items]
        return f"the answer does not keep the markup of its source ({quote(name)}): {'; '.join(said)}"

    return Rule(FailureKind.MARKUP, judge, (name,), lambda row: not_text("markup", name, row))


def markup_of(text: str) -> dict[str, Counter[str]]:
    """What markup a text has, by class: how often each, as a person would name it."""
    found: dict[str, Counter[str]] = {each: Counter() for each in _CLASSES}
    prose: list[str] = []
    tokens = _parser().parse(text)
    for place, token in enumerate(tokens):
        match token.type:
            case "heading_open":
                found["headings"][f"{'#' * int(token.tag[1:])} heading"] += 1
            case "list_item_open":
                found["lists"]["- item" if token.markup in "-+*" else "1. item"] += 1
            case "table_open":
                found["tables"][_shape(tokens[place:])] += 1
            case "fence":
                found["code"][f"```{token.info.split()[0] if token.info.strip() else ''} block"] += 1
            case "html_block":
                _tags(token.content, found["html"])
                prose.append(_TAG.sub(" ", token.content))
            case "inline":
                prose.append("".join(_within(token.children or (), found)))
    _in_prose("\n".join(prose), found)
    return found


def _within(children: Sequence[Token], found: dict[str, Counter[str]]) -> Iterator[str]:
    """Count the markup within a line; its plain text out."""
    for child in children:
        match child.type:
            case "text" | "text_special":
                yield child.content
            case "softbreak" | "hardbreak":
                yield "\n"
            case "code_inline":
                found["code"][f"`{child.content}`"] += 1
                yield " "
            case "link_open" if child.markup != "autolink":  # <https://...>, whose text is the URL
                found["links"][f"link to {child.attrs.get('href')}"] += 1
            case "image":
                found["links"][f"image {child.attrs.get('src')}"] += 1
                yield from _within(child.children or (), found)
            case "html_inline":
                _tags(child.content, found["html"])
                yield " "
            case "strong_open":
                found["emphasis"]["**bold**"] += 1
            case "em_open":
                found["emphasis"]["*italic*"] += 1


def _in_prose(text: str, found: dict[str, Counter[str]]) -> None:
    """Count what is in plain text; what was counted is taken out before the next class is looked for."""

    def url(match: re.Match[str]) -> str:
        whole = match.group()
        kept = whole.rstrip(_AFTER_URL)
        found["urls"][kept] += 1
        return " " + whole[len(kept) :]

    def placeholder(match: re.Match[str]) -> str:
        found["placeholders"]["".join(match.group().split())] += 1
        return " "

    rest = _PLACEHOLDER.sub(placeholder, _URL.sub(url, text))
    for match in _NUMBER.finditer(rest):
        digits = "".join(str(unicodedata.digit(sign)) for sign in match.group() if sign.isdigit())
        found["numbers"][f"the number {digits.lstrip('0') or '0'}"] += 1


def _tags(html: str, tags: Counter[str]) -> None:
    for closing, name in _TAG.findall(html):
        tags[f"<{closing}{name.lower()}>"] += 1


def _shape(tokens: Sequence[Token]) -> str:
    rows = columns = 0
    for token in tokens:
        rows += token.type == "tr_open"
        columns += token.type == "th_open"
        if token.type == "table_close":
            break
    return f"table of {rows} rows and {columns} columns"


def _listed(items: Counter[str]) -> str:
    def written(item: str) -> str:
        return clip(" ".join(item.split()), _ITEM_LENGTH) + (f" ({items[item]} times)" if items[item] > 1 else "")

    return first_few(items, _SHOWN, written)


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    # text that is indented is seldom meant as code
    parser = MarkdownIt("commonmark").enable("table").disable("code")
    # links as they are written, placeholders among them
    parser.normalizeLink = parser.normalizeLinkText = str  # type: ignore[assignment, method-assign]
    parser.validateLink = bool  # type: ignore[assignment, method-assign]
    return parser


__all__ = ["MarkupSettings", "make", "markup_of"]
