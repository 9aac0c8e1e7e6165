"""The names of a model's classes."""

from __future__ import annotations

from llmbatch.programs.classify import _names


def test_classes_of_one_name_are_told_apart() -> None:
    assert _names('["a", "b", "a", "a", "a (2)"]') == ("a", "b", "a (2)", "a (3)", "a (2) (2)")
