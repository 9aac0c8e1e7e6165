from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Environment, StrictUndefined

from llmbatch.core.errors import PromptError
from llmbatch.core.sandbox import (
    MAX_CHARACTERS,
    RenderError,
    compile_condition,
    compile_expression,
    compile_text,
    pieces_in_order,
    used_variables,
)

ANY = {"x": "any", "y": "any", "n": "any", "text": "string"}


def written(source: str, **values: Any) -> str:
    return compile_text(source, ANY, "p.yaml", 1).render(values)


@pytest.mark.parametrize("kind", ["string", "any"])
def test_template_code_in_a_value_stays_text(kind: str) -> None:
    code = "{{ 7 * 7 }} {% for x in y %} {# c #}"
    assert compile_text("<{{ x }}>", {"x": kind}, "p.yaml", 1).render({"x": code}) == f"<{code}>"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        ([1, "é", None], '[1, "é", null]'),
        ({"a": "<'>"}, '{"a": "<\'>"}'),
        (1.5, "1.5"),
        ((1, 2), "[1, 2]"),
    ],
)
def test_a_value_is_written_as_json_where_it_is_no_text(value: object, text: str) -> None:
    assert written("{{ x }}", x=value) == text


def test_the_tojson_filter_writes_plain_json() -> None:
    assert written("{{ x | tojson }}", x={"a": "<é'>"}) == '{"a": "<é\'>"}'


def test_a_null_that_is_written_out_is_an_error() -> None:
    with pytest.raises(RenderError, match="null"):
        written("{{ x }}", x=None)


def test_a_row_s_key_goes_before_a_method_of_the_same_name() -> None:
    assert written("{{ x.items }} {{ x.keys() | list }}", x={"items": "apples"}) == 'apples ["items"]'


def test_a_missing_key_is_an_error_that_names_it_and_its_line() -> None:
    text = compile_text("one\ntwo {{ x.y }}", ANY, "p.yaml", 10)
    with pytest.raises(RenderError, match="'y'") as caught:
        text.render({"x": {}})
    assert caught.value.line == 11


@pytest.mark.parametrize(
    "source",
    [
        "{{ x.__class__ }}",
        "{{ x['__class__'] }}",
        "{{ x | attr('__class__') }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ range.__globals__ }}",
        "{{ x.append(1) }}",
        "{{ '{0.__class__}'.format(x) }}",
        "{{ ('{0.__class__}' | attr('format'))(x) }}",
        "{{ '{x.__class__}'.format_map({'x': x}) }}",
        "{{ 'x' * 10 ** 10 }}",
        "{{ 10 ** 10 * 'x' }}",
        "{{ [0] * 10 ** 10 }}",
        "{{ 10 ** (10 ** 10) }}",
        "{{ range(10 ** 9) | list }}",
        "{{ '%999999999d' % 1 }}",
        "{{ 'x'.ljust(10 ** 10) }}",
        "{{ 'x'.zfill(10 ** 10) }}",
        "{{ x | map('upper') }}",
        "{{ x.pop }}",
    ],
)
def test_what_reaches_out_or_explodes_is_an_error(source: str) -> None:
    with pytest.raises(RenderError):
        written(source, x=[1])


@pytest.mark.parametrize("source", ["{{ lipsum() }}", "{{ cycler('a') }}", "{{ x | urlize }}", "{{ x | center(9) }}"])
def test_what_a_prompt_does_not_need_is_not_there(source: str) -> None:
    with pytest.raises(PromptError, match=r"p.yaml:1"):
        compile_text(source, {"x": "any"}, "p.yaml", 1)


def test_a_text_that_grows_without_end_is_cut_short() -> None:
    with pytest.raises(RenderError, match="longer than"):
        written(
            "{% for a in range(100000) %}{% for b in range(100000) %}{{ x }}{% endfor %}{% endfor %}", x="x" * 10**6
        )


