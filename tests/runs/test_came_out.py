"""What a job leaves to the hub, the engine and the machine: a run, and its cache, are held to what it came out as."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from llmbatch.core.errors import FolderError
from llmbatch.core.events import EngineReady, Event, Note, Sealed
from llmbatch.engines.base import Engine, EngineFactory, EngineInfo
from llmbatch.engines.kinds import make_engine
from llmbatch.engines.settings import EngineSettings
from llmbatch.job.job import Job, job_from
from llmbatch.model.tokenizer import ChatSettings
from llmbatch.runs.retry_failed import retry_failed
from llmbatch.runs.session import RunResult, run_job

COMMIT, OTHER = "a" * 40, "b" * 40
SMALL = {"window": 3, "windows_open": 1}


def comes_out(version: str = "1", loads: Callable[[], object] = lambda: None, **settled: str) -> EngineFactory:
    """Makes scripted engines that come out as said, and do something when they load their model."""

    def make(model: str, settings: EngineSettings, chat: ChatSettings, log: Path) -> Engine:
        engine: Any = make_engine(model, settings, chat, log)
        start = engine.start

        def started() -> EngineInfo:
            loads()
            return replace(start(), version=version, settled=settled)

        engine.start = started
        return engine  # type: ignore[no-any-return]

    return make


def stop_at_first_window(event: Event) -> None:
    if isinstance(event, Sealed):
        raise KeyboardInterrupt


def begin(job: Job, make: EngineFactory) -> None:
    assert run_job(job, [stop_at_first_window], make=make).outcome == "stopped"


def go_on(job: Job, make: EngineFactory) -> tuple[RunResult, list[str]]:
    notes: list[str] = []
    result = run_job(job, [lambda e: notes.append(e.message) if isinstance(e, Note) else None], make=make)
    return result, notes


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def at(hub: Path, commit: str, name: str = "org/model") -> None:
    """Let a name on the hub stand for a commit, as after a download."""
    refs = hub / f"models--{name.replace('/', '--')}" / "refs"
    refs.mkdir(parents=True, exist_ok=True)
    (refs / "main").write_text(commit)


# Going on


def test_a_run_is_not_gone_on_with_in_another_precision(jobs: Any, ten: Path) -> None:
    job = jobs.job(ten, run=SMALL)
    begin(job, comes_out(dtype="float32"))
    for _ in range(3):
        with pytest.raises(FolderError, match=r'engine\.args\.dtype was "float32", now "bfloat16"'):
            go_on(job, comes_out(dtype="bfloat16"))
    assert go_on(job, comes_out(dtype="float32"))[0].exit_code == 0


def test_a_setting_that_says_what_came_out_without_it_is_the_same_job(jobs: Any, ten: Path) -> None:
    begin(jobs.job(ten, run=SMALL), comes_out(context_length="10_000"))
    said = jobs.job(ten, run=SMALL, engine={"args": {"context_length": "10_000"}})
    assert go_on(said, comes_out(context_length="10_000"))[0].exit_code == 0
    with pytest.raises(FolderError, match="begun by another job"):
        go_on(jobs.job(ten, run=SMALL, engine={"args": {"context_length": "9_000"}}), comes_out())


def test_another_version_of_the_engine_is_said_once(jobs: Any, ten: Path) -> None:
    job = jobs.job(ten, run=SMALL)
    begin(job, comes_out("0.31"))
    begin(job, comes_out("0.32"))
    result, notes = go_on(job, comes_out("0.32"))
    assert result.exit_code == 0
    said = [note["message"] for note in jobs.report()["notes"]]
    assert not any("version" in note for note in notes + said)


def test_another_version_of_the_engine_is_a_warning(jobs: Any, ten: Path) -> None:
    job = jobs.job(ten, run=SMALL)
    begin(job, comes_out("0.31"))
    _, notes = go_on(job, comes_out("0.32"))
    assert any('was begun with "scripted 0.31" and goes on with "scripted 0.32"' in note for note in notes)


def test_where_nothing_was_done_yet_the_engine_may_come_out_otherwise(jobs: Any, ten: Path) -> None:
    def broken() -> None:
        raise KeyboardInterrupt

    job = jobs.job(ten, run=SMALL)
    assert run_job(job, make=comes_out("1", broken)).outcome == "stopped"

    def stop_when_ready(event: Event) -> None:
        if isinstance(event, EngineReady):
            raise KeyboardInterrupt

    assert run_job(job, [stop_when_ready], make=comes_out(dtype="float32")).outcome == "stopped"
    assert go_on(job, comes_out(dtype="bfloat16"))[0].exit_code == 0


def test_a_model_on_the_hub_is_another_one_at_another_commit(jobs: Any, ten: Path, hub: Path) -> None:
    job = jobs.job(ten, model="org/model", run=SMALL)
    begin(job, comes_out(loads=lambda: at(hub, COMMIT)))  # it was not there before
    at(hub, OTHER)
    with pytest.raises(FolderError, match=rf'model \(commit\) was "{COMMIT}", now "{OTHER}"'):
        go_on(job, comes_out(loads=lambda: pytest.fail("the engine was started for it")))
    at(hub, COMMIT)
    assert go_on(job, comes_out())[0].exit_code == 0


def test_a_model_that_moves_on_while_it_is_loaded_is_not_mixed_with_what_it_was(
    jobs: Any, ten: Path, hub: Path
) -> None:
    at(hub, COMMIT)
    job = jobs.job(ten, model="org/model", run=SMALL)
    begin(job, comes_out())
    with pytest.raises(FolderError, match=r"model \(commit\) was"):
        go_on(job, comes_out(loads=lambda: at(hub, OTHER)))
    assert len(list((jobs.path / "out" / "parts").glob("*.jsonl"))) == 1


def test_a_finished_run_is_not_finished_with_another_commit(jobs: Any, ten: Path, hub: Path) -> None:
    at(hub, COMMIT)
    job = jobs.job(ten, model="org/model")
    go_on(job, comes_out())
    assert any("nothing is left to do" in note for note in go_on(job, comes_out())[1])
    at(hub, OTHER)
    with pytest.raises(FolderError, match=r"model \(commit\) was"):
        go_on(job, comes_out())


def test_an_adapter_on_the_hub_is_another_one_at_another_commit(jobs: Any, ten: Path, hub: Path) -> None:
    at(hub, COMMIT, "org/adapter")
    job = jobs.job(ten, engine={"lora": {"a": "org/adapter"}}, run=SMALL)
    begin(job, comes_out())
    at(hub, OTHER, "org/adapter")
    with pytest.raises(FolderError, match=r"engine\.lora\.a \(commit\) was"):
        go_on(job, comes_out())


def test_an_adapter_that_was_overwritten_in_place_is_refused(jobs: Any, ten: Path) -> None:
    adapter = jobs.path / "adapter"
    adapter.mkdir()
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(bytes(1000))
    job = jobs.job(ten, engine={"lora": {"a": str(adapter)}}, run=SMALL)
    begin(job, comes_out())
    weights.write_bytes(bytes(500) + b"1" + bytes(499))
    with pytest.raises(FolderError, match=r"engine\.lora\.a adapter_model\.safetensors is another"):
        go_on(job, comes_out())


# Trying again what is not ok


def refuses_the_first(jobs: Any, rows: Path, **sections: Any) -> Job:
    """A job of which one row is never ok."""
    rules = {"rules": [{"when": {"contains": "text 0"}, "answer": ""}]}
    job: Job = jobs.job(rows, rules, retry={"max_attempts": 1}, **sections)
    return job


def again(jobs: Any, make: EngineFactory, **overrides: Any) -> list[str]:
    """What is said when the rows that are not ok are tried again."""
    notes: list[str] = []
    retry_failed(
        jobs.path / "out", overrides, [lambda e: notes.append(e.message) if isinstance(e, Note) else None], make=make
    )
    return notes


def test_rows_are_not_tried_again_in_another_precision_unless_it_is_named(jobs: Any, ten: Path) -> None:
    go_on(refuses_the_first(jobs, ten), comes_out(dtype="float32"))
    for _ in range(2):
        with pytest.raises(FolderError, match=r'engine\.args\.dtype was "float32", now "bfloat16".*name it'):
            again(jobs, comes_out(dtype="bfloat16"))
    again(jobs, comes_out(dtype="float32"))


def test_a_precision_that_the_retry_names_is_its_own(jobs: Any, ten: Path) -> None:
    go_on(refuses_the_first(jobs, ten), comes_out(context_length="8000"))
    with pytest.raises(FolderError, match=r"engine\.args\.context_length was"):
        again(jobs, comes_out(context_length="9000"))
    again(jobs, comes_out(context_length="9000"), engine={"args": {"context_length": "9_000"}})
    assert (jobs.path / "out" / "retries" / "001" / "done").exists()


def test_rows_are_not_tried_again_with_another_commit_of_the_model_but_with_another_model(
    jobs: Any, ten: Path, hub: Path
) -> None:
    at(hub, COMMIT)
    go_on(refuses_the_first(jobs, ten, model="org/model"), comes_out())
    at(hub, OTHER)
    with pytest.raises(FolderError, match=rf'model \(commit\) was "{COMMIT}", now "{OTHER}"'):
        again(jobs, comes_out(loads=lambda: pytest.fail("the engine was started for it")))
    again(jobs, comes_out(), model="org/other")
    assert (jobs.path / "out" / "retries" / "001" / "done").exists()


def test_another_version_of_the_engine_is_said_where_rows_are_tried_again(jobs: Any, ten: Path) -> None:
    go_on(refuses_the_first(jobs, ten), comes_out("0.31"))
    said = again(jobs, comes_out("0.32"))
    assert any('was begun with "scripted 0.31" and goes on with "scripted 0.32"' in note for note in said)
    assert not any("was begun with" in note for note in again(jobs, comes_out("0.31")))


def test_rows_are_not_tried_again_with_an_adapter_that_was_overwritten_unless_one_is_named(
    jobs: Any, ten: Path
) -> None:
    adapter = jobs.path / "adapter"
    adapter.mkdir()
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(bytes(1000))
    go_on(refuses_the_first(jobs, ten, engine={"lora": {"a": str(adapter)}}), comes_out())
    weights.write_bytes(bytes(500) + b"1" + bytes(499))
    with pytest.raises(
        FolderError, match=r"the model is not what it was.*engine\.lora\.a adapter_model\.safetensors is another"
    ):
        again(jobs, comes_out(loads=lambda: pytest.fail("the engine was started for it")))
    assert not (jobs.path / "out" / "retries" / "001" / "run.json").exists()
    assert again(jobs, comes_out(), engine={"lora": {"a": str(adapter)}}) is not None


def test_a_prompt_that_was_edited_since_is_said_where_rows_are_tried_again(jobs: Any, ten: Path) -> None:
    prompt = jobs.path / "prompt.yaml"
    prompt.write_text("name: p\nvariables: {text: {type: string}}\ntext: '{{ text }}'\n")
    job = refuses_the_first(jobs, ten)
    job = job_from({**job.data(), "prompt": str(prompt)})
    go_on(job, comes_out())
    assert not any("changed since" in note for note in again(jobs, comes_out()))
    prompt.write_text("name: p\nvariables: {text: {type: string}}\ntext: 'Say {{ text }}'\n")
    assert any(
        re.search(r"changed since the run was made.*prompt \(text\) is another", note)
        for note in again(jobs, comes_out())
    )
    assert not any("changed since" in note for note in again(jobs, comes_out(), prompt=str(prompt)))


# The cache


def asked(jobs: Any, rows: Path, name: str, make: EngineFactory, **sections: Any) -> int:
    """How many rows a run that uses the cache did not find in it."""
    job = jobs.job(rows, output=str(jobs.path / name), reuse={"cache": str(jobs.path / "answers.db")}, **sections)
    report = go_on(job, make)[0].report
    return int(report["rows"]["done"] - report["rows"]["cached"])


NO_ENGINE = comes_out(loads=lambda: pytest.fail("the engine was started"))


def local_model(jobs: Any) -> Path:
    folder: Path = jobs.path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(bytes(300_000))
    return folder


def test_the_cache_has_no_answer_of_weights_that_were_changed_in_their_middle(jobs: Any, ten: Path) -> None:
    model = local_model(jobs)
    asked(jobs, ten, "one", comes_out(), model=str(model))
    assert asked(jobs, ten, "two", NO_ENGINE, model=str(model)) == 0
    weights = model / "model.safetensors"
    before = weights.stat()
    weights.write_bytes(bytes(150_000) + b"1" + bytes(149_999))
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert asked(jobs, ten, "three", comes_out(), model=str(model)) == 10


def test_the_cache_has_no_answer_of_an_adapter_that_was_overwritten(jobs: Any, ten: Path) -> None:
    adapter = jobs.path / "adapter"
    adapter.mkdir()
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(bytes(1000))
    with_it = {"engine": {"lora": {"a": str(adapter)}}, "model": str(local_model(jobs))}
    asked(jobs, ten, "one", comes_out(), **with_it)
    assert asked(jobs, ten, "two", NO_ENGINE, **with_it) == 0
    before = weights.stat()
    weights.write_bytes(bytes(500) + b"1" + bytes(499))
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert asked(jobs, ten, "three", comes_out(), **with_it) == 10


@pytest.mark.parametrize(("seed", "anew"), [(-1, 10), (3, 0)], ids=str)
def test_the_cache_has_no_answer_where_the_seed_says_that_every_answer_is_drawn_anew(
    jobs: Any, ten: Path, seed: int, anew: int
) -> None:
    sampling = {"temperature": 1, "seed": seed}
    assert asked(jobs, ten, "one", comes_out(), sampling=sampling) == 10
    assert asked(jobs, ten, "two", comes_out(), sampling=sampling) == anew


def test_the_cache_has_no_answer_of_another_precision(jobs: Any, ten: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What decides it is the machine, so that a run on another one waits for its engine before it looks."""
    asked(jobs, ten, "one", comes_out(dtype="float32"))
    assert asked(jobs, ten, "two", NO_ENGINE) == 0
    with monkeypatch.context() as there:
        there.setattr("llmbatch.job.identity.machine", lambda: "with bf16")
        assert asked(jobs, ten, "three", comes_out(dtype="bfloat16")) == 10
        assert asked(jobs, ten, "four", NO_ENGINE) == 0
    with monkeypatch.context() as there:
        there.setattr("llmbatch.job.identity.machine", lambda: "a third one")
        small = {"run": {"window": 2, "windows_open": 1}}
        assert asked(jobs, ten, "five", comes_out(dtype="float32"), **small) < 10, "once the engine says what it is"
        assert asked(jobs, ten, "six", NO_ENGINE) == 0


