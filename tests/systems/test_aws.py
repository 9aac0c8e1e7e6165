"""Job documents of AWS, run from the command line on the scripted engine, with the examples' buckets in folders."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from llmbatch.cli.main import main
from llmbatch.core.errors import JobError
from llmbatch.systems.aws import below, starting_with
from llmbatch.systems.base import Assets, FromDocument, read_job_document

AWS = Path(__file__).parents[1] / "examples" / "aws"
TRANSFORM = json.loads((AWS / "sagemaker" / "create-transform-job.json").read_text())
INVOCATION = json.loads((AWS / "bedrock" / "create-model-invocation-job.json").read_text())


def is_like(value: Any, wanted: Any) -> bool:
    """Whether a value is what the examples expect, in which ``*`` stands for anything."""
    if isinstance(wanted, dict):
        return (
            isinstance(value, dict)
            and value.keys() == wanted.keys()
            and all(is_like(value[k], wanted[k]) for k in wanted)
        )
    if isinstance(wanted, list):
        return isinstance(value, list) and len(value) == len(wanted) and all(map(is_like, value, wanted))
    if isinstance(wanted, str) and "*" in wanted:
        return wanted == "*" or (
            isinstance(value, str) and re.fullmatch(".*".join(map(re.escape, wanted.split("*"))), value) is not None
        )
    return bool(value == wanted)


def tree(folder: Path) -> dict[str, list[Any]]:
    """The values of each file's lines, or the lines of one that is no JSON."""
    return {
        str(path.relative_to(folder)): values(path.read_text()) for path in sorted(folder.rglob("*")) if path.is_file()
    }


def values(text: str) -> list[Any]:
    try:
        return [json.loads(text)]
    except ValueError:
        pass
    lines = text.splitlines()
    try:
        return [json.loads(line) for line in lines]
    except ValueError:
        return lines


@pytest.fixture
def bucket_of(tmp_path: Path) -> Callable[..., Path]:
    """A folder that is the bucket corpus-b, with what an example's folder has."""

    def bucket_of(example: str) -> Path:
        shutil.copytree(AWS / example, tmp_path / "corpus-b")
        return tmp_path / "corpus-b"

    return bucket_of


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a document, given as data or as a file of the examples, against a bucket's folder."""
    monkeypatch.chdir(tmp_path)

    def run(document: Any, bucket: Path, *arguments: str) -> Result:
        path = tmp_path / "document.json"
        path.write_text((AWS / document).read_text() if isinstance(document, str) else json.dumps(document))
        command = [
            "run",
            str(path),
            "--engine",
            "scripted",
            "--asset",
            f"s3://corpus-b={bucket}",
            "--asset",
            "demo-model=demo",
        ]
        return CliRunner().invoke(main, [*command, *arguments])

    return run


Run = Callable[..., Result]
Bucket = Callable[..., Path]


def changed(document: Any, place: str, value: Any) -> Any:
    """A copy of a document with another value at a place; ``...`` takes it away."""
    copy = json.loads(json.dumps(document))
    *parts, last = place.split(".")
    at = copy
    for part in parts:
        at = at[part]
    at[last] = value
    if value is ...:
        del at[last]
    return copy


# SageMaker


@pytest.mark.parametrize("name", ["create-transform-job.json", "create-transform-job.manifest.json"])
def test_a_transform_job_leaves_an_output_object_for_each_of_its_input(run: Run, bucket_of: Bucket, name: str) -> None:
    bucket = bucket_of("sagemaker/s3")
    result = run(f"sagemaker/{name}", bucket)
    assert result.exit_code == 0, result.output
    assert tree(bucket / "output") == tree(AWS / "sagemaker" / "expected" / "output")
    assert "TransformResources, BatchStrategy: have no effect here" in result.stderr


