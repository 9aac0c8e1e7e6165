"""Requests in -> which of them exactly repeat an earlier one out, so that each distinct one runs once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from llmbatch.core.demand import Demand
from llmbatch.core.digest import Digests
from llmbatch.core.types import Request


class Folded(NamedTuple):
    """``leaders``: position of each duplicate -> that of the first of its like. ``digests``: of all that have one, by position."""

    leaders: dict[int, int]
    digests: dict[int, bytes]


def fold(
    requests: Sequence[Request], packed: Sequence[bytes | None], demands: Sequence[Demand], positions: Iterable[int]
) -> Folded:
    """Find the duplicates among the requests at these positions, which must be ascending."""
    digest_of = Digests().digest
    leaders: dict[bytes, int] = {}
    folded: dict[int, int] = {}
    digests: dict[int, bytes] = {}
    for position in positions:
        digest = digest_of(requests[position], packed[position], demands[position])
        if digest is None:
            continue
        digests[position] = digest
        leader = leaders.setdefault(digest, position)
        if leader != position:
            folded[position] = leader
    return Folded(folded, digests)
