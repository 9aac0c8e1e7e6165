"""One vLLM engine from start to end: settings in; a model that answers requests out, and nothing of it left after ``stop``."""

from __future__ import annotations

import contextlib
import gc
import logging
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llmbatch.core.errors import EngineDied, EngineError, JobError, LlmbatchError
from llmbatch.core.types import Constraint, Outcome, Prompt, Usage
from llmbatch.engines.base import Drafts, EngineInfo
from llmbatch.engines.feed import Feed
from llmbatch.engines.settings import EngineSettings
from llmbatch.engines.thinking import Marks, in_two_requests
from llmbatch.engines.vllm import args as vllm_args
from llmbatch.engines.vllm import log as vllm_log
from llmbatch.engines.vllm import trouble
from llmbatch.engines.vllm.calls import load_calls
from llmbatch.engines.vllm.drafts import DraftCounter
from llmbatch.engines.vllm.handing import Tools
from llmbatch.engines.vllm.haste import no_search, without
from llmbatch.engines.vllm.later import later
from llmbatch.engines.vllm.lookups import quick_lookups
from llmbatch.engines.vllm.loop import Intake, Loop
from llmbatch.engines.vllm.pooling import Poolings
from llmbatch.engines.vllm.processes import Processes
from llmbatch.engines.vllm.reasoning import ends_thinking, load_reasoning
from llmbatch.engines.vllm.render import Chat, Encoded, Encoder, vllm_renderer
from llmbatch.engines.vllm.sampling import Samplings
from llmbatch.engines.vllm.score import Limits
from llmbatch.engines.vllm.sight import Sight, sees
from llmbatch.engines.vllm.strangers import ask_safely
from llmbatch.engines.vllm.text import Detokenizer
from llmbatch.engines.vllm.vector import look
from llmbatch.model.tokenizer import ChatSettings, load_template, load_tokenizer

_TOKENS_PER_REQUEST = 1024  # what vLLM holds for a request that waits is some hundred bytes a token
_SHUTDOWN_SECONDS = 10.0
_KEPT_FREE = 16  # of so many sequences one is kept free for what is urgent
_MOST_KEPT_FREE = 8


