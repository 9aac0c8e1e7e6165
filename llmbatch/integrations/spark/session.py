"""A Spark session and a model in; the session with ``ai_query`` and the task functions out."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from llmbatch.api import AProgram, Schema, job_given
from llmbatch.core.errors import JobError, UsageError
from llmbatch.core.imports import extra
from llmbatch.core.words import short
from llmbatch.integrations.spark import FUNCTIONS
from llmbatch.integrations.spark.base import Endpoints, job_for
from llmbatch.integrations.spark.hosting import Hosting
from llmbatch.integrations.spark.rewriting import rewritten
from llmbatch.integrations.spark.wire import Facts
from llmbatch.job.job import load_job_data
from llmbatch.programs.given import is_given

_ERRORS = ("last", "strict")
_OWN = "_llmbatch"  # the attribute of a session
_NOT_OF_A_PROFILE = ("input", "output", "accept", "sweep", "sinks", "run")
_THREADS = "spark.executorEnv.OMP_NUM_THREADS"


def register(
    spark: Any,
    *,
    model: str | Path,
    endpoint: str | None = None,
    profiles: Mapping[str, Mapping[str, Any] | str | Path] | None = None,
    errors: str = "last",
    idle: float = 300.0,
    engines: int = 1,
    prompt: str | Path | Mapping[str, Any] | None = None,
    program: AProgram | None = None,
    schema: Schema | None = None,
    **sections: Mapping[str, Any],
) -> Registered:
    """Give a Spark session the SQL functions ``ai_query``, ``ai_classify``, ``ai_extract``, ``ai_gen``, ``ai_summarize`` and
    ``ai_translate``, answered on the executors.

    ``model`` and the sections are those of ``llmbatch.generate``; SQL names them by ``endpoint``, by default the model's name.
    ``profiles`` are more of them by name, each a mapping with ``model`` and sections, or the path of a job file.
    ``errors="strict"`` makes an answer that is not as its call asks an error; by default it is given as it came. An executor's
    engine is ended after ``idle`` seconds without work; of several models it holds ``engines`` at a time.

        llmbatch.spark.register(spark, model="Qwen/Qwen3-8B", endpoint="qwen")
        llmbatch.spark.sql(spark, "SELECT ai_query('qwen', text, failOnError => false) AS r FROM reviews")

    Raises ``UsageError`` for what is wrong with a model's or profile's settings: nothing is loaded by then.
    """
    if errors not in _ERRORS:
        raise JobError(f"errors: is one of {', '.join(_ERRORS)}, not {short(errors)}")
    if idle <= 0 or engines < 1:
        raise JobError("idle is a number of seconds above 0, and engines at least 1")
    name = endpoint or str(model)
    own = {"model": model, "prompt": prompt, "program": {"name": program} if isinstance(program, str) else program}
    given: dict[str, Mapping[str, Any]] = {name: {**own, **sections}}
    if schema is not None:
        given[name] = {**given[name], "answer": {**sections.get("answer", {}), "schema": schema}}
    for each, profile in (profiles or {}).items():
        if each in given:
            raise JobError(f"profiles: {each!r} is the name of the model already; give that another endpoint")
        given[each] = _of_file(Path(profile)) if isinstance(profile, str | Path) else profile
    jobs = {each: _profile(each, profile) for each, profile in given.items()}
    registered = Registered(spark, Endpoints(jobs, name, errors == "strict"), _hosting(spark, idle, engines))
    registered.begin()
    return registered


def enable(spark: Any) -> None:
    """Let ``spark.sql`` itself take the functions with all of their arguments, as ``sql`` does. May be called twice.

    Raises ``UsageError`` before ``register``.
    """
    _registered(spark)
    spark.sql = partial(sql, spark)


def sql(spark: Any, text: str, *args: Any, **kwargs: Any) -> Any:
    """``spark.sql`` of a statement that may hold the functions with all of their arguments; the others pass as they are.

    Raises ``UsageError`` for a call that is wrong, naming its argument: no query is started by then.
    """
    return _registered(spark).sql(text, *args, **kwargs)


class Registered:
    """What a session was given."""

    def __init__(self, spark: Any, endpoints: Endpoints, hosting: Hosting) -> None:
        self._spark = spark
        self._endpoints = endpoints
        self._hosting = hosting
        self._known: set[str] = set()
        self._heard = _Heard(spark)

    def begin(self) -> None:
        """Register the functions that a statement may use as they are."""
        udfs = extra("llmbatch.integrations.spark.udfs", "spark", "llmbatch.spark")
        extra("sqlglot", "spark", "llmbatch.spark")
        for name in FUNCTIONS:
            made = udfs.of_function(name, self._endpoints, self._hosting, self._heard.hear)
            self._spark.udf.register(name, made)
        struct = udfs.of_function("ai_query", self._endpoints, self._hosting, self._heard.hear, fails=False)
        self._spark.udf.register("ai_query_struct", struct)
        setattr(self._spark, _OWN, self)

    def sql(self, text: str, *args: Any, **kwargs: Any) -> Any:
        """See ``sql`` of the module."""
        udfs = extra("llmbatch.integrations.spark.udfs", "spark", "llmbatch.spark")
        statement = rewritten(text, self._endpoints)
        for name, call in statement.calls.items():
            if name not in self._known:
                self._spark.udf.register(name, udfs.of_call(name, call, self._hosting, self._heard.hear))
                self._known.add(name)
        return type(self._spark).sql(self._spark, statement.text, *args, **kwargs)  # its own, also after ``enable``

    def executors(self) -> list[Facts]:
        """What the executors' engines have done, as far as finished tasks told of it: starts of engines, rows."""
        return self._heard.facts()


