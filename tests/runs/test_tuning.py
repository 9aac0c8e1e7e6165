"""Whole runs that are tuned first, and runs whose speculation stops to pay."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmbatch.core.errors import JobError
from llmbatch.core.events import EngineReady
from llmbatch.job.job import DEMO_MODEL, job_from

SLOW = {"latency": 0.03, "concurrency": 4}


def by_name(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {tried["name"]: tried for tried in found["tried"]}


@pytest.fixture
def job(jobs: Any, clock: None) -> Any:
    rows = jobs.rows([{"id": i, "text": f"row {i}"} for i in range(60)])
    return jobs.job(rows, engine={"name": "scripted", "args": SLOW}, run={"autotune": True})


def tuned_with(job: Any, tuning: dict[str, Any], **update: Any) -> Any:
    data = job.model_dump(mode="json", by_alias=True)
    data["run"]["tuning"] = {**data["run"]["tuning"], **tuning}
    return job_from({**data, **update})


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


def test_engine_arguments_of_the_jobs_own_are_tried(jobs: Any, job: Any) -> None:
    job = tuned_with(job, {"kinds": [], "candidates": {"quick": {"args": {"latency": 0.01}, "exact": True}}})
    assert jobs.run(job).report["engine"]["autotune"]["chosen"] == "quick"


def test_a_run_holds_on_to_tuned_arguments_that_its_answers_may_depend_on(jobs: Any, job: Any) -> None:
    """With another choice the rest of the rows would be answered by another engine: that is refused."""
    candidates = {"quick": {"args": {"latency": 0.01}}}
    job = tuned_with(job, {"kinds": [], "candidates": candidates, "tolerance": "exact"})
    jobs.run(job.model_copy(update={"input": job.input.model_copy(update={"limit": 40})}))
    manifest = json.loads((jobs.path / "out" / "run.json").read_text())
    assert manifest["came_out"]["engine.args.latency"] == "0.01"
    other = tuned_with(job, {"candidates": {"quick": {"args": {"latency": 0.005}}}})
    with pytest.raises(Exception, match="latency"):
        jobs.run(other)


def test_a_tolerance_and_a_cache_of_answers_do_not_go_together(jobs: Any, job: Any) -> None:
    job = tuned_with(job, {"tolerance": "exact"}, reuse={"cache": str(jobs.path / "cache")})
    with pytest.raises(JobError, match=r"run\.tuning\.tolerance with reuse\.cache"):
        jobs.run(job)


@pytest.mark.parametrize("tolerance", [0, 1.5, "much", True])
def test_a_tolerance_is_exact_or_a_share(jobs: Any, job: Any, tolerance: Any) -> None:
    with pytest.raises(JobError, match="exact, or the least share"):
        tuned_with(job, {"tolerance": tolerance})


def test_how_to_tune_is_refused_where_nothing_is_tuned(jobs: Any) -> None:
    with pytest.raises(JobError, match="give --autotune as well"):
        jobs.job(jobs.rows([{"text": "a"}]), run={"tuning": {"tolerance": "exact"}})


def test_a_choice_of_several_engines_runs_on_so_many(jobs: Any, clock: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmbatch.engines.kinds import Candidate
    from llmbatch.engines.scripted.kind import KIND

    two = [Candidate("replicas=2", {"replicas": 2}, "replicas", exact=False)]
    monkeypatch.setattr("llmbatch.measure.autotune.kind_of", lambda _: _With(KIND, two))
    monkeypatch.setattr(
        "llmbatch.measure.verdicts.MARGIN", 0.0
    )  # threads that share a clock of the test's own are not faster
    rows = jobs.rows([{"id": i, "text": f"row {i}"} for i in range(80)])
    job = jobs.job(
        rows, engine={"name": "scripted", "args": SLOW}, run={"autotune": True, "tuning": {"tolerance": "exact"}}
    )
    report = jobs.run(job).report
    assert report["engine"]["autotune"]["chosen"] == "replicas=2", report["engine"]["autotune"]
    assert report["engine"]["engines"] == 2
    assert len(report["sessions"][0]["replicas"]) == 2
    assert [record["output"] for record in jobs.records()] == [f"row {i}" for i in range(80)]


class _With:
    """An engine's kind, with other candidates."""

    def __init__(self, kind: Any, candidates: Any) -> None:
        self._kind, self._candidates = kind, candidates

    def candidates(self, *_: Any) -> Any:
        return self._candidates

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kind, name)


