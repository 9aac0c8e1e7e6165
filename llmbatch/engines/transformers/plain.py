"""Rows in; the same rows out as they end, by the library's ``generate``, a batch at a time.

For models that continuous batching is not for: those of encoder and decoder, those with a state in place of a cache, adapters. A
batch goes on until its last row has ended. The library's loop is asked for greedy tokens without an end; each row's settings are
applied to its scores (``choosing``), and where it ends is told by a stopping criterion, so that rows of all settings share a batch.
"""

from __future__ import annotations

import copy
import queue
import threading
import time
from collections.abc import Sequence
from typing import Any

from llmbatch.core.types import Request
from llmbatch.engines.transformers.choosing import choose
from llmbatch.engines.transformers.loading import Loaded
from llmbatch.engines.transformers.rows import Row
from llmbatch.engines.transformers.running import Death, Ended, Scored
from llmbatch.engines.transformers.score import batches, score

_STOP_SECONDS = 10.0


class Plain:
    """Implements ``Runner``. ``size``: rows of a batch."""

    def __init__(self, loaded: Loaded, size: int, death: Death) -> None:
        self._loaded = loaded
        self._size = size
        self._death = death
        self._changed = threading.Condition()
        self._waiting: list[Row | Request] = []
        self._working = False
        self._ending = False
        self._error: BaseException | None = None
        self._ended: queue.SimpleQueue[Ended | None] = queue.SimpleQueue()  # None: the thread has something else to say
        self.giving_up = False
        self.progress_at = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="llmbatch-generate", daemon=True)
        self._thread.start()

    def add(self, rows: Sequence[Row], targets: Sequence[Request]) -> None:
        with self._changed:
            if (
                not self._waiting and not self._working
            ):  # what had nothing to do gave no sign of life: its time begins now
                self.progress_at = time.monotonic()
            self._waiting += [*rows, *targets]
            self._changed.notify_all()

    def wait(self, timeout: float) -> list[Ended]:
        ended: list[Ended] = []
        try:
            item = self._ended.get(timeout=timeout)
            while True:
                if item is not None:
                    ended.append(item)
                item = self._ended.get_nowait()
        except queue.Empty:
            pass
        if not ended and self._error is not None:
            raise self._death(self._error, "generate failed")
        return ended

    def abort(self) -> None:
        with self._changed:
            self._waiting.clear()
            self.giving_up = True
            self._changed.wait_for(lambda: not self._working, _STOP_SECONDS)
            self.giving_up = self._working
        while not self._ended.empty():
            self._ended.get_nowait()

    def stop(self) -> None:
        with self._changed:
            self._ending = self.giving_up = True
            self._waiting.clear()
            self._changed.notify_all()
        self._thread.join(_STOP_SECONDS)

    def tell(self, ended: Ended) -> None:
        """One has ended; called in the thread."""
        self._ended.put(ended)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._working = False
                self.giving_up = self._ending  # what was given up has come to its end, and what comes now is wanted
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting or self._ending)
                if self._ending:
                    return
                batch = self._next()
                self._working = True
            self.progress_at = time.monotonic()
            try:
                self._run(batch)
            except BaseException as error:  # whatever it is, the loop's thread says it
                with self._changed:
                    self._error, self._working = error, False
                    self._changed.notify_all()
                self._ended.put(None)
                return

    def _next(self) -> list[Row | Request]:
        """The first that waits, and those behind it that can go with it."""
        kind = self._kind(self._waiting[0])
        batch = [each for each in self._waiting if self._kind(each) == kind][: self._size]
        taken = set(map(id, batch))
        self._waiting = [each for each in self._waiting if id(each) not in taken]
        return batch

    def _kind(self, each: Row | Request) -> tuple[Any, ...]:
        request = each.request if isinstance(each, Row) else each
        # a decoder's prompts, which are partial answers, are not padded: not every decoder would take that
        return isinstance(each, Row), request.lora, self._loaded.encoder_decoder and len(request.partial)

    def _run(self, batch: list[Row | Request]) -> None:
        rows = [each for each in batch if isinstance(each, Row)]
        targets = [each for each in batch if not isinstance(each, Row)]
        self._adapt(rows[0].request if rows else targets[0])
        for scored in batches(targets, self._loaded):
            if self.giving_up:
                return
            for request, value in zip(scored, score(self._loaded, scored), strict=True):
                self.tell(Scored(request, value))
            self.progress_at = time.monotonic()
        if rows:
            self._generate(rows)

    def _adapt(self, request: Request) -> None:
        """Switch the adapter that is asked for on, or all of them off."""
        model = self._loaded.model
        if getattr(model, "_hf_peft_config_loaded", False):
            if request.lora is None:
                model.disable_adapters()
            else:
                model.enable_adapters()
                model.set_adapter(request.lora)

    def _generate(self, rows: list[Row]) -> None:
        import torch

        inputs, start = self._inputs(rows)
        config = copy.copy(self._loaded.plain)
        config.max_new_tokens = max(row.limit for row in rows)
        watch = _Watch(self, rows, start)
        with torch.no_grad():
            made = self._loaded.model.generate(
                **inputs, generation_config=config, logits_processor=[watch.process], stopping_criteria=[watch.stop]
            )
        watch.look(made)

    def _inputs(self, rows: list[Row]) -> tuple[dict[str, Any], int]:
        """What ``generate`` is given, and at which place the new tokens begin in what it gives."""
        import torch

        loaded = self._loaded
        texts = [list(row.request.token_ids or ()) if loaded.encoder_decoder else row.ids for row in rows]
        longest = max(map(len, texts))
        ids = torch.full((len(rows), longest), int(loaded.plain.pad_token_id), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, text in enumerate(texts):
            where = slice(0, len(text)) if loaded.encoder_decoder else slice(longest - len(text), longest)
            ids[i, where] = torch.tensor(text)
            mask[i, where] = 1
        inputs: dict[str, Any] = {"input_ids": ids.to(loaded.device), "attention_mask": mask.to(loaded.device)}
        if not loaded.encoder_decoder:
            return inputs, longest
        begin = loaded.decoder_start
        decoder = [[begin, *row.request.partial] for row in rows]
        inputs["decoder_input_ids"] = torch.tensor(decoder, device=loaded.device)
        return inputs, len(decoder[0])


class _Watch:
    """What the library calls at each step of a batch."""

    def __init__(self, runner: Plain, rows: list[Row], start: int) -> None:
        self._runner = runner
        self._rows = rows
        self._seen = start  # places of the ids that the rows have taken in

    def process(self, ids: Any, scores: Any) -> Any:
        self.look(ids)
        return choose(self._rows, scores)

    def stop(self, ids: Any, _scores: Any, **_: Any) -> Any:
        import torch

        self.look(ids)
        done = [self._runner.giving_up or row.finish_reason is not None for row in self._rows]
        return torch.tensor(done, device=ids.device)

    def look(self, ids: Any) -> None:
        """Take in the tokens that are new; a row that ends with one is told at once."""
        self._runner.progress_at = time.monotonic()
        if self._runner.giving_up or ids.shape[1] <= self._seen:
            return
        new = ids[:, self._seen :].tolist()
        self._seen = ids.shape[1]
        for row, tokens in zip(self._rows, new, strict=True):
            for token in tokens:
                if row.finish_reason is None and row.take(token):
                    self._runner.tell(row)


__all__ = ["Plain"]
