from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch.core.ledger import Ledger, WorstFailure
from llmbatch.core.types import Attempt, Failure, FailureKind, Record, RequestKey, Reused, Status, Usage

counts = st.integers(0, 1_000)
usages = st.builds(Usage, counts, counts, counts)
failures = st.builds(Failure, st.sampled_from(FailureKind), st.sampled_from(["empty answer", "not JSON"]))


@st.composite
def records(draw: st.DrawFn, index: int = 0) -> Record:
    """A record as a row makes it: ``wasted`` is what its ``history`` took, of answers cut off perhaps only a part."""
    sent_back = draw(st.lists(st.tuples(failures, usages), max_size=3))
    history = tuple(Attempt(RequestKey(index, attempt=i), f, u) for i, (f, u) in enumerate(sent_back, 1))
    failure = draw(st.none() | failures)
    last = draw(usages)
    wasted = Usage()
    for attempt in history:
        gone_on = attempt.failure.kind is FailureKind.TRUNCATED and draw(st.booleans())
        wasted += Usage(attempt.usage.prompt_tokens) if gone_on else attempt.usage
    return Record(
        index=index,
        id=f"row-{index}",
        status=failure.kind.status if failure else Status.OK,
        attempts=len(history) + 1,
        usage=wasted + last,
        wasted=wasted,
        failure=failure,
        history=history,
    )


@st.composite
def runs(draw: st.DrawFn) -> list[tuple[Record, bool]]:
    size = draw(st.integers(0, 8))
    return [(draw(records(index)), draw(st.booleans())) for index in range(size)]


def ledger_of(run: list[tuple[Record, bool]]) -> Ledger:
    ledger = Ledger()
    for record, folded in run:
        ledger.add(record, Reused(record.usage) if folded else None)
    return ledger


@given(runs())
def test_useful_wasted_and_folded_tokens_add_up_to_the_sum_over_the_records(run: list[tuple[Record, bool]]) -> None:
    ledger = ledger_of(run)
    assert ledger.useful + ledger.wasted + ledger.folded == sum((record.usage for record, _ in run), Usage())
    assert ledger.total == ledger.computed + ledger.folded


@given(runs())
def test_the_computed_tokens_are_those_of_the_rows_that_were_not_folded(run: list[tuple[Record, bool]]) -> None:
    assert ledger_of(run).computed == sum((record.usage for record, folded in run if not folded), Usage())


@given(runs())
def test_the_wasted_tokens_by_kind_add_up_to_all_wasted_tokens(run: list[tuple[Record, bool]]) -> None:
    ledger = ledger_of(run)
    assert sum(ledger.sent_back_tokens.values(), Usage()) == ledger.wasted


@given(runs(), st.data())
def test_a_merge_of_parts_is_the_ledger_of_the_whole(run: list[tuple[Record, bool]], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(run)), max_size=3)))
    parts = [ledger_of(run[start:end]) for start, end in pairwise([0, *cuts, len(run)])]
    whole = Ledger()
    for part in data.draw(st.permutations(parts)):
        whole.merge(part)
    assert whole.as_dict() == ledger_of(run).as_dict()


@given(runs())
def test_a_ledger_comes_back_from_its_json(run: list[tuple[Record, bool]]) -> None:
    written = ledger_of(run).as_dict()
    assert Ledger.from_dict(json.loads(json.dumps(written))).as_dict() == written


@given(runs())
def test_each_row_is_counted_once_by_status_and_each_failure_once_by_kind(run: list[tuple[Record, bool]]) -> None:
    ledger = ledger_of(run)
    assert ledger.rows == len(run)
    assert sum(ledger.by_failure.values()) == sum(record.failure is not None for record, _ in run)


@st.composite
def partly_reused(draw: st.DrawFn) -> tuple[Record, Reused]:
    """A record whose first answers were computed for another row, the rest for it."""
    record = draw(records())
    first = draw(st.integers(0, len(record.history)))
    usage = sum((attempt.usage for attempt in record.history[:first]), Usage())
    gone_on = sum((attempt.usage for attempt in record.history), Usage()) != record.wasted
    return record, Reused(Usage() if gone_on else usage, draw(st.booleans()))


@given(partly_reused())
def test_of_a_row_that_was_answered_in_part_by_others_the_rest_was_computed(case: tuple[Record, Reused]) -> None:
    record, reused = case
    ledger = Ledger()
    ledger.add(record, reused)
    assert ledger.folded == reused.usage
    assert ledger.total == record.usage
    assert sum(ledger.sent_back_tokens.values(), Usage()) == ledger.wasted
    assert ledger.rows_folded + ledger.rows_cached == 1


def test_a_reused_answer_that_was_cut_off_and_gone_on_from_leaves_the_going_on_as_computed() -> None:
    first, second = Usage(10, 5), Usage(15, 3)
    attempt = Attempt(RequestKey(0), Failure(FailureKind.TRUNCATED, "cut off"), first)
    ledger = Ledger()
    ledger.add(
        Record(0, 0, Status.OK, "x", attempts=2, usage=first + second, wasted=Usage(15), history=(attempt,)),
        Reused(first),
    )
    assert (ledger.folded, ledger.computed) == (first, second)
    assert ledger.sent_back == {}


def failed(index: int, kind: FailureKind = FailureKind.SCHEMA) -> Record:
    return Record(index, f"row-{index}", kind.status, failure=Failure(kind, f"row {index} is wrong"))


def test_the_example_of_a_kind_is_its_first_row_in_input_order() -> None:
    ledger = Ledger()
    for index in (7, 3, 5):
        ledger.add(failed(index))
    assert ledger.as_dict()["examples"] == {"schema": {"index": 3, "id": "row-3", "message": "row 3 is wrong"}}


def test_the_answer_sent_back_of_an_ok_row_is_wasted_and_its_last_one_is_useful() -> None:
    back, good = Usage(10, 20, 5), Usage(12, 8, 10)
    attempt = Attempt(RequestKey(0), Failure(FailureKind.REGEX, "no match"), back)
    ledger = Ledger()
    ledger.add(Record(0, 0, Status.OK, "x", attempts=2, usage=back + good, wasted=back, history=(attempt,)))
    assert (ledger.useful, ledger.wasted) == (good, back)
    assert ledger.sent_back == {"regex": 1}
    assert ledger.rows_retried == 1


def test_all_tokens_of_a_row_that_did_not_end_ok_are_wasted() -> None:
    ledger = Ledger()
    usage = Usage(10, 20, 5)
    ledger.add(Record(0, 0, Status.INVALID, attempts=1, usage=usage, failure=Failure(FailureKind.EMPTY, "empty")))
    assert ledger.wasted == usage
    assert ledger.sent_back_tokens == {"empty": usage}


def test_a_row_that_was_never_sent_has_no_answer_that_was_sent_back() -> None:
    ledger = Ledger()
    ledger.add(failed(0, FailureKind.MALFORMED_ROW))
    assert ledger.sent_back == {}
    assert ledger.by_failure == {"malformed_row": 1}


def test_data_that_is_not_a_ledger_is_refused() -> None:
    with pytest.raises(KeyError):
        Ledger.from_dict({"by_status": {}})


def test_the_worst_failure_is_the_one_that_most_rows_ended_with_and_its_first_row_the_example() -> None:
    ledger = Ledger()
    assert ledger.worst is None
    for index, kind in enumerate((FailureKind.SCHEMA, FailureKind.CHOICE, FailureKind.CHOICE)):
        ledger.add(Record(index, f"r{index}", kind.status, failure=Failure(kind, f"message {index}")))
    assert ledger.worst == WorstFailure("choice", 2, "r1", "message 1")
