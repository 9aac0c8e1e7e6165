"""A GenerateContentRequest in; what it asks for, by our names, out.

Names are taken in camelCase and in snake_case. Sampling settings of vLLM's that Gemini does not have are taken in
``generationConfig`` too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from llmbatch.core.sampling import SAMPLING, sampling_problem
from llmbatch.core.types import EMPTY, Message, Prompt, Rendered
from llmbatch.core.words import is_encodable, near, short, type_name
from llmbatch.formats.gemini.schema import camel_case, json_schema, whole

_REQUEST = ("contents", "systemInstruction", "generationConfig")
_IGNORED = frozenset({"labels", "safetySettings", "model", "toolConfig", "serviceTier", "store"})
_EMPTY_ONLY = {"tools": "tool calls are not supported", "cachedContent": "put what is cached into the contents"}
_TEXT_PART = frozenset({"text", "thought", "thoughtSignature"})
_ROLES = {"user": "user", "model": "assistant"}

_OWN_NAMES = {"n": "candidateCount", "max_tokens": "maxOutputTokens", "stop": "stopSequences"}
_ELSEWHERE = frozenset({"logprobs", "thinking_token_budget"})  # have forms of their own
NAMES = {name: _OWN_NAMES.get(name, camel_case(name)) for name in SAMPLING if name not in _ELSEWHERE}
_SAMPLING = {ours: name for name, ours in NAMES.items()}
# settings that may be there with the value that changes nothing; ``mediaResolution`` changes nothing where there is only text
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "responseModalities": ([], ["TEXT"]),
    "enableEnhancedCivicAnswers": (False,),
    "enableAffectiveDialog": (False,),
    "audioTimestamp": (False,),
    "mediaResolution": (),
}
_ANSWER = frozenset(
    {"responseMimeType", "responseSchema", "responseJsonSchema", "guidedRegex", "guidedGrammar", "responseLogprobs",
     "logprobs", "thinkingConfig"}
)  # fmt: skip
_KNOWN = frozenset({*_SAMPLING, *_NEUTRAL, *_ANSWER})
_TEXT, JSON, ENUM = "text/plain", "application/json", "text/x.enum"
_ANY_JSON = {"anyOf": [{"type": "object"}, {"type": "array"}]}


class RequestProblem(Exception):
    """What is wrong with a request, in words that follow the row's id."""


class Config(NamedTuple):
    """What a ``generationConfig`` asks for."""

    sampling: Mapping[str, Any] = EMPTY
    output: Mapping[str, Any] | None = None


def read_config(given: Any) -> Config:
    """Raises ``RequestProblem`` and ``SchemaProblem``."""
    config = named(given, "generationConfig")
    return Config(_sampling(config), output_of(config))


def read_request(
    request: Any, role: str | None, adapters: Collection[str], config_of: Callable[[Any], Config] = read_config
) -> Rendered | None:
    """What a request asks for; None where its prompt is blank. ``role`` is that of a content which says none, if it may.

    Raises ``RequestProblem`` and ``SchemaProblem``.
    """
    asked = named(request, "request")
    _refuse_unknown(asked)
    prompt = _prompt(asked, role)
    config = config_of(asked["generationConfig"]) if "generationConfig" in asked else Config()
    model = str(asked["model"]).rpartition("/")[2] if "model" in asked else ""
    rendered = Rendered(prompt, config.sampling, config.output, model if model in adapters else None)
    return rendered if prompt.prefill or not _is_blank(prompt) else None


def named(value: Any, place: str) -> dict[str, Any]:
    """An object with its names in camelCase, without what is null."""
    if value.__class__ is dict and None not in value.values() and "_" not in "".join(value):
        return value  # as it is in nearly every request
    if not isinstance(value, Mapping):
        raise RequestProblem(f"{place} must be an object, and is of type {type_name(value)}")
    renamed: dict[str, Any] = {}
    for key, item in value.items():
        name = camel_case(key) if "_" in key else key
        if name in renamed:
            raise RequestProblem(f"{place} has {name} twice, once as {key}")
        if item is not None:
            renamed[name] = item
    return renamed


def _refuse_unknown(request: Mapping[str, Any]) -> None:
    for key, value in request.items():
        if key in _REQUEST or key in _IGNORED or (key in _EMPTY_ONLY and not value):
            continue
        advice = f": {_EMPTY_ONLY[key]}" if key in _EMPTY_ONLY else near(key, (*_REQUEST, *_IGNORED))
        raise RequestProblem(f"request.{key} is not supported{advice}")


def _prompt(request: Mapping[str, Any], role: str | None) -> Prompt:
    contents = request.get("contents")
    if not isinstance(contents, list) or not contents:
        seen = "is not there" if contents is None else f"is {short(contents)}"
        raise RequestProblem(f"request.contents must be a list with what was said, and {seen}")
    messages = [_message(content, f"contents[{number}]", role) for number, content in enumerate(contents)]
    if (system := request.get("systemInstruction")) is not None:
        messages.insert(
            0, {"role": "system", "content": _text(named(system, "systemInstruction"), "systemInstruction")}
        )
    last = messages[-1]
    if last["role"] != "assistant":
        return Prompt(messages=tuple(messages))
    if len(contents) == 1:
        raise RequestProblem("request.contents has nothing that the user says")
    return Prompt(messages=tuple(messages[:-1]), prefill=last["content"])  # the answer goes on from there


