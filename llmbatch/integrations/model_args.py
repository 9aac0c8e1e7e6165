"""The flat ``key=value`` pairs by which other tools are given a model in; the sections of a job for the engine and the chat out.

Keys that are not llmbatch's own are the engine's arguments, as in those tools' own backends: ``max_model_len=4096``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llmbatch.core.errors import JobError
from llmbatch.core.words import near, short
from llmbatch.engines import DEFAULT_ENGINE, ENGINES


class EngineArgs(BaseModel):
    """What any of the tools may say of the engine. A tool's own class adds what it has besides."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    engine: str = Field(DEFAULT_ENGINE, description=" or ".join(ENGINES))
    script: str | None = Field(None, description="scripted engine: path of its script")
    replicas: int = 1
    in_process: bool | None = None
    in_flight: int | None = None
    timeout: float = 600.0
    restarts: int = 5
    reasoning_parser: str | None = None
    trust_remote_code: bool = False

    @classmethod
    def of(cls, given: Mapping[str, Any], where: str) -> Self:
        """The arguments, checked as far as that is possible without an engine. Raises ``JobError``; ``where`` names them for it."""
        try:
            return cls.model_validate({key: value for key, value in given.items() if value is not None})
        except ValidationError as error:
            said = "; ".join(_problem(problem, cls, given) for problem in error.errors(include_url=False))
            raise JobError(f"{where}: {said}") from None

    @property
    def engine_args(self) -> dict[str, Any]:
        """Those of the engine itself, by its names."""
        return dict(self.model_extra or {})

    def engine_section(self) -> dict[str, Any]:
        """The engine section of a job."""
        own = self.model_dump(include=set(EngineArgs.model_fields) - {"engine"}, exclude_none=True)
        return {"name": self.engine, "args": self.engine_args, **own}

    @contextmanager
    def explained(self, where: str) -> Iterator[None]:
        """What the engine says of its arguments while it is made, with what llmbatch's own keys are close to them."""
        try:
            yield
        except JobError as error:
            raise JobError(f"{where}: {error}{self._near_own()}") from error
        except ValidationError as error:
            said = "; ".join(_problem(problem, type(self), {}) for problem in error.errors(include_url=False))
            raise JobError(f"{where}: {said}") from None

    def _near_own(self) -> str:
        """Keys that were taken for the engine's and are close to one of llmbatch's own."""
        close = {key: found for key in self.engine_args if (found := near(key, type(self).model_fields))}
        return "".join(f"; of llmbatch's own keys, {key!r} is close to one{found}" for key, found in close.items())


def _problem(problem: Any, arguments: type[EngineArgs], given: Mapping[str, Any]) -> str:
    key = ".".join(map(str, problem["loc"]))
    if problem["type"] == "missing":
        close = next((other for other in given if near(other, [key])), None)
        meant = "" if close is None else f" (is that what {close!r} was to be?)"
        return f"{key} is missing{meant}; llmbatch's own keys are {', '.join(arguments.model_fields)}"
    said = problem["msg"].removeprefix("Value error, ")
    return f"{key}: {said} (got {short(problem.get('input'))})"


__all__ = ["EngineArgs"]
