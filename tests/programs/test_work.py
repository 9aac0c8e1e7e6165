from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
    Attempt,
    Completion,
    Cursor,
    Failure,
    FailureKind,
    FinishReason,
    Outcome,
    Prompt,
    Record,
    Refusal,
    Request,
    RequestKey,
    Row,
    Sampling,
    Status,
    Usage,
)
from llmbatch.programs.base import Ask, Incomplete, Program, make_program
from llmbatch.programs.line import Rules
from llmbatch.programs.retry import RetrySettings, next_request
from llmbatch.programs.work import Work

ROW = Row(7, "r7", {"text": "source"}, Cursor(7))
PROMPT = Prompt(messages=({"role": "user", "content": "How many?"},))


@dataclass(frozen=True)
class Asked:
    """A row of which it is known what is asked."""

    wanted: Ask
    row: Row = ROW
    settings: Mapping[str, Any] = field(default_factory=dict)
    context_length: int | None = None

    def ask(self, prompt: str = "main", /, **extra: Any) -> Ask:
        return self.wanted

    def tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text) for text in texts]

    def room(self, ask: Ask) -> int | None:
        return None


def single(wanted: Ask) -> Program:
    return make_program("single", {}, ["main"]).kind.shape(Asked(wanted))


def rules(output: OutputSettings | None = None, **retry: Any) -> Rules:
    policy = partial(next_request, settings=RetrySettings(**retry), context_length=10_000)
    return Rules(make_check(output or OutputSettings()), policy)


def ask(**more: Any) -> Ask:
    return Ask(**{"prompt": PROMPT, "sampling": Sampling((("max_tokens", 4),)), "token_ids": tuple(range(10)), **more})


def say(request: Request, text: str, finish: FinishReason = "stop", new: int = 3, **more: Any) -> Completion:
    """An answer with ``new`` tokens, after a prompt of 10 (or of 30 with feedback) of which 5 were cached."""
    prompt = (10 if request.token_ids else 30) + len(request.partial)
    ids = tuple(range(len(request.partial) + new))
    return Completion(request.key, text, finish, Usage(prompt, new, 5), ids, **more)


def refuse(request: Request, kind: FailureKind = FailureKind.REFUSED) -> Refusal:
    return Refusal(request.key, Failure(kind, "out of luck"))


Say = Callable[[Request], Outcome]


def run(work: Work, *sayings: Say) -> Record:
    """Answer the requests in the order in which they are sent."""
    waiting = work.start()
    for saying in sayings:
        assert work.record is None
        request = waiting.pop(0)
        waiting += work.feed(saying(request))
    assert not waiting
    assert work.record is not None
    return work.record


# One request


def test_a_good_answer_makes_an_ok_record() -> None:
    logprobs = [{"token": "x"}]
    record = run(Work(ROW, single(ask()), rules()), lambda r: say(r, "three", reasoning="I count.", logprobs=logprobs))
    assert record == Record(
        7, "r7", Status.OK, "three", "stop", 1, Usage(10, 3, 5), reasoning="I count.", logprobs=logprobs
    )


def test_the_request_is_what_was_asked() -> None:
    asked = ask(lora="de", seed=4, max_tokens=9)
    assert Work(ROW, single(asked), rules()).start() == [
        Request(RequestKey(7), PROMPT, asked.sampling, None, 4, 9, "de", (), asked.token_ids)
    ]


def test_prefill_and_text_together_are_checked_and_are_the_output() -> None:
    prompt = Prompt(messages=PROMPT.messages, prefill='{"n":')
    record = run(
        Work(ROW, single(ask(prompt=prompt)), rules(OutputSettings(schema={"type": "object"}))), lambda r: say(r, " 3}")
    )
    assert record.output == {"n": 3}


def test_a_null_value_is_an_ok_output() -> None:
    record = run(Work(ROW, single(ask()), rules(OutputSettings(schema={"type": "null"}))), lambda r: say(r, "null"))
    assert (record.status, record.output, record.raw) == (Status.OK, None, None)