def _message(value: Any, place: str, role: str | None) -> Message:
    content = named(value, place)
    said = content.get("role", role)
    ours = _ROLES.get(said) if isinstance(said, str) else None
    if ours is None:
        raise RequestProblem(f"{place}.role is {short(said)}. Please use a valid role: user, model.")
    return {"role": ours, "content": _text(content, place)}


def _text(content: Mapping[str, Any], place: str) -> str:
    """The text of a content, its parts on lines of their own; what a model thought is no part of what it said."""
    parts = content.get("parts")
    if isinstance(parts, Mapping):  # Google's JSON takes a single message for a list
        parts = [parts]
    if not isinstance(parts, list) or not parts:
        raise RequestProblem(f"{place}.parts must be a list of parts with a text, and is {short(parts)}")
    texts = []
    for number, part in enumerate(parts):
        given = named(part, f"{place}.parts[{number}]")
        if other := given.keys() - _TEXT_PART:
            raise RequestProblem(f"{place}.parts[{number}].{min(other)} is not supported: parts have a text alone")
        text = given.get("text")
        if not isinstance(text, str):
            raise RequestProblem(f"{place}.parts[{number}] has no text")
        if not is_encodable(text):
            raise RequestProblem(f"{place}.parts[{number}].text holds half a surrogate pair, which is no character")
        if given.get("thought") is not True:
            texts.append(text)
    return "\n".join(texts)


def _is_blank(prompt: Prompt) -> bool:
    last = prompt.messages[-1]["content"] if prompt.messages else ""
    return not last or last.isspace()


def _sampling(config: Mapping[str, Any]) -> Mapping[str, Any]:
    sampling: dict[str, Any] = {}
    for key, value in config.items():
        if (name := _SAMPLING.get(key)) is not None:
            given = whole(value, f"generationConfig.{key}") if SAMPLING[name] == ("integer",) else value
            if problem := sampling_problem(name, given):
                raise RequestProblem(f"generationConfig.{key} {problem}")
            sampling[name] = given
        elif key in _NEUTRAL:
            if _NEUTRAL[key] and value not in _NEUTRAL[key]:
                raise RequestProblem(f"generationConfig.{key} = {short(value)} is not supported")
        elif key not in _ANSWER:
            raise RequestProblem(f"generationConfig.{key} is not supported{near(key, _KNOWN)}")
    if config.get("responseLogprobs") is True:
        sampling["logprobs"] = whole(config.get("logprobs", 0), "generationConfig.logprobs")
        if problem := sampling_problem("logprobs", sampling["logprobs"]):
            raise RequestProblem(f"generationConfig.logprobs {problem}")
    elif "logprobs" in config:
        raise RequestProblem("generationConfig.logprobs needs responseLogprobs = true")
    if (budget := thinking_of(config).get("thinkingBudget", -1)) >= 0:
        sampling["thinking_token_budget"] = budget
    return sampling or EMPTY


def thinking_of(config: Mapping[str, Any]) -> dict[str, Any]:
    place = "generationConfig.thinkingConfig"
    thinking = named(config.get("thinkingConfig", EMPTY), place)
    for key in thinking:
        if key not in ("thinkingBudget", "includeThoughts"):
            raise RequestProblem(
                f"{place}.{key} is not supported: set it for the whole job, under chat.template_kwargs"
            )
    if "thinkingBudget" in thinking:
        thinking["thinkingBudget"] = whole(thinking["thinkingBudget"], f"{place}.thinkingBudget")
    return thinking


def output_of(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What the answer is held to."""
    asked = [key for key in ("responseSchema", "responseJsonSchema", "guidedRegex", "guidedGrammar") if key in config]
    if len(asked) > 1:
        raise RequestProblem(f"generationConfig.{asked[0]} and {asked[1]} cannot be given together")
    kind = config.get("responseMimeType") or (JSON if asked and "response" in asked[0] else _TEXT)
    if kind not in (_TEXT, JSON, ENUM):
        raise RequestProblem(
            f"generationConfig.responseMimeType is {short(kind)}; known are {_TEXT}, {JSON} and {ENUM}"
        )
    if asked and asked[0].startswith("guided"):
        return _guided(asked[0], config[asked[0]])
    if kind == _TEXT:
        if asked:
            raise RequestProblem(f"generationConfig.{asked[0]} needs responseMimeType = {JSON} or {ENUM}")
        return None
    schema = _schema(asked[0], config[asked[0]]) if asked else None
    if kind == JSON:
        return {"schema": _ANY_JSON if schema is None else schema}
    texts = (schema or {}).get("enum")
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise RequestProblem(f"generationConfig.responseMimeType {ENUM} needs a responseSchema with an enum of texts")
    return {"choice": texts}


def _schema(key: str, value: Any) -> dict[str, Any]:
    if key == "responseSchema":
        return json_schema(value, f"generationConfig.{key}")
    if not isinstance(value, Mapping):
        raise RequestProblem(
            f"generationConfig.{key} must be a JSON Schema (an object), and is of type {type_name(value)}"
        )
    return dict(value)


def _guided(key: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, str) or not value:
        raise RequestProblem(f"generationConfig.{key} must be a text, and is {short(value)}")
    return {key.removeprefix("guided").lower(): value}
