"""The YAML of batch deployments and parallel jobs: every key, every default, and what is refused by name."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.errors import JobError
from llmbatch.systems.azure_ml.reading import read_scoring, recognizes
from llmbatch.systems.azure_ml.scoring import Scoring, Thresholds

EXAMPLE = Path(__file__).parents[1] / "examples" / "azure" / "ml"
Read = Callable[..., Scoring]

NEW = {
    "name": "d",
    "endpoint_name": "e",
    "type": "model",
    "model": {"path": "./model"},
    "code_configuration": {"code": "src", "scoring_script": "score.py"},
    "compute": "azureml:local",
}
STEP = {
    "type": "parallel",
    "inputs": {"files": {"type": "uri_folder", "path": "./input"}, "words": 7},
    "outputs": {"rows": {"type": "uri_file"}, "extra": None},
    "input_data": "${{inputs.files}}",
    "task": {
        "type": "run_function",
        "code": "./src",
        "entry_script": "score.py",
        "environment": "azureml:e@latest",
        "program_arguments": "--words ${{inputs.words}} --extra ${{outputs.extra}}",
        "append_row_to": "${{outputs.rows}}",
    },
}


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """A document, with changes by dotted key, as it is read beside the example's folders."""
    for name in ("src", "model", "input"):
        (tmp_path / name).symlink_to(EXAMPLE / name)

    def read(
        document: Mapping[str, Any], assets: Mapping[str, str] | None = None, step: str | None = None, **changes: Any
    ) -> Scoring:
        changed = copy.deepcopy(dict(document))
        for place, value in changes.items():
            *sections, key = place.split("__")
            section = changed
            for name in sections:
                section = section.setdefault(name, {})
            section[key] = value
        (tmp_path / "d.yml").write_text(json.dumps(changed, indent=1))
        return read_scoring(tmp_path / "d.yml", assets or {}, step)

    return read


def test_the_example_of_the_newer_form_is_read() -> None:
    scoring = read_scoring(EXAMPLE / "deployment.yml", {})
    assert scoring.script is not None
    assert scoring.script.path == (EXAMPLE / "src" / "score.py").absolute()
    assert scoring.script.environment == {"TONE": "plain"}
    assert scoring.model == str((EXAMPLE / "model").absolute())
    assert (scoring.mini_batch_size, scoring.processes, scoring.retries, scoring.timeout) == (2, 1, 3, 30)
    assert scoring.thresholds == Thresholds(1)
    assert scoring.output_file == "predictions.csv"
    assert [line.partition(":")[0] for line in scoring.without_effect] == ["compute", "resources", "environment"]
    (said,) = scoring.read
    assert said.startswith("batch deployment ") and "older form" not in said


def test_the_example_of_the_older_form_needs_to_know_where_its_model_lies() -> None:
    with pytest.raises(
        JobError, match="azureml:demo@latest is a name that a workspace knows: say where it lies, --asset demo=PLACE"
    ):
        read_scoring(EXAMPLE / "legacy.yml", {})
    assert read_scoring(EXAMPLE / "legacy.yml", {"demo": "./model"}).model == str(Path("model").absolute())
    scoring = read_scoring(EXAMPLE / "legacy.yml", {"demo": "demo"})
    assert scoring.model == "demo"
    assert (scoring.script, scoring.timeout, scoring.thresholds) == (None, 300, Thresholds(-1))


def test_a_deployment_has_azures_defaults(read: Read) -> None:
    scoring = read(NEW)
    assert (scoring.mini_batch_size, scoring.processes, scoring.retries, scoring.timeout) == (10, 1, 3, 30)
    assert (scoring.thresholds, scoring.output_file, scoring.logging_level) == (Thresholds(), "predictions.csv", "info")


def test_a_parallel_job_has_azures_defaults(read: Read) -> None:
    scoring = read(STEP)
    assert (scoring.mini_batch_size, scoring.processes, scoring.retries, scoring.timeout) == (1, None, 2, 60)
    assert (scoring.thresholds, scoring.start_timeout) == (Thresholds(-1, -1, 100), 600)


def test_a_parallel_job_binds_its_inputs_and_outputs(read: Read, tmp_path: Path) -> None:
    scoring = read(STEP)
    assert scoring.script is not None
    assert scoring.script.arguments == ("--words", "7", "--extra", "{output}/extra")
    assert scoring.input == str(tmp_path / "input")
    assert scoring.read[0].startswith("parallel job ")
    assert (scoring.output_file, scoring.output_folders) == ("rows", ("extra",))


