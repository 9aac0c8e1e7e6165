"""map_reduce by hand: a document and answers in any order in; what is asked when, and what comes of it, out. A token is a word."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch.check.answer import make_check
from llmbatch.check.base import OutputSettings
from llmbatch.core.types import (
    Completion,
    Cursor,
    Failure,
    FailureKind,
    Prompt,
    Record,
    Refusal,
    Request,
    Row,
    Sampling,
    Status,
    Usage,
)
from llmbatch.programs.base import Ask, Need, PromptFacts, make_program
from llmbatch.programs.line import Rules
from llmbatch.programs.map_reduce import MapReduceSettings, _Document
from llmbatch.programs.work import Work

TEXT = Need("string", required=True)
FACTS = {"main": PromptFacts({"text": TEXT}, None, {}), "reduce": PromptFacts({"joined": TEXT}, None, {})}
CHECK = make_check(OutputSettings())
Answer = Callable[[str, str], str | Failure | Completion]


@dataclass
class Reader:
    """A row whose prompts are two words and what they are given, with a context of so many words and answers of at most ten.

    ``main`` has its text ``times`` times.
    """

    data: Mapping[str, Any]
    settings: Any
    context_length: int | None = 72
    most: int | None = 10
    times: int = 1
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    @property
    def row(self) -> Row:
        return Row(0, "r", self.data, Cursor(0))

    def ask(self, prompt: str = "main", /, **extra: Any) -> Ask | Failure:
        values = {**self.data, **extra}
        self.asked.append((prompt, extra))
        said = " ".join([values["text"]] * self.times) if prompt == "main" else values["joined"]
        if "unrenderable" in said:
            return Failure(FailureKind.PROMPT, "no such field")
        sampling = Sampling(() if self.most is None else (("max_tokens", self.most),))
        return Ask(Prompt(messages=({"role": prompt, "content": f"please {prompt}: {said}"},)), sampling, samples=3)

    def tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def room(self, ask: Ask) -> int | None:
        assert ask.prompt.messages is not None
        words = len(ask.prompt.messages[0]["content"].split())
        return None if self.context_length is None else self.context_length - words - (self.most or 1)


def words(count: int, start: int = 0) -> str:
    return " ".join(f"w{number:04}" for number in range(start, start + count))


def paragraphs(count: int) -> str:
    """So many paragraphs of 25 words, each of which is a chunk of at most 30."""
    return "\n\n".join(words(25, 25 * number) for number in range(count))


def first_and_last(prompt: str, text: str) -> str:
    found = text.split()
    return f"{found[0]}..{found[-1]}"


def said(request: Request) -> tuple[str, str]:
    """The prompt of a request, and the text that it was given."""
    assert request.prompt.messages is not None
    message = request.prompt.messages[0]
    return message["role"], message["content"].split(": ", 1)[1]


def outcome(request: Request, answer: Answer) -> Completion | Refusal:
    found = answer(*said(request))
    if isinstance(found, Failure):
        return Refusal(request.key, found)
    if isinstance(found, Completion):
        return Completion(request.key, found.text, "stop", found.usage, found.token_ids)
    count = len(found.split())
    return Completion(request.key, found, "stop", Usage(len(said(request)[1].split()), count), tuple(range(count)))


def begin(
    data: Mapping[str, Any] | str, settings: Mapping[str, Any] | None = None, **reader: Any
) -> tuple[Work, Reader]:
    made = make_program("map_reduce", settings or {}, FACTS)
    row = Reader({"text": data} if isinstance(data, str) else data, made.settings, **reader)
    return Work(row.row, made.kind.shape(row), Rules(CHECK, lambda *_: None)), row


def finish(work: Work, answer: Answer = first_and_last, order: Sequence[int] = (0,)) -> tuple[Record, list[Request]]:
    """Answer what is asked, each time one of what waits, by the order; returns the record and what was asked, as it came."""
    waiting = work.start()
    asked = [*waiting]
    turn = 0
    while waiting:
        request = waiting.pop(order[turn % len(order)] % len(waiting))
        following = work.feed(outcome(request, answer))
        waiting += following
        asked += following
        turn += 1
    assert work.record is not None
    return work.record, asked


def run(
    data: Mapping[str, Any] | str,
    settings: Mapping[str, Any] | None = None,
    answer: Answer = first_and_last,
    **reader: Any,
) -> Record:
    return finish(begin(data, settings, **reader)[0], answer)[0]


def details(record: Record) -> Any:
    assert record.details is not None
    return record.details


# the whole, and chunks


def test_a_document_that_fits_is_asked_about_once() -> None:
    record, asked = finish(begin(words(60))[0])
    assert [said(request) for request in asked] == [("main", words(60))]
    assert (record.status, record.output) == (Status.OK, "w0000..w0059")
    usage = {"prompt_tokens": 60, "completion_tokens": 1}
    chunk = {"start": 0, "end": len(words(60)), "status": "ok", "usage": usage}
    assert record.details == {"chunks": [chunk], "reductions": []}


def test_the_chunks_of_a_longer_one_are_asked_about_at_once_and_are_in_the_record() -> None:
    text = words(100)
    work, _ = begin(text)
    requests = work.start()
    assert {said(request)[0] for request in requests} == {"main"}
    for request in requests:
        following = work.feed(outcome(request, first_and_last))
    [reduction] = following
    assert work.feed(outcome(reduction, first_and_last)) == []
    record = work.record
    assert record is not None
    chunks = details(record)["chunks"]
    assert [text[chunk["start"] : chunk["end"]] for chunk in chunks] == [said(request)[1] for request in requests]
    assert " ".join(said(request)[1] for request in requests) == text
    assert all(len(said(request)[1].split()) + 2 + 10 <= 72 for request in requests)
    assert [chunk["output"] for chunk in chunks] == [first_and_last("", said(request)[1]) for request in requests]
    assert said(reduction) == ("reduce", "\n\n".join(chunk["output"] for chunk in chunks))
    assert details(record)["reductions"] == [
        {"level": 1, "chunks": [0, len(chunks) - 1], "partials": len(chunks), "status": "ok",
         "usage": {"prompt_tokens": len(chunks), "completion_tokens": 1}}
    ]  # fmt: skip
    assert record.output == f"{chunks[0]['output']}..{chunks[-1]['output']}"


def test_a_reduction_is_asked_as_soon_as_its_own_answers_are_there() -> None:
    work, _ = begin(paragraphs(16), {"chunk": 30, "most": 4})
    requests = work.start()
    groups = [requests[at : at + 4] for at in range(0, 16, 4)]
    assert len(requests) == 16
    for group in reversed(groups):
        following = [each for request in group for each in work.feed(outcome(request, first_and_last))]
        assert [said(request)[1].split("..")[0] for request in following][:1] == [said(group[0])[1].split()[0]]
        requests.append(following[0])
    [last] = [each for request in requests[16:] for each in work.feed(outcome(request, first_and_last))]
    assert said(last)[1].split("..")[0] == "w0000"
    assert work.feed(outcome(last, first_and_last)) == []
    assert work.record is not None
    levels = [(each["level"], *each["chunks"]) for each in details(work.record)["reductions"]]
    assert levels == [(1, 0, 3), (1, 4, 7), (1, 8, 11), (1, 12, 15), (2, 0, 15)]


@given(
    st.integers(1, 900), st.integers(4, 40), st.sampled_from([None, 2, 3, 7]), st.booleans(),
    st.lists(st.integers(0, 99), min_size=1, max_size=9),
)  # fmt: skip
def test_what_is_asked_and_what_comes_of_it_does_not_depend_on_which_answer_comes_first(
    length: int, chunk: int, most: int | None, lenient: bool, order: list[int]
) -> None:
    def answer(prompt: str, text: str) -> str | Failure:
        found = text.split()
        if len(found) % 5 == 3 and prompt == "main":
            return Failure(FailureKind.REFUSED, "out of luck")
        return " ".join(found[: 1 + len(found) % 12])

    settings = {"chunk": chunk, "most": most, "leave_out_failed": lenient}
    one, asked = finish(begin(words(length), settings)[0], answer)
    other, again = finish(begin(words(length), settings)[0], answer, order)
    assert one == other
    assert {request.key: request for request in asked} == {request.key: request for request in again}
    assert len(asked) == one.attempts
    spans = [(each["start"], each["end"]) for each in details(one)["chunks"]]
    assert spans == sorted(spans) and " ".join(words(length)[start:end] for start, end in spans) == words(length)


@pytest.mark.parametrize(
    ("count", "groups", "tree"),
    [
        (1, (4, 4), 0),
        (4, (4, 4), [0, 1, 2, 3]),
        (5, (4, 4), [[0, 1], [2, 3, 4]]),
        (3, (2, 2), [0, [1, 2]]),
        (9, (4, 2), [[0, 1, 2], [[3, 4, 5], [6, 7, 8]]]),
        (8, (2, 9), [[0, 1], [2, 3], [4, 5], [6, 7]]),
    ],
)
def test_neighbours_are_put_together_in_even_groups(count: int, groups: tuple[int, int], tree: Any) -> None:
    row = Reader({}, MapReduceSettings())
    assert _Document(row, row.settings, "", [(0, 0)] * count, groups).tree() == tree


@pytest.mark.parametrize(("most", "groups"), [(10, (4, 4)), (3, (10, 10)), (None, (4, 4)), (500, (4, 4))])
def test_as_many_answers_are_planned_together_as_fit_were_each_as_long_as_it_may_be(
    most: int | None, groups: tuple[int, int]
) -> None:
    row = Reader({"text": words(500)}, MapReduceSettings(field="text"), most=most)
    document = _Document(row, row.settings, words(500), [(0, 9)])
    asked = row.ask()
    assert isinstance(asked, Ask)
    assert document.plan(asked) is None
    planned = document.groups
    assert planned == groups if most != 3 else planned[0] == planned[1] >= 10


def test_a_prompt_that_has_its_text_twice_has_chunks_of_half_the_size() -> None:
    _, asked = finish(begin(words(300), times=2, context_length=164)[0])
    sizes = [len(said(request)[1].split()) for request in asked if said(request)[0] == "main"]
    assert len(sizes) > 3
    assert 2 * 32 < max(sizes) <= 164 - 10 - 2


def test_a_chunk_knows_which_part_it_is_unless_the_row_has_a_field_of_that_name() -> None:
    work, row = begin({"text": words(100), "parts": "mine"})
    requests = work.start()
    given = [extra for prompt, extra in row.asked if prompt == "main"][-len(requests) :]
    assert [extra["part"] for extra in given] == list(range(1, len(requests) + 1))
    assert not any("parts" in extra for extra in given)


def test_chunks_may_overlap() -> None:
    record, asked = finish(begin(words(200), {"chunk": 30, "overlap": 8})[0])
    texts = [said(request)[1].split() for request in asked if said(request)[0] == "main"]
    assert all(after[0] in before for before, after in pairwise(texts))
    assert all(len(text) <= 30 for text in texts)
    chunks = details(record)["chunks"]
    assert all(after["start"] < before["end"] for before, after in pairwise(chunks))


def test_headings_are_cut_along_where_the_row_is_a_page_or_markdown() -> None:
    text = "# One\n\n" + words(20) + "\n\n" + words(14, 20) + "\n\n# Two\n\n" + words(18, 40) + "\n\n" + words(16, 60)
    cut = {}
    for kind in ("text/html", "text/markdown", "text/plain"):
        chunks = details(run({"text": text, "media_type": kind}, {"chunk": 40}))["chunks"]
        cut[kind] = [text[chunk["start"] : chunk["end"]].split("\n")[0] for chunk in chunks]
    assert cut["text/html"] == cut["text/markdown"] == ["# One", "# Two"]


# as the settings say


def test_a_document_that_fits_is_cut_too_where_chunks_are_to_be_small() -> None:
    assert len(details(run(words(40), {"chunk": 10}))["chunks"]) == 1
    assert len(details(run(words(40), {"chunk": 10, "whole": False}))["chunks"]) >= 4
    assert len(details(run(words(40), {"whole": False}))["chunks"]) == 1


def test_a_document_of_one_chunk_goes_through_reduce_where_that_is_asked_for() -> None:
    record, asked = finish(begin(words(9), {"always_reduce": True})[0])
    assert [said(request) for request in asked] == [("main", words(9)), ("reduce", "w0000..w0008")]
    assert record.output == "w0000..w0008..w0000..w0008"
    assert details(record)["chunks"][0]["output"] == "w0000..w0008"
    assert details(record)["reductions"][0]["partials"] == 1


def test_partial_answers_are_left_out_of_the_details_where_nobody_wants_them() -> None:
    record = run(words(100), {"details": False})
    assert not any("output" in entry for entry in details(record)["chunks"])
    assert [set(entry) for entry in details(record)["chunks"]][:1] == [{"start", "end", "status", "usage"}]


def test_answers_that_are_json_are_given_as_they_are_and_as_text() -> None:
    made = make_program("map_reduce", {}, FACTS)
    row = Reader({"text": words(100)}, made.settings)
    rules = Rules(make_check(OutputSettings(schema={"type": "object"}, constrained=False)), lambda *_: None)
    work = Work(row.row, made.kind.shape(row), rules)
    for request in work.start():
        following = work.feed(outcome(request, lambda *_: '{"n": 1}'))
    prompt, extra = row.asked[-1]
    assert prompt == "reduce" and extra["partials"] == [{"n": 1}] * len(extra["partials"])
    assert said(following[0])[1] == "\n\n".join(['{"n": 1}'] * len(extra["partials"]))


@pytest.mark.parametrize(("settings", "chunks"), [({}, 1), ({"chunk": 10}, 20)])
def test_where_only_a_server_knows_its_context_chunks_are_cut_if_their_size_is_given(
    settings: dict[str, Any], chunks: int
) -> None:
    record = run(words(190), settings, context_length=None)
    assert len(details(record)["chunks"]) >= chunks
    assert record.status is Status.OK
    assert {entry["partials"] for entry in details(record)["reductions"]} <= set(range(1, 9))


# answers that are not as planned


def test_answers_longer_than_planned_are_put_together_in_smaller_groups() -> None:
    def answer(prompt: str, text: str) -> str:
        return words(15) if prompt == "main" else first_and_last(prompt, text)

    record, asked = finish(begin(paragraphs(8), {"chunk": 30, "most": 4})[0], answer)
    assert record.status is Status.OK
    reductions = details(record)["reductions"]
    assert max(entry["partials"] for entry in reductions) == 2
    assert all(len(said(request)[1].split()) + 2 <= 62 for request in asked if said(request)[0] == "reduce")


def test_thoughts_take_no_room_in_what_answers_are_put_together_with() -> None:
    def answer(prompt: str, text: str) -> Completion:
        return Completion(Request, "short", "stop", Usage(5, 500), tuple(range(500)))  # type: ignore[arg-type]

    record = run(paragraphs(8), {"chunk": 30}, answer)
    assert record.status is Status.OK
    assert [entry["partials"] for entry in details(record)["reductions"]] == [4, 4, 2]


@pytest.mark.parametrize("lenient", [True, False])
def test_answers_of_which_no_two_fit_end_the_row_with_a_clear_failure(lenient: bool) -> None:
    """What is left out are chunks without an answer, and not answers that are too long."""
    settings = {"chunk": 50, "leave_out_failed": lenient}
    record, asked = finish(begin(words(400), settings)[0], lambda *_: words(30))
    assert {said(request)[0] for request in asked} == {"main"}
    assert (record.status, record.output) == (Status.FAILED, None)
    assert record.failure is not None and record.failure.kind is FailureKind.TOO_LONG
    assert record.failure.message.startswith("row 'r': no two answers about chunks 0 to ")
    assert "they have 30, 30" in record.failure.message and "reduce has room for" in record.failure.message


def test_reductions_that_stay_as_long_as_what_they_are_made_of_come_to_an_end() -> None:
    record, asked = finish(begin(words(3000), {"chunk": 20, "most": 2})[0], lambda *_: words(12))
    chunks = len(details(record)["chunks"])
    assert record.status is Status.OK
    assert len(asked) == 2 * chunks - 1


# failures


def refusing(*starts: str, prompt: str = "main") -> Answer:
    def answer(asked: str, text: str) -> str | Failure:
        if asked == prompt and any(text.startswith(start) for start in starts):
            return Failure(FailureKind.REFUSED, "out of luck")
        return first_and_last(asked, text)

    return answer


def test_a_row_of_which_a_chunk_failed_says_which() -> None:
    text = paragraphs(16)
    record = run(text, {"chunk": 30, "most": 4}, refusing("w0050 "))
    chunk = details(record)["chunks"][2]
    assert record.failure == Failure(
        FailureKind.REFUSED,
        f"row 'r': chunk 2 of 16, characters {chunk['start']} to {chunk['end']:,}: out of luck",
    )
    assert (record.status, record.output) == (Status.FAILED, None)
    assert chunk["error"] == {"kind": "refused", "message": "out of luck"} and "usage" not in chunk
    assert text[chunk["start"] : chunk["end"]].startswith("w0050 ")
    done = {tuple(entry["chunks"]) for entry in details(record)["reductions"]}
    assert done == {(4, 7), (8, 11), (12, 15)}, "of the others it is not known that the row will fail"


def test_a_failed_chunk_may_be_left_out_and_its_status_says_so() -> None:
    settings = {"chunk": 30, "most": 4, "leave_out_failed": True}
    record = run(paragraphs(16), settings, refusing("w0050 ", "w0100 ", "w0125 ", "w0150 ", "w0175 "))
    assert (record.status, record.output.split("..")[0]) == (Status.OK, "w0000")
    statuses = [chunk["status"] for chunk in details(record)["chunks"]]
    assert statuses == ["ok", "ok", "failed", "ok", *["failed"] * 4, *["ok"] * 8]
    partials = [(entry["level"], *entry["chunks"], entry["partials"]) for entry in details(record)["reductions"]]
    assert partials == [(1, 0, 3, 3), (1, 8, 11, 4), (1, 12, 15, 4), (2, 0, 15, 3)]
    assert [attempt.failure.kind for attempt in record.history] == [FailureKind.REFUSED] * 5


def test_where_all_chunks_failed_nothing_can_be_left_out() -> None:
    record = run(words(100), {"leave_out_failed": True}, refusing("w"))
    assert record.status is Status.FAILED and record.failure is not None
    assert "chunk 0 of" in record.failure.message


@pytest.mark.parametrize("lenient", [True, False])
def test_a_row_of_which_a_reduction_failed_is_not_ok(lenient: bool) -> None:
    record = run(
        paragraphs(16), {"chunk": 30, "most": 4, "leave_out_failed": lenient}, refusing("w0100", prompt="reduce")
    )
    assert record.failure == Failure(
        FailureKind.REFUSED, "row 'r': putting the answers about chunks 4 to 7 together: out of luck"
    )
    assert [entry["status"] for entry in details(record)["reductions"]] == ["ok", "failed", "ok", "ok"]


def test_the_failure_of_a_document_s_one_request_is_the_row_s() -> None:
    record = run(words(9), {}, refusing("w0000"))
    assert record.failure == Failure(FailureKind.REFUSED, "out of luck")
    assert details(record)["chunks"][0]["error"] == {"kind": "refused", "message": "out of luck"}


@pytest.mark.parametrize("blank", ["", " \n\t "])
def test_a_blank_document_has_a_record_that_says_so_and_nothing_is_asked(blank: str) -> None:
    record, asked = finish(begin(blank)[0])
    assert asked == [] and record.attempts == 0
    assert record.failure == Failure(
        FailureKind.EMPTY_PROMPT, "row 'r': the field 'text' is blank: there is nothing to ask about"
    )


def test_a_prompt_that_cannot_be_rendered_is_the_row_s_failure() -> None:
    record, asked = finish(begin("unrenderable")[0])
    assert asked == [] and record.failure == Failure(FailureKind.PROMPT, "no such field")


def test_a_document_is_not_cut_where_prompt_and_answer_leave_no_room_for_a_chunk() -> None:
    record, asked = finish(begin(words(100), context_length=50)[0])
    assert asked == [] and record.failure is not None
    assert record.failure.kind is FailureKind.TOO_LONG
    assert "beside the prompt and an answer of 10 tokens the context of 50 has room for" in record.failure.message
    record, asked = finish(begin(words(100), {"chunk": 60, "overlap": 50})[0])
    assert asked == [] and record.failure is not None and "of it, 50 of them for an overlap" in record.failure.message


@pytest.mark.parametrize("most", [None, 1000])
def test_an_answer_without_a_limit_or_with_a_huge_one_has_half_of_the_context(most: int | None) -> None:
    record, asked = finish(begin(words(400), most=most, context_length=200)[0])
    assert record.status is Status.OK
    sizes = [len(said(request)[1].split()) for request in asked if said(request)[0] == "main"]
    assert 40 < max(sizes) <= 100


# before there is a row

Problem = Callable[..., str]
SUMMARY: dict[str, Any] = {"joined": TEXT}


@pytest.mark.parametrize(
    ("settings", "main", "reduce", "message"),
    [
        ({}, {"text": TEXT}, SUMMARY, ""),
        ({}, {"text": TEXT, "title": TEXT}, SUMMARY, ""),
        ({}, {"body": TEXT, "max_words": Need("integer")}, {"partials": Need("array", required=True)}, ""),
        ({}, {"body": TEXT, "title": TEXT}, SUMMARY,
         "which field has the document? The prompt takes 'body', 'title': name it as program.settings.field"),
        ({}, {}, SUMMARY, "which field has the document? The prompt takes no field"),
        ({"field": "body"}, {"body": TEXT, "title": TEXT}, SUMMARY, ""),
        ({"field": "bdy"}, {"body": TEXT}, SUMMARY, "the prompt does not take 'bdy' (did you mean 'body'?), but 'body'"),
        ({}, {"text": Need("array", required=True)}, SUMMARY, "the prompt takes 'text' as array, and a document is text"),
        ({}, {"text": TEXT}, {"text": TEXT},
         "takes 'text', the whole document; where answers are meant: program.prompts.reduce.fields: {text: joined}"),
        ({}, {"text": TEXT}, {"summaries": TEXT},
         "takes neither 'partials' nor 'joined', the answers that it is to put together: use one, or map it: program.prompts."),
        ({}, {"text": TEXT}, {"partials": TEXT}, "takes 'partials' as string, and it is of type array"),
        ({"reduce": "merge"}, {"text": TEXT}, SUMMARY, "asks with a prompt 'merge', and the job has main, reduce"),
        ({"chunk": 50, "overlap": 50}, {"text": TEXT}, SUMMARY, "overlap, 50 tokens, must be below chunk, which is 50"),
        ({"markup": "html"}, {"text": TEXT}, SUMMARY, "program.settings.markup"),
        ({"most": 1}, {"text": TEXT}, SUMMARY, "program.settings.most"),
        ({"chunks": 1}, {"text": TEXT}, SUMMARY, "unknown key 'program.settings.chunks' (did you mean 'chunk'?)"),
    ],
)  # fmt: skip
def test_what_can_be_known_to_be_wrong_is_said_before_a_row(
    problem: Problem, settings: Any, main: Any, reduce: Any, message: str
) -> None:
    seen = problem("map_reduce", settings, main=PromptFacts(main, None, {}), reduce=PromptFacts(reduce, None, {}))
    assert message in seen if message else seen == ""


def test_several_answers_to_a_chunk_are_refused(problem: Problem) -> None:
    seen = problem("map_reduce", {}, main=PromptFacts({"text": TEXT}, None, {"n": 3}), reduce=FACTS["reduce"])
    assert "the prompt main asks for 3 answers (sampling.n)" in seen


def test_details_are_json() -> None:
    assert json.loads(json.dumps(details(run(words(500)))))["chunks"]
