"""Rows in; the same rows out as they end, by the library's continuous batching: a row enters as soon as another has ended.

The library applies the same settings to all rows of a batch, and draws for all of them by one generator. So it is asked for the
highest score at each step, and a processor of ours, the last of its list, applies each row's own settings before (``choosing``).
It ends a row at a stop string, too, which the library does not know here. That works where the library runs each step as it is
called, so CUDA graphs and its asynchronous mode are off.
"""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any

from llmbatch.core.types import Failure, FailureKind, Request
from llmbatch.core.words import one_line
from llmbatch.engines.transformers.choosing import choose
from llmbatch.engines.transformers.loading import Loaded
from llmbatch.engines.transformers.rows import Row
from llmbatch.engines.transformers.running import Death, Ended, Failed, Scored
from llmbatch.engines.transformers.score import batches, score

_STOP_SECONDS = 10.0
_NO_END = -1
_PROBES = (5, 21)  # tokens of prompts that are answered both ways
_PROBE_TOKENS = 2  # one of the prompt's end, one of the step after it
_PROBE_SECONDS = 120.0


class Continuous:
    """Implements ``Runner``. ``given`` are fields of the library's ``ContinuousBatchingConfig``.

    Raises whatever the library raises for a model that this is not for, ``ValueError`` for one that answers wrongly.
    """

    def __init__(self, loaded: Loaded, given: Mapping[str, Any], death: Death) -> None:
        from transformers import ContinuousBatchingConfig

        self._loaded = loaded
        self._death = death
        self._rows: dict[str, Row] = {}
        self._targets: list[Request] = []
        self._names = map(str, itertools.count())
        self.progress_at = time.monotonic()
        attention = loaded.model.config._attn_implementation
        expected = [_alone(loaded, prompt) for prompt in _probes(loaded)]
        config = ContinuousBatchingConfig(**given, use_cuda_graph=False, use_async_batching=False)
        generation = copy.deepcopy(loaded.plain)
        generation.eos_token_id = _NO_END
        self._manager: Any = loaded.model.init_continuous_batching(generation, config)
        try:
            self._add_processor()
            self._manager.warmup()  # makes the cache
            self._manager.start()
            self._probe(expected)
        except BaseException:
            self.stop()
            raise
        self.config = self._manager.continuous_batching_config
        self.shares_prefixes = bool(self._manager.batch_processor.cache.use_prefix_sharing)
        # a forward pass without the paged cache needs an attention that knows of both
        self.can_score = bool(loaded.model.config._attn_implementation == attention)

    @property
    def cache_tokens(self) -> int:
        return int(self.config.num_blocks * self.config.page_size)

    def add(self, rows: Sequence[Row], targets: Sequence[Request]) -> None:
        if not self._rows and not self._targets:
            self.progress_at = time.monotonic()
        self._targets += targets
        for row in rows:
            name = next(self._names)
            self._rows[name] = row
            ends = sorted(row.setting.ends | row.setting.stop_ids)
            self._manager.add_request(row.ids, request_id=name, max_new_tokens=row.limit, eos_token_id=ends or _NO_END)

    def wait(self, timeout: float) -> list[Ended]:
        ended: list[Ended] = self._score() if self._targets else []
        output = self._manager.get_result(timeout=0 if ended else timeout)
        while output is not None:
            if output.is_finished() and (row := self._rows.pop(output.request_id, None)) is not None:
                ended.append(self._settle(row, output))
            output = self._manager.get_result(timeout=0)
        if not ended and not self._manager.is_running():
            raise self._dead()
        return ended

    def abort(self) -> None:
        self._targets.clear()
        for name in list(self._rows):
            self._manager.cancel_request(name)
        self._rows.clear()

    def stop(self) -> None:
        manager, self._manager = self._manager, None
        if manager is not None:
            manager.stop(block=True, timeout=_STOP_SECONDS, hard_stop=True)
            if not manager.is_running():
                manager.destroy()

    def step(self, states: Sequence[Any], scores: Any) -> Any:
        """Called in the library's thread: the scores of a step, a row for each of its requests."""
        self.progress_at = time.monotonic()
        rows: list[Row | None] = []
        for state in states:
            row = self._rows.get(state.request_id)
            if row is not None and row.setting.acts:
                before = len(row.ids) - len(row.tokens)
                if row.catch_up([*state.initial_tokens[before:], *state.generated_tokens]):  # at a stop string
                    self._manager.cancel_request(state.request_id)
                    self._tell(state)
            rows.append(row)
        return choose(rows, scores)

    def _tell(self, state: Any) -> None:
        from transformers.generation.continuous_batching.requests import RequestStatus

        output = state.to_generation_output()
        output.status = RequestStatus.FINISHED
        self._manager.output_router.deliver(output)

    def _settle(self, row: Row, output: Any) -> Ended:
        if output.error is None:
            row.catch_up(output.generated_tokens)
            if row.finish_reason is not None:
                return row
        if self._manager.background_thread_status.local_status != 0:  # the loop ends, and fails all that it has
            raise self._dead(output.error)
        said = one_line(str(output.error or "it ended before its time"))
        return Failed(row.request, Failure(FailureKind.ENGINE, f"transformers failed this request: {said}"))

    def _dead(self, said: str | None = None) -> Exception:
        error = self._manager.background_thread_status.fatal_error
        if error is None and said is not None:
            error = RuntimeError(said)
        return self._death(error, "continuous batching failed")

    def _score(self) -> list[Ended]:
        batch = next(batches(self._targets, self._loaded))
        del self._targets[: len(batch)]
        with self._manager.pause():
            scores = score(self._loaded, batch)
        self.progress_at = time.monotonic()
        return [Scored(request, value) for request, value in zip(batch, scores, strict=True)]

    def _add_processor(self) -> None:
        """Ours is the last of the library's list of processors, which has no other door where greedy answers are asked for."""
        import torch
        from transformers.generation.continuous_batching.cb_logits_processors import ContinuousBatchingLogitsProcessor

        runner = self

        class Choice(ContinuousBatchingLogitsProcessor):  # type: ignore[misc]
            supported_kwargs: Mapping[str, type] = {}
            ignored_kwargs = ()
            states: Sequence[Any] = ()

            def fill_defaults(self, int32_tensor: Any) -> None:
                int32_tensor.zero_()

            def prepare_tensor_args(self, requests_with_new_token: Sequence[Any]) -> Any:
                self.states = [each.state for each in requests_with_new_token]
                return torch.zeros(len(self.states), dtype=torch.int32)

            def __call__(self, scores: Any, _tensor_arg: Any) -> Any:
                return runner.step(self.states, scores)

        processors = self._manager.logit_processor
        processors.logits_processor.append(Choice())
        processors.tensors_required += 1
        processors.do_processing = True

    def _probe(self, expected: Sequence[list[int]]) -> None:
        """Raises ``ValueError`` where this does not answer as the model does: some run here, and give nonsense."""
        names = [
            self._manager.add_request(prompt, max_new_tokens=_PROBE_TOKENS, eos_token_id=_NO_END)
            for prompt in _probes(self._loaded)
        ]
        found: dict[str, list[int]] = {}
        until = time.monotonic() + _PROBE_SECONDS
        while len(found) < len(names) and time.monotonic() < until and self._manager.is_running():
            output = self._manager.get_result(timeout=1.0)
            if output is not None and output.is_finished():
                if output.error is not None:
                    raise ValueError(one_line(str(output.error)))
                found[output.request_id] = output.generated_tokens
        if (answers := [found.get(name) for name in names]) != list(expected):
            raise ValueError(f"it gives the tokens {answers} where the model gives {list(expected)}")


def _probes(loaded: Loaded) -> list[list[int]]:
    """Prompts of any tokens."""
    return [[(7 + 13 * place) % loaded.vocabulary for place in range(size)] for size in _PROBES]


def _alone(loaded: Loaded, prompt: list[int]) -> list[int]:
    import torch

    config = copy.copy(loaded.plain)
    config.max_new_tokens = _PROBE_TOKENS
    ids = torch.tensor([prompt], device=loaded.device)
    with torch.no_grad():
        made = loaded.model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    tokens: list[int] = made[0, len(prompt) :].tolist()
    return tokens


__all__ = ["Continuous"]
