"""What the site is made of: pages that are made from the code say all of it, and pictures are those of what was measured."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import click
import pytest
import yaml

from llmbatch.cli import COMMANDS
from llmbatch.cli.main import main
from llmbatch.core.types import FailureKind, Status
from llmbatch.engines import ENGINES
from llmbatch.engines.kinds import kind_of
from llmbatch.engines.settings import EngineSettings
from llmbatch.evals.metrics import METRICS
from llmbatch.evals.task import Task
from llmbatch.formats import FORMATS
from llmbatch.job.job import Job
from llmbatch.programs import PROGRAMS
from llmbatch.sinks.layouts import LAYOUTS

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


def plain_settings(path: str, model: Mapping[str, Any], every: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each setting of a section's JSON schema and those below it, with its default: None where it has none."""
    for name, field in model.get("properties", {}).items():
        named = [each["$ref"] for each in (field, *field.get("anyOf", ())) if "$ref" in each]
        sections = [every[name] for name in (each.rpartition("/")[2] for each in named) if "properties" in every[name]]
        for section in sections:
            yield from plain_settings(f"{path}{name}.", section, every)
        if not sections:
            yield f"{path}{name}", field.get("default")


def defaults_on(text: str) -> dict[str, Any]:
    """The settings in the tables of a text, with their defaults as YAML has them."""
    rows = re.findall(r"^\| `([\w.]+)` \| [^|]* \| (?:`(.*?)`|(required|)) \|", text, re.MULTILINE)
    return {name: yaml.safe_load(default) if default else required or None for name, default, required in rows}


def test_every_setting_of_a_job_is_there_with_its_default() -> None:
    schema = Job.model_json_schema()
    wanted = dict(plain_settings("", schema, schema["$defs"]))
    assert len(wanted) > 150
    shown = defaults_on(tables.settings_page().partition("## Settings of single engines")[0])
    assert shown.keys() == wanted.keys()
    empty: tuple[Any, ...] = (None, [], {}, "")
    wrong = {
        name: (shown[name], default)
        for name, default in wanted.items()
        if not (shown[name] == default or (default in empty and shown[name] in (None, "required")))
    }
    assert wrong == {}


@pytest.mark.parametrize("name", ENGINES)
def test_every_setting_that_an_engine_alone_has_is_there_with_its_default(name: str) -> None:
    page = tables.settings_page().partition("## Settings of single engines")[2]
    section = page.partition(f"### engine: {name}\n")[2].partition("\n### ")[0]
    common = EngineSettings.model_json_schema()["properties"]
    own = {
        f"engine.{key}": field.get("default")
        for key, field in kind_of(name).settings.model_json_schema()["properties"].items()
        if key not in common or field.get("default") != common[key].get("default")
    }
    shown = defaults_on(section)
    assert shown.keys() == own.keys()
    assert {key: shown[key] or None for key in own} == {key: default or None for key, default in own.items()}


def options_of(command: click.Command, context: click.Context) -> Iterator[tuple[str, list[str]]]:
    """A command and those below it, each by its heading, with the names of its options."""
    options = [each for each in command.params if isinstance(each, click.Option) and not each.hidden]
    yield command.name or "", [name for option in options for name in (*option.opts, *option.secondary_opts)]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from options_of(below, context)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_with_every_option_of_its_own(name: str) -> None:
    whole = tables.commands_page().partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    assert whole
    context = click.Context(main, info_name="llmbatch")
    command = main.get_command(context, name)
    assert command is not None
    for each, options in options_of(command, click.Context(command)):
        section = whole if each == name else whole.partition(f"\n### {each}\n")[2].partition("\n### ")[0]
        missing = [option for option in options if not re.search(rf"\| `[^|]*{option}(?![\w-])", section)]
        assert missing == [], each


def test_every_program_that_is_installed_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    page = tables.commands_page()
    assert project["scripts"].keys() == {"llmbatch", "llmbatch-lm-eval"}
    assert "\n## llmbatch-lm-eval\n\n```text\nllmbatch-lm-eval " in page


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


def test_the_site_is_built_and_every_link_of_it_leads_somewhere(tmp_path: Path) -> None:
    """Those of the reference among them, whose pages are only made then. It takes six seconds of a processor."""
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "reference" / "settings.html").exists()
