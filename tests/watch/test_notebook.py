from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from llmbatch.core.events import Event, Snapshot
from llmbatch.core.ledger import WorstFailure
from llmbatch.watch.notebook import NotebookView
from llmbatch.watch.watching import seen_by, watching


class Display:
    """A stand-in for IPython's display: keeps what was shown, and how often."""

    def __init__(self) -> None:
        self.states: list[Mapping[str, str]] = []

    def display(self, bundle: Mapping[str, str], *, raw: bool, display_id: bool) -> Any:
        assert raw and display_id
        self.states.append(bundle)
        return SimpleNamespace(update=lambda bundle, raw: self.states.append(bundle))


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Display:
    """This process seems to be a notebook's."""
    display = Display()
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return display


def test_each_state_is_html_and_the_same_in_plain_text(events: list[Event]) -> None:
    states: list[Mapping[str, str]] = []
    view = NotebookView(states.append)
    for event in events:
        view(event)
    last = states[-1]
    for said in ("out/my run", "1,204 of 10,000 rows", "invalid 12", "about 42m left"):
        assert said in last["text/plain"]
        assert said.replace("about 42m left", "about 42m") in last["text/html"]
    assert "finished after" in last["text/html"]


def test_the_worst_failure_is_in_both_as_text(snapshot: Snapshot) -> None:
    states: list[Mapping[str, str]] = []
    NotebookView(states.append)(replace(snapshot, worst=WorstFailure("schema", 12, "c", "<b>age</b> is missing")))
    assert "worst: schema 12, as at row 'c': <b>age</b> is missing" in states[-1]["text/plain"]
    shown = states[-1]["text/html"]
    assert ">worst<" in shown and "schema 12, as at row &#x27;c&#x27;: &lt;b&gt;age&lt;/b&gt; is missing" in shown


def test_what_comes_from_outside_is_escaped_and_has_no_control_characters(events: list[Event]) -> None:
    states: list[Mapping[str, str]] = []
    view = NotebookView(states.append)
    for event in events:
        view(event)
    assert not any("\x1b" in text for state in states for text in state.values())
    assert "\\x1b[31m" in states[-1]["text/plain"]


def test_in_a_notebook_a_run_is_seen_unless_somebody_else_watches(notebook: Display, events: list[Event]) -> None:
    with seen_by(None) as watchers:
        for event in events:
            watchers[0](event)
    assert len(notebook.states) > 2
    with seen_by([]) as watchers:
        assert watchers == []


def test_outside_of_a_notebook_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    with seen_by(None) as watchers:
        assert watchers == ()


def test_watching_as_it_fits_is_a_display_in_a_notebook(notebook: Display, events: list[Event]) -> None:
    with watching("auto") as watcher:
        watcher(events[0])
    assert "run folder" in notebook.states[-1]["text/html"]
