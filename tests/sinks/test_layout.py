from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from llmbatch.core.errors import InputChanged
from llmbatch.report.summary import headline
from llmbatch.runs import session
from llmbatch.runs.finish import finish
from llmbatch.sinks.base import Finished, SinkSettings
from llmbatch.sinks.layouts import LAYOUTS
from llmbatch.sinks.layouts.base import Written


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    failure: str | None = None


class Tree:
    """A layout of one file a row, and one that says that all are there."""

    Settings = Settings

    def __init__(self, settings: Settings) -> None:
        self._failure = settings.failure

    def write(self, finished: Finished, folder: Path) -> Written:
        paths = []
        for record, _ in finished.pairs():
            paths.append(folder / "deep" / f"{record['id']}.out")
            paths[-1].parent.mkdir(exist_ok=True)
            paths[-1].write_text(record["output"])
        (folder / "done").write_text("")
        return Written([*paths, folder / "done"], self._failure)


@pytest.fixture(autouse=True)
def tree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAYOUTS, "tree", f"{__name__}:Tree")


def test_a_layout_is_written_below_its_folder_and_alone_is_copied(jobs: Any, tmp_path: Path) -> None:
    sinks = {"layout": {"name": "tree"}, "to": str(tmp_path / "there")}
    result = jobs.run(jobs.job(jobs.rows([{"id": "a", "text": "x"}]), sinks=sinks))
    there = {str(path.relative_to(tmp_path / "there")): path.read_text() for path in (tmp_path / "there").rglob("*.*")}
    assert list(there) == ["deep/a.out"]
    assert (result.folder / "output" / "deep" / "a.out").read_text() == there["deep/a.out"]
    assert (tmp_path / "there" / "done").exists()
    assert result.report["layout"] == {"name": "tree", "failure": None}


def test_the_report_says_why_the_system_would_call_the_job_failed(jobs: Any) -> None:
    sinks = {"layout": {"name": "tree", "settings": {"failure": "a.jsonl: row 3"}}}
    result = jobs.run(jobs.job(jobs.rows([{"text": "x"}]), sinks=sinks))
    assert result.report["layout"] == {"name": "tree", "failure": "a.jsonl: row 3"}


def test_a_job_that_the_system_would_call_failed_is_not_all_well_though_all_rows_are_ok(jobs: Any) -> None:
    sinks = {"layout": {"name": "tree", "settings": {"failure": "a.jsonl: row 3"}}}
    result = jobs.run(jobs.job(jobs.rows([{"text": "x"}]), sinks=sinks))
    assert (result.exit_code, result.report["exit_code"]) == (3, 3)
    said = "finished: all 1 rows are ok; tree would call this job failed: a.jsonl: row 3"
    assert headline(result.report) == said


def test_an_input_that_changed_meanwhile_is_not_laid_out_beside_the_answers_to_what_it_was(
    jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = jobs.rows([{"id": "a", "text": "x"}])
    job, before = jobs.job(rows, sinks={"layout": {"name": "tree"}}), rows.read_text()

    def too_late(*given: Any) -> Any:
        rows.write_text(before.replace("x", "y"))
        return finish(*given)

    with monkeypatch.context() as patched:
        patched.setattr(session, "finish", too_late)
        with pytest.raises(InputChanged, match="rows 0 to 0 differ"):
            jobs.run(job)
    rows.write_text(before)
    assert (jobs.run(job).folder / "output" / "deep" / "a.out").read_text() == "x"


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        ({"name": "wood"}, "unknown layout 'wood'"),
        ({"name": "tree", "settings": {"leaves": 3}}, "settings.leaves: .* the settings of tree are failure"),
    ],
)
def test_a_layout_that_is_not_known_is_refused(layout: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        SinkSettings(layout=layout)
