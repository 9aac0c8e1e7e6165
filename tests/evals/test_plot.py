"""The plot of scores: every figure with its interval, whatever a category is called."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from click.testing import CliRunner

from llmbatch.cli.main import main
from llmbatch.evals.plot import scores_svg
from llmbatch.evals.scores import read_scores


def run(tasks: Any) -> None:
    tasks.rows(
        [{"question": str(n), "answer": str(n) if n else "x", "kind": "<b>&" if n % 2 else "plain"} for n in range(8)]
    )
    tasks.run(tasks.task(category="kind", metrics=["exact_match", "chrf"]))


def test_each_metric_is_a_plot_with_a_dot_and_a_line_for_every_part(tasks: Any) -> None:
    run(tasks)
    svg = scores_svg(read_scores(tasks.path / "out"))
    plots = list(ElementTree.fromstring(f"<div>{svg}</div>"))  # noqa: S314 - our own
    assert len(plots) == 2
    assert [len(plot.findall("circle")) for plot in plots] == [3, 3]
    texts = [text.text or "" for text in plots[0].findall("text")]
    assert "<b>&" in texts and "all" in texts
    assert any(text.startswith("0.875 (") for text in texts)


def test_the_page_of_a_run_has_the_plot(tasks: Any) -> None:
    run(tasks)
    page = tasks.path / "page.html"
    done = CliRunner().invoke(main, ["status", str(tasks.path / "out"), "--html", str(page)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    text = page.read_text()
    assert "<h2>Scores</h2>" in text and "exact_match with its intervals" in text
    assert "<b>&" not in text.replace("&lt;b&gt;&amp;", "")