def test_rows_of_csv_are_joined_and_filtered(run: Run, bucket_of: Bucket) -> None:
    bucket = bucket_of("sagemaker/s3-csv")
    result = run("sagemaker/create-transform-job.csv.json", bucket)
    assert result.exit_code == 0, result.output
    expected = AWS / "sagemaker" / "expected-csv" / "output" / "c.csv.out"
    assert (bucket / "output" / "c.csv.out").read_text() == expected.read_text()


def test_an_object_with_a_bad_record_has_no_output_and_the_others_have(
    run: Run, bucket_of: Bucket, tmp_path: Path
) -> None:
    bucket = bucket_of("sagemaker/s3-bad")
    result = run("sagemaker/create-transform-job.json", bucket)
    assert result.exit_code == 3, result.output
    assert tree(bucket / "output") == tree(AWS / "sagemaker" / "expected-bad" / "output")
    failure = json.loads((tmp_path / "llmbatch-demo-transform" / "report.json").read_text())["layout"]["failure"]
    assert failure.startswith("bad.jsonl: record 1 (line 2): malformed_row: ")
    assert "not JSON" in failure
    assert len((tmp_path / "llmbatch-demo-transform" / "results.jsonl").read_text().splitlines()) == 4


def test_a_placeholder_saves_the_other_records_of_an_object(run: Run, bucket_of: Bucket) -> None:
    bucket = bucket_of("sagemaker/s3-bad")
    result = run("sagemaker/create-transform-job.json", bucket, "--set", "sinks.layout.settings.on_error=placeholder")
    assert result.exit_code == 3, result.output
    first, second, third = (bucket / "output" / "bad.jsonl.out").read_text().splitlines()
    assert (json.loads(first)["id"], second, json.loads(third)["id"]) == ("a0", "ERROR", "a2")


def test_a_retry_of_what_failed_gives_the_object_its_output(run: Run, bucket_of: Bucket, tmp_path: Path) -> None:
    bucket, folder = bucket_of("sagemaker/s3"), tmp_path / "llmbatch-demo-transform"
    for name, does in (("refuses.yaml", "fail: no wool"), ("answers.yaml", 'answer: "{text}"')):
        (tmp_path / name).write_text(f"rules: [{{when: {{contains: wool}}, {does}}}]")
    script = "engine.script={}".format
    assert run("sagemaker/create-transform-job.json", bucket, "--set", script("refuses.yaml")).exit_code == 3
    assert list(tree(bucket / "output")) == ["deep/b.jsonl.out"]
    again = CliRunner().invoke(main, ["retry-failed", str(folder), "--set", script("answers.yaml")])
    assert again.exit_code == 0, again.output
    assert tree(bucket / "output") == tree(AWS / "sagemaker" / "expected" / "output")
    report = json.loads((folder / "report.json").read_text())
    assert (report["layout"]["failure"], report["exit_code"]) == (None, 0)
    assert report["outputs"][-1] == "output/a.jsonl.out and 1 more"


def test_a_job_whose_output_filter_picks_nothing_is_not_all_well(run: Run, bucket_of: Bucket) -> None:
    document = changed(TRANSFORM, "DataProcessing.OutputFilter", "$.nothing")
    result = run(document, bucket_of("sagemaker/s3"), "--quiet")
    assert result.exit_code == 3
    assert "all 4 rows are ok; sagemaker would call this job failed: a.jsonl: record 0 (line 1): " in result.output


def test_an_empty_object_has_an_empty_output(run: Run, bucket_of: Bucket) -> None:
    bucket = bucket_of("sagemaker/s3")
    for name in ("a-first.jsonl", "b-between.jsonl", "z-last.jsonl"):
        (bucket / "input" / name).touch()
    assert run("sagemaker/create-transform-job.json", bucket).exit_code == 0
    sizes = {path.name: path.stat().st_size for path in (bucket / "output").rglob("*.out")}
    assert {name for name, size in sizes.items() if not size} == {
        "a-first.jsonl.out", "b-between.jsonl.out", "z-last.jsonl.out",
    }  # fmt: skip


