"""What the site is made of: pages that are made from the code say all of it, and pictures are those of what was measured."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest
import yaml

from llmbatch.cli import COMMANDS
from llmbatch.cli.settings import FLAGS
from llmbatch.core.types import FailureKind, Status
from llmbatch.engines import ENGINES
from llmbatch.engines.kinds import kind_of
from llmbatch.evals.metrics import METRICS
from llmbatch.evals.task import Task
from llmbatch.formats import FORMATS
from llmbatch.job.job import Job
from llmbatch.job.run_settings import RunSettings
from llmbatch.plan.window import PlanSettings
from llmbatch.programs import PROGRAMS
from llmbatch.sinks.layouts import LAYOUTS
from llmbatch.sources.base import SourceSettings

ROOT = Path(__file__).parents[2]
MADE = {"reference/commands.md", "reference/settings.md", "reference/parts.md", "reference/tasks.md"}


def load(name: str) -> ModuleType:
    """A script of the site, which is no package."""
    spec = importlib.util.spec_from_file_location(f"site_{name}", ROOT / "eval" / "docs" / "site" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


if not (ROOT / "eval").is_dir():  # a source distribution has the tests without eval/
    pytest.skip("eval/ is not part of this distribution", allow_module_level=True)
tables, figures = load("tables"), load("figures")


def in_nav(entries: list[object]) -> Iterator[str]:
    for entry in entries:
        if isinstance(entry, str):
            yield entry
        elif isinstance(entry, dict):
            for inner in entry.values():
                yield from in_nav(inner)


def test_every_page_has_its_place_in_the_site() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert sorted(in_nav(nav)) == sorted(pages | MADE)


def test_every_setting_of_a_job_is_there_with_its_default() -> None:
    page = tables.settings_page()
    for section in Job.model_fields:
        assert f"`{section}`" in page or f"## {section}" in page
    for place, model in (("run", RunSettings), ("plan", PlanSettings), ("input", SourceSettings)):
        for name in model.model_fields:
            assert f"| `{place}.{name}` |" in page or f"# {place}.{name}" in page
    assert "| `run.window` | whole number | `16384` |" in page
    for name in ENGINES:
        for key in kind_of(name).settings.model_fields:
            assert f"`engine.{key}`" in page or f"# engine.{key}" in page


def test_every_command_and_flag_is_there() -> None:
    page = tables.commands_page()
    for name in COMMANDS:
        assert f"\n## {name}\n" in page
    for flags in FLAGS.values():
        for flag in flags:
            assert f"`{flag.name}" in page


@pytest.mark.parametrize("table", [PROGRAMS, FORMATS, LAYOUTS], ids=["programs", "formats", "layouts"])
def test_every_part_is_there_with_what_it_is(table: dict[str, str]) -> None:
    page = tables.parts_page()
    for name in table:
        assert re.search(rf"\n### {name}\n\n\S", page)


def test_every_key_of_a_task_and_every_metric_is_there() -> None:
    page = tables.tasks_page()
    for name in Task.model_fields:
        assert f"| `{name}` |" in page
    for name in METRICS:
        assert f"\n### {name}\n" in page


def test_every_status_and_kind_of_failure_is_there() -> None:
    assert all(f"`{status}`" in tables.statuses() for status in Status)
    assert all(f"| `{kind}` |" in tables.kinds() for kind in FailureKind)
    assert "| `too_long` | the prompt leaves no room in the context | failed |" in tables.kinds()


def test_the_picture_of_the_rooms_is_the_table_that_holds_them() -> None:
    assert figures.ROOMS.read_text(encoding="utf-8") == figures.rooms_svg(), "python eval/docs/site/figures.py"


@pytest.mark.parametrize("name", ["performance", "reliability"])
def test_plots_are_drawn_of_what_was_measured(name: str) -> None:
    plots = re.findall(r"<svg.*?</svg>", getattr(figures, name)(), re.DOTALL)
    assert len(plots) >= 2
    for plot in plots:
        ElementTree.fromstring(plot)  # noqa: S314 - made here
    if name == "performance":
        shapes = json.loads((ROOT / "eval" / "bench" / "results.json").read_text(encoding="utf-8"))["shapes"]
        assert plots[0].count("<rect") == len(shapes)
