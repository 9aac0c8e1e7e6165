"""What the library says while an engine lives -> a file: its loggers' words, and no progress bars."""

from __future__ import annotations

import logging
from importlib import import_module
from pathlib import Path

_LOGGERS = ("transformers", "ContinuousBatchingLogger", "accelerate")


class Log:
    """From ``open`` to ``close`` the library's loggers write to ``path``, and to nothing else."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handler: logging.Handler | None = None
        self._before: dict[str, list[logging.Handler]] = {}

    def open(self) -> None:
        """May be called twice."""
        if self._handler is not None:
            return
        from transformers.utils import logging as library

        import_module("transformers.generation.continuous_batching.requests")  # it gives its logger a handler
        library.disable_progress_bar()
        self._handler = logging.FileHandler(self._path, delay=True, encoding="utf-8")
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s [%(name)s] %(message)s"))
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            self._before[name] = list(logger.handlers)
            logger.handlers = [self._handler]

    def close(self) -> None:
        """May be called twice."""
        if self._handler is None:
            return
        for name, handlers in self._before.items():
            logging.getLogger(name).handlers = handlers
        self._handler.close()
        self._handler = None
