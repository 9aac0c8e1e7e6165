"""Simulated evaluations whose truth is known in; how often each kind of 95% interval holds it, as COVERAGE.md, out.

    python eval/harness/coverage.py [--repetitions 1000] [--only proportions,...] [--write]

Each case that is done is kept in coverage.jsonl beside this file, and not done again; --write makes COVERAGE.md of what is there.

An interval that is right holds the truth in 93 to 97% of the repetitions. What is cheap is repeated more than 1,000 times, since of
1,000 the share itself is known to 1.4 points only. The interval that may be looked at after every row must hold the truth in at
least 95% at whichever moment one stops, so it is looked at when it first is as narrow as was asked for. Rows and clusters are drawn
as from an endless set of them; the truth is the figure of that set.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from llmbatch.evals import intervals
from llmbatch.evals.base import Metric, make_metric
from llmbatch.evals.intervals import Interval
from llmbatch.evals.paired import Pairs, interval_of_difference
from llmbatch.evals.sequential import ConfidenceSequence
from llmbatch.evals.statistics import Statistics, figures, interval_of

RESULTS = Path(__file__).with_name("COVERAGE.md")
DONE = Path(__file__).with_name("coverage.jsonl")
REPETITIONS = {"proportions": 10_000, "means": 4000, "clustered": 4000, "paired": 4000}
LOW, HIGH = 0.93, 0.97
SKILL = (
    0.65 * 4,
    0.35 * 4,
)  # of a row or a document: how likely an answer is right, a beta distribution with mean 0.65


class Case(NamedTuple):
    """One setting. ``draw`` gives a set of rows' interval, ``truth`` is what it should hold."""

    group: str
    name: str
    truth: float
    draw: Callable[[np.random.Generator], Interval | None]
    at_least: bool = False


class Result(NamedTuple):
    group: str
    name: str
    truth: float
    held: float
    method: str
    repetitions: int
    ok: bool


@cache
def share(right: int, rows: int) -> Interval | None:
    return intervals.of_mean(np.repeat([1.0, 0.0], [right, rows - right]), None, (0.0, 1.0), 0.95)


def proportions() -> Iterator[Case]:
    for rows in (30, 50, 100, 200, 1000, 10000):
        for p in (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9, 0.98):
            if rows * min(p, 1 - p) < 5:  # so few outcomes are likely that no interval gets between 93 and 97%
                continue
            yield Case(
                "proportions",
                f"n={rows} p={p}",
                p,
                lambda g, rows=rows, p=p: share(int((g.random(rows) < p).sum()), rows),
            )


MEANS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "4 repeats a row": lambda g, n: g.binomial(4, g.beta(*SKILL, n)) / 4,
    "uniform": lambda g, n: g.random(n),
    "mostly 0, some between": lambda g, n: np.where(g.random(n) < 0.7, 0.0, g.beta(2, 2, n)),
    "most near 1": lambda g, n: g.beta(8, 0.4, n),
    "judge, 1 to 5": lambda g, n: 1 + g.binomial(4, g.beta(3, 1, n)),
}
MEANS_TRUTH = {
    "4 repeats a row": 0.65,
    "uniform": 0.5,
    "mostly 0, some between": 0.15,
    "most near 1": 8 / 8.4,
    "judge, 1 to 5": 4.0,
}


def means() -> Iterator[Case]:
    for name, values in MEANS.items():
        bounds = (1.0, 5.0) if name.startswith("judge") else (0.0, 1.0)
        for rows in (30, 100, 500):
            yield Case(
                "means",
                f"{name}, n={rows}",
                MEANS_TRUTH[name],
                lambda g, rows=rows, values=values, bounds=bounds: intervals.of_mean(
                    np.asarray(values(g, rows), float), None, bounds, 0.95
                ),
            )


def sizes_of(generator: np.random.Generator, clusters: int, unequal: bool) -> np.ndarray:
    """Rows of each cluster: 10, or from 1 to some hundreds, a few of them most of the rows."""
    if not unequal:
        return np.full(clusters, 10)
    return np.maximum(1, np.round(generator.lognormal(2, 0.8, clusters))).astype(int)


