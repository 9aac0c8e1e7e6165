"""A text and its references in, sacrebleu's own statistics of them out; and its scores of summed ones.

The same two functions of a metric that sacrebleu's own significance tests are made of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from llmbatch.evals.base import Example, Floats


def statistics(metric: Any, example: Example) -> dict[str, float] | None:
    """What an example adds to the sums; repeats count as so many texts, and what could not be read as an empty one."""
    if not example.references:  # a row that could not be read
        return None
    references = [[reference] for reference in example.references]
    texts = ["" if answer is None else str(answer) for answer in example.answers] or [""]
    per_text = [metric._extract_corpus_statistics([text], references)[0] for text in texts]
    return {f"{place:02}": float(sum(numbers)) for place, numbers in enumerate(zip(*per_text, strict=True))}


def scores(metric: Any, sums: Mapping[str, Floats], rows: Floats) -> Floats:
    """The corpus scores of several sets of rows."""
    table = np.stack([sums[name] for name in sorted(sums)], axis=1)
    whole = np.array_equal(table, np.rint(table))  # sacrebleu writes counts into its score as whole numbers
    listed = table.astype(np.int64).tolist() if whole else table.tolist()
    return np.fromiter((metric._compute_score_from_stats(each).score for each in listed), float, len(rows))


def signature(metric: Any, references: int | None) -> str:
    """sacrebleu's signature, for texts with so many references each; None: it varies."""
    metric.num_refs = -1 if references is None else references
    return str(metric.get_signature())


def text_references(example: Example, _settings: Any) -> str | None:
    """What is wrong with references that are to be texts."""
    wrong = [reference for reference in example.references if not isinstance(reference, str)]
    return f"its reference {wrong[0]!r:.80} is no text" if wrong else None
