"""A report in, the summary that a person reads at the end of a run out."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from llmbatch.core import words
from llmbatch.core.styles import STYLES, note_text
from llmbatch.core.types import Status
from llmbatch.report.report import AcceptReport, CostReport, Report, SettingReport, Tokens

_SETTINGS_SHOWN = 20
_OUTCOME_STYLES = {"finished": "bold green", "stopped": "bold yellow", "broken": "bold red"}


def print_summary(console: Console, report: Report, command: str | None = None) -> None:
    """Print the summary. ``command`` is the command line that goes on with a run that is not finished."""
    for part in _parts(report):
        console.print(part)
    for line in _pasteable(report, command):
        console.print(line, soft_wrap=True)


def headline(report: Report) -> str:
    """The outcome in one sentence, and in another what the system whose files were laid out would call failed."""
    said = _outcome(report)
    layout = report.get("layout")
    if layout is None or layout["failure"] is None:
        return said
    return f"{said}; {layout['name']} would call this job failed: {layout['failure']}"


def _outcome(report: Report) -> str:
    rows = report["rows"]
    if (accept := report.get("accept")) is not None and accept["wanted"] is not None:
        return _accepted_headline(report, accept)
    bad = rows["done"] - rows["by_status"].get(Status.OK, 0)
    done = words.count(rows["done"])
    if report["outcome"] == "finished":
        return (
            f"finished: all {done} rows are ok"
            if not bad
            else f"finished: {words.count(bad)} of {done} rows are not ok"
        )
    of = f" of {words.count(rows['total'])}" if rows["total"] is not None else ""
    return f"{report['outcome']} after {done}{of} rows" + (f": {report['error']}" if report["error"] else "")


def _accepted_headline(report: Report, accept: AcceptReport) -> str:
    there, wanted = words.count(accept["accepted"]), words.count(accept["wanted"] or 0)
    candidates = words.count(accept["candidates"])
    if report["outcome"] != "finished":
        error = f": {report['error']}" if report["error"] else ""
        return f"{report['outcome']} with {there} of {wanted} rows accepted, of {candidates} candidates{error}"
    if report["exit_code"] == 0:
        return f"finished: {there} rows are accepted, of {candidates} candidates"
    return f"finished: the input ended after {candidates} candidates, with {there} of {wanted} rows accepted"


def next_steps(report: Report, command: str | None = None) -> list[str]:
    """What to type next, most useful first."""
    folder = report["folder"]
    if report["outcome"] != "finished":
        return [command or "the same command again goes on where this one stopped"]
    if not report["failures"]:
        return []
    row_id = next(iter(report["failures"].values()))["id"]
    return [shlex.join(["llmbatch", "show", folder, str(row_id)]), shlex.join(["llmbatch", "retry-failed", folder])]


def _parts(report: Report) -> Iterator[RenderableType]:
    style = _OUTCOME_STYLES[report["outcome"]]
    if report["exit_code"] == 3:  # finished, but not every row is ok
        style = "bold yellow"
    yield Text()
    yield Text(words.printable(headline(report)), style=style)
    for note in report["notes"]:
        if note["level"] != "info":
            yield note_text(note["level"], note["message"])
    yield Text()
    yield _rows(report)
    if report["failures"]:
        yield Text()
        yield _failures(report)
    if (accept := report.get("accept")) is not None:
        yield Text()
        yield _accepted(accept)
    if settings := report.get("settings"):
        yield Text()
        yield _settings(settings)
    if any(report["tokens"]["total"].values()):
        yield Text()
        yield _tokens(report)
    yield Text()
    yield _facts(report)


def _table(*headings: str) -> Table:
    """A table without lines: first column names, then numbers."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for place, heading in enumerate(headings):
        number = heading in {"rows", "share", "prompt", "cached", "completion"}
        table.add_column(heading, justify="right" if number and place else "left", no_wrap=number or not place)
    return table


def _rows(report: Report) -> RenderableType:
    table = _table("status", "rows", "share", "")
    rows = report["rows"]
    for status, number in rows["by_status"].items():
        if number:
            table.add_row(
                Text(status, style=STYLES.get(status, "")), words.count(number), words.share(number / rows["done"])
            )
    table.add_row("all", words.count(rows["done"]), "")
    if (children := report.get("children")) is not None:
        made = children["by_status"]
        said = words.counts({**made, "repeated": children["repeated"], "left out": children["left_out"]})
        table.add_row("children", words.count(sum(made.values())), "", Text(said, style="dim"))
    return table


def _accepted(accept: AcceptReport) -> RenderableType:
    table = _table("candidates", "rows", "share", "for example")
    asked = accept["candidates"]
    if asked:
        table.add_row(
            Text("accepted", style="green"), words.count(accept["accepted"]), words.share(accept["accepted"] / asked)
        )
    for reason, fell in accept["fell"].items():
        row_id = str(fell["id"])
        example = fell["message"] if row_id in fell["message"] else ": ".join(filter(None, (row_id, fell["message"])))
        table.add_row(
            Text(words.one_line(f"fell: {reason}", 60)), words.count(fell["rows"]), words.share(fell["rows"] / asked),
            Text(words.one_line(example)),
        )  # fmt: skip
    if accept["surplus"]:
        table.add_row(
            "asked beyond what was needed", words.count(accept["surplus"]), words.share(accept["surplus"] / asked)
        )
    return table


