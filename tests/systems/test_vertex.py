from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from llmbatch.core.errors import JobError
from llmbatch.systems.base import Assets, FromDocument, read_job_document

Run = Callable[..., Result]
Difference = Callable[[Path, Path], str | None]


def document(**changes: Any) -> dict[str, Any]:
    """A job's document; a change is laid over the section of its name."""
    made: dict[str, Any] = {
        "displayName": "demo",
        "model": "projects/p/locations/us-central1/models/demo@1",
        "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": ["gs://corpus/in.jsonl"]}},
        "outputConfig": {
            "predictionsFormat": "jsonl",
            "gcsDestination": {"outputUriPrefix": "gs://corpus/out"},
        },
    }
    for name, change in changes.items():
        made[name] = {**made.get(name, {}), **change} if isinstance(change, dict) else change
    return made


GEMINI = document(model="publishers/google/models/gemini-2.5-flash")


def read(folder: Path, made: dict[str, Any], **places: str) -> FromDocument:
    (folder / "job.json").write_text(json.dumps(made))
    found = read_job_document(folder / "job.json", Assets({"gs://corpus": str(folder), **places}))
    assert found is not None
    return found


def run(llmbatch: Run, job: Path, corpus: Path, *more: str) -> tuple[Result, Path]:
    """The document of an example run on a copy of its bucket; its result, and the folder of the predictions."""
    llmbatch_arguments = ["run", job, "--asset", f"gs://corpus={corpus}", "--asset", "gs://corpus/out=there"]
    result = llmbatch(*llmbatch_arguments, "--model", "any", "--engine", "scripted", "--quiet", *more)
    [folder] = [path for path in Path("there").iterdir() if path.name.startswith("prediction-")]
    return result, folder


@pytest.mark.parametrize(
    ("example", "expected"),
    [("job.json", "expected"), ("job.key.json", "expected.key"), ("job.excluded.json", "expected")],
)
def test_a_job_for_a_custom_model_leaves_what_its_example_has(
    llmbatch: Run, examples: Path, difference_of_lines: Difference, example: str, expected: str
) -> None:
    custom = examples / "vertex" / "custom"
    result, folder = run(llmbatch, custom / example, custom / "gcs")
    assert result.exit_code == 3, result.output
    assert folder.name.startswith("prediction-demo-2") and folder.name.endswith("Z")
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in (custom / expected).iterdir())
    assert [difference_of_lines(folder / name, custom / expected / name) for name in names] == [None, None]


def test_a_job_for_gemini_leaves_what_its_example_has(
    llmbatch: Run, examples: Path, difference_of_lines: Difference
) -> None:
    gemini = examples / "vertex" / "gemini"
    result, folder = run(llmbatch, gemini / "job.json", gemini / "gcs")
    assert result.exit_code == 3, result.output
    [path] = folder.iterdir()
    assert difference_of_lines(path, gemini / "expected" / "prediction-model-TIME" / "predictions.jsonl") is None


def test_requests_of_the_gemini_api_are_known_by_their_keys(
    llmbatch: Run, examples: Path, difference_of_lines: Difference
) -> None:
    api = examples / "vertex" / "gemini-api"
    result = llmbatch(
        "run", "--input", api / "requests.jsonl", "--model", "any", "--engine", "scripted", "--output", "out", "--quiet",
        "--set", "sinks.layout.name=gemini_api",
    )  # fmt: skip
    assert result.exit_code == 3, result.output
    assert difference_of_lines(Path("out/output/responses.jsonl"), api / "expected.jsonl") is None