def clustered() -> Iterator[Case]:
    for clusters in (5, 10, 20, 50, 200):
        for unequal in (False, True):
            for p, correlation in ((0.5, 0.05), (0.5, 0.3), (0.8, 0.1), (0.8, 0.3)):

                def draw(g: np.random.Generator, c=clusters, u=unequal, p=p, r=correlation) -> Interval | None:
                    sizes, k = sizes_of(g, c, u), (1 - r) / r
                    skill = np.repeat(g.beta(p * k, (1 - p) * k, c), sizes)
                    values = (g.random(len(skill)) < skill).astype(float)
                    return intervals.of_mean(values, np.repeat(np.arange(c), sizes), (0.0, 1.0), 0.95)

                kind = "unequal" if unequal else "equal"
                yield Case("clustered", f"{clusters} {kind} clusters, p={p}, correlation {correlation}", p, draw)


def one_pair(metric: Metric, first: np.ndarray, second: np.ndarray, clusters: np.ndarray | None) -> Interval | None:
    return interval_of_difference(metric, Pairs(("value",), first[:, None], second[:, None], clusters), 0.95, 0)


def pairs() -> Iterator[Case]:
    accuracy = make_metric("accuracy")
    for rows in (50, 200, 1000):
        for p, gain in ((0.6, 0.0), (0.6, 0.1), (0.9, 0.03)):

            def binary(g: np.random.Generator, n=rows, p=p, gain=gain) -> Interval | None:
                skill = g.beta(p * 3, (1 - p) * 3, n)
                first = (g.random(n) < skill).astype(float)
                second = (g.random(n) < skill + gain * (1 - skill) / (1 - p)).astype(float)
                return one_pair(accuracy, first, second, None)

            yield Case("paired", f"right or wrong, n={rows}, {p} and {p + gain:.2g}", gain, binary)

        def repeats(g: np.random.Generator, n=rows) -> Interval | None:
            skill = g.beta(*SKILL, n)
            first, second = g.binomial(4, skill) / 4, g.binomial(4, skill + 0.2 * (1 - skill)) / 4
            return one_pair(accuracy, first, second, None)

        yield Case("paired", f"4 repeats a row, n={rows}", 0.2 * 0.35, repeats)
    for clusters in (6, 15, 50):
        for unequal in (False, True):

            def by_clusters(g: np.random.Generator, c=clusters, u=unequal) -> Interval | None:
                sizes = sizes_of(g, c, u)
                skill, gain = np.repeat(g.beta(*SKILL, c), sizes), np.repeat(g.uniform(0, 0.3, c), sizes)
                first = (g.random(len(skill)) < skill).astype(float)
                second = (g.random(len(skill)) < skill + gain * (1 - skill)).astype(float)
                return one_pair(accuracy, first, second, np.repeat(np.arange(c), sizes))

            yield Case("paired", f"{clusters} {'unequal' if unequal else 'equal'} clusters", 0.15 * 0.35, by_clusters)


def of_bleu(g: np.random.Generator, skill: np.ndarray) -> np.ndarray:
    """sacrebleu's statistics of sentences: lengths, and how many n-grams are right."""
    reference = np.maximum(6, g.poisson(18, len(skill)))
    length = np.maximum(5, np.round(reference * g.normal(0.98, 0.1, len(skill))).astype(int))
    total = [length - order for order in range(4)]
    right = [g.binomial(total[order], skill * 0.8**order * (1 if order == 0 else 0.85)) for order in range(4)]
    return np.stack([length, reference, *right, *total], -1).astype(float)


def of_macro_f1(g: np.random.Generator, skill: np.ndarray) -> np.ndarray:
    """Five labels, the rarest with one row in twenty."""
    shares = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
    true = g.choice(5, p=shares, size=len(skill))
    said = np.where(g.random(len(skill)) < skill, true, g.choice(5, p=shares, size=len(skill)))
    unit = np.eye(5)
    return np.concatenate([unit[true] * (true == said)[:, None], unit[said], unit[true]], -1)


