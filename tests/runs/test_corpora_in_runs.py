"""Whole runs over documents and over files elsewhere: bad input, kills, a longer corpus, an endpoint that fails in the middle."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from llmbatch.audit.audit import audit
from llmbatch.core.errors import InputChanged, JobError, ReadError, WriteError
from llmbatch.job.job import job_from
from llmbatch.runs.retry_failed import retry_failed
from llmbatch.sinks import upload as uploading
from llmbatch.sources import reader, remote

BY_FILE = {"sinks": {"formats": ["by_file"], "keep": ["path", "title"]}}
BAD = {
    "b-empty.txt": (b"", "the document is empty"),
    "c-picture.txt": (b"\x89PNG\r\n\x1a\n\0\0", "it begins as a PNG image does"),
    "d-latin.md": (b"caf\xe9", "not UTF-8"),
    "e-no.pdf": (b"hello", "no PDF, or damaged"),
    "f-cut.txt.gz": (gzip.compress(b"text" * 99)[:-9], "it cannot be decompressed"),
}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_AGAIN_SECONDS", (0.01,))
    monkeypatch.setattr(uploading, "_AGAIN_SECONDS", (0.01,))


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def good(count: int, start: int = 0) -> dict[str, bytes]:
    return {f"{number // 4}/{number:02d}.md": b"# Title %d\n" % number for number in range(start, start + count)}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_document_has_its_record_and_bad_ones_say_what_is_wrong(jobs: Any) -> None:
    bad = {name: content for name, (content, _) in BAD.items()}
    long = {"z-long.txt": b"word " * 2_000_000}
    docs = write(jobs.path / "docs", {"a.md": b"# Title", **bad, "picture.png": b"x", **long})
    script = {"context_length": 20_000_000, "rules": [{"when": {"contains": "word"}, "answer": "many words"}]}
    result = jobs.run(jobs.job(docs, script))
    records = {record["id"]: record for record in jobs.records()}
    assert list(records) == ["a.md", *BAD, "z-long.txt"]
    assert [records[name]["status"] for name in ("a.md", "z-long.txt")] == ["ok", "ok"]
    for name, (_, said) in BAD.items():
        assert records[name]["error"]["kind"] == "malformed_row"
        assert records[name]["error"]["message"].startswith(f"{name}: ")
        assert said in records[name]["error"]["message"]
    assert result.exit_code == 3
    assert any("files passed over: 1 of other kinds (.png 1)" in note for note in jobs.notes())
    assert audit(jobs.path / "out").complete


@pytest.mark.parametrize("fault", ["journal-opened:3", "part-sealed:2", "folder-away/results"])
def test_a_run_over_documents_that_is_killed_comes_to_the_same_bytes(jobs: Any, fault: str) -> None:
    docs = write(jobs.path / "docs", {**good(10), "0/02.md": b""})
    data = jobs.data(docs, run={"window": 4}, **BY_FILE)
    assert jobs.run(job_from({**data, "output": str(jobs.path / "whole")})).exit_code == 3
    jobs.killed(data, fault)
    assert jobs.finish(data)[0] == 3
    assert jobs.results() == jobs.results("whole")
    assert files(jobs.path / "out" / "results") == files(jobs.path / "whole" / "results")
    assert sorted(files(jobs.path / "out" / "results")) == [f"{name}.jsonl" for name in sorted(good(10))]
    assert audit(jobs.path / "out").complete


def test_outputs_by_file_that_were_out_of_the_way_when_a_run_was_killed_are_made_again(jobs: Any) -> None:
    docs = write(jobs.path / "docs", good(3))
    data = jobs.data(docs, **BY_FILE)
    assert jobs.finish(data)[0] == 0
    data["sinks"] = {**data["sinks"], "shard_format": "parquet"}
    jobs.killed(data, "folder-away/results")
    assert not (jobs.path / "out" / "results").exists()
    assert jobs.finish(data)[0] == 0
    assert sorted(files(jobs.path / "out" / "results")) == [f"0/0{number}.md.parquet" for number in range(3)]
    assert not any(path.name.startswith(".") for path in (jobs.path / "out").iterdir())


def test_documents_that_came_behind_the_others_are_run_with_extend(jobs: Any) -> None:
    docs = write(jobs.path / "docs", good(6))
    job = jobs.job(docs, run={"window": 4}, **BY_FILE)
    jobs.run(job)
    first = jobs.results()
    write(docs, good(4, start=6))
    with pytest.raises(InputChanged, match=r"had 6 files, now 10.*--extend"):
        jobs.run(job)
    jobs.run(job, extend=True)
    assert jobs.results().startswith(first)
    assert [record["id"] for record in jobs.records()] == sorted(good(10))
    assert len(files(jobs.path / "out" / "results")) == 10
    write(docs, {"0/00.md": b"# Another"})
    with pytest.raises(InputChanged, match="rows 0 to 3 differ"):
        jobs.run(job, extend=True)


# elsewhere


def shards(bucket: Any, count: int = 4, rows: int = 10) -> None:
    for number in range(count):
        lines = [json.dumps({"id": f"{number}-{row}", "text": f"text {number} {row}"}) for row in range(rows)]
        bucket.put(f"in/part-{number}.jsonl.gz", gzip.compress("\n".join(lines).encode()))


def test_an_endpoint_that_fails_in_the_middle_of_a_run_ends_it_with_the_rows_before_kept(
    jobs: Any, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_TOGETHER", 1)
    shards(bucket)
    url = f"{bucket.url}/in/*.jsonl.gz"
    job = jobs.job(jobs.path, input={"path": url}, run={"window": 8})
    bucket.server.fails = lambda request: 500 if request.startswith("GET") and "part-2" in request else None
    with pytest.raises(ReadError, match=r"part-2\.jsonl\.gz: cannot be read beyond byte 0: We encountered an internal"):
        jobs.run(job)
    found = audit(jobs.path / "out")
    assert found.rows_done == 20
    bucket.server.fails = lambda _: None
    jobs.run(job)
    assert [record["id"] for record in jobs.records()] == [f"{n}-{row}" for n in range(4) for row in range(10)]
    assert audit(jobs.path / "out").complete
    bucket.server.requests.clear()
    jobs.run(job)
    assert "the run is finished, nothing is left to do" in jobs.notes()[-1]


def test_an_object_with_other_rows_is_a_changed_input_one_more_a_longer_one_and_one_packed_anew_the_same(
    jobs: Any, bucket: Any
) -> None:
    shards(bucket, 2)
    job = jobs.job(jobs.path, input={"path": f"{bucket.url}/in/*.jsonl.gz"}, run={"window": 8})
    jobs.run(job)
    packed = bytearray(bucket.get("in/part-0.jsonl.gz"))
    packed[4:8] = b"time"  # at which it was packed
    bucket.put("in/part-0.jsonl.gz", bytes(packed))
    jobs.run(job)
    assert "the run is finished" not in jobs.notes()
    bucket.put("in/part-2.jsonl.gz", bucket.get("in/part-1.jsonl.gz"))
    jobs.run(job, extend=True)
    assert len(jobs.records()) == 30
    bucket.put("in/part-0.jsonl.gz", gzip.compress(b'{"id": "0-0", "text": "another"}\n'))
    with pytest.raises(InputChanged, match="rows 0 to 7 differ"):
        jobs.run(job, extend=True)


def test_files_that_cannot_be_copied_fail_the_run_keep_the_results_and_are_all_that_is_left_to_do(
    jobs: Any, bucket: Any, ten: Path
) -> None:
    job = jobs.job(ten, sinks={"to": f"{bucket.url}/run", "formats": ["shards"], "rows_per_shard": 4})
    bucket.server.fails = lambda request: 500 if request.startswith("PUT") and "of-00003" in request else None
    with pytest.raises(WriteError, match=r"/run/results-0000\d-of-00003\.jsonl: could not be copied there"):
        jobs.run(job)
    assert len(jobs.records()) == 10
    pending = audit(jobs.path / "out")
    assert (pending.ok, pending.complete) == (True, False)
    assert "files are still to be copied to s3://" in str(pending.pending)
    bucket.server.fails = lambda _: None
    bucket.server.requests.clear()
    jobs.events.clear()
    result = jobs.run(job)
    assert result.exit_code == 0
    assert [type(event).__name__ for event in jobs.events] == ["Note", "Note", "Finished"]  # no engine was started
    assert set(bucket.requests("PUT")) <= {f"run/results-0000{n}-of-00003.jsonl" for n in range(3)} | {
        "run/report.json"
    }
    assert {name: bucket.get(f"run/{name}") for name in ("results.jsonl", "report.json")} == {
        name: (jobs.path / "out" / name).read_bytes() for name in ("results.jsonl", "report.json")
    }
    assert audit(jobs.path / "out").complete


def test_what_a_retry_changed_is_copied_again(jobs: Any, bucket: Any) -> None:
    rows = jobs.rows([{"text": "easy"}, {"text": "hard"}])
    hard = {"rules": [{"when": {"contains": "hard"}, "answer": ""}]}
    jobs.run(jobs.job(rows, hard, retry={"max_attempts": 1}, sinks={"to": f"{bucket.url}/run"}))
    assert b'"status":"invalid"' in bucket.get("run/results.jsonl")
    script = jobs.path / "better.yaml"
    script.write_text("{}")
    retry_failed(jobs.path / "out", {"engine": {"script": str(script)}})
    assert bucket.get("run/results.jsonl") == jobs.results()
    assert b'"status":"invalid"' not in jobs.results()
    assert bucket.get("run/errors.jsonl") == b""


@pytest.mark.parametrize(
    "sections",
    [
        {"input": {"storage_options": {"key": "AKIA", "secret": "x"}}},
        {"input": {"storage_options": {"client_kwargs": {"aws_session_token": "x"}}}},
        {"input": {"path": "sftp://user:pass@host/rows.jsonl"}},
        {"sinks": {"to": "sftp://user:pass@host/out"}},
        {"sinks": {"to": "s3://bucket", "storage_options": {"account_key": "x"}}},
        {"input": {"storage_options": {"client_kwargs": {"endpoint_url": "http://user:pass@host"}}}},
    ],
)
def test_a_secret_of_a_file_system_has_no_place_in_a_job(jobs: Any, sections: dict[str, Any]) -> None:
    with pytest.raises(JobError, match="a secret has no place in a job"):
        jobs.job(jobs.path / "rows.jsonl", **sections)
    assert jobs.job(jobs.path, input={"storage_options": {"anon": True, "profile": "x", "endpoint_url": "http://h"}})
