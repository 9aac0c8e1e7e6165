from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.errors import JobError
from llmbatch.core.types import Usage
from llmbatch.engines.settings import EngineSettings
from llmbatch.job.job import Job, job_from
from llmbatch.job.run_settings import RunSettings
from llmbatch.runs.budget import Budget, Gpus, Spent, gpus_of, spent_by

NOTHING = Spent()


def budget(before: Spent = NOTHING, gpus: int = 1, **settings: Any) -> Budget:
    return Budget(RunSettings(**settings), Gpus(gpus), before)


def test_without_a_budget_nothing_is_used_up() -> None:
    assert budget().used_up(1e9, Usage(10**12, 10**12)) is None


def test_gpu_hours_and_tokens_are_paid_for_together() -> None:
    priced = budget(gpus=4, price_per_gpu_hour=2.0, price_per_million="0.5,3")
    assert priced.cost(priced.session(1800, Usage(2_000_000, 1_000_000), 0)) == pytest.approx(4 * 2 * 0.5 + 1.0 + 3.0)


def test_cached_prompt_tokens_may_have_a_price_of_their_own() -> None:
    spent = Spent(0, 3_000_000, 1_000_000, cached_tokens=2_000_000)
    assert budget(price_per_million="1,5,0.25").cost(spent) == pytest.approx(1 + 5 + 0.5)
    assert budget(price_per_million="1,5").cost(spent) == pytest.approx(3 + 5)
    priced = budget(spent, price_per_million="1,5,0.25", max_cost=7)
    assert priced.used_up(0, Usage(1_000_000, 0, 1_000_000)) is None
    assert "max_cost" in str(priced.used_up(0, Usage(1_000_000, 0, 0)))


def test_without_a_price_there_is_no_cost() -> None:
    assert budget().cost(Spent(3600, 1, 1)) is None


def test_earlier_sessions_count() -> None:
    before = Spent(50, 60, 30, gpu_seconds=50)
    assert budget(before, max_total_tokens=100).used_up(0, Usage(5, 4)) is None
    assert "max_total_tokens" in str(budget(before, max_total_tokens=100).used_up(0, Usage(5, 5)))
    assert budget(before, max_time=60).used_up(9, Usage()) is None
    assert "--max-time" in str(budget(before, max_time=60).used_up(10, Usage()))
    assert budget(before, max_cost=60, price_per_gpu_hour=3600).used_up(9, Usage()) is None
    assert "max_cost" in str(budget(before, max_cost=60, price_per_gpu_hour=3600).used_up(10, Usage()))


def test_as_many_gpus_are_paid_for_as_the_model_is_spread_over() -> None:
    assert gpus_of(EngineSettings()).number == 1
    assert gpus_of(EngineSettings(args={"tensor_parallel_size": 4, "pipeline_parallel_size": 2})).number == 8


def test_of_a_cluster_gpus_are_paid_for_while_their_engines_are_up() -> None:
    """An hour's session that began with one engine: it was up for all of it, and one that joined for the last quarter."""
    gpus = gpus_of(EngineSettings(cluster="ray", replicas=1, args={"tensor_parallel_size": 2}))
    priced = Budget(RunSettings(price_per_gpu_hour=3.0, max_cost=7.0), gpus)
    spent = priced.session(3600, Usage(), 3600 + 900)
    assert priced.gpu_hours(spent) == pytest.approx(2 * 1.25)
    assert priced.cost(spent) == pytest.approx(2 * 1.25 * 3)
    assert "max_cost" in str(priced.used_up(3600, Usage(), 3600 + 900))
    assert priced.used_up(3600, Usage(), 3600) is None


def test_a_cost_without_a_price_is_refused() -> None:
    with pytest.raises(JobError, match="max_cost needs a price"):
        job_from({"model": "m", "input": "a.jsonl", "output": "out", "run": {"max_cost": 5}})


@pytest.mark.parametrize(
    ("said", "prices"),
    [
        ("0.1,0.4", (0.1, 0.4, 0.1)), (0.2, (0.2, 0.2, 0.2)), ("0.2", (0.2, 0.2, 0.2)), ([1, 2], (1.0, 2.0, 1.0)),
        ("1,2,0.5", (1.0, 2.0, 0.5)),
    ],
)  # fmt: skip
def test_a_price_of_tokens_is_up_to_three_numbers(said: Any, prices: tuple[float, float, float]) -> None:
    assert RunSettings(price_per_million=said).price_per_million == prices