def test_objects_without_a_record_have_an_empty_output_but_those_behind_a_limit(
    run: Run, bucket_of: Bucket, tmp_path: Path
) -> None:
    bucket = bucket_of("sagemaker/s3")
    for name in ("b-blank.jsonl", "y-blank.jsonl", "z-blank.jsonl"):
        (bucket / "input" / name).write_text("\n\n")
    limited = ("--limit", "3", "--output", str(tmp_path / "limited"))
    assert run("sagemaker/create-transform-job.json", bucket, *limited).exit_code == 0
    assert set(tree(tmp_path / "limited" / "output")) == {"a.jsonl.out"}
    assert run("sagemaker/create-transform-job.json", bucket).exit_code == 0
    written = tree(tmp_path / "llmbatch-demo-transform" / "output")
    blank = {f"{name}-blank.jsonl.out": [] for name in "byz"}
    assert written == {**tree(AWS / "sagemaker" / "expected" / "output"), **blank}


def test_slices_of_a_document_are_put_together_by_merge(run: Run, bucket_of: Bucket, tmp_path: Path) -> None:
    bucket, document = bucket_of("sagemaker/s3"), "sagemaker/create-transform-job.json"
    refused = run(document, bucket, "--shard", "1/2")
    assert (refused.exit_code, "--set sinks.to=null where a document says it" in refused.output) == (2, True)
    slices = [str(tmp_path / name) for name in ("one", "two")]
    for number, folder in enumerate(slices, 1):
        shard = ("--shard", f"{number}/2", "--set", "sinks.to=null", "--output", folder)
        assert run(document, bucket, *shard).exit_code == 0
    whole = ("--output", str(tmp_path / "whole"), "--to", str(bucket / "output"))
    assert CliRunner().invoke(main, ["merge", *slices, *whole]).exit_code == 0
    assert tree(bucket / "output") == tree(AWS / "sagemaker" / "expected" / "output")


def test_the_same_command_again_finds_nothing_to_do(run: Run, bucket_of: Bucket) -> None:
    bucket = bucket_of("sagemaker/s3")
    run("sagemaker/create-transform-job.json", bucket)
    before = tree(bucket / "output")
    result = run("sagemaker/create-transform-job.json", bucket)
    assert result.exit_code == 0
    assert "nothing is left to do" in result.output
    assert tree(bucket / "output") == before


def test_an_object_is_one_record_where_it_is_not_split(run: Run, tmp_path: Path) -> None:
    (tmp_path / "b" / "in").mkdir(parents=True)
    (tmp_path / "b" / "in" / "a.json").write_text('{"inputs": "one"}')
    (tmp_path / "b" / "in" / "b.json").write_text('{"inputs":\n"two"}\n')
    document = {
        "TransformJobName": "whole",
        "ModelName": "demo-model",
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://corpus-b/in/"}},
            "ContentType": "application/json",
        },
        "TransformOutput": {"S3OutputPath": "s3://corpus-b/out/"},
        "TransformResources": {},
    }
    result = run(document, tmp_path / "b")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "b" / "out" / "b.json.out").read_text() == '{"generated_text":"two"}'
    assert tree(tmp_path / "b" / "out").keys() == {"a.json.out", "b.json.out"}


def test_lines_of_text_and_packed_objects_are_read(run: Run, tmp_path: Path) -> None:
    import gzip

    (tmp_path / "b" / "in").mkdir(parents=True)
    (tmp_path / "b" / "in" / "a.txt.gz").write_bytes(gzip.compress(b'one loaf\n{not json\n"a text"\n'))
    document = changed(TRANSFORM, "DataProcessing", ...)
    document["TransformInput"] |= {"ContentType": "text/plain", "CompressionType": "Gzip"}
    document["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"] = "s3://corpus-b/in/"
    result = run(document, tmp_path / "b")
    assert result.exit_code == 0, result.output
    lines = tree(tmp_path / "b" / "output")["a.txt.gz.out"]
    assert [line["generated_text"] for line in lines] == ["one loaf", "{not json", "a text"]


