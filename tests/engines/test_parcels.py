"""Files for other machines: what is there is not sent, and what is sent is the same there."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from llmbatch.engines.cluster import parcels
from llmbatch.engines.cluster.parcels import Listing, Shelf, chunks_of, listing_of


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "empty").write_bytes(b"")
    (folder / "deep" / "weights").write_bytes(bytes(range(256)) * 10)
    return folder


def elsewhere(place: Path) -> Listing:
    """What is there, by a path that leads nowhere on this machine; its last part is the same."""
    return listing_of(place)._replace(place=f"/nowhere/{place.name}")


def sent(shelf: Shelf, listing: Listing, source: Path) -> str:
    assert shelf.begin(listing) is None
    for chunk in chunks_of(listing._replace(place=str(source))):
        shelf.add(chunk)
    return shelf.end()


def test_what_lies_at_the_same_path_is_not_sent(model: Path, tmp_path: Path) -> None:
    assert Shelf(tmp_path / "shelf").find(listing_of(model)) == str(model)


def test_a_folder_arrives_as_it_is_in_pieces(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parcels, "CHUNK_BYTES", 1000)
    shelf, listing = Shelf(tmp_path / "shelf"), elsewhere(model)
    assert shelf.find(listing) is None
    place = Path(sent(shelf, listing, model))
    assert place.name == "model"
    assert {p.relative_to(place): p.read_bytes() for p in place.rglob("*") if p.is_file()} == {
        p.relative_to(model): p.read_bytes() for p in model.rglob("*") if p.is_file()
    }
    assert Shelf(tmp_path / "shelf").find(listing) == str(place), "the next engine of this machine has it"


def test_a_file_arrives_under_its_name(tmp_path: Path) -> None:
    script = tmp_path / "script.yaml"
    script.write_text("rules: []")
    place = Path(sent(Shelf(tmp_path / "shelf"), elsewhere(script), script))
    assert (place.name, place.read_text()) == ("script.yaml", "rules: []")


def test_a_folder_that_was_changed_is_another_one(model: Path, tmp_path: Path) -> None:
    shelf, before = Shelf(tmp_path / "shelf"), elsewhere(model)
    sent(shelf, before, model)
    (model / "config.json").write_text("[]")
    assert shelf.find(elsewhere(model)) is None


def test_whoever_wants_the_same_waits_for_it(model: Path, tmp_path: Path) -> None:
    listing, found = elsewhere(model), list[str | None]()
    first, second = Shelf(tmp_path / "shelf"), Shelf(tmp_path / "shelf")
    assert first.begin(listing) is None
    waiting = threading.Thread(target=lambda: found.append(second.begin(listing)))
    waiting.start()
    for chunk in chunks_of(listing._replace(place=str(model))):
        first.add(chunk)
    assert found == []
    place = first.end()
    waiting.join()
    assert found == [place]


def test_what_a_killed_sender_left_is_begun_anew(model: Path, tmp_path: Path) -> None:
    listing, killed = elsewhere(model), Shelf(tmp_path / "shelf")
    assert killed.begin(listing) is None
    killed.add(next(chunks_of(listing._replace(place=str(model)))))
    assert killed._lock is not None
    killed._lock.close()  # as the end of its process does
    assert Shelf(tmp_path / "shelf").find(listing) is None
    sent(Shelf(tmp_path / "shelf"), listing, model)


def test_what_was_changed_while_it_was_sent_is_refused(model: Path, tmp_path: Path) -> None:
    shelf, listing = Shelf(tmp_path / "shelf"), elsewhere(model)
    (model / "config.json").write_text("{ }")
    with pytest.raises(OSError, match="was changed while it was sent"):
        sent(shelf, listing, model)
    assert shelf.find(listing) is None
