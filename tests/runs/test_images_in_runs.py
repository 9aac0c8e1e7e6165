"""Images through whole runs on the scripted engine, which shows of each the digest of its bytes."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

import llmbatch
from llmbatch.core.check import Verdict
from llmbatch.core.errors import JobError
from llmbatch.core.messages import image_part
from llmbatch.core.types import Completion, Cursor, Prompt, RequestKey, Row, Sampling, Usage
from llmbatch.core.types import Image as Named
from llmbatch.job.job import job_from
from llmbatch.programs.base import Ask, Program
from llmbatch.programs.line import Rules
from llmbatch.programs.work import Work
from llmbatch.runs.filling import Filling
from llmbatch.runs.retry_failed import retry_failed

LOOK = """
name: look
variables: {picture: {type: image}, text: {default: ''}}
messages: [{role: user, content: '{{ picture }}{{ text }}'}]
"""


def png(color: str) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (8, 6), color).save(written, "PNG")
    return written.getvalue()


def seen(color: str) -> str:
    """What the engine answers to an image of this colour."""
    return f"[image {hashlib.sha256(png(color)).hexdigest()[:16]}]"


@pytest.fixture
def look(jobs: Any) -> str:
    path = jobs.path / "look.yaml"
    path.write_text(LOOK)
    for color in ("red", "blue"):
        (jobs.path / f"{color}.png").write_bytes(png(color))
    return str(path)


def outputs(jobs: Any, folder: str = "out") -> list[Any]:
    return [record["output"] for record in jobs.records(folder)]


def test_the_same_bytes_are_asked_once_whatever_they_are_called(jobs: Any, look: str) -> None:
    (jobs.path / "again.png").write_bytes(png("red"))
    rows = jobs.rows(
        [{"picture": name} for name in ("red.png", "again.png", "blue.png", f"file://{jobs.path}/red.png")]
    )
    jobs.run(jobs.job(rows, prompt=look))
    assert outputs(jobs) == [seen("red"), seen("red"), seen("blue"), seen("red")]
    assert jobs.report()["rows"]["folded"] == 2


def test_without_ids_too(jobs: Any, look: str) -> None:
    (jobs.path / "again.png").write_bytes(png("red"))
    rows = jobs.rows([{"picture": name} for name in ("red.png", "again.png", "blue.png")])
    jobs.run(jobs.job(rows, {"no_ids": True}, prompt=look))
    assert outputs(jobs) == [seen("red"), seen("red"), seen("blue")]
    assert jobs.report()["rows"]["folded"] == 1


def test_a_row_gets_one_record_whatever_is_wrong_with_its_image(jobs: Any, look: str) -> None:
    cut = png("red")[:45]
    (jobs.path / "cut.png").write_bytes(cut)
    (jobs.path / "empty.png").write_bytes(b"")
    (jobs.path / "page.png").write_text("<html>")
    names = ["red.png", "cut.png", "empty.png", "page.png", "none.png", "ftp://h/a.png", "data:,", 5]
    rows = jobs.rows([{"id": f"r{i}", "picture": name} for i, name in enumerate(names)])
    jobs.run(jobs.job(rows, prompt=look))
    records = jobs.records()
    assert [record["status"] for record in records] == ["ok"] + 7 * ["failed"]
    errors = [record["error"] for record in records[1:]]
    assert [error["kind"] for error in errors] == [*6 * ["image"], "prompt"]
    said = [
        "decoded",
        "is empty",
        "the file has 6 bytes",
        "there is no such image",
        "ftp://",
        "is empty",
        "of type integer",
    ]
    for i, (error, words) in enumerate(zip(errors, said, strict=True), 1):
        assert words in error["message"]
        assert f"row 'r{i}'" in error["message"]
    assert errors[0]["message"].startswith(f"{rows.name}:2, row 'r1': the image '{jobs.path}/cut.png'")


def test_images_in_a_bucket_are_read_and_one_that_is_not_there_or_too_large_is_its_row_alone(
    jobs: Any, look: str, bucket: Any
) -> None:
    bucket.put("seen/red.png", png("red"))
    bucket.put("seen/blue.png", png("blue"))
    bucket.put("seen/large.png", png("red") + bytes(1000))
    names = ["red.png", "none.png", "blue.png", "large.png", "red.png"]
    rows = jobs.rows([{"id": name, "picture": f"{bucket.url}/seen/{name}"} for name in names])
    jobs.run(jobs.job(rows, prompt=look, engine={"images": {"max_mib": 0.0005}}))
    assert outputs(jobs) == [seen("red"), None, seen("blue"), None, seen("red")]
    missing, large = (jobs.records()[at]["error"] for at in (1, 3))
    assert (missing["kind"], large["kind"]) == ("image", "image")
    assert f"{bucket.url}/seen/none.png" in missing["message"]
    assert "max_mib" in large["message"]
    assert jobs.report()["rows"]["folded"] == 1
    assert "s3" in bucket.url


def test_paths_are_relative_to_the_file_that_names_them(jobs: Any, look: str) -> None:
    for folder, color in (("a", "red"), ("b", "blue")):
        (jobs.path / "in" / folder).mkdir(parents=True)
        (jobs.path / "in" / folder / "one.png").write_bytes(png(color))
        (jobs.path / "in" / folder / "rows.jsonl").write_text('{"picture": "one.png"}\n')
    jobs.run(jobs.job(jobs.path / "in" / "*" / "rows.jsonl", prompt=look))
    assert outputs(jobs) == [seen("red"), seen("blue")]


def test_paths_in_rows_that_stand_in_no_file_are_relative_to_where_we_are(
    jobs: Any, look: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(jobs.path)
    (jobs.path / "script.yaml").write_text("rules: [{when: {index: 1}, times: 1, fail: not now}]\n")
    rows = [{"picture": "red.png"}, {"picture": "blue.png"}]
    given: dict[str, Any] = {"model": "any", "prompt": look, "retry": {"max_attempts": 1}}
    engine: Any = {"name": "scripted", "script": str(jobs.path / "script.yaml")}
    assert [record.output for record in llmbatch.generate(rows, **given, engine={"name": "scripted"})] == [
        seen("red"),
        seen("blue"),
    ]
    done = llmbatch.run(input=rows, output="out", **given, engine=engine)
    assert [record.output for record in done] == [seen("red"), None]
    retry_failed(Path("out"), {})
    assert outputs(jobs) == [seen("red"), seen("blue")]


def test_ready_made_requests_may_have_images(jobs: Any, look: str) -> None:
    content = [{"type": "text", "text": "See "}, image_part("red.png", "low")]
    request = {
        "custom_id": "q",
        "url": "/v1/chat/completions",
        "body": {"messages": [{"role": "user", "content": content}]},
    }
    data = jobs.data(jobs.rows([request]))
    del data["prompt"]
    jobs.run(job_from(data))
    assert outputs(jobs) == [f"See {seen('red')}"]


def test_ready_made_requests_name_no_files_outside_of_their_folder_unless_the_job_allows_it(
    jobs: Any, look: str
) -> None:
    (jobs.path / "in").mkdir()
    (jobs.path / "in" / "blue.png").write_bytes(png("blue"))
    urls = ["blue.png", "../red.png", f"file://{jobs.path}/red.png", "s3://bucket/red.png"]
    requests = [
        {"custom_id": url, "body": {"messages": [{"role": "user", "content": [image_part(url)]}]}} for url in urls
    ]
    data = jobs.data(jobs.rows(requests, "in/rows.jsonl"))
    del data["prompt"]
    jobs.run(job_from(data))
    assert [record["status"] for record in jobs.records()] == ["ok", "failed", "failed", "failed"]
    for record in jobs.records()[1:]:
        assert "allow it with engine.images.allow" in record["error"]["message"]
    allowed = {
        **data,
        "engine": {"name": "scripted", "images": {"allow": [str(jobs.path)]}},
        "output": str(jobs.path / "again"),
    }
    jobs.run(job_from(allowed))
    assert outputs(jobs, "again") == [seen("blue"), seen("red"), seen("red"), None]


def test_bytes_in_a_table_and_in_a_dataset_are_images(jobs: Any, look: str) -> None:
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    cells = [{"bytes": png("red"), "path": "lost.png"}, {"bytes": None, "path": "blue.png"}]
    pq.write_table(pa.table({"picture": cells, "text": ["a", "b"]}), jobs.path / "t.parquet")
    pq.write_table(pa.table({"picture": [png("blue")]}), jobs.path / "bytes.parquet")
    features = datasets.Features({"picture": datasets.Image(), "others": datasets.List(datasets.Image())})
    held = {"picture": [str(jobs.path / "red.png")], "others": [[str(jobs.path / "blue.png")]]}
    data = datasets.Dataset.from_dict(held, features=features)
    data.save_to_disk(jobs.path / "saved")
    for name, expected in (
        ("t.parquet", [f"{seen('red')}a", f"{seen('blue')}b"]),
        ("bytes.parquet", [seen("blue")]),
        ("saved", [seen("red")]),
    ):
        jobs.run(jobs.job(jobs.path / name, prompt=look, output=str(jobs.path / f"out-{name}")))
        assert outputs(jobs, f"out-{name}") == expected


def test_the_cache_knows_an_image_by_its_bytes_and_not_by_its_name(jobs: Any, look: str) -> None:
    rows = jobs.rows([{"picture": "red.png"}])

    def run(name: str, **script: Any) -> list[Any]:
        reuse = {"cache": str(jobs.path / "cache")}
        jobs.run(jobs.job(rows, script, prompt=look, reuse=reuse, output=str(jobs.path / name)))
        return outputs(jobs, name)

    assert run("first") == [seen("red")]
    (jobs.path / "red.png").write_bytes(png("blue"))
    assert run("replaced") == [seen("blue")]
    (jobs.path / "red.png").write_bytes(png("red"))
    run("back")
    assert jobs.report("back")["rows"]["cached"] == 1
    assert jobs.report("replaced")["rows"]["cached"] == 0


@pytest.mark.parametrize("fault", ["journal-append:1", "journal-append:3", "part-sealed:2"])
def test_a_run_with_images_that_is_killed_comes_to_the_same_bytes(jobs: Any, look: str, fault: str) -> None:
    names = ["red.png", "blue.png", "none.png"]
    rows = jobs.rows([{"id": i, "picture": names[i % 3], "text": f" {i}"} for i in range(30)])
    script = {"rules": [{"when": {"attempt": 1, "matches": "5$"}, "answer": ""}]}
    how = {"prompt": look, "run": {"window": 8, "commit_seconds": 0.01}}
    jobs.run(jobs.job(rows, script, **how, output=str(jobs.path / "whole")))
    slow = {**script, "latency": 0.1, "jitter": 0.9, "concurrency": 4}
    jobs.killed(jobs.data(rows, slow, **how), fault)
    jobs.run(jobs.job(rows, slow, **how))
    assert jobs.results() == jobs.results("whole")


def test_what_was_not_answered_before_a_kill_sees_the_image_as_it_is_now(jobs: Any, look: str) -> None:
    rows = jobs.rows([{"id": i, "picture": "red.png", "text": f" {i}"} for i in range(20)])
    slow = {"latency": 0.1, "concurrency": 2}
    how = {"prompt": look, "run": {"window": 20, "commit_seconds": 0.01}}
    jobs.killed(jobs.data(rows, slow, **how), "journal-append:2")
    (jobs.path / "red.png").write_bytes(png("blue"))
    jobs.run(jobs.job(rows, slow, **how))
    said = outputs(jobs)
    before = sum(text.startswith(seen("red")) for text in said)
    assert 0 < before < 20
    assert sum(text.startswith(seen("blue")) for text in said) == 20 - before


def test_an_attempt_at_another_image_is_not_gone_on_from(jobs: Any, look: str) -> None:
    """The first attempt was at the red one, and was sent back; after the kill both are at the blue one."""
    rows = jobs.rows([{"id": i, "picture": "red.png", "text": f" {i}"} for i in range(4)])
    rules = [{"when": {"attempt": 1, "contains": seen("red")}, "answer": ""}]
    how = {"prompt": look, "run": {"commit_seconds": 0.01}, "retry": {"feedback": False}}
    jobs.killed(
        jobs.data(rows, {"rules": rules, "latency": 0.3, "jitter": 1, "concurrency": 1}, **how), "journal-append:1"
    )
    (jobs.path / "red.png").write_bytes(png("blue"))
    jobs.run(jobs.job(rows, {"rules": rules, "latency": 0.3, "jitter": 1, "concurrency": 1}, **how))
    for record in jobs.records():
        if record["output"].startswith(seen("blue")):
            assert record["attempts"] == 1
    assert any(record["output"].startswith(seen("blue")) for record in jobs.records())


def test_a_later_step_with_an_image_is_not_answered_from_the_journal() -> None:
    def program() -> Program:
        first = yield Ask(Prompt(text="which?"), Sampling())
        second = yield Ask(Prompt(messages=(), images=(Named("red.png"),)), Sampling())
        return [first.value, second.value]

    check: Any = lambda text, *_, **__: Verdict(text, None)  # noqa: E731
    work = Work(Row(0, 0, {}, Cursor(0)), program(), Rules(check, lambda *_: None))
    known = [Completion(RequestKey(0, step), f"answer {step}", "stop", Usage(1, 1)) for step in range(2)]
    filling: Any = SimpleNamespace(engine=SimpleNamespace(wait_ready=lambda: None))
    assert [request.key.step for request in Filling._replayed(filling, work, work.start(), known, same=False)] == [1]
    assert work.record is None


def test_engines_in_processes_of_their_own_read_the_images_themselves(jobs: Any, look: str) -> None:
    rows = jobs.rows([{"id": i, "picture": "red.png" if i % 2 else "blue.png", "text": f" {i}"} for i in range(10)])
    jobs.run(jobs.job(rows, prompt=look, output=str(jobs.path / "here")))
    jobs.run(jobs.job(rows, prompt=look, engine={"hosted": True}))
    assert jobs.results() == jobs.results("here")


def test_a_model_that_takes_text_alone_is_not_given_images(jobs: Any, look: str) -> None:
    rows = jobs.rows([{"picture": "red.png"}])
    with pytest.raises(JobError, match="takes text alone"):
        jobs.run(jobs.job(rows, prompt=look, engine={"args": {"no_images": True}}))
    requests = [
        {"custom_id": str(i), "body": {"messages": [{"role": "user", "content": content}]}}
        for i, content in enumerate(["hello", [image_part("red.png")]])
    ]
    data = jobs.data(jobs.rows(requests), engine={"args": {"no_images": True}})
    del data["prompt"]
    jobs.run(job_from(data))
    first, second = jobs.records()
    assert first["output"] == "hello"
    assert second["error"]["kind"] == "image"
    assert "takes text alone" in second["error"]["message"]


def test_what_is_read_of_images_is_part_of_what_the_job_is(jobs: Any, look: str) -> None:
    rows = jobs.rows([{"picture": "red.png"}])
    jobs.run(jobs.job(rows, prompt=look))
    jobs.run(jobs.job(rows, prompt=look, engine={"images": {"workers": 1}}))
    with pytest.raises(Exception, match=r"engine\.images\.longest_side"):
        jobs.run(jobs.job(rows, prompt=look, engine={"images": {"longest_side": 5}}))


def test_shots_keep_their_images(jobs: Any, look: str) -> None:
    from llmbatch.core.types import Image as Named
    from llmbatch.core.types import Prompt
    from llmbatch.programs.shots import ShotSettings, _joined

    one = Prompt(messages=({"role": "user", "content": [image_part("a.png")]},), images=(Named("a.png"),))
    two = Prompt(messages=({"role": "user", "content": [image_part("b.png")]},), images=(Named("b.png"),))
    joined = _joined([one], ["yes"], two, ShotSettings())
    assert [image.url for image in joined.images] == ["a.png", "b.png"]
    assert json.dumps(joined.messages).count("image_url") == 4


def test_a_large_image_in_the_prompt_makes_its_window_smaller(tmp_path: Path) -> None:
    from llmbatch.core.types import Image as Named
    from llmbatch.core.types import Prompt
    from llmbatch.job.prepare import characters

    text = Prompt(messages=({"role": "user", "content": "x"},))
    url = "data:;base64," + "A" * 100_000
    picture = Prompt(messages=({"role": "user", "content": [image_part(url)]},), images=(Named(url),))
    assert characters(text) == 1
    assert characters(picture) > 100_000
