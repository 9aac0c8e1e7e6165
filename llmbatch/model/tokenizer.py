"""Messages or text in; the token ids out that vLLM's ``LLM.chat`` and ``LLM.generate`` would have made, without vLLM or torch.

The model's own chat template and fast tokenizer do the work, in batches. A row's text is given to the template as it is: text
that spells a special token (``<|im_end|>``) becomes that token, as in vLLM. Messages of plain text are covered (``is_plain``);
for tool calls and the like the ids are vLLM's only where vLLM's own renderer makes them. An image is the template's mark for one,
where the template knows parts: how many tokens it becomes only the model's processor tells.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from llmbatch.core.errors import EngineError, JobError
from llmbatch.core.messages import text_of
from llmbatch.core.settings import Counts, IsPath
from llmbatch.core.types import Failure, FailureKind, Message, PairIds, Prompt
from llmbatch.model.hub import see_model
from llmbatch.model.memory import text_config

_PLAIN_KEYS = frozenset({"role", "content", "name"})
_PLAIN_ROLES = frozenset({"system", "user", "assistant"})
_BATCH_ROWS = 256  # a batch's encodings hold some hundred bytes a token while they are made
_BATCH_CHARACTERS = 500_000
_LENGTH_KEYS = (
    "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length", "max_target_positions",
    "max_sequence_length", "max_seq_length", "seq_len",
)  # fmt: skip
_ROPE_WITHOUT_FACTOR = frozenset(
    {"su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling", "default"}
)
_UNKNOWN_LENGTH = 2048  # vLLM's own assumption for a config that does not say


def _is_template_path(value: str, _base: Path) -> bool:
    return "{" not in value and "\n" not in value


class ChatSettings(BaseModel):
    """How messages become the model's own prompt format."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    template: Annotated[str | None, IsPath(_is_template_path), Counts.CONTENT] = Field(
        None, description="chat template: a path or the Jinja text; by default the model's own"
    )
    template_kwargs: dict[str, Any] = Field(default_factory=dict, description="e.g. {enable_thinking: false}")


