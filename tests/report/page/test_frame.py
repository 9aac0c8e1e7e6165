from __future__ import annotations

import base64
import hashlib
import json
import re

import pytest

from llmbatch.report.page.frame import embedded, page, visible

HOSTILE = [
    "</script><script>alert(1)</script>", "<!--<script>", "]]>", "&lt;b&gt; & <b>", "{{ 7 * 7 }} {% raw %}", "\u2028\u2029",
    "\x00\x1b[31m", "\u202egnp.exe", "\ud800", "'\"` onload=alert(1)", "\ufffe",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_data_stays_in_its_element_and_is_what_it_was(text: str) -> None:
    written = str(embedded({"text": text}))
    assert json.loads(written) == {"text": text}
    assert written.isascii()
    assert not set("<>&") & set(written)


@pytest.mark.parametrize("text", ["\x00", "\x1b", "\x85", "\u202e", "\u2066", "\ud800", "\ufffe"], ids=ascii)
def test_what_nobody_would_see_is_written_out(text: str) -> None:
    assert visible(f"a{text}b") == f"a\\u{ord(text):04x}b"


@pytest.mark.parametrize("text", ["a\tb\nc", "שלום", "👩‍👩‍👧", "می‌خواهم", "\u00e9"], ids=ascii)
def test_text_of_any_language_stays_as_it_is(text: str) -> None:
    assert visible(text) == text


def test_the_browser_is_told_to_run_our_script_alone() -> None:
    written = page("base.html").decode()
    [script] = re.findall(r"<script>(.*?)</script>", written, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src &#39;sha256-{digest}&#39;" in written
    assert "default-src &#39;none&#39;" in written
