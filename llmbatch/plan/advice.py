"""A sample of tokenized prompts in -> what another order of the prompt's parts would let the prefix cache save, out.

A prefix cache spares a prompt only up to its first difference from an earlier one. Text that comes again behind that
point (instructions after the row's text, a document after its question) is computed anew in every row. It is found by
its runs of 32 tokens that occur in other prompts too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from llmbatch.core.digest import TOKEN_BYTES
from llmbatch.plan.prefix import build_tree

RUN = 32  # tokens; shorter repeats are common phrases, or the fixed end of a chat template
FEWEST_PROMPTS = 8  # a sample below this says nothing
_NEARLY_ALL = 0.95
_WIDTH = RUN * TOKEN_BYTES


@dataclass(frozen=True, slots=True)
class Advice:
    """Text that comes again behind text that differs. Lengths are means over the sample, in tokens of a prompt."""

    kind: Literal["fixed", "repeated"]  # the same in every row; or only in some, such as a document with many questions
    tokens: float  # that come again behind the first difference
    share: float  # of a prompt
    saving: float  # share of the tokens to compute that moving it to the front would save, with room in the cache
    example: tuple[int, int]  # of which prompt in the sample, and from which token on

    def sentence(self, text: str) -> str:
        """The advice for a person; ``text`` is how the example begins."""
        what = f"{self.tokens:,.0f} tokens of a prompt ({self.share:.0%})"
        if self.kind == "fixed":
            found = f"{what} are the same in every row but come after text that differs, from {text!r} on"
            todo = "put them before the row's own text"
        else:
            found = f"{what} occur in other rows too but come after text that differs, for example from {text!r} on"
            todo = "put what several rows share before what is each row's own, and keep such rows within one window"
        return f"{found}: {todo}, and the prefix cache can save {self.saving:.0%} of the prompt tokens to compute"


def advise(prompts: Sequence[bytes], block_size: int, min_saving: float = 0.05) -> list[Advice]:
    """Advice on prompts packed by ``fold.pack``: rows next to each other in the input, some hundreds of them.

    Its time is linear in the sample's tokens, about half a microsecond each.
    """
    if len(prompts) < FEWEST_PROMPTS:
        return []
    tree = build_tree(prompts, [None] * len(prompts), block_size)
    tokens = sum(len(p) for p in prompts) // TOKEN_BYTES
    computed = tokens - tree.spared_blocks * block_size
    # Where each prompt leaves the last one that it shares blocks with; what lies before is spared already.
    starts = [tree.depth[node] * block_size for node in tree.home]

    runs = [_runs(prompt, 0) for prompt in prompts]
    counts = Counter(run for own in runs for run in set(own))
    fixed = {run for run, count in counts.items() if count >= _NEARLY_ALL * len(prompts)}
    seen: set[int] = set()
    fixed_tokens = repeated_tokens = fixed_again = repeated_again = 0
    examples: dict[str, tuple[int, int]] = {}
    for number, (own, start) in enumerate(zip(runs, starts, strict=True)):
        first, covered, again = _covered(own, start, fixed, seen)
        fixed_tokens += covered
        fixed_again += again
        if covered:
            examples.setdefault("fixed", (number, first))
        others = {run for run in own[start:] if run not in fixed and counts[run] > 1}
        first, covered, again = _covered(own, start, others, seen)
        repeated_tokens += covered
        repeated_again += again
        if covered:
            examples.setdefault("repeated", (number, first))
        seen.update(own)

    found = []
    for kind, covered, again in (("fixed", fixed_tokens, fixed_again), ("repeated", repeated_tokens, repeated_again)):
        saving = again / computed if computed else 0.0
        if again and saving >= min_saving:
            example = examples[kind]
            found.append(Advice(kind, covered / len(prompts), covered / tokens, saving, example))  # type: ignore[arg-type]
    return found


def _runs(prompt: bytes, start: int) -> list[int]:
    """A number for each run of ``RUN`` tokens, by the place where it starts."""
    return [hash(prompt[at : at + _WIDTH]) for at in range(start, len(prompt) - _WIDTH + 1, TOKEN_BYTES)]


def _covered(runs: Sequence[int], start: int, wanted: set[int], seen: set[int]) -> tuple[int, int, int]:
    """The first token from ``start`` on in a wanted run; how many tokens lie in such; and in such seen before."""
    first, covered, again = -1, 0, 0
    end = end_again = start
    for at in range(start, len(runs)):
        run = runs[at]
        if run not in wanted:
            continue
        if first < 0:
            first = at
        covered += at + RUN - max(end, at)
        end = at + RUN
        if run in seen:
            again += at + RUN - max(end_again, at)
            end_again = at + RUN
    return first, covered, again
