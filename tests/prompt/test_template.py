from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbatch.core.errors import PromptError
from llmbatch.core.types import Cursor, Failure, FailureKind, Rendered, Row
from llmbatch.prompt.base import PromptSettings
from llmbatch.prompt.template import PromptTemplate, load_prompt


def template(tmp_path: Path, text: str, **settings: Any) -> PromptTemplate:
    path = tmp_path / "p.yaml"
    path.write_text(text, encoding="utf-8")
    return load_prompt(PromptSettings(path=str(path), **settings))


def row(**data: Any) -> Row:
    return Row(3, "r3", data, Cursor(3))


def messages(prompt: PromptTemplate, **data: Any) -> list[tuple[str, str]]:
    rendered = prompt.render(row(**data))
    assert isinstance(rendered, Rendered), rendered
    return [(message["role"], message["content"]) for message in rendered.prompt.messages or ()]


def failure(prompt: PromptTemplate, **data: Any) -> Failure:
    rendered = prompt.render(row(**data))
    assert isinstance(rendered, Failure), rendered
    return rendered


TRANSLATE = """
name: t
variables:
  text: {}
  language: {default: French, enum: [French, German]}
messages:
  - {role: system, content: "To {{ language }}."}
  - {role: user, content: "{{ text }}"}
"""


def test_a_row_s_value_goes_before_the_default_and_the_job_s_before_both(tmp_path: Path) -> None:
    assert messages(template(tmp_path, TRANSLATE), text="a") == [("system", "To French."), ("user", "a")]
    assert messages(template(tmp_path, TRANSLATE), text="a", language="German")[0] == ("system", "To German.")
    given_by_job = template(tmp_path, TRANSLATE, variables={"language": "German"})
    assert messages(given_by_job, text="a", language="French")[0] == ("system", "To German.")


def test_a_message_that_no_row_changes_is_one_object(tmp_path: Path) -> None:
    prompt = template(tmp_path, TRANSLATE, variables={"language": "German"})
    first, second = prompt.render(row(text="a")), prompt.render(row(text="b"))
    assert isinstance(first, Rendered)
    assert isinstance(second, Rendered)
    assert first.prompt.messages is not None
    assert second.prompt.messages is not None
    assert first.prompt.messages[0] is second.prompt.messages[0]


def test_a_row_s_field_of_another_name_can_be_mapped(tmp_path: Path) -> None:
    assert messages(template(tmp_path, TRANSLATE, fields={"text": "body"}), body="b", text=5)[1] == ("user", "b")


def test_a_variable_of_the_job_s_scope_is_not_taken_from_a_field_of_its_name_unless_mapped(tmp_path: Path) -> None:
    text = "name: p\nvariables: {text: {}, question: {scope: job, default: Why}}\ntext: '{{ question }} {{ text }}'\n"
    rendered = template(tmp_path, text).render(row(text="a", question="Who?"))
    assert isinstance(rendered, Rendered)
    assert rendered.prompt.text == "Why a"
    mapped = template(tmp_path, text, fields={"question": "question"}).render(row(text="a", question="Who?"))
    assert isinstance(mapped, Rendered)
    assert mapped.prompt.text == "Who? a"


def test_a_row_that_lacks_a_variable_is_a_failure_that_names_both(tmp_path: Path) -> None:
    assert "row 'r3': the variable 'text' is missing" in failure(template(tmp_path, TRANSLATE), body="a").message


def test_a_row_that_could_not_be_read_keeps_its_own_failure(tmp_path: Path) -> None:
    broken = Failure(FailureKind.MALFORMED_ROW, "line 3: not JSON")
    assert template(tmp_path, TRANSLATE).render(Row(3, 3, {}, Cursor(3), broken)) is broken


SHOTS = """
name: p
variables:
  shots: {type: array, default: [{q: 1, a: 2}], scope: %s}
  text: {}
messages:
  - for: shot
    in: shots
    messages:
      - {role: user, content: "{{ shot.q }}"}
      - {role: assistant, content: "{{ shot.a }}"}
  - {role: user, content: "{{ text }}"}
"""


