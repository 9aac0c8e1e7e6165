from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmbatch.core.errors import WriteError
from llmbatch.core.files import atomic, atomic_folder, atomic_write, fsync_folder


@pytest.fixture
def small_files_only() -> Iterator[int]:
    """No file of this process may grow beyond 64 KiB: writing fails half-way, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    yield 1 << 16
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_writes_bytes_and_chunks_and_returns_the_size(tmp_path: Path) -> None:
    assert atomic_write(tmp_path / "a", b"one") == 3
    assert atomic_write(tmp_path / "b", (chunk for chunk in (b"one", b"", b"two"))) == 6
    assert (tmp_path / "a").read_bytes() == b"one"
    assert (tmp_path / "b").read_bytes() == b"onetwo"


def test_replaces_what_was_there_and_leaves_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    atomic_write(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["a"]


def test_a_failure_half_way_keeps_the_old_file_and_leaves_no_other(tmp_path: Path, small_files_only: int) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(WriteError, match="File too large"):
        atomic_write(path, (b"x" * 1000 for _ in range(small_files_only // 1000 + 1)))
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_an_error_of_the_block_keeps_the_old_file_and_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), atomic(path) as stream:
        stream.write(b"half" * (1 // 0))
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_a_write_error_names_the_path_the_errno_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "a"
    with pytest.raises(WriteError) as caught:
        atomic_write(path, b"")
    assert str(path) in str(caught.value)
    assert "No such file or directory (ENOENT)" in str(caught.value)
    assert "create the folder" in str(caught.value)
    assert ".tmp" not in str(caught.value)


def test_a_full_device_is_a_write_error_that_asks_for_space(tmp_path: Path) -> None:
    (tmp_path / ".a.tmp").symlink_to("/dev/full")
    with pytest.raises(WriteError, match=r"No space left on device \(ENOSPC\); free some space"):
        atomic_write(tmp_path / "a", b"x")
    assert names(tmp_path) == []


def test_what_a_killed_writer_left_is_overwritten(tmp_path: Path) -> None:
    target = str(tmp_path / "a")
    code = f"from llmbatch.core.files import atomic_write; import pathlib; atomic_write(pathlib.Path({target!r}), b'1')"
    environment = {**os.environ, "LLMBATCH_FAULT": "temp-written"}
    killed = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert names(tmp_path) == [".a.tmp"]
    atomic_write(tmp_path / "a", b"2")
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"2"


def test_files_get_the_permissions_that_the_umask_leaves(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        atomic_write(tmp_path / "a", b"")
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_syncing_a_folder_that_is_not_there_is_a_write_error(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="missing"):
        fsync_folder(tmp_path / "missing")


def fill(path: Path, *contents: str) -> None:
    with atomic_folder(path) as folder:
        for content in contents:
            (folder / content).write_text(content)


def test_a_folder_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    fill(tmp_path / "a", "one", "two")
    fill(tmp_path / "a", "three")
    assert names(tmp_path) == ["a"]
    assert names(tmp_path / "a") == ["three"]


def test_a_folder_that_is_not_finished_leaves_what_was_there(tmp_path: Path) -> None:
    fill(tmp_path / "a", "one")
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "a") as folder:
        (folder / "two").write_text(str(1 // 0))
    assert names(tmp_path) == ["a"]
    assert names(tmp_path / "a") == ["one"]


@pytest.mark.parametrize(("count", "at_once"), [(3, False), (100, True)])
def test_few_files_of_a_folder_are_synced_by_themselves_and_very_many_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, at_once: bool
) -> None:
    synced: set[int] = set()
    all_at_once: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.add(os.fstat(handle).st_ino))
    monkeypatch.setattr(os, "sync", lambda: all_at_once.append(True))
    with atomic_folder(tmp_path / "a") as folder:
        (folder / "deep").mkdir()
        for number in range(count):
            (folder / "deep" / str(number)).write_text("x")
    inside = [tmp_path / "a", *(tmp_path / "a").rglob("*")]
    assert synced == {path.stat().st_ino for path in [tmp_path, *(() if at_once else inside)]}
    assert all_at_once == [True] * at_once


def test_what_a_killed_writer_of_a_folder_left_is_removed(tmp_path: Path) -> None:
    for name in (".a.tmp", ".a.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "left").write_text("x")
    fill(tmp_path / "a", "one")
    assert names(tmp_path) == ["a"]
    assert names(tmp_path / "a") == ["one"]


def test_a_full_disk_in_a_folder_is_a_write_error(tmp_path: Path, small_files_only: int) -> None:
    with pytest.raises(WriteError, match=r"cannot write .*/a: File too large"), atomic_folder(tmp_path / "a") as folder:
        (folder / "big").write_bytes(b"x" * 2 * small_files_only)
    assert names(tmp_path) == []
