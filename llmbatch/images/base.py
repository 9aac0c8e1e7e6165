"""How images are read: the settings of an engine's section ``images``, and what is raised for an image that cannot be used."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from llmbatch.core.settings import Counts


class ImageError(Exception):
    """An image that cannot be used: where it is, what was seen there, and what to try. It costs its row alone."""


class ImageSettings(BaseModel):
    """Which images are read, and what becomes of them before a model sees them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    workers: Annotated[int, Counts.NOTHING] = Field(
        4, ge=1, le=256, description="images that are fetched and decoded at a time; twice as many wait for the engine"
    )
    longest_side: int | None = Field(
        None, ge=1, description="a larger image is made smaller, so that its longer side has so many pixels"
    )
    max_pixels: int = Field(
        50_000_000, ge=1, description="an image with more is a failure of its row, and is not decoded"
    )
    max_mib: float = Field(64.0, gt=0, description="so is a file that is larger")
    allow: tuple[str, ...] | None = Field(
        None,
        description="folders and the beginnings of URLs: images elsewhere are refused; by default a variable may name any, and "
        "ready-made messages web addresses and what lies below the input's folder",
    )