def of_perplexity(g: np.random.Generator, skill: np.ndarray) -> np.ndarray:
    words = np.round(g.lognormal(4, 0.8, len(skill))) + 1
    return np.stack([-words * (2.5 + (0.65 - skill) * 2 + g.normal(0, 0.4, len(skill))), words], -1)


def of_calibration(g: np.random.Generator, skill: np.ndarray) -> np.ndarray:
    confidence = g.beta(3, 1.2, len(skill))
    right = g.random(len(skill)) < np.clip(confidence**2 / 2 + confidence / 2 - 0.05 + (skill - 0.65) * 0.2, 0, 1)
    return np.eye(10)[np.minimum(9, (confidence * 10).astype(int))] * (confidence - right)[:, None]


CORPUS: dict[str, tuple[tuple[str, ...], Callable[[np.random.Generator, np.ndarray], np.ndarray]]] = {
    "bleu": (tuple(f"{place:02}" for place in range(10)), of_bleu),
    "macro_f1": (tuple(f"{what} {label}" for what in ("right", "said", "true") for label in range(5)), of_macro_f1),
    "perplexity": (("logprob", "units"), of_perplexity),
    "calibration_error": (tuple(f"gap {place}" for place in range(10)), of_calibration),
}


def truth_of(metric: Metric, names: tuple[str, ...], draw: Callable[..., np.ndarray], rows: int) -> float:
    """The figure of very many rows."""
    generator, sums = np.random.default_rng(99), np.zeros(len(names))
    for _ in range(20):
        sums += draw(generator, generator.beta(*SKILL, rows // 20)).sum(axis=0)
    return float(figures(metric, names, sums[None, :], np.array([float(rows)]))[0])


def corpus(kind: str) -> Iterator[Case]:
    names, draw = CORPUS[kind]
    metric = make_metric(kind)
    truth = truth_of(metric, names, draw, 4_000_000)
    for rows, clusters in ((50, 0), (100, 0), (500, 0), (100, 10), (200, 20), (500, 50)):

        def one(g: np.random.Generator, n=rows, c=clusters) -> Interval | None:
            if not c:
                return interval_of(metric, Statistics(names, draw(g, g.beta(*SKILL, n)), np.arange(n)), None, 0.95, 0)
            sizes = np.maximum(1, np.round(g.lognormal(np.log(n / c) - 0.18, 0.6, c))).astype(int)
            matrix = draw(g, np.repeat(g.beta(*SKILL, c), sizes))
            codes = np.repeat(np.arange(c), sizes)
            return interval_of(metric, Statistics(names, matrix, np.arange(len(matrix))), codes, 0.95, 0)

        within = f" in {clusters} unequal clusters" if clusters else ""
        yield Case(kind, f"{kind}, n={rows}{within}", truth, one)


def sequential() -> Iterator[Case]:
    """Stopped as soon as it is narrow enough, which is when an interval that one may not look at so often fails."""

    def stopped(half: float, draw: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]], largest: int):
        def one(g: np.random.Generator) -> Interval | None:
            sequence = ConfidenceSequence(half, largest_cluster=largest)
            while True:
                for total, rows in zip(*draw(g), strict=True):
                    sequence.add(float(total), int(rows))
                    if sequence.is_narrow_enough:
                        return sequence.interval

        return one

    def rows_of(values: Callable[[np.random.Generator, int], np.ndarray]):
        return lambda g: (values(g, 1000), np.ones(1000))

    for p in (0.05, 0.5, 0.8):
        draw = rows_of(lambda g, n, p=p: (g.random(n) < p).astype(float))
        yield Case("sequential", f"right or wrong, p={p}, +-0.05", p, stopped(0.05, draw, 1), at_least=True)
    draw = rows_of(MEANS["4 repeats a row"])
    yield Case("sequential", "4 repeats a row, +-0.05", 0.65, stopped(0.05, draw, 1), at_least=True)

    def clusters(g: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        sizes = g.integers(1, 11, 300)
        return g.binomial(sizes, g.beta(*SKILL, 300)), sizes

    yield Case("sequential", "clusters of 1 to 10, +-0.05", 0.65, stopped(0.05, clusters, 10), at_least=True)

    def ever(g: np.random.Generator) -> Interval | None:
        sequence = ConfidenceSequence(0.02)
        for value in g.random(5000) < 0.7:
            sequence.add(float(value))
        return sequence.interval

    # an interval only shrinks, so the one at the end holds the truth only if every one before it did
    yield Case("sequential", "right or wrong, p=0.7, at every moment up to 5,000 rows", 0.7, ever, at_least=True)


GROUPS: dict[str, Callable[[], Iterator[Case]]] = {
    "proportions": proportions,
    "means": means,
    "clustered": clustered,
    "paired": pairs,
    "sequential": sequential,
    **{kind: partial(corpus, kind) for kind in CORPUS},
}


def measure(case: Case, repetitions: int) -> Result:
    """How often the interval of a case holds the truth; one that could not be made does not."""
    held = 0
    methods = set()
    for repetition in range(repetitions):
        found = case.draw(np.random.default_rng([repetition, *case.name.encode()]))
        if found is not None:
            held += found.low <= case.truth <= found.high
            methods.add(found.method)
    share = held / repetitions
    ok = share >= 0.95 if case.at_least else LOW <= share <= HIGH
    method = ", ".join(sorted(methods))
    return Result(case.group, case.name, case.truth, share, method, repetitions, ok)


def results_done() -> list[Result]:
    """What is in coverage.jsonl, in the order of the groups."""
    if not DONE.exists():
        return []
    found = [json.loads(line) for line in DONE.read_text().splitlines()]
    results = [Result(**{name: each[name] for name in Result._fields}) for each in found]
    return sorted(results, key=lambda result: list(GROUPS).index(result.group))


def as_markdown(results: list[Result]) -> str:
    right = sum(result.ok for result in results)
    lines = [
        "# How often a 95% interval holds the truth",
        "",
        f"Made by `python eval/harness/coverage.py --write` with numpy {np.__version__}: simulated evaluations of known truth.",
        f"{right} of {len(results)} cases are as wanted: 93 to 97%, and at least 95% of the sequential interval, which is looked "
        "at after every row and stopped at as soon as it is narrow enough.",
    ]
    for group in dict.fromkeys(result.group for result in results):
        heading = "| case | truth | held | repetitions | method | |"
        lines += ["", f"## {group}", "", heading, "|---|---:|---:|---:|---|---|"]
        for each in results:
            if each.group == group:
                lines.append(
                    f"| {each.name} | {each.truth:.4g} | {each.held:.1%} | {each.repetitions:,} | "
                    f"{each.method} | {'' if each.ok else 'missed'} |"
                )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, help="by default 1,000, of what is cheap 4,000 or 10,000")
    parser.add_argument("--only", default=",".join(GROUPS), help="groups, separated by commas")
    parser.add_argument("--write", action="store_true", help="COVERAGE.md beside this file")
    arguments = parser.parse_args()
    os.nice(10)
    for group in arguments.only.split(","):
        repetitions = arguments.repetitions or REPETITIONS.get(group, 1000)
        for case in GROUPS[group]():
            if any((done.name, done.repetitions) == (case.name, repetitions) for done in results_done()):
                continue
            result = measure(case, repetitions)
            with DONE.open("a") as file:
                file.write(json.dumps(result._asdict()) + "\n")
            missed = "" if result.ok else "MISSED"
            print(f"{result.held:6.1%} {missed:6} {group:12} {case.name:55} {result.method}", flush=True)
    results = results_done()
    print(f"{sum(result.ok for result in results)} of {len(results)} as wanted")
    if arguments.write:
        RESULTS.write_text(as_markdown(results))


if __name__ == "__main__":
    main()
