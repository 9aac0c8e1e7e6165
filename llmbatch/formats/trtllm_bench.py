"""The data set of ``trtllm-bench``, both ways: ``{"task_id", "prompt" or "input_ids", "output_tokens"}``, a line a request.

As that tool has it, a text is tokenized without a chat template, and an answer has exactly ``output_tokens`` tokens, as nothing
ends it before, unless ``eos_id`` says which token does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from llmbatch.core.types import Failure, FailureKind, Prompt, Rendered, RowId
from llmbatch.core.words import is_encodable, is_of, near, short, type_name
from llmbatch.formats.base import Answered, Container
from llmbatch.formats.openai.body import is_ids
from llmbatch.formats.outcome import Success, outcome_of

_IDS = ("input_ids", "logits")  # the second is its older name
_KNOWN = (
    *_IDS,
    "task_id",
    "prompt",
    "output_tokens",
    "lora_request",
    "turns",
    "media_paths",
    "category",
    "question_id",
)
_FORM = 'a line has the form {"task_id": 0, "prompt": ..., "output_tokens": 8}, and'


class BenchSettings(BaseModel):
    """Of this format."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    eos_id: int = Field(-1, ge=-1, description="the token that ends an answer before output_tokens; -1: none does")


class TrtllmBench:
    """The format; see ``formats/base.py``."""

    Settings = BenchSettings
    container: Container = "lines"
    id_field = "task_id"
    keys = frozenset({"task_id", "output_tokens"})
    takes_text = takes_prompt = False

    def __init__(self, settings: BenchSettings) -> None:
        self._eos = settings.eos_id

    def problem(self, line: Mapping[str, Any]) -> str | None:
        tokens: Any = line.get("output_tokens")
        if not is_of(tokens, "integer") or tokens < 1:
            seen = "this has no output_tokens" if tokens is None else f"output_tokens of this is {short(tokens)}"
            return f"{_FORM} {seen}"
        if all(line.get(key) is None for key in (*_IDS, "prompt", "turns")):
            return f"{_FORM} this has no prompt, and neither input_ids nor turns"
        return None

    def read(self, line: Mapping[str, Any], adapters: Collection[str]) -> Rendered | Failure:
        prompt = _prompt(line)
        lora = _adapter(line.get("lora_request"), adapters)
        unknown = next((key for key in line if key not in _KNOWN), None)
        if isinstance(prompt, str) or isinstance(lora, Failure) or unknown is not None:
            said = f"{unknown} is not supported{near(str(unknown), _KNOWN)}"
            said = prompt if isinstance(prompt, str) else lora.message if isinstance(lora, Failure) else said
            return Failure(FailureKind.PROMPT, said)
        if prompt.text is not None and (not prompt.text or prompt.text.isspace()):
            return Failure(FailureKind.EMPTY_PROMPT, "the prompt is blank")
        ends = {"ignore_eos": True} if self._eos < 0 else {"ignore_eos": False, "stop_token_ids": [self._eos]}
        return Rendered(prompt, {"max_tokens": line["output_tokens"], **ends}, lora=lora)

    def variables(self, line: Mapping[str, Any]) -> Mapping[str, Any]:
        return line

    def write(self, row_id: RowId, rendered: Rendered, model: str | None) -> dict[str, Any]:  # noqa: ARG002 - a bench has one
        """Of a chat the messages' texts are written, a line each, as this form has no chat."""
        prompt = rendered.prompt
        line: dict[str, Any] = {"task_id": row_id}
        if prompt.ids is not None:
            line["input_ids"] = list(prompt.ids)
        elif prompt.messages is not None:
            line["prompt"] = "\n".join(str(message["content"]) for message in prompt.messages)
        else:
            line["prompt"] = f"{prompt.text}{prompt.prefill}"
        line["output_tokens"] = rendered.sampling.get("max_tokens", 1)
        if rendered.lora is not None:
            line["lora_request"] = {"lora_name": rendered.lora}
        return line

    def result(self, answered: Answered) -> dict[str, Any]:
        """A line of the answers: ``id``, ``output`` and ``output_tokens``, and of a request without one its ``error``."""
        record = answered.record
        outcome = outcome_of(record, answered.asked)
        if not isinstance(outcome, Success):
            return {"id": record["id"], "output": None, "output_tokens": 0, "error": outcome.message}
        return {"id": record["id"], "output": outcome.output, "output_tokens": record["usage"]["completion_tokens"]}


def _prompt(line: Mapping[str, Any]) -> Prompt | str:
    """The prompt, or what is wrong with it, in words."""
    if line.get("media_paths"):
        return "media_paths: images are not taken here; leave the row out"
    for key in _IDS:
        if (ids := line.get(key)) is not None:
            if not is_ids(ids):
                return f"{key} is a list of token ids, and this is {short(ids)}"
            return Prompt(ids=tuple(ids))
    text, turns = line.get("prompt"), line.get("turns")
    if text is None and turns is not None:
        if not isinstance(turns, list) or len(turns) != 1:
            seen = f"{len(turns)} of them" if isinstance(turns, list) else f"of type {type_name(turns)}"
            return f"turns is a list of one text here, and this is {seen}: give the whole conversation as prompt"
        text = turns[0]
    if not isinstance(text, str):
        return f"the prompt is of type {type_name(text)}, and must be text"
    return Prompt(text=text) if is_encodable(text) else "the prompt holds half a surrogate pair, which is no character"


def _adapter(asked: Any, adapters: Collection[str]) -> str | Failure | None:
    if asked is None:
        return None
    name = asked.get("lora_name") if isinstance(asked, Mapping) else asked
    if isinstance(name, str) and name in adapters:
        return name
    known = ", ".join(adapters) or "none"
    said = f"lora_request: there is no adapter {short(name)}: engine.lora (name: path) has {known}"
    return Failure(FailureKind.PROMPT, said)


__all__ = ["TrtllmBench"]
