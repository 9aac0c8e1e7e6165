from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import llmbatch
from llmbatch.core.errors import FolderError, JobError, PromptError, RunError

pytestmark = pytest.mark.usefixtures("forked")

WORDS = [
    f"{ten}{one}"
    for ten in ("one", "two", "three", "four")
    for one in ("", "a", "b", "c", "d", "e", "f", "g", "h", "i")
]


def rows(count: int, **more: Any) -> list[dict[str, Any]]:
    """Rows whose texts have nothing in common."""
    return [{"id": f"r{i}", "text": " ".join(f"{word}{i}" for word in WORDS), **more} for i in range(count)]


# what is left out


def test_rows_that_do_not_meet_a_condition_are_left_out_and_told_why(run: Any, published: Any) -> None:
    rules = [{"when": {"contains": f"one{i} "}, "answer": json.dumps({"score": i})} for i in range(3)]
    script = {"rules": [*rules, {"when": {"contains": "one3 "}, "answer": "{}"}, {"answer": "nothing"}]}
    folder = run(rows(5), script, answer={"schema": {"type": "object"}}, retry={"max_attempts": 1})
    done = published(folder, where="output.score >= 1")
    assert [row["id"] for row in published.rows()] == ["r1", "r2"]
    assert done.dropped == {"not output.score >= 1": 1, "undecided: output.score >= 1": 1, "status invalid": 1}
    left_out = {line["id"]: line for line in published.dropped()}
    assert left_out["r3"]["message"] == "row 'r3': 'dict object' has no attribute 'score'"
    assert (done.records, done.rows) == (5, 2)


def test_answers_are_held_to_lengths(run: Any, published: Any) -> None:
    folder = run([{"id": i, "text": "x" * i} for i in (1, 5, 9)])
    done = published(folder, min_chars=2, max_chars=8)
    assert [row["id"] for row in published.rows()] == ["5"]
    assert done.dropped == {"too_short": 1, "too_long": 1}


def test_the_pages_of_runs_are_published_where_that_is_asked_for(run: Any, published: Any) -> None:
    one, two = run(rows(2), name="one"), run([{"id": "z", "text": "another"}], name="two")
    published(one)
    assert not (published.folder / "reports").exists()
    published(one, two, report=True)
    for folder in (one, two):
        assert (published.folder / "reports" / f"{folder.name}.html").read_bytes() == (
            folder / "report.html"
        ).read_bytes()
        assert f"(reports/{folder.name}.html)" in published.card()
    (two / "report.html").unlink()
    with pytest.raises(FolderError, match=r"two/report\.html: cannot be read: .*; llmbatch report .*two writes it"):
        published(two, report=True)


def test_where_nothing_is_left_the_reasons_are_said_and_nothing_is_written(run: Any, published: Any) -> None:
    folder = run(rows(2))
    with pytest.raises(
        RunError, match=r"nothing is left to publish of 2 records: undecided: output.score > 1: 2 \(first: row 'r0'"
    ):
        published(folder, where="output.score > 1")
    assert not published.folder.exists()
    assert not list(published.folder.parent.glob(".dataset*"))


@pytest.mark.parametrize("setting", ["columns", "duplicates_in", "group_by"])
def test_a_field_that_no_row_has_is_named_with_those_there_are(run: Any, published: Any, setting: str) -> None:
    with pytest.raises(JobError, match=rf"{setting}: no row has input.txt; input has id, text"):
        published(run(rows(2)), split={"test": 0.5}, **{setting: "input.txt"})


def test_a_condition_that_is_wrong_is_said_before_anything_is_read(published: Any, tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="the condition 'output >' is wrong"):
        published(tmp_path / "nowhere", where="output >")


# duplicates


def test_the_first_of_equal_and_of_nearly_equal_rows_stays_and_the_others_know_it(run: Any, published: Any) -> None:
    some = rows(3)
    near = {"id": "near", "text": some[1]["text"].replace("fouri1", "fifty")}
    folder = run([*some, {**some[0], "id": "equal"}, near, {**near, "id": "equal to near"}])
    done = published(folder, similarity=0.7)
    assert [row["id"] for row in published.rows()] == ["r0", "r1", "r2"]
    found = {line["id"]: (line["reason"], line["of"]["id"]) for line in published.dropped()}
    assert found == {
        "equal": ("exact_duplicate", "r0"), "near": ("near_duplicate", "r1"), "equal to near": ("near_duplicate", "r1"),
    }  # fmt: skip
    assert 0.7 <= next(line["similarity"] for line in published.dropped() if line["id"] == "near") < 1
    assert done.dropped == {"exact_duplicate": 1, "near_duplicate": 2}
    assert published(folder, duplicates="exact").rows == 4
    assert published(folder, duplicates="keep").rows == 6


