"""The job: each stage's own settings put together, from YAML, flags or Python; unknown keys are refused, and it has an identity.

Two runs with the same identity give the same results, so a run folder goes on only under the identity that it began with.
What changes speed alone (window sizes, batch sizes, budgets) is not part of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator

from llmbatch.accept.base import AcceptSettings
from llmbatch.check.base import OutputSettings
from llmbatch.core.errors import JobError, ReadError, SourceError
from llmbatch.core.settings import IsPath, is_named_as_path, is_there
from llmbatch.core.words import clip, first_few, near, short
from llmbatch.engines import DEFAULT_ENGINE
from llmbatch.engines.kinds import checked, kind_of
from llmbatch.engines.settings import EngineSettings
from llmbatch.folder.folder import JOB_FILE
from llmbatch.formats import FORMATS
from llmbatch.job.file import DEMO, home_filled_in, job_text, read_job_file, resolve_paths
from llmbatch.job.problems import explain
from llmbatch.job.run_settings import RunSettings
from llmbatch.job.sweep import SweepSettings
from llmbatch.model.tokenizer import ChatSettings
from llmbatch.plan.window import PlanSettings
from llmbatch.programs import PROGRAMS
from llmbatch.programs.base import default_prompts
from llmbatch.programs.retry import RetrySettings
from llmbatch.prompt.base import PromptSettings
from llmbatch.reuse.memory import ReuseSettings
from llmbatch.sinks.base import SinkSettings
from llmbatch.sources.base import SourceSettings
from llmbatch.sources.opening import guess_format

DEMO_MODEL = Path(__file__).parents[1] / "demo" / "model"

_MAX_DEPTH = 100  # of nesting in a job
_SECRET = re.compile(
    r"(?:.*_)?(?:hf_token|(?:access|api|auth|session)_token|api_?key|access_key(?:_id)?|secret(?:_key)?|password|passwd|credentials?|authorization)",
    re.IGNORECASE,
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# of file systems: an S3 client's key, secret and token, an account_key, a connection_string, ...
_STORAGE_SECRET = re.compile(
    r"(?:.*_)?(?:key(?:_id)?|keyfile_json|token|secret|password|passwd|pass|passphrase|credentials?|connection_string|sas|pkey)",
    re.IGNORECASE,
)
_WITH_PASSWORD = re.compile(r"[a-z0-9+.:-]+://[^/@]*:[^/@]+@", re.IGNORECASE)


class StepSettings(PromptSettings):
    """The prompt of a further step, and what holds for its answers alone."""

    answer: OutputSettings | None = Field(None, description="what an answer must be; by default as the prompt says")
    sampling: dict[str, Any] = Field(
        default_factory=dict, description="goes before the prompt's and the job's sampling"
    )
    lora: str | None = Field(None, description="the adapter, by its name in engine.lora")


class ProgramSettings(BaseModel):
    """By which steps a row is done."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(
        "single",
        description=f"one of {', '.join(PROGRAMS)}, or the import path of a program of your own (module:function)",
    )
    prompts: dict[str, StepSettings] = Field(
        default_factory=dict,
        description="prompts of further steps by name: each a file, the name of a shipped prompt, the text itself, or a mapping "
        "with that as path, and answer, sampling, lora, variables, fields of its own",
    )
    settings: dict[str, Any] = Field(default_factory=dict, description="the program's own settings")

    @field_validator("prompts", mode="before")
    @classmethod
    def _text_is_its_path(cls, prompts: Any) -> Any:
        if not isinstance(prompts, Mapping):
            return prompts
        if "main" in prompts:
            raise ValueError("main is the job's own prompt, and is given as prompt")
        return {name: {"path": step} if isinstance(step, str) else step for name, step in prompts.items()}


def _is_model_path(value: str, base: Path) -> bool:
    return value != DEMO and (is_named_as_path(value) or is_there(value, base))


