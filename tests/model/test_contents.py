from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

from llmbatch.core.errors import JobError
from llmbatch.model import contents as module
from llmbatch.model.contents import commit_of, contents

MIB = 1 << 20
COMMIT, OTHER = "a" * 40, "b" * 40


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with weights of three megabytes and a config."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(bytes(3 * MIB))
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """Where blocks of files were read, with a memory of digests of the test's own, in which a file may be as new as it likes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_SETTLED_SECONDS", -1.0)  # a wait, and not what is tested
    starts: list[int] = []
    read = module._block
    monkeypatch.setattr(module, "_block", lambda file, start: (starts.append(start), read(file, start))[1])
    return starts


def change(path: Path, place: int) -> None:
    """Write one byte into a file, and set its time of modification back to what it was."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(place)
        file.write(b"x")
    set_back(path, before)


def set_back(path: Path, before: os.stat_result) -> None:
    """Give a file its earlier time of modification, in a later tick of the file system's clock."""
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    while path.stat().st_ctime_ns == before.st_ctime_ns:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("place", [0, MIB + 1, 3 * MIB - 1])
@pytest.mark.usefixtures("reads")
def test_a_byte_that_is_changed_anywhere_in_the_weights_is_seen_though_size_and_time_stay(
    model: Path, place: int
) -> None:
    before = contents(model)
    change(model / "model.safetensors", place)
    after = contents(model)
    assert before["config.json"] == after["config.json"]
    assert before["model.safetensors"] != after["model.safetensors"]


def test_weights_that_did_not_change_are_read_once(model: Path, reads: list[int]) -> None:
    first = contents(model)
    reads.clear()
    assert contents(model) == first
    assert len(reads) == 1, "the config alone"


def test_weights_that_were_replaced_by_a_copy_with_the_same_times_are_read_again(
    model: Path, reads: list[int], tmp_path: Path
) -> None:
    weights, trained = model / "model.safetensors", tmp_path / "trained.safetensors"
    shutil.copy2(weights, trained)
    change(trained, 2 * MIB)
    before = contents(model)
    there = weights.stat()
    shutil.copy2(trained, weights)  # in place, as cp -p and rsync --inplace -t do
    set_back(weights, there)
    assert weights.stat().st_mtime_ns == trained.stat().st_mtime_ns
    assert contents(model) != before
    trained.replace(weights)  # by a rename, as rsync -t does: another file
    reads.clear()
    contents(model)
    assert len(reads) == 2


def test_a_file_that_changed_a_moment_ago_is_not_remembered(
    model: Path, reads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be written to once more before the file system's clock moves on."""
    monkeypatch.setattr(module, "_SETTLED_SECONDS", 3600.0)
    contents(model)
    reads.clear()
    contents(model)
    assert len(reads) == 2


@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b"\xff"])
def test_a_memory_that_is_damaged_is_no_answer(model: Path, reads: list[int], tmp_path: Path, damage: bytes) -> None:
    first = contents(model)
    for memory in (tmp_path / "cache").rglob("*.json"):
        memory.write_bytes(damage)
    reads.clear()
    assert contents(model) == first
    assert len(reads) == 2


def test_without_a_place_for_the_memory_files_are_read_each_time(model: Path, reads: list[int], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    first = contents(model)
    assert contents(model) == first
    assert len(reads) == 4


def test_a_file_of_many_blocks_is_the_same_however_it_is_read(
    model: Path, reads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BLOCK", MIB)
    (model / "model.safetensors").write_bytes(b"".join(bytes([i]) * MIB for i in range(3)) + b"end")
    first = contents(model)
    assert sorted(reads) == [0, 0, MIB, 2 * MIB, 3 * MIB]
    (model / "model.safetensors").write_bytes(b"".join(bytes([i]) * MIB for i in (1, 0, 2)) + b"end")
    assert contents(model) != first


def test_what_engines_do_not_read_does_not_count(model: Path) -> None:
    before = contents(model)
    (model / "README.md").write_text("changed")
    (model / "optimizer.pt").write_bytes(b"1")
    (model / ".cache").mkdir()
    (model / ".cache" / "x.json").write_text("1")
    (model / "checkpoint-500").mkdir()
    (model / "checkpoint-500" / "model.safetensors").write_bytes(b"1")
    (model / "dangling.json").symlink_to(model / "nowhere")
    assert contents(model) == before
    (model / "chat_templates").mkdir()
    for name in ("special_tokens_map.json", "tokenizer.model", "modeling_own.py", "chat_templates/tools.jinja"):
        (model / name).write_text("1")
        assert name in contents(model)


def test_a_model_that_is_one_file_counts_with_its_other_parts_and_the_tokenizer_beside_it(tmp_path: Path) -> None:
    for name in (
        "m[1]-00001-of-00002.gguf", "m[1]-00002-of-00002.gguf", "m[1]-00001-of-00003.gguf", "other.gguf", "tokenizer.json",
    ):  # fmt: skip
        (tmp_path / name).write_text(name)
    split = contents(tmp_path / "m[1]-00001-of-00002.gguf")
    assert set(split) == {"m[1]-00001-of-00002.gguf", "m[1]-00002-of-00002.gguf", "tokenizer.json"}
    assert set(contents(tmp_path / "other.gguf")) == {"other.gguf", "tokenizer.json"}


def test_a_file_that_cannot_be_read_is_named(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module, "_block", refused)
    with pytest.raises(JobError, match=r"config\.json: cannot be read: Permission denied"):
        contents(model)


# on the hub


def cached(folder: Path, name: str, commit: str, revision: str = "main") -> None:
    """A model in a cache as the hub's client leaves it: a reference, and a snapshot of that commit."""
    model = folder / f"models--{name.replace('/', '--')}"
    (model / "refs").mkdir(parents=True, exist_ok=True)
    (model / "refs" / revision).write_text(commit)
    (model / "snapshots" / commit).mkdir(parents=True, exist_ok=True)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_a_name_on_the_hub_stands_for_the_commit_in_the_local_cache(hub: Path) -> None:
    assert commit_of("org/model") is None
    cached(hub, "org/model", COMMIT)
    cached(hub, "org/model", OTHER, "v2")
    assert commit_of("org/model") == commit_of("org/model", "main") == commit_of("org/model:Q4_K_M") == COMMIT
    assert commit_of("org/model", "v2") == OTHER
    assert commit_of("org/model", "v3") is None
    assert commit_of("org/model", OTHER) == OTHER


def test_weights_in_a_download_folder_of_their_own_are_those_that_count(hub: Path, tmp_path: Path) -> None:
    cached(hub, "org/model", COMMIT)
    assert commit_of("org/model", None, str(tmp_path / "download")) == COMMIT
    cached(tmp_path / "download", "org/model", OTHER)
    assert commit_of("org/model", None, str(tmp_path / "download")) == OTHER


@pytest.mark.parametrize("name", ["", "/", "../x", "a\0b", "no such model", "x" * 5000, "a/b/c/d"])
@pytest.mark.usefixtures("hub")
def test_what_is_no_name_on_the_hub_stands_for_nothing(name: str) -> None:
    assert commit_of(name) is None
    assert commit_of("org/model", name or "../../x") is None
