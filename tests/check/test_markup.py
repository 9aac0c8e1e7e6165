from __future__ import annotations

import pytest

from llmbatch.check.answer import make_check
from llmbatch.check.base import OutputSettings
from llmbatch.check.markup import markup_of
from llmbatch.core.types import FailureKind

SOURCE = """# Title

Hello **{name}**, see [the docs](https://x.org/a?q=1) or www.y.org: `run %s` needs 1,234.50 units.

- one <b>bold</b> item
- ${two} of %(count)d

```python
print("# no heading, 99 {x}")
```

| a | b |
|---|---|
| 1 | 2 |
"""
GERMAN = """# Titel

Hallo **{name}**, siehe [die Dokumentation](https://x.org/a?q=1) oder www.y.org: `run %s` braucht 1.234,50 Einheiten.

* ein <b>fettes</b> Ding
* %(count)d von ${two}

```python
print("# keine Überschrift")
```

| x | y |
|---|---|
| 1 | 2 |
"""


def said(answer: str, source: str, **settings: object) -> str | None:
    check = make_check(OutputSettings.model_validate({"markup": {"field": "text", **settings}}))
    failure = check(answer, {"text": source}).failure
    assert failure is None or failure.kind is FailureKind.MARKUP
    return failure.message if failure else None


def test_markup_is_counted_by_class() -> None:
    assert {name: dict(items) for name, items in markup_of(SOURCE).items()} == {
        "headings": {"# heading": 1},
        "lists": {"- item": 2},
        "tables": {"table of 2 rows and 2 columns": 1},
        "code": {"```python block": 1, "`run %s`": 1},
        "links": {"link to https://x.org/a?q=1": 1},
        "html": {"<b>": 1, "</b>": 1},
        "placeholders": {"{name}": 1, "${two}": 1, "%(count)d": 1},
        "urls": {"www.y.org": 1},
        "numbers": {"the number 123450": 1, "the number 1": 1, "the number 2": 1},
        "emphasis": {"**bold**": 1},
    }


def test_a_translation_that_keeps_the_markup_passes() -> None:
    assert said(GERMAN, SOURCE, emphasis=True) is None


@pytest.mark.parametrize(
    ("setting", "change", "words"),
    [
        ("headings", ("# Titel", "## Titel"), "missing # heading; added ## heading"),
        ("lists", ("* ein", "ein"), "missing - item"),
        ("tables", ("|---|---|", ""), "missing table of 2 rows and 2 columns"),
        ("code", ("run %s", "laufe %s"), "missing `run %s`; added `laufe %s`"),
        ("links", ("?q=1", "?q=2"), "missing link to https://x.org/a?q=1; added link to https://x.org/a?q=2"),
        ("html", ("</b>", ""), "missing </b>"),
        ("placeholders", ("{name}", "{Name}"), "missing {name}; added {Name}"),
        ("urls", ("www.y.org", "www.z.org"), "missing www.y.org; added www.z.org"),
        ("numbers", ("1.234,50", "1.234"), "missing the number 123450; added the number 1234"),
        ("emphasis", ("**{name}**", "{name}"), "missing **bold**"),
    ],
)
def test_each_class_can_be_looked_at_by_itself_and_switched_off(
    setting: str, change: tuple[str, str], words: str
) -> None:
    others = {each: False for each in markup_of("") if each != setting}
    broken = GERMAN.replace(*change)
    assert said(broken, SOURCE, **others, **{setting: True}) == (
        f"the answer does not keep the markup of its source ('text'): {words}"
    )
    assert said(broken, SOURCE, **dict.fromkeys(markup_of(""), False)) is None


def test_counts_matter_and_what_is_missing_is_named_up_to_a_bound() -> None:
    assert "missing {a} (2 times)" in str(said("x", "{a} {a}"))
    many = " ".join(f"{{n{number}}}" for number in range(20))
    assert "{n5} and 14 more" in str(said("x", many))


@pytest.mark.parametrize(
    "text", ["100% sure", "50%discount", "5 % de", "x < y > z", "a {b c} d", "{", "C# 7", "3*4*5", "#tag"]
)
def test_what_only_looks_like_markup_is_none(text: str) -> None:
    found = markup_of(text)
    assert not any(found[each] for each in ("headings", "lists", "links", "html", "placeholders", "urls", "code"))


def test_digits_are_the_same_in_every_writing_and_grouping() -> None:
    for written in ("1234567.5", "1,234,567.5", "1.234.567,5", "1 234 567,5", "1'234'567.5", "١٬٢٣٤٬٥٦٧٫٥"):
        assert markup_of(written)["numbers"] == {"the number 12345675": 1}
    assert markup_of("H2O, v2 and B2B")["numbers"] == {}
