"""Azure ML: its own loader on the documents that we take and refuse, and the example deployment run from the command line."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
sys.path += [str(HERE)]

from shown import EXAMPLES, Shown, from_peer, tried  # noqa: E402
from stores import Missing, Store  # noqa: E402

from llmbatch import __version__  # noqa: E402
from llmbatch.core.errors import JobError  # noqa: E402
from llmbatch.systems.azure_ml.reading import read_scoring  # noqa: E402

EXAMPLE = EXAMPLES / "azure" / "ml"
_DRIVER = "llmbatch azureml run"  # Azure's own is not published: what it does is known from its documentation


_CHANGES: tuple[tuple[str, Any], ...] = (
    ("settings.output_action", "summary_only"),
    ("settings.mini_batch_size", 7),
    ("settings.error_threshold", -1),
    ("settings.logging_level", "debug"),
    ("settings.environment_variables", {"A": "b"}),
    ("settings.instance_count", 2),
    ("settings.retry_settings", {"max_retries": 1}),
    ("settings.max_concurrency_per_instance", 2),
    ("model", "azureml:m:1"),
    ("environment", "azureml:e@latest"),
    ("tags", {"a": "b"}),
    ("description", "d"),
    ("properties", {"a": "b"}),
    ("settings.mini_batch_sise", 1),
    ("setings", {}),
    ("settings.output_action", "append_rows"),
    ("settings.mini_batch_size", "many"),
    ("settings.retry_settings", {"retries": 1}),
    ("settings.retry_settings", {"timeout": "soon"}),
    ("settings.error_threshold", "none"),
    ("code_configuration", {"code": "src"}),
    ("code_configuration", {"code": "src", "scoring_script": "score.py", "entry": "x"}),
    ("type", "modle"),
    ("compute", None),
    ("name", None),
    ("endpoint_name", None),
    ("mini_batch_size", 2),
)
_CHANGES_OLD: tuple[tuple[str, Any], ...] = (
    ("mini_batch_sise", 1),
    ("settings", {"mini_batch_size": 1}),
    ("output_action", "append_rows"),
)


_STEP: dict[str, Any] = {
    "type": "parallel", "compute": "azureml:c", "input_data": "${{inputs.files}}", "mini_batch_size": "2", "logging_level": "INFO",
    "inputs": {"files": {"type": "uri_folder", "path": "./input"}, "words": 7}, "outputs": {"rows": {"type": "uri_file"}},
    "retry_settings": {"max_retries": 1, "timeout": 5}, "resources": {"instance_count": 1}, "mini_batch_error_threshold": 1,
    "task": {
        "type": "run_function", "code": "./src", "entry_script": "score.py", "environment": "azureml:e@latest",
        "program_arguments": "--words ${{inputs.words}} --error_threshold 3", "append_row_to": "${{outputs.rows}}",
    },
}  # fmt: skip
_CHANGES_OF_STEP: tuple[tuple[str, Any], ...] = (
    ("environment_variables", {"A": "b"}),
    ("task.type", "function"),
    ("error_threshold", 3),
    ("max_concurrency_per_instance", 2),
    ("logging_level", "info"),
    ("logging_level", "loud"),
    ("mini_batch_size", 2),
    ("mini_batch_sise", "2"),
    ("task.type", "script"),
    ("task.entry_scrip", "x.py"),
    ("retry_settings", {"retries": 1}),
)


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    """(what is special about it, a document) that is like one of the examples but for one key; ``None`` takes it away."""
    new, old = (yaml.safe_load((EXAMPLE / name).read_text()) for name in ("deployment.yml", "legacy.yml"))
    yield "the example of type model", new
    yield "the example of the older form", old
    for place, value in _CHANGES:
        yield f"{place} {json.dumps(value)}", _with(new, place, value)
    for place, value in _CHANGES_OLD:
        yield f"the older form, {place} {json.dumps(value)}", _with(old, place, value)
    yield "a parallel job in a pipeline", {"type": "pipeline", "jobs": {"one": _STEP}}
    for place, value in _CHANGES_OF_STEP:
        what = f"a parallel job, {place} {json.dumps(value)}"
        yield what, {"type": "pipeline", "jobs": {"one": _with(_STEP, place, value)}}


def _with(document: Mapping[str, Any], place: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(dict(document))
    *sections, key = place.split(".")
    section = changed
    for name in sections:
        section = section[name]
    if value is None:
        section.pop(key, None)
    else:
        section[key] = value
    return changed


def _loaded(work: Path) -> Iterator[Shown]:
    """What Azure's own loader says of the documents, beside what we say."""
    shutil.copytree(EXAMPLE, work, dirs_exist_ok=True)
    listed = []
    for number, (what, document) in enumerate(documents()):
        path = work / f"{number:02d}.yml"
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        try:
            read_scoring(path, {"demo": "demo", "m": "demo"})
            refused = None
        except JobError as error:
            refused = str(error)
        listed.append({"file": str(path), "what": what, "ours": refused})
    (work / "documents.json").write_text(json.dumps(listed))
    claim = "Azure ML's own loader takes the documents that we take; what it refuses, we refuse"
    yield from from_peer(
        "azureml", HERE / "azureml_peer.py", [str(work / "documents.json")], system="Azure ML", claim=claim
    )


