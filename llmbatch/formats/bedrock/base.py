"""The contract of a family of models on Bedrock: its body in, what it asks for out; an answer in, its reply out. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from llmbatch.core.fast_dataclass import fast_dataclass
from llmbatch.core.quick_json import hole
from llmbatch.core.sampling import sampling_problem
from llmbatch.core.types import FailureKind, Message, Prompt, Rendered
from llmbatch.core.words import is_encodable, near, short, type_name
from llmbatch.formats.base import Answered, Asked


class BodyError(Exception):
    """What is wrong with a body, in words that follow the row's id."""

    def __init__(self, message: str, kind: FailureKind = FailureKind.PROMPT) -> None:
        super().__init__(message)
        self.kind = kind


@fast_dataclass(frozen=True, slots=True)
class Reply:
    """What the model answered. ``text`` is without a start of it that the request brought; ``output`` is as the record has it.

    ``cut`` says whether it ended at its limit.
    """

    text: str
    output: Any
    cut: bool
    model: str
    answered: Answered

    @property
    def usage(self) -> Mapping[str, int]:
        """``prompt_tokens``, ``completion_tokens``."""
        usage: Mapping[str, int] = self.answered.record["usage"]
        return usage

    @property
    def stop(self) -> str | None:
        """The stop sequence that ended it."""
        stop = self.answered.record.get("stop_reason")
        return stop if isinstance(stop, str) else None

    def reason(self, cut: str, stopped: str) -> str:
        """Why it ended, in the family's words."""
        return cut if self.cut else stopped


@dataclass(frozen=True, slots=True)
class Family:
    """One family. ``fits`` tells its bodies by their keys; ``read`` raises ``BodyError``.

    ``plain`` is what ``write`` makes of one text, which was ``cut`` or not, and nothing more, with the holes that ``PlainLines``
    fills; ``None``: such replies are not alike.
    """

    fits: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Mapping[str, Any], Collection[str]], Rendered]
    write: Callable[[Reply], dict[str, Any]]
    plain: Callable[[bool], dict[str, Any]] | None = None


def with_holes(write: Callable[[Reply], dict[str, Any]], cut: bool) -> dict[str, Any]:
    """``plain`` of a family that puts what it is given into its replies as it is."""
    usage = {"prompt_tokens": hole("asked"), "completion_tokens": hole("given")}
    answered = Answered({"usage": usage}, {}, Asked(), "", 0)
    return write(Reply(hole("text"), hole("text"), cut, hole("model"), answered))


def prompt_family(
    names: Mapping[str, str],
    write: Callable[[Reply], dict[str, Any]],
    neutral: Mapping[str, tuple[Any, ...]] | None = None,
) -> Family:
    """A family whose body is a ``prompt`` for plain completion and settings: ``names`` are theirs -> ours."""
    unchanged = neutral or {}

    def read(body: Mapping[str, Any], _adapters: Collection[str]) -> Rendered:
        settings = {key: value for key, value in body.items() if key != "prompt"}
        return Rendered(prompt_of(body, "prompt"), sampling_of(settings, names, "modelInput", unchanged))

    def fits(body: Mapping[str, Any]) -> bool:
        return "prompt" in body and body.keys() <= {"prompt", *names, *unchanged}

    return Family(fits, read, write, partial(with_holes, write))


def prompt_of(body: Mapping[str, Any], key: str) -> Prompt:
    text = body.get(key)
    if not isinstance(text, str):
        seen = f"is of type {type_name(text)}" if key in body else "is missing"
        raise BodyError(f"modelInput.{key} must be a text, and {seen}")
    if not text or text.isspace():
        raise BodyError(f"modelInput.{key} is blank", FailureKind.EMPTY_PROMPT)
    if not is_encodable(text):
        raise BodyError(f"modelInput.{key} holds half a surrogate pair, which is no character")
    return Prompt(text=text)


def sampling_of(
    given: Mapping[str, Any],
    names: Mapping[str, str],
    place: str,
    neutral: Mapping[str, tuple[Any, ...]] | None = None,
) -> dict[str, Any]:
    """The settings by our names; ``neutral`` are keys that may be there with a value that changes nothing, any for ``()``.

    Raises ``BodyError`` for a key that is not known and for a value that no engine takes.
    """
    sampling: dict[str, Any] = {}
    for key, value in given.items():
        if value is None:
            continue
        if key in names:
            if value == [] and names[key] == "stop":
                continue
            if problem := sampling_problem(names[key], value):
                raise BodyError(f"{place}.{key} {problem}")
            sampling[names[key]] = value
        elif neutral is None or key not in neutral or (neutral[key] and value not in neutral[key]):
            said = f" = {short(value)}" if neutral and key in neutral else ""
            raise BodyError(f"{place}.{key}{said} is not supported{near(key, names)}")
    return sampling


def chat_prompt(system: str | None, messages: Any, text_of_block: Callable[[Any], str | None]) -> Prompt:
    """Messages of blocks as a prompt. A last message of the assistant's is the start of the answer.

    ``text_of_block`` is the text of a block, or None for one that says nothing; it raises ``ValueError`` with what else it is.
    """
    if not isinstance(messages, list) or not messages:
        seen = (
            "is missing" if messages is None else "is empty" if messages == [] else f"is of type {type_name(messages)}"
        )
        raise BodyError(f"modelInput.messages {seen}: it must be a list of messages")
    ready: list[Message] = [{"role": "system", "content": system}] if system else []
    for number, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("user", "assistant"):
            seen = short(role) if isinstance(message, dict) else f"a value of type {type_name(message)}"
            raise BodyError(f"modelInput.messages[{number}] must have the role user or assistant, and has {seen}")
        content = blocks_text(message.get("content"), f"modelInput.messages[{number}].content", text_of_block)
        ready.append({"role": role, "content": content})
    if not all(is_encodable(message["content"]) for message in ready):
        raise BodyError("modelInput.messages: holds half a surrogate pair, which is no character")
    last = ready[-1]["content"]
    if ready[-1]["role"] == "assistant":
        if len(messages) == 1:
            raise BodyError("modelInput.messages has a start of an answer alone, and nothing that is asked")
        return Prompt(messages=tuple(ready[:-1]), prefill=last)
    if not last or last.isspace():
        raise BodyError("modelInput.messages: the last message is blank", FailureKind.EMPTY_PROMPT)
    return Prompt(messages=tuple(ready))


def blocks_text(content: Any, place: str, text_of_block: Callable[[Any], str | None]) -> str:
    """The text of a content: of a list of blocks, each on lines of its own."""
    if isinstance(content, str):
        return content
    if content.__class__ is not list and not isinstance(content, Sequence):
        seen = "is missing" if content is None else f"is of type {type_name(content)}"
        raise BodyError(f"{place} {seen}: it must be a list of blocks")
    texts: list[str] = []
    for number, block in enumerate(content):
        try:
            text = text_of_block(block)
        except ValueError as error:
            raise BodyError(f"{place}[{number}] is {error}, and only text is supported") from None
        if text is not None:
            texts.append(text)
    return "\n".join(texts)
