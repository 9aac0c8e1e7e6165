"""A job's sweep in; its settings, each the job with some of its settings changed, out. Every row is run under every one of them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from llmbatch.core.settings import Counts
from llmbatch.core.words import near, short

MOST = 10_000
"""Settings that a job can have: each has a recipe of its own in memory."""

_SECTIONS = ("prompt", "prompt.variables", "prompt.fields", "sampling")
_AXES = ("prompt", "prompt.variables.NAME", "prompt.fields.NAME", "sampling.NAME", "lora")
_OPTIONS = ("grid", "settings", "max_settings", "max_rows")

Setting = dict[str, Any]
"""What one setting changes: place -> value, such as ``sampling.temperature`` -> 0.7."""


class SweepSettings(BaseModel):
    """Several values for prompts, variables, sampling or adapters: as lists, of which every combination is run, or one by one.

    ``{sampling.temperature: [0, 0.7], prompt: [a.yaml, b.yaml]}`` is short for a grid, a list of mappings for settings.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    grid: dict[str, tuple[Any, ...]] = Field(
        default_factory=dict, description="for each place its values; every combination of them is a setting"
    )
    settings: tuple[Setting, ...] = Field((), description="the settings one by one")
    max_settings: Annotated[int, Counts.NOTHING] = Field(100, ge=1, description="more than this need --yes")
    max_rows: Annotated[int, Counts.NOTHING] = Field(
        100_000, ge=1, description="more rows, every row under every setting, need --yes"
    )

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, data: Any) -> Any:
        return normal(data, lambda _axis, value: value)

    @field_validator("grid", mode="before")
    @classmethod
    def _lists(cls, grid: Any) -> Any:
        if not isinstance(grid, Mapping):
            return grid
        listed = {place: value if isinstance(value, list | tuple) else [value] for place, value in grid.items()}
        for place, values in listed.items():
            _see_place(place)
            _see_values(f"{place} has", values)
        return listed

    @field_validator("settings")
    @classmethod
    def _places(cls, settings: tuple[Setting, ...]) -> tuple[Setting, ...]:
        for place in (place for setting in settings for place in setting):
            _see_place(place)
        if settings:
            _see_values("there is", settings)
        return settings

    @model_validator(mode="after")
    def _one_form(self) -> SweepSettings:
        if bool(self.grid) == bool(self.settings):
            raise ValueError("is a grid (place: list of values) or a list of settings" + ", not both" * bool(self.grid))
        if self.count > MOST:
            lengths = " x ".join(str(len(values)) for values in self.grid.values()) or str(self.count)
            raise ValueError(
                f"makes {self.count:,} settings ({lengths}), and every row would be run under each; a job can have {MOST:,}: take "
                "values out, or list the settings that matter"
            )
        return self

    @property
    def count(self) -> int:
        """How many settings there are."""
        return len(self.settings) or math.prod(map(len, self.grid.values()))

    def each(self) -> Iterator[Setting]:
        """The settings in order; of a grid the last place changes first."""
        if self.settings:
            yield from self.settings
            return
        for values in product(*self.grid.values()):
            yield dict(zip(self.grid, values, strict=True))


def normal(sweep: Any, change: Callable[[str, Any], Any]) -> Any:
    """A sweep as a job file may have it, in its long form, with each value of a place changed: (place, value) -> value."""
    if isinstance(sweep, Sequence) and not isinstance(sweep, str):
        sweep = {"settings": sweep}
    if not isinstance(sweep, Mapping):
        return sweep
    changed = {key: value for key, value in sweep.items() if key in _OPTIONS}
    axes = {**_placed(sweep.get("grid") or {}), **_placed({k: v for k, v in sweep.items() if k not in _OPTIONS})}
    if axes:
        changed["grid"] = {
            place: [change(place, value) for value in values]
            if isinstance(values, list | tuple)
            else change(place, values)
            for place, values in axes.items()
        }
    if isinstance(settings := sweep.get("settings"), list | tuple):
        changed["settings"] = [
            {place: change(place, value) for place, value in _placed(setting).items()}
            if isinstance(setting, Mapping)
            else setting
            for setting in settings
        ]
    return changed


def label(setting: Setting) -> Setting:
    """A setting as a record says it: prompt files by their names, as they may lie elsewhere another time."""
    prompt = setting.get("prompt")
    if not isinstance(prompt, str) or "\n" in prompt or not prompt.endswith((".yaml", ".yml")):
        return setting
    return {**setting, "prompt": Path(prompt).name}


def _placed(data: Any, within: str = "") -> dict[str, Any]:
    """Nested or dotted keys as places: ``{sampling: {top_p: [..]}}`` is ``sampling.top_p``."""
    if not isinstance(data, Mapping):
        return {}
    found: dict[str, Any] = {}
    for key, value in data.items():
        place = f"{within}.{key}" if within else str(key)
        if place in _SECTIONS and isinstance(value, Mapping):
            found |= _placed(value, place)
        else:
            found["prompt" if place == "prompt.path" else place] = value
    return found


def _see_place(place: str) -> None:
    section, _, name = place.rpartition(".")
    if place not in ("prompt", "lora") and not (section in _SECTIONS[1:] and name):
        raise ValueError(f"{place!r} cannot be swept{near(place, _AXES)}: what can is {', '.join(_AXES)}")


def _see_values(whose: str, values: Sequence[Any]) -> None:
    if not values:
        raise ValueError(f"{whose} no value")
    seen = set()
    for value in values:
        said = json.dumps(value, sort_keys=True, default=str)
        if said in seen:
            raise ValueError(f"{whose} {short(value)} twice, and every row would be run twice alike")
        seen.add(said)


__all__ = ["MOST", "Setting", "SweepSettings", "label", "normal"]
