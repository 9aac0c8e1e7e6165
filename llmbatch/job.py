"""The job: each stage's own settings put together, from YAML, flags or Python; unknown keys are refused, and it has an identity.

Two runs with the same identity give the same results, so a run folder goes on only under the identity that it began with.
What changes speed alone (window sizes, batch sizes, budgets) is not part of it.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from llmbatch.check import OutputSettings
from llmbatch.engines import ChatSettings, EngineSettings
from llmbatch.errors import JobError
from llmbatch.plan import PlanSettings
from llmbatch.prompt import PromptSettings
from llmbatch.retry import RetrySettings
from llmbatch.sinks import SinkSettings
from llmbatch.sources import SourceSettings

DEMO_MODEL = Path(__file__).parent / "demo" / "model"

# Engine arguments that change how fast answers come, and the answers at most by the rounding of their arithmetic.
_SPEED_ARGS = frozenset(
    {
        "async_scheduling", "block_size", "compilation_config", "cpu_offload_gb", "cudagraph_capture_sizes", "data_parallel_size",
        "disable_custom_all_reduce", "disable_log_stats", "distributed_executor_backend", "download_dir", "enable_chunked_prefill",
        "enable_prefix_caching", "enforce_eager", "gpu_memory_utilization", "kv_cache_memory_bytes", "load_format",
        "max_cudagraph_capture_size", "max_num_batched_tokens", "max_num_seqs", "max_parallel_loading_workers",
        "num_gpu_blocks_override", "pipeline_parallel_size", "swap_space", "tensor_parallel_size", "use_tqdm_on_load",
        # of the scripted engine
        "concurrency", "die_after", "jitter", "latency", "out_of_memory_above", "start_seconds",
    }
)  # fmt: skip


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _seconds(value: Any) -> Any:
    """``90``, ``"90s"``, ``"15m"``, ``"8h"``, ``"1h30m"`` or ``"2d"`` as seconds."""
    if not isinstance(value, str):
        return value
    parts = re.findall(r"([\d.]+)\s*([smhd])", value)
    if not parts or re.sub(r"[\d.]+\s*[smhd]\s*", "", value.strip()):
        return value
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


Seconds = Annotated[float, BeforeValidator(_seconds)]


class RunSettings(BaseModel):
    """How the run goes about it; nothing here changes a record."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    window: int = Field(4096, ge=1, description="rows that are planned, committed and resumed together")
    windows_open: int = Field(8, ge=1, description="windows that may be unfinished at a time; bounds memory")
    window_characters: int = Field(
        64_000_000, ge=1, description="a window ends before its prompts are longer than this together"
    )
    max_failures: int | str | None = Field(
        None, description="stop when so many rows failed: a count, or a share such as 5%"
    )
    max_time: Seconds | None = Field(None, gt=0, description="stop after so long: seconds, or 8h, 30m; resumable")
    max_total_tokens: int | None = Field(
        None, ge=1, description="stop when the engine has handled so many tokens; resumable"
    )
    grace: Seconds = Field(
        30.0, ge=0, description="seconds that what is in flight gets to finish when the run is stopped"
    )
    commit_seconds: Seconds = Field(
        1.0, gt=0, description="finished rows survive a power cut after at most so many seconds"
    )
    rows: Path | None = Field(None, description="a file with a row index a line: only these rows are run")

    def failures_allowed(self, rows: int) -> float:
        """How many failed rows ``max_failures`` allows after so many rows. A share counts from the 100th row on."""
        if self.max_failures is None:
            return float("inf")
        text = str(self.max_failures).strip()
        if text.endswith("%"):
            return max(float(text[:-1]) / 100 * rows, 0.0) if rows >= 100 else float("inf")
        return int(text)


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
    sinks: SinkSettings = SinkSettings()
    run: RunSettings = RunSettings()

    @property
    def model_path(self) -> str:
        """What the engine is given: ``demo`` stands for the packaged model's folder."""
        return str(DEMO_MODEL) if self.model == "demo" else self.model

    def to_yaml(self) -> str:
        """The job as a file that ``load_job_data`` reads; settings left at their default are left out."""
        data = self.model_dump(mode="json", exclude_defaults=True, by_alias=True)
        return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)

    def identity(self) -> dict[str, str]:
        """What the results depend on, flat, as ``section.key -> value`` in short text; compared to tell what changed.

        Reads the files that the job names (chat template, script, schema, the model's config) but not the prompt's, whose text
        the runner adds.
        """
        data = self.model_dump(mode="json", by_alias=True, exclude={"output", "run", "input", "plan"})
        data["engine"] = {
            k: v
            for k, v in data["engine"].items()
            if k not in {"in_process", "in_flight", "in_flight_tokens", "timeout", "restarts"}
        }
        data["engine"]["args"] = {k: v for k, v in self.engine.args.items() if k not in _SPEED_ARGS}
        data["sinks"] = {"keep": data["sinks"]["keep"]}
        data["input"] = self.input.model_dump(
            mode="json", include={"format", "id_field", "config", "split", "revision"}
        )
        data["plan"] = {"overflow": self.plan.overflow}
        flat = _flatten(data)
        for name, path in _files(self):
            flat[name + " (content)"] = _digest_of_file(path)
        return flat


