"""Rows in, prompts out: a prompt file's content compiled once, rendered for each row.

A variable's value is, in this order: the one given for the whole job, the row's, the default. A row's field counts for a
variable of its name, or for the one that the job maps to it; for one with ``scope: job`` only if mapped. What depends on
no row is rendered once.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from llmbatch.core.errors import PromptError
from llmbatch.core.messages import images_in, ready_messages
from llmbatch.core.sampling import token_biases
from llmbatch.core.sandbox import RenderError, Text, compile_text
from llmbatch.core.types import EMPTY, Failure, FailureKind, Image, Message, Prompt, Rendered, Row
from llmbatch.core.words import near, short
from llmbatch.images.naming import marked, parted
from llmbatch.prompt.advice import order_notes
from llmbatch.prompt.base import PromptSettings
from llmbatch.prompt.document import Document, read_document
from llmbatch.prompt.field_order import in_field_order
from llmbatch.prompt.file import (
    LoopSpec,
    MessageSpec,
    PromptFile,
    VariableSpec,
    referred_variables,
    value_problem,
)
from llmbatch.prompt.library import LoadedFile, load_file
from llmbatch.prompt.variables import IMAGES, Variable, collect


class _Message(NamedTuple):
    role: str
    content: Text


class _Loop(NamedTuple):
    item: str
    items: str
    messages: tuple[_Message, ...]


@dataclass(frozen=True, slots=True)
class _Texts:
    """The compiled texts of a prompt. ``messages`` holds a dict where a message is the same for every row."""

    messages: tuple[Message | _Message | _Loop, ...] = ()
    messages_from: str | None = None
    text: Text | None = None
    prefill: Text | None = None
    lora: Text | None = None

    @property
    def names(self) -> frozenset[str]:
        """The variables that some row's rendering needs."""
        names = {self.messages_from} if self.messages_from else set()
        for text in (self.text, self.prefill, self.lora):
            names |= _needed(text)
        for step in self.messages:
            if isinstance(step, _Message):
                names |= _needed(step.content)
            elif isinstance(step, _Loop):
                names.add(step.items)
                for message in step.messages:
                    names |= _needed(message.content) - {step.item}
        return frozenset(names)

    @property
    def parts(self) -> frozenset[tuple[str, str]]:
        """What is read inside of variables."""
        texts = [self.text, self.prefill, self.lora]
        for step in self.messages:
            if isinstance(step, _Message):
                texts.append(step.content)
            elif isinstance(step, _Loop):
                texts += [message.content for message in step.messages]
        return frozenset().union(*(text.parts for text in texts if text is not None))


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A prompt, ready to render.

    ``sampling`` are its defaults, by the names of vLLM's ``SamplingParams``; ``output`` has at most one of the keys ``schema``,
    ``choice``, ``regex`` and ``grammar``, and those of the rules that the file asks for, or is ``None``. ``program`` is the job's
    section of that name, as the file has it. ``text`` is the prompt file's content and the values given for the job, for the job's
    digest. ``prefill`` is a template. ``unused`` are variables that are declared and never used, ``row_variables`` those that rows
    bring, ``parts`` the keys that are read inside of some, as pairs of a variable and a key, and ``notes`` is advice for the
    prompt's author.
    """

    name: str
    sampling: Mapping[str, Any]
    output: Mapping[str, Any] | None
    program: Mapping[str, Any] | None
    text: str
    prefill: str
    unused: tuple[str, ...]
    row_variables: tuple[Variable, ...]
    parts: frozenset[tuple[str, str]]
    notes: tuple[str, ...]
    _where: str
    _given: Mapping[str, Any]  # with one value for all rows
    _fields: Mapping[str, tuple[str, Any]]  # of the other variables: the row's field, and the default
    _fixed: Mapping[str, Any]  # those of ``_given`` that some row's rendering needs
    _texts: _Texts
    takes_images: bool = False

    def render(self, row: Row) -> Rendered | Failure:
        """The row's prompt, or a ``Failure`` that names row and variable. Never raises for what is in a row."""
        if row.failure is not None:
            return row.failure
        values = collect(self.row_variables, row, self._fixed)
        if isinstance(values, Failure):
            return values
        texts = self._texts
        if self.takes_images and (failure := self._mark(values, row)) is not None:
            return failure
        try:
            prefill = texts.prefill.render(values) if texts.prefill else ""
            lora = texts.lora.render(values).strip() or None if texts.lora else None
            if texts.text is not None:
                text = texts.text.render(values)
                if not text or text.isspace():
                    return self._empty(row)
                return Rendered(Prompt(text=text, prefill=prefill), EMPTY, lora=lora)
            messages = _messages(texts.messages, values)
        except RenderError as error:
            return Failure(FailureKind.PROMPT, f"row {short(row.id)}: {self._where}:{error.line}: {error}")
        if texts.messages_from is not None:
            ready = ready_messages(values[texts.messages_from])
            if isinstance(ready, str):
                return Failure(FailureKind.PROMPT, f"row {short(row.id)}: the variable {texts.messages_from!r} {ready}")
            messages = ready
        images: tuple[Image, ...] = ()
        if self.takes_images or texts.messages_from is not None:
            try:
                messages = tuple(map(parted, messages)) if self.takes_images else messages
            except ValueError as error:
                return Failure(FailureKind.PROMPT, f"row {short(row.id)}: {self._where}: {error}")
            images = images_in(messages)
        if not messages or not (last := messages[-1]["content"]) or (isinstance(last, str) and last.isspace()):
            return self._empty(row)
        return Rendered(Prompt(messages, prefill=prefill, images=images), EMPTY, lora=lora)

    def _mark(self, values: dict[str, Any], row: Row) -> Failure | None:
        """Put what a template is to write for an image in its place, or say why a value is none."""
        for variable in self.row_variables:
            value = values[variable.name]
            if variable.type not in IMAGES or value is None:
                continue
            try:
                values[variable.name] = marked(value, several=variable.type == "images")
            except ValueError as error:
                said = f"row {short(row.id)}: the variable {variable.name!r} (field {variable.field!r}) {error}"
                return Failure(FailureKind.IMAGE, said)
        return None

    @property
    def ready_made(self) -> bool:
        """As ``RowPrompt`` has it."""
        return self._texts.messages_from is not None

    def value(self, name: str, row: Row) -> Any:
        """As ``RowPrompt.value``."""
        if name in self._given:
            return self._given[name]
        field, default = self._fields.get(name, (name, None))
        value = row.data.get(field)
        return default if value is None else value

    def _empty(self, row: Row) -> Failure:
        return Failure(
            FailureKind.EMPTY_PROMPT, f"row {short(row.id)}: the prompt {self.name!r} comes out blank for this row"
        )


