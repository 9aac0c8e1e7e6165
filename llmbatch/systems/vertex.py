"""Vertex AI's BatchPredictionJob, as JSON or YAML, in; the job that does the same out: for a custom model, and for Gemini."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llmbatch.core.errors import JobError
from llmbatch.core.sampling import sampling_problem
from llmbatch.core.words import first_few, near, short
from llmbatch.formats.gemini.schema import camel_case
from llmbatch.formats.vertex import VertexSettings
from llmbatch.sources.base import SourceSettings
from llmbatch.sources.input_files import InputFiles
from llmbatch.sources.lines import Lines
from llmbatch.sources.places import is_url
from llmbatch.systems.base import Assets, FromDocument

OUTPUT_ONLY = (
    "name", "outputInfo", "state", "error", "partialFailures", "resourcesConsumed", "completionStats", "createTime",
    "startTime", "endTime", "updateTime", "satisfiesPzs", "satisfiesPzi",
)  # fmt: skip
"""What a job says of itself, and a document need not."""
_WITHOUT_EFFECT = (
    "labels", "dedicatedResources", "serviceAccount", "encryptionSpec", "manualBatchTuningParameters",
    "disableContainerLogging", "modelVersionId", *OUTPUT_ONLY,
)  # fmt: skip
_DONE = ("displayName", "model", "inputConfig", "outputConfig", "instanceConfig", "modelParameters")
_REFUSED = {
    "unmanagedContainerModel": "name a model, and say what it is here with --asset NAME=MODEL",
    "generateExplanation": "answers are not explained here; leave it out",
    "explanationSpec": "answers are not explained here; leave it out",
    "modelMonitoringConfig": "nothing is monitored here; leave it out",
}
_AS_LINES = "export it as JSON lines, and take jsonl"
_FORMATS = {
    "bigquery": f"a table of BigQuery's: {_AS_LINES}",
    "tf-record": f"records of TensorFlow's: {_AS_LINES}",
    "tf-record-gzip": f"records of TensorFlow's: {_AS_LINES}",
}
_PARTS: Mapping[str, Mapping[str, str]] = {
    "inputConfig": {
        "bigquerySource": _FORMATS["bigquery"],
        "vertexMultimodalDatasetSource": f"a data set of Vertex AI's: {_AS_LINES}",
    },
    "outputConfig": {
        "bigqueryDestination": "predictions are written to files: give gcsDestination",
        "vertexMultimodalDatasetDestination": "predictions are written to files: give gcsDestination",
    },
}
_KNOWN = {
    "inputConfig": ("instancesFormat", "gcsSource"),
    "outputConfig": ("predictionsFormat", "gcsDestination"),
    "instanceConfig": ("instanceType", "keyField", "includedFields", "excludedFields"),
    "gcsSource": ("uris",),
    "gcsDestination": ("outputUriPrefix",),
}
_GEMINI = "publishers/google/models/"


class Vertex:
    """A document has the job's own keys, in camelCase or in snake_case."""

    name = "vertex"

    def recognizes(self, document: Any, path: Path) -> bool:  # noqa: ARG002 - it is known by its keys
        if not isinstance(document, Mapping):
            return False
        named = {camel_case(str(key)): value for key, value in document.items()}
        source, target = named.get("inputConfig"), named.get("outputConfig")
        if not isinstance(source, Mapping) or not isinstance(target, Mapping):
            return False
        keys = {camel_case(str(key)) for key in (*source, *target)}
        return bool(keys & {"instancesFormat", "gcsSource", "bigquerySource", "gcsDestination", "predictionsFormat"})

    def job(self, document: Any, path: Path, assets: Assets) -> FromDocument:
        return _Document(document, path, assets).job()

    def output(self, document: Any, path: Path) -> str:
        """The address that a document wants its output below. Raises ``JobError``."""
        return _Document(document, path, Assets()).to


