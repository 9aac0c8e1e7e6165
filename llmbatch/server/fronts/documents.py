"""What fronts share whose batches are job documents of another system: read as ``llmbatch run`` reads them, and run here."""

from __future__ import annotations

import glob
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from llmbatch.core.errors import FolderError, JobError, ReadError, SourceError
from llmbatch.core.files import atomic_write
from llmbatch.core.ledger import Ledger
from llmbatch.core.types import Status
from llmbatch.core.words import clip
from llmbatch.folder.folder import RunFolder, find_report, read_manifest
from llmbatch.job.swept import recipe_of
from llmbatch.runs.finish import finished_run
from llmbatch.server.base import Checked, Ended, Finished
from llmbatch.server.errors import ApiError
from llmbatch.server.outputs import record_lines
from llmbatch.server.server import Server
from llmbatch.server.store import Batch
from llmbatch.sinks.base import Output
from llmbatch.sinks.layout import write_layout
from llmbatch.sinks.upload import plan_upload, upload
from llmbatch.sources.base import SourceSettings
from llmbatch.sources.opening import open_source
from llmbatch.sources.places import expand, is_url
from llmbatch.systems.base import Assets, FromDocument, System

_log = logging.getLogger("llmbatch.server")
_LONGEST_DOCUMENT = 1 << 20  # characters: it is kept, and shown in lists
_LOOK_EVERY = 1000  # rows, to see whether it is to stop
_STORES = ("s3", "gs", "gcs", "az", "abfs", "abfss")
_PLACES = frozenset({"s3uri", "s3outputpath", "outputuriprefix", "uris"})  # keys of documents that hold addresses
_NOT_OURS = ("model", "engine", "output")  # of a job that is read off a document: the server has them, for all jobs


class ReadDocument(NamedTuple):
    """What a document asks for: the sections of its job, and the keys that have no effect here."""

    sections: Mapping[str, Any]
    no_effect: list[str]


