from __future__ import annotations

from pathlib import Path

import pytest

from llmbatch.core.errors import FolderError
from llmbatch.folder.uploads import Uploads


def test_what_arrived_is_no_longer_owed(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    assert uploads.owed("s3://a") is None
    uploads.plan("s3://a", ["x", "y/\nz"])
    uploads.arrived("y/\nz")
    assert Uploads(tmp_path).owed("s3://a") == ["x"]
    assert Uploads(tmp_path).owed("s3://b") is None


def test_new_files_are_owed_anew_and_those_there_are_no_more_are_outdated(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    uploads.plan("s3://a", ["x", "y"])
    uploads.arrived("x")
    uploads.plan("s3://a", ["x", "z"])
    assert (uploads.owed("s3://a"), uploads.outdated()) == (["x", "z"], ["y"])
    uploads.plan("s3://a", ["y"])
    assert uploads.outdated() == ["x", "z"]
    uploads.plan("s3://b", ["y"])
    assert uploads.outdated() == []


def test_a_line_that_a_kill_cut_off_is_a_file_that_is_owed(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    uploads.plan("s3://a", ["x", "y", "z"])
    uploads.arrived("x")
    with (tmp_path / "uploads.done").open("a") as file:
        file.write('"y')
    uploads.arrived("z")  # behind the half line: it is owed again too
    assert uploads.owed("s3://a") == ["y", "z"]


def test_a_plan_that_is_damaged_is_said(tmp_path: Path) -> None:
    (tmp_path / "uploads.json").write_text("{oops")
    with pytest.raises(FolderError, match=r"uploads\.json: cannot be read.*remove it, and all is copied again"):
        Uploads(tmp_path).owed("s3://a")