class _Heard:
    """What tasks say of their executors, by an accumulator of Spark's: the latest for each executor, told once or twice."""

    def __init__(self, spark: Any) -> None:
        self._sum: Any = None
        try:
            context = spark.sparkContext
        except Exception:  # a session of Spark Connect has none
            return
        parameter = extra("llmbatch.integrations.spark.accumulator", "spark", "llmbatch.spark").LATEST
        self._sum = context.accumulator({}, parameter)

    @property
    def hear(self) -> Any:
        """What a task calls; it is sent to executors, and has nothing of the session."""
        return _ignored if self._sum is None else _Hear(self._sum)

    def facts(self) -> list[Facts]:
        return [] if self._sum is None else [Facts(*each) for _, each in sorted(self._sum.value.items())]


class _Hear:
    def __init__(self, accumulator: Any) -> None:
        self._accumulator = accumulator

    def __call__(self, facts: Facts) -> None:
        self._accumulator.add({facts.executor: tuple(facts)})


def _ignored(_: Facts) -> None:
    return


def _of_file(path: Path) -> dict[str, Any]:
    """A job file as a profile: what it says of its input and its run is of no account here. Raises ``JobError``."""
    return {key: value for key, value in load_job_data(path).items() if key not in _NOT_OF_A_PROFILE}


def _profile(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The data of a job without rows, its paths absolute: an executor has another folder. Raises ``UsageError``."""
    if not isinstance(given, Mapping):
        raise JobError(f"profiles.{name}: is a mapping with model and the sections of a job, not {short(given)}")
    wrong = [key for key in _NOT_OF_A_PROFILE if given.get(key) is not None]
    if wrong:
        raise JobError(
            f"{name}: {', '.join(wrong)}: has no place here: SQL gives the rows, and every row has one answer"
        )
    profile = {key: value for key, value in given.items() if value is not None}
    if isinstance(profile.get("prompt"), str | Path):
        profile["prompt"] = {"path": str(profile["prompt"])}
    if "model" not in profile:
        raise JobError(f"profiles.{name}: model is missing")
    try:
        job = job_given(job_for(profile), None)
        if is_given(job.program.name):
            raise JobError(
                "program: an executor is another process: put the function into a module, and give its import path"
            )
        whole = job.absolute().data()
    except UsageError as error:
        raise type(error)(f"{name}: {error}") from None
    kept = {key: value for key, value in whole.items() if key not in ("input", "output")}
    if "prompt" not in profile:  # the default one is a call's matter
        kept.pop("prompt", None)
    kept["sampling"] = dict(profile.get("sampling", {}))
    return kept


def _hosting(spark: Any, idle: float, engines: int) -> Hosting:
    try:
        context = spark.sparkContext
        return Hosting(context.applicationId, idle, engines, context.getConf().get(_THREADS))
    except Exception:  # a session of Spark Connect
        return Hosting(f"connect-{uuid.uuid4().hex}", idle, engines)


def _registered(spark: Any) -> Registered:
    found = getattr(spark, _OWN, None)
    if not isinstance(found, Registered):
        raise JobError("this Spark session has no models yet: call llmbatch.spark.register(spark, model=...) first")
    return found


__all__ = ["Registered", "enable", "register", "sql"]
