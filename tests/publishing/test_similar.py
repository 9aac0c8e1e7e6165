from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmbatch.core.minhash import sketcher
from llmbatch.publishing import similar
from llmbatch.publishing.keys import digest, runs_of
from llmbatch.publishing.similar import Similar


def families(count: int, size: int) -> list[str]:
    """Texts in families that have nothing in common with others; within one they differ in a word or two."""
    drawn = random.Random(1)
    texts = []
    for family in range(count):
        words = [f"w{family}x{at}" for at in range(60)]
        for _ in range(size):
            changed = list(words)
            for at in drawn.sample(range(60), drawn.randrange(3)):
                changed[at] = f"c{drawn.randrange(10**6)}"
            texts.append(" ".join(changed))
    drawn.shuffle(texts)
    return texts


def pairs_of(texts: list[str], folder: Path, similarity: float, alive: Any = None) -> set[tuple[int, int]]:
    found = Similar(folder, similarity)
    for text in texts:
        found.add(text)
    pairs = found.pairs(np.ones(len(texts), dtype=bool) if alive is None else alive)
    found.close()
    return {(later, earlier) for later, earlier in pairs.tolist()}


def test_the_pairs_are_those_that_comparing_all_with_all_finds(tmp_path: Path) -> None:
    texts = families(40, 4)
    signatures = sketcher()(texts)
    all_with_all = {
        (later, earlier)
        for later in range(len(texts))
        for earlier in range(later)
        if (signatures[later] == signatures[earlier]).mean() >= 0.7
    }
    found = pairs_of(texts, tmp_path, 0.7)
    assert found <= all_with_all
    assert len(found) >= 0.98 * len(all_with_all) > 100


def test_only_texts_that_are_alive_are_compared(tmp_path: Path) -> None:
    alive = np.array([True, False, True])
    assert pairs_of(["a b c d"] * 3, tmp_path, 0.8, alive) == {(2, 0)}


def test_where_very_many_texts_agree_each_is_compared_with_some_and_with_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similar, "WINDOW", 2)
    found = pairs_of(["a b c d"] * 50, tmp_path, 0.8)
    assert found == {(i, j) for i in range(50) for j in {0, i - 1, i - 2} if 0 <= j < i}


def test_rows_with_equal_keys_stand_side_by_side_in_their_order() -> None:
    runs = runs_of(np.array([2, 5, 7, 8, 9]), np.array([3, 1, 3, 2, 3]))
    assert runs.members.tolist() == [2, 7, 9]
    assert runs.starts.tolist() == [0, 0, 0]


def test_digests_depend_on_the_seed_and_are_told_apart_whatever_they_end_in() -> None:
    keys = np.frombuffer(b"".join(digest(str(i)) for i in range(2000)), dtype="S16")
    assert len(set(keys.tolist())) == 2000
    assert digest("a", 1) != digest("a", 2)
