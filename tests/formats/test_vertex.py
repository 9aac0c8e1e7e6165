from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch.core.errors import SourceError
from llmbatch.core.record import record_to_dict
from llmbatch.core.types import Failure, FailureKind, Prompt, Record, Rendered, Status, Usage
from llmbatch.formats.base import Answered, Asked, wire_format
from llmbatch.formats.vertex import Vertex, VertexSettings

USER = [{"role": "user", "content": "one loaf"}]


def read(instance: Any, **options: Any) -> Rendered | Failure | None:
    return wire_format("vertex", options).read({"record": instance}, {"poet"})


@pytest.mark.parametrize(
    ("instance", "prompt", "sampling"),
    [
        ("one loaf", Prompt(text="one loaf"), {}),
        (["one loaf"], Prompt(text="one loaf"), {}),
        ({"prompt": "one loaf", "id": 3, "n": 7, "stop": "Main Street"}, Prompt(text="one loaf"), {}),
        ({"prompt": "one loaf", "max_tokens": 5, "top_p": 0.5}, Prompt(text="one loaf"), {"max_tokens": 5, "top_p": 0.5}),
        ({"prompt": "one loaf", "parameters": {"n": 2, "topK": 3}}, Prompt(text="one loaf"), {"n": 2, "top_k": 3}),
        ({"messages": USER, "note": "x"}, Prompt(messages=tuple(USER)), {}),
        ({"inputs": USER}, Prompt(messages=tuple(USER)), {}),
        ({"inputs": "one loaf", "parameters": {"max_new_tokens": 5, "do_sample": False, "stop_sequences": ["x"],
          "return_full_text": False}}, Prompt(text="one loaf"), {"max_tokens": 5, "temperature": 0, "stop": ["x"]}),
        ({"@requestFormat": "chatCompletions", "messages": USER, "max_completion_tokens": 5, "seed": 3},
         Prompt(messages=tuple(USER)), {"max_tokens": 5, "seed": 3}),
    ],
)  # fmt: skip
def test_what_an_instance_asks_for(instance: Any, prompt: Prompt, sampling: dict[str, Any]) -> None:
    found = read(instance)
    assert isinstance(found, Rendered), found
    assert (found.prompt, dict(found.sampling)) == (prompt, sampling)


@pytest.mark.parametrize("instance", [{"text": "a"}, {"id": 1}, {}, [1, 2], ["a", "b"], 3, None, True])
def test_any_other_instance_is_variables_for_the_jobs_prompt(instance: Any) -> None:
    assert read(instance) is None
    format_ = wire_format("vertex")
    assert format_.variables({"record": instance}) == (
        instance if isinstance(instance, dict) else {"instance": instance}
    )


@pytest.mark.parametrize(
    ("instance", "said"),
    [
        ({"prompt": None}, "the instance must have one of messages, prompt, inputs, and has none that is not null"),
        ({"prompt": "a", "messages": USER}, "and has messages and prompt"),
        ({"prompt": 3}, "instance.prompt must be one text"),
        ({"prompt": "a", "temperature": -1}, "instance.temperature is -1"),
        ({"prompt": "a", "parameters": [1]}, "the instance's parameters must be an object"),
        ({"prompt": "a", "parameters": {"beams": 2}}, "instance.beams is not supported"),
        ({"prompt": "a", "parameters": {"return_full_text": True}}, "instance.return_full_text is not supported"),
        ({"messages": []}, "instance.messages: has no message"),
        ({"@requestFormat": "textGeneration", "prompt": "a"}, "@requestFormat is 'textGeneration'; known is chatCompletions"),
        ({"@requestFormat": "chatCompletions"}, "instance must have either messages or prompt, and has neither"),
    ],
)  # fmt: skip
def test_an_instance_that_cannot_be_done_is_a_failure_in_its_own_words(instance: Any, said: str) -> None:
    found = read(instance)
    assert isinstance(found, Failure)
    assert found.kind is FailureKind.PROMPT
    assert said in found.message


@pytest.mark.parametrize("instance", ["", " \n", [" "], {"prompt": "  "}])
def test_a_blank_instance_is_told_from_a_wrong_one(instance: Any) -> None:
    found = read(instance)
    assert isinstance(found, Failure)
    assert found.kind is FailureKind.EMPTY_PROMPT


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ({}, {"id": "r", "a": 1, "b": 2}),
        ({"key_field": "id"}, {"a": 1, "b": 2}),
        ({"excluded_fields": ["a"]}, {"id": "r", "b": 2}),
        ({"included_fields": ["b", "a"]}, {"b": 2, "a": 1}),
        ({"key_field": "id", "included_fields": ["id", "b", "c"]}, {"b": 2}),
        ({"instances": "csv", "excluded_fields": ["a"]}, {"id": "r", "b": 2}),
    ],
)
def test_what_of_an_instance_the_model_sees(options: dict[str, Any], seen: dict[str, Any]) -> None:
    assert wire_format("vertex", options).variables({"record": {"id": "r", "a": 1, "b": 2}}) == seen


