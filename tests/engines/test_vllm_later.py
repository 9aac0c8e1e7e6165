"""Modules that are imported once they are used."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

from llmbatch.engines.vllm.later import LATER, later

NAMES = {"heavy": (), "heavy.part": ("function", "Class"), "heavy.other": ()}
PART = """
class Class: pass
def function(x): return x + 1
constant = 7
"""


@pytest.fixture(autouse=True)
def heavy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package ``heavy`` whose import brings ``heavy.base`` along."""
    folder = tmp_path / "heavy"
    folder.mkdir()
    (folder / "__init__.py").write_text("from heavy import base\n")
    (folder / "base.py").write_text("made = object()\n")
    (folder / "part.py").write_text(PART)
    (folder / "other.py").write_text("number = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "heavy"]:
        del sys.modules[name]


def imported(name: str) -> ModuleType:
    return importlib.import_module(name)


def is_there() -> bool:
    """Whether the package itself was imported."""
    return "heavy.base" in sys.modules


def test_a_listed_name_of_a_module_imports_nothing_until_it_is_called() -> None:
    with later(NAMES):
        function = imported("heavy.part").function
    assert not is_there()
    assert function(1) == 2
    assert is_there()


def test_the_version_of_a_package_is_that_of_the_package() -> None:
    """numba, which vLLM guesses by n-grams with, looks at SciPy's as it is imported."""
    with later(NAMES):
        stand_in = imported("heavy")
        with pytest.raises(AttributeError, match="__version__"):  # as the package itself says
            _ = stand_in.__version__
        assert is_there()
    script = (
        "from llmbatch.engines.vllm.later import later\nwith later():\n import numba, scipy\nprint(scipy.__version__)"
    )
    if find_spec("numba") is None or find_spec("scipy") is None:
        pytest.skip("numba and SciPy are not there")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == version("scipy"), done.stderr


def test_a_listed_class_is_held_against_and_looked_into_as_the_class() -> None:
    with later(NAMES):
        Class = imported("heavy.part").Class  # noqa: N806
    assert not is_there()
    assert isinstance(imported("heavy.part").Class(), Class)
    assert not isinstance(3, Class)
    assert isinstance(Class(), imported("heavy.part").Class)


def test_a_class_may_be_derived_from_a_listed_one_while_it_is_stood_in_for() -> None:
    with later(NAMES):

        class Derived(imported("heavy.part").Class):  # type: ignore[misc]
            pass

    assert Derived.__mro__[1] is imported("heavy.part").Class
    assert isinstance(Derived(), imported("heavy.part").Class)


def test_any_other_name_imports_the_module_at_once() -> None:
    with later(NAMES):
        part = imported("heavy.part")
        assert not is_there()
        assert part.constant == 7
        assert is_there()
        assert imported("heavy.part").function(1) == 2
        assert type(sys.modules["heavy.part"]) is ModuleType


def test_a_name_that_the_module_has_not_is_missed_at_once() -> None:
    with later(NAMES), pytest.raises(AttributeError, match="nothing"):
        _ = imported("heavy.part").nothing


def test_a_module_that_is_imported_as_a_whole_works_when_it_is_used() -> None:
    with later(NAMES):
        other = imported("heavy.other")
    assert not is_there()
    assert other.number == 3


def test_a_part_that_is_not_listed_brings_the_package_and_is_executed_once() -> None:
    with later(NAMES):
        imported("heavy.part")
        base = imported("heavy.base")
        assert imported("heavy").base is base
        assert base.made is sys.modules["heavy.base"].made
        assert base.__spec__ is not None
        assert base.__spec__.origin is not None
        assert base.__spec__.origin.endswith("base.py")


def test_who_imports_it_afterwards_gets_the_module_itself() -> None:
    with later(NAMES):
        imported("heavy.part")
    assert "heavy" not in sys.modules
    assert "heavy.part" not in sys.modules
    assert imported("heavy.part").constant == 7


def test_it_is_found_meanwhile_as_it_is_installed() -> None:
    with later(NAMES):
        assert find_spec("heavy") is not None
        imported("heavy.part")
        assert find_spec("heavy") is not None
        assert find_spec("heavy.part") is not None


def test_a_package_that_is_not_installed_is_not_there_meanwhile_either() -> None:
    with later({"heavier": (), "heavier.part": ("function",)}), pytest.raises(ModuleNotFoundError, match="heavier"):
        imported("heavier.part")


def test_a_package_that_was_imported_before_is_itself() -> None:
    heavy = imported("heavy")
    with later(NAMES):
        assert imported("heavy") is heavy
        assert type(imported("heavy.part")) is ModuleType


def test_who_looks_at_a_stand_in_as_at_any_module_does_not_import_it() -> None:
    with later(NAMES):
        imported("heavy.part")
        for module in [module for name, module in sys.modules.items() if name.partition(".")[0] == "heavy"]:
            getattr(module, "__file__", None)
            getattr(module, "__wrapped__", None)
        assert not is_there()


IMPORTS = """
import sys
from llmbatch.engines.vllm.later import LATER, later

with later():
    import vllm
    vllm.LLM
    import vllm.v1.worker.cpu_worker
    import transformers.modeling_utils
left_out = {name.partition(".")[0] for name in LATER}
print("imported:", *sorted(left_out & {name.partition(".")[0] for name in sys.modules}))
"""


@pytest.mark.vllm
def test_the_installed_vllm_needs_none_of_them_to_be_imported() -> None:
    """Fails where a new version of vLLM or transformers takes a name that is not listed: then its start is slow again."""
    ran = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True, timeout=600)
    assert ran.stdout.splitlines()[-1] == "imported:"


@pytest.mark.parametrize("module", [name for name, names in LATER.items() if names])
def test_every_listed_name_is_one_of_its_module(module: str) -> None:
    """Else its absence would be seen late."""
    try:
        version({"sklearn": "scikit-learn"}.get(package := module.partition(".")[0], package))
    except PackageNotFoundError:
        pytest.skip(f"{package} is not installed")
    assert set(LATER[module]) <= set(dir(importlib.import_module(module)))
