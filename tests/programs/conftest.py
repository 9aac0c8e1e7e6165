"""A program driven by hand: what it asks in, answers by a function, what it returns out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from llmbatch.core.types import (
    Accepted,
    Completion,
    Cursor,
    Failure,
    FailureKind,
    Prompt,
    RequestKey,
    Row,
    Sampling,
    Usage,
)
from llmbatch.programs.base import Ask, Need, PromptFacts, make_program


@dataclass
class Driven:
    """A row whose prompts are their names and what they are given; ``answer`` says the answer to each, or that it failed.

    The prompt ``unrenderable`` cannot be rendered, and ``several`` asks for two samples.
    """

    answer: Callable[[str, Mapping[str, Any], int], Any]
    data: Mapping[str, Any]
    settings: Any
    asked: list[str] = field(default_factory=list)
    asks: list[list[Ask | Failure]] = field(default_factory=list)  # by yield
    context_length = None

    @property
    def row(self) -> Row:
        return Row(0, "r", self.data, Cursor(0))

    def ask(self, prompt: str = "main", /, **extra: Any) -> Ask | Failure:
        given = {name: value for name, value in extra.items() if "." not in name}
        self.asked.append(prompt)
        if prompt == "unrenderable":
            return Failure(FailureKind.PROMPT, "no such field")
        samples = 2 if prompt == "several" else 1
        return Ask(Prompt(messages=({"role": prompt, "content": given},)), Sampling(), samples=samples)

    def tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text) for text in texts]

    def room(self, ask: Ask) -> int | None:
        return None

    def answers(self, ask: Ask | Failure) -> Any:
        if isinstance(ask, Failure):
            return None
        assert ask.prompt.messages is not None
        message = ask.prompt.messages[0]
        given = [self._sent(ask, self.answer(message["role"], message["content"], i)) for i in range(ask.samples)]
        return given if ask.samples > 1 else given[0]

    def _sent(self, ask: Ask, said: Any) -> Any:
        if isinstance(said, Failure):
            return said if ask.tells else None
        logprobs = [{"token": "x", "logprob": float(said)}] if isinstance(said, str) and said.startswith("-") else None
        return Accepted(said, Completion(RequestKey(0), str(said), "stop", Usage(10, 2), logprobs=logprobs))


@pytest.fixture
def run() -> Callable[..., tuple[Any, Driven]]:
    """Drive a program of the table: (name, settings, answers) -> (what it returns, what it asked)."""

    def run(
        name: str,
        settings: Mapping[str, Any],
        answer: Callable[[str, Mapping[str, Any], int], Any],
        data: Mapping[str, Any] | None = None,
        prompts: Mapping[str, PromptFacts] | None = None,
    ) -> tuple[Any, Driven]:
        known: Any = prompts or _Any()
        made = make_program(name, settings, known)
        row = Driven(answer, data or {}, made.settings)
        program = made.kind.shape(row)
        sent: Any = None
        while True:
            try:
                wanted = program.send(sent)
            except StopIteration as stop:
                return stop.value, row
            several = [wanted] if isinstance(wanted, Ask | Failure) else list(wanted)
            row.asks.append(several)
            answers = [row.answers(ask) for ask in several]
            sent = answers[0] if isinstance(wanted, Ask | Failure) else answers

    return run


class _Any(dict[str, PromptFacts]):
    """Prompts of every name, of which nothing is known but that they take an item and a response."""

    def __contains__(self, _name: object) -> bool:
        return True

    def __missing__(self, _name: str) -> PromptFacts:
        return PromptFacts({name: Need() for name in ("item", "response", "responses")}, {}, {})


@pytest.fixture
def problem() -> Callable[..., str]:
    """What is said of settings and prompts that do not fit, before there is a row; empty where nothing is."""

    def problem(name: str, settings: Mapping[str, Any], **prompts: PromptFacts) -> str:
        from llmbatch.core.errors import JobError

        try:
            make_program(name, settings, prompts)
        except JobError as error:
            return str(error)
        return ""

    return problem
