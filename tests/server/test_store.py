"""What the store says to be there is there, after whatever happens to its server."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmbatch.core.errors import FolderError, WriteError
from llmbatch.server.store import MIGRATIONS, Batch, Store, StoredFile


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "data")
    yield made
    made.close()


def keep(store: Store, file_id: str, owner: str = "a", **given: int) -> StoredFile:
    file = StoredFile(file_id, owner, "batch", "input.jsonl", 2, created=100, **given)
    store.upload(file_id).write_bytes(b"{}")
    store.keep(file)
    return file


def batch(batch_id: str, owner: str = "a") -> Batch:
    return Batch(batch_id, owner, "openai", 100, None, {"input_file_id": "file-1"})


def test_a_file_is_its_owners_alone(store: Store) -> None:
    file = keep(store, "file-1")
    assert store.file("file-1", "a") == file
    assert store.file("file-1", "b") is None
    assert not store.remove_file("file-1", "b")
    assert store.files("b", purpose=None, after=None, limit=10, descending=True) == []
    assert store.content("file-1").exists()


def test_a_cursor_of_another_owner_shows_nothing(store: Store) -> None:
    keep(store, "file-1")
    keep(store, "file-2", "b")
    assert store.files("b", purpose=None, after="file-1", limit=10, descending=False) == []


def test_a_change_is_made_only_from_the_states_that_it_names(store: Store) -> None:
    store.add_batch(batch("batch_1"))
    assert store.change("batch_1", "in_progress", only=("validating",), rows=3).facts.rows == 3
    unchanged = store.change("batch_1", "in_progress", only=("validating",), rows=4)
    assert (unchanged.state, unchanged.facts.rows) == ("in_progress", 3)
    assert "in_progress" in unchanged.facts.times


def test_files_and_state_change_together_or_not_at_all(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add_batch(batch("batch_1"))
    file = StoredFile("file-out", "a", "batch_output", "out.jsonl", 2, 100)
    monkeypatch.setattr("llmbatch.server.store.asdict", lambda _: {}["fails"])
    with pytest.raises(KeyError):
        store.change("batch_1", "completed", files=[file])
    monkeypatch.undo()
    assert store.file("file-out", "a") is None
    assert store.batch("batch_1") == batch("batch_1")


def test_what_has_no_row_goes_at_the_next_start(tmp_path: Path) -> None:
    store = Store(tmp_path)
    keep(store, "file-1")
    store.add_batch(batch("batch_1"), store.content("file-1"))
    strangers = [store.content("file-2"), store.upload("file-3"), store.content(".file-4.tmp")]
    for stranger in strangers:
        stranger.write_bytes(b"half")
    store.batch_folder("batch_2").mkdir()
    store.close()
    store = Store(tmp_path)
    assert not any(stranger.exists() for stranger in strangers)
    assert not store.batch_folder("batch_2").exists()
    assert store.content("file-1").read_bytes() == store.input("batch_1").read_bytes() == b"{}"
    store.close()


def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    Store(tmp_path).close()
    with sqlite3.connect(tmp_path / "server.sqlite") as db:
        db.execute(f"pragma user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(FolderError, match="newer llmbatch"):
        Store(tmp_path)
    assert not (tmp_path / "lock").exists()


def test_a_store_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "server.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(FolderError, match="cannot be used"):
        Store(tmp_path)


def test_a_store_whose_disk_is_full_says_so_and_goes_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    (pages,) = store._writer.execute("pragma page_count").fetchone()
    store._writer.execute(f"pragma max_page_count = {pages}")
    large = Batch("batch_large", "a", "openai", 100, None, {"metadata": "x" * 1_000_000})
    with pytest.raises(WriteError, match="full"):
        store.add_batch(large)
    store._writer.execute("pragma max_page_count = 100000")
    store.add_batch(batch("batch_last"))
    assert store.batch("batch_last") is not None


def test_a_batch_that_could_not_be_made_can_be_made_later(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(store, "file-1")

    def full(_: Path) -> None:
        raise WriteError("no room")

    monkeypatch.setattr("llmbatch.server.store.fsync_folder", full)
    with pytest.raises(WriteError):
        store.add_batch(batch("batch_1"), store.content("file-1"))
    monkeypatch.undo()
    assert not store.batch_folder("batch_1").exists()
    store.add_batch(batch("batch_1"), store.content("file-1"))
    assert store.input("batch_1").read_bytes() == b"{}"


def test_a_batch_of_a_file_that_was_deleted_meanwhile_is_none(store: Store) -> None:
    with pytest.raises(FileNotFoundError):
        store.add_batch(batch("batch_1"), store.content("file-1"))
    assert not store.batch_folder("batch_1").exists()
    assert store.batch("batch_1") is None


def test_a_batch_is_not_taken_in_twice_and_the_first_one_stays(store: Store) -> None:
    keep(store, "file-1")
    store.add_batch(batch("batch_1"), store.content("file-1"))
    with pytest.raises(WriteError):
        store.add_batch(batch("batch_1"), store.content("file-1"))
    assert store.input("batch_1").read_bytes() == b"{}"


def test_a_file_that_cannot_be_taken_in_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise WriteError("no room")

    monkeypatch.setattr("llmbatch.server.store._insert_files", full)
    with pytest.raises(WriteError):
        keep(store, "file-1")
    assert not list((store.folder / "files").iterdir())
    assert not list((store.folder / "uploads").iterdir())


def test_where_there_are_no_hard_links_the_input_is_copied(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError("no links here")

    keep(store, "file-1")
    monkeypatch.setattr("os.link", none)
    store.add_batch(batch("batch_1"), store.content("file-1"))
    store.remove_file("file-1", "a")
    assert store.input("batch_1").read_bytes() == b"{}"


@pytest.mark.parametrize(
    ("ended", "kept_file", "stays"),
    [(100, False, False), (100, True, True), (None, False, True)],
    ids=["long ago", "long ago, of a file that is here", "just now"],
)
def test_the_folder_of_a_batch_whose_results_are_elsewhere_goes_long_after_its_end(
    store: Store, monkeypatch: pytest.MonkeyPatch, ended: int | None, kept_file: bool, stays: bool
) -> None:
    if kept_file:
        keep(store, "file-1")
    store.add_batch(batch("batch_1"))
    with monkeypatch.context() as then:
        if ended is not None:
            then.setattr("llmbatch.server.store.time.time", lambda: ended)
        store.change("batch_1", "completed")
    store.remove_expired()
    assert store.batch_folder("batch_1").is_dir() is stays
    assert store.batch("batch_1") is not None, "what became of it is still told"


def test_the_folder_of_a_batch_that_is_not_over_stays(store: Store) -> None:
    store.add_batch(batch("batch_1"))
    store.remove_expired()
    assert store.batch_folder("batch_1").is_dir()
