"""A room's table (name -> ``module:object``) and a name in; the object that the name stands for, imported just then, out."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from llmbatch.core.errors import JobError, UsageError
from llmbatch.core.words import near


def find(table: Mapping[str, str], name: str, what: str, *, error: type[UsageError] = JobError) -> Any:
    """The object of a table that ``name`` names; ``what`` is what the table holds, for the message.

    Its module is imported when it is asked for, so that what is heavy costs only those who use it. Raises ``error`` for an unknown
    name, with the known ones.
    """
    if name not in table:
        raise error(f"unknown {what} {name!r}{near(name, table)}: known are {', '.join(table)}")
    module, _, attribute = table[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
