"""The queue: who is run when, and what becomes of a batch whose disk, engine or settings are in its way."""

from __future__ import annotations

import errno
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from llmbatch.core.errors import EngineError, ReadError, WriteError
from llmbatch.server import store, working

SLOW = {"latency": 0.02, "concurrency": 2}
WINDOW = {"run": {"window": 8, "grace": 0.1}}


def test_a_small_batch_is_done_while_a_large_one_runs(sites, lines, begin, ended) -> None:
    client = sites.start(SLOW, job=WINDOW).openai()
    large = begin(client, lines.many(2000))
    assert ended(client, begin(client, lines.many(3))).status == "completed"
    assert client.batches.retrieve(large).status == "in_progress"
    client.batches.cancel(large)


def test_where_few_may_run_a_large_one_makes_room_and_goes_on(sites, lines, begin, ended) -> None:
    client = sites.start(SLOW, job=WINDOW, sessions=1, slice_seconds=0.3).openai()
    large = begin(client, lines.many(150))
    small = begin(client, lines.many(3))
    assert ended(client, small).completed_at <= ended(client, large).completed_at
    answers = lines.of(client, client.batches.retrieve(large).output_file_id)
    assert lines.ids(answers) == [f"row-{i}" for i in range(150)]


def test_a_higher_priority_runs_first(sites, lines, begin, ended, until, monkeypatch) -> None:
    site = sites.start(SLOW, job=WINDOW, sessions=1)
    served, serve = [], site.server.batches._worker.serve

    def note(session, kind):
        served.append(session.batch.id)
        serve(session, kind)

    monkeypatch.setattr(site.server.batches._worker, "serve", note)
    client = site.openai()
    first = begin(client, lines.many(600))
    until(lambda: client.batches.retrieve(first).request_counts.completed, bool)
    low, high = begin(client, lines.many(2)), begin(client, lines.many(2), extra_body={"priority": 5})
    client.batches.cancel(first)
    for batch in (high, low):
        ended(client, batch)
    assert served.index(high) < served.index(low)
    assert served[0] == first


def test_no_owner_waits_for_the_many_batches_of_another(sites, lines, begin, ended) -> None:
    keys = "alice alice-has-a-long-key\nbob bob-has-another-long-key\n"
    site = sites.start(SLOW, keys, job=WINDOW, sessions=2)
    alice, bob = site.openai("alice-has-a-long-key"), site.openai("bob-has-another-long-key")
    many = [begin(alice, lines.many(40)) for _ in range(6)]
    assert ended(bob, begin(bob, lines.many(3))).status == "completed"
    assert alice.batches.retrieve(many[-1]).status == "validating"
    for batch in many:
        if alice.batches.retrieve(batch).status in ("validating", "in_progress"):
            alice.batches.cancel(batch)


def test_a_key_with_three_times_the_weight_is_asked_three_times_as_much(
    sites, lines, begin, ended, until, monkeypatch
) -> None:
    keys = {"alice": "alice-has-a-long-key", "bob": "bob-has-another-long-key"}
    given = f"alice {keys['alice']} weight=3\nbob {keys['bob']}\n"
    site = sites.start({"concurrency": 80}, given, job={"run": {"window": 400}})
    shared = site.server.answering.live._shared
    fair, both_wait = shared._fair, threading.Event()
    take, taken = fair.take, []

    def held(*asked):
        if not both_wait.is_set():
            return []
        found = take(*asked)
        taken.append(Counter(fair._parties[request.key.share].weight for request in found))
        return found

    monkeypatch.setattr(fair, "take", held)
    content = lines.jsonl(lines.chat(f"r{i}", f"text {i}") for i in range(100, 400))  # all as long
    clients = {name: site.openai(key) for name, key in keys.items()}
    batches = {name: begin(client, content) for name, client in clients.items()}
    until(lambda: [party.waiting for party in fair._parties.values()], lambda waiting: waiting == [300, 300])
    both_wait.set()
    shared._feed.notify()
    for name, client in clients.items():
        assert ended(client, batches[name]).request_counts.completed == 300
    first = taken[0]
    assert first.total() >= 80
    assert abs(first[3.0] - 3 * first[1.0]) <= 3


