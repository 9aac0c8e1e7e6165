"""The server's V2 and Seldon fronts against the unchanged clients: mlserver's, Triton's and Seldon's: rows of ``RESULTS.md``."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1] / "peers"))
from servers import free_port  # type: ignore[import-not-found]
from shown import EXAMPLES, Shown, python_of, tried, version_there
from wires import LINES, NVIDIA, SELDON, _command, _environment, _lines, _or_nothing, _server

_SECONDS = 300
_SAYS_NO = 'engine.args.rules=[{"when": {"contains": "BOOM"}, "fail": "the model says no"}]'
_NO = "the model says no"  # so does a real mlserver's model here
_OF_TRITON = """
import sys
import numpy as np
import tritonclient.http as http

client = http.InferenceServerClient(sys.argv[1])
assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("demo")
assert client.get_model_metadata("demo")["name"] == "demo"
given = http.InferInput("text_input", [2], "BYTES")
given.set_data_from_numpy(np.array([b"one loaf of rye", b"two jars"], dtype=object), binary_data=sys.argv[2] == "binary")
result = client.infer("demo", [given])
texts = [text.decode() if isinstance(text, bytes) else text for text in result.as_numpy("text_output")]
assert texts == ["one loaf of rye", "two jars"], texts
try:
    client.infer("nope", [given])
except http.InferenceServerException as error:
    print(error)
"""


def results() -> Iterator[Shown]:
    with tempfile.TemporaryDirectory(prefix="llmbatch-served-") as name, _served(Path(name)) as host:
        claims: list[tuple[str, str, str, str, Callable[[Path, str], str]]] = [
            (SELDON, "mlserver infer gets the lines that it gets from a real mlserver", "mlserver", "mlserver", _mlserver_infer),
            (SELDON, "seldon-batch-processor -a raw gets the expected lines", "seldon-core", "seldon", _batch_processor),
            (NVIDIA, "tritonclient asks in JSON and in binary, and is told of an unknown model", "tritonclient", "triton",
             _tritonclient),
        ]  # fmt: skip
        for place, (system, claim, what, peer, show) in enumerate(claims):
            folder = Path(name) / str(place)
            folder.mkdir()
            number = _or_nothing(version_there, peer, what)
            yield tried(system, claim, what, number, lambda s=show, f=folder: s(f, host))  # type: ignore[misc]


@contextlib.contextmanager
def _served(work: Path) -> Iterator[str]:
    """Our server with the scripted engine, which refuses a text with BOOM: its host and port."""
    host = f"127.0.0.1:{free_port()}"
    given = ("--model", "demo", "--engine", "scripted", "--port", host.partition(":")[2], "--set", _SAYS_NO)
    with (work / "server.log").open("wb") as log:
        process = subprocess.Popen(_command("serve", *given), cwd=work, env=_environment(), stdout=log, stderr=log)
    try:
        end = time.monotonic() + _SECONDS
        while True:
            try:
                urllib.request.urlopen(f"http://{host}/health", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < end, (work / "server.log").read_text()[-500:]
                time.sleep(0.1)
        yield host
    finally:
        process.terminate()
        process.wait()


def _client(peer: str, work: Path, *arguments: str) -> str:
    """A program of a peer's environment, to its end; what it printed."""
    python = python_of(peer)
    command = [str(python), *arguments] if arguments[0] == "-c" else [str(python.parent / arguments[0]), *arguments[1:]]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=_SECONDS, check=False)
    assert done.returncode == 0, (done.stderr or done.stdout)[-400:]
    return done.stdout


def _mlserver_infer(work: Path, host: str) -> str:
    """The client's own output file, from us and from a real mlserver, whose model says the same."""
    with _server("mlserver", work / "server") as server:
        theirs = _inferred(work, server.url.removeprefix("http://"), "echo")
        version = server.version()
    ours = _inferred(work, host, "demo")
    assert ours == theirs, (ours, theirs)
    answers = sum(isinstance(said, list) for said in ours.values())
    assert answers and any(isinstance(said, tuple) and said[1] for said in ours.values()), ours
    return f"{len(ours)} lines, {answers} of them answers, as from {version}"


def _inferred(work: Path, host: str, model: str) -> dict[int, Any]:
    """What the client wrote, by the line that it was asked by: outputs, or what kind of error, and whether the model said it."""
    given = ("infer", "-u", host, "-m", model, "-i", str(LINES / "v2.jsonl"), "-o", f"out-{model}", "-r", "1")
    _client("mlserver", work, "mlserver", *given)
    return {line["parameters"]["batch_index"]: _outputs(line) for line in _lines(work / f"out-{model}")}


def _outputs(line: Any) -> Any:
    if "outputs" not in line:
        return line["error"]["status"], _NO in json.dumps(line["error"])
    name = line["id"] if line["id"].startswith("row-") else None  # where a line has none, the client draws one
    return [name, *((each["name"], each["datatype"], each["data"]) for each in line["outputs"])]


def _batch_processor(work: Path, host: str) -> str:
    sys.path.append(str(EXAMPLES))
    from alike import difference  # type: ignore[import-not-found]

    given = ("-d", "demo", "-g", "seldon", "-h", host, "-a", "raw", "-u", "batch-1", "-w", "1", "-r", "1")
    _client("seldon", work, "seldon-batch-processor", *given, "-i", str(LINES / "v1.raw.txt"), "-o", "out")
    expected, found = _lines(LINES / "v1.raw.expected.txt"), _lines(work / "out")
    found.sort(key=lambda line: "status" in line)
    why = difference(found, expected)
    assert why is None, why
    return f"{len(found)} lines"


def _tritonclient(work: Path, host: str) -> str:
    return " / ".join(_client("triton", work, "-c", _OF_TRITON, host, form).strip() for form in ("json", "binary"))
