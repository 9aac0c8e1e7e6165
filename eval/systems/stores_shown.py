"""Inputs from, and outputs to, object stores of three vendors, each by its emulator: what arrives, what a refusal leads to."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
sys.path += [str(HERE)]

from shown import Missing, Shown, tried  # noqa: E402
from stores import KINDS, Bucket, Store  # noqa: E402

OBJECTS, ROWS = 300, 20
LONG = 130 << 20  # bytes; every client sends that in parts


class Run(NamedTuple):
    """A run of the command line."""

    code: int
    said: str
    folder: Path

    def results(self) -> bytes:
        return (self.folder / "results.jsonl").read_bytes()


class Case:
    """One claim's bucket and folder."""

    def __init__(self, store: Store, name: str, work: Path) -> None:
        self.store = store
        self.bucket: Bucket = store.bucket(f"llmbatch-{name}")
        self.work = work / name
        self.work.mkdir()
        store.between.fails = lambda _: None
        store.between.requests.clear()

    def corpus(self, objects: int = OBJECTS, rows: int = ROWS) -> str:
        """So many objects of so many rows; the pattern that names them."""
        for number in range(objects):
            lines = [json.dumps({"id": f"{number}-{row}", "text": f"row {row} of {number}"}) for row in range(rows)]
            self.bucket.put(f"in/deep/part-{number:04d}.jsonl", "".join(line + "\n" for line in lines).encode())
        return f"{self.bucket.url}/in/*/part-*.jsonl"

    def run(self, source: str, *more: str, out: str = "out", without: tuple[str, ...] = ()) -> Run:
        command = [
            sys.executable, "-m", "llmbatch.cli", "run", "--engine", "scripted", "--model", "any", "--prompt", "{{ text }}",
            "--temperature", "0", "--quiet", "--input", source, "--output", str(self.work / out), *more,
        ]  # fmt: skip
        environment = {name: value for name, value in os.environ.items() if name not in without}
        environment["AWS_MAX_ATTEMPTS"] = "2"  # else botocore is patient itself
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
        return Run(done.returncode, done.stdout + done.stderr, self.work / out)

    def wants(self, true: bool, what: str, run: Run | None = None) -> None:
        if not true:
            raise AssertionError(
                what if run is None else f"{what}; exit {run.code}: {' '.join(run.said.split())[-400:]}"
            )


def many_objects(case: Case) -> str:
    """Many objects named by a glob are one input, in the order of their names; documents below a prefix are another."""
    run = case.run(case.corpus())
    case.wants(run.code == 0, "the run did not finish", run)
    ids = [json.loads(line)["id"] for line in run.results().splitlines()]
    case.wants(ids == [f"{n}-{row}" for n in range(OBJECTS) for row in range(ROWS)], "rows are missing or out of order")
    for number in range(50):
        case.bucket.put(f"docs/{number:02d}.txt", b"text %d" % number)
    run = case.run(f"{case.bucket.url}/docs/", out="docs")
    case.wants(run.code == 0 and run.results().count(b"\n") == 50, "documents are missing", run)
    return f"{OBJECTS:,} objects of {ROWS} rows by a glob, 50 documents below a prefix"


def a_tree(case: Case) -> str:
    """A finished run's files are copied below a URL, as they are, and the report last."""
    run = case.run(case.corpus(40, 2), "--to", f"{case.bucket.url}/out/", "--set", "sinks.formats=[by_file, parquet]")
    case.wants(run.code == 0, "the run did not finish", run)
    there = case.bucket.tree("out/")
    here = {name: (run.folder / name).read_bytes() for name in there}
    case.wants(there == here and len(there) >= 43, f"{len(there)} files arrived, or differ")
    return f"{len(there)} files, byte for byte"


def in_parts(case: Case) -> str:
    """A long file is sent in parts, and read in ranges, in little memory."""
    from llmbatch.sources import remote

    path = case.work / "long.bin"
    with path.open("wb") as file:
        for number in range(LONG >> 20):
            file.write(hashlib.sha256(b"%d" % number).digest() * (1 << 15))
    remote.put(path, f"{case.bucket.url}/long.bin", {})
    puts = [request for request in case.store.between.requests if request.split()[0] in ("PUT", "POST")]
    case.wants(case.bucket.get("long.bin") == path.read_bytes(), "what arrived is not what was sent")
    place = remote.find_there(f"{case.bucket.url}/long.bin", {}).place
    with place.raw(0) as there, path.open("rb") as here:
        while chunk := here.read(1 << 20):
            got = b""
            while len(got) < len(chunk):
                got += there.read(len(chunk) - len(got))
            case.wants(got == chunk, "what is read is not what was sent")
    case.wants(len(puts) > 1, "it was sent in one piece")
    return f"{LONG >> 20} MiB in {len(puts)} requests"


def a_while(case: Case) -> str:
    """An endpoint that answers 503 for a while, in reading and in writing, costs no row."""
    left = {"GET": 3, "PUT": 3, "POST": 3}

    def fails(request: str) -> int | None:
        method = request.split()[0]
        name = "part-" in request if method == "GET" else "results" in request or "upload" in request
        if name and left.get(method, 0) > 0:
            left[method] -= 1
            return 503
        return None

    pattern = case.corpus(5, 4)
    case.store.between.fails = fails
    run = case.run(pattern, "--to", f"{case.bucket.url}/out")
    case.wants(run.code == 0 and run.results().count(b"\n") == 20, "the run did not finish", run)
    case.wants(case.bucket.get("out/results.jsonl") == run.results(), "the results did not arrive", run)
    return f"{9 - sum(left.values())} refusals were not noticed"


