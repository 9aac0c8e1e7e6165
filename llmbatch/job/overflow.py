"""A request that the context does not hold in; the same made to fit as ``plan.overflow`` says, and what was done to it, out.

Nothing here is done for a request that fits: it begins where the fit check has said that one does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

from llmbatch.core.check import Check
from llmbatch.core.demand import Demands
from llmbatch.core.errors import JobError
from llmbatch.core.types import Failure, FailureKind, Message, Prompt, Request, Row
from llmbatch.core.words import near
from llmbatch.engines.thinking import BUDGET
from llmbatch.job.lengths import TOO_MANY, Lengths
from llmbatch.plan.cut import Cut, Truncation, cut, most_kept
from llmbatch.plan.fit import answer_room
from llmbatch.plan.window import PlanSettings
from llmbatch.programs.base import Ask, Program, RowAsk
from llmbatch.programs.chunked import Cutting, Text, chunked
from llmbatch.programs.chunks import splitter_of
from llmbatch.programs.line import Shortened
from llmbatch.prompt.base import RowPrompt

TRUNCATIONS: Mapping[str, Truncation] = {
    "truncate-head": "truncate-head",
    "truncate-tail": "truncate-tail",
    "truncate-middle": "truncate-middle",
}
_FULL = 0.95  # of the room, where the first cut is tried: its tokens may be longer than those of the sample
_SAMPLE = 2000  # characters by which the length of a token is measured


class Asker(Protocol):
    """One prompt of a job, see ``Step``."""

    template: RowPrompt

    @property
    def gives_text(self) -> bool: ...
    def ask(self, row: Row) -> Ask | Failure: ...


class Origin(NamedTuple):
    """What an ask was made from, so that it can be made again with less of the row's text."""

    asker: Asker
    row: Row
    check: Check | None


def keeps_origin(settings: PlanSettings) -> bool:
    """Whether what is asked must know its row, to be asked again with less of it."""
    return settings.overflow in TRUNCATIONS or settings.overflow == "chunk"


def check_overflow(settings: PlanSettings, program: str, prompts: Mapping[str, RowPrompt]) -> None:
    """Raises ``JobError`` where the job's prompts and program cannot be asked for less than a whole row as the settings say."""
    if settings.overflow == "chunk":
        if program != "single":
            raise JobError(
                f"plan.overflow=chunk asks a row's only prompt about each chunk, and the program {program} asks more than that: "
                "take the program map_reduce, which has a prompt for chunks and one for their answers, or one of "
                f"plan.overflow={', '.join(TRUNCATIONS)}"
            )
        splitter_of(settings.overflow_markup)
    if settings.overflow_field is None or not keeps_origin(settings):
        return
    variables = [variable for prompt in prompts.values() for variable in prompt.row_variables]
    named = [each for each in variables if settings.overflow_field in (each.name, each.field)]
    if not named:
        known = [each.name for each in variables]
        has = f"they have {', '.join(dict.fromkeys(known))}" if known else "rows bring them none"
        raise JobError(
            f"plan.overflow_field: no prompt of the job has a variable {settings.overflow_field!r} of its rows"
            f"{near(settings.overflow_field, known)}; {has}"
        )
    if not any(each.type in ("string", "any") for each in named):
        raise JobError(
            f"plan.overflow_field: {settings.overflow_field!r} is of type {named[0].type}, and only a text can be cut"
        )


def in_chunks(settings: PlanSettings) -> Callable[[RowAsk, Lengths], Program]:
    """The program of rows that are asked in chunks where they are too long."""

    def program(row: RowAsk, lengths: Lengths) -> Program:
        def text_of_ask(ask: Ask, failure: Failure) -> Text | Failure:
            if not lengths.known:
                return _unknown(settings, failure)
            return text_of(ask.origin, ask.prompt, settings.overflow_field) or _no_text(failure)

        cutting = Cutting(
            text_of_ask, settings.overflow_overlap, settings.overflow_markup, settings.overflow_min_tokens
        )
        return chunked(row, cutting)

    return program


