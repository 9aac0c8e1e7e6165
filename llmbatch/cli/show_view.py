"""All that is known of a row in; what a person sees of it on a terminal out."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.highlighter import JSONHighlighter
from rich.text import Text

from llmbatch.core import words
from llmbatch.core.styles import STYLES
from llmbatch.core.types import Failure, Prompt, Record
from llmbatch.runs.shown import Shown

_JSON = JSONHighlighter()


def print_shown(console: Console, shown: Shown) -> None:
    """Print all that is known of a row. What comes from outside cannot drive the terminal."""
    record = shown.record
    where = f", {shown.place}" if shown.place else ""
    _heading(console, f"row {record.id} (index {record.index}{where}): {record.status}", STYLES[record.status])
    if shown.row is not None:
        _heading(console, "input")
        _value(console, dict(shown.row.data))
    if shown.prompt is not None:
        _print_prompt(console, shown.prompt)
    if shown.problem and (record.failure is None or shown.problem != record.failure.message):
        _heading(console, "the prompt cannot be shown", "yellow")
        _text(console, shown.problem)
    for attempt in record.history:
        key = attempt.key
        step = f", step {key.step}" if key.step else ""
        sample = f", sample {key.sample}" if key.sample else ""
        _heading(console, f"attempt {key.attempt}{step}{sample}, sent back: {attempt.failure.kind}", "yellow")
        _text(console, attempt.text or "")
        _reason(console, attempt.failure)
    for name, value in (record.details or {}).items():
        _print_detail(console, name, value)
    _print_result(console, record)


def _print_prompt(console: Console, prompt: Prompt) -> None:
    for message in prompt.messages or ():
        _heading(console, f"prompt: {message.get('role')}")
        _value(console, message.get("content"))
    if prompt.text is not None:
        _heading(console, "prompt")
        _text(console, prompt.text)
    if prompt.prefill:
        _heading(console, "start of the answer")
        _text(console, prompt.prefill)


def _print_detail(console: Console, name: str, value: Any) -> None:
    """What a program says of how it came to its output; of a list, such as that of its steps, each item by itself."""
    if not (isinstance(value, list) and any(isinstance(item, dict) for item in value)):
        _heading(console, name)
        _value(console, value)
        return
    each = name.removesuffix("s")
    for number, item in enumerate(value):
        said = item if isinstance(item, dict) else {"output": item}
        short = {
            k: v for k, v in said.items() if k not in ("output", "item", each) and isinstance(v, str | int | float)
        }
        facts = [f"{key} {inner}" for key, inner in short.items()]
        _heading(console, ", ".join([f"{each} {said.get(each, number)}", *facts]), "red" if "error" in said else "cyan")
        for key, inner in said.items():
            if key == "output":
                _value(console, inner)
            elif key not in short and key != each:
                _text(console, f"{key}: {_written(inner)}", "yellow" if key == "error" else "dim")


def _value(console: Console, value: Any) -> None:
    """A text as it is; anything else as JSON, with its keys and values in colours."""
    text = Text(words.printable(_written(value)))
    if not isinstance(value, str):
        _JSON.highlight(text)
    console.print(text, soft_wrap=True)


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)


def _print_result(console: Console, record: Record) -> None:
    if record.reasoning:
        _heading(console, "reasoning")
        _value(console, record.reasoning)
    if record.failure is not None:
        _heading(console, f"result: {record.failure.kind}", "red")
        if record.raw is not None:
            _text(console, record.raw)
        _reason(console, record.failure)
    else:
        _heading(console, "result", "green")
        if record.output is not None or not record.tool_calls:
            _value(console, record.output)
        if record.tool_calls:
            _value(console, record.tool_calls)
    usage = record.usage
    _text(
        console,
        f"{record.attempts} attempts, {usage.prompt_tokens} prompt tokens ({usage.cached_tokens} cached), "
        f"{usage.completion_tokens} completion tokens",
        "dim",
    )


def _heading(console: Console, text: str, style: str = "cyan") -> None:
    _text(console, "")
    _text(console, words.one_line(text), f"bold {style}")


def _reason(console: Console, failure: Failure) -> None:
    _text(console, f"why: {failure.message}", "yellow")


def _text(console: Console, text: str, style: str = "") -> None:
    """Outside text: no markup is read in it, and no control character gets through."""
    console.print(Text(words.printable(text), style=style), soft_wrap=True)
