"""The scripted engine: requests in, answers from a script or a rule out, with the latency, failures and deaths that are set.

It is a product, not a mock: with it a whole job can be rehearsed without a model (without a script it echoes the last
message, or answers a constrained request with a smallest valid instance), and every path of a run can be driven in tests.
A token is one byte of UTF-8, so lengths, limits and cut-off answers behave as with a real tokenizer.
"""

from __future__ import annotations

import heapq
import json
import math
import os
import random
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import get_args

from llmbatch.core.errors import EngineDied, EngineError, OutOfMemory
from llmbatch.core.logprobs import ASKED
from llmbatch.core.tools import calls_in
from llmbatch.core.types import (
    Completion,
    Constraint,
    Failure,
    FailureKind,
    FinishReason,
    Outcome,
    Pooling,
    PoolingTask,
    Prompt,
    Refusal,
    Request,
    RequestKey,
    Score,
    Usage,
)
from llmbatch.engines.base import Drafts, EngineInfo
from llmbatch.engines.feed import Feed, Requests
from llmbatch.engines.scripted.calls import read_calls
from llmbatch.engines.scripted.pooled import given, numbers_of
from llmbatch.engines.scripted.script import Rule, load_script
from llmbatch.engines.scripted.streamed import FIRST_WORD, Streamed
from llmbatch.engines.scripted.text import (
    constrained,
    encoded,
    ids_of,
    logprobs_of,
    logprobs_of_prompt,
    pair_ids,
    said_by,
    until_stop,
)
from llmbatch.engines.scripted.thinking import MARKS, gone_on, kept_short, split
from llmbatch.engines.settings import EngineSettings
from llmbatch.engines.thinking import BUDGET, in_two_requests
from llmbatch.images.ahead import load
from llmbatch.model.tokenizer import ChatSettings, Tokenizer, load_tokenizer

_WITH_IDS = ("activation", "continue", "ids", "score", *get_args(PoolingTask))
_STRETCH = 100  # answers of which the same share of guessed tokens is right
_STEP_SECONDS = 0.5  # the longest that one step may last, see Engine.stream


