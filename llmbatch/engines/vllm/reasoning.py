"""An answer's text in; its thinking part and the rest out, by vLLM's reasoning parsers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from llmbatch.core.errors import JobError


class Split(NamedTuple):
    reasoning: str | None
    content: str


class Reasoning(NamedTuple):
    """A parser: how to split, and whether it needs the special tokens in the text."""

    split: Callable[[str], Split]
    needs_special_tokens: bool


def load_reasoning(name: str, tokenizer: Any, template_kwargs: Mapping[str, Any], model_config: Any) -> Reasoning:
    """One of vLLM's parsers by name. Raises ``JobError`` for one it does not have, or that works only while streaming."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.reasoning import ReasoningParserManager

    try:
        kind = ReasoningParserManager.get_reasoning_parser(name)
    except (KeyError, ValueError, ImportError) as error:
        known = sorted(
            {*ReasoningParserManager.reasoning_parsers, *getattr(ReasoningParserManager, "lazy_parsers", ())}
        )
        raise JobError(f"engine.reasoning_parser: vLLM has no parser {name!r}; it has {', '.join(known)}") from error
    request = ChatCompletionRequest(
        model="", messages=[{"role": "user", "content": ""}], chat_template_kwargs=dict(template_kwargs) or None
    )
    try:
        parser = kind(tokenizer, chat_template_kwargs=dict(template_kwargs), model_config=model_config)
        parser.extract_reasoning("", request)
    except NotImplementedError as error:
        raise JobError(
            f"engine.reasoning_parser: vLLM's parser {name!r} does not work on finished text: {error}"
        ) from error
    except (ValueError, RuntimeError, TypeError) as error:
        raise JobError(f"engine.reasoning_parser: {name!r} does not fit this model: {error}") from error
    adjusted = parser.adjust_request(request.model_copy())

    def split(text: str) -> Split:
        reasoning, content = parser.extract_reasoning(text, request)
        return Split(reasoning, content or "")

    return Reasoning(split, needs_special_tokens=not adjusted.skip_special_tokens)