@pytest.mark.parametrize("scope", ["row", "job"])
def test_a_loop_gives_its_messages_once_for_each_item(tmp_path: Path, scope: str) -> None:
    assert messages(template(tmp_path, SHOTS % scope), text="t") == [("user", "1"), ("assistant", "2"), ("user", "t")]


def test_a_loop_over_a_row_s_own_list_works(tmp_path: Path) -> None:
    prompt = template(tmp_path, SHOTS % "row")
    assert messages(prompt, text="t", shots=[]) == [("user", "t")]
    assert [m[1] for m in messages(prompt, text="t", shots=[{"q": "a", "a": "b"}, {"q": "c", "a": "d"}])] == list(
        "abcdt"
    )


def test_an_error_while_rendering_names_row_file_and_line(tmp_path: Path) -> None:
    found = failure(template(tmp_path, SHOTS % "row"), text="t", shots=[{"q": 1}])
    assert found.kind is FailureKind.PROMPT
    assert found.message.startswith("row 'r3': ")
    assert "p.yaml:11: 'dict object' has no attribute 'a'" in found.message


def test_an_error_in_what_the_job_gives_is_an_error_of_the_prompt(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"p.yaml:11: .*no attribute 'a'"):
        template(tmp_path, SHOTS % "row", variables={"shots": [{"q": 1}]})


def test_a_mistake_in_a_block_scalar_is_found_on_its_own_line(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"p.yaml:7: the variable 'txt' is not declared"):
        template(
            tmp_path,
            "name: p\nvariables: {text: {}}\nmessages:\n  - role: user\n    content: |\n      a\n      {{ txt }}\n",
        )


def test_a_prompt_that_comes_out_blank_is_a_failure(tmp_path: Path) -> None:
    prompt = template(tmp_path, "name: p\nvariables: {a: {default: ''}}\ntext: ' {{ a }}\n\n '\n")
    assert failure(prompt).kind is FailureKind.EMPTY_PROMPT
    blank_user = TRANSLATE.replace("text: {}", "text: {default: ''}")
    assert failure(template(tmp_path, blank_user)).kind is FailureKind.EMPTY_PROMPT


def test_text_prefill_and_lora_are_rendered(tmp_path: Path) -> None:
    text = "name: p\nvariables: {a: {}, who: {default: null}}\ntext: 'Q: {{ a }}'\nprefill: '{{ a }}='\nlora: '{{ who or \"\" }}'\n"
    prompt = template(tmp_path, text)
    rendered = prompt.render(row(a="x", who="anna"))
    assert isinstance(rendered, Rendered)
    assert (rendered.prompt.text, rendered.prompt.prefill, rendered.lora) == ("Q: x", "x=", "anna")
    without = prompt.render(row(a="x"))
    assert isinstance(without, Rendered)
    assert without.lora is None


def test_ready_messages_pass_through(tmp_path: Path) -> None:
    prompt = load_prompt(PromptSettings(path="passthrough", fields={"messages": "chat"}))
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "{{ x }}"}]
    assert messages(prompt, chat=chat) == [("system", "s"), ("user", "{{ x }}")]
    assert "message 1 of 1 has the role 'usr'" in failure(prompt, chat=[{"role": "usr", "content": "x"}]).message
    assert failure(prompt, chat=[{"role": "user", "content": " "}]).kind is FailureKind.EMPTY_PROMPT
    assert "of type string" in failure(prompt, chat="hello").message


CHOICE = "name: p\nvariables: {text: {}, labels: {type: array}}\ntext: '{{ labels }} {{ text }}'\noutput: {choice_from: labels}\n"


def test_a_choice_can_be_given_by_the_job(tmp_path: Path) -> None:
    prompt = template(tmp_path, CHOICE, variables={"labels": ["a", "b"]})
    assert prompt.output == {"choice": ["a", "b"]}
    rendered = prompt.render(row(text="t", labels=["c"]))
    assert isinstance(rendered, Rendered)
    assert rendered.prompt.text == '["a", "b"] t'