class Tokenizer:
    """One model's chat template and tokenizer. ``encode`` and ``decode`` may be called from several threads."""

    def __init__(self, hf: Any, template: str | None, kwargs: Mapping[str, Any], context_length: int) -> None:
        self.hf = hf
        self.template = template
        self.context_length = context_length
        self._wrap = template is not None and loops_over_content(template)
        self._kwargs = {**hf.special_tokens_map, **kwargs}
        self._tools = self._kwargs.pop("tools", None)
        self._documents = self._kwargs.pop("documents", None)
        self._longest_token = max(map(len, hf.get_vocab()), default=1)
        self._tells_pairs_apart = "token_type_ids" in hf.model_input_names
        # The plain fast tokenizer's own encoding step is one call of its Rust part, so that part can be called directly.
        plain = "_encode_plus" not in {name for c in type(hf).__mro__[:-1] if _is_special(c) for name in vars(c)}
        self._rust = (
            getattr(hf, "_tokenizer", None) if plain and not getattr(hf, "split_special_tokens", False) else None
        )
        if self._rust is not None:
            self._rust.no_truncation()
            self._rust.no_padding()

    def encode(self, prompts: Sequence[Prompt]) -> list[list[int] | Failure]:
        """Token ids of each prompt with its prefill, in order; a ``Failure`` for a prompt that the template refuses.

        A text with more characters than tokens of the context could hold is ``TOO_LONG`` without being tokenized. Of a pair they
        are ``PairIds``.
        """
        if any(prompt.pair is not None for prompt in prompts):
            pairs = iter(self._pairs([prompt for prompt in prompts if prompt.pair is not None]))
            others = iter(self.encode([prompt for prompt in prompts if prompt.pair is None]))
            return [next(others if prompt.pair is None else pairs) for prompt in prompts]
        texts = [self.render(prompt) for prompt in prompts]
        result: list[list[int] | Failure] = [
            text if isinstance(text, Failure) else list(prompt.ids or ())
            for text, prompt in zip(texts, prompts, strict=True)
        ]
        for special in (False, True):
            rows = [
                i
                for i, text in enumerate(texts)
                if isinstance(text, str) and (prompts[i].messages is None) == special and prompts[i].ids is None
            ]
            for batch in _batches(rows, texts):
                for i, ids in zip(batch, self._ids([texts[i] for i in batch], special), strict=True):
                    result[i] = ids
        return result

    def _pairs(self, prompts: Sequence[Prompt]) -> list[list[int] | Failure]:
        firsts = [self.render(Prompt(text=prompt.text)) for prompt in prompts]
        seconds = [self.render(Prompt(text=prompt.pair)) for prompt in prompts]
        refused = [
            first if isinstance(first, Failure) else second for first, second in zip(firsts, seconds, strict=True)
        ]
        result: list[list[int] | Failure] = [each if isinstance(each, Failure) else [] for each in refused]
        fitting = [i for i, each in enumerate(refused) if not isinstance(each, Failure)]
        for batch in _batches(fitting, seconds):
            for i, (ids, types) in zip(batch, self._told_apart([(firsts[i], seconds[i]) for i in batch]), strict=True):
                result[i] = PairIds(ids, types.index(1) if 1 in types else len(ids))
        return result

    def _told_apart(self, pairs: list[Any]) -> list[tuple[list[int], Sequence[int]]]:
        """The ids of pairs, and of each id to which of the two texts it belongs, where the model is told."""
        if self._rust is not None:
            made = self._rust.encode_batch_fast(pairs, add_special_tokens=True)
            return [(each.ids, each.type_ids if self._tells_pairs_apart else ()) for each in made]
        found = self.hf([first for first, _ in pairs], [second for _, second in pairs], verbose=False)
        return list(zip(found["input_ids"], found.get("token_type_ids", [()] * len(pairs)), strict=True))

    def render(self, prompt: Prompt) -> str | Failure:
        """The text that is tokenized: the chat template's, open-ended after a prefill, or the plain text."""
        if prompt.messages is None:
            text: str | Failure = (prompt.text or "") + prompt.prefill
        else:
            text = self._render_chat(prompt.messages, prompt.prefill)
        if isinstance(text, str) and not prompt.long and len(text) > self._longest_token * self.context_length:
            most = self._longest_token * self.context_length
            return Failure(
                FailureKind.TOO_LONG,
                f"the prompt has {len(text):,} characters; a context of {self.context_length:,} tokens holds at most {most:,}",
            )
        return text

    def decode(self, batch: Sequence[Sequence[int]], *, skip_special_tokens: bool = True) -> list[str]:
        """The text of each sequence of ids, as one batch, without the clean-up of spaces that some tokenizers do."""
        if self._rust is not None:
            return list(self._rust.decode_batch(batch, skip_special_tokens=skip_special_tokens))
        kwargs = {"skip_special_tokens": skip_special_tokens, "clean_up_tokenization_spaces": False}
        return [str(text) for text in self.hf.batch_decode(batch, **kwargs)]

    def _render_chat(self, messages: Sequence[Message], prefill: str) -> str | Failure:
        from transformers.utils.chat_template_utils import render_jinja_template

        if self.template is None:
            return Failure(
                FailureKind.PROMPT,
                "the model has no chat template: give one with chat.template, or use a prompt of plain text",
            )
        try:
            chat = [_conversation(message, self._wrap) for message in messages]
            if prefill:
                chat.append(_conversation({"role": "assistant", "content": prefill}, self._wrap))
            rendered, _ = render_jinja_template(
                conversations=[chat],
                tools=self._tools,
                documents=self._documents,
                chat_template=self.template,
                add_generation_prompt=not prefill,
                continue_final_message=bool(prefill),
                **self._kwargs,
            )
        except Exception as error:  # a template may raise anything, and it is the row's fault alone
            return Failure(FailureKind.PROMPT, f"the chat template refuses this prompt: {error}")
        return str(rendered[0])

    def _ids(self, texts: list[Any], special: bool) -> list[list[int]]:
        if self._rust is not None:
            return [encoding.ids for encoding in self._rust.encode_batch_fast(texts, add_special_tokens=special)]
        kwargs = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}
        return list(self.hf(texts, add_special_tokens=special, **kwargs)["input_ids"])


