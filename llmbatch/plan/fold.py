"""Requests in -> which of them exactly repeat an earlier one out, so that each distinct one runs once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from llmbatch.core.digest import Digests
from llmbatch.core.types import Request


class Folded(NamedTuple):
    """``leaders``: position of each duplicate -> that of the first of its like. ``digests``: of all that have one, by position."""

    leaders: dict[int, int]
    digests: dict[int, bytes]


def fold(
    requests: Sequence[Request], packed: Sequence[bytes | None], positions: Iterable[int], digests_of: Digests
) -> Folded:
    """Find the duplicates among the requests at these positions, which must be ascending."""
    leaders: dict[bytes, int] = {}
    folded: dict[int, int] = {}
    digests: dict[int, bytes] = {}
    for position in positions:
        digest = digests_of.digest(requests[position], packed[position])
        if digest is None:
            continue
        digests[position] = digest
        leader = leaders.setdefault(digest, position)
        if leader != position:
            folded[position] = leader
    return Folded(folded, digests)
