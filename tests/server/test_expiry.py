"""Batches that are not done in time, by a clock that is moved: what is finished is kept, in the words of each system."""

from __future__ import annotations

import time

GRACE = {"run": {"window": 8, "grace": 0.0}}
HANGS = {"rules": [{"when": {"contains": "text 5"}, "hang": True}]}  # so that it is never done by itself
SLEEPS = {"rules": [{"hang": True}]}


def test_a_batch_that_runs_ends_with_its_window_and_keeps_what_is_finished(
    sites, moved, lines, begin, ended, until
) -> None:
    openai = sites.start(HANGS, job=GRACE).openai()
    batch = begin(openai, lines.many(9))
    until(lambda: openai.batches.retrieve(batch).request_counts.completed, lambda done: done == 8)
    moved.forward(hours=23.9)
    assert openai.batches.retrieve(batch).status == "in_progress"
    moved.forward(hours=0.2)
    over = ended(openai, batch)
    assert (over.status, over.request_counts.completed, over.request_counts.total) == ("expired", 8, 9)
    assert over.expired_at is not None
    assert lines.ids(lines.of(openai, over.output_file_id)) == [f"row-{i}" for i in range(9) if i != 5]
    (late,) = lines.of(openai, over.error_file_id)
    assert (late["custom_id"], late["error"]["code"]) == ("row-5", "batch_expired")


def test_a_batch_that_waits_expires_beside_one_that_has_all_the_room(sites, moved, lines, begin, ended, until) -> None:
    openai = sites.start(SLEEPS, job=GRACE, sessions=1).openai()
    first = begin(openai, lines.many(2))
    until(lambda: openai.batches.retrieve(first).status, lambda state: state == "in_progress")
    second = begin(openai, lines.many(3), completion_window="1h")
    moved.forward(hours=2)
    over = ended(openai, second)
    assert (over.status, over.request_counts.total) == ("expired", 3)
    assert {line["error"]["code"] for line in lines.of(openai, over.error_file_id)} == {"batch_expired"}
    assert lines.ids(lines.of(openai, over.error_file_id)) == ["row-0", "row-1", "row-2"]
    assert openai.batches.retrieve(first).status == "in_progress"
    openai.batches.cancel(first)


def test_at_azure_a_batch_goes_on_behind_its_window(sites, moved, lines, begin, ended) -> None:
    moved.forward(hours=48)  # so it is over before it begins
    site = sites.start(job=GRACE)
    azure, openai = site.azure(), site.openai()
    over = ended(azure, begin(azure, lines.many(5)))
    assert (over.status, over.request_counts.completed) == ("completed", 5)
    assert over.expires_at < moved.time()
    assert ended(openai, begin(openai, lines.many(5))).status == "expired"


def test_a_batch_that_expires_while_no_server_runs_is_over_when_one_does(
    sites, moved, lines, begin, ended, until
) -> None:
    site = sites.start(HANGS, job=GRACE)
    batch = begin(site.openai(), lines.many(9))
    until(lambda: site.openai().batches.retrieve(batch).request_counts.completed, lambda done: done == 8)
    site.stop()
    moved.forward(hours=25)
    openai = sites.start(HANGS, job=GRACE).openai()
    over = ended(openai, batch)
    assert (over.status, over.request_counts.completed) == ("expired", 8)
    assert over.in_progress_at <= time.time()
