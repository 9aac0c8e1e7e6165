"""A request in, the call that brings its answer out; what came for a call in, its outcome out: how the HTTP loop speaks V2."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from llmbatch.core.errors import EngineDied
from llmbatch.core.sampling import LOOPS
from llmbatch.core.types import (
    Completion,
    Failure,
    FailureKind,
    FinishReason,
    Prompt,
    Request,
    RequestKey,
    Sampling,
    Usage,
)
from llmbatch.core.words import excerpt
from llmbatch.engines.http.base import NoAnswer, Note, Packed, Reply
from llmbatch.engines.http.estimate import about
from llmbatch.engines.http.retry import Verdict, verdict
from llmbatch.engines.kserve.prompts import Prompts
from llmbatch.engines.kserve.served import Served
from llmbatch.engines.kserve.settings import KserveSettings
from llmbatch.formats.kserve import Answer, WireError, error_of, generate_body, infer_body, read_generate, read_infer
from llmbatch.formats.kserve_dialects import Sent, Unsayable, logprobs_of, sent

_ENDS: Mapping[str, FinishReason] = {"stop": "stop", "length": "length", "abort": "abort"}
_HARMLESS = Prompt(text="1")
_SHORTEST = Sampling((("max_tokens", 1),))


class Row(NamedTuple):
    """A request as it goes to the server."""

    request: Request
    prompt: str
    sent: Sent
    most: int | None  # tokens of the answer

    @property
    def alike(self) -> tuple[Any, ...]:
        """What rows in one call have in common: which tensors there are, of which length, and the parameters of all of it."""
        lengths = [(name, len(v) if isinstance(v, list | tuple) else None) for name, v in self.sent.tensors.items()]
        return (*lengths, repr(self.sent.parameters))


class V2Wire:
    """A ``Wire``. Rows that were put together beforehand go as one call under a key of their own."""

    def __init__(self, served: Served, prompts: Prompts, settings: KserveSettings, note: Note) -> None:
        self._served = served
        self._prompts = prompts
        self._note = note
        self._names = settings.parameters
        self._values = settings.inputs
        self._together: dict[RequestKey, Sequence[Row]] = {}
        self._read: dict[RequestKey, list[Completion]] = {}

    def row(self, request: Request) -> Row | Failure:
        """What the server is to be told for a request, or why it cannot be."""
        if request.target is not None:
            return Failure(FailureKind.REFUSED, "a server of the V2 protocol gives no likelihood of a continuation")
        prompt = self._prompts.text(request.prompt)
        if isinstance(prompt, Failure):
            return prompt
        settings = dict(request.sampling.values)
        if LOOPS in settings:
            self._note("this server is not told to end an answer that runs in circles: it is found once it is whole")
        if request.seed is not None:
            settings["seed"] = request.seed
        if request.max_tokens is not None:
            settings["max_tokens"] = request.max_tokens
        dialect, model = self._served.takes, self._served.model
        try:
            told = sent(
                dialect, model, settings,
                constraint=request.constraint, adapter=request.lora, names=self._names, values=self._values,
            )  # fmt: skip
        except Unsayable as error:
            return Failure(FailureKind.REFUSED, str(error))
        return Row(request, prompt, told, settings.get("max_tokens"))

    def put_together(self, key: RequestKey, rows: Sequence[Row]) -> None:
        """From now on a request with this key stands for these rows."""
        self._together[key] = rows

    def taken_apart(self, key: RequestKey) -> list[Completion]:
        """The answers of what was put together, none where it got none; the key stands for nothing any more."""
        del self._together[key]
        return self._read.pop(key, [])

    def pack(self, request: Request) -> Packed | Failure:
        rows = self._together.get(request.key)
        if rows is None:
            row = self.row(request)
            if isinstance(row, Failure):
                return row
            rows = [row]
        try:
            return self._packed(rows)
        except WireError as error:
            return Failure(FailureKind.REFUSED, str(error))

    def read(self, request: Request, reply: Reply) -> Completion:
        rows = self._together.get(request.key)
        count, output = len(rows or "1"), self._served.output
        try:
            body = json.loads(reply.body)
            answers = [read_generate(body, output)] if self._served.generate else read_infer(body, count, output)
        except WireError as error:
            raise NoAnswer(str(error)) from error
        except (ValueError, OverflowError, RecursionError) as error:
            raise NoAnswer(f"no JSON, but {excerpt(reply.body)!r}") from error
        if rows is None:
            row = self.row(request)
            rows = [] if isinstance(row, Failure) else [row]  # it was sent, so it is a row
        try:
            read = [self._completion(row, answer) for row, answer in zip(rows, answers, strict=True)]
        except (AttributeError, KeyError, TypeError, ValueError) as error:  # log-probabilities of an unknown shape
            raise NoAnswer(f"an answer of an unknown shape ({error!r}): {excerpt(reply.body)!r}") from error
        if request.key not in self._together:
            return read[0]
        self._read[request.key] = read
        usage = sum((each.usage for each in read), Usage())
        return Completion(request.key, "", "stop", usage)

    def verdict(self, reply: Reply) -> Verdict:
        """Triton says 500 of what its model refuses as of what breaks. A row that is to blame tries again within its attempts."""
        return Verdict.DOUBTFUL if reply.status == 500 else verdict(reply.status)

    def harmless(self, request: Request) -> Packed | None:
        """A short text without all that a row may be refused for; its settings only where the model insists on them."""
        for sampling in (_SHORTEST, request.sampling):
            row = self.row(
                replace(request, prompt=_HARMLESS, sampling=sampling, max_tokens=None, constraint=None, lora=None)
            )
            if isinstance(row, Row):
                return self._packed([row])
        return None

    def refusal(self, request: Request, reply: Reply) -> Failure:  # noqa: ARG002 - what was asked is not needed to tell
        kind = FailureKind.ENGINE if reply.status == 500 else FailureKind.REFUSED
        return Failure(kind, f"the server says {reply.status}: {_said(reply)}")

    def ends_all(self, reply: Reply) -> str | None:
        """Raises ``EngineDied`` where the server has lost its model: it is looked at anew, and waited for."""
        if reply.status == 404:
            raise EngineDied(f"the server does not have the model now: {_said(reply)}", suspect=False)
        if reply.status == 501:
            return f"the server does not do this: {_said(reply)}; engine.protocol chooses between v2 and generate"
        return None

    def _packed(self, rows: Sequence[Row]) -> Packed:
        """Raises ``WireError``."""
        return Packed(f"/{self._served.path}", json.dumps(self._body(rows), ensure_ascii=False).encode())

    def _body(self, rows: Sequence[Row]) -> dict[str, Any]:
        served, first = self._served, rows[0]
        values = [{served.input: row.prompt, **row.sent.tensors} for row in rows]
        if served.generate:
            return generate_body(served.model, values[0], parameters=first.sent.parameters)
        name = "-".join(map(str, first.request.key))
        return infer_body(served.model, values, request_id=name, parameters=first.sent.parameters)

    def _completion(self, row: Row, answer: Answer) -> Completion:
        text = answer.text.removeprefix(row.prompt) if self._served.repeats_prompt else answer.text
        usage = Usage(self._tokens(answer.prompt_tokens, row.prompt), self._tokens(answer.completion_tokens, text))
        end = _end(answer, row.most)
        return Completion(row.request.key, text, end, usage, logprobs=logprobs_of(answer.logprobs))

    def _tokens(self, told: int | None, text: str) -> int:
        return about(text, self._note) if told is None else told


def _said(reply: Reply) -> str:
    try:
        told = error_of(json.loads(reply.body))
    except ValueError:
        told = None
    return told or excerpt(reply.body) or "no word of why"


def _end(answer: Answer, most: int | None) -> FinishReason:
    """Why an answer ended. Where the server does not tell, one that used up its budget was cut off, as far as tokens are told."""
    if answer.finish_reason in (None, "None", ""):
        used_up = most is not None and answer.completion_tokens is not None and answer.completion_tokens >= most
        return "length" if used_up else "stop"
    return _ENDS.get(str(answer.finish_reason), "error")
