"""vLLM's outputs for requests in; their completions out, and of one that is not finished the piece of its answer that came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmbatch.core.tools import calls_in
from llmbatch.core.types import Completion, FinishReason, Piece, Request, Usage
from llmbatch.engines.vllm.calls import Calls
from llmbatch.engines.vllm.handing import Pending
from llmbatch.engines.vllm.reasoning import Reasoning
from llmbatch.engines.vllm.text import Answer, Detokenizer, logprobs_json, prompt_logprobs_json

_FINISH: Mapping[str, FinishReason] = {
    "stop": "stop", "length": "length", "abort": "abort", "error": "error", "repetition": "repetition",
}  # fmt: skip


class Answers:
    """Of one engine."""

    def __init__(self, detokenizer: Detokenizer, reasoning: Reasoning | None, calls: Calls | None = None) -> None:
        self._detokenizer = detokenizer
        self._reasoning = reasoning
        self._calls = calls

    def piece(self, pending: Pending, output: Any) -> Piece | None:
        """What came of an answer since it was told last; None where that is no text yet, or not known to be of the answer.

        Before the thinking is at its end nothing is told, and nothing where there is a prefill: what the text of such an answer is,
        is known when it is finished. Calls of tools are told with the whole.
        """
        request, answer = pending.request, output.outputs[0]
        if request.prompt.prefill or request.partial:
            return None
        text = str(answer.text)
        if (reasoning := self._reasoning) is not None:
            if reasoning.end is None or reasoning.end not in text:
                return None
            text = reasoning.split(text).content
        if request.prompt.tools is not None:
            text = self._without_calls(pending, text, tuple(answer.token_ids))
        start, tokens = pending.told
        if len(text) <= start:
            return None
        pending.told = len(text), len(answer.token_ids)
        logprobs = None if answer.logprobs is None else logprobs_json(answer.logprobs[tokens:])
        return Piece(request.key, start, text[start:], logprobs)

    def _without_calls(self, pending: Pending, text: str, ids: tuple[int, ...]) -> str:
        """What of an answer that is not finished is sure to be no call of a tool."""
        tools = pending.request.prompt.tools
        if tools is None or tools.choice == "none" or (tools.choice == "auto" and self._calls is None):
            return text
        if tools.forced or self._calls is None:
            return ""
        if pending.telling is None:
            pending.telling = self._calls.telling(tools)
        return pending.telling.so_far(text, ids)

    def of(self, pending: Sequence[Pending], finished: Sequence[Any]) -> list[Completion]:
        """The completions of requests with their outputs."""
        ours = [
            i
            for i, p in enumerate(pending)
            if not _stops_after_partial(p) and (p.setting.detokenize or p.request.partial)
        ]
        texts = self._detokenizer.texts([_answer(pending[i], finished[i]) for i in ours])
        text_of = dict(zip(ours, texts, strict=True))
        return [self._completion(pending[i], output, text_of.get(i)) for i, output in enumerate(finished)]

    def _completion(self, pending: Pending, output: Any, text: str | None) -> Completion:
        request, answer = pending.request, output.outputs[0]
        ids, finish_reason, stop_reason = answer.token_ids, _FINISH[answer.finish_reason], answer.stop_reason
        if _stops_after_partial(pending):
            ending = self._detokenizer.ending(
                _answer(pending, output),
                pending.setting.params.stop,
                already=len(request.partial),
                include_stop=pending.setting.include_stop,
            )
            text = ending.text
            if ending.stop is not None:
                ids, finish_reason, stop_reason = ids[: ending.tokens - len(request.partial)], "stop", ending.stop
        elif text is None:
            text = answer.text
        if request.prompt.prefill:
            text = self._detokenizer.after_prefill(text, request.prompt.prefill, request.token_ids or ())
        reasoning = None
        if self._reasoning is not None:
            reasoning, text = self._reasoning.split(text)
        calls = None
        if (
            request.prompt.tools is not None and finish_reason == "stop"
        ):  # one that was cut off may be cut off in a call
            text, calls = calls_in(text, request.prompt.tools, None if self._calls is None else self._calls.read)
            if calls is not None and pending.telling is not None and not text.startswith(pending.telling.told):
                text = (
                    pending.telling.told
                )  # a parser may tell white space before a call that it leaves out of the whole
        return Completion(
            key=request.key,
            text=text,
            finish_reason=finish_reason,
            usage=Usage(len(output.prompt_token_ids), len(answer.token_ids), output.num_cached_tokens or 0),
            token_ids=(*request.partial, *ids),
            reasoning=reasoning,
            stop_reason=stop_reason,
            logprobs=self._logprobs(request, output, len(ids)),
            tool_calls=calls,
        )

    def _logprobs(self, request: Request, output: Any, tokens: int) -> list[dict[str, Any]] | None:
        """Those of so many tokens of the answer; a prompt's come before them, once: not where it goes on from a partial answer."""
        told = output.outputs[0].logprobs
        answers = None if told is None else logprobs_json(told[:tokens])
        if not output.prompt_logprobs or request.partial:
            return answers
        first = self._detokenizer.token(output.prompt_token_ids[0])
        return [*prompt_logprobs_json(first, output.prompt_logprobs), *(answers or ())]


def _answer(pending: Pending, output: Any) -> Answer:
    """The ids whose text is the answer: the whole one, without the token that ended it."""
    request, answer = pending.request, output.outputs[0]
    ids = [*request.partial, *answer.token_ids]
    if answer.finish_reason == "stop" and not isinstance(answer.stop_reason, str) and not pending.setting.include_stop:
        ids.pop()
    return Answer(request.token_ids or (), ids, pending.setting.skip_special_tokens)


def _stops_after_partial(pending: Pending) -> bool:
    """Whether a stop string may have begun in the partial answer, where vLLM does not look for it."""
    return bool(pending.request.partial and pending.setting.params.stop)


__all__ = ["Answers"]