def test_the_check_sees_the_rows_data() -> None:
    seen: list[Mapping[str, Any] | None] = []

    def check(text: str, row: Mapping[str, Any] | None = None, *, cut_off: bool = False) -> tuple[Any, Failure | None]:
        seen.append(row)
        return text, None

    run(Work(ROW, single(ask(check=check)), rules()), lambda r: say(r, "three"))
    assert seen == [{"text": "source"}]


def test_a_broken_check_breaks_the_run_and_names_the_row() -> None:
    def check(text: str, row: Mapping[str, Any] | None = None, *, cut_off: bool = False) -> tuple[Any, Failure | None]:
        raise RunError("the rule a:b raised KeyError")

    with pytest.raises(RunError, match="row 'r7': the rule a:b raised KeyError"):
        run(Work(ROW, single(ask(check=check)), rules()), lambda r: say(r, "three"))


def test_an_outcome_that_is_not_waited_for_is_refused() -> None:
    work = Work(ROW, single(ask()), rules())
    [request] = work.start()
    work.feed(say(request, "three"))
    with pytest.raises(KeyError):
        work.feed(say(request, "three"))


# Retries


def test_an_answer_sent_back_is_in_the_history_and_wasted() -> None:
    record = run(
        Work(ROW, single(ask()), rules(OutputSettings(choice=("a", "b")))),
        lambda r: say(r, "c", new=2),
        lambda r: say(r, "a"),
    )
    assert record == Record(
        7,
        "r7",
        Status.OK,
        "a",
        "stop",
        2,
        usage=Usage(40, 5, 10),
        wasted=Usage(10, 2, 5),
        history=(
            Attempt(
                RequestKey(7),
                Failure(FailureKind.CHOICE, '\'c\' is not one of the choices "a", "b"'),
                Usage(10, 2, 5),
                "c",
                "stop",
            ),
        ),
    )


def test_the_last_failure_makes_the_record_and_its_answer_the_raw_text() -> None:
    record = run(
        Work(ROW, single(ask()), rules(OutputSettings(schema={"type": "integer"}), max_attempts=2)),
        lambda r: say(r, "one", new=2),
        lambda r: say(r, '"one"'),
    )
    assert (record.status, record.output, record.raw, record.attempts) == (Status.INVALID, None, '"one"', 2)
    assert record.failure == Failure(FailureKind.SCHEMA, '$: "one" is not of type "integer"')
    assert [attempt.failure.kind for attempt in record.history] == [FailureKind.INVALID_JSON]
    assert (record.usage, record.wasted) == (Usage(40, 5, 10), Usage(10, 2, 5))


def test_of_an_answer_that_was_gone_on_from_only_the_prompt_sent_again_is_wasted() -> None:
    record = run(
        Work(ROW, single(ask()), rules()),
        lambda r: say(r, "one two", "length", new=4),
        lambda r: say(r, "one two three four", "length", new=8),
        lambda r: say(r, "one two three four five.", new=1),
    )
    assert (record.status, record.output, record.attempts) == (Status.OK, "one two three four five.", 3)
    assert record.usage == Usage(10 + 14 + 22, 4 + 8 + 1, 15)
    assert record.wasted == Usage(14 + 22, 0, 10)
    assert [attempt.failure.kind for attempt in record.history] == [FailureKind.TRUNCATED] * 2


def test_an_answer_gone_on_from_has_the_log_probabilities_of_all_its_tokens() -> None:
    def token(text: str) -> dict[str, Any]:
        return {"token": text, "logprob": -0.5, "top": []}

    record = run(
        Work(ROW, single(ask()), rules(max_attempts=4)),
        lambda r: say(r, "ab", "length", new=2, logprobs=[token("a"), token("b")]),
        lambda r: say(r, "abc", "length", new=1, logprobs=[token("c")]),
        lambda r: refuse(r, FailureKind.ENGINE),
        lambda r: say(r, "abcd", new=1, logprobs=[token("d")]),
    )
    assert record.output == "abcd"
    assert record.logprobs == [token("a"), token("b"), token("c"), token("d")]


