"""An answer's text in; its thinking part and the rest out, by vLLM's reasoning parsers; and how a limit on the thinking is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from llmbatch.core.errors import JobError
from llmbatch.engines.thinking import BUDGET, Marks


class Split(NamedTuple):
    reasoning: str | None
    content: str


class Reasoning(NamedTuple):
    """A parser: how to split, whether it needs the special tokens in the text, and what begins and ends thinking, where it says."""

    split: Callable[[str], Split]
    needs_special_tokens: bool
    marks: Marks | None = None
    end: str | None = None  # of the thinking, as text


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

    return Reasoning(split, not adjusted.skip_special_tokens, _marks(parser, tokenizer), _mark(parser, "end"))


def ends_thinking(llm: Any) -> bool:
    """Whether vLLM keeps to a thinking budget itself: of this version, and of this model's parser, it knows the marks."""
    from vllm import SamplingParams

    config = getattr(llm.llm_engine.vllm_config, "reasoning_config", None)
    return BUDGET in SamplingParams.__struct_fields__ and config is not None and bool(getattr(config, "enabled", True))


def _marks(parser: Any, tokenizer: Any) -> Marks | None:
    ids = []
    for mark in ("start", "end"):
        text = _mark(parser, mark)
        ids.append(() if text is None else tuple(tokenizer.encode(text, add_special_tokens=False)))
    start, end = ids
    return Marks(start, end) if start and end else None


def _mark(parser: Any, mark: str) -> str | None:
    text = getattr(parser, f"reasoning_{mark}_str", None) or getattr(parser, f"{mark}_token", None)
    return text if isinstance(text, str) else None