@pytest.mark.parametrize("example", ["custom/job.key.json", "gemini/job.json"])
def test_the_same_command_again_finishes_what_was_killed_with_the_same_bytes_and_no_row_again(
    llmbatch: Run, examples: Path, kill_at: Callable[[str, Callable[[], object]], None], example: str
) -> None:
    document = examples / "vertex" / example
    fixed = ("--set", "run.window=1", "--set", "sinks.layout.settings.time=2026-11-24T13:14:15Z", "--output")
    result, folder = run(llmbatch, document, document.parent / "gcs", *fixed, "whole")
    assert result.exit_code == 3, result.output
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    rows = json.loads(Path("whole/report.json").read_bytes())["rows"]["total"]
    shutil.rmtree("there")
    faults = (("part-sealed:2", rows - 2), ("temp-written/results.jsonl:1", 0), ("folder-away/output:1", 0))
    for fault, left in faults:
        arguments = (document, document.parent / "gcs", *fixed, fault.partition("/")[0])
        kill_at(fault, lambda arguments=arguments: run(llmbatch, *arguments))  # type: ignore[misc]
        result, folder = run(llmbatch, *arguments)
        assert result.exit_code == 3, result.output
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole
        assert json.loads(Path(arguments[-1], "report.json").read_bytes())["sessions"][-1]["rows"] == left
        assert run(llmbatch, *arguments)[1] == folder
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole
        shutil.rmtree("there")
    arguments = (document, document.parent / "gcs", *fixed, "killed-at-all")
    for fault, _ in faults:
        kill_at(fault, lambda: run(llmbatch, *arguments))
    result, folder = run(llmbatch, *arguments)
    assert result.exit_code == 3, result.output
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole


def test_a_document_says_what_was_read_and_what_has_no_effect(tmp_path: Path) -> None:
    made = document(
        dedicatedResources={"machineSpec": {"machineType": "n1"}}, labels={"a": "b"}, state="JOB_STATE_QUEUED"
    )
    first, _, second = read(tmp_path, made).notes()
    assert (
        "batch prediction job 'demo': instances (jsonl) of gs://corpus/in.jsonl; predictions to gs://corpus/out"
        in first
    )
    assert second == "dedicatedResources, labels, state: have no effect here"


def test_names_in_snake_case_say_the_same(tmp_path: Path) -> None:
    snake = {
        "display_name": "demo",
        "model": "projects/p/locations/us-central1/models/demo@1",
        "input_config": {"instances_format": "jsonl", "gcs_source": {"uris": "gs://corpus/in.jsonl"}},
        "output_config": {
            "predictions_format": "jsonl",
            "gcs_destination": {"output_uri_prefix": "gs://corpus/out"},
        },
    }
    assert read(tmp_path, snake) == read(tmp_path, document())


@pytest.mark.parametrize("name", ["projects/p/locations/us-central1/models/demo@1", "demo@1", "demo"])
def test_a_model_has_the_name_that_the_person_gives_it(tmp_path: Path, name: str) -> None:
    assert read(tmp_path, document(), **{name: "/models/m"}).job["model"] == "/models/m"


def test_a_model_that_nobody_names_is_looked_for_by_its_own_name(tmp_path: Path) -> None:
    found = read(tmp_path, document())
    assert found.job["model"] == "demo"
    assert "is what --model says, or --asset demo=MODEL" in found.read[1]
    assert read(tmp_path, GEMINI).job["model"] == "gemini-2.5-flash"


def test_what_a_job_says_of_instances_is_said_to_the_format_and_the_layout(tmp_path: Path) -> None:
    made = document(
        instanceConfig={"instanceType": "array", "keyField": "id", "includedFields": ["b", "a"]},
        modelParameters={"maxOutputTokens": 5.0, "temperature": 0, "rich": True},
    )
    job = read(tmp_path, made).job
    options = {"instances": "jsonl", "instance_type": "array", "key_field": "id", "included_fields": ["b", "a"]}
    assert job["input"]["options"] == {**options, "parameters": {"max_tokens": 5, "temperature": 0}}
    assert job["sinks"]["layout"]["settings"] == {**options, "model": "demo", "predictions": "jsonl", "rich": True}


def test_the_files_that_lists_name_are_read_each_as_a_text(tmp_path: Path, llmbatch: Run) -> None:
    (tmp_path / "one.txt").write_text("12\n")
    (tmp_path / "two.json").write_text('{"a": 1}')
    (tmp_path / "list").write_text("gs://corpus/one.txt\n\ngs://corpus/two.json\n")
    made = document(inputConfig={"instancesFormat": "file-list", "gcsSource": {"uris": ["gs://corpus/list"]}})
    (tmp_path / "job.json").write_text(json.dumps(made))
    result, folder = run(llmbatch, tmp_path / "job.json", tmp_path)
    assert result.exit_code == 0, result.output
    lines = (folder / "prediction.results-00000-of-00001").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"instance": "12\n", "prediction": "12\n"},
        {"instance": '{"a": 1}', "prediction": '{"a": 1}'},
    ]