# speculation that stops to pay

GUESSES_BADLY_LATER = {"accepts": [0.9, 0.0], "concurrency": 8}


def long_rows(jobs: Any, count: int = 800) -> Any:
    return jobs.rows([{"id": i, "text": f"text {i} " * 8} for i in range(count)])


def guessing(jobs: Any, args: dict[str, Any] = GUESSES_BADLY_LATER, **sections: Any) -> Any:
    engine = {"name": "scripted", "args": args, **sections.pop("engine", {})}
    return jobs.data(long_rows(jobs), engine=engine, **{"run": {"window": 100}, **sections})


def plain(jobs: Any, **sections: Any) -> bytes:
    data = guessing(jobs, {"concurrency": 8}, output=str(jobs.path / "plain"), **sections)
    jobs.run(job_from(data))
    return bytes(jobs.results("plain"))


@pytest.mark.parametrize("engine", [{}, {"hosted": True}], ids=["here", "hosted"])
def test_an_engine_that_guesses_badly_goes_on_without(jobs: Any, engine: dict[str, Any]) -> None:
    report = jobs.run(job_from(guessing(jobs, engine=engine))).report
    said = report["engine"]["speculation"]
    assert said["least"] == 0.1
    assert 0.0 < said["fell_back"]["share"] < 0.9
    assert 100 < said["fell_back"]["after_requests"] < 800
    assert report["sessions"][0]["engine_restarts"] == 0  # nothing died
    assert sum("of the tokens that speculation guessed" in note for note in jobs.notes()) == 1
    assert sum(isinstance(event, EngineReady) for event in jobs.events) == 2
    assert jobs.results() == plain(jobs)


def test_each_of_several_engines_looks_at_its_own_guesses(jobs: Any) -> None:
    report = jobs.run(
        job_from(guessing(jobs, {**GUESSES_BADLY_LATER, "latency": 0.001}, engine={"replicas": 2}))
    ).report
    assert report["engine"]["speculation"]["engines"] == 2
    assert report["engine"]["speculation"]["fell_back"]["engines"] >= 1
    assert jobs.results() == plain(jobs)


@pytest.mark.parametrize(
    "args", [{"accepts": [0.9]}, {"accepts": [0.05], "concurrency": 8}], ids=["well", "switched off"]
)
def test_an_engine_that_guesses_well_or_is_not_to_fall_back_goes_on(jobs: Any, args: dict[str, Any]) -> None:
    least = 0.1 if args["accepts"] == [0.9] else 0.0
    report = jobs.run(job_from(guessing(jobs, args, engine={"least_acceptance": least}))).report
    assert report["engine"]["speculation"]["fell_back"] is None
    assert report["engine"]["speculation"]["draft_tokens"] > 10_000


def test_answers_that_are_drawn_with_a_seed_keep_their_speculation(jobs: Any) -> None:
    """They would come out otherwise without, and a run that was killed in between otherwise than one that was not."""
    job = job_from(guessing(jobs, sampling={"temperature": 1.0, "seed": 1}))
    report = jobs.run(job).report
    assert report["engine"]["speculation"]["fell_back"] is None
    assert sum("it goes on, as answers are drawn with seeds" in note for note in jobs.notes()) == 1


@pytest.mark.parametrize("fault", ["part-sealed:1", "part-sealed:6"])
def test_a_run_that_is_killed_before_or_after_it_fell_back_ends_with_the_same_bytes(jobs: Any, fault: str) -> None:
    data = guessing(jobs)
    jobs.killed(data, fault)
    jobs.run(job_from(data))
    assert jobs.results() == plain(jobs)


def test_a_run_that_goes_on_remembers_that_speculation_did_not_pay(jobs: Any) -> None:
    data = guessing(jobs)
    jobs.killed(data, "part-sealed:6")
    assert "fell_back" in json.loads((jobs.path / "out" / "run.json").read_text())["sessions"][0]
    report = jobs.run(job_from(data)).report
    assert "speculation" not in report["engine"]
    assert sum("too little of what speculation guessed was right" in note for note in jobs.notes()) == 1
    assert sum(isinstance(event, EngineReady) for event in jobs.events) == 1
    assert jobs.results() == plain(jobs)


def test_other_arguments_of_speculation_are_tried_anew(jobs: Any) -> None:
    data = guessing(jobs)
    jobs.killed(data, "part-sealed:6")
    data["engine"]["args"] = {"accepts": [0.9], "concurrency": 8}
    assert jobs.run(job_from(data)).report["engine"]["speculation"]["fell_back"] is None


