from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch.programs.paragraphs import Paragraph, Reader, has_words, put

TEXT, MARKDOWN = Reader(), Reader("markdown")

# what Markdown is made of, so that every combination has its turn
FRAGMENTS = st.sampled_from(
    ["word", "other words", " ", "  ", "\n", "\n\n", "\r\n", "\r\n\r\n", "\t", "# ", "## ", "- ", "* ", "1. ", "> ", "    ",
     "```\n", "---\n", "===\n", "***\n", "| a | b |\n|---|---|\n", "| x |", "[a]: https://x.y\n", "[a]", "<div>", "</div>\n",
     "<!-- no -->", "`code`", "**", "\\", "\f", "\u3000", "\0", "12", "é", "\u2028", "~~~\n", "+++\n"]
)  # fmt: skip
DOCUMENTS = st.lists(FRAGMENTS, max_size=25).map("".join)
READERS = [
    pytest.param(Reader(markup, lines), id=f"{markup}{'-lines' if lines else ''}")
    for markup in ("text", "markdown")
    for lines in (False, True)
]


def texts(reader: Reader, text: str) -> list[str]:
    return [paragraph.text for paragraph in reader.read(text)]


def joined(source: str, paragraphs: list[Paragraph], said: list[str]) -> str:
    parts, behind = [], 0
    for paragraph, text in zip(paragraphs, said, strict=True):
        parts += [source[behind : paragraph.start], put(source, paragraph, text)]
        behind = paragraph.end
    return "".join([*parts, source[behind:]])


@pytest.mark.parametrize("reader", READERS)
@given(document=DOCUMENTS)
def test_paragraphs_are_in_order_apart_from_each_other_and_not_blank(reader: Reader, document: str) -> None:
    found = reader.read(document)
    assert all(one.end <= other.start for one, other in pairwise(found))
    assert all(0 <= each.start < each.end <= len(document) for each in found)
    assert all(each.text.strip() and "\r" not in each.text for each in found)


@pytest.mark.parametrize("reader", READERS)
@given(document=DOCUMENTS)
def test_no_words_are_lost_between_paragraphs(reader: Reader, document: str) -> None:
    behind = 0
    for paragraph in reader.read(document):
        assert not has_words(document[behind : paragraph.start])
        behind = paragraph.end
    assert not has_words(document[behind:])


@pytest.mark.parametrize("reader", READERS)
@given(document=DOCUMENTS)
def test_a_document_whose_paragraphs_do_not_change_is_the_same_to_the_byte(reader: Reader, document: str) -> None:
    found = reader.read(document)
    assert joined(document, found, [paragraph.text for paragraph in found]) == document


def test_plain_text_has_paragraphs_between_blank_lines() -> None:
    text = "\n  one\ntwo \n \t\n\nthree\n"
    assert texts(TEXT, text) == ["one\ntwo", "three"]
    assert texts(Reader(lines=True), text) == ["one", "two", "three"]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_line_breaks_of_every_kind_end_lines(newline: str) -> None:
    text = newline.join(["# one", "", "two", "three", "", "- four"])
    assert texts(MARKDOWN, text) == ["one", "two\nthree", "four"]
    assert texts(TEXT, text) == ["# one", "two\nthree", "- four"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("# one ##", [("heading", "# ", "one")]),
        ("one\n===\n\ntwo\n---", [("heading", "# ", "one"), ("heading", "## ", "two")]),
        ("- one\n- two\n  more", [("item", "- ", "one"), ("item", "- ", "two\nmore")]),
        ("1. one\n   * two", [("item", "1. ", "one"), ("item", "   * ", "two")]),
        ("- one\n\n  two", [("item", "- ", "one"), ("paragraph", "  ", "two")]),
        ("> one\n> two\n> - three", [("quote", "> ", "one\ntwo"), ("item", "> - ", "three")]),
        ("| a |\n|---|\n| b |", [("table", "", "| a |\n|---|\n| b |")]),
        ("<p>\nhi\n</p>", [("html", "", "<p>\nhi\n</p>")]),
        ("<!-- hi -->", [("code", "", "<!-- hi -->")]),
        ("```py\nx\n\ny\n```", [("code", "", "```py\nx\n\ny\n```")]),
        ("    indented", [("code", "", "indented")]),
        ("[a]: https://x.y 'hi'", [("links", "", "[a]: https://x.y 'hi'")]),
        ("***\n- \n#\n", []),
    ],
)  # fmt: skip
def test_markdown_is_told_by_its_kinds(text: str, found: list[tuple[str, str, str]]) -> None:
    assert [(each.kind, each.mark, each.text) for each in MARKDOWN.read(text)] == found


@pytest.mark.parametrize("mark", ["---", "+++"])
def test_front_matter_is_told_at_the_beginning_alone(mark: str) -> None:
    text = f"{mark}\ntitle: one\n\nx: y\n{mark}\n\ntwo"
    assert [(each.kind, each.text) for each in MARKDOWN.read(text)] == [
        ("front_matter", text.removesuffix("\n\ntwo")),
        ("paragraph", "two"),
    ]
    assert all(each.kind != "front_matter" for each in MARKDOWN.read("x\n\n" + text))


def test_a_rule_at_the_beginning_is_no_front_matter() -> None:
    read = MARKDOWN.read("---\n\nwords to be translated\n\n---\n\nmore")
    assert [(each.kind, each.text) for each in read] == [("paragraph", "words to be translated"), ("paragraph", "more")]


@pytest.mark.parametrize(
    ("keep", "text"),
    [
        ("code", "```\nwords\n```"),
        ("front_matter", "---\ntitle: words\n---\n"),
        ("links", "[words]: https://x.y"),
        ("no_words", "1,234"),
        ("no_words", "https://example.org/words"),
        ("no_words", "`words()` {words} %(words)s %s someone@example.org <b>"),
    ],
)
def test_what_is_kept_stays_and_else_does_not(keep: str, text: str) -> None:
    assert [each.stays for each in Reader("markdown", keep=(keep,)).read(text)] == [True]  # type: ignore[arg-type]
    assert [each.stays for each in MARKDOWN.read(text)] == [False]


def test_a_number_with_its_unit_has_words() -> None:
    assert has_words("12 kg")
    assert has_words("100 %ige Lösung")
    assert not has_words("100 % – 12.5")


def test_what_lies_deeper_in_lists_than_the_parser_goes_is_not_lost() -> None:
    assert "words" in texts(MARKDOWN, "> " * 150 + "words")[0]


def test_a_line_with_nothing_but_a_form_feed_loses_no_words() -> None:
    assert texts(MARKDOWN, "\f\none\n\f\n\ntwo") == ["one", "two"]


def test_a_paragraph_of_one_line_stays_one() -> None:
    source = "# one\n\ntwo"
    heading = MARKDOWN.read(source)[0]
    assert put(source, heading, "eins\nund\n zwei ") == "eins und zwei"


def test_further_lines_have_the_breaks_and_prefixes_of_the_source() -> None:
    source = "> one\r\n> two"
    (quote,) = MARKDOWN.read(source)
    assert put(source, quote, "eins\nzwei\r\ndrei") == "eins\r\n> zwei\r\n> drei"
