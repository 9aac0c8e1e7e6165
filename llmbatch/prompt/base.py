"""The contract of a prompt: a row in, what the model is to answer out. A prompt is a YAML file (its format: ``file.py``), the name
of one that comes with llmbatch, or the text itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from llmbatch.core.settings import Counts, IsPath, is_named_as_path, is_there
from llmbatch.core.types import Failure, Rendered, Row
from llmbatch.prompt.shipped import shipped_prompts
from llmbatch.prompt.variables import Variable


def is_prompt_path(value: str, base: Path) -> bool:
    """Whether what a job calls a prompt is a path, and not its text or the name of a shipped one."""
    if "{{" in value or "{%" in value or "\n" in value:
        return False
    named = is_named_as_path(value) or value.endswith((".yaml", ".yml"))
    return named or (value not in shipped_prompts() and is_there(value, base))


class PromptSettings(BaseModel):
    """Which prompt, and where its variables get their values."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Annotated[str, IsPath(is_prompt_path), Counts.NOTHING] = Field(  # its text counts
        description="a prompt file, the name of a shipped prompt, or the text itself, such as 'Translate: {{ text }}'"
    )
    variables: dict[str, Any] = Field(
        default_factory=dict, description="variables with one value for all rows, which goes before the rows' own"
    )
    fields: dict[str, str] = Field(
        default_factory=dict, description="the row's field for a variable, where it is not called the same"
    )
    field_order: tuple[str, ...] = Field(
        (),
        description="variables whose lines change places, so that they stand in this order: it changes the prompt. llmbatch plan "
        "says which order, of fields that rows share before their own, the prefix cache gains most by",
    )


class RowPrompt(Protocol):
    """Turns rows into prompts: a ``PromptTemplate``, or a ``RequestsPrompt`` for rows that are requests already.

    ``sampling``, ``output`` and ``program`` are the prompt's own defaults for all rows. ``text`` is what a job's digest needs.
    ``row_variables`` have their values from rows, or from a program's earlier answers; ``parts`` is what is read inside of them, as
    pairs of a variable and a key. ``ready_made``: the prompt is as the row brings it, and no text of the job's is in it.
    ``takes_images``: its rows bring images, as it declares.
    """

    @property
    def name(self) -> str: ...
    @property
    def sampling(self) -> Mapping[str, Any]: ...
    @property
    def output(self) -> Mapping[str, Any] | None: ...
    @property
    def program(self) -> Mapping[str, Any] | None: ...
    @property
    def text(self) -> str: ...
    @property
    def row_variables(self) -> tuple[Variable, ...]: ...
    @property
    def parts(self) -> frozenset[tuple[str, str]]: ...
    @property
    def ready_made(self) -> bool: ...
    @property
    def takes_images(self) -> bool: ...

    def render(self, row: Row) -> Rendered | Failure:
        """The row's prompt, or why it has none. Never raises for what is in a row."""

    def value(self, name: str, row: Row) -> Any:
        """What the row's prompt has for a name: the variable of that name, or else the row's field; None where there is none."""
