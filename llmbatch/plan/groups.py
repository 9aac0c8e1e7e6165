"""A window's prefix tree in -> which requests are worth answering on one engine of several, out.

A group is a subtree of requests that share blocks, but not so large that one engine would have too much of the window: a larger one
is taken apart, and what all of it shares is computed on every engine. Its number depends on the first block alone that tells it
from its siblings, so rows that share a document have the same number in every window, however many of them that window holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from llmbatch.core.digest import TOKEN_BYTES
from llmbatch.plan.prefix import PrefixTree

_GROUPS_AN_ENGINE = 8  # at least so many, so that engines can be kept equally busy


def prefix_groups(
    tree: PrefixTree, prompts: Sequence[bytes], loras: Sequence[str | None], block_size: int, engines: int
) -> dict[int, int]:
    """Item -> number of its group; those that are in none share nothing that is theirs alone."""
    largest = max(2, tree.count // (engines * _GROUPS_AN_ENGINE))
    sizes = _sizes(tree)
    width = block_size * TOKEN_BYTES
    groups: dict[int, int] = {}
    large = [0]
    for node in large:
        for child in tree.children[node]:
            if child < 0:
                continue
            if sizes[child] > largest:
                large.append(child)
                continue
            items = _items(tree, child)
            start = prompts[items[0]][: (tree.depth[node] + 1) * width]
            number = _number(start, loras[items[0]])
            groups.update(dict.fromkeys(items, number))
    return groups


def _number(start: bytes, lora: str | None) -> int:
    digest = hashlib.blake2b(start, digest_size=7, person=b"prefix", salt=(lora or "").encode()[:16])
    return int.from_bytes(digest.digest(), "big")


def _sizes(tree: PrefixTree) -> list[int]:
    """How many prompts hang below each node."""
    nodes = [0]
    for node in nodes:
        nodes.extend(child for child in tree.children[node] if child >= 0)
    sizes = [0] * len(tree.depth)
    for node in reversed(nodes):
        sizes[node] = sum(1 if child < 0 else sizes[child] for child in tree.children[node])
    return sizes


def _items(tree: PrefixTree, node: int) -> list[int]:
    """The prompts below a node."""
    items: list[int] = []
    stack = [node]
    while stack:
        for child in tree.children[stack.pop()]:
            if child < 0:
                items.append(~child)
            else:
                stack.append(child)
    return items


__all__ = ["prefix_groups"]