def test_a_list_that_names_a_missing_file_is_refused_before_anything_is_run(tmp_path: Path, llmbatch: Run) -> None:
    (tmp_path / "list").write_text("gs://corpus/gone.txt\n")
    made = document(inputConfig={"instancesFormat": "file-list", "gcsSource": {"uris": ["gs://corpus/list"]}})
    (tmp_path / "job.json").write_text(json.dumps(made))
    result = llmbatch(
        "run", tmp_path / "job.json", "--asset", f"gs://corpus={tmp_path}", "--model", "any", "--engine", "scripted"
    )
    assert result.exit_code == 2
    assert "gone.txt: no such file" in result.output


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (document(explanationSpec={"parameters": {"topK": 1}}), "explanationSpec is not done here: answers are not explained"),
        (document(generateExplanation=True), "generateExplanation is not done here"),
        (document(modelMonitoringConfig={"a": 1}), "modelMonitoringConfig is not done here: nothing is monitored"),
        (document(unmanagedContainerModel={"a": 1}), "unmanagedContainerModel is not done here: name a model"),
        (document(modelParameter={"a": 1}), "modelParameter is not known .did you mean 'modelParameters'"),
        (document(inputConfig={"instancesFormat": "bigquery"}), "inputConfig.instancesFormat is bigquery, which is not done here.*"
         "export it as JSON lines"),
        (document(inputConfig={"instancesFormat": "tf-record-gzip"}), "inputConfig.instancesFormat is tf-record-gzip, which"),
        (document(inputConfig={"instancesFormat": "xml"}), "inputConfig.instancesFormat is 'xml', and must be one of jsonl, csv"),
        (document(inputConfig={"bigquerySource": {"inputUri": "bq://a"}}), "inputConfig.bigquerySource is not done here"),
        (document(inputConfig={"gcsSource": {"uris": []}}), "inputConfig.gcsSource.uris must be a list of addresses"),
        (document(inputConfig={"gcsSource": {"uri": "a"}}), "inputConfig.gcsSource.uri is not known"),
        (document(inputConfig={"gcsSource": "a"}), "inputConfig.gcsSource must be an object"),
        (document(outputConfig={"predictionsFormat": "bigquery"}), "outputConfig.predictionsFormat is bigquery, which is not done"),
        (document(outputConfig={"bigqueryDestination": {"outputUri": "bq://a"}}), "outputConfig.bigqueryDestination is not done"),
        (document(outputConfig={"predictionsFormat": "csv"}), "outputConfig.predictionsFormat is csv, for which instances"),
        (document(outputConfig={"gcsDestination": {}}), "outputConfig.gcsDestination.outputUriPrefix is missing"),
        (document(instanceConfig={"instanceType": "text"}), "instanceConfig.instanceType is 'text', and must be object or array"),
        (document(instanceConfig={"instanceType": "array"}), "instanceConfig instance_type array needs included_fields"),
        (document(instanceConfig={"includedFields": ["a"], "excludedFields": ["b"]}), "cannot be given together"),
        (document(instanceConfig={"key": "a"}), "instanceConfig.key is not known"),
        (document(modelParameters={"max_tokens": "many"}), "modelParameters.max_tokens is of type string"),
        (document(modelParameters={"beams": 2}), "modelParameters.beams is no sampling setting"),
        (document(modelParameters={"rich": "yes"}), "modelParameters.rich is 'yes', and must be true or false"),
        (document(model=None), "model is missing"),
        ({**document(), "input_config": {"gcsSource": {}}}, "has a key twice"),
        ({**GEMINI, "instanceConfig": {"keyField": "id"}}, "instanceConfig is for custom models"),
        ({**GEMINI, "modelParameters": {"temperature": 0}}, "modelParameters is for custom models"),
        ({**GEMINI, "inputConfig": {"instancesFormat": "csv", "gcsSource": {"uris": ["gs://a"]}}}, "is csv, and requests for"),
    ],
)  # fmt: skip
def test_what_is_not_done_is_refused_by_name(tmp_path: Path, made: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError, match=r"job\.json: .*" + said.replace("(", r"\(")):
        read(tmp_path, made)


@pytest.mark.parametrize(
    "other",
    [{}, {"inputConfig": {}, "outputConfig": {}}, {"input": {"path": "a"}, "output": "b"}, [], "job"],
)
def test_other_documents_are_not_taken_for_one(tmp_path: Path, other: Any) -> None:
    (tmp_path / "job.json").write_text(json.dumps(other))
    assert read_job_document(tmp_path / "job.json", Assets()) is None