class Deployment:
    """A copy of the example that can be run."""

    def __init__(self, work: Path, **settings: Any) -> None:
        shutil.copytree(EXAMPLE, work)
        self.work = work
        document = yaml.safe_load((work / "deployment.yml").read_text())
        document["settings"].update(settings)
        (work / "deployment.yml").write_text(yaml.safe_dump(document, sort_keys=False))

    def command(self, source: str | None = None) -> list[str]:
        return [
            sys.executable, "-m", "llmbatch.cli", "azureml", "run", str(self.work / "deployment.yml"), "--input",
            source or str(self.work / "input"), "--output", str(self.work / "out"), "--json",
        ]  # fmt: skip

    def run(self, source: str | None = None) -> tuple[int, dict[str, Any]]:
        done = subprocess.run(self.command(source), capture_output=True, text=True, timeout=600, check=False)
        if not done.stdout:
            raise AssertionError(f"exit {done.returncode}: {done.stderr[-400:]}")
        return done.returncode, json.loads(done.stdout)

    def rows(self) -> str:
        return (self.work / "out" / "predictions.csv").read_text()


def _expect(true: bool, what: str) -> None:
    if not true:
        raise AssertionError(what)


def example(work: Path) -> str:
    """The example with threshold 1 ends well, with 3 rows and 1 failed item, and its file is as expected; with 0 it fails."""
    import pandas

    deployment = Deployment(work / "one")
    code, told = deployment.run()
    _expect((code, told["rows"], told["failed_items"]) == (3, 3, 1), f"exit {code}, {told}")
    _expect(deployment.rows() == (EXAMPLE / "expected.dataframe" / "predictions.csv").read_text(), "the file differs")
    read = pandas.read_csv(deployment.work / "out" / "predictions.csv", header=None, sep=" ")
    _expect(read[1].tolist()[0] == "one loaf of rye", "pandas reads it otherwise")
    code, told = Deployment(work / "none", error_threshold=0).run()
    _expect((code, told["outcome"]) == (1, "aborted"), f"exit {code}, {told}")
    return f"read back by pandas {pandas.__version__}; threshold 0: {told['aborted']}"


def a_list(work: Path) -> str:
    """A script that returns a list leaves a line an element."""
    deployment = Deployment(work / "list")
    shutil.copy(EXAMPLE / "src_list" / "score.py", deployment.work / "src" / "score.py")
    code, _ = deployment.run()
    _expect(
        code == 0 and deployment.rows() == (EXAMPLE / "expected.list" / "predictions.csv").read_text(), f"exit {code}"
    )
    return "expected.list"


def slow_and_raising(work: Path) -> str:
    """A mini-batch that sleeps past its time-out is stopped and tried again max_retries times, the others' rows are all there."""
    deployment = Deployment(
        work / "slow", mini_batch_size=1, error_threshold=-1, retry_settings={"max_retries": 2, "timeout": 1}
    )
    script = (
        "import os, time\ndef init(): pass\ndef run(mini_batch):\n    name = os.path.basename(mini_batch[0])\n"
        "    if name == '1.txt': time.sleep(60)\n    if name == '2.txt': raise ValueError(name)\n    return [name]\n"
    )
    (deployment.work / "src" / "score.py").write_text(script)
    code, told = deployment.run()
    errors = (deployment.work / "out" / "logs" / "user" / "error.txt").read_text()
    _expect(deployment.rows() == "0.txt\nbad.txt\n", "other rows")
    _expect((errors.count("took longer than"), errors.count("ValueError: 2.txt")) == (3, 3), errors)
    _expect((code, told["failed_items"]) == (3, 2), f"exit {code}, {told}")
    return "3 attempts of each, 2 failed items"


