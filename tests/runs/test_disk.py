"""Disks that are full, fail or cannot be written, made for real: by a limit on file sizes, and as root by mounting small ones."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.errors import WriteError
from llmbatch.core.events import Snapshot
from llmbatch.runs import assembly


def text_rows(count: int) -> list[dict[str, Any]]:
    return [{"id": f"r{i}", "text": f"text {i} " + "x" * 200} for i in range(count)]


@pytest.fixture
def undisturbed(jobs: Any) -> bytes:
    """The results of the run that the tests disturb."""
    jobs.run(jobs.job(jobs.rows(text_rows(300)), output=str(jobs.path / "plain"), run={"window": 50}))
    return bytes(jobs.results("plain"))


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 200 KiB."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(path)]
    # a container's root may not mount either; tests with a limit on file sizes need no mount and run everywhere
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root can mount a file system, and not everywhere")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def remount(path: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(path)], check=True)


@pytest.mark.parametrize("limit", [2_000, 20_000, 100_000])
def test_a_file_that_may_not_grow_ends_the_run_and_accepts_nothing_half_written(
    jobs: Any, undisturbed: bytes, limit: int
) -> None:
    data = jobs.data(jobs.path / "rows.jsonl", run={"window": 50})
    code, _, err = jobs.finish(data, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert code == 1
    assert "(EFBIG)" in err
    assert "Traceback" not in err
    assert not (jobs.path / "out" / "results.jsonl").exists()
    assert jobs.finish(data)[0] == 0
    assert jobs.results() == undisturbed


def test_a_full_disk_ends_the_run_which_goes_on_when_there_is_space(
    jobs: Any, undisturbed: bytes, mounted: Path
) -> None:
    data = jobs.data(jobs.path / "rows.jsonl", output=str(mounted / "out"), run={"window": 50})
    code, _, err = jobs.finish(data)
    assert code == 1
    assert "No space left on device (ENOSPC); free some space and run the same command again" in err
    assert not (mounted / "out" / "results.jsonl").exists()
    remount(mounted, "size=64m")
    code, _, err = jobs.finish(data)
    assert code == 0, err
    assert (mounted / "out" / "results.jsonl").read_bytes() == undisturbed


def test_a_disk_that_becomes_read_only_ends_the_run_which_goes_on_later(
    jobs: Any, undisturbed: bytes, mounted: Path
) -> None:
    remount(mounted, "size=64m")
    (mounted / "out").mkdir()
    remount(mounted, "ro")
    data = jobs.data(jobs.path / "rows.jsonl", output=str(mounted / "out"), run={"window": 50})
    code, _, err = jobs.finish(data)
    assert code == 1
    assert "Read-only file system" in err
    remount(mounted, "rw")
    assert jobs.finish(data)[0] == 0
    assert (mounted / "out" / "results.jsonl").read_bytes() == undisturbed


def test_a_folder_that_cannot_be_made_is_said_before_anything_starts(jobs: Any) -> None:
    data = jobs.data(jobs.rows(text_rows(1)), {"start_seconds": 600}, output="/proc/llmbatch-out")
    code, _, err = jobs.finish(data)
    assert code == 1
    assert "cannot write /proc/llmbatch-out: No such file or directory (ENOENT)" in err


def test_a_run_whose_progress_could_not_be_written_is_closed_all_the_same(
    jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full for one write: the run ends with that, and its report and its manifest say how."""
    real, failed = assembly.write_progress, list[Path]()

    def full_once(folder: Path, snapshot: Snapshot) -> None:
        if not failed:
            failed.append(folder)
            raise WriteError("cannot write progress.json: No space left on device (ENOSPC)")
        real(folder, snapshot)

    monkeypatch.setattr(assembly, "write_progress", full_once)
    job = jobs.job(jobs.rows(text_rows(20)), engine={"args": {"latency": 0.8, "concurrency": 4}})
    with pytest.raises(WriteError, match="ENOSPC"):
        jobs.run(job)
    assert failed and jobs.report()["outcome"] == "broken"
    assert "ENOSPC" in jobs.report()["error"]
    monkeypatch.undo()
    jobs.run(job)
    assert jobs.report()["outcome"] == "finished"
    assert len(jobs.records()) == 20