class DocumentBatches:
    """Implements ``BatchKind`` for batches whose ``given`` has the ``document``. Results are where that says, once all is done."""

    def __init__(self, server: Server, system: System) -> None:
        self.server = server
        self._system = system

    def uploads(self, path: str) -> bool:  # noqa: ARG002 - documents are small
        return False

    def read(self, document: Mapping[str, Any]) -> ReadDocument:
        """What a document asks for. Raises ``ApiError``, with the key that is not done here."""
        if len(json.dumps(document)) > _LONGEST_DOCUMENT:
            raise ApiError(
                413, f"the document is longer than {_LONGEST_DOCUMENT:,} characters: name fewer objects, or what they begin with",
                code="request_too_large",
            )  # fmt: skip
        try:
            asked = self._asked(document)
        except (JobError, SourceError, ReadError) as error:
            raise ApiError(400, str(error).removeprefix("document: "), code="invalid_request") from error
        keys = [*asked.without_effect, *asked.of_the_engine]
        if keys:  # names that we know, and nothing of what was sent
            _log.info("%s: a job gives what has no effect here: %s", self._system.name, ", ".join(keys))
        return ReadDocument(_sections(asked), keys)

    def model_of(self, name: str) -> str:
        """A document's name of the model, where it is one that is served. Raises ``ApiError``."""
        if name not in self.server.settings.models:
            known = ", ".join(self.server.settings.models)
            raise ApiError(
                404, f"there is no model {name[:100]!r} here; there is {known} (serve --model-name gives it another name)",
                code="model_not_found",
            )  # fmt: skip
        return name

    def sections_of(self, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """The sections of the job that a document asks for. Raises ``JobError`` as ``_asked``."""
        return _sections(self._asked(document))

    def _asked(self, document: Mapping[str, Any]) -> FromDocument:
        """Raises ``JobError``, also for an address that is not for clients to read or write."""
        settings = self.server.settings
        roots = tuple(Path(expand(each)).resolve() for each in settings.assets.values() if not is_url(each))
        here = {name: at if is_url(at) else str(Path(expand(at)).absolute()) for name, at in settings.assets.items()}
        assets = _ForClients({**dict.fromkeys(settings.models, settings.model), **here}, roots)
        for address in _addresses(document):
            assets.place(address)
        asked = self._system.job(document, Path("document"), assets)
        job = asked.job
        for place in (job["input"]["path"], *job["input"].get("more", ()), job["sinks"]["to"]):
            _see_place(place, place, roots)
        return asked

    # BatchKind

    def check(self, batch: Batch, path: Path, stopped: Callable[[], bool]) -> Checked | None:  # noqa: ARG002 - no file of ours
        try:
            sections = self.sections_of(batch.given["document"])
            source = open_source(SourceSettings.model_validate(sections["input"]))
        except (JobError, SourceError) as error:
            return Checked(errors=[{"code": "invalid_request", "line": None, "message": str(error), "param": None}])
        rows = 0
        for rows, _ in enumerate(source.places(), 1):
            if rows % _LOOK_EVERY == 0 and stopped():
                return None
        return Checked(rows, batch.given["model"])

    def sections(self, batch: Batch, path: Path) -> Mapping[str, Any]:  # noqa: ARG002 - its input is where the document says
        return self.sections_of(batch.given["document"])

    def finish(self, ended: Ended) -> Finished:
        """Whatever there is was written by the run itself: of one that did not come to its end, in its folder alone."""
        folder = ended.job.output
        try:
            ledger, report = RunFolder(folder).ledger(), find_report(folder)
        except FolderError:
            ledger, report = Ledger(), None
        layout = None if report is None else report.get("layout")
        done, usage = ledger.by_status.get(Status.OK, 0), ledger.total
        return Finished(
            files={},
            done=done,
            failed=ledger.rows - done,
            usage={
                "input": usage.prompt_tokens,
                "cached": usage.cached_tokens,
                "output": usage.completion_tokens,
            },
            failure=layout["failure"] if layout and ended.state == "completed" else None,
        )


@dataclass(frozen=True, slots=True)
class _ForClients(Assets):
    """What addresses stand for, also those that stand in a list of objects: a place that is not for clients is not even looked at.

    ``roots`` are the folders of this machine that stand in a store's place.
    """

    roots: tuple[Path, ...] = ()

    def place(self, address: str) -> str:
        place = Assets.place(self, address)
        _see_place(address, place, self.roots)
        return place


def _sections(asked: FromDocument) -> Mapping[str, Any]:
    run = {key: value for key, value in asked.job.get("run", {}).items() if key != "max_time"}  # the batch's own end
    return {**{key: value for key, value in asked.job.items() if key not in _NOT_OURS}, "run": run}


def _see_place(address: str, place: str, roots: tuple[Path, ...]) -> None:
    """Clients say which objects are read and written; of this machine only what ``--asset`` puts in a store's place.

    Raises ``JobError``. A URL within a URL (``::``) is none of these, whatever it begins with.
    """
    scheme = place.partition("://")[0] if is_url(place) else None
    if scheme in _STORES and "::" not in place:
        return
    if scheme is None:
        places = [expand(place), *glob.glob(expand(place), recursive=True)]  # noqa: PTH207 - a pattern may lead out by a link
        if all(any(Path(each).resolve().is_relative_to(root) for root in roots) for each in places):
            return
    raise JobError(
        f"{clip(address, 200)}: is no address of an object store ({', '.join(f'{each}://' for each in _STORES)}), and nothing "
        "that this server was started with (--asset) says where it is here"
    )


def write_what_is_done(ended: Ended, change: Callable[[Path], None]) -> None:
    """Lay out the records that there are of a batch that ended early, and copy them to where the document says.

    ``change`` is given the folder of the files before they are copied. Again it does the same. Raises ``WriteError``.
    """
    job, folder = ended.job, ended.job.output
    manifest, part = read_manifest(folder), folder / "done.jsonl"
    if manifest is None or not atomic_write(part, record_lines(folder)):
        return
    finished = replace(finished_run(job, recipe_of(job), folder, manifest.created), parts=[part])
    files = write_layout(finished, Output(folder, job.sinks))
    change(folder)
    plan_upload(job.sinks, folder, files)
    upload(job.sinks, folder, lambda _: None)


def _addresses(document: Any) -> Iterator[str]:
    """Every address in a document."""
    if isinstance(document, Mapping):
        for key, value in document.items():
            if str(key).replace("_", "").lower() in _PLACES:
                yield from (each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str))
            else:
                yield from _addresses(value)


__all__ = ["DocumentBatches", "ReadDocument", "write_what_is_done"]
