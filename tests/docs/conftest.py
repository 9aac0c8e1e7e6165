"""A page's own shell: a folder with the files that the page speaks of, and commands that are run by a process which is there."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

blocks = importlib.import_module("tests.docs.blocks")
GIVEN = Path(__file__).parent / "given"
"""Files that pages speak of without showing them: those in ``common`` for all, those in ``PAGE`` for one."""
ROOT = Path(__file__).parents[2]

# A command that hands itself over, with its streams: to start Python with llmbatch takes twenty times as long.
SHIM = """#!{python} -ISE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as there:
    there.connect({socket!r})
    asked = {{"name": os.path.basename(sys.argv[0]), "argv": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ)}}
    socket.send_fds(there, [json.dumps(asked).encode()], [0, 1, 2])
    code = int(there.recv(16) or b"137")
with open({log!r}, "a") as log:
    log.write(json.dumps([asked["name"], asked["argv"], code]) + "\\n")
sys.exit(code)
"""
# What installs or builds is looked at and not done: that its names are right.
LOOK = """#!{python} -ISE
import os, re, sys, tomllib
name, arguments = sys.argv[0].rsplit("/", 1)[-1], sys.argv[1:]
with open({root!r} + "/pyproject.toml", "rb") as file:
    extras = tomllib.load(file)["project"]["optional-dependencies"]
asked = [each for group in re.findall(r"\\[([\\w,-]+)\\]", " ".join(arguments)) for each in group.split(",")]
wrong = [each for each in asked if each not in extras] if name != "make" else []
if name == "make":
    files = [{root!r} + "/Makefile", {root!r} + "/eval/peers/peers.mk"]  # a source distribution has no eval/
    makefile = "".join(open(file).read() for file in files if os.path.exists(file))
    targets = [each for each in arguments if "=" not in each and not each.startswith("-")]
    known = re.findall(r"^([\\w-]+):|^\\.PHONY:(.+)", makefile, re.M)
    wrong = sorted(set(targets) - {{name for pair in known for part in pair for name in part.split()}})
sys.exit(f"{{name}}: there is no {{', '.join(wrong)}}" if wrong else 0)
"""


class Shell:
    """Runs blocks in a folder of the page's own."""

    def __init__(self, folder: Path, bin_: Path, port: int) -> None:
        self.folder = folder
        self._port = port
        self._environment = {
            "PATH": f"{bin_}:/usr/local/bin:/usr/bin:/bin", "HOME": str(folder), "PORT": str(port), "LANG": "C.UTF-8",
            "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TERM": "dumb", "OPENAI_API_KEY": "none", "MODEL": "demo",
        }  # fmt: skip

    def __call__(self, script: str) -> subprocess.CompletedProcess[str]:
        """Its process; of a script for a scheduler's array that of the last task, or of the first that fails."""
        command = ["bash", "-euo", "pipefail", "-c", self.here(script)]
        for task in ("1", "2") if "SLURM_ARRAY_TASK_ID" in script else ("1",):
            environment = {**self._environment, "SLURM_ARRAY_TASK_ID": task, "SLURM_ARRAY_TASK_COUNT": "2"}
            done = subprocess.run(
                command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False, timeout=120
            )
            if done.returncode:
                break
        return done

    def here(self, text: str) -> str:
        """With the page's own port, as another may be taken."""
        return text.replace("127.0.0.1:8000", f"127.0.0.1:{self._port}").replace(
            "localhost:8000", f"127.0.0.1:{self._port}"
        )

    def close(self) -> None:
        pid = self.folder / "serve.pid"
        if pid.exists():
            os.kill(int(pid.read_text()), signal.SIGTERM)


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of commands for a shell, and the process behind them."""
    folder = tmp_path_factory.mktemp("docs")
    place, log = str(folder / "socket"), str(folder / "log")
    (folder / "bin").mkdir()
    for name in ("llmbatch", "python", "yaml", "json"):
        _command(folder / "bin" / name, SHIM.format(python=sys.executable, socket=place, log=log))
    for name in blocks.LOOKED_AT:
        _command(folder / "bin" / name, LOOK.format(python=sys.executable, root=str(ROOT)))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("rehearsal.py")), place],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    yield folder / "bin"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as there:
        there.connect(place)
        there.send(b"end")
    server.communicate(timeout=30)


def _command(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


@pytest.fixture
def shell(commands: Path, tmp_path: Path) -> Iterator[Shell]:
    with (
        socket.socket() as held
    ):  # until the end, so that nobody else is given its port; the server may still listen on it
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        made = Shell(tmp_path, commands, held.getsockname()[1])
        yield made
        made.close()


AWS = [
    ("aws/sagemaker/create-transform-job.json", "."), ("aws/bedrock/create-model-invocation-job.json", "."),
    ("aws/sagemaker/s3", "corpus-b"), ("aws/bedrock/s3", "corpus-b"),
    ("aws/sagemaker/s3", "buckets/corpus-b"), ("aws/bedrock/s3", "buckets/corpus-b"),
    ("aws/bedrock/s3/bedrock-in/part-0.jsonl", "in.jsonl"), ("aws/sagemaker/s3/input", "in"),
]  # fmt: skip
GOOGLE = [
    ("vertex/custom/job.json", "."), ("vertex/custom/gcs", "corpus"), ("vertex/custom/gcs", "buckets/corpus"),
    ("vertex/gemini-api/requests.jsonl", "."),
]  # fmt: skip
FILES = [
    ("azure/openai/chat.jsonl", "requests.jsonl"), ("azure/openai/chat.azure.jsonl", "."), ("seldon/v2.jsonl", "lines.jsonl"),
    ("seldon/v1.raw.txt", "lines.txt"), ("seldon", "."), ("nvidia/dataset.jsonl", "."),
]  # fmt: skip
AZURE = [("azure/ml", "."), *FILES]
EXAMPLES = {
    "aws": AWS, "from/aws": AWS, "vertex": GOOGLE, "from/google": GOOGLE, "azureml": AZURE, "from/azure": AZURE,
    "openai-files": FILES, "from/openai": FILES,
    "from/vllm-run-batch": FILES, "from/seldon": FILES, "from/nvidia": FILES, "server": FILES,
}  # fmt: skip
"""Of the pages on other systems: files of ``tests/examples``, and where they lie."""


def given(page: str, folder: Path) -> None:
    """Put the files there that a page speaks of."""
    name = page.removeprefix("docs/").removesuffix(".md")
    for source, target in EXAMPLES.get(name, ()):
        path = ROOT / "tests" / "examples" / source
        if path.is_dir():
            shutil.copytree(path, folder / target, dirs_exist_ok=True)
        else:
            shutil.copy(path, folder / target)
    for source in (GIVEN / "common", GIVEN / name):
        if source.is_dir():
            shutil.copytree(source, folder, dirs_exist_ok=True)
    (folder / "examples").symlink_to(ROOT / "examples")
