"""The YAML of a parallel job in, alone or as a step of a pipeline; what is to be run out."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from llmbatch.core.errors import JobError
from llmbatch.core.words import near, short
from llmbatch.prompt.document import Document
from llmbatch.systems.azure_ml.assets import place_of
from llmbatch.systems.azure_ml.document import WITHOUT_EFFECT, checked, no_effect, script_file
from llmbatch.systems.azure_ml.scoring import Scoring, Script, Thresholds
from llmbatch.systems.azure_ml.settings import LONGEST_TIMEOUT, Parallel

OUTPUT = "{output}"
"""What stands in a script's arguments for the output folder, which the document does not know."""

_BOUND = re.compile(r"\$\{\{\s*(?P<place>[^}]*?)\s*\}\}")
_RETRIES, _TIMEOUT = 2, 60


def scoring_of_step(document: Document, base: Path, assets: Mapping[str, str], step: str | None) -> Scoring:
    """Raises ``JobError``."""
    at: tuple[str, ...] = ()
    pipeline: Mapping[str, Any] = {}
    if str(document.value.get("type")).lower() == "pipeline":
        name = _step(document, step)
        at, pipeline = ("jobs", name), document.value
        if not isinstance(pipeline.get("inputs", {}), Mapping):
            raise JobError(f"{document.where(['inputs'])}: inputs are a mapping of names to values")
    elif step is not None:
        raise JobError(f"{document.name}: is one parallel job, which has no steps: leave --step {step} out")
    if "component" in _at(document, at):
        raise JobError(
            f"{document.where([*at, 'component'])}: component is not done here: write what the component's file says into the step"
        )
    if "partition_keys" in _at(document, at):
        raise JobError(
            f"{document.where([*at, 'partition_keys'])}: partition_keys is not done here: files go into mini-batches in the order "
            "of their names; leave it out, or sort them into folders"
        )
    job = checked(Parallel, document, at)
    return _Step(document, at, job, pipeline, base, assets).scoring()


def _at(document: Document, at: tuple[str, ...]) -> Mapping[str, Any]:
    value = document.value
    for key in at:
        value = value[key]
    if not isinstance(value, Mapping):
        raise JobError(f"{document.where(at)}: a parallel job is a mapping")
    return value


def _step(document: Document, step: str | None) -> str:
    jobs = document.value.get("jobs")
    if not isinstance(jobs, Mapping) or not jobs:
        raise JobError(f"{document.name}: a pipeline without jobs: there is nothing to run")
    parallel = [name for name, job in jobs.items() if isinstance(job, Mapping) and job.get("type") == "parallel"]
    if step is not None:
        if step not in parallel:
            raise JobError(f"{document.where(['jobs'])}: there is no parallel job {step!r}{near(step, parallel)}")
        return step
    if len(jobs) == 1 and parallel:
        return str(parallel[0])
    known = f"its parallel jobs are {', '.join(parallel)}" if parallel else "none of them is a parallel job"
    raise JobError(
        f"{document.where(['jobs'])}: a pipeline of {len(jobs)} steps, of which one is run here: say which, --step NAME; {known}"
    )


