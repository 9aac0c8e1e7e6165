"""What came of rows, in the order in which these were begun."""

from __future__ import annotations

from llmbatch.runs.turns import Turns


def test_what_came_waits_for_its_turn() -> None:
    turns: Turns[str] = Turns()
    turns.begin([5, 3])
    turns.begin([9])
    assert (len(turns), turns.outstanding) == (3, 3)
    assert turns.finish(3, "three") == []
    assert (len(turns), turns.outstanding) == (3, 2)
    assert turns.finish(5, "five") == ["five", "three"]
    assert turns.finish(9, "nine") == ["nine"]
    assert (len(turns), turns.outstanding) == (0, 0)
