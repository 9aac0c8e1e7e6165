"""How the server goes about it: where it listens, where its data lies, and what it refuses. Nothing here changes an answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmbatch.core.errors import JobError
from llmbatch.core.merge import merged
from llmbatch.core.words import near
from llmbatch.job.job import Job, job_from
from llmbatch.job.swept import recipe_of
from llmbatch.server.keys import Keys

LOOPBACK = ("127.0.0.1", "::1", "localhost")
_SECTIONS = ("model", "engine", "chat", "sampling", "answer", "retry", "plan", "reuse", "run", "program")
_DEFAULTS: Mapping[str, Any] = {
    # images come within the request: what else one names, this machine would read or ask for in the client's place
    "engine": {"images": {"allow": []}},
    "run": {"grace": 10.0},  # seconds that what is in flight gets where a batch is cancelled or the server ends
    "retry": {"max_attempts": 1},  # a request says itself how long its answer may be, and gets what comes
}
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """``job`` are the sections that every batch has: model, engine, chat, ...; ``names`` by which requests may call the model."""

    job: Mapping[str, Any]
    data: Path
    host: str = "127.0.0.1"
    port: int = 8000
    keys: Keys = field(default_factory=Keys)
    names: tuple[str, ...] = ()
    assets: Mapping[str, str] = field(default_factory=dict)  # what addresses in job documents stand for here
    idle: float = 300.0  # seconds without work after which the engine is ended; 0: never
    max_bytes: int = 20 * _GIB  # of a file that is uploaded
    owner_bytes: int | None = None  # of all files that one owner has here, uploaded ones and results; None: no limit
    max_lines: int = 50_000  # of a batch
    max_body: int = 64 << 20  # of any other request
    sessions: int = 8  # batches that run at a time
    slice_seconds: float = 60.0  # that a batch may run while others of its priority wait
    body_seconds: float = 60.0  # that a client may be silent in the middle of a request
    live_requests: int = 1024  # at a time

    @property
    def model(self) -> str:
        return str(self.job["model"])

    @property
    def models(self) -> tuple[str, ...]:
        """The names that requests may have as their model: of the model, and of its adapters."""
        engine = self.job.get("engine") or {}
        own = self.names or tuple(dict.fromkeys((self.model, Path(self.model).name)))
        return (*own, *(engine.get("lora") or {}))

    @property
    def gives_vectors(self) -> bool:
        """Whether the model gives numbers for texts, and no answers."""
        program = self.job.get("program") or {}
        return bool(program.get("name") == "embed")

    def job_for(self, sections: Mapping[str, Any], output: Path) -> Job:
        """The job of one batch: what holds for all, and what is its own. Raises ``JobError``."""
        return job_from(merged(merged(_DEFAULTS, self.job), {**sections, "output": str(output)}))

    def prove(self) -> Job:
        """A job as batches will have it; what is wrong with the settings is said before anybody asks. Raises ``UsageError``."""
        wrong = [name for name in self.job if name not in _SECTIONS]
        if wrong:
            known = ", ".join(_SECTIONS)
            raise JobError(
                f"{wrong[0]}: comes with each batch, and cannot be set for the server{near(wrong[0], _SECTIONS)}; its sections are "
                f"{known}"
            )
        if "model" not in self.job:
            raise JobError("model is missing: give --model")
        job = self.job_for({"input": {"path": "requests.jsonl", "format": "openai"}}, self.data / "live")
        recipe_of(job)
        if not self.keys and self.host not in LOOPBACK:
            raise JobError(
                f"--host {self.host}: without API keys everybody who reaches this machine could read and start batches: give "
                "--api-key-file FILE, or listen on 127.0.0.1"
            )
        return job


__all__ = ["LOOPBACK", "ServerSettings"]