class _Step:
    """One parallel job of a document, as its parts are read."""

    def __init__(
        self, document: Document, at: tuple[str, ...], job: Parallel, pipeline: Mapping[str, Any], base: Path,
        assets: Mapping[str, str],
    ) -> None:  # fmt: skip
        self._document = document
        self._at = at
        self._job = job
        self._pipeline = pipeline
        self._base = base
        self._assets = assets

    def scoring(self) -> Scoring:
        job = self._job
        arguments = tuple(self._bound(word, ("task", "program_arguments")) for word in self._words())
        own = _predefined(arguments, self._where("task", "program_arguments"))
        code = Path(place_of(job.task.code, self._assets, self._base, self._where("task", "code")))
        script_file(self._document, code, job.task.entry_script, (*self._at, "task"))
        retry = job.retry_settings
        items = own.error_threshold if own.error_threshold is not None else job.error_threshold
        return Scoring(
            name=job.name or (self._at[-1] if self._at else Path(self._document.name).stem),
            script=Script(code, job.task.entry_script, arguments, job.environment_variables),
            mini_batch_size=self._mini_batch_size(),
            processes=job.max_concurrency_per_instance,
            retries=_RETRIES if retry.max_retries is None else retry.max_retries,
            timeout=_TIMEOUT if retry.timeout is None else retry.timeout,
            start_timeout=own.first_task_creation_timeout,
            thresholds=Thresholds(items, job.mini_batch_error_threshold, own.allowed_failed_percent),
            output_file=self._output_file(),
            output_folders=tuple(name for name in job.outputs if name != self._appended_to()),
            logging_level=job.logging_level.lower(),
            input=self._input(),
            read=(f"parallel job {'.'.join(self._at) or self._document.name}",),
            without_effect=(
                *no_effect(self._document, WITHOUT_EFFECT, self._at),
                *no_effect(self._document, {"environment": WITHOUT_EFFECT["environment"]}, (*self._at, "task")),
                *(
                    f"program_arguments --{name}: passed on to the script, and without effect otherwise"
                    for name in own.passed_on
                ),
            ),
        )

    def _words(self) -> list[str]:
        try:
            return shlex.split(self._job.task.program_arguments)
        except ValueError as error:
            raise JobError(
                f"{self._where('task', 'program_arguments')}: {error}: a quote is not closed, perhaps"
            ) from error

    def _where(self, *keys: str) -> str:
        return self._document.where([*self._at, *keys])

    def _mini_batch_size(self) -> int:
        size = self._job.mini_batch_size
        if size.strip().isdecimal() and int(size) > 0:
            return int(size)
        raise JobError(
            f"{self._where('mini_batch_size')}: {short(size)} is no number of files: sizes such as 100kb are of tables (mltable), "
            "which are not done here"
        )

    def _input(self) -> str | None:
        """What the document itself has as its input; ``None`` where that is left open."""
        found = _BOUND.fullmatch(self._job.input_data.strip())
        if found is None:
            raise JobError(f"{self._where('input_data')}: one of the inputs is needed, such as ${{{{inputs.files}}}}")
        bound = self._job.inputs.get(found["place"].removeprefix("inputs."))
        if isinstance(bound, str) and "parent.jobs." in bound:
            return None  # another step makes it: --input says where it lies
        value = self._value(found["place"], ("input_data",))
        if isinstance(value, Mapping) and str(value.get("type")) == "mltable":
            raise JobError(
                f"{self._where('input_data')}: type mltable, tables in rows, is not done here: give a folder of files (uri_folder)"
            )
        return None if value is None else self._place(value, found["place"])

    def _place(self, value: Any, name: str) -> str:
        where = self._where("inputs")
        path = value.get("path") if isinstance(value, Mapping) else value
        if not isinstance(path, str):
            raise JobError(f"{where}: {name} has no path")
        return place_of(path, self._assets, self._base, where)

    def _value(self, place: str, at: tuple[str, ...]) -> Any:
        """The value of ``inputs.NAME`` or ``parent.inputs.NAME``. Raises ``JobError`` where there is no such input."""
        scope, _, name = place.rpartition(".")
        tables: dict[str, Mapping[str, Any]] = {
            "inputs": self._job.inputs, "parent.inputs": self._pipeline.get("inputs", {}),
        }  # fmt: skip
        if scope not in tables or name not in tables[scope]:
            known = [f"{key}.{each}" for key, table in tables.items() for each in table]
            raise JobError(
                f"{self._where(*at)}: there is no {place}{near(place, known)}; there are {', '.join(known) or 'none'}"
            )
        value = tables[scope][name]
        inner = _BOUND.fullmatch(value.strip()) if isinstance(value, str) else None
        if inner is None:
            return value
        if scope != "inputs" or not inner["place"].startswith("parent.inputs."):
            raise JobError(
                f"{self._where(*at)}: {place} is {inner['place']}, which is not known here: put its value in its place"
            )
        return self._value(inner["place"], at)

    def _bound(self, text: str, at: tuple[str, ...]) -> str:
        """A text with the values of what it names in ``${{...}}``; an output is a file or folder of the output folder."""

        def value(found: re.Match[str]) -> str:
            place = found["place"]
            if place.startswith("outputs."):
                return f"{OUTPUT}/{self._output(place, at)}"
            value = self._value(place, at)
            return self._place(value, place) if isinstance(value, Mapping) else str(value)

        return _BOUND.sub(value, text)

    def _output(self, place: str, at: tuple[str, ...]) -> str:
        name = place.removeprefix("outputs.")
        if name not in self._job.outputs:
            raise JobError(f"{self._where(*at)}: there is no {place}{near(name, self._job.outputs)}")
        return name

    def _appended_to(self) -> str | None:
        to = self._job.task.append_row_to
        if to is None:
            return None
        found = _BOUND.fullmatch(to.strip())
        if found is None or not found["place"].startswith("outputs."):
            raise JobError(
                f"{self._where('task', 'append_row_to')}: {short(to)}: one of the outputs is needed, such as ${{{{outputs.rows}}}}"
            )
        return self._output(found["place"], ("task", "append_row_to"))

    def _output_file(self) -> str | None:
        return self._appended_to()


class _Arguments(argparse.ArgumentParser):
    """Raises where argparse would end the program."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


class _Predefined(argparse.Namespace):
    error_threshold: int | None
    allowed_failed_percent: float
    first_task_creation_timeout: float
    passed_on: tuple[str, ...]


_PASSED_ON = (
    "task_overhead_timeout", "progress_update_timeout", "copy_logs_to_parent", "metrics_name_prefix", "push_metrics_to_parent",
    "resource_monitor_interval",
)  # fmt: skip


def _predefined(arguments: tuple[str, ...], where: str) -> _Predefined:
    """The arguments that mean something to what runs the script. Raises ``JobError``."""
    parser = _Arguments(add_help=False, allow_abbrev=False)
    parser.add_argument("--error_threshold", type=_whole(-1, None))
    parser.add_argument("--allowed_failed_percent", type=_number(0, 100), default=100.0)
    parser.add_argument("--first_task_creation_timeout", type=_number(1, LONGEST_TIMEOUT), default=600.0)
    for name in _PASSED_ON:
        parser.add_argument(f"--{name}")
    try:
        found, _ = parser.parse_known_args(list(arguments), namespace=_Predefined())
    except ValueError as error:
        raise JobError(f"{where}: {error}") from error
    found.passed_on = tuple(name for name in _PASSED_ON if getattr(found, name) is not None)
    return found


def _whole(least: int, most: int | None) -> Callable[[str], int]:
    def whole(text: str) -> int:
        value = int(text)
        if value < least or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f"{value} is not in [{least}, {'...' if most is None else most}]")
        return value

    return whole


def _number(least: float, most: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = float(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not in [{least:g}, {most:g}]")
        return value

    return number
