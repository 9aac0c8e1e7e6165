"""The text of a prompt file in; its content out, checked, or an error that says the line and what is known there.

The format, in full (one of ``messages``, ``messages_from`` and ``text`` is required, and so is ``name``):

    name: summarize                       lower-case letters, digits and -
    description: One sentence.
    variables:                            all that the texts below use
      text: {type: string, description: ...}
      max_words: {type: integer, default: 100, enum: [50, 100]}
      shots: {type: array, default: [], scope: job}
    messages:                             Jinja texts; roles are system, user and assistant
      - {role: system, content: Be brief.}
      - for: shot                         these messages once for each item of a variable
        in: shots
        messages:
          - {role: user, content: "{{ shot.text }}"}
          - {role: assistant, content: "{{ shot.summary }}"}
      - {role: user, content: "{{ text }}"}
    messages_from: conversation           or: a variable that holds ready-made messages
    text: "{{ text }}\\n\\nTL;DR:"          or: plain text for a completion model
    prefill: "{"                          a start of the answer, which the model goes on from
    sampling: {temperature: 0, max_tokens: 200}
    output: {schema: {...}}               or choice, regex, grammar; schema_from and choice_from name a variable instead;
                                          besides, or alone, the rules of a job's answer section, such as language: de
    lora: "{{ adapter }}"                 the adapter for the row
    program: {name: chain, ...}           by which steps a row is done, as in a job file, which goes before it
    examples:
      - {variables: {max_words: 50}, row: {text: ...}, output: ...}

Types are JSON's: string, integer, number, boolean, array, object, and any; besides image (a path, relative to the input file, a
URL or a data URI) and images (a list of them), which become parts of a message where its text writes them. A variable without a
default is required;
``default: null`` makes it optional. A variable with ``scope: job`` is given for the whole job and not taken from a row's
field that happens to have its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from llmbatch.core.errors import PromptError
from llmbatch.core.sampling import sampling_problem
from llmbatch.core.words import is_of, near, short, type_name
from llmbatch.prompt.document import Document
from llmbatch.prompt.variables import TypeName

_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_RESERVED = frozenset(
    {"true", "false", "none", "True", "False", "None", "range", "dict", "namespace", "loop", "caller", "self"}
)
_RESERVED_WORDS = frozenset(
    {"and", "or", "not", "in", "is", "if", "else", "for", "import", "varargs", "kwargs", "super"}
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _only_known_keys(cls, data: Any) -> Any:
        known = [field.alias or name for name, field in cls.model_fields.items()]
        for key in data if isinstance(data, Mapping) else ():
            if key not in known:
                message = f"unknown key {key!r}{near(key, known)}; known are {', '.join(known)}"
                raise PydanticCustomError("unknown_key", "{message}", {"message": message, "key": key})
        return data


class VariableSpec(_Strict):
    type: TypeName = "string"
    description: str = ""
    scope: Literal["row", "job"] = "row"
    default: Any = None
    enum: list[Any] | None = Field(default=None, min_length=1)

    @property
    def required(self) -> bool:
        return "default" not in self.model_fields_set


class MessageSpec(_Strict):
    role: Literal["system", "user", "assistant"]
    content: str


class LoopSpec(_Strict):
    item: str = Field(alias="for")
    items: str = Field(alias="in")
    messages: list[MessageSpec] = Field(min_length=1)


class OutputSpec(_Strict):
    json_schema: dict[str, Any] | None = Field(None, alias="schema")
    schema_from: str | None = None
    choice: list[str] | None = Field(None, min_length=1)
    choice_from: str | None = None
    regex: str | None = None
    grammar: str | None = None
    # what an answer of that kind must be besides; the settings are those of a job, and checked with it
    language: Any = None
    copied: Any = Field(None, alias="copy")
    length_ratio: Any = None
    markup: Any = None
    glossary: Any = None
    repetition: Any = None
    thinking_budget: Any = None


_KINDS = ("json_schema", "schema_from", "choice", "choice_from", "regex", "grammar")


class ExampleSpec(_Strict):
    """A row, values given for the whole job, and the answer that a good model gives (text, or the value of JSON)."""

    row: dict[str, Any] = Field(default_factory=dict)
    variables: dict[str, Any] = Field(default_factory=dict)
    output: Any = None


def _message_kind(data: Any) -> str:
    return "loop" if isinstance(data, Mapping) and ("for" in data or "in" in data) else "message"


AnyMessage = Annotated[
    Annotated[MessageSpec, Tag("message")] | Annotated[LoopSpec, Tag("loop")], Discriminator(_message_kind)
]


class PromptFile(_Strict):
    name: str
    description: str = ""
    variables: dict[str, VariableSpec] = Field(default_factory=dict)
    messages: list[AnyMessage] | None = Field(None, min_length=1)
    messages_from: str | None = None
    text: str | None = None
    prefill: str = ""
    sampling: dict[str, Any] = Field(default_factory=dict)
    output: OutputSpec | None = None
    lora: str | None = None
    program: dict[str, Any] | None = None
    examples: list[ExampleSpec] = Field(default_factory=list)


def parse_prompt(document: Document) -> PromptFile:
    """What a document describes, its templates not yet compiled. Raises ``PromptError`` with file, line and column."""
    if not isinstance(document.value, dict):
        seen = type_name(document.value)
        raise document.error((), f"a prompt file is a mapping with the keys name and messages, this is of type {seen}")
    try:
        file = PromptFile.model_validate(document.value)
    except ValidationError as error:
        raise PromptError("\n".join(_problems(document, error))) from error
    _check_head(file, document)
    _check_variables(file, document)
    _check_references(file, document)
    _check_sampling(file.sampling, document)
    return file


def _problems(document: Document, error: ValidationError) -> Iterable[str]:
    for problem in error.errors(include_url=False)[:5]:
        path: list[str | int] = [step for step in problem["loc"] if step not in ("message", "loop")]
        kind, words = problem["type"], problem["msg"]
        if kind == "unknown_key":
            path.append(problem["ctx"]["key"])
        elif kind == "missing":
            words = f"the key {path.pop()!r} is missing"
        else:
            words = f"{'.'.join(map(str, path))}: {words[0].lower()}{words[1:]}, not {short(problem['input'])}"
        yield f"{document.where(path)}: {words}"


def _check_head(file: PromptFile, document: Document) -> None:
    if not _NAME.fullmatch(file.name):
        raise document.error(("name",), f"the name {file.name!r} must be lower-case letters, digits and single hyphens")
    given = [key for key in ("messages", "messages_from", "text") if getattr(file, key) is not None]
    if len(given) != 1:
        seen = " and ".join(given) if given else "none of them"
        raise document.error(given[1:2], f"a prompt has one of messages, messages_from and text; this one has {seen}")
    asked = [name for name, value in file.output or () if value is not None]
    if file.output is not None and (not asked or sum(name in _KINDS for name in asked) > 1):
        known = "schema, schema_from, choice, choice_from, regex and grammar"
        raise document.error(("output",), f"output has one of {known}, or rules alone")
    choice = file.output.choice if file.output else None
    if choice is not None and len(set(choice)) != len(choice):
        raise document.error(("output", "choice"), "a choice is given twice")


def _check_variables(file: PromptFile, document: Document) -> None:
    for name, variable in file.variables.items():
        path = ("variables", name)
        if not _IDENTIFIER.fullmatch(name) or name in _RESERVED or name in _RESERVED_WORDS:
            raise document.error(
                path, f"{name!r} cannot be a variable: use letters, digits and _, and no word of Jinja's own"
            )
        for value in variable.enum or ():
            if not is_of(value, variable.type):
                raise document.error((*path, "enum"), f"{short(value)} in enum is not of type {variable.type}")
        if variable.default is not None and (wrong := value_problem(variable, variable.default)):
            raise document.error((*path, "default"), f"the default {wrong}")


def value_problem(variable: VariableSpec, value: object) -> str | None:
    """What is wrong with a value for a variable, in words that follow its name; ``None`` where nothing is."""
    if not is_of(value, variable.type):
        return f"is of type {type_name(value)} ({short(value)}), and must be of type {variable.type}"
    if variable.enum and value not in variable.enum:
        return f"is {short(value)}, and must be one of {', '.join(map(short, variable.enum))}"
    return None


def _check_references(file: PromptFile, document: Document) -> None:
    for path, name, kind in _references(file):
        if name not in file.variables:
            declared = f"; declared are {', '.join(file.variables)}" if file.variables else ""
            problem = f"the variable {name!r} is not declared under variables{near(name, file.variables)}{declared}"
            raise document.error(path, problem)
        if file.variables[name].type not in (kind, "any") and not (
            kind == "array" and path[-1] == "in" and is_images(file, name)
        ):
            raise document.error(path, f"the variable {name!r} must be of type {kind}")
    for index, message in enumerate(file.messages or ()):
        if isinstance(message, LoopSpec) and (
            message.item in file.variables or not _IDENTIFIER.fullmatch(message.item)
        ):
            problem = f"{message.item!r} cannot name the loop's item: it is no identifier, or a variable already"
            raise document.error(("messages", index, "for"), problem)


def _references(file: PromptFile) -> Iterable[tuple[Sequence[str | int], str, str]]:
    for index, message in enumerate(file.messages or ()):
        if isinstance(message, LoopSpec):
            yield ("messages", index, "in"), message.items, "array"
    if file.messages_from is not None:
        yield ("messages_from",), file.messages_from, "array"
    if file.output is not None and file.output.schema_from is not None:
        yield ("output", "schema_from"), file.output.schema_from, "object"
    if file.output is not None and file.output.choice_from is not None:
        yield ("output", "choice_from"), file.output.choice_from, "array"


def is_images(file: PromptFile, name: str) -> bool:
    """Whether a variable is a list of images."""
    return file.variables[name].type == "images"


def referred_variables(file: PromptFile) -> frozenset[str]:
    """The variables that keys of the file name, other than inside its texts."""
    return frozenset(name for _, name, _ in _references(file))


def _check_sampling(sampling: Mapping[str, Any], document: Document) -> None:
    for name, value in sampling.items():
        if problem := sampling_problem(name, value):
            raise document.error(("sampling", name), f"{name!r} {problem}")