def is_plain(prompt: Prompt) -> bool:
    """Whether a prompt is text, or messages of plain text by system, user and assistant: what ``Tokenizer`` covers exactly."""
    for message in prompt.messages or ():
        if (
            message.keys() - _PLAIN_KEYS
            or message["role"] not in _PLAIN_ROLES
            or not isinstance(message.get("content"), str)
        ):
            return False
    return True


def load_tokenizer(
    model: str,
    chat: ChatSettings,
    *,
    tokenizer: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    without_torch: bool = False,
) -> Tokenizer:
    """The tokenizer of a model (hub name or folder). Raises ``JobError`` for a model or template that cannot be had.

    ``without_torch`` keeps transformers from importing torch, which takes many seconds; it holds for the whole process, which
    must not start a vLLM engine afterwards. Nothing changes where torch is there already.
    """
    if without_torch and "torch" not in sys.modules:
        # transformers 5 has no setting for it, and asks the import system whether torch is installed.
        sys.modules["torch"] = None  # type: ignore[assignment]
    name = tokenizer or model
    try:
        see_model("model" if tokenizer is None else "tokenizer", name, revision)
    except EngineError as error:  # the hub cannot be reached
        raise JobError(str(error)) from error
    from transformers import AutoTokenizer

    try:
        hf = AutoTokenizer.from_pretrained(
            name, revision=revision, trust_remote_code=trust_remote_code, truncation_side="left"
        )
    except Exception as error:
        raise JobError(
            f"the tokenizer of model {name!r} cannot be loaded: {error}. Check the name or path, and that tokenizer files are there"
        ) from error
    return Tokenizer(hf, _chat_template(hf, chat.template), chat.template_kwargs, context_length(model, revision))


def load_template(template: str) -> str:
    """A chat template from a path or given as Jinja text. Raises ``JobError`` for a path that cannot be read."""
    if "{" in template or "\n" in template:
        return template
    try:
        return Path(template).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(
            f"chat.template {template!r} is neither Jinja text nor a file that can be read: {error}"
        ) from error


def loops_over_content(template: str) -> bool:
    """Whether a chat template takes a message's content apart as a list of parts.

    vLLM hands such a template a list of parts, and any other one the text: here the same rule is followed.
    """
    from jinja2 import nodes
    from transformers.utils.chat_template_utils import _compile_jinja_template

    try:
        tree = _compile_jinja_template(template).environment.parse(template)
    except Exception:  # rendering will say what is wrong
        return False
    contents = _ContentNames(tree)
    return any(contents.holds(loop.iter, inside=contents.macros.get(id(loop))) for loop in tree.find_all(nodes.For))


class _ContentNames:
    """Which expressions of a template stand for a message's content, found as far as vLLM looks: without scopes, and of the
    names that a content is given only ``content`` and the parameters of macros.
    """

    def __init__(self, tree: Any) -> None:
        from jinja2 import nodes

        self._nodes = nodes
        lists = _aliases(tree, {"messages"}, self._is_name)
        loops = [loop for loop in tree.find_all(nodes.For) if isinstance(loop.target, nodes.Name)]
        self.messages = {loop.target.name for loop in loops if self._is_name(loop.iter, lists)}
        self.macros: dict[int, set[str]] = {}
        for macro in tree.find_all(nodes.Macro):
            parameters = self._content_parameters(tree, macro)
            for loop in macro.find_all(nodes.For):
                self.macros[id(loop)] = parameters

    def holds(self, expression: Any, inside: set[str] | None) -> bool:
        """Whether an expression that is looped over is a content. ``inside``: parameters of the macro that the loop is in."""
        if self._is_content(expression, self.messages):
            return True
        if not isinstance(expression, self._nodes.Name):
            return False
        return expression.name == "content" if inside is None else expression.name in inside

    def _content_parameters(self, tree: Any, macro: Any) -> set[str]:
        names = [argument.name for argument in macro.args]
        found: set[str] = set()
        for call in tree.find_all(self._nodes.Call):
            if isinstance(call.node, self._nodes.Name) and call.node.name == macro.name:
                pairs = [
                    *zip(names, call.args, strict=False),
                    *((k.key, k.value) for k in call.kwargs if k.key in names),
                ]
                found |= {name for name, value in pairs if self._is_content(value, self.messages)}
        return found

    def _is_name(self, node: Any, names: set[str]) -> bool:
        node = self._bare(node)
        return isinstance(node, self._nodes.Name) and node.name in names

    def _is_content(self, node: Any, messages: set[str]) -> bool:
        node = self._bare(node)
        if isinstance(node, self._nodes.Getattr):
            return node.attr == "content" and self._is_name(node.node, messages)
        if isinstance(node, self._nodes.Getitem) and isinstance(node.arg, self._nodes.Const):
            return node.arg.value == "content" and self._is_name(node.node, messages)
        return False

    def _bare(self, node: Any) -> Any:
        """The expression without filters, tests and slices around it."""
        around = (self._nodes.Filter, self._nodes.Test)
        while isinstance(node, around) or (
            isinstance(node, self._nodes.Getitem) and isinstance(node.arg, self._nodes.Slice)
        ):
            node = node.node
        return node