def killed(work: Path) -> str:
    """Killed by SIGKILL in the middle, the same command repeats no finished mini-batch and leaves the same bytes."""
    deployment = Deployment(work / "killed", mini_batch_size=1, max_concurrency_per_instance=2, error_threshold=-1)
    for number in range(60):
        (deployment.work / "input" / f"n{number:02d}.txt").write_text(f"text {number}")
    script = (
        "import os, time\ndef init(): pass\ndef run(mini_batch):\n    name = os.path.basename(mini_batch[0])\n"
        f"    open({str(work / 'calls')!r}, 'a').write(name + '\\n')\n    time.sleep(0.05)\n    return [name]\n"
    )
    (deployment.work / "src" / "score.py").write_text(script)
    kills = 0
    journal = deployment.work / "out" / ".azureml" / "journal.jsonl"
    for least in (10, 25, 40):
        process = subprocess.Popen(deployment.command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 120
        while time.monotonic() < end and (not journal.exists() or journal.read_bytes().count(b"\n") < least):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    code, told = deployment.run()
    names = sorted(path.name for path in (deployment.work / "input").iterdir())
    _expect(code == 0 and deployment.rows() == "".join(f"{name}\n" for name in names), f"exit {code}, {told}")
    again = len((work / "calls").read_text().splitlines()) - len(names)
    _expect(again <= 2 * kills, f"{again} mini-batches ran twice")
    return f"{kills} kills, {again} mini-batches that were being run ran again (2 processes)"


def in_azurite(work: Path) -> str:
    """The input is a prefix of a container, which refuses an object in the middle: that is said, and the same command goes on."""
    with Store("az", work) as store:
        bucket = store.bucket("llmbatch-in")
        bucket.put_tree(EXAMPLE / "input", "in/")
        deployment = Deployment(work / "azurite", mini_batch_size=1)
        store.between.fails = lambda request: 403 if "/in/2.txt" in request and request.startswith("GET") else None
        refused = subprocess.run(
            deployment.command(f"{bucket.url}/in/"), capture_output=True, text=True, timeout=600, check=False
        )
        _expect(refused.returncode == 1 and "in/2.txt: could not be read" in refused.stderr, refused.stderr[-300:])
        store.between.fails = lambda _: None
        store.between.requests.clear()
        code, _ = deployment.run(f"{bucket.url}/in/")
        _expect(
            not [each for each in store.between.requests if "/in/0.txt" in each],
            "a finished mini-batch was fetched again",
        )
        _expect(
            code == 3 and deployment.rows() == (EXAMPLE / "expected.dataframe" / "predictions.csv").read_text(),
            f"exit {code}",
        )
        return " ".join(refused.stderr.split("Error: ")[-1].split())[:120]


def on_vllm(work: Path) -> str:
    """A deployment without a script answers its files by a real vLLM, and its output file is read back by pandas."""
    import pandas

    command = [
        sys.executable, "-m", "llmbatch.cli", "run", str(EXAMPLE / "legacy.yml"), "--asset", "demo=demo", "--prompt", "{{ text }}",
        "--max-tokens", "8", "--temperature", "0", "--input", str(EXAMPLE / "input"), "--output", str(work / "vllm"), "--quiet",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    _expect(done.returncode == 0, f"exit {done.returncode}: {done.stderr[-300:]}")
    table = pandas.read_csv(work / "vllm" / "output" / "predictions.csv", header=None, sep=" ")
    _expect(table[0].tolist() == ["0.txt", "1.txt", "2.txt", "bad.txt"], f"rows of {table[0].tolist()}")
    return f"4 rows, read by pandas {pandas.__version__}"


CLAIMS: tuple[Callable[[Path], str], ...] = (example, a_list, slow_and_raising, killed)


def results() -> Iterator[Shown]:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        yield from _loaded(work / "documents")
        for claim in CLAIMS:
            yield _row(claim, _DRIVER, __version__, work)
        yield _row(on_vllm, "vllm", _vllm(), work)
        yield _row(in_azurite, "azurite, adlfs", _azurite(), work)


def _vllm() -> str:
    from importlib.metadata import packages_distributions, version

    return " ".join(f"{name} {version(name)}" for name in sorted(set(packages_distributions().get("vllm", ()))))


def _azurite() -> str:
    from stores import KINDS

    try:
        return KINDS["az"].version()
    except (Missing, OSError, subprocess.CalledProcessError):
        return ""


def _row(claim: Callable[[Path], str], with_what: str, version: str, work: Path) -> Shown:
    return tried("Azure ML", (claim.__doc__ or "").strip(), with_what, version, lambda: claim(work))


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    for row in results():
        print(row.as_line(), flush=True)
