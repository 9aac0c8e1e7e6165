"""The example notebooks run from their first cell to their last, and what they show can be shown."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import Any

import pytest

import llmbatch

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTED: Any = {"name": "scripted"}
ROWS = [{"id": f"r{i}", "text": f"text {i}"} for i in range(4)]


def shown(cell: Any) -> list[dict[str, str]]:
    """What a cell shows, by media type; what it prints is ``text/plain``."""
    return [output.get("data", {"text/plain": output.get("text", "")}) for output in cell["outputs"]]


@pytest.mark.parametrize("name", ["summaries", "dataset", "evaluation"])
def test_an_example_notebook_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One kernel; no cell fails, the display of a run is HTML with a text beside it, and nothing shows a control character."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(llmbatch.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    )
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code[0].source.startswith("MODEL, ENGINE =")
    code[0].source = 'MODEL, ENGINE = "any", {"name": "scripted"}'
    (tmp_path / "work").mkdir()
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path / "work")}}).execute()
    bundles = [bundle for cell in code for bundle in shown(cell)]
    views = [bundle["text/html"] for bundle in bundles if "finished after" in bundle.get("text/html", "")]
    assert views and all("text/plain" in bundle for bundle in bundles)
    controls = {c for bundle in bundles for text in bundle.values() for c in str(text) if ord(c) < 32} - {"\n", "\t"}
    assert controls == set()


def test_generate_works_where_an_event_loop_runs() -> None:
    async def main() -> list[Any]:
        return [record.output for record in llmbatch.generate(ROWS, model="any", prompt="{{ text }}", engine=SCRIPTED)]

    assert asyncio.run(main()) == [row["text"] for row in ROWS]


def test_a_coroutine_gives_generate_to_a_thread_and_goes_on_meanwhile() -> None:
    async def main() -> tuple[int, int]:
        records = llmbatch.generate(
            ROWS, model="any", prompt="{{ text }}", engine={**SCRIPTED, "args": {"latency": 0.2}}
        )
        task, turns = asyncio.create_task(asyncio.to_thread(list, records)), 0
        while not task.done():
            await asyncio.sleep(0)
            turns += 1
        return len(await task), turns

    records, turns = asyncio.run(main())
    assert records == 4
    assert turns > 1


def test_a_run_shows_how_it_ended_and_its_first_records_escaped(tmp_path: Path) -> None:
    rows = [{"id": "<b>a</b>", "text": "<script>alert(1)</script>"}, {"id": "b", "text": ""}]
    run = llmbatch.run(model="any", prompt="{{ text }}", input=rows, output=tmp_path / "out", engine=SCRIPTED)
    page = run._repr_html_()
    assert "finished: 1 of 2 rows are not ok" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "<script" not in page
    assert "&lt;b&gt;a&lt;/b&gt;" in page


def test_an_evaluation_shows_its_figures(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"question": "two", "answer": "two"}\n')
    task = {
        "name": "echo", "dataset": str(tmp_path / "rows.jsonl"), "prompt": "{{ question }}", "references": "answer",
        "metrics": ["exact_match"],
    }  # fmt: skip
    done = llmbatch.evaluate(task, model="any", output=tmp_path / "out", engine=SCRIPTED)
    assert re.search(r"exact_match</td><td[^>]*>1 \(", done._repr_html_())
