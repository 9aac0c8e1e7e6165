"""One engine from start to end: settings in; a model that answers requests out, and nothing of it left after ``stop``."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llmbatch.core.errors import EngineDied, EngineError, JobError
from llmbatch.core.types import Constraint, Failure, Outcome, Prompt, Usage
from llmbatch.core.words import one_line
from llmbatch.engines.base import EngineInfo
from llmbatch.engines.detokenizer import Detokenizer
from llmbatch.engines.feed import Feed
from llmbatch.engines.settings import EngineSettings
from llmbatch.engines.transformers import trouble
from llmbatch.engines.transformers.constraints import Constraints
from llmbatch.engines.transformers.continuous import Continuous
from llmbatch.engines.transformers.loading import Loaded, check_known, device_of, load
from llmbatch.engines.transformers.log import Log
from llmbatch.engines.transformers.loop import Intake, Loop, Tools
from llmbatch.engines.transformers.plain import Plain
from llmbatch.engines.transformers.sampling import Samplings
from llmbatch.engines.transformers.sizes import continuous_sizes, plain_size
from llmbatch.model.tokenizer import ChatSettings, Tokenizer, load_tokenizer

_TOKENS_PER_REQUEST = 1024


class TransformersEngine:
    """Implements ``llmbatch.engines.Engine``. An engine is started once; after ``stop`` make a new one."""

    def __init__(self, model: str, settings: EngineSettings, chat: ChatSettings, log: Path) -> None:
        self._model = model
        self._settings = settings
        self._chat = chat
        self._log_path = log
        self._log = Log(log)
        self._preparing = threading.Lock()
        self._tokenizer: Tokenizer | None = None
        self._loaded: Loaded | None = None
        self._runner: Continuous | Plain | None = None
        self._loop: Loop | None = None
        self._counts = Usage()  # of the loop, once it is gone
        self._busy = 0.0

    def expect(self, constraints: Sequence[Constraint]) -> None:
        """Nothing that is made at the start depends on them."""

    def start(self) -> EngineInfo:
        tokenizer = self._prepare()
        self._log.open()
        try:
            self._loaded = load(self._model, self._settings, self._context_length(tokenizer))
            self._runner, note = self._run(self._loaded)
            return self._ready(self._loaded, self._runner, tokenizer, note)
        except Exception as error:
            failure = trouble.start_failure(error, self._model, self._log_path)
            self.stop()
            raise failure from error

    def tokenize(self, prompts: Sequence[Prompt]) -> list[list[int] | Failure]:
        return self._prepare().encode(prompts)

    def stream(self, feed: Feed) -> Iterator[list[Outcome]]:
        if self._loop is None:
            raise EngineError("the engine has not been started, or was stopped")
        return self._loop.stream(feed)

    def abort(self) -> None:
        if self._loop is not None:
            self._loop.abort()

    def stop(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None:
            self._counts, self._busy = loop.counts, loop.busy
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.stop()
        loaded, self._loaded = self._loaded, None
        del loop, runner
        if loaded is not None:
            del loaded
            gc.collect()
            _empty_caches()
        self._log.close()

    def counts(self) -> Usage:
        return self._counts if self._loop is None else self._loop.counts

    def busy(self) -> float:
        return self._busy if self._loop is None else self._loop.busy

    def _prepare(self) -> Tokenizer:
        """Check that model and device are there, and load the tokenizer; once, whichever thread comes first."""
        with self._preparing:
            if self._tokenizer is None:
                args = self._settings.args
                device_of(args)
                check_known(self._model, self._settings)
                self._tokenizer = load_tokenizer(
                    self._model,
                    self._chat,
                    tokenizer=args.get("tokenizer"),
                    revision=args.get("tokenizer_revision") or args.get("revision"),
                    trust_remote_code=self._settings.trust_remote_code,
                )
            return self._tokenizer

    def _context_length(self, tokenizer: Tokenizer) -> int:
        length, longest = self._settings.args.get("max_model_len"), tokenizer.context_length
        if length is not None and length > longest:
            raise JobError(
                f"engine.args.max_model_len={length:,}: the model's context has {longest:,} tokens; give that or less"
            )
        return int(length or longest)

    def _run(self, loaded: Loaded) -> tuple[Continuous | Plain, str]:
        """What runs the model, and a sentence for a person where it is not what was hoped for."""
        batching = self._settings.args.get("batching", "auto")
        note = ""
        reason = _not_continuous(loaded, self._settings)
        if batching == "continuous" and reason:
            raise JobError(
                f"engine.args.batching=continuous: {reason}; leave it out, and batches of fixed rows are used"
            )
        if batching != "plain" and not reason:
            try:
                return Continuous(loaded, continuous_sizes(loaded, self._settings), self._death), ""
            except Exception as error:
                if batching == "continuous" or trouble.is_out_of_memory(error):
                    raise
                reason = f"continuous batching is not for this model: {one_line(str(error) or type(error).__name__)}"
        if batching != "plain":
            note = f"{reason}. Its batches have fixed rows, and take as long as their longest answer"
            logging.getLogger("transformers").warning(note)
        return Plain(loaded, plain_size(self._settings), self._death), note

    def _ready(self, loaded: Loaded, runner: Continuous | Plain, tokenizer: Tokenizer, note: str) -> EngineInfo:
        """Put the loop together, and say what the engine has become."""
        import transformers

        continuous = runner if isinstance(runner, Continuous) else None
        context = loaded.context_length if continuous is None else min(loaded.context_length, continuous.cache_tokens)
        seqs = continuous.config.max_requests_per_batch if continuous else plain_size(self._settings)
        requests = self._settings.in_flight or 2 * seqs
        tokens = self._settings.in_flight_tokens or max(requests * _TOKENS_PER_REQUEST, 2 * context)
        can_score = not loaded.encoder_decoder and (continuous is None or continuous.can_score)
        intake = Intake(requests, tokens, context, self._settings.timeout)
        constraints = Constraints(loaded, tokenizer.hf)
        tools = Tools(
            loaded,
            Samplings(loaded, tokenizer.hf),
            constraints,
            Detokenizer(tokenizer.hf),
            frozenset(self._settings.lora),
            can_score,
        )
        self._loop = Loop(runner, intake, tools, self._death)
        dtype = str(loaded.model.dtype).removeprefix("torch.")
        return EngineInfo(
            name="transformers",
            version=str(transformers.__version__),
            model=self._model,
            context_length=context,
            max_num_seqs=seqs,
            kv_cache_tokens=None if continuous is None else continuous.cache_tokens,
            block_size=None if continuous is None else continuous.config.page_size,
            max_num_batched_tokens=None if continuous is None else continuous.config.max_batch_tokens,
            in_flight=requests,
            in_flight_tokens=tokens,
            prefix_caching=continuous is not None and continuous.shares_prefixes,
            can=frozenset(
                {
                    "continue",
                    "ids",
                    *(["constraint"] if constraints.held else []),
                    *(["score"] if can_score else []),
                    *(["lora"] if self._settings.lora else []),
                }
            ),
            device=_device_name(loaded.device),
            details={
                "batching": "plain" if continuous is None else "continuous",
                "dtype": dtype,
                "attention": str(loaded.model.config._attn_implementation),
                "note": note,
            },
            settled={"dtype": dtype},
        )

    def _death(self, error: BaseException | None, seen: str) -> EngineDied:
        return trouble.death(error, seen, self._log_path)


def _not_continuous(loaded: Loaded, settings: EngineSettings) -> str:
    """Why continuous batching cannot be, as far as that is known beforehand; empty where it may."""
    if loaded.encoder_decoder:
        return "continuous batching is not for models of encoder and decoder"
    if settings.lora:
        return "continuous batching has the same adapter for all of a batch, and these differ by row"
    if "device_map" in settings.args:
        return "continuous batching has its cache on one device, and engine.args.device_map may use several"
    return ""


def _device_name(device: Any) -> str:
    import torch

    return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else str(device.type)


def _empty_caches() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


__all__ = ["TransformersEngine"]
