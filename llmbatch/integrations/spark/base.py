"""The contract of a SQL function: the values of its arguments in; how each row is asked, and what becomes of its answer, out.

Nothing here needs Spark: what is wrong with a call is found before a query starts, and before a model is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

from llmbatch.api import job_given
from llmbatch.core.digest import short_digest
from llmbatch.core.errors import JobError
from llmbatch.core.table import find
from llmbatch.core.words import near, short
from llmbatch.integrations.spark import FUNCTIONS

REQUEST = "request"
"""The variable that a request which is a text has in a profile's prompt; ``text`` is the same."""
_ASK = "{{ request }}"


class Parameter(NamedTuple):
    """One argument of a function. ``literal``: it is the same for every row, and known when the query is read."""

    name: str
    default: Any = None
    required: bool = False
    literal: bool = True


@dataclass(frozen=True, slots=True)
class Call:
    """What one call asks of every row. ``job`` is a job's data; its rows and folder are of no account.

    ``returns`` is the type that the answer's text is turned into, as SQL has it: STRING leaves it as it is. With ``fails`` a row
    without an answer fails the query, else it says why. ``as_it_came``: an answer that does not pass a check is given all the
    same, as the systems do it; ``null`` are the kinds of failures that give NULL.
    """

    job: Mapping[str, Any]
    returns: str = "STRING"
    fails: bool = True
    as_it_came: bool = False
    null: Sequence[str] = ()

    @property
    def text(self) -> str:
        """The job as text, the same for equal ones."""
        return json.dumps(self.job, sort_keys=True, ensure_ascii=False)

    @property
    def digest(self) -> str:
        """A name for it: equal calls have the same."""
        how = [self.text, self.fails, self.as_it_came, list(self.null)]
        return short_digest(json.dumps(how, sort_keys=True))


@dataclass(frozen=True, slots=True)
class Endpoints:
    """What a query may name: models and profiles, as the data of jobs, by name. ``strict``: an answer that is not as its call asks
    is an error too.
    """

    jobs: Mapping[str, Mapping[str, Any]]
    default: str
    strict: bool = False

    def job(self, name: Any = None) -> Mapping[str, Any]:
        """One of them; without a name the default. Raises ``JobError`` for one that is not known."""
        name = self.default if name is None else name
        if not isinstance(name, str) or name not in self.jobs:
            close = near(name, self.jobs) if isinstance(name, str) else ""
            raise JobError(
                f"endpoint: there is no {short(name)}{close}; llmbatch.spark.register was given {', '.join(map(repr, self.jobs))}"
            )
        return self.jobs[name]


@dataclass(frozen=True, slots=True)
class SqlFunction:
    """One function of the table. ``call`` gets the endpoints and the values of its literal arguments, by name and with defaults."""

    name: str
    parameters: tuple[Parameter, ...]
    call: Callable[[Endpoints, Mapping[str, Any]], Call]
    refused: Mapping[str, str] = field(default_factory=dict)  # arguments that are known, and why they are not done

    @property
    def row(self) -> Parameter:
        """The argument that differs by row."""
        return next(parameter for parameter in self.parameters if not parameter.literal)

    def bound(self, positional: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
        """The given arguments by their names, whatever they are. Raises ``JobError`` for what does not fit."""
        known = [parameter.name for parameter in self.parameters]
        if len(positional) > len(known):
            raise JobError(
                f"{self.name}: takes {len(known)} arguments ({', '.join(known)}), and was given {len(positional)}"
            )
        given = dict(zip(known, positional, strict=False))
        for key, value in named.items():
            name = next((each for each in known if each.lower() == key.lower()), key)
            if name in self.refused:
                raise JobError(f"{self.name}: {name}: {self.refused[name]}")
            if name not in known:
                raise JobError(
                    f"{self.name}: there is no argument {key!r}{near(key, known)}; its arguments are {', '.join(known)}"
                )
            if name in given:
                raise JobError(f"{self.name}: {name} is given twice")
            given[name] = value
        missing = [each.name for each in self.parameters if each.required and each.name not in given]
        if missing:
            raise JobError(f"{self.name}: {', '.join(missing)} is missing; its arguments are {', '.join(known)}")
        return given

    def with_defaults(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The values of all literal arguments."""
        return {each.name: given.get(each.name, each.default) for each in self.parameters if each.literal}


def function_of(name: str) -> SqlFunction:
    """A function of the table."""
    found: SqlFunction = find(FUNCTIONS, name, "SQL function")
    return found


def job_for(
    profile: Mapping[str, Any],
    *,
    prompt: Mapping[str, Any] | None = None,
    sampling: Mapping[str, Any] | None = None,
    answer: Mapping[str, Any] | None = None,
    once: bool = False,
) -> dict[str, Any]:
    """A job for the rows of a call, by a profile and what the call says besides. Raises ``UsageError`` for what is wrong with it.

    Spark may compute a partition again at any time, so answers are to come out the same: greedy unless somebody says how to
    draw, and drawn with a seed. ``once``: an answer that is cut off is not gone on with, unless the profile says how.
    """
    given = {**profile.get("sampling", {}), **(sampling or {})}
    asked = prompt or profile.get("prompt")
    if asked is None:
        given = {"temperature": 0, **given}
    if given.get("temperature") != 0:
        given = {"seed": 0, **given}
    if prompt is not None:  # what the profile's own prompt is answered with says nothing of this one
        profile = {key: value for key, value in profile.items() if key not in ("answer", "program")}
    job = {
        **profile,
        "prompt": asked or {"path": _ASK},
        "sampling": given,
        "input": {"path": "rows", "format": "jsonl"},
        "output": "run",
    }
    if answer is not None:
        job["answer"] = {**profile.get("answer", {}), **answer}
    if once:
        job["retry"] = {"max_attempts": 1, **profile.get("retry", {})}
    job_given(job, None)
    return job


def plain_number(value: Any) -> Any:
    """A value of SQL as JSON has it: Spark's decimals are whole numbers or floats."""
    if isinstance(value, Decimal):
        return float(value) if "." in str(value) else int(value)
    if isinstance(value, Mapping):
        return {key: plain_number(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain_number(each) for each in value]
    if hasattr(value, "tolist") and hasattr(value, "dtype"):  # pandas has arrays of NumPy for those of SQL
        return plain_number(value.tolist())
    return value


__all__ = ["REQUEST", "Call", "Endpoints", "Parameter", "SqlFunction", "function_of", "job_for", "plain_number"]
