"""The bytes of a web page in, its main text as Markdown (headings, lists, tables, code) and its title out.

Menus, footers and other matter around the text are left out, as trafilatura tells them apart.
"""

from __future__ import annotations

import codecs
import logging
import re
from functools import cache
from typing import Any

from llmbatch.sources.documents.base import Document, Unreadable
from llmbatch.sources.documents.text import decoded

_DECLARED = re.compile(rb"""<(?:meta|\?xml)[^>]*?(?:charset|encoding)\s*=\s*["']?\s*([\w:.-]+)""", re.IGNORECASE)
_LOOKED_AT = 1024  # bytes in which a page says its encoding, by the HTML standard
_LATIN = frozenset({"ascii", "iso8859-1"})  # the standard has these names mean Windows' superset of them
_NO_CHARACTER = re.compile(
    r"[\x00-\x08\x0b\x0e-\x1f\x7f]"
)  # which no page may hold; the library drops the text around one
_SHORT = 250  # characters below which the library takes the lines of a page as they are, without headings and lists


def read_html(content: bytes) -> Document:
    page = _parsed(_decoded(content))
    if page is None:
        return Document("")
    title = " ".join((page.findtext(".//title") or page.findtext(".//h1") or "").split())
    text = _extracted(page)
    if len(text) < _SHORT:
        text = _extracted_whole(page) or text
    return Document(text, title or None)


def _decoded(content: bytes) -> str:
    """By a byte order mark, as UTF-8, or as the page itself says. Raises ``Unreadable``."""
    for mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        if content.startswith(mark):
            return content.decode("utf-16", "replace")
    try:
        return decoded(content)
    except Unreadable:
        declared = _DECLARED.search(content[:_LOOKED_AT])
        if declared is None or b"\0" in content:
            raise
    name = declared[1].decode("ascii", "replace")
    try:
        codec = codecs.lookup(name)
        return content.decode("cp1252" if codec.name in _LATIN else codec.name)
    except (LookupError, UnicodeError) as error:
        raise Unreadable(f"it says that it is {name}, and is not: {error}; convert it to UTF-8") from None


def _parsed(text: str) -> Any:
    """The page as lxml's tree; ``None`` where there is nothing in it."""
    import lxml.etree
    import lxml.html

    # the library's own parser drops a text of more than 10 MB
    parser = lxml.html.HTMLParser(
        encoding="utf-8", huge_tree=True, collect_ids=False, remove_comments=True, remove_pis=True
    )
    try:
        return lxml.html.document_fromstring(_NO_CHARACTER.sub("", text).encode("utf-8", "replace"), parser=parser)
    except lxml.etree.ParserError:
        return None
    except lxml.etree.LxmlError as error:
        raise Unreadable(f"cannot be read as HTML: {error}") from error


def _extracted(page: Any, **options: Any) -> str:
    import trafilatura

    _silence()
    try:
        return trafilatura.extract(page, output_format="markdown", include_comments=False, **options) or ""
    except Exception as error:  # whatever the library raises on a page that its authors did not think of
        raise Unreadable(
            f"its text cannot be told apart from what is around it: {type(error).__name__}: {error}"
        ) from error


def _extracted_whole(page: Any) -> str:
    """All of a short page as its main text, so that headings and lists stay what they are. Changes the page."""
    from trafilatura.settings import use_config

    body = page.find("body")
    if body is not None and body.find(".//main") is None and body.find(".//article") is None:
        around = body.makeelement("body")
        page.replace(body, around)
        around.append(body)
        body.tag = "article"
    config = use_config()
    config.set("DEFAULT", "MIN_EXTRACTED_SIZE", "1")
    return _extracted(page, config=config)


@cache
def _silence() -> None:
    """What the library would log of a page is in its record."""
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