def _messages(steps: Iterable[Message | _Message | _Loop], values: Mapping[str, Any]) -> tuple[Message, ...]:
    messages: list[Message] = []
    for step in steps:
        if step.__class__ is dict:
            messages.append(step)
        elif isinstance(step, _Message):
            messages.append({"role": step.role, "content": step.content.render(values)})
        elif isinstance(step, _Loop):
            for item in values[step.items] or ():
                inner = {**values, step.item: item}
                messages += [
                    {"role": message.role, "content": message.content.render(inner)} for message in step.messages
                ]
    return tuple(messages)


def load_prompt(settings: PromptSettings, *, chat: bool = True) -> PromptTemplate:
    """The prompt of a job, compiled; one that is given as text is a chat's, or with ``chat`` false plain text.

    Raises ``PromptError`` for one that is not there or cannot be used.
    """
    loaded = load_file(settings.path, chat=chat)
    if settings.field_order:
        loaded = loaded._replace(file=in_field_order(loaded.file, settings.field_order))
    return bind(loaded, settings.variables, settings.fields)


def bind(loaded: LoadedFile, variables: Mapping[str, Any], fields: Mapping[str, str]) -> PromptTemplate:
    """A prompt file with the job's ``variables`` and ``fields`` (variable -> the row's field), ready to render.

    Raises ``PromptError`` for a template that is wrong, and for a variable that is unknown, of the wrong type, or that
    must be given for the whole job and is not.
    """
    file, document = loaded.file, loaded.document
    texts = _compile(file, document)
    used = texts.names | referred_variables(file)
    for name in fields:
        if name not in file.variables:
            raise PromptError(_unknown(file, name))
    fixed = _fixed_values(file, variables, fields.keys())
    images = _images(file, texts, document)
    shown = {name: _shown(file, name, value) if name in images else value for name, value in fixed.items()}
    try:
        texts = _fold(texts, shown)
    except RenderError as error:
        raise PromptError(f"{document.name}:{error.line}: {error}") from error
    needed = texts.names
    row_variables = tuple(
        Variable(name, spec.type, fields.get(name, name), spec.required, spec.default, tuple(spec.enum or ()))
        for name, spec in file.variables.items()
        if name in needed and name not in fixed
    )
    return PromptTemplate(
        name=file.name,
        sampling=_sampling(file.sampling),
        output=_output(file, fixed),
        program=file.program,
        text=_identity(loaded.text, fixed, variables.keys()),
        prefill=file.prefill,
        unused=tuple(name for name in file.variables if name not in used),
        row_variables=row_variables,
        parts=texts.parts,
        notes=order_notes(file, [variable.name for variable in row_variables if variable.required]),
        _where=document.name,
        _given=fixed,
        _fields={
            name: (fields.get(name, name), spec.default) for name, spec in file.variables.items() if name not in fixed
        },
        _fixed={name: value for name, value in shown.items() if name in needed},
        _texts=texts,
        takes_images=bool(images & used),
    )