def test_a_record_over_the_payload_limit_is_an_error_of_its_object(run: Run, bucket_of: Bucket, tmp_path: Path) -> None:
    bucket = bucket_of("sagemaker/s3")
    with (bucket / "input" / "a.jsonl").open("a") as stream:
        stream.write(json.dumps({"id": "long", "features": {"inputs": "x" * (1 << 20)}}) + "\n")
    result = run("sagemaker/create-transform-job.json", bucket)
    assert result.exit_code == 3
    assert tree(bucket / "output").keys() == {"deep/b.jsonl.out"}
    failure = json.loads((tmp_path / "llmbatch-demo-transform" / "report.json").read_text())["layout"]["failure"]
    assert re.match(
        r"a\.jsonl: record 3 \(line 4\): malformed_row: .* a record of 1,048,6\d\d bytes, and one may have 1,048,576; saw",
        failure,
    )


def test_a_filter_that_matches_nothing_is_an_error_of_its_object(run: Run, bucket_of: Bucket, tmp_path: Path) -> None:
    bucket = bucket_of("sagemaker/s3")
    document = changed(TRANSFORM, "DataProcessing.InputFilter", "$.feature")
    assert run(document, bucket).exit_code == 3
    failure = json.loads((tmp_path / "llmbatch-demo-transform" / "report.json").read_text())["layout"]["failure"]
    assert "the input filter $.feature: there is no 'feature' (did you mean 'features'?)" in failure
    assert failure.endswith("; 1 more failed: deep/b.jsonl")


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("DataCaptureConfig", {"DestinationS3Uri": "s3://x"}, "DataCaptureConfig: is not done here: leave it out"),
        (
            "TransformInput.SplitTyp",
            "Line",
            r"TransformInput\.SplitTyp: is not done here \(did you mean 'SplitType'\?\)",
        ),
        ("TransformInput.SplitType", "RecordIO", r"TransformInput\.SplitType: RecordIO is not done here"),
        (
            "TransformInput.ContentType",
            "image/png",
            r"ContentType: 'image/png' is not done here; known are application/json",
        ),
        ("TransformOutput.Accept", "text/csv", "accept must be of the same kind as content"),
        ("TransformOutput.S3OutputPath", ..., r"TransformOutput\.S3OutputPath: is missing"),
        ("TransformResources", ..., "TransformResources: is missing"),
        ("TransformInput", ..., "document.json: TransformInput: is missing"),
        ("TransformOutput", ..., "document.json: TransformOutput: is missing"),
        ("MaxPayloadInMB", 101, r"MaxPayloadInMB: Input should be less than or equal to 100 \(got 101\)"),
        (
            "MaxConcurrentTransforms",
            101,
            r"MaxConcurrentTransforms \* MaxPayloadInMB may be at most 100, and 101 \* 1 is 101",
        ),
        ("MaxPayloadInMB", ..., r"MaxPayloadInMB may be at most 100, and 17 \* 6 is 102: lower one of them"),
        ("DataProcessing.InputFilter", "features", r"the filter 'features' does not begin with \$"),
        ("TransformInput.DataSource.S3DataSource.S3DataType", "AugmentedManifestFile", "is not for transform jobs"),
        ("TransformInput.DataSource.S3DataSource.S3Uri", "s3://corpus-b/inputs", "no object's key starts with that"),
        ("BatchStrategy", "Both", "BatchStrategy: Input should be 'SingleRecord' or 'MultiRecord'"),
    ],
)
def test_a_transform_job_that_asks_for_what_is_not_done_is_refused(
    run: Run, bucket_of: Bucket, place: str, value: Any, said: str
) -> None:
    many = {"MaxConcurrentTransforms": 17} if place == "MaxPayloadInMB" and value is ... else {}
    result = run(changed({**TRANSFORM, **many}, place, value), bucket_of("sagemaker/s3"))
    assert result.exit_code == 2, result.output
    assert re.search(said, result.stderr), result.stderr


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (
            '[{"prefix": "s3://corpus-b/input/"}, "a.jsonl", "gone.jsonl"]',
            "names objects that are not there: s3://corpus-b/input/gone.jsonl",
        ),
        ('["a.jsonl"]', "must be a list that begins with"),
        ('[{"prefix": "s3://corpus-b/input/"}]', "behind the prefix there must be the keys of objects"),
        ("[", "is not JSON"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_named(run: Run, bucket_of: Bucket, manifest: str, said: str) -> None:
    bucket = bucket_of("sagemaker/s3")
    (bucket / "lists" / "input.manifest").write_text(manifest)
    result = run("sagemaker/create-transform-job.manifest.json", bucket)
    assert result.exit_code == 2, result.output
    assert "the manifest s3://corpus-b/lists/input.manifest" in result.stderr.replace("\n", "")
    assert said in result.stderr.replace("\n", "")


def test_an_objects_output_is_called_as_its_key_below_the_prefix_also_where_all_lie_deeper(
    run: Run, bucket_of: Bucket
) -> None:
    bucket = bucket_of("sagemaker/s3")
    (bucket / "lists" / "input.manifest").write_text('[{"prefix": "s3://corpus-b/input/"}, "deep/b.jsonl"]')
    assert run("sagemaker/create-transform-job.manifest.json", bucket).exit_code == 0
    assert list(tree(bucket / "output")) == ["deep/b.jsonl.out"]


def test_a_manifest_that_is_missing_is_said(run: Run, bucket_of: Bucket) -> None:
    bucket = bucket_of("sagemaker/s3")
    (bucket / "lists" / "input.manifest").unlink()
    result = run("sagemaker/create-transform-job.manifest.json", bucket)
    assert result.exit_code == 2
    assert "input.manifest cannot be read" in result.stderr.replace("\n", "")


def read(document: Any, path: Path, assets: Assets) -> FromDocument:
    path.write_text(json.dumps(document))
    found = read_job_document(path, assets)
    assert found is not None
    return found


def test_limits_of_a_transform_job_are_the_run_s(bucket_of: Bucket, tmp_path: Path) -> None:
    assets = Assets({"s3://corpus-b": str(bucket_of("sagemaker/s3"))})
    job = read(TRANSFORM, tmp_path / "job.json", assets).job
    assert job["engine"] == {"in_flight": 4, "timeout": 60}
    assert job["retry"] == {"max_attempts": 2}
    assert job["input"]["max_record_bytes"] == 1 << 20
    assert job["model"] == "demo-model"
    unlimited = {**TRANSFORM, "MaxPayloadInMB": 0, "MaxConcurrentTransforms": 0, "ModelClientConfig": {}}
    job = read(unlimited, tmp_path / "job.json", assets).job
    assert "max_record_bytes" not in job["input"]
    assert (job["engine"], job.get("retry")) == ({}, None)


@pytest.mark.parametrize("limits", [(4, 25), (100, 1), (1000, 0), (0, 100)])
def test_as_much_at_a_time_as_sagemaker_takes_is_taken(
    bucket_of: Bucket, tmp_path: Path, limits: tuple[int, int]
) -> None:
    assets = Assets({"s3://corpus-b": str(bucket_of("sagemaker/s3"))})
    document = {**TRANSFORM, "MaxConcurrentTransforms": limits[0], "MaxPayloadInMB": limits[1]}
    assert read(document, tmp_path / "job.json", assets).job["engine"].get("in_flight", 0) == limits[0]


_FROM_MANIFEST = {"S3DataType": "ManifestFile", "S3Uri": "s3://corpus-b/lists/input.manifest"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {},
            "every object whose key starts with s3://corpus-b/input/, a record a line of json, filtered by $.features; answers "
            "beside their records, filtered by $['id','SageMakerOutput'] as KEY.out",
        ),
        (
            {"TransformInput.DataSource.S3DataSource": _FROM_MANIFEST, "TransformInput.SplitType": "None", "DataProcessing": {}},
            "the objects of the manifest s3://corpus-b/lists/input.manifest, a record an object of json; answers as KEY.out",
        ),
    ],
    ids=["a prefix", "a manifest"],
)  # fmt: skip
def test_a_transform_job_says_what_was_read(
    bucket_of: Bucket, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    document = TRANSFORM
    for place, value in changes.items():
        document = changed(document, place, value)
    notes = read(document, tmp_path / "job.json", Assets({"s3://corpus-b": str(bucket_of("sagemaker/s3"))})).notes()
    assert notes.count(f"transform job demo-transform: {said} for each object below s3://corpus-b/output") == 1


def test_a_slice_that_ends_is_explained(bucket_of: Bucket, tmp_path: Path) -> None:
    assets = Assets({"s3://corpus-b": str(bucket_of("sagemaker/s3"))})
    document = changed(TRANSFORM, "DataProcessing.InputFilter", "$.features[0:2]")
    notes = read(document, tmp_path / "job.json", assets).notes()
    assert "DataProcessing: a slice ends before its second number: $[1:3] is the items 1 and 2" in notes


@pytest.mark.parametrize(
    ("address", "patterns", "folder"),
    [
        ("s3://b/in/", ["in/**"], ""),
        ("s3://b/in", ["in*", "in*/**"], ""),
        ("s3://b/in/a", ["in/a*"], "in/"),
        ("s3://b/in/de", ["in/de*/**"], "in/"),
        ("s3://b/in/[x", ["in/[[]x*"], "in/"),
    ],
)
def test_a_prefix_is_of_keys_and_not_of_folders(tmp_path: Path, address: str, patterns: list[str], folder: str) -> None:
    for name in ("in/a.jsonl", "in/deep/b.jsonl", "in2/c.jsonl", "in.jsonl", "in/[x].jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    objects = starting_with(address, Assets({"s3://b": str(tmp_path)}))
    assert [objects.path, *objects.more] == [f"{tmp_path}/{pattern}" for pattern in patterns]
    if folder:
        assert objects.folder == f"{tmp_path}/{folder}"


# Bedrock


def test_an_invocation_job_leaves_its_lines_and_at_last_the_manifest(run: Run, bucket_of: Bucket) -> None:
    bucket = bucket_of("bedrock/s3")
    result = run("bedrock/create-model-invocation-job.json", bucket)
    assert result.exit_code == 3, result.output
    [job] = (bucket / "bedrock-out").iterdir()
    assert re.fullmatch("[a-z0-9]{12}", job.name)
    expected = tree(AWS / "bedrock" / "expected" / "JOBID")
    found = tree(job)
    assert found.keys() == expected.keys()
    for name, lines in expected.items():
        assert is_like(found[name], lines), found[name]
    assert found["part-0.jsonl.out"][2]["recordId"] == "REC00000002"
    assert "roleArn: has no effect here" in result.stderr


def test_a_line_that_is_no_json_gets_an_error_line_or_with_strict_ends_the_job(run: Run, bucket_of: Bucket) -> None:
    bucket = bucket_of("bedrock/s3")
    (bucket / "bedrock-in" / "deep").mkdir()
    (bucket / "bedrock-in" / "deep" / "c.jsonl").write_text("{broken\n")
    (bucket / "bedrock-in" / "notes.txt").write_text("not for the job")
    refused = run("bedrock/create-model-invocation-job.json", bucket, "--set", "input.strict=true")
    assert refused.exit_code == 2
    assert re.search(r"deep/c\.jsonl:1: not JSON.*With input\.strict", refused.stderr.replace("\n", ""))
    assert not (bucket / "bedrock-out").exists()
    result = run("bedrock/create-model-invocation-job.json", bucket)
    assert result.exit_code == 3, result.output
    [job] = (bucket / "bedrock-out").iterdir()
    [line] = tree(job)["deep/c.jsonl.out"]
    assert (line["modelInput"], line["error"]["errorCode"]) == (None, 400)
    counts = tree(job)["manifest.json.out"][0]
    assert (counts["totalRecordCount"], counts["successRecordCount"], counts["errorRecordCount"]) == (5, 3, 2)


def test_bodies_of_another_family_are_errors_of_their_records(run: Run, bucket_of: Bucket) -> None:
    bucket = bucket_of("bedrock/s3")
    assert run({**INVOCATION, "modelId": "meta.llama3-8b-instruct-v1:0"}, bucket).exit_code == 3
    [job] = (bucket / "bedrock-out").iterdir()
    [line] = tree(job)["part-1.jsonl.out"]
    assert line["error"]["errorCode"] == 400
    assert (
        "a body of the family anthropic, and the model 'meta.llama3-8b-instruct-v1:0' takes one of meta"
        in line["error"]["errorMessage"]
    )


def test_the_same_document_or_token_is_the_same_job(tmp_path: Path) -> None:
    def job(document: Any) -> Any:
        return read(document, tmp_path / "job.json", Assets()).job["sinks"]["layout"]["settings"]["job"]

    assert job(INVOCATION) == job(dict(reversed(INVOCATION.items())))
    assert job(INVOCATION) != job({**INVOCATION, "jobName": "other"})
    assert job({**INVOCATION, "clientRequestToken": "t"}) == job(
        {**INVOCATION, "clientRequestToken": "t", "jobName": "other"}
    )


def test_the_time_limit_of_an_invocation_job_is_the_run_s(tmp_path: Path) -> None:
    found = read(INVOCATION, tmp_path / "job.json", Assets())
    assert found.job["run"] == {"max_time": 24 * 3600}
    assert found.job["input"]["options"] == {"model": INVOCATION["modelId"]}
    converse = read({**INVOCATION, "modelInvocationType": "Converse"}, tmp_path / "job.json", Assets())
    assert converse.job["input"]["options"]["invocation"] == "Converse"


def test_any_time_limit_of_an_invocation_job_is_taken(tmp_path: Path) -> None:
    for hours in (1, 169, 10_000):
        found = read({**INVOCATION, "timeoutDurationInHours": hours}, tmp_path / "job.json", Assets())
        assert found.job["run"] == {"max_time": hours * 3600}


@pytest.mark.parametrize("bodies", ["InvokeModel", "Converse"])
def test_an_invocation_job_says_what_was_read(tmp_path: Path, bodies: str) -> None:
    found = read({**INVOCATION, "modelInvocationType": bodies}, tmp_path / "job.json", Assets())
    place = f"s3://corpus-b/bedrock-out/{found.job['sinks']['layout']['settings']['job']}"
    assert found.notes().count(
        "model invocation job demo-batch: the *.jsonl objects at s3://corpus-b/bedrock-in/, a record a line; answers as "
        f"NAME.jsonl.out for each below {place}; {bodies} bodies"
    ) == 1  # fmt: skip


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("guardrailConfig", {}, "guardrailConfig: is not done here: leave it out"),
        ("inputDataConfig.s3InputDataConfig.s3InputFormat", "CSV", "s3InputFormat: Input should be 'JSONL'"),
        ("timeoutDurationInHours", 0, "timeoutDurationInHours: Input should be greater than or equal to 1"),
        ("timeoutDurationInHours", 10**12, "timeoutDurationInHours: Input should be less than or equal to"),
        ("modelId", "", "modelId: String should have at least 1 character"),
        ("roleArn", ..., "roleArn: is missing"),
        ("modelId", ..., "modelId: is missing"),
        ("outputDataConfig", ..., "outputDataConfig: is missing"),
        ("inputDataConfig", ..., "inputDataConfig: is missing"),
        ("outputDataConfig.s3OutputDataConfig", ..., "outputDataConfig.s3OutputDataConfig: is missing"),
    ],
)
def test_an_invocation_job_that_asks_for_what_is_not_done_is_refused(
    tmp_path: Path, place: str, value: Any, said: str
) -> None:
    with pytest.raises(JobError, match=said):
        read(changed(INVOCATION, place, value), tmp_path / "job.json", Assets())


