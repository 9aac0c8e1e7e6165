"""``results.json`` in; ``RESULTS.md`` and ``speedup.svg`` out. Nothing is written there that was not measured.

    python eval/bench/report.py

What other programs of this folder found is added where their files are there (``autotune.json``, ``corpus.json``,
``simulation.json``).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any
from xml.sax.saxutils import escape

HERE = Path(__file__).resolve().parent
BUSY = "> **These figures were taken on a busy machine (`--force`) and are worth nothing.** Run `make bench` on a quiet one.\n"
INTRO = """# Benchmarks

Made by `make bench`; this text is written by `eval/bench/report.py` from `eval/bench/results.json`.

How it was measured: every arm is a process that loads its engine once; then the arms take turns, in an order that moves on
from round to round, with nothing else computing (a round in which other work took more than 8% of the processors is run
again). A repetition goes from the input file to an output file on disk, with the prefix cache emptied before it; llmbatch
writes a fresh run folder, its journal, parts and fsyncs included. Ratios are taken within a round, and their median is given,
with the least and the greatest in brackets. All answers are greedy. Nothing is retried, so that every arm does the same work.
"""


class Table:
    def __init__(self, *head: str) -> None:
        self._lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]

    def add(self, *cells: str) -> None:
        self._lines.append("| " + " | ".join(cells) + " |")

    def __str__(self) -> str:
        return "\n".join(self._lines) + "\n"


def ratios(shape: Mapping[str, Any], arm: str) -> list[float]:
    """How many times as fast as that arm llmbatch was, round by round."""
    return [r[arm]["seconds"] / r["ours"]["seconds"] for r in shape["rounds"] if arm in r and "ours" in r]


def with_start_up(shape: Mapping[str, Any], arm: str) -> list[float]:
    """The seconds of each repetition with one start-up each: as if the command were run once for it."""
    return [
        round_[arm].get("seconds_with_start_up", round_[arm]["seconds"] + shape["start_up"][arm])
        for round_ in shape["rounds"]
        if arm in round_
    ]


def spread(values: Sequence[float], digits: int = 2, unit: str = "") -> str:
    if not values:
        return "not measured"
    return f"{median(values):,.{digits}f}{unit} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def times(values: Sequence[float]) -> str:
    return spread(values, unit="x")


def equal(shape: Mapping[str, Any], arm: str) -> str:
    """The share of the rows whose answer is that of ``LLM.chat``; apart for rows with and without a schema, if both are there."""
    counts = shape["equal"].get(arm, {})
    shares = {kind: f"{count['equal'] / count['rows']:.1%}" for kind, count in counts.items()}
    apart = [f"{kind} {counts[kind]['equal']:,} of {counts[kind]['rows']:,}" for kind in counts if kind != "all"]
    return shares.get("all", "") + (f" ({', '.join(apart)})" if apart else "")


def verdict(value: float, wanted: float) -> str:
    return "reached" if value >= wanted else "**not reached**"


def machine_text(machine: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    kind = "virtual machine" if machine["virtual"] else "machine"
    bf16 = "with" if machine["bf16"] else "without"
    return (
        f"## Machine\n\nA {kind} with {machine['cpus']} processors ({machine['cpu']}, {bf16} bfloat16 instructions) and "
        f"{machine['memory_gib']} GiB of memory; no GPU, so none was measured. "
        f"{machine['system']}, Python {machine['python']}; {packages}.\n"
    )


def shapes_text(results: Mapping[str, Any]) -> str:
    shapes = results["shapes"]
    table = Table("shape", "rows", "must reach", "measured", "", "against `LLM.chat` tuned", "rows/s", "equal answers")
    sources = {shape["source"] for shape in shapes.values() if shape["title"].endswith("real text")}
    for shape in shapes.values():
        found = ratios(shape, "chat")
        name = shape["title"] + (f" ({shape['note']})" if shape["note"] else "")
        rates = [shape["rows"] / r["ours"]["seconds"] for r in shape["rounds"] if "ours" in r]
        table.add(
            name,
            f"{shape['rows']:,}",
            f"{shape['must_reach']}x",
            f"**{times(found)}**" if found else "not measured",
            verdict(median(found), shape["must_reach"]) if found else "",
            times(ratios(shape, "tuned")),
            f"{median(rates):,.0f}" if rates else "",
            equal(shape, "ours"),
        )
    return (
        "## llmbatch against `LLM.chat` on the whole list\n\n![speed-ups](speedup.svg)\n\n" + str(table) + "\n"
        "*Measured*: against `LLM.chat` with vLLM's own defaults. *Tuned*: `LLM.chat` with the very engine arguments that "
        "llmbatch chooses, and the engine core in this process as there, but for JSON, whose spacing llmbatch fixes. "
        "*Equal answers*: share of the rows whose answer is "
        "that of `LLM.chat`, JSON by its value. vLLM's default lets the model put white space anywhere between "
        "JSON's tokens and llmbatch does not; on prompts unlike those of its training the demo model makes use of that, and "
        "its answer may then be another."
        + (f" *Real text*: {'; '.join(sorted(sources))}; rows of the other shapes are made." if sources else "")
        + "\n"
    )


def seconds_text(results: Mapping[str, Any]) -> str:
    names = results["arms"]
    table = Table("shape", "arm", "seconds", "processor seconds", "start-up", "prefix hit rate", "equal to `LLM.chat`")
    for shape in results["shapes"].values():
        for arm, title in names.items():
            rounds = [r[arm] for r in shape["rounds"] if arm in r]
            if not rounds:
                continue
            hits = [r["hit_rate"] for r in rounds if r.get("hit_rate") is not None]
            table.add(
                shape["title"],
                title,
                spread([r["seconds"] for r in rounds]),
                "not metered"
                if rounds[0]["cpu_seconds"] is None
                else f"{median(r['cpu_seconds'] for r in rounds):.2f}",
                f"{median(with_start_up(shape, arm)) - median(r['seconds'] for r in rounds):.1f} s",
                f"{median(hits):.1%}" if hits else "",
                equal(shape, arm),
            )
    return "## All arms\n\n" + str(table)


def hits_text(results: Mapping[str, Any]) -> str:
    lines = []
    for shape in results["shapes"].values():
        ours = [r["ours"]["hit_rate"] for r in shape["rounds"] if "ours" in r and r["ours"]["hit_rate"] is not None]
        possible = shape.get("hit_rate_possible")
        if ours and possible and possible > 0.2:
            share = median(ours) / possible
            lines.append(
                f"- {shape['title']}: llmbatch {median(ours):.2%} of the prompt tokens, of a possible {possible:.2%} "
                f"({share:.1%} of it; must reach 95%, {verdict(share, 0.95)})."
            )
    return "## Prefix cache\n\n" + "\n".join(lines) + "\n" if lines else ""


def idle_text(figure: Mapping[str, Any]) -> str:
    """How long engines had nothing to do."""
    table = Table("rows", "engine", "rows/s", "nothing to do, of the time it was up", "must stay below", "")
    for rows, arms in figure["runs"].items():
        for arm, done in arms.items():
            share = median(each["idle_share"] for each in done)
            apart = arm == "own process"
            table.add(
                f"{int(rows):,}",
                f"in {'its ' if apart else ''}{arm}",
                spread([int(rows) / each["running"] for each in done], 0),
                spread([100 * each["idle_share"] for each in done], 1, "%"),
                "2%" if apart else "",
                verdict(0.02, share) if apart else "",
            )
    return (
        f"## Idle engines\n\n{figure['title']}: whole commands, in turns. An engine that is up has nothing to do while rows are "
        "read, planned, handed over and judged, as far as that is not done beside it, and at the end. Made by "
        "`eval/bench/idle.py`.\n\n"
        f"{table}"
    )


def peers_text(results: Mapping[str, Any]) -> str:
    shape = results["shapes"].get("neutral")
    peers = (
        ("run_batch", 1.3, 3.0), ("ray_data", 1.3, 3.0), ("datatrove", None, None), ("daft", None, None), ("generate", None, None),
    )  # fmt: skip
    not_run = [f"- {results['arms'][arm]} was not run: {why}\n" for arm, why in results.get("not_run", {}).items()]
    if shape is None or not any(ratios(shape, arm) for arm, *_ in peers):
        return ""
    table = Table("llmbatch against", "start-up left out", "must reach", "", "start-up counted", "must reach", "")
    for arm, wanted, wanted_counted in peers:
        left_out = ratios(shape, arm)
        if not left_out:
            continue
        pairs = zip(with_start_up(shape, arm), with_start_up(shape, "ours"), strict=True)
        counted = [theirs / ours for theirs, ours in pairs]
        table.add(
            results["arms"][arm],
            times(left_out),
            f"{wanted}x" if wanted else "",
            verdict(median(left_out), wanted) if wanted else "",
            times(counted),
            f"{wanted_counted}x" if wanted_counted else "",
            verdict(median(counted), wanted_counted) if wanted_counted else "",
        )
    return (
        "## Other peers, neutral shape\n\n" + str(table) + "\n"
        "A start-up lasts from the start of the process until its first eight answers are on disk; whatever earlier starts had "
        "compiled was there to be found, for every arm. run-batch is run by the "
        "functions of its own command, with the engine kept up between repetitions, so that its start-up can be told apart. Ray "
        "Data LLM starts an engine for every pipeline; its time without start-up is that from its first request to its last file, "
        "which leaves its reading and tokenizing out as well, and whether "
        "other work disturbed it is not metered, as its processes come and go. datatrove's runner asks a `vllm serve` that is "
        "started for it with the same engine settings, and is kept up. Daft starts its engine for every query; its time without "
        "start-up is that from when its engine was there. transformers "
        "runs in batches of 128 in input order, padded on the left, in the model's own float32.\n"
        + ("\n" + "".join(not_run) if not_run else "")
    )


def pipeline_text(figures: Mapping[str, Any]) -> str:
    table = Table("figure", "must reach", "measured", "")

    def add(name: str, wanted: str, seen: str, reached: bool | None = None) -> None:
        table.add(name, wanted, seen, "" if reached is None else verdict(float(reached), 1))

    for key, name, wanted in (
        ("throughput", "rows/s without tokenization", 25_000),
        ("throughput_with_tokenizer", "rows/s with the demo model's template and tokenizer", None),
    ):
        if figure := figures.get(key):
            rate = figure["rows_per_second"]
            seen = spread(figure["all_rows_per_second"], 0)
            add(
                f"{name}, {figure['rows']:,} rows",
                f"{wanted:,}" if wanted else "",
                seen,
                rate >= wanted if wanted else None,
            )
    if figure := figures.get("million"):
        rows = f"{figure['rows']:,} rows"
        add(f"rows/s over {rows}", "", f"{figure['rows_per_second']:,.0f}")
        peak = figure["rss_peak_mib"]
        add(f"peak memory (RSS), {rows}, without torch", "400 MB", f"{peak * 1.048576:,.0f} MB", peak * 1.048576 <= 400)
        slope = figure["rss_slope_mib_per_million_rows"]
        half = figure.get("rss_slope_of_the_second_half")
        add("its slope by least squares, after a fifth of the run", "flat", f"{slope:+.1f} MiB for a million rows")
        if half is not None:
            add("its slope in the second half", "flat", f"{half:+.1f} MiB for a million rows")
        start = figure["resumed_first_answer_seconds"]
        add(f"resumed after {rows}: from process start to the first new answer", "3 s", f"{start:.2f} s", start <= 3)
    if figure := figures.get("help"):
        add("`llmbatch --help`", "", f"{figure['seconds']:.2f} s")
    if figure := figures.get("render"):
        add(f"`llmbatch render`, {figure['rows']:,} rows", "", f"{figure['rows_per_second']:,.0f} rows/s")
        add("its peak memory (RSS)", "", f"{figure['rss_peak_mib'] * 1.048576:,.0f} MB")
    return (
        "## The pipeline without a model\n\nThe scripted engine answers at once, so this is llmbatch's own work: reading, "
        "prompts, plan, checks, journal, parts, results. One process on one core, from its start of the run to `results.jsonl`.\n\n"
        + str(table)
        + (workers_text(figures["workers"]) if "workers" in figures else "")
    )


def workers_text(figure: Mapping[str, Any]) -> str:
    """The same with ``run.workers``."""
    cores = figure["cores"]
    table = Table("", f"rows/s on {cores} cores", "peak memory of all processes")
    takes = []
    for name in ("without tokenization", "with the tokenizer"):
        runs = figure[name]
        for count in ("0", "1", "2"):
            memory = f"{runs[count]['rss_peak_mib'] * 1.048576:,.0f} MB"
            table.add(f"{name}, `run.workers` {count}", spread(runs[count]["all_rows_per_second"], 0), memory)
        each, more = runs["microseconds_a_row"], runs["by_arithmetic"]
        takes.append(
            f"{name.capitalize()} a row takes {each['driver']:.1f} us of the process that drives the engine and "
            f"{each['workers']:.1f} us of its workers: by arithmetic, not measured, {more['4']:,.0f} rows/s on 4 cores and "
            f"{more['8']:,.0f} on 8"
        )
    reached = figure["without tokenization"]["by_arithmetic"]["4"]
    return (
        f"\n### Row workers\n\n{table}\n{'. '.join(takes)}. Must reach 60,000 on 4 cores without tokenization: "
        f"{verdict(reached, 60_000)}. Rates and times are differences between {figure['rows']:,} rows and a third of them, so that "
        "the start of processes is left out.\n"
    )


def against_text(figures: Mapping[str, Any]) -> str:
    """The pipeline against that of older commits."""
    table = Table("commit", "", "rows/s then", "rows/s now", "now against then")
    for commit, found in figures.items():
        for name, arm in found["arms"].items():
            ratios_ = [now / then for then, now in zip(arm["then"], arm["now"], strict=True)]
            table.add(
                f"{commit} ({found['subject']})", name, spread(arm["then"], 0), spread(arm["now"], 0), times(ratios_)
            )
    return (
        f"### Against older commits\n\n{table}\nIn turns in one run, each side by its own `pipeline.py` on one core, with the "
        "libraries of now. Made by `eval/bench/against.py`.\n"
    )


def start_text(figure: Mapping[str, Any]) -> str:
    """Whole commands on a few rows, from the start of their process to its end."""
    rounds, titles = figure["rounds"], figure["titles"]
    first, *_ = titles
    table = Table("command", "seconds", "first answer on disk after", "llmbatch against it", "equal answers")
    for name, title in titles.items():
        against = [done[name]["seconds"] / done[first]["seconds"] for done in rounds]
        table.add(
            title,
            spread([done[name]["seconds"] for done in rounds]),
            spread([done[name]["first"] for done in rounds], unit=" s"),
            "" if name == first else times(against),
            "" if name == first else f"{figure['equal'][name]:,} of {figure['rows']:,}",
        )
    return (
        f"## Whole commands on {figure['rows']:,} rows\n\n{table}\n"
        "From the start of a process to its end, on a machine where earlier ones left what they compiled and read. The commands "
        "take turns. Made by `eval/bench/start.py`.\n"
    )


def simulation_text(path: Path) -> str:
    if not path.exists():
        return ""
    data = json.loads(path.read_text(encoding="utf-8"))
    table = Table("input order", "sent in", "hit rate", "prompt tokens computed", "steps", "modelled hours")
    for arm in data["arms"]:
        computed = arm["prompt_tokens"] - arm["hit_tokens"]
        rate = arm["hit_tokens"] / arm["prompt_tokens"]
        hours = arm["modelled_seconds"] / 3600
        table.add(arm["input"], arm["sent"], f"{rate:.1%}", f"{computed:,}", f"{arm['steps']:,}", f"{hours:.2f}")
    return (
        "## GPU scale: a simulation\n\n**No model ran.** vLLM's real scheduler and KV-cache manager with a stand-in for the model "
        f"runner, at the cache size of an 8B model on an H200 ({data['kv_cache_tokens']:,} tokens): hit rates and steps are exact, "
        "hours come from a roofline model. Made by `eval/bench/simulate_gpu.py`.\n\n" + str(table)
    )


def corpus_text(path: Path) -> str:
    """What ``corpus.py`` found."""
    if not path.exists():
        return ""
    found = json.loads(path.read_text(encoding="utf-8"))
    by_part = {
        part: sorted((each for key, each in found.items() if key.startswith(f"{part} ")), key=lambda each: each["rows"])
        for part in ("hits", "real", "scale")
    }
    sections = [
        "## An order for the whole corpus\n\nShuffled corpora whose rows share documents, eight rows a document; texts are what "
        f"{found['texts']} ship. Made by `eval/bench/corpus.py`.\n"
    ]
    if by_part["hits"]:
        table = Table("rows", "order", "prompt tokens from the cache", "of what is possible", "must reach", "")
        for each in by_part["hits"]:
            for arm, hit in each["arms"].items():
                wanted = arm == "corpus"
                verdict_ = verdict(hit["of_possible"], 0.95) if wanted else ""
                table.add(
                    f"{each['rows']:,}",
                    arm,
                    f"{hit['hit_rate']:.2%}",
                    f"{hit['of_possible']:.1%}",
                    "95%" if wanted else "",
                    verdict_,
                )
        sections.append(
            "**A simulation**: vLLM's real scheduler and KV-cache manager at the cache of an 8B model on an H200, no model. "
            f"*Possible* is what a cache without limit would spare in any order.\n\n{table}"
        )
    for each in by_part["real"]:
        runs = each["runs"]
        table = Table("order", "seconds", "prompt tokens from the cache", "the pass ahead, of the run")
        for order, done in runs.items():
            share = f"{median(each['pass_share']):.1%}" if order == "corpus" else ""
            table.add(
                order,
                spread([run["seconds"] for run in done], 1),
                f"{median(run['hit_rate'] for run in done):.1%}",
                share,
            )
        share = median(each["pass_share"])
        sections.append(
            f"**vLLM with the demo model**, a KV cache of 32 MiB, {each['rows']:,} rows about {each['groups']:,} documents, "
            f"windows of {each['window']:,} rows; the orders take turns.\n\n{table}\nThe corpus order is "
            f"{times(each['times_as_fast'])} as fast as windows; the pass must take under 5%: "
            f"{'reached' if share < 0.05 else '**not reached**'}. {each['equal_answers']:,} of {each['rows']:,} answers are equal: "
            "in 16-bit numbers an answer may depend on what is computed beside it.\n"
        )
    if by_part["scale"]:
        table = Table(
            "rows",
            "input",
            "order",
            "rows/s",
            "the pass ahead",
            "peak memory of all processes (PSS)",
            "must stay below",
            "",
        )
        for each in by_part["scale"]:
            for order, done in each["runs"].items():
                mib = max(run["peak_mib"] for run in done)
                rates = [run["rows"] / run["seconds"] for run in done]
                passes = "" if order == "window" else spread([run["pass_seconds"] for run in done], 0, " s")
                size, peak = f"{each['bytes'] / 1e6:,.0f} MB", f"{mib * 1.048576:,.0f} MB"
                seen = verdict(600, mib * 1.048576)
                table.add(f"{each['rows']:,}", size, order, spread(rates, 0), passes, peak, "600 MB", seen)
        sections.append(f"**The scripted engine**, which answers at once, whole runs on all cores.\n\n{table}")
    return "\n".join(sections)


def autotune_text(path: Path) -> str:
    """What ``autotune.py`` found."""
    if not path.exists():
        return ""
    found = json.loads(path.read_text(encoding="utf-8"))
    sections = [
        "## Autotune\n\nA job is tuned on its own rows; then it runs untuned and tuned in turns, each time as a command with a "
        "new engine. Bounds hold in 95 of 100 cases. Made by `eval/bench/autotune.py`.\n"
    ]
    for shape, each in found.items():
        if shape == "machine":
            continue
        tuner, (without, with_) = each["tuner"], (_bounds(each[name]) for name in ("ratio", "ratio_with_start_up"))
        table = Table("tried", "times as fast", "rounds", "answers as untuned", "what became of it")
        for tried in tuner["tried"]:
            agreement = tried["agreement"]
            table.add(
                tried["name"],
                _bounds(tried["ratio"]),
                str(len(tried["rounds"]) or ""),
                "" if agreement is None or tried["exact"] else f"{agreement['equal']:,} of {agreement['compared']:,}",
                tried["verdict"]
                + (f": {tried['reason']}" if tried["verdict"] in ("left out", "failed", "refused") else ""),
            )
        chosen = "kept what was set" if tuner["chosen"] == "default" else f"chose {tuner['chosen']}"
        allowed = "no other answers" if tuner["tolerance"] is None else f"a tolerance of {tuner['tolerance']}"
        sections.append(
            f"**{each['title']}**, {each['rows']:,} rows, {allowed}: in {tuner['seconds']:.0f} of {tuner['budget_seconds']:.0f} s "
            f"the tuner {chosen}. The job is then {without} as fast with start-up left out, {with_} with it counted; "
            f"{each['equal']['equal']:,} of {each['equal']['rows']:,} answers are equal.\n\n{table}"
        )
    return "\n".join(sections)


def _bounds(ratio: Mapping[str, float] | None) -> str:
    return "" if ratio is None else f"{ratio['expected']:.2f}x ({ratio['low']:.2f} to {ratio['high']:.2f})"


def plot(results: Mapping[str, Any]) -> str:
    """Bars of the speed-up over ``LLM.chat`` for each shape, with its spread, and a mark at what must be reached."""
    shapes = [(s, ratios(s, "chat"), ratios(s, "tuned")) for s in results["shapes"].values() if ratios(s, "chat")]
    left, width, row, top = 300, 400, 46, 34
    most = max([1.5, *(max([s["must_reach"], *chat, *tuned]) for s, chat, tuned in shapes)]) * 1.05
    height = top + row * len(shapes) + 30

    def x(value: float) -> float:
        return float(left + width * value / most)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 90} {height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{left + width + 90}" height="{height}" fill="white"/>',
        f'<text x="{left}" y="20" font-weight="bold">times as fast as LLM.chat(list)</text>',
    ]
    for tick in range(int(most) + 1):
        colour = "#888" if tick == 1 else "#ddd"
        parts.append(f'<line x1="{x(tick):.1f}" y1="{top}" x2="{x(tick):.1f}" y2="{height - 24}" stroke="{colour}"/>')
        parts.append(f'<text x="{x(tick):.1f}" y="{height - 8}" text-anchor="middle" fill="#555">{tick}x</text>')
    for number, (shape, chat, tuned) in enumerate(shapes):
        y = top + row * number + 6
        parts.append(f'<text x="{left - 10}" y="{y + 19}" text-anchor="end">{escape(shape["title"])}</text>')
        parts += _bar(left, x, y, chat, "#2a6fbb", 17)
        parts += _bar(left, x, y + 19, tuned, "#a9c7e8", 9)
        goal = x(shape["must_reach"])
        parts.append(
            f'<line x1="{goal:.1f}" y1="{y - 4}" x2="{goal:.1f}" y2="{y + 32}" stroke="#c0392b" stroke-width="2"/>'
        )
    parts.append(
        f'<text x="{left + 230}" y="20" fill="#555">dark: its defaults; pale: tuned; red: must be reached</text></svg>'
    )
    return "\n".join(parts) + "\n"


def _bar(left: float, x: Any, y: float, values: Sequence[float], colour: str, thickness: int) -> Iterable[str]:
    if not values:
        return []
    middle, low, high = median(values), min(values), max(values)
    centre = y + thickness / 2
    return [
        f'<rect x="{left}" y="{y}" width="{x(middle) - left:.1f}" height="{thickness}" fill="{colour}"/>',
        f'<line x1="{x(low):.1f}" y1="{centre}" x2="{x(high):.1f}" y2="{centre}" stroke="black"/>',
        f'<text x="{x(high) + 6:.1f}" y="{centre + 4}" font-size="{min(13, thickness + 2)}">{middle:.2f}x</text>',
    ]


def report(results: Mapping[str, Any], folder: Path) -> str:
    sections = [INTRO]
    figures = [figure for part in ("shapes", "pipeline", "start") for figure in results.get(part, {}).values()]
    if any(figure["forced"] and not figure["quiet"] for figure in figures):
        sections.append(BUSY)
    if any(figure["scale"] != 1 for figure in figures):
        sections.append("> **A trial run with fewer rows (`--scale`).**\n")
    sections.append(machine_text(results["machine"]))
    if results.get("shapes"):
        sections += [shapes_text(results), hits_text(results), peers_text(results), seconds_text(results)]
    if "idle" in results:
        sections.append(idle_text(results["idle"]["idle"]))
    if results.get("pipeline"):
        sections.append(pipeline_text(results["pipeline"]))
    if "against" in results:
        sections.append(against_text(results["against"]))
    if "start" in results:
        sections.append(start_text(results["start"]["start"]))
    sections.append(autotune_text(folder / "autotune.json"))
    sections.append(corpus_text(folder / "corpus.json"))
    sections.append(simulation_text(folder / "simulation.json"))
    return "\n".join(section for section in sections if section)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE / "results.json")
    parser.add_argument("--output", type=Path, default=HERE, help="the folder of RESULTS.md and speedup.svg")
    options = parser.parse_args()
    results = json.loads(options.results.read_text(encoding="utf-8"))
    (options.output / "RESULTS.md").write_text(report(results, HERE), encoding="utf-8")
    if results.get("shapes"):
        (options.output / "speedup.svg").write_text(plot(results), encoding="utf-8")


if __name__ == "__main__":
    main()
