from __future__ import annotations

from llmbatch.prompt.advice import order_notes
from llmbatch.prompt.document import read_document
from llmbatch.prompt.file import PromptFile, parse_prompt

RULES = "Be brief. " * 40


def prompt(*messages: str) -> PromptFile:
    head = "name: p\nvariables: {text: {}, shots: {type: array, default: []}}\nmessages:\n"
    return parse_prompt(read_document(head + "".join(f"  - {message}\n" for message in messages), "p.yaml"))


def user(content: str) -> str:
    return f'{{role: user, content: "{content}"}}'


def test_the_row_s_text_last_needs_no_advice() -> None:
    assert order_notes(prompt(user(RULES), user("<text>{{ text }}</text> Answer now.")), ["text"]) == ()


def test_rules_behind_the_row_s_text_are_found() -> None:
    (note,) = order_notes(prompt(user("{{ text }}"), user(RULES)), ["text"])
    assert note.startswith(f"{len(RULES)} characters of constant text come after 'text'")


def test_a_value_that_is_the_same_for_every_row_does_not_count() -> None:
    assert order_notes(prompt(user("{{ text }}"), user(RULES)), []) == ()


def test_a_loop_over_rows_own_lists_counts_as_varying() -> None:
    loop = '{for: s, in: shots, messages: [{role: user, content: "{{ s }}"}]}'
    (note,) = order_notes(prompt(loop, user(RULES)), ["shots"])
    assert "'shots'" in note
    assert order_notes(prompt(loop, user(RULES)), ["text"]) == ()
