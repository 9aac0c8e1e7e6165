from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmbatch.formats.json_path import JsonPath, Misfit

CASES = Path(__file__).parents[1] / "examples" / "aws" / "sagemaker" / "jsonpath-cases.jsonl"


@pytest.mark.parametrize(
    "case", [json.loads(line) for line in CASES.read_text().splitlines()], ids=lambda c: c["filter"]
)
def test_the_cases_of_the_specification_hold(case: dict[str, Any]) -> None:
    assert JsonPath(case["filter"]).pick(case["on"]) == case["gives"]


@pytest.mark.parametrize(
    ("text", "value", "picked"),
    [
        ("$['a']", {"a": 1, "b": 2}, 1),
        ('$["a", "b"]', {"b": 2, "a": 1, "c": 3}, {"a": 1, "b": 2}),
        ("$.a['b c'][0].d", {"a": {"b c": [{"d": 7}]}}, 7),
        ("$[0,-1]", ["a", "b", "c"], ["a", "c"]),
        ("$[0,2:]", ["a", "b", "c", "d"], ["a", "c", "d"]),
        ("$[1:3]", ["a", "b", "c", "d"], ["b", "c"]),
        ("$[:2]", ["a", "b", "c"], ["a", "b"]),
        ("$[*]", ["a", "b"], ["a", "b"]),
        ("$.rows[1:].id", {"rows": [{"id": 1}, {"id": 2}, {"id": 3}]}, [2, 3]),
        ("$.*.x", {"a": {"x": 1}, "b": {"x": 2}}, [1, 2]),
        ("$.a", {"a": None}, None),
    ],
)
def test_the_other_forms_pick_what_jayway_picks(text: str, value: Any, picked: Any) -> None:
    assert JsonPath(text).pick(value) == picked


@pytest.mark.parametrize(
    ("text", "value", "said"),
    [
        ("$.feature", {"features": 1}, r"there is no 'feature' \(did you mean 'features'\?\); the keys are 'features'"),
        ("$['id','x']", {"id": 1}, "there is no 'x'; the keys are 'id'"),
        ("$.a", [1], "looks for 'a' in an object, and there is a value of type array"),
        ("$[3]", ["a"], "there is no item 3; there are 1"),
        ("$[-2]", ["a"], "there is no item -2"),
        ("$[0]", {"a": 1}, "looks for items of a list, and there is a value of type object"),
        ("$[5:]", ["a"], "picks nothing"),
        ("$.*", {}, "picks nothing"),
        ("$.a.*", {"a": 1}, "looks into an object or a list"),
    ],
)
def test_what_matches_nothing_is_said(text: str, value: Any, said: str) -> None:
    with pytest.raises(Misfit, match=said):
        JsonPath(text).pick(value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a.b", r"does not begin with \$"),
        ("", r"does not begin with \$"),
        ("$" + ".a" * 32, "has 65 characters, and a filter has at most 63"),
        ("$..a", "cannot be read from '..a' on"),
        ("$[?(@.a)]", "no name in quotes, index or slice"),
        ("$['a' 'b']", "no names in quotes with commas"),
        ("$['a',b]", "no names in quotes with commas"),
        ("$[]", "no name in quotes, index or slice"),
        ("$[1:2:3]", "no name in quotes, index or slice"),
        ("$.a b", "cannot be read from ' b' on"),
    ],
)
def test_a_text_that_is_no_filter_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        JsonPath(text)


@pytest.mark.parametrize(
    ("text", "fits"), [("$", True), ("$[0,2:]", True), ("$.a", False), ("$[0][1]", False), ("$.*", False)]
)
def test_a_row_of_csv_takes_one_step_of_indices_and_slices(text: str, fits: bool) -> None:
    assert JsonPath(text).for_rows is fits