def test_predefined_arguments_are_thresholds_and_reach_the_script(read: Read) -> None:
    text = "--error_threshold 5 --allowed_failed_percent 30 --first_task_creation_timeout 9 --resource_monitor_interval 0 --mine x"
    scoring = read(STEP, task__program_arguments=text, mini_batch_error_threshold=2)
    assert scoring.thresholds == Thresholds(5, 2, 30)
    assert scoring.start_timeout == 9
    assert scoring.script is not None
    assert list(scoring.script.arguments) == text.split()
    assert any("--resource_monitor_interval" in line for line in scoring.without_effect)


def test_a_step_of_a_pipeline_binds_what_the_pipeline_has(read: Read, tmp_path: Path) -> None:
    step = {**STEP, "inputs": {**STEP["inputs"], "files": "${{parent.inputs.all}}"}}  # type: ignore[dict-item]
    pipeline = {"type": "pipeline", "inputs": {"all": {"type": "uri_folder", "path": "input"}}, "jobs": {"one": step}}
    assert read(pipeline).input == str(tmp_path / "input")
    pipeline["jobs"] = {"one": step, "two": {**step, "mini_batch_size": "4"}, "three": {"type": "command"}}
    with pytest.raises(JobError, match=r"a pipeline of 3 steps.*--step NAME; its parallel jobs are one, two"):
        read(pipeline)
    assert read(pipeline, step="two").mini_batch_size == 4
    with pytest.raises(JobError, match="there is no parallel job 'tow' \\(did you mean 'two'\\?\\)"):
        read(pipeline, step="tow")


@pytest.mark.parametrize(
    ("document", "change", "said"),
    [
        (NEW, {"settings__mini_batch_sise": 1}, r"d\.yml:\d+:\d+: .*did you mean settings.mini_batch_size\?"),
        (NEW, {"settings__output_action": "append_rows"}, "settings.output_action"),
        (NEW, {"settings__mini_batch_size": 0}, "settings.mini_batch_size"),
        (NEW, {"settings__error_threshold": -2}, "settings.error_threshold"),
        (NEW, {"settings__retry_settings": {"timeout": 0}}, "settings.retry_settings.timeout"),
        (NEW, {"settings__retry_settings": {"timeout": 259_201}}, "settings.retry_settings.timeout"),
        (NEW, {"settings__logging_level": "loud"}, "settings.logging_level"),
        (NEW, {"settings__output_file_name": "../x.csv"}, "without folders"),
        (NEW, {"mini_batch_size": 3}, "mini_batch_size: with type model these belong below settings"),
        (NEW, {"settings__instance_count": 2, "resources": {"instance_count": 2}}, "cannot both be given"),
        (NEW, {"type": "pipeline"}, "type pipeline deploys a component"),
        (NEW, {"code_configuration__scoring_script": "scores.py"}, r"there is no script scores\.py in .*did you mean 'score\.py'"),
        (NEW, {"code_configuration__code": "sources"}, "there is no folder"),
        (NEW, {"code_configuration__scoring_script": "../score.py"}, "below the folder of the code"),
        (NEW, {"job_definition": {}}, "unknown key 'job_definition'"),
        (NEW, {"model": "azureml://registries/r/models/m"}, "can only be reached within Azure ML"),
        (NEW, {"model": "azureml:a:b:c"}, "is no reference to an asset"),
        (STEP, {"partition_keys": ["a"]}, "partition_keys is not done here"),
        (STEP, {"component": "./c.yml"}, "component is not done here"),
        (STEP, {"mini_batch_size": 2}, "mini_batch_size: .*string"),
        (STEP, {"logging_level": "info"}, "logging_level: .*'INFO'"),
        (STEP, {"mini_batch_size": "100kb"}, "'100kb' is no number of files"),
        (STEP, {"inputs__files": {"type": "mltable", "path": "./input"}}, "type mltable, tables in rows, is not done here"),
        (STEP, {"input_data": "${{inputs.flies}}"}, r"there is no inputs\.flies \(did you mean 'inputs\.files'\?\)"),
        (STEP, {"task__append_row_to": "rows.txt"}, "one of the outputs is needed"),
        (STEP, {"task__append_row_to": "${{outputs.row}}"}, r"there is no outputs\.row"),
        (STEP, {"task__type": "model"}, r"task\.type"),
        (STEP, {"task__program_arguments": "--error_threshold many"}, "error_threshold"),
        (STEP, {"task__program_arguments": "--allowed_failed_percent 101"}, r"101 is not in \[0, 100\]"),
        (STEP, {"mini_batch_error_treshold": 1}, "did you mean mini_batch_error_threshold"),
    ],
)  # fmt: skip
def test_what_is_wrong_or_not_done_is_refused_by_name(
    read: Read, document: Mapping[str, Any], change: dict[str, Any], said: str
) -> None:
    with pytest.raises(JobError, match=said):
        read(document, **change)


