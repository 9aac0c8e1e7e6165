"""How ``run.autotune`` goes about it: what may be tried, for how long, and how far answers may differ for it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from llmbatch.core.settings import IsPath, is_there
from llmbatch.job.times import Seconds


def _tolerance(value: Any) -> Any:
    """``exact``, or a share above 0 and below 1 such as ``0.99``; 1 is ``exact``."""
    if value is None or value == "exact":
        return value
    try:
        share = float(value)
    except (TypeError, ValueError):
        share = 0.0
    if isinstance(value, bool) or not 0 < share <= 1:
        raise ValueError(
            "is exact, or the least share of greedy answers that must come out as without tuning, such as 0.99"
        )
    return "exact" if share == 1 else share


Kind = Literal[
    "batch size", "speculation", "replicas", "kv cache", "kv offload", "performance mode", "quantization"
]  # fmt: skip
"""What candidates an engine may have; each is explained in docs/tuning.md."""


class OwnCandidate(BaseModel):
    """Engine arguments that the job's author wants tried."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    args: dict[str, Any] = Field(min_length=1, description="laid over engine.args")
    exact: bool = Field(False, description="they leave the answers as they are, so they need no tolerance")


class TuningSettings(BaseModel):
    """How the tuner goes about it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tolerance: Annotated[Literal["exact"] | float | None, BeforeValidator(_tolerance)] = Field(
        None,
        description="how many of the sample's greedy answers must come out as without tuning: exact, or a share such as 0.99; "
        "without it what may change answers is measured and shown, and not kept",
    )
    max_time: Seconds = Field(600.0, gt=0, description="begin no trial that would end after so long: seconds, or 10m")
    requests: int = Field(4096, ge=16, description="the sample: at most so many requests, of all lengths")
    kinds: tuple[Kind, ...] | None = Field(None, description="try only these; by default all there are")
    draft: Annotated[str | None, IsPath(is_there)] = Field(
        None, description="a small model with the same tokenizer, to guess the next tokens"
    )
    candidates: dict[str, OwnCandidate] = Field(
        default_factory=dict, description="engine arguments to try besides, by a name of your own"
    )


__all__ = ["OwnCandidate", "TuningSettings"]