@pytest.mark.parametrize("said", ["cheap", "1,2,3,4", "-1", "nan", [], {"in": 1}])
def test_any_other_price_is_refused(said: Any) -> None:
    with pytest.raises(ValueError, match="one price, or two"):
        RunSettings(price_per_million=said)


def test_a_job_with_prices_is_the_same_after_it_was_written_and_read() -> None:
    job = job_from({"model": "m", "input": "a.jsonl", "output": "out", "run": {"price_per_million": "0.1,0.4"}})
    assert job_from(job.data()) == job


PRICE_LIST = {"small": 0.1, "large": "1,4", "cheap": "cheap"}


def priced_job(model: str) -> Job:
    return job_from({"model": model, "input": "a.jsonl", "output": "out", "run": {"price_per_million": PRICE_LIST}})


@pytest.mark.parametrize(("model", "prices"), [("small", (0.1, 0.1, 0.1)), ("large", (1.0, 4.0, 1.0))])
def test_of_a_list_of_prices_a_job_takes_those_of_its_model(model: str, prices: tuple[float, float, float]) -> None:
    job = priced_job(model)
    assert job.run.price_per_million == prices
    assert job_from(job.data()) == job


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            "smal",
            r"no price for the model 'smal' \(did you mean 'small'\?\); it has prices for 'small', 'large', 'cheap'",
        ),
        ("cheap", "run.price_per_million: is one price, or two"),
    ],
)
def test_a_model_without_a_price_in_the_list_is_refused_as_is_what_is_no_price(model: str, said: str) -> None:
    with pytest.raises(JobError, match=said):
        priced_job(model)


def killed(**changes: Any) -> list[dict[str, Any]]:
    return [
        {"started": 10.0, "pid": 6, "outcome": "stopped", "spent": {"seconds": 5.0, "prompt_tokens": 1, "completion_tokens": 2}},
        {"started": 100.0, "pid": 7, "outcome": None, **changes},
    ]  # fmt: skip


def test_a_killed_session_counts_up_to_its_last_sign_of_life(tmp_path: Path) -> None:
    seen = {"written_at": 130.0, "pid": 7, "usage": {"prompt_tokens": 40, "completion_tokens": 9, "cached_tokens": 3}}
    (tmp_path / "progress.json").write_text(json.dumps(seen))
    sessions = killed()
    assert spent_by(sessions, tmp_path, Gpus(2)) == Spent(35.0, 41, 11, 3, 60.0)
    (tmp_path / "progress.json").unlink()
    assert spent_by(sessions, tmp_path, Gpus(2)) == Spent(35.0, 41, 11, 3, 60.0)  # the manifest has it now


def test_of_a_killed_session_on_a_cluster_its_last_sign_tells_how_long_engines_were_up(tmp_path: Path) -> None:
    replicas = [{"ready_seconds": 20.0}, {"ready_seconds": 5.0}]
    usage = {"prompt_tokens": 40, "completion_tokens": 9, "cached_tokens": 3}
    seen = {"written_at": 130.0, "pid": 7, "usage": usage, "replicas": replicas}
    (tmp_path / "progress.json").write_text(json.dumps(seen))
    assert spent_by(killed(), tmp_path, Gpus(2, come_and_go=True)).gpu_seconds == 50.0


def test_the_progress_of_another_session_says_nothing_of_a_killed_one(tmp_path: Path) -> None:
    usage = {"prompt_tokens": 40, "completion_tokens": 9, "cached_tokens": 3}
    (tmp_path / "progress.json").write_text(json.dumps({"written_at": 130.0, "pid": 6, "usage": usage}))
    assert spent_by(killed(), tmp_path, Gpus(1)) == Spent(5.0, 1, 2)
    assert spent_by(killed(), tmp_path / "nothing", Gpus(1)) == Spent(5.0, 1, 2)
    assert spent_by([], tmp_path, Gpus(1)) == Spent()
