"""Prompts: rows in, what the model is to answer out.

A prompt is a YAML file (its format: ``file.py``), the name of one that comes with llmbatch, or the text itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from llmbatch.prompt.library import read_prompt, shipped_prompts
from llmbatch.prompt.rendered import Rendered, RowPrompt
from llmbatch.prompt.request_line import to_request_line
from llmbatch.prompt.requests import RequestsPrompt

if TYPE_CHECKING:
    from llmbatch.prompt.template import PromptTemplate


class PromptSettings(BaseModel):
    """Which prompt, and where its variables get their values."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(
        description="a prompt file, the name of a shipped prompt, or the text itself, such as 'Translate: {{ text }}'"
    )
    variables: dict[str, Any] = Field(
        default_factory=dict, description="variables with one value for all rows, which goes before the rows' own"
    )
    fields: dict[str, str] = Field(
        default_factory=dict, description="the row's field for a variable, where it is not called the same"
    )


def load_prompt(settings: PromptSettings) -> PromptTemplate:
    """The prompt of a job, compiled. Raises ``PromptError`` for one that is not there or cannot be used."""
    from llmbatch.prompt.loading import load_file
    from llmbatch.prompt.template import bind

    return bind(load_file(settings.path), settings.variables, settings.fields)


__all__ = [
    "PromptSettings",
    "Rendered",
    "RequestsPrompt",
    "RowPrompt",
    "load_prompt",
    "read_prompt",
    "shipped_prompts",
    "to_request_line",
]