def _with_room(sequences: int) -> int:
    """Requests of which vLLM runs all, with places left for urgent ones: for one that waits it ends no other."""
    return max(1, sequences - min(_MOST_KEPT_FREE, -(-sequences // _KEPT_FREE)))


class VllmEngine:
    """Implements ``llmbatch.engines.Engine``. An engine is started once; after ``stop`` make a new one.

    While it starts and stops, file descriptors 1 and 2 of this process point to the log (see ``log.captured``).
    """

    def __init__(self, model: str, settings: EngineSettings, chat: ChatSettings, log: Path) -> None:
        self._model = model
        self._settings = settings
        self._chat = chat
        self._log = log
        self._log_start = log.stat().st_size if log.exists() else 0
        self._preparing = threading.Lock()
        self._prepared: tuple[dict[str, Any], Encoder] | None = None
        self._constraints: tuple[Constraint, ...] = ()
        self._processes = Processes()
        self._llm: Any = None
        self._loop: Loop | None = None
        self._here = False  # it runs in this process, on the CPU
        self._looking: threading.Thread | None = None  # for the vector instructions of the CPU
        self._sight: Sight | None = None
        self._marks: Marks | None = None  # of thinking, where vLLM does not end it itself
        self._drafts: DraftCounter | None = None  # where it speculates
        self._counts = Usage()  # of the loop, once it is gone
        self._busy = 0.0

    def expect(self, constraints: Sequence[Constraint]) -> None:
        """Say before ``start`` which constraints will come, so that the grammar backend is one that can take them all.

        vLLM fixes the backend when the engine starts. Without this it is xgrammar, which refuses some JSON schemas.
        """
        self._constraints = tuple(constraints)

    def start(self) -> EngineInfo:
        args, encoder = self._prepare()
        in_process = vllm_args.is_cpu() if self._settings.in_process is None else self._settings.in_process
        from vllm import LLM

        ask_safely()
        try:
            self._here = in_process and vllm_args.is_cpu()
            if self._looking is not None:
                self._looking.join()
            with (
                vllm_log.captured(self._log),
                vllm_args.environment(in_process=in_process),
                self._processes.starting(),
                self._in_haste(self._here),
            ):
                self._llm = LLM(**vllm_args.with_backend_for(args, self._constraints))
            return self._ready(in_process, encoder)
        except LlmbatchError:
            self.stop()
            raise
        except Exception as error:
            failure = trouble.start_failure(error, self._model, self._log, self._log_start)
            self.stop()
            raise failure from error

    def tokenize(self, prompts: Sequence[Prompt]) -> list[Encoded]:
        return self._prepare()[1].encode(prompts)

    def stream(self, feed: Feed) -> Iterator[list[Outcome]]:
        if self._loop is None:
            raise EngineError("the engine has not been started, or was stopped")
        if self._marks is None:
            return self._loop.stream(feed)
        return in_two_requests(self._loop.stream, feed, self._marks)

    def abort(self) -> None:
        if self._loop is not None:
            self._loop.abort()

    def stop(self) -> None:
        self.drafts()  # while there is something to read
        llm, self._llm = self._llm, None
        loop, self._loop = self._loop, None
        sight, self._sight = self._sight, None
        if sight is not None:
            sight.close()
        if loop is not None:
            self._counts, self._busy = loop.counts, loop.busy
        del loop
        with vllm_log.captured(self._log):
            if llm is not None:
                with self._in_haste(self._here):
                    self._shut_down(llm)
            del llm
            gc.collect()
            gc.unfreeze()
            self._processes.end()

    def counts(self) -> Usage:
        return self._counts if self._loop is None else self._loop.counts

    def busy(self) -> float:
        return self._busy if self._loop is None else self._loop.busy

    def drafts(self) -> Drafts:
        return Drafts() if self._drafts is None else self._drafts.read(self._llm)

    def forget(self) -> None:
        if self._llm is not None:
            self._llm.reset_prefix_cache()

    def _prepare(self) -> tuple[dict[str, Any], Encoder]:
        """Import vLLM, check the arguments, make the encoder; once, whichever thread comes first."""
        with self._preparing:
            if self._prepared is None:
                trouble.check_model(self._model)
                with vllm_log.captured(self._log), self._in_haste(True, keeps=True), quick_lookups():
                    args = self._arguments()
                    self._prepared = args, self._make_encoder(args)
            return self._prepared

    def _arguments(self) -> dict[str, Any]:
        try:
            import vllm  # noqa: F401

            if vllm_args.is_cpu():
                self._looking = look()
            return vllm_args.engine_args(self._model, self._settings, self._chat)
        except LlmbatchError:
            raise
        except Exception as error:  # of a library that does not fit the others it is importing vLLM that fails
            raise trouble.start_failure(error, self._model, self._log, self._log_start) from error

    @contextlib.contextmanager
    def _in_haste(self, here: bool, *, keeps: bool = False) -> Iterator[None]:
        """``here``: nothing is measured meanwhile that needs garbage to be gone, as the memory of a GPU is.

        ``keeps``: what is imported meanwhile stays.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(later())
            if self._settings.args.get("distributed_executor_backend") != "ray":
                stack.enter_context(without("ray"))
            if here:
                stack.enter_context(no_search(keeps=keeps))
            yield

    def _make_encoder(self, args: dict[str, Any]) -> Encoder:
        try:
            theirs = vllm_renderer(vllm_args.render_args(args), self._chat_of_llm())
        except LlmbatchError:
            raise
        except Exception as error:
            raise trouble.start_failure(error, self._model, self._log, self._log_start) from error
        try:
            own = load_tokenizer(
                self._model,
                self._chat,
                tokenizer=args.get("tokenizer"),
                revision=args.get("tokenizer_revision") or args.get("revision"),
                trust_remote_code=self._settings.trust_remote_code,
            )
        except JobError as error:  # a tokenizer that only vLLM has
            logging.getLogger(__name__).info("%s", error)
            own = None
        return Encoder(own, theirs)

    def _chat_of_llm(self) -> Chat:
        template = None if self._chat.template is None else load_template(self._chat.template)
        return Chat(template, self._chat.template_kwargs)

    def _ready(self, in_process: bool, encoder: Encoder) -> EngineInfo:
        """Put the loop together, and say what the engine has become."""
        import vllm

        config = self._llm.llm_engine.vllm_config
        model, scheduler, cache = config.model_config, config.scheduler_config, config.cache_config
        kv_tokens = getattr(cache, "kv_cache_size_tokens", None) or (cache.num_gpu_blocks or 0) * (
            cache.block_size or 0
        )
        requests = self._settings.in_flight or 2 * int(scheduler.max_num_seqs)
        # enough that what runs at a time is there twice, even where long prefixes are not shared
        tokens = self._settings.in_flight_tokens or max(2 * kv_tokens, requests * _TOKENS_PER_REQUEST)
        with_room = _with_room(int(scheduler.max_num_seqs)) if str(scheduler.policy) == "priority" else None
        intake = Intake(requests, tokens, int(model.max_model_len), self._settings.timeout, with_room)
        limits = Limits(
            int(model.get_vocab_size()),
            intake.context_length,
            int(cache.block_size) if cache.enable_prefix_caching is not False and cache.block_size else None,
        )
        if sees(self._llm):
            images = self._settings.images
            most = int(scheduler.max_num_seqs) + images.workers
            self._sight = Sight(self._llm, self._chat_of_llm(), images, most)
        tools = self._make_tools(model, limits)
        self._marks = None if tools.reasoning is None or ends_thinking(self._llm) else tools.reasoning.marks
        does = (
            {"constraint", "continue", "score", "stream"}
            if tools.poolings is None
            else {*tools.poolings.can, "activation"}
        )
        self._loop = Loop(self._llm, intake, tools, self._kill, self._death)
        counts = config.speculative_config is not None and self._llm.llm_engine.log_stats
        self._drafts = DraftCounter() if counts else None
        return EngineInfo(
            name="vllm",
            version=str(vllm.__version__),
            model=self._model,
            context_length=intake.context_length,
            max_num_seqs=int(scheduler.max_num_seqs),
            kv_cache_tokens=kv_tokens or None,
            block_size=cache.block_size,
            max_num_batched_tokens=scheduler.max_num_batched_tokens,
            in_flight=requests,
            in_flight_tokens=tokens,
            prefix_caching=cache.enable_prefix_caching is not False,
            can=frozenset({"cancel", "ids", *does, *self._also_can()}),
            device=str(vllm.platforms.current_platform.get_device_name()),
            pids=self._processes.pids,
            details={
                "in_process": in_process,
                "dtype": str(model.dtype).removeprefix("torch."),
                "enforce_eager": model.enforce_eager,
                "grammar_backend": config.structured_outputs_config.backend,
                "own_detokenizer": tools.detokenizer.supported,
                "note": encoder.note,
            },
            settled={"dtype": str(model.dtype).removeprefix("torch.")},
        )

    def _also_can(self) -> list[str]:
        """What it is able to do by its settings, or by its model."""
        return [*(["lora"] if self._settings.lora else []), *(["images"] if self._sight is not None else [])]

    def _make_tools(self, model_config: Any, limits: Limits) -> Tools:
        from vllm.lora.request import LoRARequest

        tokenizer = self._llm.llm_engine.get_tokenizer()
        name = self._settings.reasoning_parser
        reasoning = None if name is None else load_reasoning(name, tokenizer, self._chat.template_kwargs, model_config)
        detokenizer = Detokenizer(tokenizer)
        defaults = dict(model_config.get_diff_sampling_param())
        if reasoning is not None and reasoning.needs_special_tokens:
            defaults["skip_special_tokens"] = False
        calls = None if (parser := self._settings.tool_call_parser) is None else load_calls(parser, tokenizer)
        samplings = Samplings(
            self._llm,
            defaults,
            can_detokenize=detokenizer.supported,
            marks_calls=calls is not None and calls.needs_special_tokens,
        )
        adapters = sorted(self._settings.lora.items())
        loras = {n: LoRARequest(n, i, path) for i, (n, path) in enumerate(adapters, 1)}
        poolings = Poolings(self._llm) if model_config.runner_type == "pooling" else None
        if poolings is not None and self._settings.args.get("runner") != "pooling":
            able = ", ".join(sorted(poolings.can)) or "of an unknown kind"
            raise JobError(
                f"model {self._model!r} gives numbers, not text ({able}): "
                "take a model that generates text, or a program that asks for numbers, such as --program embed"
            )
        return Tools(samplings, detokenizer, reasoning, loras, limits, poolings, self._sight, calls)

    def _kill(self) -> None:
        self._processes.notice()
        self._processes.kill()

    def _death(self, error: BaseException | None, seen: str) -> EngineDied:
        return trouble.death(error, seen, self._log, self._log_start)

    def _shut_down(self, llm: Any) -> None:
        """Ask vLLM to end; whatever it leaves of its processes is ended after it."""
        self._processes.notice()
        try:
            llm.llm_engine.engine_core.shutdown(timeout=_SHUTDOWN_SECONDS)
            if (end := getattr(getattr(llm, "renderer", None), "shutdown", None)) is not None:
                end()
            if not self._processes.pids:
                from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

                cleanup_dist_env_and_memory()
        except Exception:
            logging.getLogger(__name__).exception("vLLM did not shut down cleanly; its processes are killed")