class _Document:
    def __init__(self, document: Mapping[str, Any], path: Path, assets: Assets) -> None:
        self._path = path
        self._assets = assets
        self._top = self._named(document, "")
        self._check_keys("", self._top, (*_DONE, *_WITHOUT_EFFECT), _REFUSED)
        parts = {name: self._part(self._top, name) for name in ("inputConfig", "outputConfig", "instanceConfig")}
        self._input, self._output, self._instance = parts.values()
        self._source = self._part(self._input, "gcsSource", "inputConfig.")
        self._target = self._part(self._output, "gcsDestination", "outputConfig.")

    def job(self) -> FromDocument:
        model = self._text(self._top, "model", "")
        short_name = model.rpartition("/")[2].partition("@")[0]
        instances = self._one_of("inputConfig.instancesFormat", self._input, ("jsonl", "csv", "file-list"), _FORMATS)
        to = self.to
        uris = self._uris()
        gemini = _GEMINI in model
        read, layout = self._gemini(instances) if gemini else self._custom(instances, short_name)
        places = [self._place(uri) for uri in uris]
        if instances == "file-list":
            places = list(self._listed(places))
        job: dict[str, Any] = {
            "input": {"path": places[0], "more": places[1:], **read},
            "answer": {"allow_truncated": True},
            "sinks": {"layout": layout, "to": self._place(to)},
        }
        names = (model, model.rpartition("/")[2], short_name)
        known = next((name for name in names if name in self._assets.places), None)
        job["model"] = short_name if known is None else self._assets.model(known)
        called = f"model {model}: "
        called += (
            f"is what --model says, or --asset {short_name}=MODEL; else it is looked for as {short_name}"
            if known is None
            else str(job["model"])
        )
        title = self._top.get("displayName") or short_name
        kind = "requests for Gemini" if gemini else f"instances ({instances})"
        said = f"{self._path}: Vertex AI's batch prediction job {short(title)}: {kind} of {first_few(uris, 3)}"
        return FromDocument(
            job,
            re.sub(r"[^\w.-]+", "-", str(title)).strip("-.") or "vertex",
            [f"{said}; predictions to {to}", called],
            [key for key in self._top if key in _WITHOUT_EFFECT],
        )

    @property
    def to(self) -> str:
        return self._text(self._target, "outputUriPrefix", "outputConfig.gcsDestination.")

    def _custom(self, instances: str, model: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """(what reads the input, the layout) of a job for a custom model."""
        parameters = self._parameters()
        rich = parameters.pop("rich", False)
        if not isinstance(rich, bool):
            raise self._problem("modelParameters.rich", f"is {short(rich)}, and must be true or false")
        given = {
            "instances": instances,
            "instance_type": self._instance_type(instances),
            "key_field": self._instance.get("keyField") or None,
            "included_fields": self._instance.get("includedFields") or [],
            "excluded_fields": self._instance.get("excludedFields") or [],
        }
        options = {name: value for name, value in given.items() if value}
        try:
            VertexSettings.model_validate(options)
        except ValidationError as error:
            said = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
            raise self._problem("instanceConfig", said) from None
        predictions = self._one_of(
            "outputConfig.predictionsFormat", self._output, ("jsonl", "csv"), {"bigquery": _AS_LINES}
        )
        if predictions == "csv" and instances != "csv" and not given["key_field"]:
            raise self._problem(
                "outputConfig.predictionsFormat", "is csv, for which instances must be csv too, or have a keyField"
            )
        settings: dict[str, Any] = {**options, "model": model, "predictions": predictions}
        if rich:
            settings["rich"] = True
        of_all = {"parameters": parameters} if parameters else {}
        return {"format": "vertex", "options": {**options, **of_all}}, {"name": "vertex", "settings": settings}

    def _gemini(self, instances: str) -> tuple[dict[str, Any], dict[str, Any]]:
        for place, given in (("instanceConfig", self._instance), ("modelParameters", self._parameters())):
            if given:
                raise self._problem(
                    place, "is for custom models: a request for Gemini says itself what it asks for; leave it out"
                )
        predictions = self._one_of("outputConfig.predictionsFormat", self._output, ("jsonl",), {"bigquery": _AS_LINES})
        if instances != "jsonl" or predictions != "jsonl":
            raise self._problem("inputConfig.instancesFormat", f"is {instances}, and requests for Gemini are jsonl")
        return {"format": "gemini"}, {"name": "gemini"}

    def _parameters(self) -> dict[str, Any]:
        given = self._top.get("modelParameters") or {}
        if not isinstance(given, Mapping):
            raise self._problem("modelParameters", f"must be an object, and is {short(given)}")
        found = VertexSettings.model_construct(parameters={k: v for k, v in given.items() if k != "rich"}).sampling
        for name, value in found.items():
            if problem := sampling_problem(name, value):
                raise self._problem(f"modelParameters.{name}", problem)
        return {**found, **({"rich": given["rich"]} if "rich" in given else {})}

    def _instance_type(self, instances: str) -> str | None:
        kind = self._instance.get("instanceType") or None
        if kind not in (None, "object", "array"):
            raise self._problem("instanceConfig.instanceType", f"is {short(kind)}, and must be object or array")
        return None if instances == "file-list" else kind

    # Addresses.

    def _uris(self) -> list[str]:
        uris = self._source.get("uris")
        found = [uris] if isinstance(uris, str) else uris
        if not isinstance(found, list) or not found or not all(isinstance(uri, str) and uri for uri in found):
            raise self._problem("inputConfig.gcsSource.uris", f"must be a list of addresses, and is {short(uris)}")
        return found

    def _place(self, uri: str) -> str:
        place = self._assets.place(uri)
        return place if is_url(place) else str(Path(place).absolute())

    def _listed(self, lists: Sequence[str]) -> Iterator[str]:
        """The files that are named in lists, a line each."""
        files = InputFiles.of(SourceSettings(path=lists[0], more=tuple(lists[1:])))
        count = 0
        for number in range(len(files)):
            with files.open(number) as stream:
                for line in Lines(stream, files.name(number)):
                    count += 1
                    yield self._place(line.decode("utf-8-sig", "replace").strip())
        if not count:
            raise self._problem("inputConfig.gcsSource.uris", "name lists of files, and there is no file in them")

    # Keys.

    def _named(self, value: Mapping[str, Any], place: str) -> dict[str, Any]:
        """An object with its names in camelCase, without what is empty."""
        named = {camel_case(str(key)): item for key, item in value.items()}
        if len(named) < len(value):
            raise self._problem(place or "the document", "has a key twice, in camelCase and in snake_case")
        return {key: item for key, item in named.items() if item not in (None, "", [], {}, False)}

    def _part(self, of: Mapping[str, Any], name: str, above: str = "") -> dict[str, Any]:
        value = of.get(name, {})
        if not isinstance(value, Mapping):
            raise self._problem(f"{above}{name}", f"must be an object, and is {short(value)}")
        named = self._named(value, f"{above}{name}")
        self._check_keys(f"{above}{name}.", named, _KNOWN[name], _PARTS.get(name, {}))
        return named

    def _check_keys(
        self, above: str, given: Collection[str], known: Collection[str], refused: Mapping[str, str]
    ) -> None:
        for key in given:
            if key in refused:
                raise self._problem(f"{above}{key}", f"is not done here: {refused[key]}")
            if key not in known:
                raise self._problem(f"{above}{key}", f"is not known{near(key, known)}; known are {', '.join(known)}")

    def _one_of(self, place: str, of: Mapping[str, Any], done: Sequence[str], refused: Mapping[str, str]) -> str:
        value = of.get(place.rpartition(".")[2], done[0])
        if value in done:
            return str(value)
        if value in refused:
            raise self._problem(place, f"is {value}, which is not done here: {refused[value]}")
        raise self._problem(place, f"is {short(value)}, and must be one of {', '.join(done)}")

    def _text(self, of: Mapping[str, Any], name: str, above: str) -> str:
        value = of.get(name)
        if not isinstance(value, str):
            seen = "is missing" if value is None else f"must be a text, and is {short(value)}"
            raise self._problem(f"{above}{name}", seen)
        return value

    def _problem(self, place: str, said: str) -> JobError:
        return JobError(f"{self._path}: {place} {said}")
