"""Packed prompts in -> the radix tree of the KV-cache blocks they share, and the order that keeps sharers close, out.

Only full blocks can be shared, and a prompt's last token is always computed, so a prompt of n tokens has
(n - 1) // block_size blocks that a cache can spare it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from llmbatch.core.digest import TOKEN_BYTES


@dataclass(slots=True)
class PrefixTree:
    """A radix tree over ``count`` prompts; its nodes are stretches of blocks that at least two prompts share.

    A child is a node (0 and up) or a prompt (``~item``, below 0). Node 0 is the root, which holds no blocks.
    """

    count: int
    depth: list[int] = field(default_factory=lambda: [0])  # blocks from the root to the end of a node
    parent: list[int] = field(default_factory=lambda: [0])
    children: list[list[int]] = field(default_factory=lambda: [[]])
    home: list[int] = field(default_factory=list)  # for each prompt, the deepest node that it shares
    spared_blocks: int = 0  # what a cache without limit would spare over all prompts, in any order

    def path(self, node: int) -> tuple[int, ...]:
        """The nodes from below the root to ``node``, in that order."""
        nodes = []
        while node:
            nodes.append(node)
            node = self.parent[node]
        return tuple(reversed(nodes))

    def blocks(self, node: int) -> int:
        """How many blocks the node itself holds."""
        return self.depth[node] - self.depth[self.parent[node]]

    @property
    def common_blocks(self) -> int:
        """How many blocks all prompts share."""
        top = self.children[0]
        return self.depth[top[0]] if len(top) == 1 and top[0] >= 0 else 0

    def order(self, ranks: Sequence[int]) -> list[int]:
        """All prompts, those under one node next to each other; what is beside each other goes by its lowest rank.

        ``ranks`` gives each prompt a number of its own, such as its place in the input.
        """
        lowest = [0] * len(self.depth)
        for node in self._bottom_up():
            lowest[node] = min((lowest[c] if c >= 0 else ranks[~c] for c in self.children[node]), default=0)
        ordered: list[int] = []
        stack = [0]
        while stack:
            child = stack.pop()
            if child < 0:
                ordered.append(~child)
            else:
                children = self.children[child]
                stack.extend(sorted(children, key=lambda c: -lowest[c] if c >= 0 else -ranks[~c]))
        return ordered

    def _bottom_up(self) -> list[int]:
        nodes = [0]
        for node in nodes:
            nodes.extend(c for c in self.children[node] if c >= 0)
        return nodes[::-1]


def build_tree(prompts: Sequence[bytes], domains: Sequence[str | None], block_size: int) -> PrefixTree:
    """The tree of packed prompts (``fold.pack``). Prompts of different ``domains`` (LoRA adapters) share nothing."""
    width = block_size * TOKEN_BYTES
    tree = PrefixTree(len(prompts), home=[0] * len(prompts))
    if not prompts:
        return tree
    by_domain = len(set(domains)) > 1
    items = range(len(prompts))
    ranked = sorted(items, key=(lambda i: (domains[i] or "", prompts[i])) if by_domain else prompts.__getitem__)
    depth, parent, children, home = tree.depth, tree.parent, tree.children, tree.home
    shared = 0  # blocks, of a prompt and the one before it
    open_nodes = [0]  # from the root to the node that the last prompt hangs on
    for rank, item in enumerate(ranked):
        following = ranked[rank + 1] if rank + 1 < len(ranked) else None
        if following is None or (by_domain and domains[item] != domains[following]):
            shared = 0
        else:
            shared = _shared_blocks(prompts[item], prompts[following], width, shared)
        here = open_nodes[-1]
        if shared > depth[here]:
            depth.append(shared)
            parent.append(0)
            children.append([])
            here = len(depth) - 1
            open_nodes.append(here)
        home[item] = here
        children[here].append(~item)
        tree.spared_blocks += shared
        while depth[open_nodes[-1]] > shared:
            closed = open_nodes.pop()
            if depth[open_nodes[-1]] < shared:
                depth.append(shared)
                parent.append(0)
                children.append([])
                open_nodes.append(len(depth) - 1)
            parent[closed] = open_nodes[-1]
            children[open_nodes[-1]].append(closed)
    return tree


def _shared_blocks(a: bytes, b: bytes, width: int, guess: int) -> int:
    """How many full blocks of ``width`` bytes both start with, the last token of either left out. ``guess`` is looked at first."""
    most = (min(len(a), len(b)) - TOKEN_BYTES) // width
    end = guess * width
    if guess < most and a[:end] == b[:end] and a[end : end + width] != b[end : end + width]:
        return guess  # as among all that share no more than their instructions
    if most <= 0 or a[:width] != b[:width]:
        return 0
    if a[: most * width] == b[: most * width]:
        return most
    low, high = 1, most  # the first `low` blocks are equal, the first `high` are not
    while high - low > 1:
        middle = (low + high) // 2
        if a[low * width : middle * width] == b[low * width : middle * width]:
            low = middle
        else:
            high = middle
    return low
