from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import TextIO

import pytest

from llmbatch.core.errors import UsageError
from llmbatch.core.events import Event, Note
from llmbatch.watch.base import own_stream
from llmbatch.watch.watching import WATCHERS, guarded, watching


@pytest.mark.parametrize("mode", ["auto", *WATCHERS])
def test_every_way_of_watching_takes_every_event(
    mode: str, events: list[Event], capfd: pytest.CaptureFixture[str]
) -> None:
    with watching(mode) as watcher:
        for event in events:
            watcher(event)
    assert "goes on unwatched" not in capfd.readouterr().err


def test_an_unknown_way_of_watching_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"'loud'.*auto, live, lines, json, quiet"), watching("loud"):
        pass


def test_without_a_terminal_a_run_is_told_in_lines(capfd: pytest.CaptureFixture[str]) -> None:
    with watching("auto") as watcher:
        watcher(Note("info", "hello"))
    out, err = capfd.readouterr()
    assert (out, err[len("00:00:00 ") :]) == ("", "hello\n")


def test_json_goes_to_the_standard_output_alone(capfd: pytest.CaptureFixture[str]) -> None:
    with watching("json") as watcher:
        watcher(Note("info", "hello"))
    out, err = capfd.readouterr()
    assert json.loads(out)["message"] == "hello"
    assert err == ""


def test_a_watcher_that_fails_is_switched_off_and_the_run_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[Event] = []

    def failing(event: Event) -> None:
        calls.append(event)
        raise ZeroDivisionError

    watcher = guarded(failing)
    watcher(Note("info", "one"))
    watcher(Note("info", "two"))
    assert len(calls) == 1
    assert capsys.readouterr().err.count("the run goes on unwatched") == 1


def test_a_reader_that_goes_away_does_not_end_the_run() -> None:
    script = (
        "from llmbatch.core.events import Note\n"
        "from llmbatch.watch.watching import watching\n"
        "import sys\n"
        "with watching('json') as watcher:\n"
        "    watcher(Note('info', 'one'))\n"
        "    sys.stdin.readline()\n"
        "    for _ in range(9): watcher(Note('info', 'two'))\n"
        "print('the run ended well', file=sys.stderr)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    process.stdin.write("go on\n")
    process.stdin.close()
    assert "the run ended well" in process.stderr.read()
    assert process.wait() == 0


@pytest.fixture
def pipe() -> Iterator[tuple[TextIO, TextIO]]:
    read, write = os.pipe()
    with os.fdopen(read) as reader, os.fdopen(write, "w") as writer:
        yield reader, writer


def test_a_stream_of_our_own_is_not_redirected_with_its_descriptor(pipe: tuple[TextIO, TextIO]) -> None:
    reader, writer = pipe
    with own_stream(writer) as stream, open(os.devnull, "w") as log:  # noqa: PTH123 - devnull is no path of ours
        os.dup2(log.fileno(), writer.fileno())
        print("still here", file=stream)
    assert reader.readline() == "still here\n"
