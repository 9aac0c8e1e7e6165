"""Several engines that may die in, one stream of outcomes out: a death costs the requests of one of them, and the others go on.

Each replica is a supervised engine with a thread and a fork of the feed of its own. They take from one queue, so whichever has
room takes what comes next. What they answer is handed to the one thread that drives them all, in which nothing is run at once:
to it they are one engine. One that cannot come back is left out, and what it had goes to the others.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Literal

from llmbatch.core.errors import EngineError
from llmbatch.core.events import Event, Note, Replica, Watcher
from llmbatch.core.types import Failure, Outcome, Prompt, Usage
from llmbatch.engines.base import Drafts, Driver, Engine, EngineInfo, Speculation, idle_share
from llmbatch.engines.deaths import DeathsOf
from llmbatch.engines.feed import Feed
from llmbatch.engines.settings import EngineSettings
from llmbatch.engines.supervised import Cancelled, Supervised

_PATIENCE_SECONDS = 0.02  # between two looks while nothing has needed an engine yet
_LOOK_SECONDS = 0.5  # how long the driving thread sleeps before its caller can look after its clocks
_ROOM_SECONDS = 2.0  # between two looks for places that came up
_END_SECONDS = 30.0  # a step lasts a second; a model that is being loaded is not waited for


MakeOne = Callable[[EngineSettings, int], Engine]
"""(settings, number from 0) -> one of several engines, not yet started."""


More = Callable[[int], int]
"""How many engines have no place yet -> how many there is room for besides. Raises ``EngineError`` where all places are gone."""


def drive(make: MakeOne, settings: EngineSettings, tell: Watcher, more: More | None = None) -> Driver:
    """What drives the engines that the settings ask for; with ``more`` engines are added while there is work for them."""
    if settings.engines == 1 and more is None:
        return Supervised(partial(_made, make, 0), settings, tell)
    return Replicas(make, settings, tell, more)


class Replicas:
    """``settings.engines`` supervised engines, or more as they find room: a ``Driver``. ``stream`` is driven by one thread."""

    def __init__(
        self,
        make: MakeOne,
        settings: EngineSettings,
        tell: Watcher,
        more: More | None = None,
    ) -> None:
        self._make = make
        self._more = more
        self._looked_at = 0.0  # for room
        self._settings = settings
        self._tell = tell
        self._needed = threading.Event()
        self._deaths_of = DeathsOf()
        self._engines = [self._supervised(number) for number in range(settings.engines)]
        self._forks: dict[int, Feed] = {}
        self._threads: dict[int, threading.Thread] = {}
        self._state = threading.Condition()  # for all that follows
        self._answered: deque[list[Outcome]] = deque()
        self._events: deque[Event] = deque()
        self._left = set(range(settings.engines))  # engines that are not left out
        self._at_work: set[int] = set()  # engines with a thread
        self._trouble: BaseException | None = None
        self._abort_asked: set[int] = set()
        self._ending = False

    @property
    def info(self) -> EngineInfo | None:
        known = [info for engine in self._engines if (info := engine.info) is not None]
        if not known:
            return None
        pids = tuple(pid for info in known for pid in info.pids)
        return replace(known[0], pids=pids, engines=len(self._engines))

    @property
    def needed(self) -> bool:
        return self._needed.is_set()

    @property
    def starting(self) -> bool:
        return self.info is None and any(engine.starting for engine in self._engines)

    @property
    def start_seconds(self) -> float | None:
        return min((each for engine in self._engines if (each := engine.start_seconds) is not None), default=None)

    @property
    def deaths(self) -> int:
        return sum(engine.deaths for engine in self._engines)

    @property
    def busy_seconds(self) -> float:
        return sum(engine.busy_seconds for engine in self._engines) / len(self._engines)

    @property
    def ready_seconds(self) -> float:
        return sum(engine.ready_seconds for engine in self._engines) / len(self._engines)

    def need(self) -> None:
        if not self._needed.is_set():
            self._needed.set()
            for engine in self._engines:
                engine.need()

    def wait_ready(self) -> EngineInfo:
        self.need()
        with self._state:
            self._state.wait_for(lambda: self._ending or self.info is not None)
        info = self.info
        if info is None:
            raise Cancelled
        return info

    def tokenize(self, prompts: Sequence[Prompt]) -> Sequence[Sequence[int] | Failure] | None:
        return self._engines[0].tokenize(prompts)

    def stream(self, feed: Feed) -> Iterator[list[Outcome]]:
        while not self._needed.wait(_PATIENCE_SECONDS):
            yield []
            if feed.finished:
                return
        self._begin(feed)
        try:
            while True:
                with self._state:
                    working, trouble = bool(self._at_work), self._trouble
                    answered, self._answered = self._answered, deque()
                    events, self._events = self._events, deque()
                for event in events:
                    self._tell(event)
                for outcomes in answered:
                    yield outcomes
                    feed.settled(len(outcomes))
                if answered:
                    self._look_for_room(feed)
                    continue
                if trouble is not None:
                    raise trouble
                if not working or (feed.finished and self._rest_is_down()):
                    return  # a model that is loaded for nothing is not waited for: ``stop`` ends that
                self._look_for_room(feed)
                yield []
                feed.doze(_LOOK_SECONDS)
        except BaseException:
            self._end()
            raise

    def abort(self) -> None:
        """As a ``Driver``; each engine is told by its own thread, between two steps, and that is waited for."""
        with self._state:
            self._abort_asked = {n for n, fork in self._forks.items() if fork.in_flight}
            self._state.wait_for(lambda: not self._abort_asked, _END_SECONDS)

    def stop(self) -> None:
        self._end()
        end = time.monotonic() + _END_SECONDS
        threads = list(self._threads.values())
        while any(thread.is_alive() for thread in threads) and time.monotonic() < end:
            for engine in self._engines:
                if engine.starting:  # also one whose thread had not yet seen that all is over
                    engine.kill()
            for thread in threads:
                thread.join(_LOOK_SECONDS / len(threads))
        with ThreadPoolExecutor(len(self._engines)) as pool:  # each waits for its process to end
            list(pool.map(Supervised.stop, self._engines))

    def counts(self) -> Usage:
        return sum((engine.counts() for engine in self._engines), Usage())

    def replicas(self) -> tuple[Replica, ...]:
        with self._state:
            left = set(self._left)
        return tuple(
            Replica(number, _state(engine) if number in left else "left out", engine.ready_seconds, engine.busy_seconds,
                    engine.counts(), engine.deaths)
            for number, engine in enumerate(self._engines)
        )  # fmt: skip

    def idle_share(self) -> float:
        return idle_share(self)

    def speculation(self) -> Speculation | None:
        found = [each for engine in self._engines if (each := engine.speculation()) is not None]
        if not found:
            return None
        first = min(
            (each for each in found if each.fell_back), key=lambda each: each.after_requests or 0, default=found[0]
        )
        drafts = sum((each.drafts for each in found), Drafts())
        fallen = sum(each.fell_back for each in found)
        return first._replace(drafts=drafts, engines=len(found), fell_back=fallen)

    def _begin(self, feed: Feed) -> None:
        """Start the threads."""
        with self._state:
            new = self._left - self._at_work  # from an earlier stream of this feed an engine may still be starting
        self._set_to_work(new, feed)

    def _set_to_work(self, new: Collection[int], feed: Feed) -> None:
        with self._state:
            self._at_work |= set(new)
        self._forks |= {number: feed.fork() for number in new}
        for number in new:
            thread = threading.Thread(
                target=self._run, args=(number, feed), name=f"llmbatch-replica-{number}", daemon=True
            )
            self._threads[number] = thread
            thread.start()

    def _look_for_room(self, feed: Feed) -> None:
        """Now and then: engines for places that came up since, as long as there is work that nobody has taken."""
        now = time.monotonic()
        if self._more is None or now - self._looked_at < _ROOM_SECONDS:
            return
        self._looked_at = now
        with self._state:
            waiting = sum(not self._engines[number].is_up for number in self._left)
        more = self._more(waiting)
        if not more or not feed.waiting or feed.halted:
            return
        new = range(len(self._engines), len(self._engines) + more)
        self._engines += [self._supervised(number) for number in new]
        with self._state:
            self._left |= set(new)
        for number in new:
            self._engines[number].need()
        self._tell(Note("info", f"there is room for more engines: {more} besides, {len(self._left)} in all"))
        self._set_to_work(new, feed)

    def _supervised(self, number: int) -> Supervised:
        make, say = partial(_made, self._make, number), partial(self._say_of, number)
        return Supervised(make, self._settings, say, self._deaths_of)

    def _rest_is_down(self) -> bool:
        """Whether no engine with a thread at work is up: they load a model, or wait to try that again."""
        with self._state:
            return not any(self._engines[number].is_up for number in self._at_work)

    def _run(self, number: int, feed: Feed) -> None:
        """One replica's thread, from its first start to its end."""
        engine, fork = self._engines[number], self._forks[number]
        try:
            for outcomes in engine.stream(fork):
                if outcomes:
                    with self._state:
                        self._answered.append(outcomes)
                    feed.wake()
                if number in self._abort_asked:
                    engine.abort()
                    fork.recall()
                    self._aborted(number)
                if self._ending:
                    return
        except EngineError as error:
            self._leave_out(number, error)
        except BaseException as error:
            with self._state:
                self._trouble = self._trouble or error
        finally:
            if self._ending:  # an engine that came up after ``stop`` is ended here
                engine.stop()
            fork.leave()
            with self._state:
                self._at_work.discard(number)
            self._aborted(number)
            feed.wake()

    def _leave_out(self, number: int, error: EngineError) -> None:
        """What it had goes to the others. The last one's error is that of the run."""
        if self._ending:
            return  # it was ended as it started
        with self._state:
            self._left.discard(number)
            left = len(self._left)
            if not left:
                self._trouble = self._trouble or error
                return
        what = f"{left} replica goes" if left == 1 else f"{left} replicas go"
        self._say(Note("warning", f"replica {number} is left out, and {what} on without it: {error}"))

    def _aborted(self, number: int) -> None:
        with self._state:
            self._abort_asked.discard(number)
            self._state.notify_all()

    def _end(self) -> None:
        """No thread goes on once nobody takes what it answers; who waits for an engine waits no longer."""
        with self._state:
            self._ending = True
            self._state.notify_all()

    def _say_of(self, number: int, event: Event) -> None:
        """An event of one of them: what it notes says which."""
        self._say(replace(event, message=f"replica {number}: {event.message}") if isinstance(event, Note) else event)

    def _say(self, event: Event) -> None:
        """An event of a replica's thread: told by the thread that drives them all, as watchers are made for one."""
        with self._state:
            self._events.append(event)
            self._state.notify_all()  # an engine may be up


def _state(engine: Supervised) -> Literal["waiting", "starting", "up"]:
    if engine.is_up:
        return "up"
    return "starting" if engine.starting or engine.info is not None else "waiting"


def _made(make: MakeOne, number: int, settings: EngineSettings) -> Engine:
    return make(settings, number)


__all__ = ["More", "Replicas", "drive"]
