"""The contract between the loop that drives HTTP servers and the protocol that they speak, and what can go wrong on the way.

NotSent                 nothing came back: the same request goes again
├── Unreachable         no connection came about: the server is left out for a while
├── CutOff              the connection ended before the answer did
├── TimedOut            no whole answer within the request's time
└── Untrusted           its certificate does not verify: no use to try again
NoAnswer                something came back that is no answer, such as a proxy's HTML page
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from llmbatch.core.types import Failure, Outcome, Request
from llmbatch.engines.http.retry import Verdict

Note = Callable[[str], None]
"""Told, once each, what a person may want to know."""


class Packed(NamedTuple):
    """A request as it is sent: the path behind the server's URL, and the body (JSON)."""

    path: str
    body: bytes
    beside: str = ""  # the end of the server's URL that the path is not behind, where the URL has it

    def at(self, url: str) -> str:
        """Where it is sent at the server with this URL."""
        return url.removesuffix(self.beside) + self.path


class Reply(NamedTuple):
    """What a server sent back; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Wire(Protocol):
    """Our values to and from what goes over the wire: pure, no I/O. One object for all requests of an engine.

    A ``LlmbatchError`` that it raises ends the stream of outcomes as it is: ``EngineDied(suspect=False)`` for a server that is
    to be looked at anew, ``EngineError`` where no request will be answered.
    """

    def pack(self, request: Request) -> Packed | Failure:
        """The request as it is sent, or why it cannot be. Of one with images it is called in another thread, and may read files."""

    def read(self, request: Request, reply: Reply) -> Outcome:
        """What a reply of status 2xx says. Raises ``NoAnswer`` where it is not what the protocol has: then it is asked again."""

    def verdict(self, reply: Reply) -> Verdict:
        """What a reply means for its request: usually ``retry.verdict`` of its status."""

    def harmless(self, request: Request) -> Packed | None:
        """A request that a server which works answers, in place of one with a doubtful reply; ``None`` where none can be made."""

    def refusal(self, request: Request, reply: Reply) -> Failure:
        """What a reply says with which the server refuses this request (400, 413, 422, ...): its own words for a person."""

    def ends_all(self, reply: Reply) -> str | None:
        """Why a reply with an error means that no request will be answered (no quota left, ...); ``None`` where it does not."""


class NotSent(Exception):
    """Nothing came back. ``str(error)`` says what was seen."""


class Unreachable(NotSent):
    pass


class CutOff(NotSent):
    pass


class TimedOut(NotSent):
    pass


class Untrusted(NotSent):
    pass


class NoAnswer(Exception):
    """``str(error)`` says what came in place of an answer."""