def test_the_cache_has_no_answer_of_another_version(jobs: Any, ten: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked(jobs, ten, "one", comes_out("0.31"))
    monkeypatch.setattr("llmbatch.job.identity.versions", lambda: {"vllm": "0.32"})
    assert asked(jobs, ten, "two", comes_out("0.32")) == 10
    assert asked(jobs, ten, "three", NO_ENGINE) == 0


def test_the_cache_has_answers_for_a_model_on_the_hub_once_its_commit_is_known(jobs: Any, ten: Path, hub: Path) -> None:
    first = comes_out(loads=lambda: at(hub, COMMIT))
    assert asked(jobs, ten, "one", first, model="org/model") == 10
    assert asked(jobs, ten, "two", comes_out(), model="org/model") == 0
    assert asked(jobs, ten, "three", NO_ENGINE, model="org/model") == 0
    at(hub, OTHER)
    assert asked(jobs, ten, "four", comes_out(), model="org/model") == 10


def test_answers_of_the_cache_are_not_mixed_with_those_of_an_engine_that_came_out_otherwise(
    jobs: Any, ten: Path
) -> None:
    asked(jobs, ten, "one", comes_out(dtype="float32"))
    rows = jobs.rows([*map(json.loads, ten.read_text().splitlines()), {"text": "new"}], "more.jsonl")
    with pytest.raises(FolderError, match=r"engine\.args\.dtype was"):
        asked(jobs, rows, "two", comes_out(dtype="bfloat16"), run=SMALL)
    with pytest.raises(FolderError, match=r"engine\.args\.dtype was"):
        asked(jobs, rows, "two", NO_ENGINE, run=SMALL)
    assert asked(jobs, rows, "three", comes_out(dtype="bfloat16")) == 11


# The author's code


def test_a_run_is_not_gone_on_with_when_the_code_of_its_checks_was_changed(jobs: Any, ten: Path) -> None:
    path = jobs.path / "rules_of_the_author.py"
    path.write_text("def refuse(value):\n    return 'text 3' in value\n")
    job = jobs.data(ten, answer={"reject": ["rules_of_the_author:refuse"]}, run=SMALL)
    environment = {"PYTHONPATH": os.pathsep.join([str(jobs.path), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])}
    assert jobs.finish(job, environment=environment)[0] == 3
    path.write_text("def refuse(value):\n    return 'text 4' in value\n")
    code, _, err = jobs.finish(job, environment=environment)
    assert code == 1
    assert "answer.reject (rules_of_the_author:refuse) is another" in " ".join(err.split())
