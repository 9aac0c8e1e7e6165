"""The processes that vLLM starts: noticed as they come, watched over by the guardian, and ended to the last one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess

import psutil

from llmbatch.engines.guardian import Guardian

_POLL_SECONDS = 0.2
_GRACE_SECONDS = 5.0


class Processes:
    """The engine's own processes, from the first on. Without any (an engine in this process) it does nothing."""

    def __init__(self) -> None:
        self._before = {child.pid for child in _children()}
        self._seen: dict[int, psutil.Process] = {}
        self._starts = False
        self._guardian: Guardian | None = None

    @property
    def pids(self) -> tuple[int, ...]:
        """Those that are alive."""
        return tuple(sorted(pid for pid, process in self._seen.items() if _is_running(process)))

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Watch for new processes while it lasts: a run that is killed while a model loads leaves none behind either.

        They do not hear a terminal's Ctrl-C, see ``_deaf_to_interrupts``.
        """
        self._guardian = Guardian()
        resource_tracker.ensure_running()  # Python's own, one for all of a program's processes: it is there to stay
        self._before |= {child.pid for child in _children()}
        self._starts = True
        done = threading.Event()

        def look() -> None:
            while not done.wait(_POLL_SECONDS):
                self.notice()

        thread = threading.Thread(target=look, name="llmbatch-processes", daemon=True)
        thread.start()
        try:
            with _deaf_to_interrupts():
                yield
        finally:
            done.set()
            thread.join()
            self.notice()
            self._starts = False

    def notice(self) -> None:
        """Take in processes that are new since the last look: once it has started, only those below its own.

        What else the program starts while the engine runs is not the engine's, and does not end with it.
        """
        parents = [psutil.Process()] if self._starts else list(self._seen.values())
        for child in (child for parent in parents for child in _children(parent)):
            if child.pid not in self._before:
                self._seen.setdefault(child.pid, child)
        if self._guardian is not None:
            self._guardian.watch(self._seen)

    def kill(self) -> None:
        """Kill them all, at once and without asking."""
        for process in self._seen.values():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue

    def end(self) -> None:
        """Wait for them to end, kill those that do not, and let the guardian go. May be called twice."""
        self.notice()
        _, alive = psutil.wait_procs(self._seen.values(), timeout=_GRACE_SECONDS)
        if alive:
            self.kill()
            psutil.wait_procs(alive, timeout=_GRACE_SECONDS)
        self._seen.clear()
        if self._guardian is not None:
            self._guardian.close()
            self._guardian = None


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes that this thread starts meanwhile, and those that they start, never get a SIGINT.

    A terminal's Ctrl-C goes to every process in the foreground. vLLM's engine core would end with all that is in flight, which
    the run has promised its grace. The core sets a handler of its own, so the signal is blocked: that is inherited and stays. A
    run that ends, ends its engine by SIGTERM and SIGKILL, and so does the guardian.
    """
    thread, start = threading.get_ident(), BaseProcess.start

    def deaf(process: BaseProcess) -> None:
        if threading.get_ident() != thread:
            start(process)
            return
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            start(process)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    BaseProcess.start = deaf  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        BaseProcess.start = start  # type: ignore[method-assign]


def _children(parent: psutil.Process | None = None) -> list[psutil.Process]:
    """All below a process, this one if none is given."""
    try:
        return [child for child in (parent or psutil.Process()).children(recursive=True) if _is_running(child)]
    except psutil.NoSuchProcess:
        return []


def _is_running(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