class Overflow:
    """Makes requests fit: implements ``llmbatch.programs.work.Shorten``. May be called from several threads at a time."""

    def __init__(self, settings: PlanSettings, lengths: Lengths) -> None:
        self._settings = settings
        self._lengths = lengths
        # the samples of an ask are refused one by one, and have one prompt
        self._last: tuple[Request, Check | None, Shortened | Failure | None] | None = None

    def __call__(
        self, request: Request, failure: Failure, origin: Any, check: Check | None
    ) -> Shortened | Failure | None:
        if not self._lengths.known:
            return _unknown(self._settings, failure)
        known = self._last
        if known is None or known[1] is not check or not _alike(request, known[0]):
            known = self._last = (request, check, self._made(request, failure, origin, check))
        made = known[2]
        if not isinstance(made, Shortened):
            return made
        first = made.request
        same = replace(request, prompt=first.prompt, max_tokens=first.max_tokens, token_ids=None)
        return Shortened(same, made.check, made.said)

    def _made(
        self, request: Request, failure: Failure, origin: Origin | None, check: Check | None
    ) -> Shortened | Failure | None:
        used = self._lengths.used(request.prompt, request.target)
        answer = answer_room(Demands().of(request), self._settings.overflow_min_tokens)
        room = (self._lengths.context_length or 0) - answer  # of the prompt
        if used <= room:
            return None  # it was refused for another reason
        if self._settings.overflow == "shrink-output":
            return self._shrunk(request, failure, used, check)
        text = None if origin is None else text_of(origin, request.prompt, self._settings.overflow_field)
        if origin is None or text is None:
            return _no_text(failure)
        made = self._truncated(request, text, room, used)
        if made is None:
            return self._too_long(request, text, room, answer)
        if isinstance(made, Failure):
            return made
        # the program may have set a check of its own
        return made if check is origin.check else made._replace(check=check)

    def _shrunk(self, request: Request, failure: Failure, used: int, check: Check | None) -> Shortened | Failure | None:
        asked = request.max_tokens or request.sampling.get("max_tokens")
        if asked is None or request.target is not None:
            return None
        room = (self._lengths.context_length or 0) - used
        thinking = request.sampling.get(BUDGET) or 0  # and then an answer
        least = max(
            min(self._settings.overflow_min_tokens, asked), request.sampling.get("min_tokens") or 1, thinking + 1
        )
        if room < least:
            left = "none" if room < 1 else f"{room:,} tokens"
            return Failure(
                FailureKind.TOO_LONG,
                f"{failure.message}. plan.overflow=shrink-output: for the answer the prompt leaves {left}, and it is to have "
                f"{least:,} (plan.overflow_min_tokens)",
            )
        said = {"mode": "shrink-output", "prompt_tokens": used, "max_tokens": room, "asked_for": asked}
        return Shortened(replace(request, max_tokens=room), check, said)

    def _truncated(self, request: Request, text: Text, room: int, used: int) -> Shortened | Failure | None:
        """The request with the most of the text that fits in the room; None where nothing does."""
        where = TRUNCATIONS[self._settings.overflow]
        mark = self._settings.overflow_mark
        tried: dict[int, tuple[Ask | Failure, Cut, int]] = {}

        def free(keep: int) -> int:
            part = cut(text.text, keep, where, mark)
            ask = _of_pair(text.ask(part.text), request.prompt)
            # what is left is blank, or no value of an enum: more of it may do
            tokens = 0 if isinstance(ask, Failure) else self._lengths.used(ask.prompt, request.target)
            tried[keep] = ask, part, tokens
            return room - tokens

        if room < 1:
            return None
        sample = cut(text.text, _SAMPLE, where).text
        per_token = len(sample) / max(1, self._lengths.tokens([sample])[0])
        kept = most_kept(len(text.text), int(room * per_token * _FULL), per_token, free)
        if not kept:
            return None
        ask, part, left = tried[kept]
        if isinstance(ask, Failure):
            return ask
        said = {
            "mode": where,
            "field": text.field,
            "characters": len(text.text),
            "removed": [part.start, part.end],
            "prompt_tokens": left,
            "removed_tokens": used - left if used < TOO_MANY else None,
        }
        return Shortened(replace(request, prompt=ask.prompt, token_ids=None), ask.check, said)

    def _too_long(self, request: Request, text: Text, room: int, answer: int) -> Failure:
        """Why no part of the text would do: what is too long besides it."""
        least = _of_pair(text.ask(text.text.strip()[:1] or " "), request.prompt)
        others = 0 if isinstance(least, Failure) else self._lengths.used(least.prompt, request.target) - 1
        asked = "max_tokens" if answer == (request.max_tokens or request.sampling.get("max_tokens")) else "the answer"
        held = f"{asked} = {answer:,} and " if answer else ""
        return Failure(
            FailureKind.TOO_LONG,
            f"the context of {room + answer:,} tokens does not hold {held}the prompt without the text "
            f"{text.field!r}, about {others:,} tokens, however much of that text is cut: shorten the prompt, lower "
            "sampling.max_tokens, or give the engine a larger context",
        )


