"""llmbatch as a model of EleutherAI's lm-evaluation-harness: its requests in, answers and log-likelihoods out.

    llmbatch-lm-eval run --model llmbatch --model_args model=demo,output=scores --tasks gsm8k hellaswag

What a request means is what it means to the harness's own vLLM backend: how context and continuation are tokenized, where a context
is cut (from the left), how text is ended. The requests of a kind, of all tasks, are one batch, so the engine is never idle between
tasks, and what contexts share is computed once. In Python, import this module and ``lm_eval.simple_evaluate(model="llmbatch")``
finds it; for the command see ``lm_eval_command``.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jinja2
import lm_eval.models  # noqa: F401 - the harness fills its registry only as long as it is empty
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import (
    _add_special_kwargs,
    handle_stop_sequences,
    has_bos_prefix,
    maybe_truncate,
    normalize_gen_kwargs,
    postprocess_generated_text,
)
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from pydantic import AliasChoices, Field

from llmbatch.core.errors import JobError, RunError
from llmbatch.core.sampling import sampling_problem
from llmbatch.integrations.batch import Asked, Batches
from llmbatch.integrations.model_args import EngineArgs

MODEL = "llmbatch"
_WHERE = "--model_args"
# What vLLM's own settings are where the harness leaves them open; else those of the model's generation config would count.
_PLAIN = {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
_AS_WRITTEN = {"skip_special_tokens": False, "spaces_between_special_tokens": False}


class LmEvalArgs(EngineArgs):
    """The keys of ``--model_args``; others are the engine's arguments."""

    model: str = Field(validation_alias=AliasChoices("model", "pretrained"))
    output: Path | None = Field(None, description="folder in which runs can be gone on with; by default nothing stays")
    add_bos_token: bool | None = None
    prefix_token_id: int | None = None
    max_gen_toks: int = Field(256, ge=1)
    max_length: int | None = Field(None, ge=3, description="tokens of a request; by default the model's context length")
    truncation_side: Literal["left", "right", "middle"] = "left"
    seed: int = Field(1234, ge=0, description="of answers that are drawn at random")
    chat_template_args: dict[str, Any] = Field(default_factory=dict)
    enable_thinking: bool | None = None
    think_end_token: str | None = None
    # the harness hands these to every backend; here a batch is all there is, on the device that the engine finds
    batch_size: Any = None
    max_batch_size: Any = None
    device: Any = None


class _Pair(NamedTuple):
    """A continuation whose log-likelihood is asked for, as ids, after its context."""

    said: str
    text: str
    context: list[int]
    continuation: list[int]


