"""Prompts in; token ids out that are vLLM's: by llmbatch's own tokenizer where it agrees with vLLM's renderer, else by that one.

Whether it agrees is tried on a few prompts with the model at hand, so that a model with a renderer of its own (Mistral's,
DeepSeek's, a multimodal processor's) is never given other ids than ``LLM.chat`` would give it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from types import SimpleNamespace
from typing import Any, NamedTuple

from llmbatch.core.errors import JobError
from llmbatch.core.messages import with_parts
from llmbatch.core.types import Failure, FailureKind, Message, PairIds, Prompt
from llmbatch.model.tokenizer import Tokenizer, is_plain

Encoded = list[int] | Failure

_USER = {"role": "user", "content": "Où est 数 🙂?\n  x "}
_PROBES = (
    Prompt(messages=(_USER,)),
    Prompt(messages=({"role": "system", "content": " Be brief. "}, _USER)),
    Prompt(messages=(_USER, {"role": "assistant", "content": " là\n"}, {"role": "user", "content": "and\tthen"})),
    Prompt(messages=(_USER,), prefill='{"a":'),
    Prompt(messages=(_USER,), prefill="So, "),
)
_TEXT_PROBES = (Prompt(text="Où est 数 🙂?\n  x "), Prompt(text="one", prefill=" two"))
_PAIR_PROBES = (Prompt(text="Où est 数 🙂?\n  x ", pair=" Là\n"), Prompt(text="one", pair="two three"))


class Encoder:
    """Prompts of one model -> ids. ``note`` is a sentence for a person where vLLM's slower renderer is used, else empty."""

    def __init__(self, own: Tokenizer | None, theirs: Callable[[Prompt], Encoded]) -> None:
        self._own = own
        self._theirs = theirs
        self._chat = own is not None and _agree(own, theirs, _PROBES)
        self._text = own is not None and _agree(own, theirs, _TEXT_PROBES)
        self._pairs: bool | None = None  # not tried yet: few models have any
        self.note = ""
        if not (self._chat and self._text):
            what = "chats" if self._text else "text" if self._chat else "prompts"
            self.note = f"vLLM's own renderer makes this model's {what}: it is slower, and gives ids that ours does not"
            logging.getLogger(__name__).warning(self.note)

    def encode(self, prompts: Sequence[Prompt]) -> list[Encoded]:
        """Ids of each prompt, prefill included, or why there are none."""
        ours = [i for i, prompt in enumerate(prompts) if self._is_ours(prompt)]
        result: list[Encoded | None] = [None] * len(prompts)
        if ours and self._own is not None:
            for i, ids in zip(ours, self._own.encode([prompts[i] for i in ours]), strict=True):
                result[i] = ids
        return [self._theirs(prompts[i]) if ids is None else ids for i, ids in enumerate(result)]

    def _is_ours(self, prompt: Prompt) -> bool:
        if prompt.pair is not None:
            if self._pairs is None:
                self._pairs = self._own is not None and _agree(self._own, self._theirs, _PAIR_PROBES)
            return self._pairs
        return self._text if prompt.messages is None else self._chat and is_plain(prompt)


class Chat(NamedTuple):
    """How messages become a prompt: what ``LLM.chat`` is given besides them."""

    template: str | None
    template_kwargs: Mapping[str, Any]

    def made(self, llm: Any, prompt: Prompt, shown: Callable[[str], Mapping[str, Any]]) -> Any:
        """vLLM's input for a prompt. ``shown`` gives the part that stands for the image of a URL. Raises what vLLM raises."""
        from vllm import LLM

        if prompt.messages is None:
            (made,) = LLM._preprocess_cmpl(llm, [(prompt.text or "") + prompt.prefill])
            return made
        messages = with_parts(prompt.messages, shown) if prompt.images else prompt.messages
        chat = [_as_sent(message) for message in messages]
        if prompt.prefill:
            chat.append({"role": "assistant", "content": prompt.prefill})
        (made,) = LLM._preprocess_chat(
            llm,
            [chat],
            chat_template=self.template,
            chat_template_kwargs=dict(self.template_kwargs) or None,
            add_generation_prompt=not prompt.prefill,
            continue_final_message=bool(prompt.prefill),
            tools=None if prompt.tools is None else [dict(tool) for tool in prompt.tools.offered],
        )
        return made


def _as_sent(message: Message) -> dict[str, Any]:
    """A message as a client of vLLM's server sends it. Of one with calls vLLM changes what it is given, so it is a copy."""
    if "tool_calls" not in message:
        return dict(message)
    return {**message, "content": message["content"] or None, "tool_calls": deepcopy(message["tool_calls"])}


