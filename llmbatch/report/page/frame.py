"""A template of this folder and what it shows in; one HTML file that needs nothing else out.

Whatever comes from rows, models or engines is text: templates escape all that they are given, the data for the script is JSON in
which nothing ends its element, and the page's own policy lets the browser run the one script that is ours and load nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from llmbatch.core import words

_HERE = Path(__file__).parent
# control characters but for tab and newline, and those that turn the direction of the text that follows them
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_CLOSES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def visible(value: object) -> str:
    """Outside text as a page may show it: what nobody would see, and might be misled by, is written out."""
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", str(value).replace("\r\n", "\n"))


def embedded(data: object) -> Markup:
    """Data as JSON for a ``<script type="application/json">``, in ASCII: whatever text is in it, the element does not end in it."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), default=str)
    return Markup(re.sub("[<>&]", lambda found: _CLOSES[found[0]], text))  # noqa: S704 - what could close it is gone


@cache
def _environment() -> Environment:
    loader = FileSystemLoader(_HERE)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, loader=loader, trim_blocks=True, lstrip_blocks=True,
        finalize=lambda value: visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
    )  # fmt: skip
    environment.filters.update(
        count=words.count, share=words.share, duration=words.duration, embedded=embedded, visible=visible
    )
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals.update(
        script=Markup(script),  # noqa: S704 - our own file
        style=Markup((_HERE / "page.css").read_text(encoding="utf-8")),  # noqa: S704 - our own file
        policy=f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        "form-action 'none'",
    )
    return environment


def page(template: str, **shown: Any) -> bytes:
    """The whole file."""
    return _environment().get_template(template).render(**shown).encode("utf-8", "backslashreplace")


__all__ = ["embedded", "page", "visible"]
