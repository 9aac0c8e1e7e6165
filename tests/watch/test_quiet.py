from __future__ import annotations

import io

from llmbatch.core.events import Event, Note
from llmbatch.watch.quiet import QuietLog


def test_nothing_is_said_but_errors(events: list[Event]) -> None:
    stream = io.StringIO()
    log = QuietLog(stream)
    for event in [*events, Note("error", "the engine keeps dying\x1b[31m")]:
        log(event)
    assert stream.getvalue() == "error: the engine keeps dying\\x1b[31m\n"