def _aliases(tree: Any, names: set[str], is_name: Callable[[Any, set[str]], bool]) -> set[str]:
    """The names, and those that are assigned from them, however often."""
    from jinja2 import nodes

    known = set(names)
    assigns = [a for a in tree.find_all(nodes.Assign) if isinstance(a.target, nodes.Name)]
    while more := {a.target.name for a in assigns if is_name(a.node, known)} - known:
        known |= more
    return known


def _conversation(message: Message, wrap: bool) -> dict[str, Any]:
    """A message as vLLM hands it to the template: its content one text, or a list of parts where the template takes those."""
    content = message.get("content")
    if content.__class__ is str and not wrap:
        return message  # type: ignore[return-value]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else list(content or ())
    if wrap:
        return {**message, "content": [part if part["type"] == "text" else {"type": "image"} for part in parts]}
    return {**message, "content": text_of(parts)}


def _chat_template(hf: Any, given: str | None) -> str | None:
    if given is not None:
        return load_template(given)
    try:
        return str(hf.get_chat_template())
    except ValueError:
        return None


def _batches(rows: list[int], texts: Sequence[Any]) -> Iterator[list[int]]:
    batch: list[int] = []
    characters = 0
    for i in rows:
        batch.append(i)
        characters += len(texts[i])
        if len(batch) == _BATCH_ROWS or characters > _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _is_special(cls: type) -> bool:
    """Whether a class is a model's own tokenizer class, not one of transformers' general ones."""
    return cls.__module__ not in {
        "transformers.tokenization_utils_tokenizers",
        "transformers.tokenization_utils_fast",
        "transformers.tokenization_utils_base",
        "transformers.utils.hub",
    }


def model_config(model: str, revision: str | None = None) -> Mapping[str, Any] | None:
    """A model's ``config.json``, of a folder or the hub, as ``text_config`` makes it; ``None`` where there is none."""
    from transformers.utils import cached_file

    path = cached_file(model, "config.json", revision=revision, _raise_exceptions_for_missing_entries=False)
    if path is None:
        return None
    return text_config(json.loads(Path(path).read_text(encoding="utf-8")))


def context_length(model: str, revision: str | None = None) -> int:
    """The context length that vLLM would derive from ``config.json``: positions, with a rotary scaling where one applies."""
    config = model_config(model, revision)
    if config is None:
        return _UNKNOWN_LENGTH
    lengths = [config[key] for key in _LENGTH_KEYS if isinstance(config.get(key), int)]
    if not lengths:
        return _UNKNOWN_LENGTH
    length = min(lengths)
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "longrope":
        return int(config.get("original_max_position_embeddings") or length)
    if kind in _ROPE_WITHOUT_FACTOR or "gemma3" in str(config.get("model_type")):
        return int(length)
    return int(length * float(rope.get("factor") or 1.0))
