"""Inputs that lie elsewhere: in an S3 of this process, and on file systems of fsspec's own that need no server."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import fsspec
import pyarrow
import pyarrow.parquet
import pytest

from llmbatch.core.errors import ReadError, SourceError
from llmbatch.core.remote_files import RemoteError, translated
from llmbatch.core.types import Row
from llmbatch.sources import reader, remote
from llmbatch.sources.base import START, Source
from llmbatch.sources.opening import guess_format
from llmbatch.sources.reader import Reader

Open = Callable[..., Source]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_AGAIN_SECONDS", (0.01, 0.01, 0.01))


def lines(first: int, last: int, filler: int = 0) -> bytes:
    return b"".join(json.dumps({"id": i, "text": f"{i} " + "x" * filler}).encode() + b"\n" for i in range(first, last))


def parquet(first: int, last: int) -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"id": list(range(first, last))}), stream, row_group_size=3)
    return stream.getvalue()


def csv(first: int, last: int) -> bytes:
    return b"id,text\n" + b"".join(b"%d,x\n" % i for i in range(first, last))


def ids(rows: Sequence[Row]) -> list[int]:
    return [int(row.id) for row in rows]


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [
        (".jsonl", lines),
        (".jsonl.gz", lambda *span: gzip.compress(lines(*span))),
        (".ndjson.bz2", lambda *span: bz2.compress(lines(*span))),
        (".csv", csv),
        (".parquet", parquet),
    ],
)
def test_shards_in_a_bucket_are_one_input_entered_at_any_row(
    bucket: Any, source: Open, suffix: str, pack: Callable[[int, int], bytes]
) -> None:
    for number in range(3):
        bucket.put(f"in/de/part-{number}{suffix}", pack(number * 5, number * 5 + 5))
    found = source(f"{bucket.url}/in/*/part-*{suffix}")
    rows = list(found.rows())
    assert ids(rows) == list(range(15))
    assert ids(list(found.rows(rows[7].cursor))) == list(range(7, 15))
    assert found.locate(rows[7].cursor).startswith(f"{bucket.url}/in/de/part-1{suffix}")
    assert found.files() == [f"de/part-{number}{suffix}" for number in range(3)]
    assert [found.digest(rows[i].cursor, rows[i + 5].cursor) for i in (0, 5)] == [
        source(f"{bucket.url}/in/*/part-*{suffix}").digest(rows[i].cursor, rows[i + 5].cursor) for i in (0, 5)
    ]
    assert found.fingerprint()[0].keys() == {"file", "size", "etag"}


def test_documents_in_a_bucket_are_rows_with_the_names_below_their_prefix(bucket: Any, source: Open) -> None:
    bucket.put("docs/a.txt", b"one")
    bucket.put("docs/sub/b.md", b"# Two")
    bucket.put("docs/sub/", b"")  # what some tools put there for a folder
    bucket.put("docs/c.png", b"three")
    bucket.put("docs/.d/e.txt", b"four")
    for url in (f"{bucket.url}/docs", f"{bucket.url}/docs/"):
        found = source(url)
        assert [(row.id, row.data["text"]) for row in found.rows()] == [("a.txt", "one"), ("sub/b.md", "# Two")]
        assert "1 of other kinds (.png 1), 1 hidden" in found.notes()[0]
    assert guess_format(f"{bucket.url}/docs/**/*.md") == "documents"


def test_small_documents_are_fetched_many_at_a_time_and_once(bucket: Any, source: Open) -> None:
    for number in range(40):
        bucket.put(f"docs/{number:02d}.txt", b"text %d" % number)
    found = source(f"{bucket.url}/docs")
    bucket.server.requests.clear()
    rows = list(found.rows())
    assert [row.data["text"] for row in rows] == [f"text {number}" for number in range(40)]
    found.digest(rows[0].cursor, rows[30].cursor)
    assert len(bucket.requests("GET")) == len(set(bucket.requests("GET"))) <= 40


def test_objects_that_are_named_one_by_one_are_one_input_and_fetched_as_such(
    bucket: Any, source: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"in/{number % 3}/{number:02d}.jsonl" for number in range(40)]
    for number, name in enumerate(names):
        bucket.put(name, lines(number, number + 1))
    monkeypatch.setattr(remote, "_KEPT", 4_000)
    found = source(f"{bucket.url}/{names[0]}", more=[f"{bucket.url}/{name}" for name in names[1:]])
    rows = list(found.rows())
    assert ids(rows) == list(range(40))
    assert found.files() == [name.removeprefix("in/") for name in names]
    assert found.locate(rows[7].cursor) == f"{bucket.url}/{names[7]}:1"
    assert ids(list(found.rows(rows[30].cursor))) == list(range(30, 40))
    place = found._files.place  # type: ignore[attr-defined]
    assert sum(len(block) + remote._OVERHEAD for block in place._blocks.values()) <= 4_000


def test_a_long_file_is_fetched_in_growing_parts_and_its_windows_digest_fetches_nothing(
    bucket: Any, source: Open
) -> None:
    bucket.put("a.jsonl", lines(0, 4_000, 1_000))
    found = source(f"{bucket.url}/a.jsonl")
    rows = list(found.rows())
    assert ids(rows) == list(range(4_000))
    assert max(len(part) for part in bucket.requests("GET")) < 100
    bucket.server.requests.clear()
    assert found.digest(rows[100].cursor, rows[3_900].cursor) is not None
    assert bucket.requests("GET") == []


def taken(source: Source) -> tuple[list[int], ReadError | None]:
    reader = Reader(source)
    reader.seek(START)
    indexes = []
    while reader.next is not None:
        indexes.append(reader.take().index)
    return indexes, reader.failure


@pytest.mark.parametrize("how", [500, "cut"])
@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_an_endpoint_that_fails_in_the_middle_for_a_while_loses_and_doubles_no_row(
    bucket: Any, source: Open, monkeypatch: pytest.MonkeyPatch, how: int | str, suffix: str
) -> None:
    monkeypatch.setattr(remote, "_BLOCK", 1 << 12)
    content = lines(0, 3_000)
    bucket.put(f"a{suffix}", gzip.compress(content, 1) if suffix.endswith("gz") else content)
    found = source(f"{bucket.url}/a{suffix}")
    left = 2

    def fails(request: str) -> int | str | None:
        nonlocal left
        if request.startswith("GET") and "bytes=" in request and "bytes=0-" not in request and left:
            left -= 1
            return how
        return None

    bucket.server.fails = fails
    assert taken(found) == (list(range(3_000)), None)
    assert left == 0


def test_an_endpoint_that_goes_on_failing_ends_the_rows_after_those_before_it(bucket: Any, source: Open) -> None:
    bucket.put("a.jsonl", lines(0, 20))
    bucket.put("b.jsonl", lines(20, 40))
    bucket.put("c.jsonl", lines(40, 60))
    found = source(f"{bucket.url}/*.jsonl")
    bucket.server.fails = lambda request: 500 if "/b.jsonl" in request else None
    indexes, failure = taken(found)
    assert indexes == list(range(20))
    assert "b.jsonl: cannot be read beyond byte 0: We encountered an internal error; run the same command" in str(
        failure
    )


@pytest.mark.parametrize("how", [500, 403])
def test_a_document_that_cannot_be_fetched_is_no_record_but_the_end(bucket: Any, source: Open, how: int) -> None:
    for name in "abc":
        bucket.put(f"docs/{name}.txt", b"text")
    found = source(f"{bucket.url}/docs")
    bucket.server.fails = lambda request: how if "/b.txt" in request else None
    indexes, failure = taken(found)
    assert indexes == [0]
    assert "b.txt: cannot be read" in str(failure)


def test_a_file_that_is_replaced_while_it_is_read_is_no_longer_read(
    bucket: Any, source: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_BLOCK", 1 << 10)
    bucket.put("a.jsonl", lines(0, 300))
    found = source(f"{bucket.url}/a.jsonl")
    rows = found.rows()
    next(rows)
    bucket.put("a.jsonl", lines(0, 300).replace(b"2", b"3"))
    with pytest.raises(ReadError, match="it was changed while it was read"):
        list(rows)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("s3://{}/nothing.jsonl", "no such file, or it cannot be reached"),
        ("s3://{}/*.csv", "the pattern matches no file"),
        ("s3://{}/in", "a folder; name its files, for example s3://{}/in/*.jsonl"),
        ("s3://{}-not/a.jsonl", "there is no bucket {}-not"),
        ("s3://{}/[a-z]*", "files of more than one format"),
        ("foo://{}/a.jsonl", "Protocol not known: foo"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_with_what_was_seen(
    bucket: Any, source: Open, path: str, said: str
) -> None:
    bucket.put("in/a.jsonl", b"{}\n")
    bucket.put("a.jsonl", b"{}\n")
    bucket.put("b.md", b"text")
    with pytest.raises(SourceError) as caught:
        source(path.format(bucket.name))
    assert said.format(bucket.name) in str(caught.value)


def test_access_that_is_denied_is_said_before_anything_is_begun(bucket: Any, source: Open) -> None:
    bucket.put("a.jsonl", b"{}\n")
    bucket.server.fails = lambda request: 403 if "a.jsonl" in request else None
    with pytest.raises(SourceError, match=r"a\.jsonl: cannot be looked at"):
        source(f"{bucket.url}/a.jsonl")


@pytest.mark.parametrize("path", ["in/*.jsonl", "in/a.jsonl"])
def test_a_bucket_that_is_not_there_is_named(bucket: Any, source: Open, path: str) -> None:
    with pytest.raises(SourceError, match=rf"{bucket.url}-b/{re.escape(path)}: there is no bucket {bucket.name}-b: "):
        source(f"{bucket.url}-b/{path}")


@pytest.mark.parametrize(("code", "kind"), [(403, PermissionError), (401, PermissionError), (409, RemoteError)])
def test_what_azures_library_raises_is_an_error_of_access_where_it_says_so(code: int, kind: type[OSError]) -> None:
    class HttpResponseError(Exception):
        status_code = code

    with pytest.raises(kind, match="not allowed, perhaps") as error, translated():
        raise HttpResponseError("not allowed,\n perhaps")
    assert type(error.value) is kind


def test_a_library_that_is_missing_is_named(source: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(url: str, **_: Any) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "url_to_fs", missing)
    with pytest.raises(SourceError, match=r"Install s3fs to access S3; pip install 'llmbatch\[remote\]'"):
        source("s3://bucket/a.jsonl")


def test_storage_options_reach_the_file_system(source: Open) -> None:
    with pytest.raises(SourceError, match="'nonsense'"):
        source("s3://bucket/a.jsonl", storage_options={"nonsense": True})


@pytest.fixture
def memory() -> Iterator[str]:
    """A folder of fsspec's own file system in memory, which has no etags."""
    name = uuid.uuid4().hex
    yield f"memory://{name}"
    fsspec.filesystem("memory").rm(f"/{name}", recursive=True)


