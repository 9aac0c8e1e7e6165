"""What transformers looks up when it is imported."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys

import pytest

from llmbatch.engines.vllm import lookups
from llmbatch.engines.vllm.lookups import distributions_beside, quick_lookups

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
