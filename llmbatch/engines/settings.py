"""A job's section for its engine in; how the engine is built and driven, for any engine, out."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from llmbatch.core.settings import Counts, IsPath, is_there
from llmbatch.engines import DEFAULT_ENGINE, ENGINES
from llmbatch.images.base import ImageSettings

MOST_REPLICAS = 256


_CLUSTER = re.compile(r"ray://[^\s/]+:\d+")


def _count_or_auto(value: Any) -> Any:
    """``auto``, or a whole number of engines."""
    if isinstance(value, str):
        text = value.strip().lower()
        value = int(text) if text.isdecimal() and text.isascii() else text
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_REPLICAS):
        return value
    raise ValueError(f"is auto, or a number of engines from 1 to {MOST_REPLICAS}")


def _cluster(value: Any) -> Any:
    """``ray``, ``ray://HOST:PORT`` or ``auto``."""
    if value is None or value in ("ray", "auto") or (isinstance(value, str) and _CLUSTER.fullmatch(value)):
        return value
    raise ValueError("is ray, for the Ray cluster that this machine belongs to, ray://HOST:PORT or auto")


class EngineSettings(BaseModel):
    """How the engine is built and driven. ``args`` go to the engine itself: for vLLM, its engine arguments by name.

    This is a job's section, for any engine; an engine's own class (``EngineKind.settings``) says what of it that engine takes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(DEFAULT_ENGINE, description=" or ".join(ENGINES))
    args: dict[str, Any] = Field(
        default_factory=dict, description="engine arguments, e.g. tensor_parallel_size, quantization"
    )
    in_process: Annotated[bool | None, Counts.NOTHING] = Field(
        None, description="run the engine core in this process; by default only on a CPU, where it starts faster"
    )
    in_flight: Annotated[int | None, Counts.NOTHING] = Field(
        None, ge=1, description="requests handed to the engine; by default twice its max_num_seqs"
    )
    in_flight_tokens: Annotated[int | None, Counts.NOTHING] = Field(
        None, ge=1, description="prompt tokens handed to the engine at a time"
    )
    timeout: Annotated[float, Counts.NOTHING] = Field(
        600.0, gt=0, description="seconds without any progress after which the engine counts as hung"
    )
    replicas: Annotated[int | Literal["auto"], Counts.NOTHING, BeforeValidator(_count_or_auto)] = Field(
        1,
        description="engines that answer the run's requests side by side, each with GPUs of its own; auto: as many as the visible "
        "GPUs are enough for",
    )
    cluster: Annotated[str | None, Counts.NOTHING, BeforeValidator(_cluster)] = Field(
        None,
        description="engines on the machines of a Ray cluster, as many as it has room for unless replicas says how many: ray, the "
        "one that this machine belongs to; ray://HOST:PORT; auto: as ray, and where there is none this machine's GPUs",
    )
    hosted: Annotated[bool | None, Counts.NOTHING] = Field(
        None, description="each engine in another process; by default where there are several of one that needs that"
    )
    least_acceptance: Annotated[float, Counts.NOTHING] = Field(
        0.1,
        ge=0,
        le=1,
        description="speculation ends when less than this share of the guessed tokens is right; 0: never. The tuner measures it",
    )
    restarts: Annotated[int, Counts.NOTHING] = Field(
        5, ge=0, description="engine deaths survived without an answer between them, before the run stops"
    )
    reasoning_parser: str | None = Field(None, description="vLLM's reasoning parser that splits the thinking part off")
    tool_call_parser: str | None = Field(
        None, description="vLLM's tool parser that reads the calls of tools in answers, as hermes or llama3_json"
    )
    lora: Annotated[dict[str, str], IsPath(is_there, each=True)] = Field(
        default_factory=dict, description="LoRA adapters: name to path"
    )
    script: Annotated[str | None, IsPath(), Counts.CONTENT] = Field(
        None, description="scripted engine: path of its script (YAML)"
    )
    trust_remote_code: bool = False
    images: ImageSettings = Field(ImageSettings(), description="how the images of prompts are read")

    @model_validator(mode="before")
    @classmethod
    def _all_of_a_cluster(cls, data: Any) -> Any:
        """In a cluster there are as many engines as there is room for, unless it is said how many."""
        if isinstance(data, dict) and data.get("cluster") is not None and "replicas" not in data:
            return {**data, "replicas": "auto"}
        return data

    @property
    def engines(self) -> int:
        """How many engines; 1 for ``auto`` as long as it is not ``resolved``."""
        return 1 if self.replicas == "auto" else self.replicas


__all__ = ["MOST_REPLICAS", "EngineSettings"]