@register_model(MODEL)
class LlmbatchLM(TemplateLM):  # type: ignore[misc]
    """The harness's contract of a model. Raises ``JobError`` for what is wrong with the arguments or the model when it is made."""

    def __init__(self, **model_args: Any) -> None:
        super().__init__()
        args = self._args = LmEvalArgs.of(model_args, _WHERE)
        if args.enable_thinking and args.think_end_token is None:
            raise JobError(f"{_WHERE}: enable_thinking needs think_end_token, after which an answer begins")
        with args.explained(_WHERE):
            self._batches = Batches(args.model, args.engine_section(), args.output)
            weakref.finalize(self, self._batches.close)  # the harness has no word for the end of a model
            self._batches.prove()
        self.tokenizer: Any = _tokenizer(self._batches, args)
        self._engine_length = self._batches.context_length
        if args.max_length is not None and args.max_length > self._engine_length:
            raise JobError(
                f"{_WHERE}: max_length={args.max_length:,} is more than the model's context of {self._engine_length:,} tokens"
            )

    @property
    def max_length(self) -> int:
        return self._args.max_length or self._engine_length

    @property
    def max_gen_toks(self) -> int:
        return self._args.max_gen_toks

    @property
    def eot_token_id(self) -> Any:
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> Any:
        """What stands before a continuation that has no context."""
        if self._args.prefix_token_id is not None:
            return self._args.prefix_token_id
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else bos

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Messages as the text that the model is asked with; a system message goes where the template takes none."""

        def rendered(messages: list[dict[str, str]]) -> str:
            text: str = self.tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
                **{"enable_thinking": self._args.enable_thinking, **self._args.chat_template_args},
            )
            return text

        try:
            return rendered(chat_history)
        except jinja2.exceptions.TemplateError:
            return rendered([message for message in chat_history if message["role"] != "system"])

    def tok_encode(self, string: Any, add_special_tokens: bool | None = None, **kwargs: Any) -> Any:
        """The ids of a text, or of each of several. A text that begins with the model's first token gets no second one."""
        if not string:
            return []
        texts: list[str] = [string] if isinstance(string, str) else list(string)
        first = None if self.prefix_token_id is None else self.tokenizer.decode(self.prefix_token_id)
        special = _add_special_kwargs(add_special_tokens, self._args.add_bos_token)
        ids: list[list[int]] = [[] for _ in texts]
        for begun in (False, True):
            some = [number for number, text in enumerate(texts) if has_bos_prefix(text, first) == begun]
            if some:
                options = {**kwargs, **special, **({"add_special_tokens": False} if begun else {})}
                found = self.tokenizer([texts[number] for number in some], return_attention_mask=False, **options)
                for number, tokens in zip(some, found["input_ids"], strict=True):
                    ids[number] = tokens
        return ids[0] if isinstance(string, str) else ids

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:  # noqa: ARG002
        """(log-likelihood, whether greedy decoding would give it) of each continuation after its context."""
        self._refuse_thinking(requests)
        pairs = self._encode_pairs([request.args for request in requests])
        wanted = [_Pair(_said(r), r.args[0], *pair) for r, pair in zip(requests, pairs, strict=True)]
        found = self._scores("loglikelihood", wanted)
        for request, score in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood", request.args, score)
        return found

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:  # noqa: ARG002
        """The log-likelihood of each whole text, in windows of the context's length where it is longer."""
        self._refuse_thinking(requests)
        wanted: list[_Pair] = []
        counts: list[int] = []
        for request, tokens in zip(requests, self.tok_encode([r.args[0] for r in requests]), strict=True):
            # as in the harness's vLLM backend: a token for the context, and one for an answer
            windows = get_rolling_token_windows(tokens, self.prefix_token_id, self.max_length - 2, context_len=1)
            pairs = [_Pair(_said(request), "", *make_disjoint_window(window)) for window in windows]
            wanted += pairs
            counts.append(len(pairs))
        scores = iter(self._scores("loglikelihood_rolling", wanted))
        totals = [sum((next(scores)[0] for _ in range(count)), 0.0) for count in counts]
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:  # noqa: ARG002
        """Each context's answer, up to the first of its stop strings."""
        eos = (
            None if self.eot_token_id is None else self.tokenizer.decode(self.eot_token_id) or self.tokenizer.eos_token
        )
        encoded = self.tok_encode([request.args[0] for request in requests])
        asked: list[Asked] = []
        stops: list[list[str]] = []
        drawn: Counter[str] = Counter()
        for request, ids in zip(requests, encoded, strict=True):
            context, given = request.args
            said = _said(request)
            settings, until, longest = self._settings(given, eos, said)
            tokens, longest = maybe_truncate(
                ids, max_gen_toks=longest, max_model_len=self.max_length, side=self._args.truncation_side, verbose=True
            )
            # the token that ends a text ends it in the engine; as a string it would have to be looked for
            sent = [] if self._args.think_end_token else [stop for stop in until if stop and stop != eos]
            sampling = {**settings, "max_tokens": longest, **({"stop": sent} if sent else {})}
            asked.append(Asked(said, context, tokens, sampling=sampling, seed=self._seed(sampling, tokens, drawn)))
            stops.append(until)
        texts = [
            postprocess_generated_text(text, until, self._args.think_end_token)
            for text, until in zip(self._batches.run("generate_until", asked), stops, strict=True)
        ]
        for request, text in zip(requests, texts, strict=True):
            self.cache_hook.add_partial("generate_until", request.args, text)
        return texts

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[tuple[str, str], list[int], list[int]]],
        **_kwargs: Any,
    ) -> list[tuple[float, bool]]:
        return self._scores(
            "loglikelihood", [_Pair(str(number), "", *ids) for number, (_, *ids) in enumerate(requests)]
        )

    def _scores(self, kind: str, wanted: Sequence[_Pair]) -> list[tuple[float, bool]]:
        """An empty continuation is certain, and is not asked for."""
        asked = [self._cut(pair) for pair in wanted if pair.continuation]
        scores = iter(self._batches.run(kind, asked))
        found: list[tuple[float, bool]] = []
        for pair in wanted:
            score = next(scores) if pair.continuation else None
            found.append((0.0, True) if score is None else (score.logprob, score.greedy))
        return found

    def _cut(self, pair: _Pair) -> Asked:
        """The request, with as much of its context as the model has room for; of that the end counts."""
        most = self.max_length - 1  # as in the harness's vLLM backend, which leaves a token for an answer
        room = most - len(pair.continuation)
        if not pair.context:
            raise RunError(f"{pair.said}: the context is white space alone, after which no likelihood can be given")
        if room < 1:
            raise RunError(
                f"{pair.said}: the continuation has {len(pair.continuation):,} tokens, and with one token of context it may have "
                f"{most - 1:,}: the model's context is {self.max_length:,}; take the row out, or give a model with a longer one"
            )
        return Asked(pair.said, pair.text, pair.context[-room:], pair.continuation)

    def _encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
        """(context, continuation) as ids, as ``TemplateLM._encode_pair`` has it: white space goes to the continuation, whose ids
        are those of both together without the context's. All texts are tokenized as one batch, and one that comes again once.
        """
        moved = [_with_space_moved(*pair) for pair in pairs]
        texts = dict.fromkeys(text for context, rest in moved if context for text in (context, context + rest))
        ids = dict(zip(texts, self.tok_encode(list(texts)), strict=True))
        found: list[tuple[list[int], list[int]]] = []
        for (given, _), (context, rest) in zip(pairs, moved, strict=True):
            if context:
                before = ids[context]
                found.append((before, ids[context + rest][len(before) :]))
            elif given:
                found.append(([], self.tok_encode(rest)))
            else:
                found.append(self._without_context(self.tok_encode(rest, add_special_tokens=False)))
        return found

    def _without_context(self, ids: list[int]) -> tuple[list[int], list[int]]:
        prefix = self.prefix_token_id
        return (ids[:1], ids[1:]) if ids[:1] == [prefix] else ([prefix], ids)

    def _settings(self, given: Mapping[str, Any], eos: str | None, said: str) -> tuple[dict[str, Any], list[str], int]:
        """(sampling settings, stop strings, most tokens) of a request. Raises ``JobError`` for what is no setting."""
        kwargs: dict[str, Any] = dict(normalize_gen_kwargs(dict(given), default_max_gen_toks=self.max_gen_toks))
        until = handle_stop_sequences(kwargs.pop("until", None), eos=eos)
        longest = int(kwargs.pop("max_gen_toks", self.max_gen_toks))
        kwargs.pop("do_sample", None)
        settings = {**_PLAIN, **_AS_WRITTEN, **{key: value for key, value in kwargs.items() if value is not None}}
        for key, value in {**settings, "stop": [stop for stop in until if stop != ""]}.items():
            if problem := sampling_problem(key, value):
                raise JobError(f"{said}: generation_kwargs: {key} {problem}")
        if longest >= self.max_length:
            raise JobError(
                f"{said}: max_gen_toks={longest:,} leaves no room for a prompt in the model's context of {self.max_length:,}: "
                "give --gen_kwargs max_gen_toks=N, or a model with a longer one"
            )
        return settings, until, longest

    def _seed(self, sampling: Mapping[str, Any], tokens: Sequence[int], drawn: Counter[str]) -> int | None:
        """The seed of an answer that is drawn at random, so that it comes again after a kill; an equal request has another."""
        if sampling["temperature"] == 0:
            return None
        same = repr((sorted(sampling.items(), key=str), tokens))
        drawn[same] += 1
        return int(sampling.get("seed", self._args.seed)) + drawn[same] - 1

    def _refuse_thinking(self, requests: Iterable[Any]) -> None:
        if self._args.enable_thinking:
            tasks = sorted({request.task_name for request in requests if request.task_name})
            raise JobError(
                f"{_WHERE}: enable_thinking is for tasks with answers, and these ask for likelihoods: {', '.join(tasks)}"
            )


def _tokenizer(batches: Batches, args: LmEvalArgs) -> Any:
    """The model's tokenizer as the harness's backends load it. Raises ``JobError``."""
    from transformers import AutoTokenizer

    source = batches.tokenizer
    name = source.name or batches.model_path
    bos = {} if args.add_bos_token is None else {"add_bos_token": args.add_bos_token}
    try:
        return AutoTokenizer.from_pretrained(
            name, revision=source.revision, trust_remote_code=args.trust_remote_code, **bos
        )
    except Exception as error:
        raise JobError(f"{_WHERE}: the tokenizer of model {name!r} cannot be loaded: {error}") from error


def _said(request: Any) -> str:
    """Whose request it is, in words."""
    return f"task {request.task_name}, document {request.doc_id}, request {request.idx}"


def _with_space_moved(context: str, continuation: str) -> tuple[str, str]:
    kept = context.rstrip()
    return kept, context[len(kept) :] + continuation


__all__ = ["MODEL", "LlmbatchLM", "LmEvalArgs"]


if __name__ == "__main__":
    from llmbatch.integrations.lm_eval_command import main

    main()
