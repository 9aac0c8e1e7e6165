"""The plots of scores: every figure with its interval, whatever a category is called."""

from __future__ import annotations

from typing import Any

from click.testing import CliRunner

from llmbatch.cli.main import main
from llmbatch.evals.plot import score_plots
from llmbatch.evals.scores import read_scores


def run(tasks: Any) -> None:
    tasks.rows(
        [{"question": str(n), "answer": str(n) if n else "x", "kind": "<b>&" if n % 2 else "plain"} for n in range(8)]
    )
    tasks.run(tasks.task(category="kind", metrics=["exact_match", "chrf"]))


def test_each_metric_is_a_plot_with_a_dot_and_a_line_for_every_part(tasks: Any) -> None:
    run(tasks)
    plots = score_plots(read_scores(tasks.path / "out"))
    assert [plot.title for plot in plots] == ["exact_match", "chrf"]
    assert [[dot.label for dot in plot.dots] for plot in plots] == [["all", "<b>&", "plain"]] * 2
    whole = plots[0].dots[0]
    assert whole.said.startswith("0.875 (") and whole.at == 87.5
    assert whole.low is not None and whole.high is not None and whole.low < 87.5 < whole.high


def test_the_page_that_a_run_leaves_has_the_plot(tasks: Any) -> None:
    run(tasks)
    text = (tasks.path / "out" / "report.html").read_text()
    assert "<h1>sums: exact_match 0.875 (" in text and "over 8 rows</h1>" in text
    assert "<h2>Scores</h2>" in text and 'aria-label="exact_match: all 0.875 (' in text
    assert "<b>&" not in text.replace("&lt;b&gt;&amp;", "")


def test_so_has_the_page_that_is_asked_for(tasks: Any) -> None:
    run(tasks)
    page = tasks.path / "page.html"
    done = CliRunner().invoke(main, ["status", str(tasks.path / "out"), "--html", str(page)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert page.read_text() == (tasks.path / "out" / "report.html").read_text()
