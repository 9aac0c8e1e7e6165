"""One page over several evaluations, of what lies in a folder."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.errors import FolderError
from llmbatch.evals.api import evaluate
from llmbatch.evals.group import group_scores, read_group, write_group
from llmbatch.evals.group_page import holds_evaluations, write_group_page
from llmbatch.evals.scores import read_scores

TASK = {"prompt": "{{ text }}", "metrics": ["exact_match"], "references": "answer"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two evaluations of four rows each, one with three right answers, one with all."""
    for name, right in (("zebra", 3), ("ant", 4)):
        rows = [{"id": n, "text": str(n), "answer": str(n if n < right else 9)} for n in range(4)]
        path = tmp_path / f"{right}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        task: dict[str, Any] = {"name": name, "dataset": str(path), **TASK}
        evaluate(
            task, model="<b>any", output=tmp_path / "evals" / f"t{right}", watchers=[], engine={"name": "scripted"}
        )
    return tmp_path / "evals"


def test_each_task_has_its_figure_its_rows_and_leads_to_its_own_page(folder: Path) -> None:
    page = write_group_page(folder).read_text()
    assert "<h1>&lt;b&gt;any on 2 tasks</h1>" in page
    assert re.findall(r'<span class="name">([^<]+)</span>', page) == ["ant", "zebra"]
    assert '<a href="t4/report.html">ant</a>' in page
    assert re.search(r"<td>exact_match</td><td>0.75 \([\d.]+ to [\d.]+\)</td><td class=\"n\">4</td>", page)
    (folder / "t4" / "report.html").unlink()
    assert '<th scope="row">ant</th>' in write_group_page(folder, folder / "mail.html").read_text()


def test_a_group_has_its_own_figure_and_its_tasks_come_in_its_order(folder: Path) -> None:
    over = group_scores("both", "rows", [read_scores(folder / "t3"), read_scores(folder / "t4")])
    write_group(over, folder)
    assert read_group(folder) == over
    page = write_group_page(folder).read_text()
    assert "<h1>both: exact_match 0.875 (" in page and "over 8 rows</h1>" in page
    assert re.findall(r'<span class="name">([^<]+)</span>', page) == ["zebra", "ant", "all of both"]


def test_an_evaluation_that_cannot_be_read_is_left_out_and_named(folder: Path) -> None:
    (folder / "t3" / "scores.json").write_text("{")
    page = write_group_page(folder).read_text()
    assert "<h1>&lt;b&gt;any on 1 task</h1>" in page
    assert "t3/scores.json: " in page


def test_a_folder_of_evaluations_is_told_from_one_of_them(folder: Path, tmp_path: Path) -> None:
    assert holds_evaluations(folder)
    assert not holds_evaluations(folder / "t3")
    assert not holds_evaluations(tmp_path)
    with pytest.raises(FolderError, match="no evaluation is in it"):
        write_group_page(tmp_path)
    shutil.copy(folder / "t3" / "run.json", folder)  # a run itself, with evaluations of others in its folder
    assert not holds_evaluations(folder)