def test_an_answer_that_begins_anew_has_its_own_log_probabilities_alone() -> None:
    record = run(
        Work(ROW, single(ask()), rules(continue_truncated=False, max_attempts=3)),
        lambda r: say(r, "ab", "length", logprobs=[{"token": "ab"}]),
        lambda r: say(r, "abcd", logprobs=[{"token": "abcd"}]),
    )
    assert record.logprobs == [{"token": "abcd"}]


def test_an_answer_gone_on_from_is_wasted_whole_once_it_is_given_up() -> None:
    record = run(
        Work(ROW, single(ask()), rules(OutputSettings(reject=("/two/",)), max_attempts=3)),
        lambda r: say(r, "one", "length", new=4),
        lambda r: say(r, "one two", new=2),
        lambda r: say(r, "three", new=1),
    )
    assert (record.output, record.usage, record.wasted) == ("three", Usage(34, 7, 15), Usage(24, 6, 10))


def test_an_answer_cut_off_at_every_attempt_is_truncated() -> None:
    record = run(Work(ROW, single(ask()), rules(max_attempts=1)), lambda r: say(r, "one two", "length"))
    assert (record.status, record.raw, record.finish_reason) == (Status.TRUNCATED, "one two", "length")
    assert (record.history, record.wasted) == ((), Usage())


def test_a_refused_row_failed_and_counts_one_attempt() -> None:
    record = run(Work(ROW, single(ask()), rules()), refuse)
    assert record == Record(7, "r7", Status.FAILED, attempts=1, failure=Failure(FailureKind.REFUSED, "out of luck"))


def test_an_answer_sent_back_stays_wasted_when_the_next_request_is_refused() -> None:
    record = run(
        Work(ROW, single(ask()), rules(OutputSettings(choice=("a", "b")))), lambda r: say(r, "c", new=2), refuse
    )
    assert (record.status, record.raw, record.attempts) == (Status.FAILED, "c", 2)
    assert (record.usage, record.wasted, len(record.history)) == (Usage(10, 2, 5), Usage(10, 2, 5), 1)


def test_a_retry_that_has_no_room_leaves_the_row_with_what_was_wrong_with_its_answer() -> None:
    record = run(
        Work(ROW, single(ask()), rules(OutputSettings(choice=("a", "b")))),
        lambda r: say(r, "c", new=2),
        lambda r: refuse(r, FailureKind.TOO_LONG),
    )
    assert (record.status, record.raw, record.attempts) == (Status.INVALID, "c", 1)
    assert record.failure == Failure(FailureKind.CHOICE, '\'c\' is not one of the choices "a", "b"')
    assert (record.usage, record.wasted, record.history) == (Usage(10, 2, 5), Usage(), ())


def test_an_engine_error_is_tried_again_once_and_costs_nothing() -> None:
    record = run(
        Work(ROW, single(ask()), rules()),
        lambda r: say(r, "one", "length", new=4),
        lambda r: refuse(r, FailureKind.ENGINE),
        lambda r: say(r, "one two", new=2),
    )
    assert (record.output, record.attempts) == ("one two", 3)
    assert (record.usage, record.wasted) == (Usage(24, 6, 10), Usage(14, 0, 5))


@pytest.mark.parametrize("finish", ["error", "abort"])
def test_an_answer_that_the_engine_broke_off_is_an_engine_failure(finish: FinishReason) -> None:
    record = run(Work(ROW, single(ask()), rules(max_attempts=1)), lambda r: say(r, "on", finish))
    assert record.failure == Failure(FailureKind.ENGINE, f"the engine ended the request with finish_reason '{finish}'")
    assert (record.status, record.raw) == (Status.FAILED, "on")


def test_complete_json_that_ran_into_its_budget_is_ok() -> None:
    record = run(
        Work(ROW, single(ask()), rules(OutputSettings(schema={"type": "object"}))), lambda r: say(r, "{}", "length")
    )
    assert (record.status, record.output, record.finish_reason) == (Status.OK, {}, "length")