def test_a_value_that_is_too_long_is_an_error_in_a_plain_text_too() -> None:
    with pytest.raises(RenderError, match="longer than"):
        compile_text("{{ x }}{{ x }}", {"x": "string"}, "p.yaml", 1).render({"x": "x" * (MAX_CHARACTERS // 2 + 1)})


@pytest.mark.parametrize("kind", ["string", "any"])
def test_half_a_surrogate_pair_is_an_error(kind: str) -> None:
    with pytest.raises(RenderError, match="surrogate"):
        compile_text("{{ x }}", {"x": kind}, "p.yaml", 1).render({"x": "a\ud83d"})


def test_ordinary_arithmetic_and_repetition_work() -> None:
    assert written("{{ n * 2 }} {{ n ** 2 }} {{ n % 2 }} {{ '-' * n }}", n=3) == "6 9 1 ---"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("one\n{{ x", r"p.yaml:6: the template is wrong"),
        ("one\n{{ z }}", r"p.yaml:6: the variable 'z' is not declared under variables; declared are x, y, n, text"),
        ("{{ txt }}", r"\(did you mean 'text'\?\)"),
        ("{{ x | nofilter }}", r"p.yaml:5: the template is wrong: No filter named 'nofilter'"),
        ("{% include 'other' %}", "p.yaml:5: a prompt is one file"),
        ("{% from 'other' import x %}{{ x }}", "p.yaml:5: a prompt is one file"),
        ("{{ " + "(" * 5000 + " }}", "p.yaml:5: "),
        ("{% for a in x %}" * 30 + "{% endfor %}" * 30, "p.yaml:5: the template is nested too deeply"),
    ],
)
def test_a_mistake_is_found_when_compiled(source: str, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        compile_text(source, ANY, "p.yaml", 5)


def test_names_that_a_text_sets_itself_need_no_declaration() -> None:
    text = compile_text("{% set a = x %}{% for b in [a] %}{{ b }}{{ loop.index }}{% endfor %}", ANY, "p.yaml", 1)
    assert text.names == {"x"}
    assert text.render({"x": "v"}) == "v1"


def test_one_line_break_at_the_end_and_those_after_blocks_are_not_text() -> None:
    assert written("a\n{% if x %}\nb\n{% endif %}\nc\n", x=1) == "a\nb\nc"


def test_a_text_whose_values_are_all_given_is_constant() -> None:
    text = compile_text("{{ x }} and {{ y }}", ANY, "p.yaml", 1)
    assert text.given({"x": 1}).constant is None
    assert text.given({"x": 1, "y": 2}).constant == "1 and 2"


def test_pieces_come_in_the_order_written() -> None:
    source = "ab{{ x }}c{% if y %}{{ text | upper }}{% endif %}d"
    assert list(pieces_in_order(source)) == [2, "x", 1, "y", "text", 1]
    assert used_variables(source, "p") == ["text", "x", "y"]


PIECES = st.lists(st.sampled_from(["{{ a }}", "{{b}}", "100% of\n", "%s", "é\n", "{# c #}", "{{ n }}"]), max_size=6)


@given(PIECES, st.text(), st.text(), st.integers() | st.floats(allow_nan=False))
def test_the_quick_way_writes_what_jinja_writes(pieces: list[str], a: str, b: str, n: float) -> None:
    source = "".join(pieces)
    jinja = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)  # noqa: S701
    values = {"a": a, "b": b, "n": n}
    expected = jinja.from_string(source).render(values)
    for kind in ("string", "any"):
        assert compile_text(source, {"a": kind, "b": kind, "n": "number"}, "p.yaml", 1).render(values) == expected


def test_a_variable_of_any_type_is_written_as_json_where_it_is_no_text() -> None:
    text = compile_text("{{ x }}!", {"x": "any"}, "p.yaml", 1)
    found = [text.render({"x": value}) for value in ("a", 1, True, ["a", None], {"b": "c"})]
    assert found == ["a!", "1!", "true!", '["a", null]!', '{"b": "c"}!']
    with pytest.raises(RenderError, match="is null"):
        text.render({"x": None})


@given(st.text(alphabet="{}%#x y|.'\"()[]~*\n-") | st.text())
def test_any_source_is_a_text_or_a_prompt_error(source: str) -> None:
    try:
        text = compile_text(source, ANY, "p.yaml", 1)
    except PromptError:
        return
    try:
        assert isinstance(text.render({"x": "v", "y": [1], "n": 2, "text": "t"}), str)
    except RenderError:
        return


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("output.score >= 4", True),
        ("'b' in output.text", True),
        ("output.text|length > 3", False),
        ("not output.score", False),
    ],
)
def test_a_condition_says_whether_it_holds(condition: str, holds: bool) -> None:
    assert compile_condition(condition)({"output": {"score": 4, "text": "abc"}}) is holds


@pytest.mark.parametrize(
    "condition", ["output.scoer > 1", "output.score > 'x'", "missing", "output.__class__.__mro__", "'a' * 10 ** 9"]
)
def test_what_a_condition_cannot_decide_is_an_error_of_the_row(condition: str) -> None:
    with pytest.raises(RenderError):
        compile_condition(condition)({"output": {"score": 4}})


@pytest.mark.parametrize("condition", ["", "output >", "output) or (1", "{{ output }}", "a b"])
def test_a_condition_that_is_wrong_is_an_error_of_the_author(condition: str) -> None:
    with pytest.raises(PromptError, match=r"the condition .* is wrong"):
        compile_condition(condition)


def value_of(source: str, **values: Any) -> Any:
    return compile_expression(source).value(values)


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("x.score >= 4 and y == 'yes'", True),
        ("x.nothing", None),
        ("x.nothing | default('other')", "other"),
        ("x.score if x.score is defined", 5),
        ("{'a': x.score, 'b': (1, 2)}", {"a": 5, "b": [1, 2]}),
        ("[y] | map('upper')", ["YES"]),
        ("y", "yes"),
    ],
)
def test_an_expression_gives_what_json_has(source: str, value: Any) -> None:
    assert value_of(source, x={"score": 5}, y="yes") == value


@pytest.mark.parametrize("source", ["x.score < y", "x.nothing > 3", "x.nothing.more", "x.items", "y * 10 ** 9"])
def test_an_expression_that_cannot_be_told_is_a_render_error(source: str) -> None:
    with pytest.raises(RenderError):
        value_of(source, x={"score": 5}, y="yes")


@pytest.mark.parametrize("source", ["x ==", "x }} {{ y", ")+(", "{% if x %}"])
def test_an_expression_with_a_mistake_is_refused(source: str) -> None:
    with pytest.raises(PromptError, match=r"the expression .* is wrong"):
        compile_expression(source)


def test_an_expression_knows_what_it_looks_at_and_inside_of_it() -> None:
    found = compile_expression("x.a > 1 and y['b'] and n.c is defined and (text.d | default('')) and range(3)")
    assert found.names == {"x", "y", "n", "text"}
    assert found.parts == {("x", "a"), ("y", "b")}, "what may be missing is not needed"
    assert compile_text("{{ x.a }} {% for i in y.items %}{{ i.b }}{% endfor %}", ANY, "p", 1).parts == {
        ("x", "a"), ("y", "items"), ("i", "b")
    }  # fmt: skip
