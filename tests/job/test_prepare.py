from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmbatch.core.messages import image_part
from llmbatch.core.types import Cursor, Failure, FailureKind, Image, Prompt, Request, Row
from llmbatch.job.job import job_from
from llmbatch.job.prepare import Preparer, characters
from llmbatch.job.recipe import Recipe
from llmbatch.job.run_settings import RunSettings
from llmbatch.plan.order import Capacity


def preparer(tmp_path: Path, tokenize: Any, **sections: Any) -> Preparer:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    data = {
        "model": "any",
        "prompt": "Say {{ text }}",
        "input": str(tmp_path / "rows.jsonl"),
        "output": "out",
        **sections,
    }
    job = job_from(data)
    return Preparer(Recipe(job), job.plan, tokenize)


def row(index: int, text: str = "one", **more: Any) -> Row:
    return Row(index, index, {"text": text, **more}, Cursor(index))


def letters(prompts: Sequence[Prompt]) -> list[list[int] | Failure]:
    """A token a character; what holds a ``!`` cannot be tokenized."""
    texts = [str((prompt.messages or ({},))[-1].get("content")) for prompt in prompts]
    return [Failure(FailureKind.PROMPT, "no") if "!" in text else list(text.encode()) for text in texts]


def started(prepare: Preparer, *rows: Row) -> list[Request]:
    return [request for each in rows for request in prepare.begin(each).start()]


def test_requests_are_tokenized_in_one_batch_and_those_that_cannot_be_are_refused(tmp_path: Path) -> None:
    batches = []

    def tokenize(prompts: Sequence[Prompt]) -> list[list[int] | Failure]:
        batches.append(len(prompts))
        return letters(prompts)

    prepare = preparer(tmp_path, tokenize)
    ready, refused = prepare.tokenized(started(prepare, row(0), row(1, "no!"), row(2)))
    assert [request.key.index for request in ready] == [0, 2]
    assert [refusal.key.index for refusal in refused] == [1]
    assert list(ready[0].token_ids or ()) == list(b"Say one")
    assert batches == [3]
    assert prepare.tokenized(ready) == (ready, [])
    assert batches == [3], "what has its ids is not tokenized again"


def test_many_requests_are_tokenized_in_pieces_and_keep_their_order(tmp_path: Path) -> None:
    batches = []

    def tokenize(prompts: Sequence[Prompt]) -> list[list[int] | Failure]:
        batches.append(len(prompts))
        return letters(prompts)

    prepare = preparer(tmp_path, tokenize)
    rows = [row(index, "no!" if index % 50 == 7 else f"text {index}") for index in range(1000)]
    ready, refused = prepare.tokenized(started(prepare, *rows))
    assert [refusal.key.index for refusal in refused] == list(range(7, 1000, 50))
    assert [request.key.index for request in ready] == [index for index in range(1000) if index % 50 != 7]
    assert all(list(request.token_ids or ()) == list(f"Say text {request.key.index}".encode()) for request in ready)
    assert sum(batches) == 1000
    assert max(batches) <= 1000 / 16 + 1


def test_where_only_a_server_knows_the_ids_every_request_goes_on_without(tmp_path: Path) -> None:
    prepare = preparer(tmp_path, lambda _: None)
    requests = started(prepare, row(0), row(1))
    assert prepare.tokenized(requests) == (requests, [])
    assert prepare.following(requests, 3) == (requests, []), "and nothing is held against the context"


def test_what_follows_is_held_against_the_context(tmp_path: Path) -> None:
    prepare = preparer(tmp_path, letters)
    requests = started(prepare, row(0), row(1, "a long text"))
    ready, refused = prepare.following(requests, 12)
    assert [request.key.index for request in ready] == [0]
    assert [(refusal.key.index, refusal.failure.kind) for refusal in refused] == [(1, FailureKind.TOO_LONG)]
    assert len(prepare.following(requests, None).ready) == 2, "unknown: nothing can be said"


def test_equal_requests_have_equal_digests_unless_nothing_is_folded(tmp_path: Path) -> None:
    prepare = preparer(tmp_path, letters, sampling={"temperature": 0})
    ready, _ = prepare.tokenized(started(prepare, row(0), row(1), row(2, "two")))
    first, second, third = prepare.digests(ready)
    assert first == second != third
    unfolded = preparer(tmp_path, letters, sampling={"temperature": 0}, plan={"fold": False})
    assert unfolded.digests(ready) == [None, None, None]


def test_a_plan_puts_each_request_in_one_place(tmp_path: Path) -> None:
    prepare = preparer(tmp_path, letters, sampling={"temperature": 0})
    ready, _ = prepare.tokenized(started(prepare, row(0), row(1), row(2, "x" * 100)))
    plan = prepare.plan(ready, Capacity(context_length=50, max_num_seqs=4))
    assert (sorted(plan.order), plan.folded, list(plan.too_long)) == ([0], {1: 0}, [2])


def test_a_row_that_could_not_be_read_has_its_record_at_once(tmp_path: Path) -> None:
    failure = Failure(FailureKind.MALFORMED_ROW, "not JSON")
    work = preparer(tmp_path, letters).begin(Row(3, 3, {}, Cursor(3), failure))
    assert work.start() == []
    assert work.record is not None
    assert (work.record.index, work.record.failure) == (3, failure)


def test_fields_that_are_kept_count_and_those_that_nobody_needs_do_not(tmp_path: Path) -> None:
    for sections, expected in (({}, 0), ({"sinks": {"keep": ["long"]}}, 1000), ({"sinks": {"keep": "all"}}, 1003)):
        prepare = preparer(tmp_path, letters, **sections)
        each = row(0, long="x" * 1000)
        work = prepare.begin(each)
        assert prepare.size(each, work, work.start()) == expected + len("Say one")


def test_a_row_is_let_go_of_unless_a_predicate_is_to_see_it(tmp_path: Path) -> None:
    plain = preparer(tmp_path, letters).begin(row(0))
    plain.start()
    assert plain.row.data == {}
    seen = preparer(tmp_path, letters, answer={"reject": ["operator:not_"]}).begin(row(0))
    assert seen.row.data == {"text": "one"}


def test_a_window_is_full_by_its_rows_its_requests_or_its_characters(tmp_path: Path) -> None:
    room = preparer(tmp_path, lambda prompts: None).room(RunSettings(window=10, window_characters=1000))
    assert not room.is_full(9, 39, 999)
    assert room.is_full(10, 1, 1)
    assert room.is_full(1, 40, 1)
    assert room.is_full(1, 1, 1000)


def test_text_beside_an_image_counts_as_any_text() -> None:
    words = {"type": "text", "text": "x" * 1000}
    picture = image_part("a.png")
    plain, seen = (
        Prompt(messages=({"role": "user", "content": content},), images=(Image("a.png"),))
        for content in ([picture], [words, picture])
    )
    assert characters(seen) == characters(plain) + 1000