ODD: tuple[Any, ...] = (
    None,
    [],
    {},
    [{}],
    0,
    -1,
    1.5,
    True,
    "",
    "'",
    "${{inputs.files}}",
    "${{",
    "azureml:",
    "x\u0000",
)


@pytest.mark.parametrize(
    "document",
    [NEW, STEP, {"type": "pipeline", "inputs": {"a": 1}, "jobs": {"one": STEP}}],
    ids=["new", "step", "pipeline"],
)
def test_whatever_stands_at_a_key_is_read_or_refused_in_words(read: Read, document: Mapping[str, Any]) -> None:
    refused = []
    for place in _places(document):
        for value in ODD:
            try:
                read(document, **{place: value})
            except JobError as error:
                refused.append(str(error))
    assert len(refused) > 50
    assert [said for said in refused if "d.yml" not in said] == []


def _places(document: Mapping[str, Any]) -> Iterator[str]:
    for key, value in document.items():
        yield key
        if isinstance(value, Mapping):
            yield from (f"{key}__{place}" for place in _places(value))


def test_an_input_that_another_step_makes_is_left_open(read: Read) -> None:
    step = {**STEP, "inputs": {**STEP["inputs"], "files": "${{parent.jobs.prep.outputs.out}}"}}  # type: ignore[dict-item]
    assert read(step).input is None


@pytest.mark.parametrize("bound", ["${{inputs.words}}", "${{parent.jobs.prep.outputs.out}}"])
def test_what_is_not_known_here_is_said(read: Read, bound: str) -> None:
    with pytest.raises(JobError, match=r"inputs\.words is .*, which is not known here"):
        read(STEP, inputs__words=bound)


def test_settings_without_a_type_are_refused(read: Read) -> None:
    older = {key: value for key, value in NEW.items() if key != "type"}
    with pytest.raises(JobError, match="settings belongs to deployments of type model"):
        read(older, settings={"mini_batch_size": 1})
    assert read(older, mini_batch_size=1).mini_batch_size == 1


@pytest.mark.parametrize(
    ("model", "assets", "place"),
    [
        ("azureml:m@latest", {"m": "/a"}, "/a"),
        ("azureml:m:3", {"m": "/a", "m:3": "/b"}, "/b"),
        ("azureml:m:4", {"m": "/a", "m:3": "/b"}, "/a"),
        ("azureml://datastores/d/paths/x", {"azureml://datastores/d/paths": "/d"}, "/d/x"),
        ("s3://bucket/model", {"s3://bucket": "/s3"}, "/s3/model"),
        ("/plain", {"m": "/a"}, "/plain"),
    ],
)
def test_an_asset_is_where_the_user_says(read: Read, model: str, assets: dict[str, str], place: str) -> None:
    assert read(NEW, assets, model=model).model == place


@pytest.mark.parametrize(
    ("document", "is_one"),
    [
        (NEW, True),
        (STEP, True),
        ({"$schema": "https://azuremlschemas.azureedge.net/latest/pipelineJob.schema.json"}, True),
        ({"model": "m", "prompt": "p", "input": "i"}, False),
        ({"TransformJobName": "x"}, False),
        ([], False),
    ],
)
def test_a_document_of_azure_ml_is_known_by_what_no_other_has(document: Any, is_one: bool) -> None:
    assert recognizes(document) == is_one


def test_a_file_that_is_none_is_said(tmp_path: Path) -> None:
    for text, said in (("- a\n", "is a mapping"), ("a: [", "not valid YAML"), ("a: &x 1\nb: *x\n", "alias")):
        (tmp_path / "d.yml").write_text(text)
        with pytest.raises(JobError, match=said):
            read_scoring(tmp_path / "d.yml", {})
    with pytest.raises(JobError, match="there is no such file"):
        read_scoring(tmp_path / "no.yml", {})


def test_a_key_that_is_missing_is_said_without_an_option_that_is_not_there(read: Read) -> None:
    with pytest.raises(JobError, match=r"compute is missing\Z"):
        read({key: value for key, value in NEW.items() if key != "compute"})
