from __future__ import annotations

import pytest

from llmbatch.core.sampling import SAMPLING, sampling_problem, token_biases


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", 0), ("top_p", 0.5), ("stop", "x"), ("stop", ["x"]), ("n", 2), ("ignore_eos", True)],
)
def test_a_setting_of_the_right_type_has_no_problem(name: str, value: object) -> None:
    assert sampling_problem(name, value) is None


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("temprature", 0, "did you mean 'temperature'?"),
        ("n", 1.5, "is of type number (1.5), and must be of type integer"),
        ("n", True, "is of type boolean"),
        ("n", 0, "is 0, and a row has at least one answer"),
        ("n", -1, "is -1, and"),
        ("stop", 5, "must be of type string or array"),
        ("seed", None, "is of type null"),
    ],
)
def test_a_wrong_setting_is_explained(name: str, value: object, words: str) -> None:
    assert words in str(sampling_problem(name, value))


def test_token_biases_have_integer_keys() -> None:
    assert token_biases({"7": -1, 8: 2.5}) == {7: -1.0, 8: 2.5}


@pytest.mark.parametrize("biases", [{"a": 1}, {"7": "x"}, {"7": None}])
def test_token_biases_that_are_no_numbers_are_refused(biases: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        token_biases(biases)


@pytest.mark.vllm
def test_every_setting_is_one_of_vllm_s() -> None:
    from vllm import SamplingParams

    assert set(SAMPLING) <= set(SamplingParams.__struct_fields__)