def test_an_answer_of_the_length_that_was_asked_for_is_ok() -> None:
    sampling = Sampling((("ignore_eos", True), ("max_tokens", 4)))
    record = run(Work(ROW, single(ask(sampling=sampling)), rules()), lambda r: say(r, "one two", "length", new=4))
    assert (record.status, record.output, record.finish_reason) == (Status.OK, "one two", "length")
    assert (record.attempts, record.wasted) == (1, Usage())


def test_an_answer_that_may_be_cut_off_is_ok_at_its_first_attempt() -> None:
    settings = rules(OutputSettings(allow_truncated=True))
    record = run(Work(ROW, single(ask()), settings), lambda r: say(r, "one two", "length", new=4))
    assert (record.status, record.output, record.finish_reason) == (Status.OK, "one two", "length")
    assert (record.attempts, record.wasted) == (1, Usage())


# Several samples


def test_each_sample_is_a_request_of_its_own_with_its_own_seed() -> None:
    requests = Work(ROW, single(ask(samples=3, seed=40)), rules()).start()
    assert [(request.key, request.seed) for request in requests] == [(RequestKey(7, 0, i), 40 + i) for i in range(3)]
    shared = ask(samples=2, sampling=Sampling((("seed", 5),)))
    assert [request.seed for request in Work(ROW, single(shared), rules()).start()] == [5, 6]
    assert [request.seed for request in Work(ROW, single(ask(samples=2)), rules()).start()] == [None, None]
    none = ask(samples=2, sampling=Sampling((("seed", -1),)))
    assert [request.seed for request in Work(ROW, single(none), rules()).start()] == [None, None]


def test_the_output_of_several_samples_is_a_list_and_so_are_their_thoughts() -> None:
    record = run(
        Work(ROW, single(ask(samples=2)), rules()),
        lambda r: say(r, "a", reasoning="hm"),
        lambda r: say(r, "b", logprobs=[{"token": "b"}]),
    )
    assert (record.status, record.output, record.attempts) == (Status.OK, ["a", "b"], 2)
    assert (record.reasoning, record.logprobs) == (["hm", None], [None, [{"token": "b"}]])
    assert (record.usage, record.wasted) == (Usage(20, 6, 10), Usage())


def test_a_row_is_ok_only_if_every_sample_is() -> None:
    record = run(
        Work(ROW, single(ask(samples=3)), rules(OutputSettings(choice=("a", "b")), max_attempts=1)),
        lambda r: say(r, "x", new=1),
        lambda r: say(r, "b"),
        lambda r: say(r, "y", new=2),
    )
    assert (record.status, record.output, record.raw) == (Status.INVALID, [None, "b", None], "x")
    assert record.failure == Failure(
        FailureKind.CHOICE, 'samples 0, 2 of 3 failed; the first: \'x\' is not one of the choices "a", "b"'
    )
    assert [(attempt.key.sample, attempt.text) for attempt in record.history] == [(2, "y")]
    assert record.wasted == Usage(10, 2, 5)


# Programs of several steps


def chain(first: Ask) -> Program:
    draft: Accepted | None = yield first
    if draft is None:
        return Incomplete()
    parts = yield [ask(samples=2), ask(prompt=Prompt(text=draft.value))]
    assert isinstance(parts[0], list)
    nothing = yield []
    return [draft.value, *(part.value for part in parts[0]), parts[1] and parts[1].value, nothing]


def test_a_program_is_sent_answers_in_the_shape_of_what_it_asked() -> None:
    work = Work(ROW, chain(ask()), rules())
    [first] = work.start()
    several = work.feed(say(first, "draft"))
    assert [request.key for request in several] == [
        RequestKey(7, 1, 0),
        RequestKey(7, 1, 1),
        RequestKey(7, 2, 0),
    ]
    assert several[2].prompt == Prompt(text="draft")
    for request in reversed(several):
        assert work.feed(say(request, f"{request.key.step}.{request.key.sample}")) == []
    assert work.record is not None
    assert work.record.output == ["draft", "1.0", "1.1", "2.0", []]
    assert (work.record.attempts, work.record.usage) == (4, Usage(40, 12, 20))