def test_rows_are_compared_by_the_fields_that_are_named(run: Any, published: Any) -> None:
    script = {"rules": [{"when": {"contains": "one0 "}, "answer": "yes"}, {"answer": "no"}]}
    folder = run(rows(4), script)
    published(folder)
    assert len(published.rows()) == 4
    published(folder, duplicates_in="output")
    assert [row["id"] for row in published.rows()] == ["r0", "r1"]


def test_rows_of_several_runs_are_one_dataset_without_repetitions(run: Any, published: Any) -> None:
    done = published(run(rows(3)), run(rows(5), name="other"))
    assert [(row["run"], row["id"]) for row in published.rows()] == [
        ("run", "r0"), ("run", "r1"), ("run", "r2"), ("other", "r3"), ("other", "r4"),
    ]  # fmt: skip
    assert done.records == 8
    assert published.dropped()[0]["of"] == {"run": "run", "id": "r0", "index": 0}


# splits


def test_no_group_lies_on_two_sides_and_rows_stay_where_they_are_as_others_come(run: Any, published: Any) -> None:
    many = [{**row, "topic": f"t{i % 20}"} for i, row in enumerate(rows(200))]

    def sides(folder: Path) -> dict[str, str]:
        published(folder, split={"test": 0.2, "dev": 0.2}, group_by="input.topic", columns="input.topic")
        return {row["id"]: split for split in ("train", "test", "dev") for row in published.rows(split)}

    before, after = sides(run(many[:150])), sides(run(many, name="more"))
    assert {row_id: after[row_id] for row_id in before} == before
    assert set(after.values()) == {"train", "test", "dev"}
    for topic in range(20):
        assert len({after[f"r{i}"] for i in range(topic, 200, 20)}) == 1


def test_near_duplicates_that_stay_lie_on_one_side_with_their_groups(run: Any, published: Any) -> None:
    many = rows(60)
    twins = [{"id": f"twin{i}", "text": "uno" + row["text"].removeprefix("one")} for i, row in enumerate(many)]
    published(run([*many, *twins]), split={"test": 0.3}, duplicates="exact", group_by="id", similarity=0.7)
    sides = {row["id"]: split for split in ("train", "test") for row in published.rows(split)}
    assert len(sides) == 120
    assert all(sides[f"r{i}"] == sides[f"twin{i}"] for i in range(60))
    assert set(sides.values()) == {"train", "test"}


def test_a_split_that_no_row_falls_to_is_refused(run: Any, published: Any) -> None:
    folder = run([{**row, "topic": "one"} for row in rows(5)])
    with pytest.raises(JobError, match="split: no row falls to test, as the 5 rows are in too few groups"):
        published(folder, split={"test": 0.1}, group_by="input.topic")


# the folder


