"""Branches of a row's program: answers in any order in, the same keys and the same record out."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch.check.answer import make_check
from llmbatch.check.base import OutputSettings
from llmbatch.core.errors import RunError
from llmbatch.core.types import (
    Accepted,
    Completion,
    Cursor,
    Failure,
    FailureKind,
    Outcome,
    Prompt,
    Record,
    Refusal,
    Request,
    Row,
    Sampling,
    Status,
    Usage,
)
from llmbatch.programs.base import Ask, Branches, Incomplete, Program
from llmbatch.programs.line import Rules
from llmbatch.programs.retry import RetrySettings, next_request
from llmbatch.programs.work import Work

ROW = Row(7, "r7", {}, Cursor(7))
NO_PROMPT = Failure(FailureKind.PROMPT, "no such field")
Answers = Generator[Any, Any, Any]


def rules(output: OutputSettings | None = None, **retry: Any) -> Rules:
    policy = partial(next_request, settings=RetrySettings(**retry), context_length=10_000)
    return Rules(make_check(output or OutputSettings()), policy)


def ask(text: str, samples: int = 1) -> Ask:
    return Ask(Prompt(text=text), Sampling((("max_tokens", 4),)), samples=samples)


def say(request: Request, text: str | None = None) -> Completion:
    said = request.prompt.text if text is None else text
    return Completion(request.key, said or "", "stop", Usage(10, 3), tuple(range(3)))


def play(work: Work, choose: Callable[[Sequence[Request]], int]) -> list[Request]:
    """Answer each request with its own text, the next one by choice, and return them as they were answered."""
    waiting = work.start()
    asked = []
    while waiting:
        request = waiting.pop(choose(waiting))
        asked.append(request)
        waiting += work.feed(say(request))
    assert work.record is not None
    return asked


def first(_waiting: Sequence[Request]) -> int:
    return 0


def last(waiting: Sequence[Request]) -> int:
    return len(waiting) - 1


def steps_of(name: str, count: int) -> Answers:
    """So many requests one after another; the texts of their answers."""
    said = []
    for number in range(count):
        answer = yield ask(f"{name}{number}")
        said.append(answer.value)
    return said


def test_each_branch_goes_on_as_soon_as_its_own_request_is_answered() -> None:
    def program() -> Program:
        return (yield Branches([steps_of("a", 2), steps_of("b", 2)]))

    work = Work(ROW, program(), rules())
    a0, b0 = work.start()
    [b1] = work.feed(say(b0))
    assert b1.prompt.text == "b1"
    assert work.feed(say(b1)) == []
    [a1] = work.feed(say(a0))
    assert work.feed(say(a1)) == []
    assert work.record is not None
    assert work.record.output == [["a0", "a1"], ["b0", "b1"]]


@pytest.mark.parametrize("choose", [first, last])
def test_steps_are_dealt_out_to_branches_in_turn_whichever_is_faster(choose: Any) -> None:
    def program() -> Program:
        yield ask("before")
        yield Branches([steps_of("a", 1), steps_of("b", 3), steps_of("c", 2)])
        yield ask("after")

    asked = play(Work(ROW, program(), rules()), choose)
    assert {request.prompt.text: request.key.step for request in asked} == {
        "before": 0, "a0": 1, "b0": 2, "c0": 3, "b1": 5, "c1": 6, "b2": 8, "after": 10,
    }  # fmt: skip


def test_branches_may_have_branches_and_are_sent_their_values_in_order() -> None:
    def pair(name: str) -> Answers:
        inner = yield Branches([steps_of(f"{name}x", 1), steps_of(f"{name}y", 2)])
        whole = yield ask("+".join(map(str, inner)))
        return whole.value

    def program() -> Program:
        return (yield Branches([pair("a"), steps_of("b", 1), pair("c")]))

    records = []
    for choose in (first, last):
        work = Work(ROW, program(), rules())
        asked = play(work, choose)
        assert len({request.key for request in asked}) == len(asked) == 9
        records.append(work.record)
    assert records[0] == records[1]
    assert records[0] is not None
    assert records[0].output == ["['ax0']+['ay0', 'ay1']", ["b0"], "['cx0']+['cy0', 'cy1']"]


def test_branches_that_ask_nothing_and_no_branches_are_answered_at_once() -> None:
    def constant(value: Any) -> Answers:
        return value
        yield

    def nested() -> Answers:
        return (yield Branches([constant(3), constant(4)]))

    def program() -> Program:
        none = yield Branches([])
        some = yield Branches([constant(1), constant(2), nested()])
        unsent = yield Branches([failing()])
        return [none, some, unsent]

    def failing() -> Answers:
        return (yield NO_PROMPT)

    work = Work(ROW, program(), rules())
    assert work.start() == []
    assert work.record is not None and work.record.output == [[], [1, 2, [3, 4]], [None]]


def test_a_row_whose_branch_failed_says_how_many_requests_did() -> None:
    def branch(name: str) -> Answers:
        return (yield ask(name))

    def program() -> Program:
        answers = yield Branches([branch("a"), branch("b"), branch("c")])
        return Incomplete([answer and answer.value for answer in answers])

    work = Work(ROW, program(), rules())
    a, b, c = work.start()
    for request in (c, a):
        work.feed(Refusal(request.key, Failure(FailureKind.REFUSED, f"no {request.prompt.text}")))
    work.feed(say(b))
    record = work.record
    assert record is not None
    assert record.failure == Failure(FailureKind.REFUSED, "2 of 3 requests failed; the first: no a")
    assert (record.status, record.output) == (Status.FAILED, [None, "b", None])
    assert [attempt.key.step for attempt in record.history] == [2]


def test_a_seed_of_another_attempt_does_not_depend_on_which_branch_came_first() -> None:
    def program() -> Program:
        return (yield Branches([steps_of("a", 2), steps_of("b", 2)]))

    seeds = []
    for choose in (first, last):
        work = Work(ROW, program(), rules(OutputSettings(reject=("/bad/",))))
        waiting, found = work.start(), {}
        while waiting:
            request = waiting.pop(choose(waiting))
            bad = request.prompt.text in ("a1", "b1") and request.key.attempt == 1
            found[request.prompt.text, request.key.attempt] = request.seed
            waiting += work.feed(say(request, "bad" if bad else None))
        seeds.append(found)
    assert seeds[0] == seeds[1]
    assert None not in (seeds[0]["a1", 2], seeds[0]["b1", 2])


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (lambda: Branches([3]), "yielded Branches of"),  # type: ignore[list-item]
        (lambda: Branches([steps_of("a", 1)] * 2), "made of generators, each once"),
        (lambda: [Branches([steps_of("a", 1)])], "or a list of that, or Branches"),
    ],
)
def test_what_are_no_branches_is_said(wanted: Callable[[], Any], said: str) -> None:
    def program() -> Program:
        yield wanted()

    with pytest.raises(RunError, match=f"row 'r7': .*{said}"):
        Work(ROW, program(), rules()).start()


def test_a_branch_that_fails_breaks_the_run_and_names_the_row() -> None:
    def broken() -> Answers:
        yield ask("a")
        raise KeyError("oh")

    def program() -> Program:
        yield Branches([broken()])

    work = Work(ROW, program(), rules())
    [request] = work.start()
    with pytest.raises(RunError, match=r"row 'r7': its program raised KeyError: 'oh'"):
        work.feed(say(request))


def test_branches_too_deep_to_be_numbered_are_an_error_and_not_a_number_that_no_file_holds() -> None:
    def deep(levels: int) -> Answers:
        return (yield ask("a") if not levels else Branches([deep(0), deep(levels - 1)]))

    work = Work(ROW, deep(60), rules())
    assert max(request.key.step for request in work.start()) < 1 << 63
    with pytest.raises(RunError, match="branches in branches, too deep"):
        Work(ROW, deep(70), rules()).start()


def test_an_answered_request_is_let_go_while_the_row_goes_on() -> None:
    """A long document is thousands of prompts: those that are answered must not stay in memory until the last one is."""
    import gc
    import weakref

    class Message(dict[str, str]):
        pass

    seen: list[weakref.ref[Message]] = []

    def branch(number: int) -> Answers:
        message = Message(role="user", content=f"{number}")
        seen.append(weakref.ref(message))
        wanted = Ask(Prompt(messages=(message,)), Sampling())
        del message
        answer: Accepted = yield wanted
        return answer.value

    def program() -> Program:
        return (yield Branches([branch(i) for i in range(50)]))

    work = Work(ROW, program(), rules())
    for request in work.start()[:-1]:
        work.feed(say(request, "x"))
    del request
    gc.collect()
    assert sum(each() is not None for each in seen) == 1


def test_the_work_of_many_branches_grows_as_their_number() -> None:
    import sys

    def calls(count: int) -> int:
        made = 0

        def profile(_frame: Any, event: str, _argument: Any) -> None:
            nonlocal made
            made += event == "call"

        def program() -> Program:
            yield Branches([steps_of(f"{i}.", 2) for i in range(count)])

        work = Work(ROW, program(), rules())
        waiting = work.start()
        sys.setprofile(profile)
        try:
            for request in waiting:
                waiting += work.feed(say(request))
        finally:
            sys.setprofile(None)
        assert work.record is not None and work.record.attempts == 2 * count
        return made

    assert calls(1000) < 11 * calls(100)


# any shape, any order, any kill

SHAPES = st.recursive(
    st.sampled_from(["one", "two samples", "unsent", "list"]),
    lambda inner: st.lists(st.lists(inner, max_size=3), max_size=3),
    max_leaves=12,
)
"""A step, or a list of branches, each of which is a list of such things one after another."""
WORDS = st.sampled_from(["good", "bad", "refused"])


def shaped(shape: Any, name: str) -> Answers:
    """What a shape asks; its value says what came, and later questions ask what came before."""
    if isinstance(shape, list):
        values = yield Branches([in_order(each, f"{name}.{i}") for i, each in enumerate(shape)])
        return values
    wanted = {
        "one": ask(name),
        "two samples": ask(name, samples=2),
        "unsent": NO_PROMPT,
        "list": [ask(f"{name}a"), NO_PROMPT, ask(f"{name}b", samples=2)],
    }[shape]
    answer = yield wanted
    return plain(answer)


def in_order(shapes: Sequence[Any], name: str) -> Answers:
    values: list[Any] = []
    for number, shape in enumerate(shapes):
        values.append((yield from shaped(shape, f"{name}/{number}{json.dumps(values)}")))
    return values


def plain(answer: Any) -> Any:
    if isinstance(answer, list):
        return [plain(each) for each in answer]
    return None if answer is None else answer.value


def outcome(request: Request, words: Sequence[str]) -> Outcome:
    """What comes follows from the request alone."""
    digest = sum(map(ord, request.prompt.text or "")) + 3 * request.key.sample + 7 * request.key.attempt
    word = words[digest % len(words)]
    if word == "refused":
        return Refusal(request.key, Failure(FailureKind.REFUSED, "out of luck"))
    return say(request, word)


def drive(work: Work, waiting: list[Request], order: Sequence[int], words: Sequence[str]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    while waiting:
        request = waiting.pop(order[len(outcomes) % len(order)] % len(waiting))
        outcomes.append(outcome(request, words))
        waiting += work.feed(outcomes[-1])
    return outcomes


ORDERS = st.lists(st.integers(0, 30), min_size=1, max_size=12)


@given(st.lists(SHAPES, max_size=3), st.lists(WORDS, min_size=1, max_size=5), ORDERS, ORDERS, st.integers(0, 40))
def test_neither_the_order_of_answers_nor_a_kill_changes_keys_or_record(
    shapes: list[Any], words: list[str], one: list[int], other: list[int], killed: int
) -> None:
    settings = rules(OutputSettings(reject=("/bad/",)), max_attempts=2)

    def begin() -> Work:
        return Work(ROW, in_order(shapes, "p"), settings)

    def finished(work: Work) -> Record:
        assert work.record is not None
        return work.record

    work = begin()
    outcomes = drive(work, work.start(), one, words)
    record = finished(work)
    keys = [each.key for each in outcomes]
    assert len(set(keys)) == len(keys) == record.attempts
    assert record.usage == sum((each.usage for each in outcomes if isinstance(each, Completion)), Usage())
    history = [attempt.key for attempt in record.history]
    assert history == sorted(set(history))

    work = begin()
    assert {each.key for each in drive(work, work.start(), other, words)} == set(keys)
    assert finished(work) == record

    # a session that is killed leaves the first outcomes in its journal; the next one feeds those, and asks for what is owed
    resumed = begin()
    owed = {request.key: request for request in resumed.start()}
    for each in outcomes[:killed]:
        del owed[each.key]
        owed.update((request.key, request) for request in resumed.feed(each))
    drive(resumed, list(owed.values()), other, words)
    assert finished(resumed) == record
