from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.errors import JobError
from llmbatch.systems import SYSTEMS
from llmbatch.systems.base import Assets, FromDocument, read_job_document, unused_assets


class Kitchen:
    name = "kitchen"

    def recognizes(self, document: Any, path: Path) -> bool:
        return isinstance(document, dict) and "Recipe" in document

    def job(self, document: Any, path: Path, assets: Assets) -> FromDocument:
        return FromDocument(
            {"model": assets.model(document["Recipe"])}, "soup", [f"{path.name} is a recipe"], ["Spoon"]
        )


@pytest.fixture(autouse=True)
def kitchen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SYSTEMS, "kitchen", f"{__name__}:Kitchen")


@pytest.mark.parametrize(("name", "text"), [("a.json", '{"Recipe": "m"}'), ("a.yml", "Recipe: m\n")])
def test_a_document_is_known_by_its_keys(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    read = read_job_document(tmp_path / name, Assets({"m": "demo"}))
    assert read is not None
    assert read.job == {"model": "demo"}
    assert read.notes() == [f"{name} is a recipe", "Spoon: has no effect here"]


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.yaml", "model: demo\n"), ("a.yaml", "a: [\n"), ("a.json", '{"model": "demo"}'), ("a.json", "[1]")],
)
def test_any_other_file_is_none(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read_job_document(tmp_path / name, Assets()) is None


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson.gz"])
def test_a_file_of_json_lines_is_the_input(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    assert read_job_document(tmp_path / name, Assets()) == FromDocument({"input": {"path": str(tmp_path / name)}}, "a")


def test_an_asset_that_no_address_begins_with_is_said(tmp_path: Path) -> None:
    document = tmp_path / "a.json"
    document.write_text('{"Recipe": "m", "Pots": ["s3://kitchen/pots/1"]}')
    given = {"s3://kitchen": "k", "s3://kitchen/pots/": "p", "s3://kitchn": "k", "s3://kitchen/pot": "p", "m": "demo"}
    assert unused_assets(document, given) == [
        f"--asset {name}: no address in {document} begins with it" for name in ("s3://kitchn", "s3://kitchen/pot")
    ]
    (tmp_path / "a.jsonl").write_text("{}")
    assert unused_assets(tmp_path / "a.jsonl", given) == []


def test_broken_json_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"Recipe": "m"})[:-2])
    with pytest.raises(JobError, match=r"a\.json: not JSON: "):
        read_job_document(tmp_path / "a.json", Assets())


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("s3://corpus/in/a.jsonl", "/here/in/a.jsonl"),
        ("s3://corpus/deep/b", "/there/b"),
        ("s3://corpus", "/here"),
        ("s3://corpus-b/in", "s3://corpus-b/in"),
        ("gs://other/x", "gs://other/x"),
    ],
)
def test_the_longest_known_beginning_of_an_address_is_put_in_its_place(address: str, place: str) -> None:
    assert Assets({"s3://corpus": "/here", "s3://corpus/deep": "/there/"}).place(address) == place
