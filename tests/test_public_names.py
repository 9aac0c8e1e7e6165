"""The public names, listed by hand: a name that comes or goes is a change that users notice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import llmbatch

NAMES = [
    "Ask",
    "Branches",
    "Complete",
    "Failure",
    "FailureKind",
    "Incomplete",
    "LlmbatchError",
    "Program",
    "Published",
    "Record",
    "RowAsk",
    "Run",
    "RunError",
    "Status",
    "Stopped",
    "Usage",
    "UsageError",
    "__version__",
    "evaluate",
    "generate",
    "publish",
    "run",
]
HEAVY = {"vllm", "torch", "transformers", "datasets", "pyarrow", "pandas", "numpy", "pydantic", "jinja2", "yaml"}


def test_the_public_names_are_these() -> None:
    assert llmbatch.__all__ == NAMES
    assert all(getattr(llmbatch, name) is not None for name in NAMES)


def test_what_a_session_shows_of_the_package_holds_the_public_names() -> None:
    assert set(NAMES) <= set(dir(llmbatch))


def test_no_room_hides_a_public_name() -> None:
    """A package of the same name would take its place as soon as anything of it was imported."""
    package = Path(llmbatch.__file__).parent
    assert not {path.stem for path in package.iterdir()} & set(NAMES)


def test_each_module_of_an_integration_is_shown_and_can_be_had_without_an_import() -> None:
    modules = Path(llmbatch.__file__).parent.glob("*.py")
    thin = {path.stem for path in modules if "\nfrom llmbatch.integrations" in path.read_text(encoding="utf-8")}
    assert thin == llmbatch._INTEGRATIONS
    assert thin <= set(dir(llmbatch))


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'llmbatch' has no attribute 'nothing'"):
        _ = llmbatch.nothing


def modules_after(code: str) -> set[str]:
    """The top-level modules that are loaded after some code ran in a fresh process."""
    script = f"{code}\nimport sys; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not modules_after("import llmbatch") & HEAVY


def test_using_the_api_does_not_load_an_engine_or_a_data_library() -> None:
    loaded = modules_after("from llmbatch import run, generate")
    assert not loaded & {"vllm", "torch", "transformers", "datasets", "pyarrow", "pandas"}


def test_the_version_is_the_one_that_is_installed() -> None:
    from importlib import metadata

    from llmbatch.core.versions import versions

    assert llmbatch.__version__ == metadata.version("llmbatch") == versions()["llmbatch"]


def test_versions_name_python_and_the_libraries_that_are_there_without_importing_them() -> None:
    loaded = modules_after(
        "from llmbatch.core.versions import versions; found = versions(); assert 'python' in found and 'torch' in found"
    )
    assert not loaded & {"vllm", "torch", "transformers"}