def test_a_program_may_do_without_an_answer_and_the_failure_stays_in_the_books() -> None:
    record = run(
        Work(ROW, chain(ask()), rules()),
        lambda r: say(r, "draft"),
        lambda r: say(r, "a"),
        lambda r: say(r, "b"),
        refuse,
    )
    assert (record.status, record.output, record.failure) == (Status.OK, ["draft", "a", "b", None, []], None)
    assert [(attempt.key.step, attempt.failure.kind) for attempt in record.history] == [(2, FailureKind.REFUSED)]


def test_a_step_that_failed_is_named() -> None:
    def two(first: Ask) -> Program:
        yield first
        last = yield first
        return Incomplete() if last is None else last.value

    record = run(Work(ROW, two(ask()), rules()), lambda r: say(r, "a"), refuse)
    assert record.failure == Failure(FailureKind.REFUSED, "step 1 of 2 failed; the first: out of luck")
    assert record.usage == Usage(10, 3, 5)


def test_a_program_can_give_its_own_reason() -> None:
    def judged(first: Ask) -> Program:
        draft = yield first
        return Incomplete(draft.value, Failure(FailureKind.REJECTED, "the judge said no"))

    record = run(Work(ROW, judged(ask()), rules()), lambda r: say(r, "draft"))
    assert (record.status, record.output, record.raw) == (Status.INVALID, "draft", "draft")
    assert record.failure == Failure(FailureKind.REJECTED, "the judge said no")


def test_a_program_that_asks_nothing_ends_at_once() -> None:
    def constant() -> Program:
        return 42
        yield

    work = Work(ROW, constant(), rules())
    assert work.start() == []
    assert work.record == Record(7, "r7", Status.OK, 42)


# Any order

ANSWERS = st.sampled_from(["good", "cut", "bad", "blank", "refused", "engine", "error"])


def saying(word: str, request: Request) -> Outcome:
    text = {"good": "1", "cut": "1, 2", "bad": "no", "blank": " ", "error": "1"}
    match word:
        case "refused" | "engine":
            return refuse(request, FailureKind(word))
        case "cut":
            return say(request, text[word] * request.key.attempt, "length", new=4)
        case _:
            return say(request, text[word], "error" if word == "error" else "stop", new=len(word))


def batches(first: Ask) -> Program:
    """Two samples and one more question, then one on what came of them."""
    (samples, other) = yield [first, ask()]
    values = [each.value for each in samples if each is not None]
    if other is None:
        return Incomplete(values)
    last = yield ask(prompt=Prompt(text=json.dumps(values)))
    return Incomplete(values) if last is None else [*values, last.value]


@given(
    st.lists(st.lists(ANSWERS, min_size=4, max_size=4), min_size=4, max_size=4),
    st.permutations(range(16)),
    st.permutations(range(16)),
    st.booleans(),
)
def test_the_order_of_outcomes_does_not_matter_and_the_books_are_exact(
    script: list[list[str]], one: list[int], other: list[int], integers: bool
) -> None:
    settings = rules(
        OutputSettings(regex="[0-9]+", constrained=False) if integers else OutputSettings(), max_attempts=4
    )

    def play(order: list[int]) -> tuple[Record, list[Outcome]]:
        work = Work(ROW, batches(ask(samples=2)), settings)
        waiting = work.start()
        outcomes: list[Outcome] = []
        while waiting:
            request = waiting.pop(order[len(outcomes) % 16] % len(waiting))
            line = request.key.sample if request.key.step == 0 else request.key.step + 1
            outcomes.append(saying(script[line][request.key.attempt - 1], request))
            waiting += work.feed(outcomes[-1])
        assert work.record is not None
        return work.record, outcomes

    record, outcomes = play(one)
    assert play(other)[0] == record
    assert record.attempts == len(outcomes)
    usages = [outcome.usage for outcome in outcomes if isinstance(outcome, Completion)]
    assert record.usage == sum(usages, Usage())
    assert all(0 <= record.wasted.as_dict()[name] <= count for name, count in record.usage.as_dict().items())
    keys = [attempt.key for attempt in record.history]
    assert keys == sorted(set(keys))
    assert (record.status is Status.OK) == (record.failure is None)
    assert len(keys) + (record.failure is not None) <= record.attempts
