from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.types import Prompt, Request, RequestKey, Sampling
from llmbatch.engines.base import Engine, EngineInfo, EngineSettings, make_engine
from llmbatch.job.job import DEMO_MODEL, job_from
from llmbatch.measure.autotune import Trial, autotune, candidates, is_clear, read, write
from llmbatch.measure.speed import Measured, Slice
from llmbatch.model.tokenizer import ChatSettings

SAMPLING = Sampling((("max_tokens", 1000),))
SLOW = {"latency": 0.03, "concurrency": 4}


def make(settings: EngineSettings) -> Engine:
    return make_engine("any", settings, ChatSettings(), Path("engine.log"))


def requests(_engine: Engine, _info: EngineInfo, count: int = 120) -> Sequence[Request]:
    return [Request(RequestKey(i), Prompt(text="12345"), SAMPLING, token_ids=[1] * 5) for i in range(count)]


def tune(sample: Any = requests, **args: Any) -> dict[str, Any]:
    return autotune(make, EngineSettings(name="scripted", args=args), sample, lambda _: None)


def by_name(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {tried["name"]: tried for tried in found["tried"]}


def steady(rate: int, slices: int = 10) -> list[Measured]:
    """A measurement without noise, or with some where ``slices`` is small."""
    return [Measured(tuple(Slice(1.0, rate, rate, 0) for _ in range(slices)), (), 1)]


@pytest.mark.usefixtures("clock")
def test_a_setting_that_is_clearly_faster_is_chosen() -> None:
    found = tune(**SLOW)
    assert found["chosen"] == "in_flight=8"
    assert found["changes"] == {"in_flight": 8}
    tried = by_name(found)
    assert tried["default"]["rounds"] == tried["in_flight=8"]["rounds"] == 2
    assert tried["in_flight=2"]["rounds"] == 1
    assert "in_flight=8" in found["said"]


@pytest.mark.usefixtures("clock")
def test_a_candidate_that_cannot_start_is_recorded_and_the_default_kept() -> None:
    found = tune(**SLOW, out_of_memory_above=4)
    assert found["chosen"] == "default"
    assert found["changes"] == {}
    assert "no memory for 8 requests" in by_name(found)["in_flight=8"]["error"]


def test_a_default_that_cannot_start_is_left_to_the_run() -> None:
    found = tune(**SLOW, out_of_memory_above=3)
    assert found["changes"] == {}
    assert "nothing was tried" in found["said"]


@pytest.mark.usefixtures("clock")
def test_an_engine_that_dies_while_it_is_tried_does_not_break_the_run(tmp_path: Path) -> None:
    script = tmp_path / "script.yaml"
    script.write_text("{latency: 0.03, concurrency: 4, die_after: [200]}")
    settings = EngineSettings(name="scripted", script=str(script))
    found = autotune(make, settings, requests, lambda _: None)
    assert found["changes"] == {}
    assert "died after 200 requests" in by_name(found)["in_flight=8"]["error"]


def test_with_too_few_requests_nothing_is_tried() -> None:
    found = tune(lambda engine, info: requests(engine, info, 7), **SLOW)
    assert [tried["name"] for tried in found["tried"]] == ["default"]
    assert "too few requests" in found["said"]


def test_a_little_faster_is_not_clearly_faster() -> None:
    default = Trial("default", {}, measured=steady(1000))
    assert not is_clear(Trial("x", {}, measured=steady(1040)), default)
    assert is_clear(Trial("x", {}, measured=steady(1100)), default)


def test_what_chance_explains_is_not_clearly_faster() -> None:
    def uneven(*rates: int) -> list[Measured]:
        return [Measured(tuple(Slice(1.0, rate, rate, 0) for rate in rates), (), 1)]

    default = Trial("default", {}, measured=uneven(500, 1500, 700, 1300))
    assert not is_clear(Trial("x", {}, measured=uneven(600, 1600, 800, 1500)), default)
    assert not is_clear(Trial("x", {}, measured=uneven(2000)), default)


INFO = EngineInfo("vllm", "0.32", "m", 4096, 256, max_num_batched_tokens=8192)


def test_vllm_is_tried_with_twice_and_half_of_each_batch_size() -> None:
    found = candidates(EngineSettings(args={"dtype": "half"}), INFO)
    assert [trial.name for trial in found] == [
        "max_num_seqs=512", "max_num_seqs=128", "max_num_batched_tokens=16384", "max_num_batched_tokens=4096",
    ]  # fmt: skip
    assert all(trial.changes["args"]["dtype"] == "half" for trial in found)


def test_what_the_job_sets_itself_is_left_alone() -> None:
    found = candidates(EngineSettings(args={"max_num_seqs": 256}), INFO)
    assert [trial.name for trial in found] == ["max_num_batched_tokens=16384", "max_num_batched_tokens=4096"]
    assert candidates(EngineSettings(name="scripted", in_flight=5), INFO) == []


def test_what_was_found_is_kept_for_the_same_engine_only(tmp_path: Path) -> None:
    path = tmp_path / "autotune.json"
    assert read(path, "a") is None
    write(path, "a", {"changes": {"in_flight": 8}})
    assert (read(path, "a") or {})["changes"] == {"in_flight": 8}
    assert read(path, "b") is None
    path.write_text("{")
    assert read(path, "a") is None


# in a run


@pytest.fixture
def job(jobs: Any, clock: None) -> Any:
    rows = jobs.rows([{"id": i, "text": f"row {i}"} for i in range(60)])
    return jobs.job(rows, engine={"name": "scripted", "args": SLOW}, run={"autotune": True})


def test_the_report_says_what_was_tried_and_a_note_what_was_chosen(jobs: Any, job: Any) -> None:
    result = jobs.run(job)
    tuned = result.report["engine"]["autotune"]
    assert tuned["chosen"] == "in_flight=8"
    assert result.report["engine"]["max_num_seqs"] == 8
    assert {tried["name"] for tried in tuned["tried"]} == {"default", "in_flight=8", "in_flight=2"}
    assert tuned["said"] in jobs.notes()
    assert len(jobs.records()) == 60


def test_a_resumed_run_does_not_tune_again(jobs: Any, job: Any) -> None:
    jobs.run(job.model_copy(update={"input": job.input.model_copy(update={"limit": 30})}))
    kept = (jobs.path / "out" / "autotune.json").read_bytes()
    jobs.events.clear()
    assert jobs.run(job).report["engine"]["max_num_seqs"] == 8
    assert (jobs.path / "out" / "autotune.json").read_bytes() == kept
    assert not any("trying" in note for note in jobs.notes())


def test_tuning_changes_no_byte_of_the_results(jobs: Any, job: Any) -> None:
    jobs.run(job)
    plain = job.model_copy(
        update={"run": job.run.model_copy(update={"autotune": False}), "output": jobs.path / "plain"}
    )
    jobs.run(plain)
    assert jobs.results() == jobs.results("plain")


@pytest.mark.vllm
def test_vllm_is_tuned_on_the_jobs_own_rows_and_answers_as_without(jobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "llmbatch.measure.autotune._SECONDS", 800.0
    )  # each trial ends with the sample, on a slow machine too
    tens = ("twenty", "thirty", "forty", "fifty")
    texts = [f"{ten}-{one}" for ten in tens for one in ("one", "two", "five", "seven")]
    languages = ("French", "German", "Spanish")
    rows = [{"text": text, "language": language} for text in texts for language in languages]
    # one size is left to try; in float32 the answers are the same in batches of any size
    args = {"enforce_eager": True, "kv_cache_memory_bytes": 1 << 28, "max_num_seqs": 16, "dtype": "float32"}
    data = jobs.data(jobs.rows(rows), engine={"name": "vllm", "args": args}, model="demo", run={"autotune": True})
    data["prompt"] = str(DEMO_MODEL.parent / "prompts" / "translate-number.yaml")
    report = jobs.run(job_from(data)).report
    tried = by_name(report["engine"]["autotune"])
    assert len(tried) == 3  # the default, twice and half of its max_num_batched_tokens
    assert all(trial["error"] is None and trial["tokens_per_second"] > 0 for trial in tried.values())
    chosen = report["engine"]["autotune"]["chosen"]
    size = report["engine"]["max_num_batched_tokens"]
    others = {f"max_num_batched_tokens={2 * size}", f"max_num_batched_tokens={size // 2}"}
    assert tried.keys() - {"default"} == others if chosen == "default" else chosen == f"max_num_batched_tokens={size}"
    tuned = [record["output"] for record in jobs.records()]
    jobs.run(job_from({**data, "run": {"autotune": False}, "output": str(jobs.path / "plain")}))
    assert tuned == [record["output"] for record in jobs.records("plain")]
    assert len(tuned) == 48
