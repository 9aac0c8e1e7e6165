"""The example deployment, or one of the test's own, and the command on it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from llmbatch.azureml.run import Scored, run_scoring
from llmbatch.cli.main import main
from llmbatch.systems.azure_ml.reading import read_scoring

EXAMPLE = Path(__file__).parents[1] / "examples" / "azure" / "ml"


@dataclass(slots=True)
class Deployments:
    """A folder with a deployment, its script and its input, as the example has them."""

    path: Path
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def output(self) -> Path:
        return self.path / "out"

    def script(self, text: str) -> None:
        (self.path / "src" / "score.py").write_text(text)

    def settings(self, **changes: Any) -> None:
        path = self.path / "deployment.yml"
        document = yaml.safe_load(path.read_text())
        document["settings"].update(changes)
        path.write_text(yaml.safe_dump(document, sort_keys=False))

    def files(self, files: Mapping[str, str]) -> None:
        """In place of the example's input."""
        shutil.rmtree(self.path / "input")
        for name, text in files.items():
            (self.path / "input" / name).parent.mkdir(parents=True, exist_ok=True)
            (self.path / "input" / name).write_text(text)

    def command(self, *more: str) -> list[str]:
        folder = self.path
        return [
            "azureml",
            "run",
            f"{folder / 'deployment.yml'}",
            "--input",
            f"{folder / 'input'}",
            "--output",
            f"{self.output}",
            *more,
        ]

    def __call__(self, *more: str) -> Result:
        return CliRunner().invoke(main, self.command(*more), catch_exceptions=False)

    def start(self, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "llmbatch.cli", *self.command()], env={**os.environ, **(environment or {})},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def run(self) -> Scored:
        """In this process."""
        scoring = read_scoring(self.path / "deployment.yml", {})
        return run_scoring(scoring, str(self.path / "input"), self.output, python=sys.executable)

    def predictions(self) -> str:
        return (self.output / "predictions.csv").read_text()

    def log(self, name: str) -> str:
        return (self.output / "logs" / name).read_text()

    def calls(self) -> list[list[str]]:
        """What scripts that keep a list of their calls wrote into it (see ``KEEPS_CALLS``)."""
        path = self.path / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


KEEPS_CALLS = """
import json, os
from pathlib import Path

def init():
    pass

def note(mini_batch):
    with open(Path(__file__).parents[1] / "calls.jsonl", "a") as file:
        file.write(json.dumps([Path(each).name for each in mini_batch]) + "\\n")
"""


@pytest.fixture
def deployment(tmp_path: Path, forked: None) -> Iterator[Deployments]:
    shutil.copytree(EXAMPLE, tmp_path, dirs_exist_ok=True)
    made = Deployments(tmp_path)
    yield made
    for process in made.processes:
        process.kill()
        process.communicate()


@pytest.fixture
def listing(deployment: Deployments) -> Callable[..., None]:
    """Have a script whose ``run`` returns the names of its files, with code of the test's own before that."""

    def listing(body: str = "", settings: Mapping[str, Any] | None = None) -> None:
        lines = "".join(f"    {line}\n" for line in body.splitlines())
        deployment.script(
            f"{KEEPS_CALLS}\ndef run(mini_batch):\n    note(mini_batch)\n    names = [Path(each).name for each in mini_batch]\n"
            f"{lines}    return names\n"
        )
        if settings:
            deployment.settings(**settings)

    return listing
