"""Runs on file systems that fill up, fail or cannot be written, made for real where this machine allows it; figures out."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import corpora
import sessions

_SIZES = (48, 96, 160, 240, 320, 448)  # KiB; a whole run folder takes about 400
_BAD_FROM = (8750, 8850, 9000)


@dataclass(slots=True)
class Disk:
    """How many write errors were caused, by kind, and what was wrong after them."""

    errors: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def failed(self, kind: str) -> None:
        self.errors[kind] = self.errors.get(kind, 0) + 1


def write_errors(folder: Path) -> Disk:
    """Each kind of write error, and the same command again when the disk is well."""
    disk = Disk()
    scenario = corpora.SCENARIOS[0]
    (input_ := folder / "input").mkdir(exist_ok=True)
    corpora.write_input(scenario, input_)
    reference = folder / "undisturbed"
    sessions.finish(corpora.make_job(scenario, input_, reference, latency=0.01))

    def run(output: Path, wanted: str | None, prepare: Callable[[], None] | None = None) -> bool:
        """Run the command; whether it ended with the write error that was wanted, having accepted nothing as done."""
        file = folder / "job.yaml"
        file.write_text(corpora.make_job(scenario, input_, output, latency=0.01).to_yaml(), encoding="utf-8")
        command = [sys.executable, "-m", "llmbatch.cli", "run", str(file), "--output", str(output), "--quiet"]
        # what Python compiles while a file may be no larger stays cut off, and no later command could import it
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, preexec_fn=prepare)
        if wanted is None:
            if done.returncode not in (0, 3) or not (verdict := sessions.compare(output, reference, scenario.files)).ok:
                disk.problems.append(f"{output}: did not come right: {done.stderr or verdict}")
            return False
        if done.returncode in (0, 3):
            return False
        results = output / "results.jsonl"
        if done.returncode != 1 or wanted not in done.stderr or "Traceback" in done.stderr:
            disk.problems.append(f"{output}: exit code {done.returncode}, said: {done.stderr}")
        if results.exists() and results.read_bytes() != (reference / "results.jsonl").read_bytes():
            disk.problems.append(f"{results}: is there, and is not whole")
        return True

    for limit in _SIZES:
        output = folder / f"file-size-{limit}"
        if run(output, "EFBIG", lambda limit=limit: _limit(limit << 8)):  # type: ignore[misc]
            disk.failed("EFBIG (file size limit)")
        run(output, None)
    for size in _SIZES:
        with _mounted(folder / f"full-{size}", f"size={size}k", disk) as mount:
            if mount is None:
                break
            if run(mount / "out", "ENOSPC"):
                disk.failed("ENOSPC (full tmpfs)")
            _mount("-o", "remount,size=64m", str(mount))
            run(mount / "out", None)
    with _mounted(folder / "read-only", "size=64m", disk) as mount:
        if mount is not None:
            _mount("-o", "remount,ro", str(mount))
            if run(mount / "out", "Read-only file system"):
                disk.failed("EROFS (read-only file system)")
            _mount("-o", "remount,rw", str(mount))
            run(mount / "out", None)
    for size in _BAD_FROM:
        _bad_device(folder, disk, run, size)
    return disk


def _bad_device(folder: Path, disk: Disk, run: Callable[..., bool], size: int) -> None:
    """A block device of which all beyond ``size`` KiB is gone while it is mounted; later it is there again."""
    image, mount = folder / f"image-{size}", folder / f"device-{size}"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(32 << 20)
    made = subprocess.run(
        ["mkfs.ext4", "-q", "-N", "256", "-O", "^has_journal", str(image)], capture_output=True, check=False
    )
    if os.geteuid() != 0 or made.returncode or not _mount("-o", "loop", str(image), str(mount)):
        disk.skipped.append("EIO: no loop device can be mounted here")
        return

    def resize(size: int) -> None:
        os.truncate(image, size)
        found = subprocess.run(
            ["losetup", "-n", "-O", "NAME", "-j", str(image)], capture_output=True, text=True, check=True
        )
        subprocess.run(["losetup", "-c", found.stdout.strip()], check=True)

    try:
        resize(size << 10)
        if run(mount / "out", "EIO"):
            disk.failed("EIO (device that fails)")
        else:
            disk.skipped.append(f"EIO beyond {size} KiB: the device did not fail")
        resize(32 << 20)
    finally:
        subprocess.run(["umount", str(mount)], check=False)
    subprocess.run(["e2fsck", "-fy", str(image)], capture_output=True, check=False)
    if _mount("-o", "loop", str(image), str(mount)):
        run(mount / "out", None)
        subprocess.run(["umount", str(mount)], check=False)


def _limit(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@contextlib.contextmanager
def _mounted(path: Path, options: str, disk: Disk) -> Iterator[Path | None]:
    path.mkdir()
    if os.geteuid() != 0 or not _mount("-t", "tmpfs", "-o", options, "tmpfs", str(path)):
        disk.skipped.append(f"{path.name}: only root can mount a file system, and not everywhere")
        yield None
        return
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=False)


def _mount(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0