class _WithoutMedia:
    """vLLM's renderer, which leaves it at the template's mark for an image: how many tokens that becomes only pixels tell."""

    def __init__(self, renderer: Any) -> None:
        self._renderer = renderer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._renderer, name)

    def render_chat(self, chats: Sequence[Any], chat_params: Any, tok_params: Any, **_: Any) -> tuple[Any, list[Any]]:
        prompts = [self._renderer.render_messages(chat, chat_params)[1] for chat in chats]
        ids = [prompt["prompt_token_ids"] for prompt in self._renderer.tokenize_prompts(prompts, tok_params)]
        return chats, [{"type": "token", "prompt_token_ids": each} for each in ids]


def vllm_renderer(args: Mapping[str, Any], chat: Chat) -> Callable[[Prompt], Encoded]:
    """What ``LLM.chat`` and ``LLM.generate`` do to a prompt, without an engine. ``args``: engine arguments.

    Of a prompt with images the ids have the template's marks for these. Raises what vLLM raises for a model that it cannot read.
    """
    from vllm.engine.arg_utils import EngineArgs
    from vllm.renderers import renderer_from_config
    from vllm.usage.usage_lib import UsageContext

    config = EngineArgs(**args).create_engine_config(usage_context=UsageContext.LLM_CLASS)
    if config.model_config.is_encoder_decoder:
        raise JobError("encoder-decoder models are not supported")
    # LLM's own methods, on an object that has what they read
    llm = SimpleNamespace(
        renderer=renderer_from_config(config), model_config=config.model_config, chat_template=chat.template
    )
    blind = SimpleNamespace(**{**vars(llm), "renderer": _WithoutMedia(llm.renderer)})
    lock = threading.Lock()
    pairs: list[Callable[[str, str], PairIds]] = []  # made once a pair comes

    def encode(prompt: Prompt) -> Encoded:
        try:
            with lock:  # a tokenizer of vLLM's is for one thread at a time
                if prompt.pair is not None:
                    if not pairs:
                        pairs.append(_pair_renderer(config, llm.renderer, chat.template))
                    return pairs[0](prompt.text or "", prompt.pair)
                made = chat.made(blind if prompt.images else llm, prompt, _blank)
        except ImportError as error:
            return Failure(
                FailureKind.PROMPT, f"this version of vLLM has pairs of texts elsewhere, 0.32 is known: {error}"
            )
        except Exception as error:  # whatever a renderer raises is about this prompt
            return refusal(error)
        return list(made["prompt_token_ids"])

    return encode


def _pair_renderer(config: Any, renderer: Any, template: str | None) -> Callable[[str, str], PairIds]:
    """What ``LLM.score`` does to the two texts that a cross-encoder judges together."""
    from vllm.entrypoints.pooling.scoring.io_processor import CrossEncoderIOProcessor
    from vllm.renderers.chat_utils import ChatTemplateConfig

    processor = CrossEncoderIOProcessor(config, renderer, ChatTemplateConfig(chat_template=template))
    arguments = renderer.default_cmpl_tok_params.get_encode_kwargs()

    def encode(first: str, second: str) -> PairIds:
        _, made = processor.get_score_prompt(first, second, arguments, chat_template=template)
        ids, types = list(made["prompt_token_ids"]), made.get("token_type_ids") or ()
        return PairIds(ids, types.index(1) if 1 in types else len(ids))

    return encode


def refusal(error: Exception) -> Failure:
    """What a renderer raised for a prompt, as that prompt's failure."""
    too_long = getattr(error, "parameter", None) in ("input_tokens", "input_text")
    return Failure(FailureKind.TOO_LONG if too_long else FailureKind.PROMPT, f"vLLM refuses this prompt: {error}")


def _blank(_url: str) -> Mapping[str, Any]:
    """A part that stands for any image."""
    from PIL import Image

    return {"type": "image_pil", "image_pil": Image.new("RGB", (1, 1))}


def _agree(own: Tokenizer, theirs: Callable[[Prompt], Encoded], probes: Sequence[Prompt]) -> bool:
    """Whether both give the same ids; where both refuse, that is agreement too."""
    mine = own.encode(probes)
    return all(_same(a, theirs(probe)) for a, probe in zip(mine, probes, strict=True))


def _same(a: Encoded, b: Encoded) -> bool:
    if isinstance(a, PairIds) and isinstance(b, PairIds) and a.second != b.second:
        return False
    return a == b or (isinstance(a, Failure) and isinstance(b, Failure))
