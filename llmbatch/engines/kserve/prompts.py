"""A request's prompt in; the text that the server is given out, by the chat template of a local tokenizer where there is one."""

from __future__ import annotations

from dataclasses import replace

from llmbatch.core.types import Failure, FailureKind, Prompt
from llmbatch.model.tokenizer import ChatSettings, Tokenizer, load_tokenizer

_NEEDED = (
    "the server takes text, and this prompt has {what}: give engine.tokenizer, a model's name or folder, whose chat template "
    "makes one text of it, or write the prompt as text"
)


class Prompts:
    """Renders prompts. Raises ``JobError`` for a tokenizer that cannot be had."""

    def __init__(self, tokenizer: str | None, chat: ChatSettings, *, trust_remote_code: bool = False) -> None:
        self._tokenizer: Tokenizer | None = None
        if tokenizer is not None:
            self._tokenizer = load_tokenizer(tokenizer, chat, trust_remote_code=trust_remote_code)

    def text(self, prompt: Prompt) -> str | Failure:
        """The text. Without a tokenizer a single message of the user's is its own text, as no model's format is known."""
        if prompt.ids is not None:
            return Failure(FailureKind.PROMPT, "the server takes text, and this prompt is token ids: give it as text")
        if self._tokenizer is not None:
            return self._tokenizer.render(replace(prompt, long=True))  # what fits is for the server to say
        if prompt.messages is None:
            return f"{prompt.text or ''}{prompt.prefill}"
        if len(prompt.messages) > 1:
            return Failure(FailureKind.PROMPT, _NEEDED.format(what=f"{len(prompt.messages)} messages"))
        if prompt.prefill:
            return Failure(FailureKind.PROMPT, _NEEDED.format(what="a message and the start of its answer"))
        content = prompt.messages[0].get("content")
        return (
            content if isinstance(content, str) else Failure(FailureKind.PROMPT, _NEEDED.format(what="more than text"))
        )