def text_of(origin: Origin, prompt: Prompt, field: str | None) -> Text | None:
    """The text of the row that may be cut: the longest that the prompt takes from it, or the one called ``field`` where it does.

    Of messages that the row brings as they are it is the longest of the user; None where there is no text.
    """
    asker, row = origin.asker, origin.row
    texts: dict[str, str] = {}
    for variable in asker.template.row_variables:
        value = row.data.get(variable.field)
        if isinstance(value, str) and value:
            texts[variable.field] = value
            if field in (variable.name, variable.field):
                texts = {variable.field: value}
                break
    if texts:
        name = max(texts, key=lambda each: len(texts[each]))

        def ask(text: str) -> Ask | Failure:
            return asker.ask(Row(row.index, row.id, {**row.data, name: text}, row.cursor))

        return Text(name, texts[name], asker.gives_text, ask)
    return _of_messages(origin, prompt) if asker.template.ready_made else None


def _of_messages(origin: Origin, prompt: Prompt) -> Text | None:
    def asking(make: Callable[[str], Prompt]) -> Callable[[str], Ask | Failure]:
        def ask(text: str) -> Ask | Failure:
            asked = origin.asker.ask(origin.row)
            return asked if isinstance(asked, Failure) else replace(asked, prompt=make(text))

        return ask

    free = origin.asker.gives_text
    messages = prompt.messages
    if prompt.ids is not None:
        return None
    if messages is None:
        return Text("prompt", prompt.text or "", free, asking(lambda text: replace(prompt, text=text)))
    lengths = {
        number: len(message["content"])
        for number, message in enumerate(messages)
        if message.get("role") == "user" and isinstance(message["content"], str)
    }
    if not any(lengths.values()):
        return None
    number = max(lengths, key=lambda each: lengths[each])

    def with_content(text: str) -> Prompt:
        changed: Message = {**messages[number], "content": text}
        return replace(prompt, messages=(*messages[:number], changed, *messages[number + 1 :]))

    return Text(f"messages[{number}].content", messages[number]["content"], free, asking(with_content))


def _of_pair(ask: Ask | Failure, prompt: Prompt) -> Ask | Failure:
    """What is asked with less text: of a pair it is the second text that is made anew."""
    if isinstance(ask, Failure) or prompt.pair is None:
        return ask
    return replace(ask, prompt=replace(prompt, pair=ask.prompt.text))


def _alike(request: Request, other: Request) -> bool:
    """Whether they are samples of one ask."""
    return (
        request.prompt is other.prompt
        and request.sampling is other.sampling
        and (request.max_tokens, request.target) == (other.max_tokens, other.target)
    )


def _no_text(failure: Failure) -> Failure:
    said = (
        "there is no text of the row to cut: neither a variable of the prompt that is text, nor a message of the user"
    )
    return Failure(FailureKind.TOO_LONG, f"{failure.message}; {said}")


def _unknown(settings: PlanSettings, failure: Failure) -> Failure:
    said = "what fits cannot be known, as the engine does not tell its context length or token ids"
    return Failure(FailureKind.TOO_LONG, f"{failure.message}; plan.overflow={settings.overflow} was not tried: {said}")


__all__ = ["Origin", "Overflow", "check_overflow", "in_chunks", "keeps_origin", "text_of"]
