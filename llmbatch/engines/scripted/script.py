"""A script file (YAML) in; what the scripted engine does with which request, checked, out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from llmbatch.core.errors import JobError
from llmbatch.core.types import FinishReason
from llmbatch.engines import ENGINES
from llmbatch.engines.kinds import kind_of
from llmbatch.engines.settings import EngineSettings


class When(BaseModel):
    """Which requests a rule is for: all of the conditions that are given must hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    index: int | list[int] | None = Field(None, description="the row's index")
    contains: str | None = Field(None, description="text in the last message")
    matches: str | None = Field(None, description="regular expression found in the last message")
    attempt: int | list[int] | None = None
    step: int | None = None
    sample: int | list[int] | None = None


class Rule(BaseModel):
    """What happens to the requests of one kind."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    when: When = When()
    answer: str | None = Field(
        None,
        description="the answer; {text} is the last message, {index}, {sample} and {attempt} the request's. Where numbers are "
        "asked for, a JSON list of them",
    )
    finish_reason: FinishReason = "stop"
    fail: str | None = Field(None, description="the engine fails this request with this message and lives")
    die: bool | Literal["out_of_memory", "lost"] = Field(
        False, description="the engine dies while this request is in flight; lost: as a connection that breaks"
    )
    crash: bool = Field(
        False,
        description="as a segfault does: it kills the run's own process, or with engine.in_process=false only the engine",
    )
    hang: bool = Field(
        False, description="this request is never answered; after engine.timeout the engine counts as hung"
    )
    times: int | None = Field(
        None, ge=1, description="how often the rule applies in the life of the process; by default always"
    )


class Script(BaseModel):
    """A script file (YAML). Times in seconds, lengths in bytes, which are this engine's tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rules: list[Rule] = Field(
        default_factory=list, description="the first that fits applies; without one, the answer is the echo"
    )
    latency: float = Field(0.0, ge=0, description="mean time of an answer")
    jitter: float = Field(0.0, ge=0, le=1, description="share of the latency by which it varies, the same in every run")
    start_seconds: float = Field(0.0, ge=0)
    concurrency: int = Field(256, ge=1)
    context_length: int = Field(1_000_000, ge=2)
    tokenizer: str | None = Field(
        None, description="a model whose chat template and tokenizer make the prompts' ids; without it they are bytes"
    )
    no_ids: bool = Field(
        False, description="as a server that tokenizes itself: it takes prompts and gives text, no ids"
    )
    kv_cache_tokens: int | None = Field(None, ge=1, description="what it says that its KV cache holds")
    no_images: bool = Field(False, description="as a model that takes text alone")
    no_context_length: bool = Field(False, description="as a server that does not tell how much it takes")
    ends_thinking: bool = Field(
        True,
        description="it keeps to a thinking budget itself; false: as an engine that cannot, so that it takes two requests",
    )
    dimensions: int = Field(16, ge=1, description="of the vectors that it makes of texts")
    classes: list[str] = Field(
        default_factory=lambda: ["LABEL_0", "LABEL_1"], min_length=1, description="into which it sorts texts"
    )
    starts: int | None = Field(None, ge=1, description="how many engines can be started in the life of the process")
    die_after: list[int] = Field(
        default_factory=list, description="the engine dies when it has answered so many requests"
    )
    accepts: list[float] = Field(
        default_factory=list,
        description="as an engine that guesses tokens ahead, one for each of an answer: the share that is right in its first 100 "
        "answers, in the next 100, ...; the last goes on",
    )
    out_of_memory_above: int | None = Field(None, description="starting with more concurrent requests than this fails")


class ScriptedSettings(EngineSettings):
    """The engine section of a job on the scripted engine. What is for another engine alone it takes and leaves unread, so that
    a job can be rehearsed as it is; its own ``args`` are the keys of a script.
    """

    @model_validator(mode="before")
    @classmethod
    def _without_other_engines(cls, data: Any) -> Any:
        """What only another engine's settings have is not unknown, it is not for this one."""
        if not isinstance(data, dict):
            return data
        others = {name for engine in ENGINES if engine != "scripted" for name in kind_of(engine).settings.model_fields}
        return {name: value for name, value in data.items() if name in cls.model_fields or name not in others}

    @model_validator(mode="after")
    def _of_this_engine(self) -> ScriptedSettings:
        try:
            Script.model_validate(self.args)
        except ValidationError as error:
            raise ValueError(_problems(error, "engine.args")) from None
        return self


def load_script(engine: EngineSettings) -> Script:
    """The script of the settings: a YAML file, with ``engine.args`` laid over it. Raises ``JobError``."""
    data: dict[str, Any] = {}
    if engine.script is not None:
        try:
            data = yaml.safe_load(Path(engine.script).read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise JobError(f"{engine.script}: the scripted engine's script cannot be read: {error}") from error
    if not isinstance(data, dict):
        raise JobError(
            f"{engine.script}: a script is a YAML mapping, with keys such as {', '.join(Script.model_fields)}"
        )
    try:
        return Script.model_validate({**data, **engine.args})
    except ValidationError as error:
        raise JobError(_problems(error, engine.script or "engine.args")) from error


def _problems(error: ValidationError, where: str) -> str:
    details = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
    return f"{where}: {details}. Known keys: {', '.join(Script.model_fields)}"
