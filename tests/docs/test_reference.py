"""The pages of the reference that are written by hand: they name all that records, run folders and the Python interface have."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

import llmbatch
from llmbatch.cli.main import main
from llmbatch.core.record import record_to_dict
from llmbatch.core.types import Attempt, Failure, FailureKind, Record, RequestKey, Status, Usage
from llmbatch.runs.retry_failed import retry_failed

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "records.md").read_text(encoding="utf-8")
API = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")

NOT_LEFT_HERE = {
    "engine.log",
    "engine-*.log",
    "engine-batches/*",
    "mlflow.json",
    "row-workers.log",
    ".*.tmp",
    "parts/.*.tmp",
}
"""What real engines and servers are needed for, what is there where something went wrong, and what is there for moments alone."""


def section(heading: str) -> str:
    return PAGE.partition(f"\n{heading}\n")[2].partition("\n## ")[0]


def named(text: str) -> list[str]:
    """What the first cells of a text's tables name."""
    cells = re.findall(r"^\| (`[^|]*?) \|", text, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


# records


def test_each_key_of_a_record_is_on_the_page_and_no_other() -> None:
    failure, usage = Failure(FailureKind.SCHEMA, "wrong"), Usage(1, 2, 3)
    record = Record(
        3, "c", Status.INVALID, "output", "stop", 2, usage, usage, failure, "raw", "reasoning", [1.0],
        (Attempt(RequestKey(3), failure, usage, "text", "stop"),), {"text": "a"}, {"steps": []}, "END", [{"type": "function"}],
    )  # fmt: skip
    assert all(getattr(record, each.name) not in (None, (), Usage()) for each in fields(record)), "a new field: fill it"
    line = record_to_dict(record)
    [attempt] = line["history"]
    assert named(section("## A record")) == list(line)
    assert named(section("## An answer that was sent back")) == list(attempt)
    assert attempt["error"].keys() == line["error"].keys()
    assert attempt["usage"].keys() == line["usage"].keys() - {"wasted"}
    for key in (*line["usage"], *line["error"]):
        assert f"`{key}`" in section("## A record")


# run folders


class Folders:
    """Runs of all kinds below one folder, each into a folder of its own."""

    def __init__(self, jobs: Any, kill_at: Any) -> None:
        self.jobs = jobs
        rows = [{"id": f"r{i}", "text": f"text {i}", "group": i % 5} for i in range(60)]
        self.rows = jobs.rows(rows)
        self._with_everything()
        self._ordered(kill_at)
        self._of_rows_and_published()
        self._evaluated()

    def _job(self, name: str, script: Any = None, **sections: Any) -> Any:
        return self.jobs.job(self.rows, script, output=str(self.jobs.path / name), **sections)

    def _with_everything(self) -> None:
        """Tuned, on two engines, accepting, with children and every further output, copied elsewhere, some rows tried again."""
        script = {"rules": [{"when": {"matches": "7$"}, "answer": ""}, {"when": {"step": 0}, "answer": "- a\n- b"}]}
        self.jobs.run(
            self._job(
                "everything", script, program={"name": "fan_out", "prompts": {"child": "{{ item }}"}},
                accept={"when": ["row.group != 3"]}, retry={"max_attempts": 1}, engine={"replicas": 2},
                sinks={"formats": ["parquet", "openai", "by_file", "shards"], "to": str(self.jobs.path / "elsewhere"),
                       "layout": {"name": "openai_batch"}},
            )
        )  # fmt: skip
        retry_failed(self.jobs.path / "everything", {})
        self.jobs.run(self._job("tuned", engine={"args": {"latency": 0.01, "concurrency": 8}}, run={"autotune": True}))

    def _ordered(self, kill_at: Any) -> None:
        """Compressed rows in an order of their own, killed as the second window is opened."""
        import zstandard

        path = self.jobs.path / "rows.jsonl.zst"
        path.write_bytes(zstandard.compress(self.rows.read_bytes()))
        rows, self.rows = self.rows, path
        order = {"window": 8, "order": "corpus"}
        job = self._job("killed", prompt={"path": "{{ group }} {{ text }}"}, run=order)
        kill_at("journal-opened:2", lambda: self.jobs.run(job))
        self.rows = rows

    def _of_rows_and_published(self) -> None:
        out = self.jobs.path / "published"
        run = llmbatch.run(
            model="any", engine={"name": "scripted"}, prompt="{{ text }}", input=[{"text": "a"}], output=out
        )
        llmbatch.publish(run, out / "dataset")

    def _evaluated(self) -> None:
        path = self.jobs.path
        for name in ("one", "two"):
            task = {
                "name": name, "dataset": {"path": str(self.rows)}, "references": "text", "metrics": ["exact_match"],
                "text": "{{ text }}",
            }  # fmt: skip
            (path / f"{name}.yaml").write_text(yaml.safe_dump(task))
        (path / "both.yaml").write_text(
            yaml.safe_dump({"name": "both", "tasks": [str(path / "one.yaml"), str(path / "two.yaml")]})
        )
        command = [
            "eval",
            str(path / "both.yaml"),
            "--model",
            "any",
            "--engine",
            "scripted",
            "--output",
            str(path / "group"),
        ]
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 0, done.output


def files_of(folder: Path) -> Iterator[str]:
    """Files below a run folder, by their names in it; of a retry's, which is a run folder too, by those in that."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            yield re.sub(r"^retries/\d+/(?!done$|rows$)", "", name)


@pytest.fixture
def folders(jobs: Any, kill_at: Any, clock: None) -> Path:
    return Path(Folders(jobs, kill_at).jobs.path)


def test_all_that_runs_leave_in_their_folders_is_on_the_page_and_all_of_that_is_left_by_some_run(folders: Path) -> None:
    runs = [path for path in folders.iterdir() if (path / "run.json").exists()]
    assert {path.name for path in runs} == {"everything", "killed", "published", "tuned"}
    found = {name for run in (*runs, folders / "group" / "one") for name in files_of(run)}
    found |= {path.name for path in (folders / "group").iterdir() if path.is_file()}
    names = named(section("## The run folder"))
    assert sorted(file for file in found if not any(fnmatch(file, name) for name in names)) == []
    left = [name for name in names if name not in NOT_LEFT_HERE and not any(fnmatch(file, name) for file in found)]
    assert left == [], "nothing leaves these"


# Python


def imports_of(module: Path) -> dict[str, str]:
    """Names that a module takes from others, by where they are; nothing is imported, as libraries may be missing here."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    taken = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {name.asname or name.name: f"{node.module}.{name.name}" for node in taken for name in node.names}


def is_shown(place: str) -> bool:
    """Whether the page has what is there: by itself, or with its whole module."""
    shown = re.findall(r"^::: (\S+)$", API, re.MULTILINE)
    return place in shown or place.rpartition(".")[0] in shown


def test_every_public_name_is_on_the_page() -> None:
    places = imports_of(Path(llmbatch.__file__))
    assert [name for name in llmbatch.__all__ if name != "__version__" and not is_shown(places[name])] == []


@pytest.mark.parametrize("name", sorted(llmbatch._INTEGRATIONS))
def test_every_name_of_an_integration_is_on_the_page(name: str) -> None:
    path = Path(llmbatch.__file__).with_name(f"{name}.py")
    [names] = re.findall(r"^__all__ = (\[.*?\])", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    places = imports_of(path)
    assert [each for each in ast.literal_eval(names) if each[0] != "_" and not is_shown(places[each])] == []
    assert f"`llmbatch.{name}`" in API