@pytest.mark.parametrize(
    ("options", "instance", "said"),
    [
        ({"key_field": "id"}, "text", "the instance must be an object, and is of type string"),
        ({"instance_type": "object"}, [1], "the instance must be an object, and is of type array"),
        ({"instance_type": "array", "included_fields": ["a", "b"]}, {"a": 1}, "has no field 'b', which includedFields names"),
    ],
)  # fmt: skip
def test_an_instance_that_is_not_what_the_job_says_is_a_failure(options: Any, instance: Any, said: str) -> None:
    found = read(instance, **options)
    assert isinstance(found, Failure)
    assert said in found.message


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"included_fields": ["a"], "excluded_fields": ["b"]}, "cannot be given together"),
        ({"instance_type": "array"}, "instance_type array needs included_fields"),
        ({"instances": "file-list", "key_field": "a"}, "the files of a file-list have no fields"),
        ({"parameters": {"beams": 2}}, "parameters.beams is no sampling setting"),
        ({"instances": "bigquery"}, "input.options.instances: .*the settings of vertex are"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(SourceError, match=said):
        wire_format("vertex", options)


TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: not text.isspace())
PROMPTS = st.builds(Prompt, text=TEXT) | st.builds(
    Prompt, messages=TEXT.map(lambda text: ({"role": "user", "content": text},))
)
SAMPLING = st.fixed_dictionaries({}, optional={"max_tokens": st.integers(1, 99), "n": st.integers(1, 4)})
OUTPUTS = st.none() | st.sampled_from([{"schema": {"type": "object"}}, {"choice": ["a", "b"]}])


@given(PROMPTS, SAMPLING, OUTPUTS)
def test_an_instance_reads_back_as_the_same(prompt: Prompt, sampling: dict[str, Any], output: Any) -> None:
    format_ = wire_format("vertex", {"key_field": "key"})
    line = json.loads(json.dumps(format_.write("id-5", Rendered(prompt, sampling, output), None)))
    assert line["record"]["key"] == "id-5"
    assert format_.read(line, ()) == Rendered(prompt, sampling, output)


def line(
    record: Record, instance: Any, samples: int = 1, *, rich: bool = False, strict: bool = False, **options: Any
) -> Any:
    format_, data = Vertex(VertexSettings(**options)), {"record": instance}
    read = format_.read(data, ())
    asked = Asked(samples=samples, own_check=isinstance(read, Rendered) and read.output is not None)
    return format_.line(Answered(record_to_dict(record), data, asked, "demo", 0), rich=rich, strict=strict)


OK = Record(0, 0, Status.OK, "said", "length", 1, Usage(4, 3, 2))
WRONG = Record(0, 0, Status.FAILED, failure=Failure(FailureKind.PROMPT, "no"))
MISFIT = Record(0, 0, Status.INVALID, None, "stop", failure=Failure(FailureKind.SCHEMA, "no"), raw="{}")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, {"instance": {"id": "r", "a": 1}}),
        ({"key_field": "id"}, {"key": "r"}),
        ({"excluded_fields": ["a"]}, {"instance": {"id": "r", "a": 1}}),
        ({"included_fields": ["a"]}, {"instance": {"a": 1}}),
        ({"instance_type": "array", "included_fields": ["a", "id"]}, {"instance": [1, "r"]}),
        ({"instances": "csv"}, {"instance": ["r", 1]}),
        ({"instances": "csv", "instance_type": "object"}, {"instance": {"id": "r", "a": 1}}),
        ({"instances": "csv", "excluded_fields": ["id"]}, {"instance": [1]}),
    ],
)
def test_a_line_names_its_instance_and_has_a_prediction_or_an_error(
    options: dict[str, Any], named: dict[str, Any]
) -> None:
    assert line(OK, {"id": "r", "a": 1}, **options) == {**named, "prediction": "said"}
    assert line(WRONG, {"id": "r", "a": 1}, **options) == {**named, "error": {"code": 3, "message": "no"}}


def test_a_rich_prediction_says_how_it_ended_and_what_it_took() -> None:
    usage = {"prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 7}
    assert line(OK, "a", rich=True)["prediction"] == {"text": "said", "finish_reason": "length", "usage": usage}
    two = Record(0, 0, Status.OK, ["a", {"b": 1}], "stop", 1, Usage(4, 3, 0))
    assert line(two, "a", 2, rich=True)["prediction"]["text"] == ["a", '{"b": 1}']


def test_an_answer_that_fails_the_instances_own_check_is_a_prediction_unless_that_is_strict() -> None:
    instance = {"prompt": "a", "guided_json": {"type": "object"}}
    assert line(MISFIT, instance)["prediction"] == "{}"
    assert line(MISFIT, instance, strict=True)["error"] == {"code": 9, "message": "no"}
    assert line(MISFIT, {"prompt": "a"})["error"] == {"code": 9, "message": "no"}


def test_a_line_that_could_not_be_read_has_its_line_all_the_same() -> None:
    broken = Answered(record_to_dict(WRONG), {}, Asked(), "demo", 0)
    assert Vertex(VertexSettings()).line(broken) == {"instance": None, "error": {"code": 3, "message": "no"}}
    assert Vertex(VertexSettings(key_field="id")).line(broken) == {"key": None, "error": {"code": 3, "message": "no"}}
