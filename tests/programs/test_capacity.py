"""What a prompt holds, measured by a row whose tokens are words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from llmbatch.core.types import Cursor, Failure, FailureKind, Prompt, Row, Sampling
from llmbatch.programs.base import Ask
from llmbatch.programs.capacity import Capacity, answer_tokens, capacity_of, room_of

ROW = Row(0, "r", {}, Cursor(0))
TEXT = " ".join(["word "] * 400)


@dataclass
class Words:
    context_length: int | None = 1000
    most: int | None = 100
    settings: Any = None
    row: Row = ROW
    rooms: int = 0  # how often it was asked for one

    def asked(self, text: str) -> Ask:
        return Ask(Prompt(text=text), Sampling(() if self.most is None else (("max_tokens", self.most),)))

    def ask(self, prompt: str = "main", /, **extra: Any) -> Ask | Failure:
        raise NotImplementedError  # what is measured here is given as an ask already

    def tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def room(self, ask: Ask) -> int | None:
        self.rooms += 1
        used = len((ask.prompt.text or "").split()) + (self.most or 1)
        return None if self.context_length is None else self.context_length - used


def template(row: Words, form: str, between: str = " ", times: int = 1) -> Callable[[Sequence[str]], Ask]:
    return lambda texts: row.asked(form.format(between.join(texts * times)))


@pytest.mark.parametrize(
    ("form", "between", "times", "capacity"),
    [
        ("{}", " ", 1, Capacity(1000 - 200 - 16, 1.0, 0)),
        ("please do this: {}", " ", 1, Capacity(1000 - 200 - 16 - 3, 1.0, 0)),
        ("{}", " ", 2, Capacity(1000 - 200 - 16, 2.0, 0)),
        ("say {}", " and then ", 1, Capacity(1000 - 200 - 16 - 1 + 2, 1.0, 2)),
    ],
)
def test_what_a_prompt_holds_is_what_is_left_beside_its_words_and_its_answer_which_may_be_cut_off_once(
    form: str, between: str, times: int, capacity: Capacity
) -> None:
    row = Words()
    assert capacity_of(row, template(row, form, between, times), TEXT) == capacity


def test_the_longest_text_that_fits_costs_no_more_than_the_room() -> None:
    for capacity in (Capacity(100, 1.0, 7), Capacity(99, 2.0, 0), Capacity(101, 1.3, 5)):
        assert capacity.cost(capacity.longest) <= capacity.room < capacity.cost(capacity.longest + 2)
    assert Capacity(3, 1.0, 7).longest < 1


def test_a_prompt_that_makes_one_of_all_texts_is_measured_twice() -> None:
    row = Words()
    capacity_of(row, template(row, "{}"), TEXT)
    assert row.rooms == 2


@pytest.mark.parametrize(
    ("most", "answer", "kept"), [(100, 100, 200), (240, 240, 250), (400, 400, 400), (900, 500, 500), (None, 500, 500)]
)
def test_an_answer_has_its_max_tokens_but_at_most_half_of_the_context(most: int | None, answer: int, kept: int) -> None:
    row = Words(most=most)
    assert answer_tokens(row, row.asked("")) == answer
    assert room_of(row, row.asked("three words here")) == 1000 - 3 - answer
    measured = capacity_of(row, template(row, "{}"), TEXT)
    assert isinstance(measured, Capacity) and measured.room == 1000 - kept - 16


def test_nothing_is_known_where_only_a_server_knows_its_context() -> None:
    row = Words(context_length=None)
    assert capacity_of(row, template(row, "{}"), TEXT) is None
    assert room_of(row, row.asked("")) is None


def test_a_prompt_that_cannot_be_rendered_has_no_capacity() -> None:
    failure = Failure(FailureKind.PROMPT, "no such field")
    assert capacity_of(Words(), lambda _texts: failure, TEXT) == failure