def test_a_file_system_without_marks_of_content_tells_files_by_their_ends(memory: str, source: Open) -> None:
    files = fsspec.filesystem("memory")

    def fingerprint(content: bytes) -> dict[str, Any]:
        files.pipe(f"{memory}/a.jsonl", content)
        (entry,) = source(f"{memory}/*.jsonl").fingerprint()
        return {key: value for key, value in entry.items() if key != "mtime_ns"}

    first = fingerprint(lines(0, 3))
    assert first.keys() == {"file", "size", "ends"}
    assert fingerprint(lines(0, 3)) == first
    assert fingerprint(lines(0, 3).replace(b"1", b"7")) != first


class Web(BaseHTTPRequestHandler):
    """Serves one file, whole: it does not know ranges."""

    content = b""
    ranges = False

    def do_GET(self) -> None:
        content = self.content
        if self.ranges and (asked := self.headers.get("Range")):
            start, end = asked.removeprefix("bytes=").split("-")
            content = content[int(start) : int(end) + 1]
        self.send_response(200 if content is self.content else 206)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET  # noqa: N815 - the library's name

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_on_the_web_is_read_where_its_server_knows_ranges(
    source: Open, monkeypatch: pytest.MonkeyPatch, ranges: bool
) -> None:
    monkeypatch.setattr(remote, "_BLOCK", 1 << 10)
    handler = type("Handler", (Web,), {"content": lines(0, 200), "ranges": ranges})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/rows.jsonl?token=x"
        try:
            if ranges:
                assert ids(list(source(url).rows())) == list(range(200))
            else:
                with pytest.raises(SourceError, match="cannot give a part of a file; or download the file first"):
                    source(url)
        finally:
            server.shutdown()