def _settings(settings: Sequence[SettingReport]) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("setting", overflow="fold")
    conditions = ["meet conditions"] if any(setting["meet"] is not None for setting in settings) else []
    for heading in ("ok", "not ok", *conditions, "tokens in", "out"):
        table.add_column(heading, justify="right", no_wrap=True, min_width=len(heading))
    for each in settings[:_SETTINGS_SHOWN]:
        numbers = [
            each["ok"],
            each["rows"] - each["ok"],
            each["meet"],
            each["prompt_tokens"],
            each["completion_tokens"],
        ]
        said = ", ".join(
            words.one_line(f"{place.rpartition('.')[2]} {value}", 50) for place, value in each["setting"].items()
        )
        table.add_row(Text(said), *(words.count(number) for number in numbers if number is not None))
    if len(settings) > _SETTINGS_SHOWN:
        table.add_row(f"and {words.count(len(settings) - _SETTINGS_SHOWN)} more: see report.json")
    return table


def _failures(report: Report) -> RenderableType:
    table = _table("failure", "rows", "for example")
    for kind, failure in report["failures"].items():
        row_id, message = str(failure["id"]), failure["message"]
        example = message if row_id in message else f"{row_id}: {message}"
        table.add_row(kind, words.count(failure["rows"]), Text(words.one_line(example)))
    return table


def _tokens(report: Report) -> RenderableType:
    tokens = report["tokens"]
    table = _table("tokens", "prompt", "cached", "completion", "")
    table.add_row("useful", *_token_cells(tokens["useful"]), "")
    if any(tokens["wasted"].values()):
        table.add_row("wasted", *_token_cells(tokens["wasted"]), Text(_reasons(report), style="dim"))
    if any(tokens["folded"].values()):
        table.add_row("folded", *_token_cells(tokens["folded"]), Text(_spared(report), style="dim"))
    return table


def _token_cells(tokens: Tokens) -> list[str]:
    return [words.count(tokens[name]) for name in ("prompt_tokens", "cached_tokens", "completion_tokens")]


def _spared(report: Report) -> str:
    """Why nothing was computed for them: ``spared: 120 rows were duplicates, 4,000 came from the cache``."""
    rows = report["rows"]
    said = []
    if rows["folded"] or not rows["cached"]:
        said.append(f"{words.count(rows['folded'])} rows were duplicates")
    if rows["cached"]:
        said.append(f"{words.count(rows['cached'])} came from the cache")
    return "spared: " + ", ".join(said)


def _reasons(report: Report) -> str:
    """Which answers were sent back: ``sent back: schema 12 · truncated 3``."""
    return "sent back: " + words.counts({kind: back["answers"] for kind, back in report["sent_back"].items()})


def _facts(report: Report) -> RenderableType:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True, min_width=len("to go on"))
    table.add_column(overflow="fold")
    table.add_row("time", _time(report))
    if speed := _speed(report):
        table.add_row("speed", speed)
    if (cost := report.get("cost")) is not None:
        hours = report.get("gpu_hours")
        table.add_row("cost", f"{cost:,.2f}" + ("" if hours is None else f", {hours:,.3g} GPU-hours"))
    if (accept := report.get("accept")) is not None and (per := accept["per_accepted"]) is not None:
        table.add_row("a row", _per_accepted(per))
    if report["engine"]:
        table.add_row("engine", Text(words.printable(_engine(report, report["engine"]))))
    return table


def _per_accepted(per: CostReport) -> str:
    """``an accepted one took 210 tokens in, 88 out, 0.4 s, 0.0002``."""
    parts = [
        f"an accepted one took {words.count(per['prompt_tokens'])} tokens in",
        f"{words.count(per['completion_tokens'])} out",
        f"{per['seconds']:.2g} s",
    ]
    if per["cost"] is not None:
        parts.append(f"cost {per['cost']:.2g}")
    return ", ".join(parts)


def _pasteable(report: Report, command: str | None) -> Iterator[Text]:
    """Paths and commands, each on one line that only the terminal itself breaks, so that they can be copied."""
    names = sorted(report["outputs"], key=lambda name: (name != "accepted.jsonl", name != "results.jsonl", name))
    lines = [("results", str(Path(report["folder"]) / name)) for name in names]
    label = "next" if report["outcome"] == "finished" else "to go on"
    lines += [(label, step) for step in next_steps(report, command)]
    for name, text in lines:
        yield Text.assemble((f"{name:8}  ", "dim"), words.printable(text))


def _time(report: Report) -> str:
    seconds, sessions = report["seconds"], len(report["sessions"])
    text = f"{words.duration(seconds['total'])}, {words.duration(seconds['start_up'])} of it until the engine was ready"
    return text if sessions == 1 else f"{text}, in {sessions} sessions"


def _speed(report: Report) -> str:
    speed = report["speed"]
    if speed["rows"] is None or speed["prompt_tokens"] is None or speed["completion_tokens"] is None:
        return ""
    parts = [
        f"{words.count(speed['rows'])} rows/s",
        f"{words.count(speed['prompt_tokens'])} tokens/s in",
        f"{words.count(speed['completion_tokens'])} tokens/s out",
    ]
    if (idle := report["sessions"][-1]["idle_share"]) is not None:
        parts.append(f"engine idle {words.share(idle)}")
    if (hits := report["tokens"]["cache_hit_rate"]) is not None:
        parts.append(f"cache hits {words.share(hits)}")
    return " · ".join(parts)


def _engine(report: Report, engine: Mapping[str, object]) -> str:
    """``vllm 0.32.0 with Qwen/Qwen3-8B on NVIDIA H200``."""
    return (
        f"{engine['name']} {engine['version']} with {report['job'].get('model', engine['model'])} on {engine['device']}"
    )
