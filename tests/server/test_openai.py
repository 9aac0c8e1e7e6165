"""OpenAI's own client against the front: files, batches, how they end, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest
from click.testing import CliRunner

from llmbatch.cli.main import main

TERMS = {"rules": [{"when": {"contains": "wool"}, "answer": "WOOL"}]}


def matches(seen: Any, wanted: Any) -> bool:
    """Whether JSON is as an example has it, in which a star stands for anything; keys may be there that it does not name."""
    if isinstance(wanted, dict):
        return isinstance(seen, dict) and all(
            key in seen and matches(seen[key], value) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(seen, list) and len(seen) == len(wanted) and all(map(matches, seen, wanted))
    if isinstance(wanted, str) and "*" in wanted:
        start, _, end = wanted.partition("*")
        return wanted == "*" or (isinstance(seen, str) and seen.startswith(start) and seen.endswith(end))
    return bool(seen == wanted)


def expected(examples: Path, name: str) -> list[Any]:
    return [json.loads(line) for line in (examples / "expected" / name).read_text().splitlines()]


def test_a_batch_gives_its_answers_and_its_errors_in_files_of_their_own(site, examples, begin, ended, lines) -> None:
    client = site.openai()
    batch = ended(client, begin(client, (examples / "chat.jsonl").read_bytes()))
    assert batch.status == "completed"
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (3, 2, 1)
    for file_id, name in ((batch.output_file_id, "output.jsonl"), (batch.error_file_id, "error.jsonl")):
        assert matches(lines.of(client, file_id), expected(examples, name)), lines.of(client, file_id)
    assert batch.usage.input_tokens > 0
    assert batch.model == "demo"
    made = site.server.store.run_folder(batch.id)
    assert (made / "report.json").exists() and not (made / "report.html").exists()  # the server's own page shows it
    assert CliRunner().invoke(main, ["report", str(made)]).exit_code == 0
    assert "1 of 3 rows are not ok" in (made / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "code",
    ["duplicate_custom_id", "empty_file", "invalid_json_line", "invalid_request", "model_mismatch", "url_mismatch"],
)
def test_a_bad_input_fails_before_anything_runs_and_says_where(shared, examples, begin, ended, code: str) -> None:
    content = (examples / "invalid" / f"{code}.jsonl").read_bytes()
    client = shared.openai()
    batch = ended(client, begin(client, content))
    assert batch.status == "failed"
    assert [error.code for error in batch.errors.data] == [code]
    line = None if code == "empty_file" else max(1, len(content.splitlines()))
    assert batch.errors.data[0].line == line
    assert (batch.output_file_id, batch.error_file_id) == (None, None)
    assert not shared.server.store.run_folder(batch.id).exists()


def test_a_model_that_is_not_served_is_no_batch(shared, begin, ended, lines) -> None:
    client = shared.openai()
    batch = ended(client, begin(client, lines.jsonl([lines.chat("a", "text", model="gpt-9")])))
    assert [error.code for error in batch.errors.data] == ["model_not_found"]


def test_more_lines_than_the_server_takes_are_no_batch(sites, begin, ended, lines) -> None:
    client = sites.start(max_lines=3).openai()
    assert [error.code for error in ended(client, begin(client, lines.many(4))).errors.data] == ["too_many_tasks"]
    assert ended(client, begin(client, lines.many(3))).status == "completed"


def test_a_batch_is_cancelled_in_the_middle_and_every_line_is_in_one_of_its_files(
    sites, begin, ended, until, lines
) -> None:
    client = sites.start({"latency": 0.05, "concurrency": 8}, job={"run": {"window": 64, "grace": 0.1}}).openai()
    batch_id = begin(client, lines.many(1000))
    until(lambda: client.batches.retrieve(batch_id).request_counts.completed, bool)
    assert client.batches.cancel(batch_id).status == "cancelling"
    batch = ended(client, batch_id)
    assert batch.status == "cancelled"
    done, rest = lines.of(client, batch.output_file_id), lines.of(client, batch.error_file_id)
    assert done
    assert {line["error"]["code"] for line in rest} == {"batch_cancelled"}
    assert sorted(lines.ids(done) + lines.ids(rest)) == sorted(f"row-{i}" for i in range(1000))
    assert (batch.request_counts.completed, batch.request_counts.failed) == (len(done), len(rest))


def test_a_batch_over_its_window_is_expired_and_keeps_what_is_finished(
    sites, begin, ended, until, lines, examples
) -> None:
    site = sites.start({"rules": [{"when": {"contains": "wool"}, "hang": True}]}, job={"run": {"grace": 0.1}})
    client = site.openai()
    batch_id = begin(client, (examples / "chat.jsonl").read_bytes(), completion_window="1m")
    until(lambda: client.batches.retrieve(batch_id).request_counts.completed, bool)
    site.server.batches.session(batch_id).end("expired")
    batch = ended(client, batch_id)
    assert batch.status == "expired"
    assert lines.ids(lines.of(client, batch.output_file_id)) == ["request-1"]
    rest = lines.of(client, batch.error_file_id)
    assert matches(rest[1:], expected(examples, "error.expired.jsonl"))


def test_lists_go_by_pages_of_cursors(site, begin, ended, lines) -> None:
    client = site.openai()
    made = [begin(client, lines.many(1)) for _ in range(5)]
    assert [batch.id for batch in client.batches.list(limit=2)] == made[::-1]
    files = [file.id for file in client.files.list(purpose="batch", order="asc", limit=2)]
    assert files == [client.batches.retrieve(batch).input_file_id for batch in made]
    page = client.batches.list(limit=2)
    assert (page.has_more, page.last_id) == (True, made[3])  # type: ignore[attr-defined]


def test_a_deleted_file_is_gone_and_its_batch_goes_on(site, begin, ended, lines) -> None:
    client = site.openai()
    batch_id = begin(client, lines.many(3))
    file_id = client.batches.retrieve(batch_id).input_file_id
    assert client.files.delete(file_id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file_id)
    assert ended(client, batch_id).request_counts.completed == 3


def test_with_its_last_file_a_batch_leaves_nothing_of_what_was_asked(site, begin, ended, lines) -> None:
    client = site.openai()
    batch = ended(client, begin(client, lines.many(3)))
    folder = site.server.store.batch_folder(batch.id)
    client.files.delete(batch.input_file_id)
    assert folder.exists()
    client.files.delete(batch.output_file_id)
    assert not folder.exists()
    assert client.batches.retrieve(batch.id).status == "completed"


def test_the_content_of_a_file_comes_as_it_went_and_in_ranges(shared) -> None:
    client = shared.openai()
    content = bytes(range(256)) * 5000
    file = client.files.create(file=("any.jsonl", content), purpose="batch")
    assert (file.bytes, file.filename) == (len(content), "any.jsonl")
    assert client.files.content(file.id).content == content
    status, headers, part = shared.ask("GET", f"/v1/files/{file.id}/content", headers={"Range": "bytes=1000-1099"})
    assert (status, part) == (206, content[1000:1100])
    assert headers["content-range"] == f"bytes 1000-1099/{len(content)}"


def test_an_expired_file_is_not_there_any_more(site, monkeypatch) -> None:
    client = site.openai()
    expiry: Any = {"anchor": "created_at", "seconds": 3600}
    file = client.files.create(file=("a.jsonl", b"{}"), purpose="batch", expires_after=expiry)
    assert file.expires_at == file.created_at + 3600
    monkeypatch.setattr("llmbatch.server.store.time.time", lambda: file.expires_at + 1)
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)
    site.server.store.remove_expired()
    assert not site.server.store.content(file.id).exists()


def test_the_model_is_listed_by_its_names(sites) -> None:
    client = sites.start(names=("small", "other")).openai()
    assert [model.id for model in client.models.list()] == ["small", "other"]
    assert client.models.retrieve("small").id == "small"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("large")


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"endpoint": "/v1/moderations"}, "endpoint"),
        ({"endpoint": "/v1/embeddings"}, "endpoint"),
        ({"completion_window": "soon"}, "completion_window"),
        ({"completion_window": "0h"}, "completion_window"),
        ({"metadata": {str(i): "x" for i in range(17)}}, "metadata"),
        ({"metadata": {"k" * 65: "x"}}, None),
        ({"metadata": {"k": "x" * 513}}, None),
        ({"input_file_id": "file-none"}, "input_file_id"),
        ({"input_file_id": "../../etc/passwd"}, "input_file_id"),
        ({"extra_body": {"temperature": 1}}, "temperature"),
    ],
    ids=lambda value: None if value is None or isinstance(value, str) else "-".join(value),
)
def test_a_batch_that_cannot_be_is_refused_as_a_bad_request(shared, lines, given: dict[str, Any], param: Any) -> None:
    client = shared.openai()
    before = client.batches.list().data
    file = client.files.create(file=("a.jsonl", lines.many(1)), purpose="batch")
    asked = {
        "input_file_id": file.id, "endpoint": "/v1/chat/completions", "completion_window": "24h", **given,
    }  # fmt: skip
    with pytest.raises(openai.BadRequestError) as caught:
        client.batches.create(**asked)
    if param is not None:
        assert caught.value.param == param
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert client.batches.list().data == before


def test_results_are_no_input(site, begin, ended, lines) -> None:
    client = site.openai()
    batch = ended(client, begin(client, lines.many(1)))
    with pytest.raises(openai.BadRequestError):
        client.batches.create(
            input_file_id=batch.output_file_id, endpoint="/v1/chat/completions", completion_window="24h"
        )


def test_a_batch_that_is_over_cannot_be_cancelled(site, begin, ended, lines) -> None:
    client = site.openai()
    batch = ended(client, begin(client, lines.many(1)))
    with pytest.raises(openai.ConflictError) as caught:
        client.batches.cancel(batch.id)
    assert caught.value.response.headers["x-should-retry"] == "false"


def test_two_batches_of_the_same_file_both_come_to_their_end(site, lines, ended) -> None:
    client = site.openai()
    file = client.files.create(file=("a.jsonl", lines.many(20)), purpose="batch")
    asked: Any = {"input_file_id": file.id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    made = [client.batches.create(**asked).id for _ in range(2)]
    done = [lines.of(client, ended(client, batch).output_file_id) for batch in made]
    assert made[0] != made[1]
    assert lines.ids(done[0]) == lines.ids(done[1]) == [f"row-{i}" for i in range(20)]
    assert not {line["id"] for line in done[0]} & {line["id"] for line in done[1]}


def test_metadata_comes_back(shared, lines, begin) -> None:
    client = shared.openai()
    batch_id = begin(client, lines.many(1), metadata={"team": "a"})
    assert client.batches.retrieve(batch_id).metadata == {"team": "a"}


@pytest.mark.parametrize("answer", [{}, {"choice": ["yes"], "constrained": False}], ids=["free", "checked"])
def test_an_answer_that_was_cut_off_is_an_error_where_the_server_itself_asks_for_a_check(
    sites, lines, begin, ended, answer: dict[str, Any]
) -> None:
    script = {"rules": [{"answer": "ye", "finish_reason": "length"}]}
    client = sites.start(script, job={"answer": answer, "retry": {"max_attempts": 1}}).openai()
    batch = ended(client, begin(client, lines.jsonl([lines.chat("a", "x")])))
    assert (batch.request_counts.completed, batch.request_counts.failed) == ((0, 1) if answer else (1, 0))
    if answer:
        [line] = lines.of(client, batch.error_file_id)
        assert line["response"]["status_code"] == 422
