"""The bytes of a plain text or of Markdown in, the text as it is out. It is UTF-8; a byte order mark is no part of it."""

from __future__ import annotations

import codecs
import re

from llmbatch.sources.documents.base import Document, Unreadable

_OTHER_MARKS = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}
_KINDS = {
    b"%PDF-": "a PDF", b"\x89PNG": "a PNG image", b"\xff\xd8\xff": "a JPEG image", b"GIF8": "a GIF image",
    b"PK\x03\x04": "a ZIP archive, or what is one inside, such as .docx", b"\x7fELF": "a program", b"{\\rtf": "RTF",
}  # fmt: skip
_FRONT_MATTER = re.compile(r"---\r?\n.*?\r?\n(?:---|\.\.\.)\r?\n", re.DOTALL)
_HEADING = re.compile(r"\s*#[ \t]+(.+?)[ \t]*#*[ \t]*\r?(?:\n|\Z)")


def read_text(content: bytes) -> Document:
    return Document(decoded(content))


def read_markdown(content: bytes) -> Document:
    """The title is the heading that the text begins with, if it does so with one of the first level."""
    text = decoded(content)
    front = _FRONT_MATTER.match(text)
    heading = _HEADING.match(text, front.end() if front else 0)
    return Document(text, heading[1] if heading else None)


def decoded(content: bytes) -> str:
    """The text of UTF-8. Raises ``Unreadable`` for anything else, with what it looks like."""
    try:
        text = content.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        at = error.start + len(content) - len(error.object)
        problem = f"not UTF-8: 0x{content[at]:02x} is byte {at + 1}; convert it, e.g. with iconv -f LATIN1 -t UTF-8"
        raise Unreadable(_looks_like(content) or problem) from None
    if (at := text.find("\0")) >= 0:
        raise Unreadable(_looks_like(content) or f"binary, and not text: character {at + 1} is a NUL; take it away")
    return text


def _looks_like(content: bytes) -> str | None:
    for mark, encoding in _OTHER_MARKS.items():
        if content.startswith(mark):
            return f"not UTF-8: it begins with the mark of {encoding}; convert it: iconv -f {encoding} -t UTF-8"
    kind = next((kind for magic, kind in _KINDS.items() if content.startswith(magic)), None)
    return kind and f"not text: it begins as {kind} does; give it the suffix of what it is, or take it away"