class Job(BaseModel):
    """Everything that one run is. The sections are documented where they are read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Annotated[str, IsPath(_is_model_path)] = Field(
        description="a hub name, a local folder, or demo for the model that comes with llmbatch"
    )
    prompt: PromptSettings | None = Field(None, description="only an input of ready-made requests needs none")
    input: SourceSettings
    output: Annotated[Path, IsPath()] = Field(description="the run folder")
    program: ProgramSettings = ProgramSettings()
    engine: EngineSettings = EngineSettings()
    chat: ChatSettings = ChatSettings()
    sampling: dict[str, Any] = Field(
        default_factory=dict,
        description="settings by vLLM's names; they override the prompt's. {field: NAME} takes the row's, as for a seed of its own",
    )
    answer: OutputSettings | None = Field(None, description="what an answer must be; by default as the prompt says")
    sweep: SweepSettings | None = Field(None, description="several values of prompts, variables, sampling or adapters")
    accept: AcceptSettings | None = Field(None, description="which rows are accepted, and how many of them are wanted")
    retry: RetrySettings = RetrySettings()
    plan: PlanSettings = PlanSettings()
    reuse: ReuseSettings = ReuseSettings()
    sinks: SinkSettings = SinkSettings()
    run: RunSettings = RunSettings()

    @property
    def model_path(self) -> str:
        """What the engine is given: ``demo`` stands for the packaged model's folder."""
        return str(DEMO_MODEL) if self.model == DEMO else self.model

    @property
    def plan_in_use(self) -> PlanSettings:
        """How windows are planned, after what ``run.order`` says of it."""
        return self.plan.model_copy(update={"order": "input"}) if self.run.order == "input" else self.plan

    def data(self) -> dict[str, Any]:
        """The job as the plain data that ``job_from`` takes; settings left at their default are left out."""
        return self.model_dump(mode="json", exclude_defaults=True, by_alias=True)

    def absolute(self) -> Job:
        """The same job with its paths made absolute, so that it means the same from every folder."""
        return job_from(resolve_paths(self.data(), Path.cwd(), type(self)))

    def to_yaml(self, folder: Path | None = None) -> str:
        """The job as a file that ``load_job_data`` and ``job_from`` read as ``self.absolute()``.

        For a file in ``folder`` the paths in that folder are relative, so that it can be moved.
        """
        data = resolve_paths(self.data(), Path.cwd(), type(self))
        return job_text(data, folder.expanduser().absolute() if folder else None, type(self))


def job_class(data: Mapping[str, Any]) -> type[Job]:
    """The class of a job with this data: its engine section has the settings of the engine that it names.

    Raises ``JobError`` for an unknown engine.
    """
    engine = data.get("engine")
    name = engine.get("name", DEFAULT_ENGINE) if isinstance(engine, Mapping) else DEFAULT_ENGINE
    return _with_engine(name) if isinstance(name, str) else Job


@cache
def _with_engine(name: str) -> type[Job]:
    settings = kind_of(name).settings
    engine: Any = (settings, settings() if name == DEFAULT_ENGINE else ...)
    return create_model("Job", __base__=Job, __module__=Job.__module__, engine=engine)


def job_from(data: Mapping[str, Any]) -> Job:
    """A job from nested plain data; a plain string for ``prompt`` or ``input`` is its path. Raises ``JobError``."""
    plain = {str(key): _plain(value, str(key)) for key, value in data.items()}
    for section in ("prompt", "input"):
        if isinstance(plain.get(section), str):
            plain[section] = {"path": plain[section]}
    plain = _with_prompt(_with_price(plain))
    _refuse_engine_secrets(plain.get("engine"))  # first: what is wrong with a value is said with the value
    settings = job_class(plain)
    plain = home_filled_in(plain, settings)
    try:
        job = settings.model_validate(plain)
    except ValidationError as error:
        raise JobError("; ".join(explain(error, plain, settings, options=True))) from None
    if job.reuse.cache is not None and not job.plan.fold:
        raise JobError(
            "reuse.cache: a cache answers requests that are equal to earlier ones, and plan.fold says that none are"
        )
    if job.input.endless and (job.accept is None or job.accept.rows is None):
        raise JobError(
            "input.rows is missing: rows are drawn without an end. Give --rows N for so many rows, or --accept N to go on until so "
            "many are accepted"
        )
    _check_slice(job)
    _refuse_storage_secrets("input.path", job.input.path, job.input.storage_options)
    _refuse_storage_secrets("sinks.to", job.sinks.to or "", job.sinks.storage_options)
    checked(job.engine)
    return _repeated(_rows_are_rows(job))


def _with_price(data: dict[str, Any]) -> dict[str, Any]:
    """With its model's prices, where ``run.price_per_million`` is a list by model, as a team keeps one for all of its jobs."""
    run, model = data.get("run"), data.get("model")
    prices = run.get("price_per_million") if isinstance(run, Mapping) else None
    if not isinstance(run, Mapping) or not isinstance(prices, Mapping) or not isinstance(model, str):
        return data
    if model not in prices:
        raise JobError(
            f"run.price_per_million: has no price for the model {short(model)}{near(model, map(str, prices))}; it has prices for "
            f"{first_few(prices, 8, short) or 'none'}"
        )
    return {**data, "run": {**run, "price_per_million": prices[model]}}


def _with_prompt(data: dict[str, Any]) -> dict[str, Any]:
    """With the program's own prompt where the job says only where its variables come from."""
    prompt, program = data.get("prompt"), data.get("program")
    if not isinstance(prompt, Mapping) or "path" in prompt or not isinstance(program, Mapping):
        return data
    default = default_prompts(str(program.get("name"))).get("main")
    return data if default is None else {**data, "prompt": {"path": default, **prompt}}