def test_batches_that_are_created_at_once_of_one_file_are_all_run(sites, lines, ended) -> None:
    client = sites.start(job=WINDOW).openai()
    file = client.files.create(file=("input.jsonl", lines.many(6)), purpose="batch")
    together = threading.Barrier(8)

    def create(_: int) -> str:
        together.wait()
        made = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        return made.id

    with ThreadPoolExecutor(8) as threads:
        batches = list(threads.map(create, range(8)))
    assert len(set(batches)) == 8
    for batch in batches:
        answers = lines.of(client, ended(client, batch).output_file_id)
        assert lines.ids(answers) == [f"row-{i}" for i in range(6)]
    assert len(client.batches.list(limit=100).data) == 8


def test_a_batch_that_the_disk_has_no_room_for_is_refused_and_leaves_nothing(
    sites, lines, begin, ended, monkeypatch
) -> None:
    site = sites.start(job=WINDOW)
    client, link = site.openai(), store._link

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "_link", full)
    with pytest.raises(openai.InternalServerError) as refused:
        begin(client, lines.many(3))
    assert (refused.value.status_code, refused.value.code) == (507, "insufficient_storage")
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert list((site.server.store.folder / "batches").iterdir()) == []
    assert client.batches.list().data == []
    monkeypatch.setattr(store, "_link", link)
    assert ended(client, begin(client, lines.many(3))).request_counts.completed == 3


def test_a_batch_whose_disk_is_full_goes_on_once_there_is_room(sites, lines, begin, ended, monkeypatch) -> None:
    monkeypatch.setattr(working, "_PAUSES", (0.1,))
    site = sites.start(job=WINDOW)
    run, calls = site.server.batches._worker._run, []

    def full(*given):
        calls.append(time.monotonic())
        if len(calls) < 3:
            raise WriteError("no space") from OSError(errno.ENOSPC, "no space")
        return run(*given)

    monkeypatch.setattr(site.server.batches._worker, "_run", full)
    client = site.openai()
    assert ended(client, begin(client, lines.many(5))).request_counts.completed == 5
    assert len(calls) == 3


def _refused() -> WriteError:
    error = WriteError("the row says secret, in a place of this machine")
    error.__cause__ = PermissionError(errno.EACCES, "Permission denied", "a secret place")
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (EngineError("it keeps dying"), "it keeps dying"),
        (RuntimeError("the row says secret"), "its log says more"),
        (_refused(), "could not be written, again and again: Permission denied"),
    ],
    ids=["engine", "bug", "refused"],
)
def test_a_batch_that_cannot_go_on_fails_and_keeps_what_is_finished(
    sites, lines, begin, ended, monkeypatch, caplog, error: Exception, said: str
) -> None:
    monkeypatch.setattr(working, "_PAUSES", (0.01,))
    site = sites.start(job=WINDOW)
    run = site.server.batches._worker._run

    def broken(*given):
        run(*given)
        raise error

    monkeypatch.setattr(site.server.batches._worker, "_run", broken)
    client = site.openai()
    batch = ended(client, begin(client, lines.many(5)))
    assert batch.status == "failed"
    assert said in batch.errors.data[0].message
    assert lines.ids(lines.of(client, batch.output_file_id)) == [f"row-{i}" for i in range(5)]
    assert type(error).__name__ in caplog.text
    assert "secret" not in batch.errors.data[0].message + caplog.text


def test_a_batch_may_be_cancelled_while_its_results_are_written(sites, lines, begin, ended, until, monkeypatch) -> None:
    site = sites.start(job=WINDOW)
    front, store, asked, go_on = site.server.fronts["openai"], site.server.store, threading.Event(), threading.Event()
    finish = front.finish

    def slowly(over):
        asked.set()
        assert go_on.wait(60)
        return finish(over)

    monkeypatch.setattr(front, "finish", slowly)
    client = site.openai()
    batch_id = begin(client, lines.many(5))
    assert asked.wait(60)
    assert client.batches.retrieve(batch_id).status == "finalizing"
    assert client.batches.cancel(batch_id).status == "cancelling"
    go_on.set()
    batch = ended(client, batch_id)
    assert (batch.status, batch.request_counts.completed) == ("cancelled", 5)
    assert lines.ids(lines.of(client, batch.output_file_id)) == [f"row-{i}" for i in range(5)]
    assert {file.id for file in store.files("", purpose=None, after=None, limit=9, descending=True)} == {
        batch.input_file_id, batch.output_file_id,
    }  # fmt: skip