def refused_in_reading(case: Case) -> str:
    """Access that is taken away in the middle of the input ends the run with the place; given back, the same command goes on."""
    pattern = case.corpus(60, 4)
    whole = case.run(pattern, out="whole")
    case.store.between.fails = lambda request: 403 if "part-0050" in request and request.startswith("GET") else None
    run = case.run(pattern, "--set", "run.window=40")
    case.wants(run.code == 1 and "part-0050.jsonl" in run.said, "it was not said which object", run)
    case.store.between.fails = lambda _: None
    run_again = case.run(pattern, "--set", "run.window=40")
    case.wants(run_again.code == 0 and run_again.results() == whole.results(), "the results differ", run_again)
    return " ".join(run.said.split())[:160]


def refused_in_writing(case: Case) -> str:
    """Access that is taken away in the middle of an upload is said; given back, only what is missing is copied."""
    pattern = case.corpus(4, 2)
    case.store.between.fails = lambda request: 403 if _writes(request) and "part-0002" in request else None
    more = ("--to", f"{case.bucket.url}/out", "--set", "sinks.formats=[by_file]")
    run = case.run(pattern, *more)
    case.wants(run.code == 1 and "part-0002" in run.said, "it was not said which object", run)
    case.wants("out/report.json" not in case.bucket.names("out/"), "the report arrived before the rest")
    before = set(case.bucket.names("out/"))
    case.store.between.fails = lambda _: None
    case.store.between.requests.clear()
    again = case.run(pattern, *more)
    case.wants(again.code == 0 and "out/report.json" in case.bucket.names(), "the rest did not arrive", again)
    twice = [name for name in before for request in case.store.between.requests if _writes(request) and name in request]
    case.wants(not twice, f"{len(twice)} files were copied twice")
    return " ".join(run.said.split())[:160]


def _writes(request: str) -> bool:
    return request.startswith(("PUT /", "POST /upload/"))


def another_object(case: Case) -> str:
    """An object that becomes another while it is read ends the run before a row of the other one."""
    pattern = case.corpus(3, 2)
    line = b'{"id": "%d", "text": "' + b"x" * 1000 + b'"}\n'
    case.bucket.put("in/deep/part-0001.jsonl", b"".join(line % n for n in range(6000)))
    changed = False

    def fails(request: str) -> None:
        nonlocal changed
        if request.startswith("GET") and "part-0001" in request and not changed and not request.endswith("0-"):
            changed = True
            case.bucket.put("in/deep/part-0001.jsonl", b"".join(line.replace(b"x", b"y") % n for n in range(6000)))

    case.store.between.fails = fails
    run = case.run(pattern)
    case.wants(changed, "the object was not read")
    case.wants(run.code == 1 and "changed" in run.said, "it was not noticed", run)
    case.wants(not (run.folder / "results.jsonl").exists(), "there are results")
    return " ".join(run.said.split())[:160]


def a_bucket_that_is_not_there(case: Case) -> str:
    """A bucket that is not there, for the input or for the output, is said before anything is begun."""
    nowhere = f"{case.bucket.url}-nowhere"
    run = case.run(f"{nowhere}/in/*.jsonl")
    case.wants(run.code == 2 and "there is no bucket" in run.said, "for the input", run)
    other = case.run(case.corpus(1, 1), "--to", f"{nowhere}/out")
    case.wants(other.code == 2 and nowhere in other.said, "for the output", other)
    return " ".join(run.said.split())[:160]


def no_credentials(case: Case) -> str:
    """Credentials that are not there are said before anything is begun."""
    secret = {
        "s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "az": ("AZURE_STORAGE_CONNECTION_STRING",), "gs": (),
    }  # fmt: skip
    pattern, without = case.corpus(1, 1), secret[case.store.scheme]
    if not without:  # the emulator knows none
        case.store.between.fails = lambda _: 401
    run = case.run(pattern, without=without)
    case.wants(run.code == 2 and not list((run.folder / "parts").glob("*")), "it was begun", run)
    said = " ".join(run.said.split())[:200]
    return said if without else f"a stand-in for Google's answers 401, as to whom it does not know: {said}"


CLAIMS: tuple[Callable[[Case], str], ...] = (
    many_objects, a_tree, in_parts, a_while, refused_in_reading, refused_in_writing, another_object, a_bucket_that_is_not_there,
    no_credentials,
)  # fmt: skip


def results() -> Iterator[Shown]:
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            try:
                store = Store(kind, Path(folder))
                version = store.version()
                with store:
                    for number, claim in enumerate(CLAIMS):
                        yield _row(store, version, number, claim, Path(folder))
            except Missing as missing:
                yield Shown("Object stores", f"{kind}:// is read and written", kind, "", None, str(missing))


def _row(store: Store, version: str, number: int, claim: Callable[[Case], str], work: Path) -> Shown:
    said = (claim.__doc__ or "").strip().rstrip(".")
    case = Case(store, f"{store.scheme}{number}", work)
    return tried(
        "Object stores",
        f"{store.scheme}://: {said}",
        version.partition(",")[0].split()[0],
        version,
        lambda: claim(case),
    )


if __name__ == "__main__":
    for row in results():
        print(row.as_line(), flush=True)