def job_from(data: Mapping[str, Any]) -> Job:
    """A job from nested plain data; a plain string for ``prompt`` or ``input`` is its path. Raises ``JobError``."""
    data = dict(data)
    for section in ("prompt", "input"):
        if isinstance(data.get(section), str):
            data[section] = {"path": data[section]}
    try:
        return Job.model_validate(data)
    except ValidationError as error:
        raise JobError("; ".join(_explain(problem) for problem in error.errors())) from None


def load_job_data(path: Path) -> dict[str, Any]:
    """A job file (YAML) as plain data; paths in it are relative to its own folder. Raises ``JobError``."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise JobError(f"{path}: there is no such job file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise JobError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise JobError(f"{path}: a job file is a mapping with keys such as {', '.join(Job.model_fields)}")
    return resolve_paths(data, path.parent)


def resolve_paths(data: dict[str, Any], base: Path) -> dict[str, Any]:
    """The same data with the relative paths that exist under ``base`` made absolute; names (of models, of prompts) stay."""
    data = {key: dict(value) if isinstance(value, dict) else value for key, value in data.items()}
    for section, key in (
        ("model", None), ("prompt", None), ("prompt", "path"), ("input", None), ("input", "path"), ("answer", "schema"),
        ("answer", "grammar"), ("engine", "script"), ("chat", "template"), ("run", "rows"),
    ):  # fmt: skip
        holder, name = (data, section) if key is None else (data.get(section), key)
        if isinstance(holder, dict) and isinstance(value := holder.get(name), str) and _is_path(value, base):
            holder[name] = str((base / value).absolute())
    if isinstance(lora := data.get("engine", {}).get("lora") if isinstance(data.get("engine"), dict) else None, dict):
        data["engine"]["lora"] = {k: str((base / v).absolute()) if _is_path(v, base) else v for k, v in lora.items()}
    if isinstance(data.get("output"), str):
        data["output"] = str((base / data["output"]).absolute())
    return data


def _is_path(value: Any, base: Path) -> bool:
    if not isinstance(value, str) or value in {"", "-"} or "\n" in value or len(value) > 4000:
        return False
    return (base / value).exists() or ("*" in value and "/" in value)


def _explain(problem: Any) -> str:
    """One of pydantic's problems in words: where, what was seen, and what is known or near."""
    where = [str(part) for part in problem["loc"]]
    name = ".".join(where)
    if problem["type"] == "missing":
        return f"{name} is missing: give --{where[0]} or the key {name!r} in the job file"
    if problem["type"] == "extra_forbidden":
        known = _known_keys(where[:-1])
        near = difflib.get_close_matches(where[-1], known, n=1)
        hint = f"did you mean {'.'.join([*where[:-1], near[0]])}? " if near else ""
        return f"unknown key {name!r}: {hint}known keys: {', '.join(known)}"
    return f"{name}: {problem['msg']} (got {problem.get('input')!r:.80})"


def _known_keys(path: list[str]) -> list[str]:
    model: Any = Job
    for part in path:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
        if model is None:
            return []
    return [f.alias or name for name, f in model.model_fields.items()]


def _flatten(data: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(data, dict):
        flat: dict[str, str] = {}
        for key, value in sorted(data.items()):
            flat.update(_flatten(value, f"{prefix}.{key}" if prefix else str(key)))
        return flat
    return {} if data is None else {prefix: json.dumps(data, ensure_ascii=False, sort_keys=True)}


def _files(job: Job) -> list[tuple[str, Path]]:
    """The files whose content the results depend on, besides input and prompt."""
    named: list[tuple[str, Any]] = [("chat.template", job.chat.template), ("engine.script", job.engine.script)]
    if job.answer is not None:
        named += [("answer.schema", job.answer.json_schema), ("answer.grammar", job.answer.grammar)]
    found = [(name, Path(value)) for name, value in named if isinstance(value, str) and _is_path(value, Path())]
    folder = Path(job.model_path)
    for name in ("config.json", "model.safetensors.index.json", "tokenizer.json"):
        if (folder / name).is_file():
            found.append((f"model {name}", folder / name))
    return [(name, path) for name, path in found if path.is_file()]


def _digest_of_file(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise JobError(f"{path}: cannot be read: {error.strerror}") from error
