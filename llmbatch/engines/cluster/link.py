"""A place in the cluster in; the way to the engine there out: a ``Link`` over the calls of an actor.

A call of the actor that fails, for whatever reason, is the end of this engine: what it had goes to the others, and a new actor
takes its place. So a message is never sent twice.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, Protocol

from llmbatch import __version__
from llmbatch.core.errors import EngineDied
from llmbatch.engines.base import Engine, EngineInfo
from llmbatch.engines.cluster.host import About, Pulled
from llmbatch.engines.cluster.parcels import Listing, chunks_of
from llmbatch.engines.elsewhere import EngineElsewhere
from llmbatch.engines.hosted import Hosting
from llmbatch.engines.messages import Begin, Failed
from llmbatch.engines.settings import EngineSettings
from llmbatch.model.tokenizer import load_template

_CALL_SECONDS = 120.0  # for what should take none
_LOOK_SECONDS = 0.5
_END_SECONDS = 40.0  # an engine takes up to 20 to stop by itself


class Places(Protocol):
    """What a link needs of the cluster."""

    patience: float
    parcels: tuple[Listing, ...]

    def actor(self) -> Any:
        """Ask for an actor with what an engine needs: it comes up once there is room."""

    def lacks(self) -> str:
        """What there is no room for, in words."""

    def see(self) -> None:
        """Raises ``OSError`` where the cluster is gone."""

    def lives(self, node: str) -> bool: ...

    def end(self, actor: Any) -> None:
        """End an actor at once."""

    def failed(self) -> None:
        """An engine could not be started where it was placed."""


def in_cluster(here: Engine, hosting: Hosting, places: Places) -> EngineElsewhere:
    """The engine on a node of the cluster. ``here`` is the same in this process, for its tokenizer."""
    alone = hosting.settings.model_copy(update={"cluster": None, "replicas": 1, "hosted": None})
    chat = hosting.chat
    if chat.template is not None:  # as its text: the node need not have the file
        chat = chat.model_copy(update={"template": load_template(chat.template)})
    begin = Begin(__version__, hosting.model, alone, chat, hosting.log)
    return EngineElsewhere(here, begin, ActorLink(places, hosting.log))


class ActorLink:
    """Implements ``Link``. Its calls of Ray are made by the thread that drives the engine; ``kill`` by any."""

    def __init__(self, places: Places, log: Path) -> None:
        self._places = places
        self._log = log
        self._actor: Any = None
        self._about: About | None = None
        self._killed = False
        self._pulling: Any = None
        self._inbox: deque[Any] = deque()
        self._gone: EngineDied | None = None

    def open(self) -> None:
        self._actor = self._places.actor()
        self._about = about = self._placed()
        if about.version != __version__:
            self._fail(
                f"node {about.machine} has llmbatch {about.version}, this driver {__version__}: install the same version there"
            )

    def send(self, message: object) -> None:
        if isinstance(message, Begin):
            begin = _moved(message, {parcel.place: self._bring(parcel) for parcel in self._places.parcels})
            self._call("begin", begin)
            self._pulling = self._ask("pull")
        else:
            self._see_that_it_goes_on()
            self._get(self._ask("push", message), pushed=True)

    def poll(self, timeout: float) -> bool:
        end = time.monotonic() + timeout
        while not self._inbox:
            self._see_that_it_goes_on()
            left = max(0.0, end - time.monotonic())
            if not self._is_done(self._pulling, min(left, _LOOK_SECONDS)):
                if left <= _LOOK_SECONDS:
                    return False
                continue
            self._take(self._get(self._pulling))
        return True

    def receive(self) -> Any:
        while not self.poll(_LOOK_SECONDS):
            self._places.see()
        message = self._inbox.popleft()
        if isinstance(message, Failed):
            self._places.failed()
            kind = "engine" if message.kind == "job" else message.kind  # another node may have what this one lacks
            return Failed(kind, f"node {self._machine}: {message.message}")
        return message

    def is_up(self, info: EngineInfo) -> EngineInfo:
        return replace(info, pids=())  # those are numbers of another machine

    def death(self) -> EngineDied:
        return self._gone or EngineDied(f"the engine's actor on {self._machine} is gone", suspect=False)

    def kill(self) -> None:
        self._killed = True
        if self._actor is not None:
            try:
                self._places.end(self._actor)
            except Exception:
                return  # it is gone, or the cluster is

    def close(self) -> None:
        if self._actor is None:
            return
        if self._gone is None or self._gone.suspect:  # the actor is there, though its engine may not be
            try:
                self._write(self._get(self._ask("close"), _END_SECONDS))
            except (EOFError, OSError):
                pass  # it is gone now
        self.kill()
        self._actor = None
        self._gone = self._gone or EngineDied("the engine was stopped", suspect=False)

    @property
    def _machine(self) -> str:
        return "a node" if self._about is None else self._about.machine

    def _placed(self) -> About:
        """Wait until Ray has placed the actor."""
        end = time.monotonic() + self._places.patience
        try:
            about = self._ask("about")
            while not self._is_done(about, _LOOK_SECONDS):
                self._places.see()
                if self._killed:
                    raise OSError("it was ended before it had a place")
                if time.monotonic() > end:
                    lacks = self._places.lacks()
                    self.kill()
                    raise OSError(f"for {self._places.patience:.0f} s there was no room in the cluster for {lacks}")
            found: About = self._get(about)
        except EOFError:
            self._fail(str(self.death()))
        return found

    def _bring(self, parcel: Listing) -> str:
        """Where the node has it, once it has."""
        place: str | None = self._call("find", parcel)
        if place is None:  # another actor of the node may be about to receive it
            place = self._get(self._ask("expect", parcel), None)
        if place is None:
            for chunk in chunks_of(parcel):
                self._call("add", chunk)
            place = str(self._call("complete"))
        return place

    def _fail(self, message: str) -> NoReturn:
        self._places.failed()
        self.kill()
        raise OSError(message)

    def _call(self, method: str, *arguments: Any) -> Any:
        self._see_that_it_goes_on()
        return self._get(self._ask(method, *arguments))

    def _ask(self, method: str, *arguments: Any) -> Any:
        """Begin a call of the actor. Raises ``EOFError`` where there is no way to it, as does ``_is_done``."""
        try:
            return getattr(self._actor, method).remote(*arguments)
        except Exception as error:  # a client of Ray raises whatever it came upon
            raise self._end_by(error) from error

    def _is_done(self, reference: Any, timeout: float) -> bool:
        """Whether a call has come to an end."""
        import ray

        try:
            if not ray.is_initialized():  # it would start a cluster here
                raise ConnectionError("the connection to the cluster has ended")
            return bool(ray.wait([reference], timeout=timeout)[0])
        except Exception as error:
            raise self._end_by(error) from error

    def _see_that_it_goes_on(self) -> None:
        if self._gone is not None or self._killed:
            raise EOFError

    def _get(self, reference: Any, timeout: float | None = _CALL_SECONDS, *, pushed: bool = False) -> Any:
        """What a call came to. Raises ``EOFError`` where it did not."""
        import ray
        from ray.exceptions import GetTimeoutError, RayTaskError

        end = None if timeout is None else time.monotonic() + timeout
        try:
            while not self._is_done(reference, _LOOK_SECONDS):
                self._places.see()
                if self._killed or (end is not None and time.monotonic() > end):
                    raise GetTimeoutError("it gives no answer")
            return ray.get(reference)
        except EOFError:
            raise
        except Exception as error:
            if pushed and isinstance(error, RayTaskError):  # the next pull says how the engine's process went
                raise EOFError from error
            raise self._end_by(error) from error

    def _end_by(self, error: Exception) -> EOFError:
        """What was in flight is lost by this error; the first of them is the one that is told."""
        from ray.exceptions import ActorDiedError

        self._gone = self._gone or self._death_by(error, dead=isinstance(error, ActorDiedError))
        return EOFError()

    def _death_by(self, error: Exception, *, dead: bool) -> EngineDied:
        about = self._about
        if self._killed:
            return EngineDied("the engine was ended", suspect=False)
        if about is not None and not self._places.lives(about.node):
            return EngineDied(f"node {about.machine} left the cluster", suspect=False)
        said = str(error).strip().splitlines() or [type(error).__name__]
        # one that Ray knows to be dead on a node that is there may have been killed for want of memory: a row may be to blame
        return EngineDied(f"the engine's actor on {self._machine} is gone: {said[0]}; {said[-1].strip()}", suspect=dead)

    def _take(self, pulled: Pulled) -> None:
        self._write(pulled.log)
        self._inbox.extend(pulled.messages)
        if pulled.gone is None:
            self._pulling = self._ask("pull")
        else:
            said = f"the engine's process on {self._machine} {pulled.gone}; see {self._log}"
            self._gone = EngineDied(said)

    def _write(self, log: bytes) -> None:
        if log:
            with self._log.open("ab") as file:
                file.write(log)


def _moved(begin: Begin, places: Mapping[str, str]) -> Begin:
    """The message with the node's own paths."""

    def there(value: Any) -> Any:
        return places.get(value, value) if isinstance(value, str) else value

    settings: EngineSettings = begin.settings.model_copy(
        update={
            "args": {name: there(value) for name, value in begin.settings.args.items()},
            "lora": {name: there(value) for name, value in begin.settings.lora.items()},
            "script": there(begin.settings.script),
        }
    )
    return replace(begin, model=there(begin.model), settings=settings)


__all__ = ["ActorLink", "Places", "in_cluster"]
