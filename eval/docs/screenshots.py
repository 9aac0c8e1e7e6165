"""Runs and evaluations on the scripted engine, made up so that there is something to see, in; the pictures of ``docs/images`` out.

    python eval/docs/screenshots.py [--only report-dark,...] [--keep FOLDER]

It takes a minute, the extras of ``dev`` and a Chromium. One picture is not made here: ``notebook.webp`` is of JupyterLab.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from PIL import Image
from pypdfium2 import PdfDocument
from server_screenshot import page_of_a_server

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
WIDTH = 1000
SCALE = 1.25

PLACES = (
    "the harbour", "the night train", "an orchard", "the census", "a lighthouse", "two brothers", "a grain market", "the old mill",
)  # fmt: skip
PARTS = (
    "The houses stood close to the water, and each family kept its own boat.",
    "Nobody remembered who had built the wall, though everybody had climbed it.",
    "In the second winter the price of bread doubled, and people began to leave.",
    "My grandmother spoke of it as one speaks of a cousin who went to sea.",
    "Letters took nine days, and an answer nine more.",
    "On market days the square was so full that the bell could not be heard.",
    "The ledger lists eleven names, three of them in a different hand.",
)  # fmt: skip
INSTRUCTION = (
    "Sum up this account, and say how many people are in it ({{ number }}) and what its mood is.\n\n{{ text }}"
)
SCHEMA = {
    "type": "object",
    "properties": {"summary": {"type": "string"}, "people": {"type": "integer"}, "mood": {"enum": ["calm", "tense"]}},
    "required": ["summary", "people", "mood"],
}
GOOD = '{"summary": "A short account of a place and of those who lived there.", "people": 2, "mood": "calm"}'
WORDS = GOOD.replace("2,", '"two",')
SHORT = GOOD.replace("2,", '"two or three",').replace(" and of those who lived there", "")
ACCOUNTS = 3000
RULES = [
    {
        "when": {"contains": "old mill", "attempt": 1, "matches": "eleven names.*nine more"},
        "answer": 'Here: {"summary": "A mi',
    },
    {"when": {"contains": "grain market", "matches": "(in words)[^$]*boat.*bread"}, "answer": WORDS},
    {"when": {"contains": "orchard", "matches": "wall.*days", "attempt": 1}, "answer": SHORT},
    {
        "when": {"contains": "census", "matches": "bell.*boat.*ledger.*sea"},
        "answer": '{"summary": "On and on',
        "finish_reason": "length",
    },
    {
        "when": {"matches": "lighthouse.*cousin.*ledger.*boat.*wall"},
        "fail": "the server refused the request: content policy",
    },
    {"answer": GOOD},
]
TASKS = {"capitals": 0.06, "arithmetic": 0.37, "spelling": 0.24}
MODELS = {"small": 0.38, "large": 0.24, "large-int4": 0.27}
CATEGORIES = ("small sums", "carrying", "large sums", "word problems")


def accounts(draw: random.Random) -> Iterator[str]:
    """Lines of JSON, one of which is none."""
    for at in range(ACCOUNTS):
        text = " ".join(draw.choice(PARTS) for _ in range(min(40, 1 + int(draw.lognormvariate(1.4, 0.7)))))
        row = {"id": f"doc-{at:04d}", "text": f"About {draw.choice(PLACES)}. {text}"}
        yield "{not json" if at == 1500 else json.dumps(row)


def run_of_two_sessions() -> None:
    """A sweep on three engines, two of which die, killed by its machine half-way and gone on with: ``accounts-run``."""
    draw = random.Random(3)
    Path("accounts.jsonl").write_text("".join(f"{line}\n" for line in accounts(draw)), encoding="utf-8")
    script = {"latency": 0.9, "jitter": 0.6, "concurrency": 96, "rules": RULES, "die_after": [700]}
    Path("script.yaml").write_text(yaml.safe_dump(script), encoding="utf-8")
    job = {
        "model": "any", "prompt": INSTRUCTION, "input": "accounts.jsonl",
        "engine": {"name": "scripted", "script": "script.yaml", "replicas": 3},
        "answer": {"schema": SCHEMA, "constrained": False}, "retry": {"max_attempts": 2, "feedback": False},
        "sweep": {"prompt.variables.number": ["in words or digits", "as digits"]}, "sampling": {"temperature": 0},
        "run": {"window": 500, "price_per_million": "0.5,1.5", "price_per_gpu_hour": 2.0},
    }  # fmt: skip
    Path("job.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
    command = ("run", "job.yaml", "--output", "accounts-run", "--quiet")  # so is the folder called in the page
    llmbatch(*command, fault="part-sealed:6")
    llmbatch(*command)


def evaluations() -> None:
    """One task by three models, below ``sums``, and their comparison; a group of three tasks by one model: ``basics``."""
    draw = random.Random(5)
    for model, wrong in MODELS.items():
        scored(draw, "sums", wrong, "--output", f"sums/{model}")
    llmbatch("compare", *(f"sums/{model}" for model in MODELS), "--html", "compare.html")
    for name in TASKS:
        task_of(name)
    Path("basics.yaml").write_text(
        yaml.safe_dump({"name": "basics", "tasks": [f"./{name}.yaml" for name in TASKS]}), encoding="utf-8"
    )
    rules = [rule for name, wrong in TASKS.items() for rule in answers(draw, name, wrong)]
    Path("basics-script.yaml").write_text(yaml.safe_dump({"rules": rules}), encoding="utf-8")
    llmbatch(
        "eval", "basics.yaml", "--model", "small", "--engine", "scripted", "--set", "engine.script=basics-script.yaml",
        "--output", "basics", "--quiet",
    )  # fmt: skip


def scored(draw: random.Random, name: str, wrong: float, *arguments: str) -> None:
    task_of(name)
    Path("script.yaml").write_text(yaml.safe_dump({"rules": answers(draw, name, wrong)}), encoding="utf-8")
    llmbatch(
        "eval", f"{name}.yaml", "--model", arguments[-1].rpartition("/")[2], "--engine", "scripted", "--set",
        "engine.script=script.yaml", "--quiet", *arguments,
    )  # fmt: skip


def task_of(name: str) -> None:
    """A task's file and rows."""
    rows = [
        {"id": f"q{n}", "question": f"{name}: what is {n} + {3 * n}?", "answer": str(4 * n), "topic": CATEGORIES[n % 4]}
        for n in range(400)
    ]
    Path(f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    task = {
        "name": name, "dataset": {"path": f"./{name}.jsonl"}, "prompt": "{{ question }} The number alone.",
        "references": "answer", "metrics": ["exact_match", "chrf"], "category": "topic",
    }  # fmt: skip
    Path(f"{name}.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")


def answers(draw: random.Random, name: str, wrong: float) -> list[dict[str, Any]]:
    """Rules by which so many of a task's answers are wrong."""
    harder = [0.6, 0.87, 1.13, 1.4]  # by category
    return [
        {"when": {"index": n, "contains": f"{name}:"}, "answer": str(4 * n + (draw.random() < wrong * harder[n % 4]))}
        for n in range(400)
    ]


def llmbatch(*arguments: str, fault: str = "") -> None:
    """A command, to its end or to where a fault kills it. It may end with 3: some rows are not ok."""
    environment = {**os.environ, **({"LLMBATCH_FAULT": fault} if fault else {})}
    done = subprocess.run([sys.executable, "-m", "llmbatch.cli", *arguments], env=environment, check=False)
    if done.returncode not in ((-9,) if fault else (0, 3)):
        raise SystemExit(f"llmbatch {' '.join(arguments)}: exit code {done.returncode}")


def save(picture: bytes, name: str) -> None:
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    path = IMAGES / f"{name}.webp"
    image.save(path, "WEBP", quality=80, method=6)
    print(f"{path.name}: {image.width} x {image.height}, {path.stat().st_size // 1024} KiB")


@contextlib.contextmanager
def opened(browser: Any, path: str, scheme: str = "light") -> Iterator[Any]:
    context = browser.new_context(
        viewport={"width": WIDTH, "height": 900}, color_scheme=scheme, device_scale_factor=SCALE
    )
    page = context.new_page()
    page.goto(Path(path).resolve().as_uri())
    yield page
    context.close()


def top(page: Any, height: int) -> bytes:
    picture: bytes = page.screenshot(clip={"x": 0, "y": 0, "width": WIDTH, "height": height}, full_page=True)
    return picture


def part(page: Any, selector: str) -> bytes:
    box = page.locator(selector).bounding_box()
    clip = {"x": 0, "y": box["y"] - 20, "width": WIDTH, "height": box["height"] + 20}
    picture: bytes = page.screenshot(clip=clip, full_page=True)
    return picture


def light(browser: Any) -> bytes:
    with opened(browser, "accounts-run/report.html") as page:
        return top(page, 1000)


def dark(browser: Any) -> bytes:
    with opened(browser, "accounts-run/report.html", "dark") as page:
        return part(page, "#time")


def record(browser: Any) -> bytes:
    """A record that was sent back once, as it differs from the answer before."""
    with opened(browser, "accounts-run/report.html") as page:
        page.locator("#kind").select_option("schema")
        page.locator("#status").select_option("ok")
        page.locator("#rows button").nth(1).click()
        picture: bytes = page.screenshot()
        return picture


def group(browser: Any) -> bytes:
    with opened(browser, "basics/report.html") as page:
        picture: bytes = page.screenshot(full_page=True)
        return picture


def settings(browser: Any) -> bytes:
    with opened(browser, "accounts-run/report.html") as page:
        return part(page, "#settings")


def comparison(browser: Any) -> bytes:
    with opened(browser, "compare.html") as page:
        return top(page, 1000)


def printed(browser: Any) -> bytes:
    """The first two pages on paper, side by side, as a printer gets them."""
    with opened(browser, "accounts-run/report.html", "dark") as page:
        document = PdfDocument(page.pdf(format="A4", print_background=True))
    sheets = [document[number].render(scale=1.1).to_pil() for number in range(2)]
    both = Image.new("RGB", (sum(sheet.width for sheet in sheets) + 20, sheets[0].height), "#888")
    for number, sheet in enumerate(sheets):
        both.paste(sheet, (number * (sheet.width + 20), 0))
    out = io.BytesIO()
    both.save(out, "PNG")
    return out.getvalue()


PICTURES: dict[str, Callable[[Any], bytes]] = {
    "report-light": light, "report-dark": dark, "report-record": record, "report-group": group, "report-compare": comparison,
    "report-settings": settings, "report-print": printed, "server": page_of_a_server,
}  # fmt: skip


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PICTURES), help="which pictures")
    parser.add_argument(
        "--keep", type=Path, help="where the runs are, or are put: taken anew only where there are none"
    )
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(contextlib.chdir(folder))
        if not Path("accounts-run/report.html").exists():
            run_of_two_sessions()
        if not Path("compare.html").exists():
            evaluations()
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name in options.only.split(","):
            save(PICTURES[name](browser), name)
        browser.close()


if __name__ == "__main__":
    main()