def _check_slice(job: Job) -> None:
    if job.input.shard is None:
        return
    if job.accept is not None and job.accept.rows is not None:
        raise JobError(
            "input.shard: how many rows are accepted is counted over the whole input, which a slice does not know: leave --accept "
            "out, or run it without --shard"
        )
    if job.sinks.to is not None:
        raise JobError(
            "sinks.to: slices of one input would write over each other's files there: leave it out (--set sinks.to=null where a "
            "document says it), and give --to to llmbatch merge"
        )


def _repeated(job: Job) -> Job:
    """With a sweep, the input has each row once for every setting."""
    if job.sweep is None or job.sweep.count == 1:
        return job
    count, given = job.sweep.count, job.input.repeat
    if given not in (None, count):
        raise JobError(
            f"input.repeat is {given}, and with a sweep of {count:,} settings every row comes {count:,} times: leave it out"
        )
    return job.model_copy(update={"input": job.input.model_copy(update={"repeat": count})})


def _rows_are_rows(job: Job) -> Job:
    """With a prompt, rows are rows, also where they look like ready-made requests; a format that is named stays."""
    prompts = job.prompt is not None or (job.sweep is not None and any("prompt" in each for each in job.sweep.each()))
    if not prompts or job.input.format is not None:
        return job
    try:
        requests = guess_format(job.input.path, job.input.storage_options) in FORMATS
    except (SourceError, ReadError):  # said where the input is opened
        requests = False
    return job.model_copy(update={"input": job.input.model_copy(update={"format": "jsonl"})}) if requests else job


def job_of(folder: Path) -> Job:
    """The job of a run folder, as it is written there. Raises ``JobError``."""
    return job_from(load_job_data(folder / JOB_FILE))


def load_job_data(path: Path) -> dict[str, Any]:
    """A job file (YAML) as plain data; paths in it are relative to its own folder. Raises ``JobError``."""
    return read_job_file(path, job_class)


def _plain(value: Any, where: str, depth: int = 0) -> Any:
    """The value as JSON has it, so that a job means the same once it was written and read. Raises ``JobError``."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str | Path):
        return _sound(str(value), where)
    if isinstance(value, int):
        if value.bit_length() > 64:
            raise JobError(f"{where}: is a whole number beyond 64 bits")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise JobError(f"{where}: is {value}, and a setting is a finite number")
        return float(value)
    if depth >= _MAX_DEPTH:
        raise JobError(f"{clip(where, 80)}: is nested deeper than {_MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        return {_key(key, where): _plain(item, f"{where}.{key}", depth + 1) for key, item in value.items()}
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, bytes | bytearray | memoryview):
        return [_plain(item, f"{where}[{number}]", depth + 1) for number, item in enumerate(value)]
    raise JobError(
        f"{where}: is a {type(value).__name__}, and a setting is text, a number, true, false, a list or a mapping"
    )


def _sound(text: str, where: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise JobError(f"{where}: holds half of a surrogate pair, which is no character") from None
    return text


def _key(key: Any, where: str) -> str:
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise JobError(f"{where}: has the key {short(key)}, and a key is text")
    return _sound(str(key), where)


def _refuse_secrets(args: Mapping[str, Any], where: str, names: re.Pattern[str] = _SECRET) -> None:
    """A job is written to the run folder, its report and the engine's log, so it must not hold what nobody may read."""
    for key, value in args.items():
        if isinstance(value, Mapping):
            _refuse_secrets(value, f"{where}.{key}", names)
        elif isinstance(value, str) and value and (names.fullmatch(key) or _WITH_PASSWORD.match(value)):
            known = "set HF_TOKEN in the environment" if key == "hf_token" else "give it in an environment variable"
            raise JobError(
                f"{where}.{key}: a secret has no place in a job, which is written to the run folder and to logs: {known} instead"
            )


def _refuse_engine_secrets(engine: Any) -> None:
    """Of a job's engine section as it was given."""
    if not isinstance(engine, Mapping):
        return
    if isinstance(args := engine.get("args"), Mapping):
        _refuse_secrets(args, "engine.args")
    name = engine.get("key_env")
    if isinstance(name, str) and not _VARIABLE.fullmatch(name):
        raise JobError(
            "engine.key_env: is the name of an environment variable that holds the key, such as OPENAI_API_KEY, not the key itself"
        )


def _refuse_storage_secrets(setting: str, url: str, options: Mapping[str, Any]) -> None:
    section, _, key = setting.partition(".")
    _refuse_secrets(options, f"{section}.storage_options", _STORAGE_SECRET)
    _refuse_secrets({key: url}, section)


__all__ = ["DEMO_MODEL", "Job", "job_class", "job_from", "job_of", "load_job_data"]
