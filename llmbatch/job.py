"""The job: each stage's own settings put together, from YAML, flags or Python; unknown keys are refused, and it has an identity.

Two runs with the same identity give the same results, so a run folder goes on only under the identity that it began with.
What changes speed alone (window sizes, batch sizes, budgets) is not part of it.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from llmbatch.check.base import OutputSettings
from llmbatch.core.errors import JobError
from llmbatch.engines.base import EngineSettings
from llmbatch.identity import identity_of
from llmbatch.job_file import DEMO, job_text, read_job_file, resolve_paths
from llmbatch.model.tokenizer import ChatSettings
from llmbatch.plan.window import PlanSettings
from llmbatch.programs.retry import RetrySettings
from llmbatch.prompt.base import PromptSettings
from llmbatch.reuse.memory import ReuseSettings
from llmbatch.sinks.base import SinkSettings
from llmbatch.sources.base import SourceSettings

DEMO_MODEL = Path(__file__).parent / "demo" / "model"

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?[smhd]\s*)+")
_SHARE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*%")
_MAX_DEPTH = 100  # of nesting in a job
_SECRET = re.compile(
    r"(?:.*_)?(?:hf_token|(?:access|api|auth|session)_token|api_?key|access_key(?:_id)?|secret(?:_key)?|password|passwd|credentials?)",
    re.IGNORECASE,
)


def _seconds(value: Any) -> Any:
    """``90``, ``"90s"``, ``"15m"``, ``"8h"``, ``"1h30m"`` or ``"2d"`` as seconds."""
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    if _DURATION.fullmatch(text):
        return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+)([smhd])", text))
    try:
        return float(text)
    except ValueError:
        raise ValueError("a time is a number of seconds, or such as 90s, 15m, 1h30m or 2d") from None


def _failures(value: Any) -> Any:
    """A count of rows, or a share of them such as ``"5%"``."""
    if isinstance(value, str):
        text = value.strip()
        if (share := _SHARE.fullmatch(text)) and float(share[1]) <= 100:
            return text
        if text.isdecimal() and text.isascii():
            return int(text)
    elif value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise ValueError("is a number of rows, or a share of them from 0% to 100%, such as 5%")


def _prices(value: Any) -> Any:
    """``0.2``, ``"0.1,0.4"`` or ``[0.1, 0.4]``: the price of prompt tokens, and of answer tokens."""
    if value is None:
        return None
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    try:
        prices = [float(part) for part in parts]
    except (TypeError, ValueError):
        prices = []
    if len(prices) not in (1, 2) or not all(math.isfinite(price) and price >= 0 for price in prices):
        raise ValueError("is one price, or two (in, out) such as 0.1,0.4")
    return prices[0], prices[-1]


Prices = Annotated[tuple[float, float] | None, BeforeValidator(_prices)]
Seconds = Annotated[float, BeforeValidator(_seconds), Field(allow_inf_nan=False)]
Failures = Annotated[int | str | None, BeforeValidator(_failures)]


class RunSettings(BaseModel):
    """How the run goes about it; nothing here changes a record."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    window: int = Field(16_384, ge=1, description="rows that are planned, committed and resumed together")
    windows_open: int = Field(4, ge=1, description="windows that may be unfinished at a time; bounds memory")
    window_characters: int = Field(
        64_000_000, ge=1, description="a window ends before its prompts are longer than this together"
    )
    max_failures: Failures = Field(None, description="stop when so many rows failed: a count, or a share such as 5%")
    max_time: Seconds | None = Field(
        None, gt=0, description="stop when all sessions of the run took so long: seconds, or 8h, 30m; resumable"
    )
    max_total_tokens: int | None = Field(
        None, ge=1, description="stop when the engine has handled so many tokens in all sessions; resumable"
    )
    max_cost: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="stop when all sessions of the run cost so much; needs a price"
    )
    price_per_gpu_hour: float | None = Field(None, ge=0, allow_inf_nan=False, description="of one GPU")
    price_per_million: Prices = Field(None, description="of a million tokens: one price, or two: in, out")
    autotune: bool = Field(
        False, description="try a few engine settings on the first rows; a clear winner replaces the default"
    )
    grace: Seconds = Field(
        30.0, ge=0, description="seconds that what is in flight gets to finish when the run is stopped"
    )
    commit_seconds: Seconds = Field(
        1.0, gt=0, description="finished rows survive a power cut after at most so many seconds"
    )
    rows: Path | None = Field(None, description="a file with a row index a line: only these rows are run")

    @model_validator(mode="after")
    def _a_cost_needs_a_price(self) -> RunSettings:
        if self.max_cost is not None and self.price_per_gpu_hour is None and self.price_per_million is None:
            raise ValueError("max_cost needs a price: price_per_gpu_hour, price_per_million, or both")
        return self

    def failures_allowed(self, rows: int) -> float:
        """How many failed rows ``max_failures`` allows after so many rows. A share counts from the 100th row on."""
        if self.max_failures is None:
            return math.inf
        if share := _SHARE.fullmatch(str(self.max_failures)):
            return float(share[1]) / 100 * rows if rows >= 100 else math.inf
        return int(self.max_failures)


