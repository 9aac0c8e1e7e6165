"""Our requests as the bodies that a server takes, its replies as our outcomes: implements ``engines.http.base.Wire``."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from llmbatch.core.logprobs import ASKED
from llmbatch.core.sampling import LOOPS, NO_SEED, Loops
from llmbatch.core.types import Constraint, Failure, FailureKind, Message, Outcome, Pooling, Request, Sampling
from llmbatch.engines.http.base import Note, Packed, Reply
from llmbatch.engines.http.retry import Verdict, verdict
from llmbatch.engines.openai.answers import completion_of
from llmbatch.engines.openai.dialect import Dialect
from llmbatch.engines.openai.embeddings import EMBEDDINGS, embedding_fields, embedding_of
from llmbatch.engines.openai.scores import CLASSIFY, SCORE, classes_of, classify_fields, score_fields, score_of
from llmbatch.engines.openai.server import API
from llmbatch.engines.openai.words import error_of, is_without_quota, words
from llmbatch.formats.openai.tools import written_tools
from llmbatch.images.ahead import for_server
from llmbatch.images.base import ImageSettings

CHAT, COMPLETIONS = "/chat/completions", "/completions"
_IMAGES = ImageSettings()
_KEPT = 4096  # distinct settings; a job that has more makes them anew


class OpenAIWire:
    """For one model of one kind of server. ``note`` is told, once each, what a person may want to know."""

    def __init__(
        self,
        model: str,
        dialect: Dialect,
        args: Mapping[str, Any],
        chat_template: Mapping[str, Any],
        note: Note,
        images: ImageSettings = _IMAGES,
        classes: Sequence[str] = (),
    ) -> None:
        self._model = model
        self.dialect = dialect
        self.context_length: int | None = None  # in tokens
        self._args = {**args, **({"chat_template_kwargs": dict(chat_template)} if chat_template else {})}
        self._note = note
        self._images = images
        self._classes = tuple(classes)
        self._readers = threading.Semaphore(images.workers)
        self._made: dict[tuple[int, Constraint | None, bool], tuple[Sampling, dict[str, Any]]] = {}

    def body(self, request: Request) -> dict[str, Any] | Failure:
        """The request's body as plain data; images of this machine are read into it."""
        if request.target is not None:
            return Failure(FailureKind.REFUSED, "a server gives no token ids, and without them nothing can be scored")
        if request.sampling.get(ASKED) is not None:
            return Failure(FailureKind.REFUSED, f"this engine gives no log-probabilities of a prompt ({ASKED})")
        messages = self._messages(request)
        if isinstance(messages, Failure):
            return messages
        if request.pooling is not None:
            return self._numbers(request, request.pooling, messages)
        chat = messages is not None
        body = {
            "model": request.lora or self._model,
            **self._prompt(request, messages),
            **self._settings(request, chat),
            **({} if request.prompt.tools is None else written_tools(request.prompt.tools)),
        }
        if request.seed is not None:
            body["seed"] = request.seed
        limit = self._max_tokens(chat)
        if request.max_tokens is not None:
            body[limit] = request.max_tokens
        if self.dialect.cuts_budgets and self.context_length is not None:
            # without a limit, plain completions have one of 16
            body[limit] = min(body.get(limit, self.context_length), self.context_length - 1)
        return body

    def pack(self, request: Request) -> Packed | Failure:
        body = self.body(request)
        if isinstance(body, Failure):
            return body
        whole = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        path = _path(request)
        return Packed(path, whole, beside=API if path == CLASSIFY else "")

    def read(self, request: Request, reply: Reply) -> Outcome:
        if request.pooling is not None:
            match request.pooling.task:
                case "embed":
                    return embedding_of(request, request.pooling, reply.body, self._note)
                case "classify":
                    return classes_of(request, self._classes, reply.body, self._note)
                case "pairs":
                    return score_of(request, reply.body, self._note)
        return completion_of(request, reply.body, self.dialect, self._note)

    def verdict(self, reply: Reply) -> Verdict:
        return verdict(reply.status)

    def harmless(self, request: Request) -> Packed | None:  # noqa: ARG002 - a status tells what is refused
        return None

    def refusal(self, request: Request, reply: Reply) -> Failure:
        kind = FailureKind.TOO_LONG if error_of(reply).too_long else FailureKind.REFUSED
        said = words(reply)
        if self.dialect.grammars and _is_schema(request.constraint) and "grammar" in said.lower():
            said = f"{said} (--set engine.schemas=response_format sends the schema as it is)"
        return Failure(kind, f"the server refuses this request (status {reply.status}): {said}")

    def ends_all(self, reply: Reply) -> str | None:
        if is_without_quota(reply):
            return (
                f"the server answers nothing more: {words(reply)}. Finished rows are safe, and the same command goes on"
            )
        return None

    def _messages(self, request: Request) -> Sequence[Message] | Failure | None:
        if not request.prompt.images:
            return request.prompt.messages
        with self._readers:  # they hold the bytes
            return for_server(request.prompt, self._images)

    def _prompt(self, request: Request, messages: Sequence[Message] | None) -> dict[str, Any]:
        prompt = request.prompt
        if prompt.ids is not None:
            return {"prompt": list(prompt.ids)}
        if messages is None:
            return {"prompt": f"{prompt.text}{prompt.prefill}"}
        if not prompt.prefill:
            return {"messages": list(map(dict, messages))}
        begun = {"role": "assistant", "content": prompt.prefill}
        fields: dict[str, Any] = {"messages": [*map(dict, messages), begun]}
        if self.dialect.continues:
            fields |= {"continue_final_message": True, "add_generation_prompt": False}
        return fields

    def _numbers(
        self, request: Request, pooling: Pooling, messages: Sequence[Message] | None
    ) -> dict[str, Any] | Failure:
        if self.dialect.name != "vllm" and (found := _of_vllm_alone(pooling, messages)) is not None:
            asked, instead = found
            return Failure(
                FailureKind.REFUSED,
                f"{asked}, and this server is none ({self.dialect.name}): {instead}, or say engine.dialect=vllm if it is one",
            )
        match pooling.task:
            case "embed":
                fields = embedding_fields(self._prompt(request, messages), pooling)
            case "classify":
                fields = classify_fields(self._prompt(request, messages), pooling)
            case "pairs":
                fields = score_fields(request, pooling)
        return {"model": request.lora or self._model, **fields, **self._args}

    def _settings(self, request: Request, chat: bool) -> dict[str, Any]:
        """What requests share: sampling, constraint and the job's own fields, made once for each distinct setting."""
        tools = request.prompt.tools
        constraint = (
            None if tools is not None and tools.forced else request.constraint
        )  # which the server makes of the tools
        key = (id(request.sampling), constraint, chat)
        made = self._made.get(key)
        if made is None:
            if len(self._made) >= _KEPT:
                self._made.clear()
            # the sampling is kept with it, so that its identity is not another's later
            made = self._made[key] = (request.sampling, self._make(request.sampling, constraint, chat))
        return made[1]

    def _make(self, sampling: Sampling, constraint: Constraint | None, chat: bool) -> dict[str, Any]:
        fields: dict[str, Any] = dict(self._args)
        for name, value in sampling.values:
            if name == "n" or (name == "seed" and value == NO_SEED):
                continue
            if name == LOOPS:
                fields |= self._stopping(Loops(*value))
            elif name == "logprobs" and chat:
                fields |= {"logprobs": True, "top_logprobs": value}
            elif name == "max_tokens":
                fields[self._max_tokens(chat)] = value
            elif name == "logit_bias":
                fields[name] = {str(token): bias for token, bias in dict(value).items()}
            else:
                fields[name] = value
        if constraint is not None:
            held = self.dialect.fields(constraint)
            if not held:
                self._note(
                    f"this server ({self.dialect.name}) cannot hold an answer to a {constraint.kind}: it is asked without, and "
                    "what does not fit is asked again"
                )
            if self.dialect.grammars and _is_schema(constraint) and "response_format" in held:
                self._note(
                    "a schema goes as response_format, with which a weak model may fill its answer with white space: xgrammar, "
                    "which makes a grammar of it, is not installed here (pip install xgrammar), or has none for it"
                )
            fields |= held
        return fields

    def _stopping(self, loops: Loops) -> dict[str, Any]:
        """How a server is told to end an answer that runs in circles."""
        if self.dialect.loops is None:
            self._note(
                f"this server ({self.dialect.name}) cannot be told to end an answer that runs in circles: it is found once it is "
                "whole"
            )
            return {}
        least = {"min_count": loops.times, "min_pattern_size": loops.shortest, "max_pattern_size": loops.longest}
        return {self.dialect.loops: least}

    def _max_tokens(self, chat: bool) -> str:
        return self.dialect.max_tokens if chat else "max_tokens"


def _of_vllm_alone(pooling: Pooling, messages: Sequence[Message] | None) -> tuple[str, str] | None:
    """(what of a request for numbers vLLM's server alone can do, what to do instead); ``None`` for what others can do, too."""
    if pooling.task != "embed":
        return "classes and scores of pairs are what vLLM's server alone gives", "ask for vectors"
    if pooling.activation is not None:
        return "program.settings.normalize is what vLLM's server alone can be told", "leave it out"
    if messages is not None:
        return "the prompt is a chat, of which vLLM's server alone makes a vector", "give the prompt as text"
    return None


def _path(request: Request) -> str:
    if request.pooling is not None:
        return {"embed": EMBEDDINGS, "classify": CLASSIFY, "pairs": SCORE}[request.pooling.task]
    return COMPLETIONS if request.prompt.messages is None else CHAT


def _is_schema(constraint: Constraint | None) -> bool:
    return constraint is not None and constraint.kind == "json"


__all__ = ["CHAT", "COMPLETIONS", "OpenAIWire"]
