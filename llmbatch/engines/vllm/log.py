"""Whatever vLLM prints -> a file: its loggers, the progress bars and warnings while it loads, and all that its processes write."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TextIO

_lock = threading.Lock()
_captures = 0
_undo = ExitStack()


@contextmanager
def captured(log: Path) -> Iterator[None]:
    """Point standard output and error of this process at ``log``; processes that are started meanwhile keep it for good.

    That goes for the file descriptors 1 and 2 as well: only so is caught what C++ libraries print, and what the engine's
    processes print before their own logging is set up. A live view that must stay on the terminal writes to a duplicate of
    the descriptor that was made before. May be nested, also by other threads: the first one's log counts.
    """
    global _captures
    with _lock:
        if _captures == 0:
            _redirect(log)
        _captures += 1
    try:
        yield
    finally:
        with _lock:
            _captures -= 1
            if _captures == 0:
                _undo.close()


def redirect_loggers(log: Path) -> None:
    """Make vLLM's own logger in this process write to ``log``, unless the user has configured vLLM's logging.

    vLLM configures its logger again whenever it makes an engine's configuration, so this does not last; ``captured`` does it
    at its end.
    """
    logger = logging.getLogger("vllm")
    if os.environ.get("VLLM_LOGGING_CONFIG_PATH") or os.environ.get("VLLM_CONFIGURE_LOGGING") == "0":
        return
    formatter = next((handler.formatter for handler in logger.handlers), None)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        if isinstance(handler, logging.FileHandler):
            handler.close()
    handler = logging.FileHandler(log, delay=True, encoding="utf-8")
    handler.setFormatter(formatter)
    logger.addHandler(handler)


def tail(log: Path, start: int = 0, size: int = 65536) -> str:
    """The end of a log, from byte ``start`` on at the earliest; empty where there is no log."""
    try:
        with log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(start, end - size))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def _redirect(log: Path) -> None:
    _flush()
    target = _undo.enter_context(log.open("a", encoding="utf-8", buffering=1))
    errors = _undo.enter_context(log.open("a", encoding="utf-8", buffering=1))  # apart, to know one from the other
    for descriptor in (1, 2):
        try:
            copy = os.dup(descriptor)
        except OSError:  # closed, as in a daemon: it stays so
            continue
        _undo.callback(os.close, copy)
        _undo.callback(os.dup2, copy, descriptor)
        os.dup2(target.fileno(), descriptor)
    _undo.callback(_flush)
    _undo.callback(_release, ((target, sys.stdout), (errors, sys.stderr)), log)
    for stream in {id(stream): stream for stream in (sys.stdout, sys.stderr) if stream is not None}.values():
        _undo.enter_context(_kept_open(stream))
    if "vllm" in sys.modules:
        redirect_loggers(log)  # the log of an earlier run may be gone
    # a notebook's streams, and pytest's, do not go through the descriptors
    _undo.enter_context(redirect_stdout(target))
    _undo.enter_context(redirect_stderr(errors))


@contextmanager
def _kept_open(stream: TextIO) -> Iterator[None]:
    """Let nobody close a stream that another one takes the place of.

    vLLM configures logging anew, which closes every handler that there is, and absl's handler, which rouge-score and TensorFlow
    bring, then closes its stream if that is not ``sys.stderr`` at the moment.
    """
    stream.close = lambda: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        del stream.close


def _release(streams: Iterable[tuple[TextIO, TextIO]], log: Path) -> None:
    """Of each pair: no logger that was set up meanwhile keeps the first, which is about to be closed, but has the second."""
    if "vllm" in sys.modules:
        redirect_loggers(log)
    for handler in (*logging.getLogger("vllm").handlers, *logging.getLogger().handlers):
        for ours, before in streams:
            if isinstance(handler, logging.StreamHandler) and handler.stream is ours:
                handler.setStream(before)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()