@pytest.mark.parametrize("step", ["check", "finish"])
def test_a_batch_that_a_bug_keeps_from_its_end_comes_to_one(sites, lines, begin, ended, monkeypatch, step: str) -> None:
    monkeypatch.setattr(working, "_PAUSES", (0.1,))
    site = sites.start(job=WINDOW)

    def broken(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(site.server.fronts["openai"], step, broken)
    client = site.openai()
    batch = ended(client, begin(client, lines.many(5)))
    assert batch.status == "failed"
    assert "its log says more" in batch.errors.data[0].message


def test_a_batch_that_is_taken_up_in_the_moment_in_which_it_is_given_up_goes_on(
    sites, lines, begin, until, monkeypatch
) -> None:
    monkeypatch.setattr(working, "_PAUSES", (0.01,))
    site = sites.start(job=WINDOW)
    queue, front = site.server.batches, site.server.fronts["openai"]
    serve, finish, taken_up = queue._worker.serve, front.finish, []

    def broken(*_):
        raise RuntimeError("a bug")

    def given_up(session, kind):
        serve(session, kind)  # raises as long as it is tried again
        if not taken_up:
            monkeypatch.setattr(front, "finish", finish)
            taken_up.append(queue.take_up(site.server.store.batch(session.batch.id)).state)

    monkeypatch.setattr(front, "finish", broken)
    monkeypatch.setattr(queue._worker, "serve", given_up)
    client = site.openai()
    batch = begin(client, lines.many(5))
    over = until(lambda: client.batches.retrieve(batch), lambda batch: batch.status == "completed")
    assert taken_up == ["in_progress"]
    assert lines.ids(lines.of(client, over.output_file_id)) == [f"row-{i}" for i in range(5)]


def test_a_batch_does_not_drop_out_of_the_queue_while_the_store_cannot_be_read(
    sites, lines, begin, ended, monkeypatch
) -> None:
    monkeypatch.setattr(working, "_PAUSES", (0.1,))
    site = sites.start(job=WINDOW)
    worker, store, calls = site.server.batches._worker, site.server.store, []
    run, look = worker._run, store.batch

    def full(*given):
        calls.append("run")
        if len(calls) > 1:
            return run(*given)
        monkeypatch.setattr(store, "batch", locked)
        raise WriteError("no space")

    def locked(*given):
        if not threading.current_thread().name.startswith("llmbatch-batch_"):  # a client that asks
            return look(*given)
        calls.append("look")
        monkeypatch.setattr(store, "batch", look)
        raise ReadError("database is locked")

    monkeypatch.setattr(worker, "_run", full)
    client = site.openai()
    assert ended(client, begin(client, lines.many(5))).request_counts.completed == 5
    assert "look" in calls


def test_a_batch_that_was_begun_with_another_model_fails_with_words(sites, lines, begin, ended, until) -> None:
    site = sites.start(SLOW, job=WINDOW)
    client = site.openai()
    batch_id = begin(client, lines.many(100))
    until(lambda: client.batches.retrieve(batch_id).request_counts.completed, bool)
    site.stop()
    other = sites.start(SLOW, job={**WINDOW, "sampling": {"temperature": 1.5}}).openai()
    batch = ended(other, batch_id)
    assert batch.status == "failed"
    assert "sampling.temperature" in batch.errors.data[0].message
    done, rest = lines.of(other, batch.output_file_id), lines.of(other, batch.error_file_id)
    assert done
    assert sorted(lines.ids(done) + lines.ids(rest)) == sorted(f"row-{i}" for i in range(100))


def test_a_batch_that_is_cancelled_before_it_runs_has_every_line_in_its_errors(sites, lines, begin, ended) -> None:
    client = sites.start(SLOW, job=WINDOW, sessions=1).openai()
    first, second = begin(client, lines.many(300)), begin(client, lines.many(7))
    client.batches.cancel(second)
    batch = ended(client, second)
    assert (batch.status, batch.request_counts.total) == ("cancelled", 7)
    assert {line["error"]["code"] for line in lines.of(client, batch.error_file_id)} == {"batch_cancelled"}
    client.batches.cancel(first)


@pytest.mark.parametrize("times", [1, 4])
def test_an_engine_that_dies_costs_no_row(sites, lines, begin, ended, times: int) -> None:
    client = sites.start({"die_after": [3 * (i + 1) for i in range(times)], "latency": 0.01}, job=WINDOW).openai()
    batch = ended(client, begin(client, lines.many(30)))
    assert batch.request_counts.completed == 30
