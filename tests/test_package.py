"""The wheel and the source distribution: what is in them, and that the wheel works where nothing else of the repository is."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest
from uv import find_uv_bin

import llmbatch

ROOT = Path(__file__).parents[1]
MIB = 1 << 20
OF_EXTRAS = ["scipy", "sacrebleu", "fastapi", "aiohttp"]  # what is not there for a command that does not ask for it


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both, built as ``make package`` builds them, but by the hatchling that is installed here."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    [path] = built.glob("*.whl")
    return path


def test_the_wheel_holds_the_package_and_nothing_of_tests_or_measurements(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"llmbatch"}
    for needed in (
        "py.typed",
        "prompts/summarize.yaml",
        "demo/model/model.safetensors",
        "evals/tasks/demo-numbers.yaml",
    ):
        assert f"llmbatch/{needed}" in names
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]
    assert wheel.stat().st_size < 6 * MIB


def test_its_version_is_that_of_the_module(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = HeaderParser().parsestr(archive.read(name).decode())
    assert metadata["Version"] == llmbatch.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "version" not in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_source_distribution_has_what_is_needed_to_build_and_test_it(built: Path) -> None:
    [path] = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    root = {"pyproject.toml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "Makefile", "constraints.txt"}
    assert {
        *root,
        "llmbatch/py.typed",
        "prompts/summarize.yaml",
        "tests/conftest.py",
        "docs/index.md",
        "mkdocs.yml",
    } <= names
    assert path.stat().st_size < 12 * MIB


def test_extras_that_the_documents_name_are_there_and_all_is_all_but_an_engine() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {"gpu", "cpu", "transformers", "ray", "spark", "server", "eval", "publish", "all"} <= extras.keys()
    [everything] = extras["all"]
    named = set(everything.partition("[")[2].rstrip("]").split(","))
    assert named == extras.keys() - {"all", "cpu", "dev", "docs", "gpu"}


def test_an_index_would_take_both_as_they_are(built: Path) -> None:
    """Strictly: a warning, such as a README that would not be shown, is refused as well."""
    pytest.importorskip("twine")
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, sorted(built.iterdir()))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "NO_COLOR": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 2


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that was empty, into which uv has installed the wheel and nothing else.

    What it needs is read from this environment: nothing is fetched. What only extras bring is not there. ``make package`` has an
    index, and lets uv find it all.
    """
    environment = tmp_path_factory.mktemp("installed") / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = str(environment / "bin" / "python")
    command = [
        find_uv_bin(),
        "pip",
        "install",
        "--quiet",
        "--offline",
        "--no-deps",
        "--no-config",
        "--python",
        python,
        str(wheel),
    ]
    subprocess.run(command, check=True)
    [site] = environment.glob("lib/python*/site-packages")
    hidden = f"import sys; sys.modules.update(dict.fromkeys({OF_EXTRAS!r}))"
    # the libraries are there as a path alone: no .pth in it counts; a sitecustomize.py would be Debian's own, where that is
    (site / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n{hidden}\n")
    return environment


def test_installed_into_an_empty_environment_its_command_runs_a_job(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "two"}\n{"text": "three"}\n')
    asked = "run --engine scripted --model any --prompt summarize --input rows.jsonl --output out"
    done = seen([str(installed / "bin" / "llmbatch"), *asked.split()], tmp_path)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 2
    code = (
        "import sys, llmbatch; assert llmbatch.__file__.startswith(sys.prefix), llmbatch.__file__\n"
        f"assert {{name: sys.modules.get(name, '') for name in {OF_EXTRAS!r}}} == dict.fromkeys({OF_EXTRAS!r})\n"
        "from llmbatch.cli.main import main\n"
        "for command in ('status out --html page.html', 'status out', 'show out 0', 'report out', 'audit out'):\n"
        "    try:\n"
        "        main(command.split())\n"
        "    except SystemExit as end:\n"
        "        assert not end.code, command\n"
    )
    done = seen([str(installed / "bin" / "python"), "-c", code], tmp_path)
    assert done.returncode == 0, done.stderr


def seen(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """A command in a folder, with nothing of our environment."""
    return subprocess.run(command, cwd=folder, env={"HOME": str(folder)}, capture_output=True, text=True, check=False)