def _images(file: PromptFile, texts: _Texts, document: Document) -> frozenset[str]:
    """The variables that are images. Raises ``PromptError`` where one is written into anything but a message."""
    images = frozenset(name for name, spec in file.variables.items() if spec.type in IMAGES)
    for key in ("text", "prefill", "lora"):
        if wrong := sorted(images & _needed(getattr(texts, key))):
            raise document.error((key,), f"{wrong[0]!r} is an image, and images stand in messages, not in {key}")
    return images


def _shown(file: PromptFile, name: str, value: Any) -> Any:
    """What a template is given for an image with one value for all rows."""
    try:
        return None if value is None else marked(value, several=file.variables[name].type == "images")
    except ValueError as error:
        raise PromptError(f"the prompt {file.name!r}: the variable {name!r} {error}") from error


def _compile(file: PromptFile, document: Document) -> _Texts:
    # a variable that may be null has no plain type: what is written for null is Jinja's business
    kinds = {
        # an image is written as text, see ``images.naming``
        name: "any"
        if not spec.required and spec.default is None
        else "string"
        if spec.type in IMAGES
        else str(spec.type)
        for name, spec in file.variables.items()
    }

    def text(source: str, *path: str | int, extra: str | None = None) -> Text:
        known = {**kinds, extra: "any"} if extra else kinds
        return compile_text(source, known, document.name, document.line(path))

    def message(spec: MessageSpec, *path: str | int, extra: str | None = None) -> _Message:
        return _Message(spec.role, text(spec.content, *path, "content", extra=extra))

    steps: list[Message | _Message | _Loop] = []
    for index, spec in enumerate(file.messages or ()):
        if isinstance(spec, LoopSpec):
            inner = (message(m, "messages", index, "messages", i, extra=spec.item) for i, m in enumerate(spec.messages))
            steps.append(_Loop(spec.item, spec.items, tuple(inner)))
        else:
            steps.append(message(spec, "messages", index))
    return _Texts(
        messages=tuple(steps),
        messages_from=file.messages_from,
        text=None if file.text is None else text(file.text, "text"),
        prefill=text(file.prefill, "prefill") if file.prefill else None,
        lora=None if file.lora is None else text(file.lora, "lora"),
    )


def _fold(texts: _Texts, fixed: Mapping[str, Any]) -> _Texts:
    """The texts with what is the same for every row rendered."""
    steps: list[Message | _Message | _Loop] = []
    for step in texts.messages:
        if isinstance(step, _Message):
            content = step.content.given(fixed)
            steps.append(step if content.constant is None else {"role": step.role, "content": content.constant})
        elif isinstance(step, _Loop) and step.items in fixed and _needed_inside(step) <= fixed.keys():
            steps += _messages((step,), fixed)
        else:
            steps.append(step)
    return _Texts(
        messages=tuple(steps),
        messages_from=texts.messages_from,
        text=texts.text and texts.text.given(fixed),
        prefill=texts.prefill and texts.prefill.given(fixed),
        lora=texts.lora and texts.lora.given(fixed),
    )


