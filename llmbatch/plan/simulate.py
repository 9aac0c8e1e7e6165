"""An order of prompts and the engine's limits in -> how many prompt tokens its prefix cache will spare out.

A model of vLLM's scheduler and KV-cache manager (``vllm/v1/core``), event by event rather than step by step:

- only full blocks are cached, as soon as they are scheduled, so requests admitted in one step share already;
- blocks of running requests are pinned; those of finished ones become free, the tail of a request first, and are
  handed out again in that order (least recently used), a request's answer before its prompt;
- requests are admitted in the order given, each when there is a slot, budget in the step and blocks for all its prompt;
- answers grow by a token a step; when no block is left the youngest request is preempted and computed again.

Blocks that the same requests share live and die together, so the unit of the simulation is a stretch of blocks (a node
of the prefix tree), and its cost does not grow with the length of the prompts. Left out: sliding windows and other
hybrid caches, speculative decoding, the block that vLLM holds twice when a prompt that ends with a full block returns.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush, heapreplace

from llmbatch.plan.prefix import PrefixTree


@dataclass(frozen=True, slots=True)
class Cache:
    """The engine's limits that decide what its cache spares."""

    blocks: int
    block_size: int  # tokens
    slots: int  # requests that run at a time
    budget: int  # tokens in a step


@dataclass(frozen=True, slots=True)
class Prediction:
    """Tokens are of prompts; ``computed_tokens`` includes what preempted requests computed again."""

    hit_tokens: int
    computed_tokens: int
    steps: int
    preemptions: int


@dataclass(slots=True)
class _Running:
    item: int
    tokens: int  # of the prompt, and of the answer before a preemption
    left: int  # tokens of the answer still to come, the first at the step that ends the prefill
    own_blocks: int  # blocks of the prompt that no other prompt shares
    started: int = -1  # the step that ended its prefill; -1 before
    gone: bool = False