def test_an_input_is_an_object_or_all_below_a_prefix(tmp_path: Path) -> None:
    assets = Assets({"s3://b": str(tmp_path)})
    assert below("s3://b/in/a.jsonl", assets, "*.jsonl")[::2] == (f"{tmp_path}/in/a.jsonl", f"{tmp_path}/in/")
    assert below("s3://b/in", assets, "*.jsonl")[::2] == (f"{tmp_path}/in/**/*.jsonl", f"{tmp_path}/in/")
    assert below("s3://b/in/", assets, "*.jsonl")[::2] == (f"{tmp_path}/in/**/*.jsonl", f"{tmp_path}/in/")


# Buckets that fail


def test_credentials_that_are_not_there_end_the_job_before_it_begins(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    document = json.loads(json.dumps(INVOCATION).replace("corpus-b", "elsewhere-without-credentials"))
    fresh = [f"{section}.storage_options.skip_instance_cache=true" for section in ("input", "sinks")]
    result = run(document, tmp_path, "--set", fresh[0], "--set", fresh[1])
    assert result.exit_code == 2, result.output
    assert "redentials" in result.stderr


def test_a_bucket_that_refuses_in_the_middle_of_the_input_loses_nothing(
    run: Run, bucket: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from llmbatch.sources import reader

    monkeypatch.setattr(reader, "_AGAIN_SECONDS", (0.01,))
    body = {"anthropic_version": "x", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    for name in ("a", "b"):
        lines = (json.dumps({"recordId": f"{name}{i}", "modelInput": body}) + "\n" for i in range(20))
        bucket.put(f"bedrock-in/{name}.jsonl", "".join(lines).encode())
    document = json.loads(json.dumps(INVOCATION).replace("corpus-b", bucket.name))
    bucket.server.fails = lambda request: 500 if request.startswith("GET") and "b.jsonl" in request else None
    first = run(document, tmp_path, "--set", "run.window=8")
    assert first.exit_code == 1, first.output
    assert not [name for name in bucket.names() if name.startswith("bedrock-out")]
    bucket.server.fails = lambda _: None
    second = run(document, tmp_path, "--set", "run.window=8")
    assert second.exit_code == 0, second.output
    [folder] = {name.split("/")[1] for name in bucket.names() if name.startswith("bedrock-out/")}
    counts = json.loads(bucket.get(f"bedrock-out/{folder}/manifest.json.out"))
    assert (counts["totalRecordCount"], counts["successRecordCount"]) == (40, 40)


def test_a_bucket_that_refuses_in_the_middle_of_the_output_gets_the_rest_from_the_same_command(
    run: Run, bucket: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from llmbatch.sinks import upload

    monkeypatch.setattr(upload, "_AGAIN_SECONDS", (0.01,))
    for path in (AWS / "sagemaker" / "s3").rglob("*.jsonl"):
        bucket.put(str(path.relative_to(AWS / "sagemaker" / "s3")), path.read_bytes())
    document = json.loads(json.dumps(TRANSFORM).replace("corpus-b", bucket.name))
    bucket.server.fails = lambda request: 403 if request.startswith("PUT") and "b.jsonl.out" in request else None
    first = run(document, tmp_path)
    assert first.exit_code == 1, first.output
    assert "b.jsonl.out: could not be copied there" in first.stderr.replace("\n", "")
    bucket.server.fails = lambda _: None
    second = run(document, tmp_path)
    assert second.exit_code == 0, second.output
    assert sorted(name for name in bucket.names() if name.startswith("output/")) == [
        "output/a.jsonl.out",
        "output/deep/b.jsonl.out",
    ]
    assert (
        bucket.get("output/deep/b.jsonl.out")
        == b'{"id":"b0","SageMakerOutput":{"generated_text":"four paper lanterns"}}\n'
    )
