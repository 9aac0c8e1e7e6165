"""What models and adapters a job names counts by its contents, and a name on the hub by what it stands for."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from llmbatch.core.machine import machine
from llmbatch.engines.base import EngineInfo
from llmbatch.job.identity import came_out, engine_before_start, identity_of, left_open
from llmbatch.job.job import Job, job_from
from llmbatch.model import contents

MIB = 1 << 20
COMMIT, OTHER = "a" * 40, "b" * 40


def job(**changes: Any) -> Job:
    return job_from({"model": "any", "prompt": "Say: {{ text }}", "input": "rows.jsonl", "output": "out", **changes})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(bytes(3 * MIB))
    return folder


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"r": 8}')
    (folder / "adapter_model.safetensors").write_bytes(bytes(MIB))
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub's, with nothing in it."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def at(hub: Path, name: str, commit: str) -> None:
    """Let a name on the hub stand for a commit, as after a download."""
    refs = hub / f"models--{name.replace('/', '--')}" / "refs"
    refs.mkdir(parents=True, exist_ok=True)
    (refs / "main").write_text(commit)


def overwrite(path: Path, place: int) -> None:
    """Write a byte in place, and leave size and time of modification as they were."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(place)
        file.write(b"x")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_weights_that_are_changed_in_their_middle_are_another_model(model: Path) -> None:
    before = identity_of(job(model=str(model)))
    overwrite(model / "model.safetensors", MIB + MIB // 2)
    after = identity_of(job(model=str(model)))
    assert {key for key in before if before[key] != after[key]} == {"model model.safetensors"}


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_adapter_that_is_overwritten_in_place_is_another_adapter(adapter: Path, file: str) -> None:
    lora = {"lora": {"a": str(adapter)}}
    before = identity_of(job(engine=lora))
    overwrite(adapter / file, 4)
    after = identity_of(job(engine=lora))
    assert {key for key in before if before[key] != after[key]} == {f"engine.lora.a {file}"}


def test_a_tokenizer_of_its_own_counts_by_its_contents(model: Path) -> None:
    (model / "tokenizer.json").write_text("{}")
    own = {"args": {"tokenizer": str(model)}}
    before = identity_of(job(engine=own))
    (model / "tokenizer.json").write_text('{"changed": 1}')
    assert identity_of(job(engine=own)) != before


def test_the_second_identity_of_an_unchanged_model_reads_none_of_its_weights(
    model: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(contents, "_SETTLED_SECONDS", -1.0)  # a wait, and not what is tested
    numbers: list[int] = []
    read = os.pread
    monkeypatch.setattr(os, "pread", lambda f, n, at: (data := read(f, n, at), numbers.append(len(data)))[0])
    changed = job(model=str(model), engine={"lora": {"a": str(adapter)}})
    first = identity_of(changed)
    assert sum(numbers) == 4 * MIB + len('{"r": 8}')
    numbers.clear()
    assert identity_of(changed) == first
    assert sum(numbers) == len('{"r": 8}')


def test_names_on_the_hub_stand_for_the_commits_that_are_here(hub: Path) -> None:
    named = job(model="org/m", engine={"lora": {"a": "org/a"}, "args": {"tokenizer": "org/t"}})
    assert left_open(named) == {}
    for name, commit in (("org/m", COMMIT), ("org/a", OTHER), ("org/t", OTHER)):
        at(hub, name, commit)
    assert left_open(named) == {
        "engine.args.revision": json.dumps(COMMIT),
        "engine.lora.a (commit)": json.dumps(OTHER),
        "engine.args.tokenizer_revision": json.dumps(OTHER),
    }
    pinned = job(model="org/m", engine={"args": {"revision": OTHER}})
    assert left_open(pinned) == {"engine.args.revision": json.dumps(OTHER)}
    assert left_open(job(model="demo")) == {}


def test_what_an_engine_settled_is_named_as_the_setting_that_would_say_it() -> None:
    info = EngineInfo("vllm", "0.32", "any", 100, 4, settled={"dtype": "bfloat16"})
    assert came_out(job(), info) == {"engine.args.dtype": '"bfloat16"', "engine (version)": '"vllm 0.32"'}
    setting = identity_of(job(engine={"args": {"dtype": "bfloat16"}}))
    assert setting["engine.args.dtype"] == '"bfloat16"'


def test_what_an_engine_comes_out_as_is_decided_by_model_commit_versions_and_machine(hub: Path) -> None:
    named = job(model="org/m")
    at(hub, "org/m", COMMIT)
    before = engine_before_start(named, identity_of(named))
    at(hub, "org/m", OTHER)
    assert engine_before_start(named, identity_of(named)) != before
    assert before["machine"] == machine()
    assert before["transformers"]


def test_names_of_classes_count_where_they_are_given_and_a_job_without_is_what_it_was_before_they_could_be() -> None:
    engine = {"name": "openai", "urls": "http://localhost:8000/v1"}
    assert "engine.classes" not in identity_of(job(engine=engine))
    assert identity_of(job(engine={**engine, "classes": ["no", "yes"]}))["engine.classes"] == '["no", "yes"]'