def test_a_choice_cannot_come_from_rows(tmp_path: Path) -> None:
    with pytest.raises(
        PromptError, match=r"needs the variable 'labels' for the whole job: give it with --var labels=VALUE"
    ):
        template(tmp_path, CHOICE)
    with pytest.raises(PromptError, match="'labels' has one value for all rows"):
        template(tmp_path, CHOICE, fields={"labels": "labels"})


@pytest.mark.parametrize("labels", [[], ["a", "a"], ["a", 1], [""]])
def test_a_choice_must_be_different_texts(tmp_path: Path, labels: list[Any]) -> None:
    with pytest.raises(PromptError, match="'labels' must be a list of different texts"):
        template(tmp_path, CHOICE, variables={"labels": labels})


def test_a_value_from_the_command_line_is_read_as_the_variable_s_type(tmp_path: Path) -> None:
    assert template(tmp_path, CHOICE, variables={"labels": "[no, 10:30]"}).output == {"choice": ["no", "10:30"]}
    (tmp_path / "labels.json").write_text('["x", "y"]')
    assert template(tmp_path, CHOICE, variables={"labels": f"@{tmp_path}/labels.json"}).output == {"choice": ["x", "y"]}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variables": {"lang": "German"}}, r"has no variable 'lang'.*; it has text, language"),
        ({"fields": {"txt": "body"}}, r"has no variable 'txt' \(did you mean 'text'\?\)"),
        ({"variables": {"language": "Klingon"}}, "the variable 'language' is 'Klingon', and must be one of"),
        ({"variables": {"language": 5}}, "the variable 'language' is of type integer"),
        ({"variables": {"language": "German"}, "fields": {"language": "l"}}, "'language' has one value for all rows"),
    ],
)
def test_a_wrong_setting_is_an_error(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        template(tmp_path, TRANSLATE, **settings)


def test_a_json_file_is_read_as_json(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text('[\n\t"\\ud83d\\ude00",\n\t"b"\n]')
    assert template(tmp_path, CHOICE, variables={"labels": f"@{tmp_path}/labels.json"}).output == {
        "choice": ["😀", "b"]
    }


def test_the_text_for_the_digest_changes_with_the_content_of_a_variable_s_file(tmp_path: Path) -> None:
    file = tmp_path / "labels.json"
    texts = []
    for labels in ('["x"]', '["y"]', '["y"]'):
        file.write_text(labels)
        texts.append(template(tmp_path, CHOICE, variables={"labels": f"@{file}"}).text)
    assert texts[0] != texts[1] == texts[2]


def test_a_file_for_a_variable_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"'labels' cannot be read from missing\.json"):
        template(tmp_path, CHOICE, variables={"labels": "@missing.json"})


def test_an_inline_text_is_a_prompt_whose_variables_are_the_row_s_fields() -> None:
    prompt = load_prompt(PromptSettings(path="Sum up {{ title }}: {{ body.text }}"))
    assert messages(prompt, title="T", body={"text": "b"}) == [("user", "Sum up T: b")]
    assert "the variable 'title' is missing" in failure(prompt, body={}).message


def test_sampling_output_and_unused_variables_are_told(tmp_path: Path) -> None:
    text = "name: p\nvariables: {a: {}, b: {}}\ntext: '{{ a }}'\nsampling: {logit_bias: {'7': -1}}\noutput: {regex: 'x+'}\n"
    prompt = template(tmp_path, text)
    assert prompt.sampling == {"logit_bias": {7: -1.0}}
    assert prompt.output == {"regex": "x+"}
    assert prompt.unused == ("b",)
    assert [variable.name for variable in prompt.row_variables] == ["a"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda v: st.lists(v) | st.dictionaries(st.text(), v),
)


@given(
    st.dictionaries(st.sampled_from(["text", "max_words", "focus", "messages", "x"]), VALUES),
    st.sampled_from(["summarize", "passthrough"]),
)
def test_any_row_is_a_prompt_or_a_failure(data: dict[str, Any], name: str) -> None:
    result = PROMPTS[name].render(Row(0, "r", data, Cursor(0)))
    assert isinstance(result, (Rendered, Failure))
    if isinstance(result, Failure):
        assert result.message.startswith("row 'r'")


PROMPTS = {name: load_prompt(PromptSettings(path=name)) for name in ("summarize", "passthrough")}
