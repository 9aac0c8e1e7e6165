from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import fsspec
import pytest

from llmbatch.core.errors import FolderError, JobError, WriteError
from llmbatch.sinks import upload as uploading
from llmbatch.sinks.base import SinkSettings
from llmbatch.sinks.upload import check_destination, plan_upload, to_upload, upload


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploading, "_AGAIN_SECONDS", (0.01, 0.01))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A run folder with some files to be copied."""
    for name in ("results.jsonl", "results/de/a.jsonl", "report.json"):
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text(name)
    return tmp_path / "out"


def planned(to: str, out: Path, *names: str) -> SinkSettings:
    settings = SinkSettings(to=to)
    plan_upload(settings, out, [out / name for name in names or ("results.jsonl", "results/de/a.jsonl")])
    return settings


def test_files_are_copied_below_the_url_and_the_report_last(bucket: Any, out: Path) -> None:
    said: list[str] = []
    settings = planned(f"{bucket.url}/runs/one/", out)
    upload(settings, out, said.append)
    assert bucket.requests("PUT")[-1] == "runs/one/report.json"
    assert {key: bucket.get(key).decode() for key in bucket.names()} == {
        f"runs/one/{name}": name for name in ("report.json", "results.jsonl", "results/de/a.jsonl")
    }
    assert said == [f"copied to {bucket.url}/runs/one/: 3 files"]
    bucket.server.requests.clear()
    upload(settings, out, said.append)
    assert bucket.server.requests == []


def test_a_file_system_that_needs_no_server_is_a_place_too(out: Path) -> None:
    files = fsspec.filesystem("memory")
    folder = uuid.uuid4().hex
    try:
        settings = planned(f"memory://{folder}/runs/", out)
        upload(settings, out, lambda _: None)
        there = {
            name.removeprefix(f"/{folder}/runs/"): files.cat_file(name).decode() for name in files.find(f"/{folder}")
        }
    finally:
        files.rm(f"/{folder}", recursive=True)
    assert there == {name: name for name in ("report.json", "results.jsonl", "results/de/a.jsonl")}


def test_a_failure_that_passes_is_not_noticed(bucket: Any, out: Path) -> None:
    left = 2

    def fails(request: str) -> int | None:
        nonlocal left
        if request.startswith("PUT") and "results.jsonl" in request and left:
            left -= 1
            return 500
        return None

    bucket.server.fails = fails
    settings = planned(bucket.url, out)
    upload(settings, out, lambda _: None)
    assert (left, to_upload(settings, out)) == (0, [])


def test_a_failure_that_stays_is_said_and_only_what_is_missing_is_copied_later(bucket: Any, out: Path) -> None:
    settings = planned(bucket.url, out)
    bucket.server.fails = lambda request: 500 if request.startswith("PUT") and "de/a.jsonl" in request else None
    with pytest.raises(
        WriteError, match=r"/results/de/a\.jsonl: could not be copied there: .*We encountered an internal"
    ) as error:
        upload(settings, out, lambda _: None)
    assert f"The results are in {out}; run the same command again, and it copies what is missing" in str(error.value)
    assert bucket.names() == ["results.jsonl"]
    bucket.server.fails = lambda _: None
    bucket.server.requests.clear()
    upload(settings, out, lambda _: None)
    assert bucket.requests("PUT") == ["results/de/a.jsonl", "report.json"]


def test_what_no_patience_helps_against_is_tried_once(bucket: Any, out: Path) -> None:
    settings = planned(bucket.url, out, "results.jsonl")
    bucket.server.fails = lambda request: 403 if request.startswith("PUT") else None
    with pytest.raises(WriteError, match="Access Denied"):
        upload(settings, out, lambda _: None)
    assert bucket.requests("PUT") == ["results.jsonl"]
    bucket.server.fails = lambda _: None
    with pytest.raises(WriteError, match="could not be copied there: The specified bucket does not exist"):
        upload(planned(f"{bucket.url}-not", out), out, lambda _: None)


def test_what_is_outdated_is_removed_and_what_others_put_there_stays(bucket: Any, out: Path) -> None:
    bucket.put("run/theirs.txt", b"x")
    upload(planned(f"{bucket.url}/run", out), out, lambda _: None)
    upload(planned(f"{bucket.url}/run", out, "results.jsonl"), out, lambda _: None)
    assert bucket.names() == ["run/report.json", "run/results.jsonl", "run/theirs.txt"]


def test_a_file_that_is_gone_from_the_run_folder_is_said(bucket: Any, out: Path) -> None:
    settings = planned(bucket.url, out)
    (out / "results" / "de" / "a.jsonl").unlink()
    with pytest.raises(FolderError, match=r"a\.jsonl: is to be copied to .*, and is not there; remove .*uploads\.json"):
        upload(settings, out, lambda _: None)


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_folder_is_a_place_too_and_never_has_half_a_file(out: Path, tmp_path: Path, form: str) -> None:
    to = form.format(tmp_path / "there" / "of it")
    upload(planned(to, out), out, lambda _: None)
    upload(planned(to, out, "results.jsonl"), out, lambda _: None)
    found = sorted(path for path in (tmp_path / "there").rglob("*") if path.is_file())
    assert [path.name for path in found] == ["report.json", "results.jsonl"]
    assert found[1].read_text() == "results.jsonl"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"to": "out"}, "is the run folder, or lies in it"),
        ({"to": "out/copy"}, "is the run folder, or lies in it"),
        ({"to": "foo://x"}, "Protocol not known: foo"),
        ({"to": "copy", "storage_options": {"anon": True}}, "sinks.storage_options is for URLs"),
        ({"storage_options": {"anon": True}}, "sinks.storage_options is for the URL of sinks.to"),
    ],
)
def test_a_place_that_cannot_be_is_refused_before_the_run(
    out: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(out.parent)
    with pytest.raises(JobError, match=said):
        check_destination(SinkSettings(**settings), Path("out"))


def test_a_bucket_that_is_not_there_or_cannot_be_reached_is_refused_before_the_run(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_destination(SinkSettings(to=f"{bucket.url}/runs"), Path("out"))
    with pytest.raises(JobError, match=f"there is no bucket {bucket.name}-not: .*; make it, or look at the name"):
        check_destination(SinkSettings(to=f"{bucket.url}-not/runs"), Path("out"))
    bucket.server.fails = lambda _: 403  # who may write need not be allowed to look
    check_destination(SinkSettings(to=f"{bucket.url}/runs"), Path("out"))
    bucket.server.fails = lambda _: None
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    options = {"skip_instance_cache": True}  # a file system that was made before has its credentials
    with pytest.raises(JobError, match=f"the bucket {bucket.name} cannot be reached: .*look at the endpoint"):
        check_destination(SinkSettings(to=f"{bucket.url}/runs", storage_options=options), Path("out"))


def test_the_page_of_the_run_is_copied_before_its_report_and_one_that_was_not_made_is_not_missed(
    bucket: Any, out: Path
) -> None:
    (out / "report.html").write_text("a page")
    settings = SinkSettings(to=f"{bucket.url}/run")
    for page in (["run/report.html"], []):
        bucket.server.requests.clear()
        plan_upload(settings, out, [out / "results.jsonl"], page=True)
        upload(settings, out, lambda _: None)
        *before, last = bucket.requests("PUT")  # small files are copied at the same time, in any order
        assert (sorted(before), last) == ([*page, "run/results.jsonl"], "run/report.json")
        assert to_upload(settings, out) == []
        (out / "report.html").unlink(missing_ok=True)
    assert bucket.get("run/report.html") == b"a page"
