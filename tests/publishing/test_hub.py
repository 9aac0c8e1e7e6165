from __future__ import annotations

import json
from typing import Any

import pytest

from llmbatch.core.errors import JobError, PushError

ROWS = [{"id": f"r{i}", "text": f"a text of its own number {i}"} for i in range(4)]
PARQUET = "data/train-00000-of-00001.parquet"


def test_a_dataset_is_pushed_in_one_commit(run: Any, published: Any, hub: Any) -> None:
    done = published(run(ROWS), push_to="me/set")
    assert len(hub.commits) == 1
    assert done.url == f"{hub.url}/datasets/me/set/commit/{hub.sha}"
    assert set(hub.files) == {"README.md", "provenance.json", PARQUET}
    assert hub.files["README.md"] == published.card().encode()
    assert hub.files[PARQUET] == (published.folder / PARQUET).read_bytes()
    assert hub.created == {"name": "set", "organization": "me", "type": "dataset"}
    assert set(hub.tokens.values()) == {"Bearer hf_of_the_test"}, hub.tokens


def test_a_later_publication_takes_the_place_of_an_earlier_one_in_one_commit(
    run: Any, published: Any, hub: Any
) -> None:
    folder = run(ROWS)
    published(folder, push_to="me/set", split={"test": 0.5}, seed=3)
    assert "data/test-00000-of-00001.parquet" in hub.files
    published(folder, push_to="me/set")
    assert len(hub.commits) == 2
    assert set(hub.files) == {"README.md", "provenance.json", PARQUET}
    assert hub.commits[1][0]["value"]["parentCommit"]


def test_a_repository_that_holds_something_else_is_left_alone(run: Any, published: Any, hub: Any) -> None:
    hub.files["data.csv"] = b"a,b"
    with pytest.raises(PushError, match=r"was not published by llmbatch \(it has data\.csv\), so nothing was pushed"):
        published(run(ROWS), push_to="me/set")
    assert (hub.files, hub.commits) == ({"data.csv": b"a,b"}, [])


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (
            401,
            r"does not know who asks \(401\): log in with `hf auth login`, or set HF_TOKEN to a token that may write",
        ),
        (403, r"does not let this token write there \(403\).* It said: the stand-in says 403"),
    ],
)
def test_a_token_that_may_not_write_is_said_and_the_dataset_is_kept(
    run: Any, published: Any, hub: Any, status: int, said: str
) -> None:
    hub.answers["(POST|GET) /api/(repos|datasets)"] = status
    with pytest.raises(PushError, match=said) as refused:
        published(run(ROWS), push_to="me/set")
    assert f"The dataset is whole in {published.folder}, and the same command pushes it" in str(refused.value)
    assert len(published.rows()) == 4


def test_a_commit_that_fails_leaves_nothing_there_and_the_same_command_pushes_it(
    run: Any, published: Any, hub: Any
) -> None:
    folder = run(ROWS)
    hub.answers["POST /api/datasets/me/set/commit"] = 412
    with pytest.raises(PushError, match=r"somebody else changed the dataset on the hub meanwhile \(412\)"):
        published(folder, push_to="me/set")
    assert hub.files == {}
    written = (published.folder / PARQUET).stat().st_mtime_ns
    hub.answers.clear()
    published(folder, push_to="me/set")
    assert (published.folder / PARQUET).stat().st_mtime_ns == written
    assert PARQUET in hub.files


def test_a_hub_that_cannot_be_reached_is_said(
    run: Any, published: Any, hub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PushError, match=r"the hub cannot be reached at http://127\.0\.0\.1:9"):
        published(run(ROWS), push_to="me/set")


@pytest.mark.parametrize("name", ["set", "me/my set", "me/set/more"])
def test_a_name_that_cannot_be_is_refused_before_anything_is_made(run: Any, published: Any, name: str) -> None:
    with pytest.raises(JobError, match="push_to: "):
        published(run(ROWS), push_to=name)
    assert not published.folder.exists()


def test_what_the_hub_is_given_can_be_read_again_by_machines(run: Any, published: Any, hub: Any) -> None:
    published(run(ROWS), push_to="me/set", license="mit")
    provenance = json.loads(hub.files["provenance.json"])
    assert provenance["settings"] == {"license": "mit"}
    assert provenance["counts"]["splits"] == {"train": 4}
    assert provenance["runs"][0]["model"] == "any"