def test_an_engine_that_dies_before_it_has_answered_what_it_had_is_made_anew_without(jobs: Any, clock: None) -> None:
    """It is given nothing more and answers what it has, each at its time; one of these kills it."""
    args = {**GUESSES_BADLY_LATER, "latency": 1.0, "jitter": 1.0}
    found = jobs.run(job_from(guessing(jobs, args))).report["engine"]["speculation"]
    at = found["fell_back"]["after_requests"]
    rules = [{"when": {"index": list(range(at - 8, at + 8))}, "die": True, "times": 1}]
    script = jobs.path / "dies.yaml"
    script.write_text(json.dumps({"rules": rules}))
    data = guessing(jobs, args, engine={"script": str(script)}, output=str(jobs.path / "dies"))
    report = jobs.run(job_from(data)).report
    assert report["sessions"][0]["engine_restarts"] == 1
    assert report["engine"]["speculation"]["fell_back"] is not None
    assert jobs.results("dies") == jobs.results()


# vLLM

TENS = ("twenty", "thirty", "forty", "fifty")
NUMBERS = [f"{ten}-{one}" for ten in TENS for one in ("one", "two", "five", "seven")]
ROWS = [{"text": text, "language": language} for text in NUMBERS for language in ("French", "German", "Spanish")]
# in float32 the answers are the same in batches of any size
VLLM = {"enforce_eager": True, "kv_cache_memory_bytes": 1 << 28, "max_num_seqs": 16, "dtype": "float32"}


def on_vllm(jobs: Any, rows: Any, args: dict[str, Any], **sections: Any) -> dict[str, Any]:
    data: dict[str, Any] = jobs.data(jobs.rows(rows), engine={"name": "vllm", "args": args}, model="demo", **sections)
    data["prompt"] = str(DEMO_MODEL.parent / "prompts" / "translate-number.yaml")
    return data


@pytest.mark.vllm
def test_vllm_is_tuned_on_the_jobs_own_rows_and_answers_as_without(jobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmbatch.measure.autotune._ROUNDS", 2)
    monkeypatch.setattr("llmbatch.measure.trials._MOST_TIMES", 2)
    # each trial ends with the sample, on a slow machine too; one size is left to try
    tuning = {"max_time": "10h", "kinds": ["batch size"]}
    data = on_vllm(jobs, ROWS, VLLM, run={"autotune": True, "tuning": tuning})
    report = jobs.run(job_from(data)).report
    tried = by_name(report["engine"]["autotune"])
    assert len(tried) == 3  # the default, twice and half of its max_num_batched_tokens
    assert all(trial["verdict"] != "failed" and trial["tokens_per_second"] > 0 for trial in tried.values())
    chosen = report["engine"]["autotune"]["chosen"]
    size = report["engine"]["max_num_batched_tokens"]
    others = {f"max_num_batched_tokens={2 * size}", f"max_num_batched_tokens={size // 2}"}
    assert tried.keys() - {"default"} == others if chosen == "default" else chosen == f"max_num_batched_tokens={size}"
    tuned = [record["output"] for record in jobs.records()]
    jobs.run(job_from({**data, "run": {"autotune": False}, "output": str(jobs.path / "plain")}))
    assert tuned == [record["output"] for record in jobs.records("plain")]
    assert len(tuned) == 48


@pytest.mark.vllm
def test_vllm_that_guesses_by_n_grams_falls_back_and_the_answers_stay_the_same(
    jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same rows are asked again and again: the first time with speculation, which is never good enough, the last without."""
    monkeypatch.setattr("llmbatch.engines.speculation._WINDOW", 1)
    monkeypatch.setattr("llmbatch.engines.vllm.drafts._SECONDS", 0.0)
    guess = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3, "prompt_lookup_min": 1}
    data = on_vllm(jobs, ROWS * 3, {**VLLM, "speculative_config": guess}, plan={"fold": False, "order": "input"})
    data["engine"]["least_acceptance"] = 1.0
    report = jobs.run(job_from(data)).report
    said = report["engine"]["speculation"]
    assert said["draft_tokens"] > 0
    assert 0 < said["fell_back"]["after_requests"] < 96
    assert report["sessions"][0]["engine_restarts"] == 0
    outputs = [record["output"] for record in jobs.records()]
    assert outputs[:48] == outputs[48:96] == outputs[96:]
    assert len(outputs) == 144