class Job(BaseModel):
    """Everything that one run is. The sections are documented where they are read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(description="a hub name, a local folder, or demo for the model that comes with llmbatch")
    prompt: PromptSettings | None = Field(None, description="only an input of ready-made requests needs none")
    input: SourceSettings
    output: Path = Field(description="the run folder")
    engine: EngineSettings = EngineSettings()
    chat: ChatSettings = ChatSettings()
    sampling: dict[str, Any] = Field(
        default_factory=dict, description="settings by vLLM's names; they override the prompt's"
    )
    answer: OutputSettings | None = Field(None, description="what an answer must be; by default as the prompt says")
    retry: RetrySettings = RetrySettings()
    plan: PlanSettings = PlanSettings()
    reuse: ReuseSettings = ReuseSettings()
    sinks: SinkSettings = SinkSettings()
    run: RunSettings = RunSettings()

    @property
    def model_path(self) -> str:
        """What the engine is given: ``demo`` stands for the packaged model's folder."""
        return str(DEMO_MODEL) if self.model == DEMO else self.model

    def data(self) -> dict[str, Any]:
        """The job as the plain data that ``job_from`` takes; settings left at their default are left out."""
        return self.model_dump(mode="json", exclude_defaults=True, by_alias=True)

    def absolute(self) -> Job:
        """The same job with its paths made absolute, so that it means the same from every folder."""
        return job_from(resolve_paths(self.data(), Path.cwd()))

    def to_yaml(self, folder: Path | None = None) -> str:
        """The job as a file that ``load_job_data`` and ``job_from`` read as ``self.absolute()``.

        For a file in ``folder`` the paths in that folder are relative, so that it can be moved.
        """
        return job_text(resolve_paths(self.data(), Path.cwd()), folder.expanduser().absolute() if folder else None)

    def identity(self) -> dict[str, str]:
        """What the results depend on, see ``identity.py``."""
        return identity_of(self)


def job_from(data: Mapping[str, Any]) -> Job:
    """A job from nested plain data; a plain string for ``prompt`` or ``input`` is its path. Raises ``JobError``."""
    plain = {str(key): _plain(value, str(key)) for key, value in data.items()}
    for section in ("prompt", "input"):
        if isinstance(plain.get(section), str):
            plain[section] = {"path": plain[section]}
    try:
        job = Job.model_validate(plain)
    except ValidationError as error:
        raise JobError("; ".join(_explain(error, plain))) from None
    if job.reuse.cache is not None and not job.plan.fold:
        raise JobError(
            "reuse.cache: a cache answers requests that are equal to earlier ones, and plan.fold says that none are"
        )
    _refuse_secrets(job.engine.args, "engine.args")
    return job


def load_job_data(path: Path) -> dict[str, Any]:
    """A job file (YAML) as plain data; paths in it are relative to its own folder. Raises ``JobError``."""
    return read_job_file(path)


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
        raise JobError(f"{where[:80]}...: is nested deeper than {_MAX_DEPTH} levels")
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
        raise JobError(f"{where}: has the key {key!r:.80}, and a key is text")
    return _sound(str(key), where)


def _refuse_secrets(args: Mapping[str, Any], where: str) -> None:
    """A job is written to the run folder, its report and the engine's log, so it must not hold what nobody may read."""
    for key, value in args.items():
        if isinstance(value, Mapping):
            _refuse_secrets(value, f"{where}.{key}")
        elif isinstance(value, str) and value and _SECRET.fullmatch(key):
            known = "set HF_TOKEN in the environment" if key == "hf_token" else "give it in an environment variable"
            raise JobError(
                f"{where}.{key}: a secret has no place in a job, which is written to the run folder and to logs: {known} instead"
            )


def _explain(error: ValidationError, data: Mapping[str, Any]) -> list[str]:
    """pydantic's problems in words, one for each place: where, what was seen, and what is known or near."""
    problems: dict[str, list[str]] = {}
    for problem in error.errors(include_url=False):
        where = _place(problem["loc"], data)
        problems.setdefault(".".join(where), []).append(_problem(problem, where))
    return [" or ".join(dict.fromkeys(said)) for said in problems.values()]


def _problem(problem: Any, where: list[str]) -> str:
    name = ".".join(where)
    if problem["type"] == "missing":
        return f"{name} is missing: give --{where[0]} or the key {name!r} in the job file"
    if problem["type"] == "extra_forbidden":
        known = _known_keys(where[:-1])
        near = difflib.get_close_matches(where[-1], known, n=1)
        hint = f"did you mean {'.'.join([*where[:-1], near[0]])}? " if near else ""
        return f"unknown key {name!r}: {hint}known keys: {', '.join(known)}"
    said = problem["msg"].removeprefix("Value error, ")
    return f"{name}: {said} (got {problem.get('input')!r:.80})"


def _place(path: Sequence[str | int], data: Any) -> list[str]:
    """A problem's place by the keys of the data, without the names that pydantic has for the variants of a type."""
    where: list[str] = []
    for step in path:
        if isinstance(step, str) and isinstance(data, Mapping):
            data = data.get(step)
        elif isinstance(step, int) and isinstance(data, list) and step < len(data):
            data = data[step]
        else:
            continue
        where.append(str(step))
    return where


def _known_keys(path: list[str]) -> list[str]:
    model: Any = Job
    for part in path:
        fields = {f.alias or name: f for name, f in model.model_fields.items()}
        annotation = fields[part].annotation if part in fields else None
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
        if model is None:
            return []
    return [f.alias or name for name, f in model.model_fields.items()]


__all__ = ["DEMO_MODEL", "Failures", "Job", "RunSettings", "Seconds", "job_from", "load_job_data"]
