"""The program driven by hand: a token is a word, the model shouts, and its answers are held to their checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest

from llmbatch.core.types import (
    Accepted,
    Completion,
    Cursor,
    Failure,
    FailureKind,
    Prompt,
    RequestKey,
    Row,
    Sampling,
    Usage,
)
from llmbatch.programs.base import Ask, Complete, Incomplete, Need, PromptFacts, make_program

PROMPT_TOKENS = 10
FACTS = {"main": PromptFacts({"text": Need(), "before": Need(required=False)}, None, {})}
Model = Callable[[str], str | Failure]


@dataclass
class Document:
    """Implements ``RowAsk``: its prompt is the chunk, after what stands before it."""

    data: Mapping[str, Any]
    settings: Any
    model: Model
    context_length: int | None = None
    max_tokens: int | None = None
    yields: list[list[tuple[str, str]]] = field(default_factory=list)  # the chunks, with what stands before them

    @property
    def row(self) -> Row:
        return Row(0, "r", self.data, Cursor(0))

    def ask(self, prompt: str = "main", /, **extra: Any) -> Ask | Failure:
        chunk, before = extra[self.settings.field], extra[self.settings.before]
        if "unrenderable" in self.data:
            return Failure(FailureKind.PROMPT, "no such field")
        messages = ({"role": "system", "content": before}, {"role": "user", "content": chunk})
        return Ask(Prompt(messages=messages), Sampling(), max_tokens=self.max_tokens)

    def tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def room(self, ask: Ask) -> int | None:
        return None if self.context_length is None else self.context_length - (self.max_tokens or 1) - PROMPT_TOKENS

    def answer(self, ask: Ask | Failure) -> Accepted | Failure | None:
        if isinstance(ask, Failure):
            return None
        assert ask.prompt.messages is not None and ask.check is not None and ask.tells
        said = self.model(ask.prompt.messages[1]["content"])
        if isinstance(said, Failure):
            return said
        value, failure = ask.check(said)
        return failure or Accepted(value, Completion(RequestKey(0), said, "stop", Usage(10, 2, 4)))


def translated(
    data: str | Mapping[str, Any], model: Model = str.upper, *, limits: Mapping[str, int] | None = None, **settings: Any
) -> tuple[Any, Document]:
    made = make_program("translate", settings, FACTS)
    row = Document({"text": data} if isinstance(data, str) else data, made.settings, model, **(limits or {}))
    program = made.kind.shape(row)
    sent: Any = None
    while True:
        try:
            wanted = program.send(sent)
        except StopIteration as stop:
            return stop.value, row
        several: list[Ask | Failure] = [wanted] if isinstance(wanted, Ask | Failure) else list(wanted)
        messages = [ask.prompt.messages for ask in several if isinstance(ask, Ask)]
        row.yields.append([(each[1]["content"], each[0]["content"]) for each in messages if each is not None])
        answers = [row.answer(ask) for ask in several]
        sent = answers[0] if isinstance(wanted, Ask | Failure) else answers


def chunks_of(text: str, **settings: Any) -> list[str]:
    return [chunk for chunk, _ in translated(text, **settings)[1].yields[0]]


def befores_of(text: str, **settings: Any) -> list[str]:
    return [before for _, before in translated(text, **settings)[1].yields[0]]


# the chunks


def test_a_document_is_joined_again_with_all_that_stands_between_its_paragraphs() -> None:
    done, _ = translated("\ufeff one\n\n\n  two two \r\n\t\r\nthree\n", chunk=2)
    assert done.output == "\ufeff ONE\n\n\n  TWO TWO \r\n\t\r\nTHREE\n"
    assert isinstance(done, Complete)


def test_all_chunks_are_asked_at_once() -> None:
    _, row = translated("one\n\ntwo\n\nthree\n\nfour five", chunk=2)
    assert [[chunk for chunk, _ in asked] for asked in row.yields] == [["one", "two", "three", "four five"]]


def test_as_many_paragraphs_as_fit_are_a_chunk() -> None:
    text = "one\n\ntwo two\n\nthree"
    assert chunks_of(text, chunk=4) == ["one\n\ntwo two", "three"], "a break between two counts as a token"
    assert chunks_of(text, chunk=100) == [text]
    assert chunks_of(text, chunk=100, paragraphs=2) == ["one\n\ntwo two", "three"]


def test_marks_that_are_shown_count_too() -> None:
    text = "- one\n- two\n- three"
    assert chunks_of(text, chunk=5, markup="markdown") == ["- one\n- two", "three"]
    assert chunks_of(text, chunk=5, markup="markdown", marks=False) == ["one\n\ntwo\n\nthree"]


def test_a_paragraph_that_is_too_long_is_cut_between_its_sentences() -> None:
    text = "One two three. Four five six.  Seven eight nine.\n\nTen."
    assert chunks_of(text, chunk=6) == ["One two three. Four five six.", "Seven eight nine.\n\nTen."]
    assert translated(text, chunk=6)[0].output == text.upper()


def test_a_paragraph_with_a_prefix_is_cut_between_its_lines() -> None:
    text = "> one two\n> three four five six\n"
    done, row = translated(text, chunk=3, markup="markdown", marks=False)
    assert [chunk for chunk, _ in row.yields[0]] == ["one two", "three four", "five six"]
    assert done.output == text.upper()


def test_a_heading_goes_with_what_comes_below_it() -> None:
    text = "one two\n\n# three\n\nfour five"
    assert chunks_of(text, chunk=5, markup="markdown") == ["one two", "# three\n\nfour five"]
    assert chunks_of(text, chunk=5, markup="markdown", paragraphs=1) == ["one two", "three", "four five"]


def test_a_section_begins_a_chunk_once_the_last_one_is_half_full() -> None:
    text = "one two three\n\n# four\n\nfive\n\n# six\n\nseven"
    assert chunks_of(text, chunk=6, markup="markdown") == ["one two three", "# four\n\nfive", "# six\n\nseven"]


def test_each_line_is_a_paragraph_where_that_is_asked_for() -> None:
    done, row = translated("one\ntwo\n\nthree\r\n", lines=True, paragraphs=1)
    assert [chunk for chunk, _ in row.yields[0]] == ["one", "two", "three"]
    assert done.output == "ONE\nTWO\n\nTHREE\r\n"


@pytest.mark.parametrize(
    ("limits", "settings", "most"),
    [
        ({}, {}, 512),
        ({}, {"chunk": 40}, 40),
        ({"max_tokens": 100}, {}, 50),
        ({"max_tokens": 100}, {"growth": 4}, 25),
        ({"context_length": 210}, {"context": 0}, 40),
        ({"context_length": 210, "max_tokens": 1000}, {"context": 0}, 40),
        ({"context_length": 210}, {"context": 100}, 20),
        ({"context_length": 210}, {"context": 0, "chunk": 300}, 40),
        ({"context_length": 210}, {"context": 0, "growth": 0.5}, 100),
    ],
)
def test_a_chunk_leaves_room_for_its_translation_and_for_that_again_where_it_is_sent_back(
    limits: dict[str, int], settings: dict[str, Any], most: int
) -> None:
    text = "\n\n".join(["word"] * 2000)
    _, row = translated(text, limits=limits, **settings)
    sizes = {len(chunk.split()) * 2 - 1 for chunk, _ in row.yields[0]}  # with the breaks
    assert max(sizes) in (most, most - 1)


def test_a_context_without_room_for_anything_is_said() -> None:
    done, row = translated("one", limits={"context_length": 100, "max_tokens": 50})
    assert (done, row.yields) == (Incomplete(), [[]]), "a failure was yielded, and nothing asked"


def test_what_cannot_be_rendered_is_yielded_once_and_not_for_every_chunk() -> None:
    done, row = translated({"text": "one\n\ntwo", "unrenderable": True}, paragraphs=1)
    assert (done, row.yields) == (Incomplete(), [[]])


# what is shown


@pytest.mark.parametrize(
    ("markup", "media_type", "shown"),
    [
        ("auto", "text/markdown", "# one\n\ntwo"),
        ("auto", "text/html", "# one\n\ntwo"),
        ("auto", "text/plain", "# one\n\n1\n\ntwo"),
        ("auto", None, "# one\n\n1\n\ntwo"),
        ("markdown", "text/plain", "# one\n\ntwo"),
        ("text", "text/markdown", "# one\n\n1\n\ntwo"),
    ],
)
def test_how_a_document_is_read_its_media_type_tells(markup: str, media_type: str | None, shown: str) -> None:
    document = {"text": "# one\n\n1\n\ntwo", "media_type": media_type}
    keep = ["no_words"] if shown == "# one\n\ntwo" else []
    assert [chunk for chunk, _ in translated(document, markup=markup, keep=keep)[1].yields[0]] == [shown]
    heading = translated(document, markup=markup, paragraphs=1)[1].yields[0][0][0]
    assert heading == ("one" if shown == "# one\n\ntwo" else "# one")


def test_marks_are_shown_or_not_and_those_of_the_source_stay() -> None:
    text = "## one ##\n\n* two\n* three\n"
    for marks, shown in ((True, "## one\n\n* two\n* three"), (False, "one\n\ntwo\n\nthree")):
        done, row = translated(text, markup="markdown", marks=marks)
        assert row.yields[0][0][0] == shown
        assert done.output == text.upper()
    done, _ = translated(text, lambda text: text.upper().replace("*", "-").replace("##", "## "), markup="markdown")
    assert done.output == text.upper(), "other marks of the same kind do not matter"


def test_what_stays_as_it_is_is_not_shown_and_counted() -> None:
    text = "---\nx: y\n---\n\none\n\n```\ncode\n```\n\n12,000\n\n[a]: https://x.y\n"
    done, row = translated(text, markup="markdown")
    assert [chunk for chunk, _ in row.yields[0]] == ["one"]
    assert done.output == text.replace("one", "ONE")
    assert done.details["kept"] == 4
    assert translated("12,000", keep=[])[1].yields == [[("12,000", "")]]


def test_of_a_document_in_which_all_stays_nothing_is_asked() -> None:
    done, row = translated("12,000\n\n---\n")
    assert done == Complete("12,000\n\n---\n", {"chunks": [], "kept": 2})
    assert row.yields == []


# what stands before


def test_a_chunk_is_given_the_end_of_what_stands_before_it_in_the_source() -> None:
    text = "one two three\n\nfour five\r\n\r\nsix"
    assert befores_of(text, paragraphs=1, context=3) == ["", "one two three", "four five"]
    assert befores_of(text, paragraphs=1, context=0) == ["", "", ""]
    assert befores_of(text, paragraphs=1) == ["", "one two three", "one two three\n\nfour five"]


def test_it_begins_with_a_sentence_where_that_costs_less_than_half_of_it() -> None:
    text = "One two three. Four five six seven.\n\nEight"
    assert befores_of(text, paragraphs=1, context=6)[1] == "Four five six seven."
    chinese = befores_of("上" * 30 + "。" + "下" * 30 + "\n\n" + "完", paragraphs=1, context=1)
    assert chinese[-1] and set(chinese[-1]) <= {"上", "下", "。"}
    assert befores_of("One two three four five! Six.\n\nSeven", paragraphs=1, context=4)[1] == "four five! Six."


def test_it_is_as_long_as_asked_for_or_a_little_shorter_whatever_words_are_like() -> None:
    text = "a b c d e f g h i j\n\n" * 30 + "longest words there are\n\n" * 30 + "long" * 500 + "\n\nend"
    befores = befores_of(text, paragraphs=1, context=7)
    assert all(" ".join(before.split()) in " ".join(text.split()) for before in befores)
    assert {len(before.split()) for before in befores[2:60]} <= {3, 4, 5, 6, 7}
    assert befores[-1].startswith("long"), "of a word without an end its end"


# what fails


def fails_together(text: str) -> str:
    """A model that makes one paragraph of several."""
    return text.upper().replace("\n\n", " ")


def never(word: str) -> Model:
    """A model that cannot translate what has this word."""
    bad = Failure(FailureKind.GLOSSARY, "terms are missing")
    return lambda text: bad if word in text else text.upper()


def test_the_paragraphs_of_a_chunk_that_fails_are_asked_one_by_one() -> None:
    done, row = translated("one\n\ntwo\n\nthree", fails_together, chunk=4, context=2)
    assert done.output == "ONE\n\nTWO\n\nTHREE"
    assert row.yields == [[("one\n\ntwo", ""), ("three", "one\n\ntwo")], [("one", ""), ("two", "one")]]
    first, second = done.details["chunks"]
    assert (first["one_by_one"], first["status"], first["usage"]["prompt_tokens"]) == (True, "ok", 20)
    assert "one_by_one" not in second


def test_where_one_fails_too_the_row_is_not_ok_and_has_all_the_rest() -> None:
    done, _ = translated("one\n\ntwo\n\nthree\n\nfour", never("two"), paragraphs=3)
    assert isinstance(done, Incomplete)
    assert done.output == "ONE\n\n\n\nTHREE\n\nFOUR"
    assert done.failure == Failure(
        FailureKind.GLOSSARY,
        "row 'r': 1 of 4 paragraphs could not be translated; the first, characters 5 to 8: terms are missing",
    )
    first, second = done.details["chunks"]
    assert (first["status"], second["status"]) == ("invalid", "ok")
    error = {"kind": "glossary", "message": "terms are missing"}
    assert first["failed"] == [{"start": 5, "end": 8, "error": error}]


def test_the_source_may_stand_where_nothing_could_be_translated() -> None:
    text = "# one\n\n> two\r\n> three\n\nfour"
    done, _ = translated(text, never("two"), paragraphs=1, markup="markdown", keep_source=True)
    assert isinstance(done, Incomplete)
    assert done.output == "# ONE\n\n> two\r\n> three\n\nFOUR"


@pytest.mark.parametrize("kind", [FailureKind.ENGINE_DIED, FailureKind.ENGINE, FailureKind.REFUSED])
def test_a_chunk_that_the_engine_failed_at_is_not_asked_again_in_parts(kind: FailureKind) -> None:
    done, row = translated("one\n\ntwo", lambda _: Failure(kind, "oh"))
    assert len(row.yields) == 1
    assert len(done.details["chunks"][0]["failed"]) == 2
    assert (done.output, done.failure.kind) == ("\n\n", kind)


@pytest.mark.parametrize(
    ("document", "kind", "said"),
    [
        ({"text": ""}, FailureKind.EMPTY_PROMPT, "'text', the field with the document, is blank: there is nothing to translate"),
        ({"text": " \n\t\r\n"}, FailureKind.EMPTY_PROMPT, "is blank"),
        ({"body": "one"}, FailureKind.PROMPT, "is missing: name another one as program.settings.field"),
        ({"text": ["one"]}, FailureKind.PROMPT, "is of type array, and no text: name another one"),
    ],
)  # fmt: skip
def test_a_row_without_a_document_says_so_and_asks_nothing(document: Any, kind: FailureKind, said: str) -> None:
    done, row = translated(document)
    assert isinstance(done, Incomplete) and done.failure is not None
    assert (done.failure.kind, row.yields) == (kind, [])
    assert said in done.failure.message and done.failure.message.startswith("row 'r': ")


# the details


def test_the_details_say_where_each_chunk_is_in_source_and_output() -> None:
    text = "one\n\n12\n\ntwo three\n\nfour\n"
    done, _ = translated(text, lambda text: text.upper() + "!", paragraphs=1)
    chunks = done.details["chunks"]
    assert [text[each["start"] : each["end"]] for each in chunks] == ["one", "two three", "four"]
    said = [done.output[each["output_start"] : each["output_end"]] for each in chunks]
    assert said == ["ONE!", "TWO THREE!", "FOUR!"]
    assert all(one["end"] <= other["start"] for one, other in pairwise(chunks))
    assert chunks[1] == {
        "start": 9, "end": 18, "output_start": 10, "output_end": 20, "paragraphs": 1, "status": "ok",
        "usage": {"prompt_tokens": 10, "completion_tokens": 2},
    }  # fmt: skip


def test_details_can_be_left_out() -> None:
    assert translated("one", details=False)[0] == Complete("ONE")


# before there is a row


def facts(*needs: str, answer: Any = None, **sampling: Any) -> PromptFacts:
    return PromptFacts({name: Need() for name in needs}, answer, sampling)


@pytest.mark.parametrize(
    ("settings", "prompt", "said"),
    [
        ({}, facts("text"), ""),
        ({"context": 0}, facts("text"), ""),
        ({"context": 10}, facts("text", "before"), ""),
        ({"field": "body", "before": "last"}, facts("body.words", "last"), ""),
        ({}, facts("body", "language"), "the prompt does not take 'text', in which it is given a chunk, but body, language: name "
         "its field as program.settings.field"),
        ({}, facts(), "but nothing"),
        ({"context": 10}, facts("text"), "the prompt does not take 'before', in which it is given what stands before a "
         "chunk, but text"),
        ({}, facts("text", answer={}), "the prompt's answers are JSON, and a translation is text"),
        ({}, facts("text", n=3), "a chunk has one translation: leave sampling.n out"),
        ({"before": "text"}, facts("text"), "field and before are both 'text'"),
        ({"keep": ["tables"]}, facts("text"), "program.settings.keep.0: Input should be 'code', 'front_matter', 'links' or "
         "'no_words'"),
        ({"chunk": 0}, facts("text"), "program.settings.chunk: Input should be greater than or equal to 1 (got 0)"),
        ({"overlap": 3}, facts("text"), "unknown key 'program.settings.overlap'; known keys: field, markup, chunk"),
    ],
)  # fmt: skip
def test_what_can_be_known_to_be_wrong_is_said_before_a_row(
    problem: Callable[..., str], settings: dict[str, Any], prompt: PromptFacts, said: str
) -> None:
    seen = problem("translate", settings, main=prompt)
    assert said in seen if said else seen == ""


def words(texts: Iterable[str]) -> list[str]:
    return [word for text in texts for word in text.split()]


@pytest.mark.parametrize("markup", ["text", "markdown"])
def test_one_long_line_is_cut_into_chunks_that_have_all_of_its_words(markup: str) -> None:
    text = " ".join(f"word{i}" + "." * (i % 9 == 0) for i in range(20_000))
    done, row = translated(text, markup=markup, context=0)
    assert words(chunk for chunk, _ in row.yields[0]) == text.split()
    assert done.output == text.upper()
