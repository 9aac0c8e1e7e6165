"""A finished run in; publications of it killed at random moments and at fault points, over an earlier one, each then made again."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import corpora
import kills
import sessions

from llmbatch.core import faults
from llmbatch.publishing.base import PublishSettings
from llmbatch.publishing.publish import publish

FAULTS = (
    "dataset-made:1", "dataset-moved:1", "dataset-placed:1", "temp-written/README.md:1", "renamed/README.md:1",
    "temp-written/provenance.json:1", "renamed/provenance.json:1",
)  # fmt: skip
_FIRST = PublishSettings(title="numbers", layout="raw")
_SECOND = PublishSettings(title="numbers", split={"test": 0.3}, duplicates="exact", license="mit")


def killed(folder: Path, count: int, seed: int = 0) -> tuple[kills.Figures, list[str]]:
    """Kill at every fault point and at so many random moments; returns the points that were not reached too.

    After each kill the dataset is to be the earlier one or the new one, whole; after the same command once more the new one.
    """
    rng = random.Random(seed)
    figures, missed = kills.Figures(), []
    scenario = next(each for each in corpora.SCENARIOS if each.name == "duplicates")
    (input_ := folder / "input").mkdir()
    run = folder / "run"
    sessions.finish(corpora.make_job(scenario, corpora.write_input(scenario, input_), run, latency=0.0))
    whole = {}
    for name, settings in (("first", _FIRST), ("second", _SECOND)):
        began = time.monotonic()
        _publish(run, folder / name / "dataset", settings)
        whole[name] = sessions.contents(folder / name / "dataset")
        seconds = time.monotonic() - began
    for number, fault in enumerate([*FAULTS, *[""] * count]):
        name = fault or f"random moment {number}"
        dataset = folder / f"published-{number}" / "dataset"
        _publish(run, dataset, _FIRST)
        process = sessions.apart(_session, run, dataset, _SECOND, fault)
        process.join(None if fault else rng.uniform(0.0, seconds))
        code = sessions.end(process, signal.SIGKILL) if process.is_alive() else process.exitcode
        figures.kills += code == sessions.KILLED
        if fault and code != sessions.KILLED:
            missed.append(f"publish: {fault}")
        left = sessions.contents(dataset)
        between = not left and sessions.contents(dataset.with_name(".dataset.old")) == whole["first"]
        if left not in whole.values() and not between:
            figures.problems.append(f"publish, {name}: neither the earlier dataset nor the new one is there")
        _publish(run, dataset, _SECOND)
        figures.runs += 1
        figures.different += sessions.contents(dataset) != whole["second"]
        if [path.name for path in dataset.parent.iterdir()] != ["dataset"]:
            figures.problems.append(f"publish, {name}: something is left beside the dataset")
    return figures, missed


def _publish(run: Path, dataset: Path, settings: PublishSettings) -> None:
    process = sessions.apart(_session, run, dataset, settings, "")
    process.join()
    if process.exitcode != 0:
        raise SystemExit(f"publish ended with exit code {process.exitcode}")


def _session(run: Path, dataset: Path, settings: PublishSettings, fault: str) -> None:
    faults.aim(fault)
    publish([run], dataset, settings)
