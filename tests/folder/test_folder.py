from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmbatch.core.errors import FolderError, JobError, Locked
from llmbatch.folder.folder import RunFolder, read_manifest

ONE = {"model": '"a"', "sampling.n": "1"}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    folder = RunFolder(tmp_path / "deep" / "out")
    folder.open()
    yield folder
    folder.close()


def again(folder: RunFolder) -> RunFolder:
    """The folder as the next session finds it."""
    folder.close()
    other = RunFolder(folder.path)
    other.open()
    return other


def test_a_new_folder_is_made_with_all_above_it_and_has_no_manifest(folder: RunFolder) -> None:
    assert folder.parts.folder.is_dir()
    assert folder.manifest is None


def test_sessions_are_counted_and_kept_with_their_outcome(folder: RunFolder) -> None:
    assert folder.begin_session(ONE, [{"file": "a"}], 0) == 1
    folder.end_session("stopped", rows=4)
    other = again(folder)
    assert other.begin_session(ONE, [{"file": "a"}], 4) == 2
    other.close()
    manifest = read_manifest(folder.path)
    assert manifest is not None
    assert manifest.identity == ONE
    assert [(session["outcome"], session.get("rows")) for session in manifest.sessions] == [
        ("stopped", 4),
        (None, None),
    ]


def test_another_identity_is_refused_naming_each_change(folder: RunFolder) -> None:
    folder.begin_session(ONE, [], 0)
    with pytest.raises(
        FolderError, match=r'model was "a", now "b"; new was not set, now 2; sampling\.n was 1, now not set'
    ):
        folder.begin_session({"model": '"b"', "new": "2"}, [], 0)


def test_sessions_that_were_killed_without_getting_anywhere_are_counted(folder: RunFolder) -> None:
    assert folder.crashes(0) == 0
    for done, outcome in ((0, "stopped"), (5, None), (5, None)):
        folder.begin_session(ONE, [], done)
        if outcome:
            folder.end_session(outcome)
    assert folder.crashes(5) == 2
    assert folder.crashes(6) == 0, "the last one got somewhere"


def test_a_session_that_ended_well_breaks_the_count(folder: RunFolder) -> None:
    for outcome in (None, "stopped", None):
        folder.begin_session(ONE, [], 5)
        if outcome:
            folder.end_session(outcome)
    assert folder.crashes(5) == 1


def test_a_folder_in_use_is_refused(folder: RunFolder) -> None:
    with pytest.raises(Locked):
        RunFolder(folder.path).open()


def test_a_folder_with_other_files_is_refused_naming_them_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(FolderError, match=r"thesis\.tex"):
        RunFolder(tmp_path).open()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("output", ["rows.jsonl", "rows.jsonl/out", "rows.jsonl/deep/out"])
def test_a_file_is_no_folder_and_has_none_below_it(tmp_path: Path, output: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("x")
    with pytest.raises(JobError, match=r"as \S+/rows\.jsonl is a file; --output names a folder") as caught:
        RunFolder(tmp_path / output).open()
    assert str(caught.value).startswith(f"{tmp_path / output}: ")
    assert file.read_text() == "x"


def test_a_file_where_the_parts_would_lie_is_named(folder: RunFolder) -> None:
    folder.close()
    folder.parts.folder.rmdir()
    folder.parts.folder.write_text("x")
    with pytest.raises(JobError, match=r"as \S+/parts is a file"):
        RunFolder(folder.path).open()


def test_a_manifest_of_a_newer_version_is_refused_and_the_lock_given_back(folder: RunFolder) -> None:
    folder.begin_session(ONE, [], 0)
    folder.close()
    path = folder.path / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "llmbatch_run": 99}))
    with pytest.raises(FolderError, match=r"newer llmbatch \(version 99\)"):
        RunFolder(folder.path).open()
    assert not (folder.path / "lock").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"llmbatch_run": "x"}', '{"llmbatch_run": 1}'])
def test_a_damaged_manifest_is_refused(folder: RunFolder, content: str) -> None:
    folder.close()
    (folder.path / "run.json").write_text(content)
    with pytest.raises(FolderError, match="cannot be read as a run's manifest"):
        RunFolder(folder.path).open()
