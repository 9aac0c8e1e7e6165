"""Files, packed: what was put in comes out."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from llmbatch.sources.file_list import File, FileList
from llmbatch.sources.places import by_parts, find_here

FILES = [
    File("a.txt", 0, 1_700_000_000_123_456_789), File("ö/“b” 😀.txt", 2**40, 0), File("half \udcff of a name", 1, -1),
    File("", 7, 7),
]  # fmt: skip


def test_what_was_put_in_comes_out_one_by_one_in_slices_and_all() -> None:
    files = FileList(iter(FILES))
    assert list(files) == FILES and len(files) == len(FILES)
    assert [files[at] for at in range(-4, 4)] == FILES * 2
    assert files[1:3] == FILES[1:3] and files[:0] == [] and files[::-1] == FILES[::-1]
    assert FILES[2] in files and files.index(FILES[3]) == 3
    with pytest.raises(IndexError):
        files[4]
    assert list(FileList([])) == []


def test_a_file_takes_its_name_and_a_few_numbers() -> None:
    count = 20_000
    tracemalloc.start()
    try:
        files = FileList(File(f"{number:08d}.txt", number, 10**18 + number) for number in range(count))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 50 * count, files


def test_a_folder_is_walked_through_in_the_order_of_the_parts_of_names(tmp_path: Path) -> None:
    names = ["b/c.txt", "b.txt", "b-/c.txt", "b/c/d.txt", "b/c/.hidden/e.txt", "a", "b/c!", ".hidden", "z/y/x/w"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    found = find_here(str(tmp_path), folders=True)
    seen = [name for name in names if "hidden" not in name]
    assert [file.name for file in found.place.files] == sorted(seen, key=by_parts)
    assert found.hidden == 2
