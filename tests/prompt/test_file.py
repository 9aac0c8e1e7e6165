from __future__ import annotations

import pytest

from llmbatch.core.errors import PromptError
from llmbatch.prompt.document import read_document
from llmbatch.prompt.file import PromptFile, parse_prompt

HEAD = "name: p\nvariables:\n  text: {type: string}\n"
MESSAGES = 'messages:\n  - {role: user, content: "{{ text }}"}\n'


def parse(text: str) -> PromptFile:
    return parse_prompt(read_document(text, "p.yaml"))


def test_a_small_prompt_is_read() -> None:
    file = parse(HEAD + MESSAGES + "sampling: {temperature: 0}\n")
    assert file.variables["text"].required
    assert file.sampling == {"temperature": 0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", r"p.yaml:1:1: a prompt file is a mapping"),
        ("name: p\n", "has one of messages, messages_from and text; this one has none"),
        (HEAD + MESSAGES + "text: x\n", "p.yaml:6:1: .* has messages and text"),
        ("name: P!\ntext: x\n", "p.yaml:1:1: the name 'P!' must be lower-case"),
        ("text: x\n", "p.yaml:1:1: the key 'name' is missing"),
        (
            HEAD + MESSAGES + "samplng: {}\n",
            r"p.yaml:6:1: unknown key 'samplng' \(did you mean 'sampling'\?\); known are name",
        ),
        (HEAD + "messages:\n  - {role: usr, content: x}\n", r"p.yaml:5:6: messages.0.role: .* not 'usr'"),
        (
            HEAD + "messages:\n  - {role: user, contnt: x}\n",
            r"p.yaml:5:18: unknown key 'contnt' \(did you mean 'content'\?\)",
        ),
        (HEAD + "messages:\n  - {for: x, messages: []}\n", "the key 'in' is missing"),
        (HEAD + "messages: []\n", "p.yaml:4:1: messages: "),
        (HEAD + MESSAGES + "output: {}\n", "p.yaml:6:1: output has one of"),
        (HEAD + MESSAGES + "output: {regex: a, choice: [b]}\n", "p.yaml:6:1: output has one of"),
        (HEAD + MESSAGES + "output: {choice: [a, a]}\n", "a choice is given twice"),
        (HEAD + MESSAGES + "output: {choice_from: labels}\n", "p.yaml:6:10: the variable 'labels' is not declared"),
        (HEAD + MESSAGES + "output: {choice_from: text}\n", "the variable 'text' must be of type array"),
        (HEAD + "messages_from: text\n", "the variable 'text' must be of type array"),
        (
            HEAD + "messages:\n  - {for: s, in: shots, messages: [{role: user, content: x}]}\n",
            "'shots' is not declared",
        ),
        (
            HEAD + MESSAGES + "sampling: {temprature: 0}\n",
            r"'temprature' is no sampling setting \(did you mean 'temperature'\?\)",
        ),
        (
            HEAD + MESSAGES + "sampling: {top_p: high}\n",
            "p.yaml:6:12: 'top_p' is of type string .* must be of type number",
        ),
        (HEAD + MESSAGES + "sampling: {logit_bias: {a: 1}}\n", "logit_bias maps token ids to numbers"),
        ("name: p\nvariables:\n  a-b: {}\ntext: x\n", "p.yaml:3:3: 'a-b' cannot be a variable"),
        ("name: p\nvariables:\n  range: {}\ntext: x\n", "'range' cannot be a variable"),
        ("name: p\nvariables:\n  n: {type: integer, default: many}\ntext: x\n", "the default is of type string"),
        ("name: p\nvariables:\n  n: {type: integer, enum: [1, b]}\ntext: x\n", "'b' in enum is not of type integer"),
        (
            "name: p\nvariables:\n  n: {enum: [a, b], default: c}\ntext: x\n",
            "the default is 'c', and must be one of 'a', 'b'",
        ),
        ("name: p\nvariables:\n  n: {type: text}\ntext: x\n", "p.yaml:3:7: variables.n.type"),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        parse(text)


def test_a_loop_s_item_may_not_hide_a_variable() -> None:
    loop = "messages:\n  - {for: text, in: xs, messages: [{role: user, content: x}]}\n"
    with pytest.raises(PromptError, match=r"p.yaml:4:6: 'text' cannot name the loop's item"):
        parse("name: p\nvariables: {text: {}, xs: {type: array}}\n" + loop)


def test_several_mistakes_are_told_at_once() -> None:
    with pytest.raises(PromptError) as caught:
        parse("name: 1\ntext: 2\n")
    assert len(str(caught.value).splitlines()) == 2


def test_a_default_of_null_makes_a_variable_optional() -> None:
    assert not parse("name: p\nvariables: {a: {type: object, default: null}}\ntext: x\n").variables["a"].required