def _needed(text: Text | None) -> frozenset[str]:
    return text.names if text is not None else frozenset()


def _needed_inside(loop: _Loop) -> frozenset[str]:
    return frozenset().union(*(message.content.names for message in loop.messages)) - {loop.item}


def _fixed_values(file: PromptFile, given: Mapping[str, Any], mapped: Collection[str]) -> dict[str, Any]:
    """The variables with one value for all rows: those that the job gives, and those of its scope."""
    fixed: dict[str, Any] = {}
    for name, value in given.items():
        spec = file.variables.get(name)
        if spec is None:
            raise PromptError(_unknown(file, name))
        typed = _typed(file, name, spec, value)
        if problem := value_problem(spec, typed):
            raise PromptError(f"the prompt {file.name!r}: the variable {name!r} {problem}")
        fixed[name] = typed
    held_to = (file.output.schema_from or file.output.choice_from) if file.output else None
    for name, spec in file.variables.items():
        if name in mapped and (name in fixed or name == held_to):
            raise PromptError(
                f"the prompt {file.name!r}: {name!r} has one value for all rows, so no row's field can be it"
            )
        if name not in fixed and name not in mapped and (spec.scope == "job" or name == held_to):
            if spec.required:
                advice = f"give it with --var {name}=VALUE, or --var {name}=@FILE"
                raise PromptError(f"the prompt {file.name!r} needs the variable {name!r} for the whole job: {advice}")
            fixed[name] = spec.default
    return fixed


def _identity(text: str, fixed: Mapping[str, Any], given: Iterable[str]) -> str:
    """The file's text, and the job's values as they are: a setting may name a file whose content has changed since."""
    values = {name: fixed[name] for name in given}
    return f"{text}\n{json.dumps(values, sort_keys=True, default=str)}" if values else text


def _typed(file: PromptFile, name: str, spec: VariableSpec, value: object) -> Any:
    """A command line gives text: read it as what the variable is, from a file where it says ``@FILE``."""
    if not isinstance(value, str) or spec.type in ("string", "any", "image"):
        return value
    text, where = value, f"variable {name}"
    if value.startswith("@"):
        where = value[1:]
        try:
            text = Path(where).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            problem = f"the variable {name!r} cannot be read from {where}: {error}"
            raise PromptError(f"the prompt {file.name!r}: {problem}") from error
    try:
        return json.loads(text)  # YAML reads most JSON, but no tabs and no escaped pairs of surrogates
    except (ValueError, RecursionError):
        return read_document(text, where).value


def _unknown(file: PromptFile, name: str) -> str:
    declared = f"it has {', '.join(file.variables)}" if file.variables else "it has none"
    return f"the prompt {file.name!r} has no variable {name!r}{near(name, file.variables)}; {declared}"


def _sampling(given: Mapping[str, Any]) -> Mapping[str, Any]:
    if "logit_bias" in given:
        return {**given, "logit_bias": token_biases(given["logit_bias"])}
    return dict(given)


def _output(file: PromptFile, fixed: Mapping[str, Any]) -> Mapping[str, Any] | None:
    output = file.output
    if output is None:
        return None
    asked = output.model_dump(by_alias=True, exclude_none=True, exclude={"schema_from", "choice_from"})
    if output.schema_from is not None:
        schema = fixed[output.schema_from]
        return (asked or None) if schema is None else {**asked, "schema": schema}
    if output.choice_from is not None:
        choice = fixed[output.choice_from]
        if choice is None:
            return asked or None
        if (
            not choice
            or not all(isinstance(label, str) and label for label in choice)
            or len(set(choice)) < len(choice)
        ):
            problem = f"must be a list of different texts, and is {short(choice)}"
            raise PromptError(f"the prompt {file.name!r}: the variable {output.choice_from!r} {problem}")
        return {**asked, "choice": list(choice)}
    return asked
