"""How a run goes about its job: windows, budgets, when to stop. Nothing here changes a record."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from llmbatch.core.settings import Counts, IsPath
from llmbatch.job.times import Seconds
from llmbatch.job.tuning import TuningSettings

_SHARE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*%")


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
    """``0.2``, ``"0.1,0.4"`` or ``[0.1, 0.4]``: the price of prompt tokens, of answer tokens, and of cached prompt tokens."""
    if value is None:
        return None
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    try:
        prices = [float(part) for part in parts]
    except (TypeError, ValueError):
        prices = []
    if len(prices) not in (1, 2, 3) or not all(math.isfinite(price) and price >= 0 for price in prices):
        raise ValueError("is one price, or two (in, out) such as 0.1,0.4, or three (in, out, cached in)")
    return prices[0], prices[min(1, len(prices) - 1)], prices[2 if len(prices) == 3 else 0]


Prices = Annotated[tuple[float, float, float] | None, BeforeValidator(_prices)]
Failures = Annotated[int | str | None, BeforeValidator(_failures)]


class RunSettings(BaseModel):
    """How the run goes about it; nothing here changes a record."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    window: int = Field(16_384, ge=1, description="rows that are planned, committed and resumed together")
    order: Literal["auto", "input", "window", "corpus"] = Field(
        "auto",
        description="in which order rows are asked: input; window (each window by plan.order); corpus (all of the input by what "
        "prompts begin with, for which it is read once more before); or auto: corpus where a sample shows that it saves enough",
    )
    windows_open: int = Field(4, ge=1, description="windows that may be unfinished at a time; bounds memory")
    workers: int = Field(
        0,
        ge=0,
        le=64,
        description="processes that render, tokenize and check rows beside the one that drives the engine; 0: that one does. Worth "
        "it where engines answer more than some 10,000 rows a second",
    )
    window_characters: int = Field(
        64_000_000,
        ge=1,
        description="a window ends before its prompts are longer than this together; in an order of the corpus a quarter of it",
    )
    max_failures: Failures = Field(None, description="stop when so many rows failed: a count, or a share such as 5%")
    check_first: bool = Field(
        True, description="end, before a model is loaded, where no row of a whole first window can be sent"
    )
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
    price_per_million: Prices = Field(
        None,
        description="of a million tokens: one price, or two (in, out), or three (in, out, cached in); or a mapping with those of "
        "each model by its name",
    )
    autotune: bool = Field(
        False, description="try other engine settings on the job's own rows; a clear winner replaces the default"
    )
    page: bool = Field(True, description="write report.html, a page of plots and records, beside report.json")
    tuning: TuningSettings = Field(TuningSettings(), description="how autotune goes about it")
    grace: Seconds = Field(
        30.0, ge=0, description="seconds that what is in flight gets to finish when the run is stopped"
    )
    commit_seconds: Seconds = Field(
        1.0, gt=0, description="finished rows survive a power cut after at most so many seconds"
    )
    rows: Annotated[Path | None, IsPath(), Counts.CONTENT] = Field(
        None, description="a file with a row index a line: only these rows are run"
    )

    @model_validator(mode="after")
    def _a_cost_needs_a_price(self) -> RunSettings:
        if self.max_cost is not None and self.price_per_gpu_hour is None and self.price_per_million is None:
            raise ValueError("max_cost needs a price: price_per_gpu_hour, price_per_million, or both")
        return self

    @model_validator(mode="after")
    def _tuning_is_of_autotune(self) -> RunSettings:
        if not self.autotune and self.tuning != TuningSettings():
            raise ValueError("tuning is for autotune, which is off: give --autotune as well, or leave tuning out")
        return self

    def failures_allowed(self, rows: int) -> float:
        """How many failed rows ``max_failures`` allows after so many rows. A share counts from the 100th row on."""
        if self.max_failures is None:
            return math.inf
        if share := _SHARE.fullmatch(str(self.max_failures)):
            return float(share[1]) / 100 * rows if rows >= 100 else math.inf
        return int(self.max_failures)
