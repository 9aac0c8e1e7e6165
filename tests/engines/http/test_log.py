"""What engines behind servers say: each message once."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbatch.engines.http import log as module
from llmbatch.engines.http.log import Log


def test_what_comes_after_very_many_different_messages_is_not_silently_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_KEPT", 3)
    log = Log(tmp_path / "engine.log")
    for message in ("one", "two", "one", "three", "four", "five", "two"):
        log.once(message)
    said = [line.split(" ", 2)[2] for line in log.path.read_text().splitlines()]
    assert said == ["one", "two", "three", "3 different messages are here by now: no others follow"]
