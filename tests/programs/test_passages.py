from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch.core.check import Verdict
from llmbatch.core.types import Failure, FailureKind
from llmbatch.programs.paragraphs import Reader
from llmbatch.programs.passages import Passage, PassageCheck, alone, together

MARKDOWN = Reader("markdown", keep=("code", "no_words"))
SOURCE = "## One\n\ntwo\nthree\n\n```\ncode\n```\n\n- four\n- five\n\n12\n\nsix"


def passage_of(source: str, reader: Reader = MARKDOWN, *, marks: bool = True) -> Passage:
    paragraphs = [paragraph for paragraph in reader.read(source) if not paragraph.stays]
    passage = together(source, paragraphs, reader, marks=marks)
    assert passage is not None
    return passage


def test_paragraphs_are_shown_with_their_marks_and_without_what_is_kept() -> None:
    assert passage_of(SOURCE).text == "## One\n\ntwo\nthree\n\n- four\n- five\n\nsix"


def test_without_marks_each_is_parted_by_a_blank_line() -> None:
    assert passage_of(SOURCE, marks=False).text == "One\n\ntwo\nthree\n\nfour\n\nfive\n\nsix"


def test_lines_are_shown_as_they_stand_with_the_blank_lines_between_them() -> None:
    source = "one\ntwo\n\n\nthree"
    assert passage_of(source, Reader(lines=True)).text == "one\ntwo\n\nthree"


def test_what_is_indented_as_a_whole_is_shown_without_that() -> None:
    source = "- one\n  - two\n    more\n  - three"
    paragraphs = MARKDOWN.read(source)[1:]
    passage = together(source, paragraphs, MARKDOWN, marks=True)
    assert passage is not None and passage.text == "- two\n  more\n- three"


FRAGMENTS = [
    "word",
    " ",
    "\n",
    "\n\n",
    "\r\n",
    "# ",
    "- ",
    "2. ",
    "> ",
    "  ",
    "| a |\n|---|\n| b |\n",
    "<p>",
    "```\n",
    "===\n",
]


@pytest.mark.parametrize("reader", [Reader(), Reader("markdown"), Reader("markdown", lines=True)], ids=str)
@given(source=st.lists(st.sampled_from(FRAGMENTS), max_size=20).map("".join), marks=st.booleans())
def test_what_is_shown_reads_as_the_paragraphs_it_is_made_of(reader: Reader, source: str, marks: bool) -> None:
    paragraphs = reader.read(source)
    if paragraphs and (passage := together(source, paragraphs, reader, marks=marks)) is not None:
        assert passage.apart(passage.text) == [paragraph.text for paragraph in paragraphs]


def test_paragraphs_that_cannot_be_told_apart_again_are_not_shown_together() -> None:
    reader = Reader("markdown")
    source = "one\n\n```\ncode\n\nmore\n```"
    assert together(source, reader.read(source), reader, marks=False) is None


def test_an_answer_is_taken_apart_without_its_marks() -> None:
    answer = "## Eins\n\nzwei\ndrei\n\n- vier\n- fünf\n\nsechs\n"
    assert passage_of(SOURCE).apart(answer) == ["Eins", "zwei\ndrei", "vier", "fünf", "sechs"]


def test_other_line_breaks_and_more_blank_lines_in_an_answer_do_not_matter() -> None:
    assert passage_of("one\n\ntwo").apart("eins\r\n\r\n\r\nzwei") == ["eins", "zwei"]


@pytest.mark.parametrize(
    ("source", "answer", "said"),
    [
        ("one\n\ntwo", "eins", "the answer has 1 paragraph, and the text has 2 paragraphs: translate each by itself, in the "
         "same order, with a blank line between them"),
        ("one", "Gern!\n\neins", "the answer has 2 paragraphs, and the text has 1 paragraph: translate each by itself, in the "
         "same order"),
        ("# one\n\ntwo", "eins\n\nzwei", "number 1 of its paragraphs is plain text, and in the text it is a heading: keep what "
         "stands in front of paragraphs (#, -, 1., >)"),
        ("one\n\n- two", "eins\n\n> zwei", "number 2 of its paragraphs is a quotation, and in the text it is an item of a list: "
         "keep what stands in front of paragraphs (#, -, 1., >)"),
    ],
)  # fmt: skip
def test_an_answer_with_other_paragraphs_is_told_what_is_wrong(source: str, answer: str, said: str) -> None:
    assert passage_of(source).apart(answer) == said


def test_lines_are_counted_where_each_is_a_paragraph() -> None:
    said = passage_of("one\ntwo", Reader(lines=True)).apart("eins")
    assert said == "the answer has 1 line, and the text has 2 lines: translate each by itself, in the same order"


def test_a_paragraph_alone_is_shown_without_its_mark_and_its_answer_taken_as_it_is() -> None:
    (item,) = MARKDOWN.read("- one")
    assert alone(item, MARKDOWN).text == "one"
    assert alone(item, MARKDOWN).apart(" eins ") == ["eins"]


def test_a_mark_that_was_not_shown_and_is_in_the_answer_is_left_out() -> None:
    (heading,) = MARKDOWN.read("# one")
    assert alone(heading, MARKDOWN).apart("# eins") == ["eins"]
    (item,) = MARKDOWN.read("- > one")
    assert alone(item, MARKDOWN).apart("- > eins") == ["eins"]
    assert alone(item, Reader()).apart("- eins") == ["- eins"]
    (text,) = Reader("markdown").read("one `- two`")
    assert alone(text, MARKDOWN).apart("1. eins") == ["eins"]


def test_a_code_block_alone_may_have_blank_lines_where_it_has_some() -> None:
    (code,) = Reader("markdown").read("```\na\n\nb\n```")
    assert alone(code, MARKDOWN).apart("```\nc\n\nd\n```") == ["```\nc\n\nd\n```"]


def test_the_check_of_the_prompt_comes_first() -> None:
    refused = Failure(FailureKind.LANGUAGE, "not German")

    class Inner:
        constraint = None

        def __call__(self, text: str, row: object = None, *, cut_off: bool = False) -> Verdict:
            return Verdict(None, refused) if cut_off else Verdict(text, None)

    check = PassageCheck(passage_of("one\n\ntwo"), Inner())
    assert check("eins\n\nzwei", {}, cut_off=True) == Verdict(None, refused)
    assert check("eins\n\nzwei") == Verdict(["eins", "zwei"], None)
    failure = check("eins").failure
    assert failure is not None and failure.kind is FailureKind.MARKUP
