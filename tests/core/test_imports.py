from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from llmbatch.core.errors import JobError
from llmbatch.core.imports import environment, extra, is_import_path, load_object


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.mark.parametrize("text", ["a:b", "a.b.c:D.e", "_x:y2", "módulo:Ünï"])
def test_module_colon_name_is_an_import_path(text: str) -> None:
    assert is_import_path(text)


@pytest.mark.parametrize(
    "text", ["a", "a:", ":b", "a.b", "a:b:c", "../a:b", "a-b:c", "1a:b", "C:\\x", "a..b:c", "a:b\n"]
)
def test_anything_else_is_not(text: str) -> None:
    assert not is_import_path(text)
    with pytest.raises(JobError, match=r"has the form package\.module:Name"):
        load_object(text)


def test_an_object_inside_an_object_is_found() -> None:
    assert load_object("pathlib:Path.cwd") == Path.cwd


def test_modules_of_the_current_folder_are_found(folder: Path) -> None:
    (folder / "my_rules_a.py").write_text("def too_short(value): return len(value) < 3\n")
    assert load_object("my_rules_a:too_short")("ab") is True


def test_the_current_folder_does_not_hide_libraries_afterwards(folder: Path) -> None:
    (folder / "my_rules_b.py").write_text("x = 1\n")
    load_object("my_rules_b:x")
    assert sys.path[0] != str(folder)
    assert sys.path[-1] == str(folder)


def test_a_missing_module_is_named_with_what_is_near(folder: Path) -> None:
    (folder / "my_rules_c.py").write_text("")
    with pytest.raises(JobError, match=r"there is no module 'my_rule_c' in .*did you mean my_rules_c"):
        load_object("my_rule_c:x")


def test_a_missing_submodule_is_named_with_its_package() -> None:
    with pytest.raises(JobError, match=r"no module 'json\.decode' in the package json; did you mean decoder"):
        load_object("json.decode:JSONDecoder")


def test_a_missing_name_is_named_with_what_is_near() -> None:
    with pytest.raises(JobError, match=r"the module json has no 'dump_s'; did you mean dumps"):
        load_object("json:dump_s")


def test_a_module_that_needs_another_one_says_which(folder: Path) -> None:
    (folder / "my_rules_d.py").write_text("import surely_not_installed\n")
    with pytest.raises(JobError, match=r"importing my_rules_d failed: it needs the module 'surely_not_installed'"):
        load_object("my_rules_d:x")


@pytest.mark.parametrize(
    ("source", "said"), [("1 / 0", "ZeroDivisionError: division by zero"), ("def (", "SyntaxError")]
)
def test_what_a_module_raises_on_import_is_told(folder: Path, source: str, said: str) -> None:
    (folder / "my_rules_e.py").write_text(source)
    with pytest.raises(JobError, match=said):
        load_object("my_rules_e:x")


def test_a_missing_extra_says_how_it_is_installed() -> None:
    with pytest.raises(JobError) as raised:
        extra("no_such_library.part", "eval", "an evaluation")
    assert (
        str(raised.value) == "an evaluation needs no_such_library, which is not installed: pip install 'llmbatch[eval]'"
    )


def test_the_current_folder_of_a_session_without_a_file_hides_no_library_from_another_python(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    paths = environment()["PYTHONPATH"].split(os.pathsep)
    assert "" not in paths
    assert paths.index(str(folder)) == len(paths) - 1