def test_the_folder_is_loaded_with_its_splits(run: Any, published: Any, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    published(run(rows(40)), split={"test": 0.3}, arrow=True)
    loaded = datasets.load_dataset(str(published.folder), cache_dir=str(tmp_path / "cache"))
    assert {name: len(split) for name, split in loaded.items()} == {
        name: len(published.rows(name)) for name in ("train", "test")
    }
    assert loaded["train"][0] == published.rows()[0]
    assert datasets.load_from_disk(str(published.folder / "arrow"))["test"].to_list() == published.rows("test")


def test_the_card_says_where_the_rows_are_from(run: Any, published: Any) -> None:
    folder = run(rows(20), sampling={"max_tokens": 77}, prompt={"path": "Say ```: {{ text }}"})
    published(folder, license="cc-by-4.0", title="Sayings", language=["en"], split={"test": 0.5})
    card = published.card()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["license"] == "cc-by-4.0"
    assert front["pretty_name"] == "Sayings"
    assert front["language"] == ["en"]
    assert front["size_categories"] == ["n<1K"]
    assert {"synthetic", "llmbatch"} <= set(front["tags"])
    assert front["configs"][0]["data_files"][1] == {"split": "test", "path": "data/test-*.parquet"}
    manifest = json.loads((folder / "run.json").read_bytes())
    for fact in (
        "`any`",
        "max_tokens `77`",
        "Say ```: {{ text }}",
        manifest["identity"]["prompt (text)"],
        "scripted",
        "20 ok",
    ):
        assert fact in card
    assert str(folder.parent) not in card + (published.folder / "provenance.json").read_text()


def test_a_licence_that_nobody_gave_is_said_to_be_unknown(run: Any, published: Any) -> None:
    published(run(rows(2)))
    assert yaml.safe_load(published.card().split("---\n")[1])["license"] == "unknown"
    assert "Unknown: whoever published this named none" in published.card()


def test_refusals_are_counted_in_the_card(run: Any, published: Any) -> None:
    script = {"rules": [{"when": {"contains": "one0 "}, "answer": "odd"}, {"answer": "blue"}]}
    published(run([*rows(2), "{broken"], script, answer={"choice": ["blue"]}, retry={"max_attempts": 1}))
    card = published.card()
    for line in ("| `choice` | 1 |", "| `malformed_row` | 1 |", "| `status invalid` | 1 |"):
        assert line in card


def test_the_same_again_writes_nothing_and_gives_the_same_bytes_elsewhere(run: Any, published: Any) -> None:
    folder = run(rows(30))
    published(folder, split={"test": 0.4})
    path = published.folder / "data" / "train-00000-of-00001.parquet"
    before, content = path.stat().st_mtime_ns, path.read_bytes()
    assert published(folder, split={"test": 0.4}).splits == {
        "train": len(published.rows()),
        "test": len(published.rows("test")),
    }
    assert path.stat().st_mtime_ns == before
    published(folder, split={"test": 0.4}, license="mit")
    assert path.stat().st_mtime_ns > before
    assert path.read_bytes() == content


def test_a_large_split_is_several_files(run: Any, published: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmbatch.publishing.shards._GROUP_BYTES", 1000)
    monkeypatch.setattr("llmbatch.publishing.base._MB", 1)
    published(run(rows(20)), shard_mb=1500)
    names = sorted(path.name for path in (published.folder / "data").iterdir())
    assert len(names) > 1
    assert names[0] == f"train-00000-of-{len(names):05d}.parquet"
    assert [row["id"] for row in published.rows()] == [f"r{i}" for i in range(20)]


def test_only_what_was_published_is_replaced(run: Any, published: Any) -> None:
    folder = run(rows(3))
    published.folder.mkdir()
    (published.folder / "mine.txt").write_text("mine")
    with pytest.raises(FolderError, match=r"holds files that are no dataset of llmbatch's \(mine\.txt\)"):
        published(folder)
    (published.folder / "mine.txt").unlink()
    published(folder)
    (published.folder / "mine.txt").write_text("mine")
    with pytest.raises(FolderError, match=r"holds files besides the dataset .*mine\.txt"):
        published(folder, layout="raw")
    (published.folder / "mine.txt").unlink()
    (published.folder / "README.md").write_text("edited")
    with pytest.raises(FolderError, match=r"README\.md: was edited since it was published"):
        published(folder, layout="raw")
    (published.folder / "README.md").unlink()
    published(folder, layout="raw")
    assert "output" in published.rows()[0]


@pytest.mark.parametrize("fault", ["dataset-made", "dataset-moved", "dataset-placed"])
def test_a_publication_that_is_killed_leaves_the_earlier_one_or_the_new_one(
    run: Any, published: Any, fault: str
) -> None:
    folder = run(rows(3))
    published(folder)
    command = [
        sys.executable,
        "-m",
        "llmbatch.cli",
        "publish",
        str(folder),
        "--output",
        str(published.folder),
        "--layout",
        "raw",
    ]
    killed = subprocess.run(command, env={**os.environ, "LLMBATCH_FAULT": fault}, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    if fault == "dataset-made":
        assert "messages" in published.rows()[0]
    if fault == "dataset-placed":
        assert "output" in published.rows()[0]
    published(folder, layout="raw")
    assert "output" in published.rows()[0]
    assert not list(published.folder.parent.glob(".dataset*"))


@pytest.mark.parametrize("limit", [200, 60_000])
def test_a_file_that_may_not_grow_is_said_and_leaves_the_earlier_publication(
    run: Any, published: Any, limit: int
) -> None:
    folder = run(rows(200))
    published(folder, layout="raw")
    command = [sys.executable, "-m", "llmbatch.cli", "publish", str(folder), "--output", str(published.folder)]
    done = subprocess.run(
        command,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, b"(EFBIG)" in done.stderr) == (1, True), done.stderr
    assert len(published.rows()) == 200
    assert not list(published.folder.parent.glob(".dataset*"))


def test_python_publishes_runs_as_the_command_does(tmp_path: Path) -> None:
    done = llmbatch.run(
        model="any", prompt="{{ text }}", input=rows(4), output=tmp_path / "out", engine={"name": "scripted"}
    )
    published = llmbatch.publish(done, tmp_path / "dataset", layout="completion")
    assert (published.rows, published.records, published.url) == (4, 4, None)
    assert (published.folder / "README.md").exists()
