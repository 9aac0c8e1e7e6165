from __future__ import annotations

import pytest

from llmbatch.core.sampling import SAMPLING, sampling_problem, token_biases


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0),
        ("top_p", 0.5),
        ("stop", "x"),
        ("stop", ["x"]),
        ("n", 2),
        ("ignore_eos", True),
        ("seed", 2**63 - 1),
        ("seed", -1),
        ("top_p", 1),
        ("top_k", -1),
        ("logprobs", 0),
        ("bad_words", ("x",)),
        ("stop_token_ids", [0, 5]),
        ("logit_bias", {"7": -1}),
        ("presence_penalty", -2),
        ("thinking_token_budget", 0),
    ],
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
        ("seed", 2**63, "and must be at least -9,223,372,036,854,775,808 and at most 9,223,372,036,854,775,807"),
        ("seed", -(2**63) - 1, "must be at least"),
        ("max_tokens", 0, "is 0, and must be at least 1 and at most 2,147,483,647"),
        ("max_tokens", 2**31, "must be at least 1"),
        ("min_tokens", -1, "must be at least 0"),
        ("temperature", -0.1, "is -0.1, and must be at least 0"),
        ("temperature", float("nan"), "is nan, and must be a finite number"),
        ("temperature", float("inf"), "must be a finite number"),
        ("top_p", 0, "is 0, and must be above 0 and at most 1"),
        ("top_p", 1.1, "at most 1"),
        ("top_k", -2, "must be at least -1"),
        ("top_k", 2**31, "at most 2,147,483,647"),
        ("min_p", 2, "must be at least 0 and at most 1"),
        ("presence_penalty", 2.5, "must be at least -2 and at most 2"),
        ("frequency_penalty", -3, "must be at least -2"),
        ("repetition_penalty", 0, "must be above 0"),
        ("logprobs", -2, "must be at least -1"),
        ("stop", "", "is empty"),
        ("stop", ["a", ""], "has an item that is empty"),
        ("stop", ["\ud800"], "has an item that holds half of a surrogate pair"),
        ("bad_words", [5], "has an item that is of type integer (5), and must be of type string"),
        ("stop_token_ids", ["5"], "has an item that is of type string ('5'), and must be a token id"),
        ("allowed_token_ids", [True], "is of type boolean"),
        ("logprob_token_ids", [-1], "has an item that is -1, and must be at least 0"),
        ("logit_bias", {"x": 1}, "logit_bias maps token ids to numbers"),
        ("logit_bias", {"5": float("nan")}, "logit_bias maps token ids to numbers: 5: nan"),
        ("logit_bias", {str(2**40): 1}, "maps token ids to numbers"),
    ],
)
def test_a_wrong_setting_is_explained(name: str, value: object, words: str) -> None:
    assert words in str(sampling_problem(name, value))


def test_token_biases_have_integer_keys() -> None:
    assert token_biases({"7": -1, 8: 2.5}) == {7: -1.0, 8: 2.5}


@pytest.mark.parametrize("biases", [{"a": 1}, {"7": "x"}, {"7": None}, {"7": float("inf")}, {"7": 10**400}])
def test_token_biases_that_are_no_numbers_are_refused(biases: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        token_biases(biases)


@pytest.mark.vllm
def test_every_setting_is_one_of_vllm_s() -> None:
    from vllm import SamplingParams

    assert set(SAMPLING) <= set(SamplingParams.__struct_fields__)
