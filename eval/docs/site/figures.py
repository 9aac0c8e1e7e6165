"""What ``eval`` measured in; pictures and tables of the site out, drawn when it is built.

python eval/docs/site/figures.py     # writes docs/rooms.svg, the picture of the rooms that README and the site show
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from llmbatch.core.words import clip

ROOT = Path(__file__).resolve().parents[3]
ROOMS = ROOT / "docs" / "rooms.svg"
_WIDTH = 760
_BLUE, _GREEN, _GREY = "#3a8fb7", "#2a9d55", "#8884"


class Bar(NamedTuple):
    label: str
    value: float
    said: str
    colour: str = _BLUE


def levels() -> list[list[str]]:
    """The rooms, level by level, as the test of the architecture holds them: each imports from those before it."""
    tree = ast.parse((ROOT / "tests" / "test_architecture.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "LEVELS":
            assert node.value is not None
            return [sorted(level) for level in ast.literal_eval(node.value)]
    raise LookupError("tests/test_architecture.py has no LEVELS")


def rooms_svg() -> str:
    """A box for each room, the lowest level at the bottom; a room imports from the levels below it alone."""
    found = levels()
    height, gap, top = 30, 12, 34
    total = top + len(found) * (height + gap)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {total}" font-family="sans-serif" font-size="13">',
        "<title>The rooms of llmbatch, level by level</title>",
        f'<rect width="{_WIDTH}" height="{total}" fill="white"/>',
        f'<text x="{_WIDTH / 2}" y="20" text-anchor="middle" fill="#555">a room imports only from the levels below it</text>',
    ]
    for number, level in enumerate(reversed(found)):
        y = top + number * (height + gap)
        width = min(118.0, (_WIDTH - 20 - 8 * (len(level) - 1)) / len(level))
        left = (_WIDTH - len(level) * width - 8 * (len(level) - 1)) / 2
        shade = f"hsl(202,55%,{93 - 3 * (len(found) - 1 - number)}%)"
        for at, room in enumerate(level):
            x = left + at * (width + 8)
            lines.append(
                f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{height}" rx="6" fill="{shade}" stroke="#3a8fb7"/>'
            )
            lines.append(
                f'<text x="{x + width / 2:.1f}" y="{y + 20}" text-anchor="middle" fill="#123">{escape(room)}</text>'
            )
    return "\n".join([*lines, "</svg>"]) + "\n"


def rooms() -> str:
    return rooms_svg()


def bars(title: str, rows: Sequence[Bar], unit: str = "") -> str:
    """A plot with a bar for each row; its figure and how far apart it was stand behind it."""
    left, right, line = 310, 190, 24
    most = max([row.value for row in rows] or [1]) or 1
    height = line * (len(rows) + 1) + 8
    lines = [
        f'<svg role="img" viewBox="0 0 {_WIDTH} {height}" width="100%" font-size="13" fill="currentColor" font-family="inherit">',
        f"<title>{escape(title)}</title>",
        f'<text x="0" y="16" font-weight="bold">{escape(title)}{f" ({escape(unit)})" if unit else ""}</text>',
    ]
    for number, row in enumerate(rows, 1):
        y = line * number + 4
        width = (_WIDTH - left - right) * row.value / most
        lines.append(f'<text x="{left - 10}" y="{y + 12}" text-anchor="end">{escape(clip(row.label, 40))}</text>')
        lines.append(f'<rect x="{left}" y="{y}" width="{max(width, 1):.1f}" height="15" rx="3" fill="{row.colour}"/>')
        lines.append(f'<text x="{left + width + 8:.1f}" y="{y + 12}">{escape(row.said)}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def performance() -> str:
    """Plots of ``eval/bench/results.json``, and of the simulation where it is there."""
    results = _read("bench/results.json")
    shapes = results["shapes"].values()
    ahead = [
        Bar(shape["title"], median(found), _spread(found, "x"), _GREEN)
        for shape in shapes
        if (found := _ratios(shape, "chat"))
    ]
    peers = [
        Bar(results["arms"][arm], median(found), _spread(found, "x"), _GREEN)
        for arm in results["arms"]
        if arm not in ("ours", "chat", "tuned") and (found := _ratios(results["shapes"].get("neutral", {}), arm))
    ]
    rates = [
        Bar(shape["title"], median(found), f"{median(found):,.0f}")
        for shape in shapes
        if (found := [shape["rows"] / each["ours"]["seconds"] for each in shape["rounds"] if "ours" in each])
    ]
    parts = [
        f"Measured on {_machine(results['machine'])}, from the input file to an output file on disk; the least and the greatest "
        "round in brackets."
    ]
    for title, rows, unit in (
        ("Times as fast as LLM.chat on the whole list", ahead, ""),
        ("Times as fast as others, short distinct rows, start-up left out", peers, ""),
        ("Rows a second of llmbatch", rates, "demo model of 0.86M parameters"),
        ("The pipeline without a model", _pipeline(results.get("pipeline", {})), "rows/s on one core"),
    ):
        if rows:
            parts += ["", bars(title, rows, unit)]
    if simulated := _simulation():
        parts += ["", simulated]
    return "\n".join(parts)


def reliability() -> str:
    """Of each kind of disturbance: how often, and what was lost; and how many claims about other systems were shown."""
    text = (ROOT / "eval" / "reliability" / "RESULTS.md").read_text(encoding="utf-8")
    done: list[Bar] = []
    counts: list[str] = []
    for line in text.splitlines():
        if re.match(r"\| [^|]+ \| \d+ \|", line):
            kind, often, _runs, *found = (cell.strip() for cell in line.split("|")[1:-1])
            counts = found if any(found) else counts  # several kinds that met the same runs have one account
            lost = counts != ["0"] * len(counts)
            done.append(Bar(kind, float(often), f"{often}: {_lost(counts)}", "#c8373a" if lost else _GREEN))
    claims = [claim for part in _read("systems/results.json").values() for claim in part]
    shown = Counter(claim["system"] for claim in claims if claim["passed"])
    every = Counter(claim["system"] for claim in claims)
    systems = [
        Bar(system, number, f"{shown[system]} of {number}", _GREEN if shown[system] == number else "#d9a400")
        for system, number in sorted(every.items())
    ]
    return "\n".join(
        [
            bars("Disturbances of runs, and what they cost", done),
            "",
            bars("Claims about other systems that were shown", systems),
        ]
    )


def _lost(counts: Sequence[str]) -> str:
    lost, doubled, other = counts
    return (
        "nothing lost"
        if (lost, doubled, other) == ("0", "0", "0")
        else f"{lost} lost, {doubled} doubled, {other} otherwise"
    )


def _pipeline(figures: Mapping[str, Any]) -> list[Bar]:
    named = {"throughput": "scripted engine, no tokenizer", "throughput_with_tokenizer": "with template and tokenizer"}
    return [
        Bar(name, figures[key]["rows_per_second"], f"{figures[key]['rows_per_second']:,.0f}")
        for key, name in named.items()
        if key in figures
    ]


def _simulation() -> str:
    path = ROOT / "eval" / "bench" / "simulation.json"
    if not path.exists():
        return ""
    arms = _read("bench/simulation.json")["arms"]
    rows = [
        Bar(
            f"{arm['input']}, {arm['sent']}",
            arm["hit_tokens"] / arm["prompt_tokens"],
            f"{arm['hit_tokens'] / arm['prompt_tokens']:.1%}",
        )
        for arm in arms
    ]
    return bars("Prefix cache hits at the size of a GPU: a simulation, no model ran", rows)


def _ratios(shape: Mapping[str, Any], arm: str) -> list[float]:
    """How many times as fast as that arm llmbatch was, round by round."""
    return [
        each[arm]["seconds"] / each["ours"]["seconds"]
        for each in shape.get("rounds", ())
        if arm in each and "ours" in each
    ]


def _spread(values: Sequence[float], unit: str) -> str:
    return f"{median(values):.2f}{unit} ({min(values):.2f} to {max(values):.2f})"


def _machine(machine: Mapping[str, Any]) -> str:
    return f"{machine['cpus']} processors ({machine['cpu']}), {machine['memory_gib']} GiB, without a GPU"


def _read(name: str) -> Any:
    return json.loads((ROOT / "eval" / name).read_text(encoding="utf-8"))


if __name__ == "__main__":
    ROOMS.write_text(rooms_svg(), encoding="utf-8")