class ScriptedEngine:
    """Answers from a ``Script``. State that outlives a death (how often a rule applied) is kept for each script path."""

    def __init__(self, model: str, engine: EngineSettings, chat: ChatSettings, _log: Path) -> None:
        self._model = model
        self._chat = chat
        self._settings = engine
        script = self._script = load_script(engine)
        self._waits = bool(script.latency or script.rules)  # a rule may let a request hang
        self._echoes = not (script.rules or script.die_after or script.no_ids)  # whatever it is asked
        self._state = _state_of(engine.script or "")
        self._heap: list[tuple[float, int, Request | Streamed]] = []
        self._sequence = 0  # of what was put there
        self._told: list[Completion] = []  # answers that were told to their end
        self._prompt_tokens = self._completion_tokens = 0
        self._busy = 0.0
        self._answers = 0
        self._drafts = Drafts()

    def start(self) -> EngineInfo:
        script = self._script
        concurrency = self._settings.in_flight or script.concurrency
        if script.out_of_memory_above is not None and concurrency > script.out_of_memory_above:
            raise OutOfMemory(f"the scripted engine has no memory for {concurrency} requests at a time")
        if script.start_seconds:
            time.sleep(script.start_seconds)
        if script.starts is not None and self._state.start() > script.starts:
            raise EngineError(f"the scripted engine starts {script.starts} times and no more, as its script says")
        return EngineInfo(
            name="scripted",
            version="1",
            model=self._model,
            context_length=None if script.no_context_length else script.context_length,
            max_num_seqs=concurrency,
            kv_cache_tokens=script.kv_cache_tokens,
            prefix_caching=script.kv_cache_tokens is not None,
            in_flight=concurrency,
            can=frozenset(
                {
                    "cancel",
                    "constraint",
                    "lora",
                    "stream",
                    *(() if script.no_ids else _WITH_IDS),
                    *(() if script.no_images else ("images",)),
                }
            ),
        )

    def expect(self, constraints: Sequence[Constraint]) -> None:
        """Any will do."""

    def tokenize(self, prompts: Sequence[Prompt]) -> Sequence[Sequence[int] | Failure] | None:
        if self._script.no_ids:
            return None
        if self._script.tokenizer is not None:
            return self._tokenizer.encode(prompts)
        return [ids_of(prompt) if prompt.pair is None else pair_ids(prompt) for prompt in prompts]

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return load_tokenizer(self._script.tokenizer or self._model, self._chat)

    def stream(self, feed: Feed) -> Iterator[list[Outcome]]:
        if self._settings.reasoning_parser is None or self._script.ends_thinking:
            return self._stream(feed)
        return in_two_requests(self._stream, feed, MARKS)

    def _stream(self, feed: Requests) -> Iterator[list[Outcome]]:
        slots = self._settings.in_flight or self._script.concurrency
        moved = time.monotonic()  # when it last answered something, or had nothing to do until it took something
        while True:
            now = time.monotonic()
            taken = feed.take(slots - len(self._heap), 1 << 40)
            if taken and not self._heap:
                moved = now
            due: Iterable[Request] = taken
            if self._waits or self._heap:
                for request in taken:
                    delay = self._delay(request)
                    self._later(now + (delay * FIRST_WORD if request.stream else delay), request)
                due = self._due(now, feed)
            if not taken and not self._heap:
                if feed.finished:
                    return
                feed.wait(_STEP_SECONDS)
                yield []
                continue
            outcomes: list[Outcome] = self._ended(feed.take_cancelled())
            death: EngineDied | None = None
            try:
                for request in due:
                    outcome = self._answer(request)
                    if request.stream and isinstance(outcome, Completion) and outcome.text:
                        self._begin(outcome, now, feed)
                    else:
                        outcomes.append(outcome)
            except EngineDied as error:
                death = error
            outcomes += self._told
            self._told.clear()
            if outcomes:
                moved = now
            elif death is None:
                if now - moved > self._settings.timeout:
                    raise EngineDied(f"the scripted engine answered nothing for {self._settings.timeout:g} s")
                next_due = self._heap[0][0] if self._heap else now
                pause = min(max(next_due - now, 0.0), _STEP_SECONDS, self._settings.timeout)
                if feed.hurries:
                    feed.rest(pause)
                else:
                    time.sleep(pause)
            self._busy += time.monotonic() - now
            yield outcomes
            if death is not None:
                raise death

    def _later(self, when: float, what: Request | Streamed) -> None:
        heapq.heappush(self._heap, (when, self._sequence, what))
        self._sequence += 1

    def _due(self, now: float, feed: Requests) -> Iterator[Request]:
        """Those whose time has come; the words whose time has come are told."""
        while self._heap and self._heap[0][0] <= now:
            when, _, due = heapq.heappop(self._heap)
            if isinstance(due, Request):
                yield due
            else:
                self._go_on(due, when, feed)

    def _begin(self, outcome: Completion, now: float, feed: Requests) -> None:
        """Tell the first word of an answer; the others follow."""
        self._go_on(Streamed.of(outcome, self._script.latency), now, feed)

    def _go_on(self, streamed: Streamed, now: float, feed: Requests) -> None:
        feed.tell([streamed.piece()])
        if streamed.words:
            self._later(now + streamed.pause, streamed)
        else:
            self._told.append(streamed.outcome)

    def _ended(self, cancelled: Iterable[RequestKey]) -> list[Outcome]:
        """The outcomes of requests that nobody wants any more, of those that are here."""
        keys = set(cancelled)
        if not keys:
            return []
        here = [entry for entry in self._heap if _key_of(entry[2]) in keys]
        self._heap = [entry for entry in self._heap if _key_of(entry[2]) not in keys]
        heapq.heapify(self._heap)
        return [Completion(_key_of(entry[2]), "", "abort", Usage()) for entry in here]

    def abort(self) -> None:
        self._heap.clear()
        self._told.clear()

    def stop(self) -> None:
        self.abort()

    def counts(self) -> Usage:
        return Usage(self._prompt_tokens, self._completion_tokens)

    def _count(self, usage: Usage) -> None:
        self._prompt_tokens += usage.prompt_tokens
        self._completion_tokens += usage.completion_tokens
        if shares := self._script.accepts:
            share = shares[min(self._answers // _STRETCH, len(shares) - 1)]
            self._answers += 1
            self._drafts += Drafts(1, usage.completion_tokens, round(share * usage.completion_tokens))

    def busy(self) -> float:
        return self._busy

    def drafts(self) -> Drafts:
        return self._drafts

    def _delay(self, request: Request) -> float:
        script = self._script
        if self._hangs(request):
            return 1e9
        if not script.latency:
            return 0.0
        rng = random.Random(f"{request.key}")  # noqa: S311 - a repeatable latency, not a secret
        return script.latency * (1 + script.jitter * (2 * rng.random() - 1))

    def _hangs(self, request: Request) -> bool:
        rule = self._rule(request) if self._script.rules else None
        return rule is not None and rule.hang and self._state.use(self._script.rules.index(rule), rule)

    def _answer(self, request: Request) -> Outcome:
        """The outcome of one request; raises ``EngineDied`` where the script says so."""
        if self._echoes and request.pooling is None and not request.prompt.images:
            answer = constrained(request.constraint) if request.constraint else said_by(request)
            return self._complete(request, answer, "stop") if request.target is None else self._score(request, answer)
        state, script = self._state, self._script
        if script.die_after and (answered := state.answer()) in script.die_after:
            raise EngineDied(f"the scripted engine died after {answered} requests, as its script says")
        rule = self._rule(request) if script.rules else None
        if rule is not None and not rule.hang and not state.use(script.rules.index(rule), rule):
            rule = None
        if rule is not None and rule.crash and self._settings.in_process is not False:
            os.kill(os.getpid(), signal.SIGKILL)
        if rule is not None and (rule.die or rule.crash):
            cause = OutOfMemory("no memory, as its script says") if rule.die == "out_of_memory" else None
            said = f"the scripted engine died of row {request.key.index}, as its script says"
            raise EngineDied(said, suspect=rule.die != "lost") from cause
        if rule is not None and rule.fail is not None:
            return Refusal(request.key, Failure(FailureKind.ENGINE, rule.fail))
        if script.no_ids and (request.target is not None or request.pooling is not None):
            said = "without token ids no continuation can be scored, and no numbers be given"
            return Refusal(request.key, Failure(FailureKind.REFUSED, said))
        if script.no_ids and (size := len(encoded(request.prompt))) >= script.context_length:
            return Refusal(
                request.key, Failure(FailureKind.TOO_LONG, f"a prompt of {size:,} tokens is more than I take")
            )
        if request.pooling is not None:
            return self._numbers(request, request.pooling, rule)
        answer, finish_reason = self._text(request, rule)
        if request.prompt.images and isinstance(seen := load(request.prompt, self._settings.images), Failure):
            return Refusal(request.key, seen)
        if request.target is not None:
            return self._score(request, answer)
        return self._complete(request, answer, finish_reason)

    def _text(self, request: Request, rule: Rule | None) -> tuple[str, FinishReason]:
        if rule is None or rule.answer is None:
            reason: FinishReason = "stop" if rule is None else rule.finish_reason
            return (constrained(request.constraint) if request.constraint else said_by(request)), reason
        text = rule.answer
        if "{" in text:
            for name, value in (
                ("index", request.key.index),
                ("sample", request.key.sample),
                ("attempt", request.key.attempt),
                ("text", said_by(request)),
            ):
                text = text.replace("{" + name + "}", str(value))
        return text, rule.finish_reason

    def _score(self, request: Request, answer: str) -> Completion:
        """The likelihood of a target: of each byte 9 in 10 where the answer has it at that place, else a share of the rest."""
        target, said = request.target_ids, answer.encode("utf-8", "replace")
        right = sum(ours == theirs for ours, theirs in zip(target, said, strict=False))
        logprob = right * math.log(0.9) + (len(target) - right) * math.log(0.1 / 255)
        usage = Usage(len(request.token_ids or ()) + len(target), 1)
        self._count(usage)
        greedy = right == len(target)
        return Completion(request.key, "", "stop", usage, score=Score(logprob, greedy, len(target)))

    def _numbers(self, request: Request, pooling: Pooling, rule: Rule | None) -> Outcome:
        script = self._script
        numbers = None
        if rule is not None and rule.answer is not None:
            numbers = given(self._text(request, rule)[0])
            if numbers is None:
                said = "the script's answer is no JSON list of numbers, and numbers are asked for"
                return Refusal(request.key, Failure(FailureKind.ENGINE, said))
        usage = Usage(len(request.token_ids or ()) + len(request.target_ids))
        self._count(usage)
        numbers = numbers_of(request, pooling, script) if numbers is None else numbers
        text = json.dumps(script.classes) if pooling.task == "classify" else ""
        return Completion(request.key, text, "stop", usage, numbers=numbers)

    def _complete(self, request: Request, answer: str, finish_reason: FinishReason) -> Completion:
        tokens = answer.encode("utf-8", "replace")
        stopped: str | None = None
        thinks, asked = self._settings.reasoning_parser is not None, request.sampling
        if thinks:
            tokens = kept_short(tokens, asked.get(BUDGET))
            tokens = gone_on(tokens, request.partial)
        else:
            tokens, stopped = until_stop(tokens, asked.get("stop"))
            finish_reason = finish_reason if stopped is None else "stop"
        already = len(request.partial)
        limit = request.max_tokens or asked.get("max_tokens")
        no_ids = self._script.no_ids
        prompt_tokens = len(encoded(request.prompt) if no_ids else request.token_ids or ()) + already
        room = self._script.context_length - prompt_tokens
        limit = room if limit is None else min(limit, room)
        if len(tokens) - already > limit:
            tokens, finish_reason, stopped = tokens[: already + limit], "length", None
        usage = Usage(prompt_tokens, len(tokens) - already if len(tokens) > already else 0)
        self._count(usage)
        logprobs = None if asked.get("logprobs") is None else logprobs_of(tokens[already:])
        if (most := asked.get(ASKED)) is not None and not already and request.token_ids:
            logprobs = [*logprobs_of_prompt(request.token_ids, most), *(logprobs or ())]
        text = tokens.decode("utf-8", "ignore")
        reasoning, text = split(text) if thinks else (None, text)
        ids = () if no_ids else tokens
        calls = None
        if request.prompt.tools is not None and finish_reason == "stop":
            parser = None if self._settings.tool_call_parser is None else read_calls
            text, calls = calls_in(text, request.prompt.tools, parser)
        return Completion(request.key, text, finish_reason, usage, ids, reasoning, stopped, logprobs, tool_calls=calls)

    def _rule(self, request: Request) -> Rule | None:
        text: str | None = None
        for rule in self._script.rules:
            when = rule.when
            if when.index is not None and not _is(request.key.index, when.index):
                continue
            if when.attempt is not None and not _is(request.key.attempt, when.attempt):
                continue
            if when.step is not None and request.key.step != when.step:
                continue
            if when.sample is not None and not _is(request.key.sample, when.sample):
                continue
            if when.contains is not None or when.matches is not None:
                text = said_by(request) if text is None else text
                if when.contains is not None and when.contains not in text:
                    continue
                if when.matches is not None and not re.search(when.matches, text):
                    continue
            return rule
        return None


class _State:
    """What a script remembers over the deaths of its engine, in one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # replicas share it
        self._answered = 0
        self._started = 0
        self._used: Counter[int] = Counter()

    def answer(self) -> int:
        """Count one more answer; returns how many there were."""
        with self._lock:
            self._answered += 1
            return self._answered

    def start(self) -> int:
        """Count one more start; returns how many there were."""
        with self._lock:
            self._started += 1
            return self._started

    def use(self, number: int, rule: Rule) -> bool:
        """Whether a rule may apply once more; counts it."""
        if rule.times is None:
            return True
        with self._lock:
            self._used[number] += 1
            return self._used[number] <= rule.times


_states: dict[str, _State] = {}


def _state_of(script: str) -> _State:
    return _states.setdefault(script, _State())


def _key_of(what: Request | Streamed) -> RequestKey:
    return what.key if isinstance(what, Request) else what.outcome.key


def _is(value: int, wanted: int | list[int]) -> bool:
    return value in wanted if isinstance(wanted, list) else value == wanted