class _Simulation:
    def __init__(self, tree: PrefixTree, tokens: Sequence[int], answers: Sequence[int], cache: Cache) -> None:
        self.tree, self.tokens, self.answers, self.cache = tree, tokens, answers, cache
        self.paths = [tree.path(node) for node in range(len(tree.depth))]
        self.sizes = [tree.blocks(node) for node in range(len(tree.depth))]
        self.present = [0] * len(tree.depth)  # cached blocks of each node, counted from its start
        self.pins = [0] * len(tree.depth)
        # Node, or ~item for blocks of its own -> cached blocks that nobody uses; the least recently used first.
        self.evictable: OrderedDict[int, int] = OrderedDict()
        self.evictable_blocks = 0
        self.empty_blocks = cache.blocks
        self.running: OrderedDict[int, _Running] = OrderedDict()  # by item, in order of admission
        self.finishing: list[tuple[int, int, _Running]] = []  # (step, running number, request); a heap
        self.starts = 0
        self.growing = 0  # requests that decode
        self.grown_tokens = 0  # tokens of answers that running requests hold
        self.grown_blocks = 0
        self.now = 0
        self.hit_blocks = self.computed = self.preemptions = 0

    def run(self, order: Sequence[int]) -> Prediction:
        waiting = deque((item, self.tokens[item], self.answers[item], True) for item in order)
        block, slots, per_step = self.cache.block_size, self.cache.slots, self.cache.budget
        chunk: _Running | None = None  # the one request whose prefill did not fit into a step's budget
        backlog = 0
        while waiting or self.running:
            budget = max(1, per_step - self.growing)
            if chunk is not None:
                if chunk.gone:  # preempted
                    chunk, backlog = None, 0
                elif backlog > budget:
                    steps = min((backlog - 1) // budget, self._until_next_event())
                    backlog -= steps * budget
                    self._advance(steps, waiting)
                    continue
                else:
                    budget -= backlog
                    self._start(chunk)
                    chunk, backlog = None, 0
            while waiting and budget > 0 and len(self.running) < slots:
                request, computed = self._admit(*waiting[0])
                if request is None:
                    break
                waiting.popleft()
                if computed > budget:
                    chunk, backlog, budget = request, computed - budget, 0
                else:
                    budget -= computed
                    self._start(request)
            more = chunk is not None or (waiting and budget <= 0 and len(self.running) < slots)
            self._advance(1 if more else self._until_next_event(), waiting)
        return Prediction(self.hit_blocks * block, self.computed, self.now, self.preemptions)

    def _until_next_event(self) -> int:
        """Steps until a request finishes, or no block is left for the answers that grow."""
        while self.finishing and self.finishing[0][2].gone:
            heappop(self.finishing)
        if not self.finishing:
            return 1
        room = (self.empty_blocks + self.evictable_blocks + 1) * self.cache.block_size
        exhausted = (room - self.grown_tokens % self.cache.block_size) // self.growing + 1
        return max(1, min(self.finishing[0][0] - self.now, exhausted))

    def _admit(self, item: int, tokens: int, left: int, first: bool) -> tuple[_Running | None, int]:
        """Give the request its blocks; (None, 0) if there are too few. Else it, and how many tokens it must compute."""
        path, present, pins, sizes = self.paths[self.tree.home[item]], self.present, self.pins, self.sizes
        hit = unpinned = 0
        for node in path:
            cached = present[node]
            hit += cached
            if not pins[node]:
                unpinned += cached
            if cached < sizes[node]:
                break
        blocks, whole = -(-tokens // self.cache.block_size), self.tree.depth[self.tree.home[item]]
        again = 0  # blocks of its own that a preempted request left in the cache
        if not first and hit == whole:
            again = self.evictable.get(~item, 0)
            unpinned += again
        needed = blocks - hit - again
        if needed + unpinned > self.empty_blocks + self.evictable_blocks and self.running:
            return None, 0
        if again:
            self.evictable_blocks -= self.evictable.pop(~item)
        for node in path:
            if not pins[node] and present[node]:
                self.evictable_blocks -= self.evictable.pop(node)
            pins[node] += 1
            present[node] = sizes[node]
        self.empty_blocks -= needed
        self._evict()
        request = self.running[item] = _Running(item, tokens, left, blocks - whole)
        computed = max(1, tokens - (hit + again) * self.cache.block_size)
        self.computed += computed
        if first:
            self.hit_blocks += hit
        return request, computed

    def _start(self, request: _Running) -> None:
        """Its prefill ends in this step, which also gives the first token of its answer."""
        request.started = self.now
        self.growing += 1
        self.starts += 1
        heappush(self.finishing, (self.now + request.left, self.starts, request))

    def _advance(self, steps: int, waiting: deque[tuple[int, int, int, bool]]) -> None:
        """Let ``steps`` steps pass: answers grow, what is finished frees its blocks."""
        self.now += steps
        self.grown_tokens += self.growing * steps
        blocks = self.grown_tokens // self.cache.block_size
        self.empty_blocks -= blocks - self.grown_blocks
        self.grown_blocks = blocks
        while self.finishing and (self.finishing[0][2].gone or self.finishing[0][0] <= self.now):
            _, _, request = heappop(self.finishing)
            if not request.gone:
                self._free(request)
        self._evict()
        while self.empty_blocks < 0 and len(self.running) > 1:
            request = next(reversed(self.running.values()))
            answered = self._free(request)
            self._evict()
            self.preemptions += 1
            waiting.appendleft((request.item, request.tokens + answered, max(1, request.left - answered), False))

    def _free(self, request: _Running) -> int:
        """Give back what a running request holds. How many tokens of its answer there are."""
        del self.running[request.item]
        request.gone = True
        answered = 0
        freed = request.own_blocks
        if request.started >= 0:
            answered = self.now - request.started
            self.growing -= 1
            self.grown_tokens -= answered
            blocks = self.grown_tokens // self.cache.block_size
            freed += self.grown_blocks - blocks
            self.grown_blocks = blocks
        home = self.tree.home[request.item]
        # The last token of an answer is never computed, and a block that is not full is not cached.
        full = (request.tokens + max(0, answered - 1)) // self.cache.block_size - self.tree.depth[home]
        cached = min(max(0, full), freed)
        self.empty_blocks += freed - cached
        if cached:
            self.evictable[~request.item] = self.evictable.pop(~request.item, 0) + cached
            self.evictable_blocks += cached
        for node in reversed(self.paths[home]):
            self.pins[node] -= 1
            if not self.pins[node]:
                self.evictable[node] = self.present[node]
                self.evictable_blocks += self.present[node]
        return answered

    def _evict(self) -> None:
        """Make up for blocks taken while none was empty (``empty_blocks`` below 0), least recently used first."""
        while self.empty_blocks < 0 and self.evictable:
            oldest, held = next(iter(self.evictable.items()))
            taken = min(held, -self.empty_blocks)
            if taken == held:
                del self.evictable[oldest]
            else:
                self.evictable[oldest] = held - taken
            if oldest >= 0:
                self.present[oldest] -= taken
            self.evictable_blocks -= taken
            self.empty_blocks += taken


def simulate(
    order: Sequence[int], tree: PrefixTree, tokens: Sequence[int], answers: Sequence[int], cache: Cache
) -> Prediction:
    """What the cache spares when the prompts of ``tree`` are sent in ``order``, into an empty cache.

    ``tokens`` and ``answers`` are the lengths of each prompt and of its expected answer.
    """
    return _Simulation(tree, tokens, [max(1, a) for a in answers], cache).run(order)


def steps_to_answer(answers: Sequence[float], slots: int) -> float:
    """Steps until the last answer ends, when answers begin in this order and ``slots`` of them run at a time."""
    ends = [0.0] * slots
    for length in answers:
        heapreplace(ends, ends[0] + length)
    return max(ends)
