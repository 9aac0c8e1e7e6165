"""What transformers looks up when it is imported."""

from __future__ import annotations

import importlib.metadata
import inspect
import json
import subprocess
import sys
from typing import Any

import pytest

from llmbatch.engines.vllm import lookups
from llmbatch.engines.vllm.lookups import (
    distributions_beside,
    from_its_last_list,
    places_without_source,
    quick_lookups,
)

STRUCTURES = """
import json, sys
from contextlib import nullcontext
from llmbatch.engines.vllm.lookups import quick_lookups
with quick_lookups() if "quick" in sys.argv else nullcontext():
    import transformers.models
    from transformers.utils import import_utils
reads = import_utils.create_import_structure_from_path.cache_info()
structures = [import_utils.define_import_structure(str(import_utils.__file__).replace("utils/import_utils.py", "models"), prefix)
              for prefix in (None, "models")]
said = [[[sorted(k), sorted((n, sorted(v)) for n, v in d.items())] for k, d in s.items()] for s in structures]
print(json.dumps({"structures": sorted(said[0]) + sorted(said[1]), "kept": reads.maxsize is None,
                  "distributions": import_utils.PACKAGE_DISTRIBUTION_MAPPING, "models": sorted(dir(transformers.models))}))
"""


def test_another_process_finds_the_distributions_that_this_one_finds() -> None:
    own = importlib.metadata.packages_distributions
    expected = own()
    with distributions_beside():
        assert importlib.metadata.packages_distributions is not own
        assert importlib.metadata.packages_distributions() == expected
    assert importlib.metadata.packages_distributions is own


def test_where_the_other_process_fails_this_one_looks_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "_PROGRAM", "raise SystemExit(1)")
    expected = importlib.metadata.packages_distributions()
    with distributions_beside():
        assert importlib.metadata.packages_distributions() == expected


def test_where_the_other_process_cannot_be_started_this_one_looks_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    own = importlib.metadata.packages_distributions
    with distributions_beside():
        assert importlib.metadata.packages_distributions is own


def test_with_finders_of_its_own_this_process_looks_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    class Finder:
        def find_spec(self, *_: object) -> None:
            return None

        def find_distributions(self, *_: object) -> list[object]:
            return []

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder()])
    own = importlib.metadata.packages_distributions
    with distributions_beside():
        assert importlib.metadata.packages_distributions is own


def test_nothing_is_begun_where_transformers_is_there_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", lookups)
    own, finders = importlib.metadata.packages_distributions, list(sys.meta_path)
    with quick_lookups():
        assert importlib.metadata.packages_distributions is own
        assert sys.meta_path == finders


@pytest.mark.vllm
def test_the_installed_transformers_comes_out_the_same_and_reads_its_models_once() -> None:
    """Fails where a new version looks otherwise: then its import is slower again, or what it finds is not what it would find."""
    pytest.importorskip("transformers")
    found = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", STRUCTURES, *how], capture_output=True, text=True, check=True, timeout=600
            ).stdout.splitlines()[-1]
        )
        for how in ([], ["quick"])
    ]
    assert found[1].pop("kept")
    assert not found[0].pop("kept")
    assert found[0] == found[1]


def asked_by(module: str) -> Any:
    """What a module is told of the place where this is called."""
    there = {"__name__": module, "inspect": inspect, "sys": sys}
    exec(  # noqa: S102
        "def ask():\n    return inspect.getframeinfo(sys._getframe(1))", there
    )
    return there["ask"]()  # type: ignore[operator]


def test_torch_s_registry_gets_the_place_alone_and_anybody_else_the_source_too() -> None:
    own = inspect.getframeinfo
    before = asked_by("torch._library.utils")
    with places_without_source():
        registry, other = asked_by("torch._library.utils"), asked_by("anybody")
    assert (registry.filename, registry.function, registry.code_context) == (before.filename, before.function, None)
    assert other.code_context is not None
    assert before.code_context is not None
    assert before.lineno == registry.lineno == other.lineno > 0
    assert inspect.getframeinfo is own


def test_python_has_its_own_function_again_when_the_last_of_several_is_done() -> None:
    own, first, second = inspect.getframeinfo, places_without_source(), places_without_source()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert inspect.getframeinfo is not own
    second.__exit__(None, None, None)
    assert inspect.getframeinfo is own
    assert asked_by("torch._library.utils").code_context is not None


@pytest.mark.vllm
def test_the_installed_torch_makes_no_use_of_the_source() -> None:
    utils = pytest.importorskip("torch._library.utils")

    def place() -> str:
        return str(utils.get_source(1))

    own = place()
    with places_without_source():
        assert place() == own
    assert own.startswith(f"{__file__}:")


@pytest.mark.parametrize(
    "source",
    [
        "",
        "x = 1\n",
        '__all__ = ["a", "b"]\n',
        'import a\n\n__all__ = ["a"]\nx = 1\n__all__ = [\n    "b",\n    "c",\n]\n',
        '# __all__ is below\n    __all__ = 3\n__all__ = ["a"]',
        'x = "__all__"\r\n__all__ = ["a"]\r\n',
        'x = 1\r__all__ = ["a"]',
    ],
    ids=["nothing", "none", "at once", "two", "in a comment", "carriage returns", "carriage returns alone"],
)
def test_names_of_the_last_list_are_those_of_all_lines(source: str) -> None:
    def names(text: str) -> list[str]:
        starts = [place for place, line in enumerate(text.splitlines()) if line.startswith("__all__")]
        return text.splitlines()[starts[-1] :] if starts else []

    assert from_its_last_list(names)(source) == names(source)
