from __future__ import annotations

from llmbatch.core.types import Usage


def test_usages_add_up_and_a_part_can_be_taken_off_again() -> None:
    one, other = Usage(10, 5, 4), Usage(3, 2, 1)
    assert one + other == Usage(13, 7, 5)
    assert one + other - other == one
