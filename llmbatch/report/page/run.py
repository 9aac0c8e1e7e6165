"""A report, a sample of its records and its timeline in; the page of the run out."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llmbatch.core import words
from llmbatch.core.types import Status
from llmbatch.report.page.frame import page
from llmbatch.report.page.over_time import Cost, over_time
from llmbatch.report.page.plots import Bar, Dots, dots, histogram
from llmbatch.report.page.sample import Sample
from llmbatch.report.page.story import money, story, tiles
from llmbatch.report.report import FailureReport, Report, SettingReport, Tokens
from llmbatch.report.summary import headline, next_steps
from llmbatch.report.timeline import Timeline

_SETTINGS = 60  # of a sweep that are drawn, the best first
_EXAMPLES = 3  # of a kind of failure, that open without a script
_VERDICTS = {"chosen": "ok", "default": "in", "faster": "out", "refused": "warn", "slower": "bad"}
_WASTE = ("bad", "warn", "out", "busy")


class Kind(NamedTuple):
    """The rows that ended with one kind of failure; ``examples`` are records as the page has them."""

    name: str
    status: str
    rows: int
    share: float
    first: FailureReport
    examples: Sequence[Mapping[str, Any]]


def run_page(
    report: Report,
    sample: Sample,
    timeline: Timeline | None = None,
    scores: Sequence[Dots] = (),
    said: str = "",
    cost: Cost | None = None,
) -> bytes:
    """The whole file. ``scores`` are plots of the figures of an evaluation; ``said`` is the headline, if not the report's own.

    ``cost`` is for the plot of it over time.
    """
    rows = report["rows"]
    kinds = list(_kinds(report, sample))
    statuses = [(status, number) for status, number in rows["by_status"].items() if number]
    engine = report["engine"] or {}
    return page(
        "run.html",
        report=report,
        name=Path(report["folder"]).name or report["folder"],
        headline=said or headline(report),
        story=story(report, 0 if timeline is None else round(sum(timeline.columns["deaths"]))),
        when=_when(report),
        tiles=tiles(report, 0.0 if timeline is None else timeline.seconds),
        killed=list(_killed(report, timeline)),
        statuses=statuses,
        bars=[Bar(status, status, number / rows["done"], words.count(number)) for status, number in statuses],
        kinds=kinds,
        over=None if timeline is None else over_time(timeline, cost),
        lengths=[
            plot
            for plot in (
                histogram("Prompts, in tokens", sample.prompt_tokens, "rows", "in"),
                histogram("Answers, in tokens", sample.answer_tokens, "rows", "out"),
            )
            if plot is not None
        ],
        attempts=_attempts(sample),
        tokens=_tokens(report),
        cost=list(_cost(report)),
        scores=scores,
        autotune=_autotune(engine.get("autotune")),
        untried=_untried(engine.get("autotune")),
        replicas=report["sessions"][-1].get("replicas") if report["sessions"] else None,
        accept=report.get("accept"),
        children=report.get("children"),
        settings=report.get("settings") or (),
        sweep=_sweep(report.get("settings") or ()),
        sample=sample,
        statuses_shown=sorted({record["status"] for record in sample.records}),
        kinds_shown=_kinds_shown(sample),
        steps=next_steps(report),
        facts=list(_facts({name: report[name] for name in ("job", "input", "engine", "versions")})),
    )


def _when(report: Report) -> str:
    """When it was run, in words."""
    if not report["sessions"]:
        return ""
    try:
        began = datetime.datetime.fromisoformat(report["sessions"][0]["started_at"]).strftime("%Y-%m-%d %H:%M")
    except ValueError:
        began = report["sessions"][0]["started_at"]
    sessions = len(report["sessions"])
    return f"{began}, {sessions} sessions" if sessions > 1 else began


def _killed(report: Report, timeline: Timeline | None) -> Iterator[tuple[int, str, int]]:
    """(number, when it began, rows that it added) of each session that left no report."""
    sessions = [] if timeline is None else timeline.sessions
    reported = {each["session"] for each in report["sessions"]}
    for each, following in itertools.pairwise(sessions):
        if each.session not in reported:
            began = datetime.datetime.fromtimestamp(each.started).astimezone().isoformat(" ", "seconds")
            yield each.session, began, max(0, following.rows - each.rows)


def _kinds(report: Report, sample: Sample) -> Iterator[Kind]:
    done = max(1, report["rows"]["done"])
    for name, failure in report["failures"].items():
        records = [record for record in sample.records if record.get("kind") == name]
        records.sort(key=lambda record: record["index"] != failure["index"])
        status = records[0]["status"] if records else Status.FAILED.value
        yield Kind(name, status, failure["rows"], failure["rows"] / done, failure, records[:_EXAMPLES])


def _attempts(sample: Sample) -> list[Bar]:
    """How many answers rows took. The last bar has all that took more."""
    whole = sum(sample.attempts.values())
    shown = {number: sample.attempts.get(number, 0) for number in range(1, min(7, max(sample.attempts, default=0)) + 1)}
    more = whole - sum(shown.values())
    bars = [
        Bar(f"{number} {'answer' if number == 1 else 'answers'}", "in" if number == 1 else "warn", rows / whole,
            f"{words.count(rows)} ({words.share(rows / whole)})")
        for number, rows in shown.items()
    ]  # fmt: skip
    return [*bars, Bar("more", "warn", more / whole, words.count(more))] if more else bars


class _TokenBars(NamedTuple):
    bars: Sequence[Bar]
    rows: Sequence[tuple[str, Tokens]]


def _tokens(report: Report) -> _TokenBars:
    """Where the tokens went that the engine computed, prompts and answers together."""
    tokens = report["tokens"]

    def size(part: Tokens) -> int:
        return part["prompt_tokens"] - part["cached_tokens"] + part["completion_tokens"]

    parts = [("gave rows their answers", "ok", size(tokens["useful"]))]
    wasted, left = list(report["sent_back"].items()), size(tokens["wasted"])
    for (kind, back), colour in zip(wasted, _WASTE, strict=False):
        spent = min(left, size(back["tokens"]))
        parts.append((f"wasted: {kind}", colour, spent))
        left -= spent
    parts.append(("wasted otherwise", "grey", left))
    whole = sum(number for _, _, number in parts)
    bars = [
        Bar(label, colour, number / whole, f"{words.count(number)} ({words.share(number / whole)})")
        for label, colour, number in parts
        if number > 0
    ]
    names = ("useful", "wasted", "folded", "total")
    listed = [(name, tokens[name]) for name in names]  # type: ignore[literal-required]
    return _TokenBars(bars, [*listed, *((f"sent back: {kind}", back["tokens"]) for kind, back in wasted)])


def _cost(report: Report) -> Iterator[tuple[str, str]]:
    """What it cost, by the job's prices; nothing where it has none."""
    cost = report.get("cost")
    if cost is None:
        return
    yield "so far" if report["outcome"] != "finished" else "in all", money(cost)
    if (hours := report.get("gpu_hours")) is not None:
        yield "GPU-hours", f"{hours:,.3g}"
    rows, ok = report["rows"]["done"], report["rows"]["by_status"].get(Status.OK, 0)
    for name, number in (("a thousand rows", rows / 1000), ("a row that is ok", ok)):
        if number:
            yield name, money(cost / number)
    accept = report.get("accept")
    if accept is not None and accept["accepted"]:
        yield "an accepted row", money(cost / accept["accepted"])
    total = report["rows"]["total"]
    if report["outcome"] != "finished" and total and rows:
        yield f"all {words.count(total)} rows, if it goes on like this", f"about {money(cost / rows * total)}"


def _sweep(settings: Sequence[SettingReport]) -> Dots | None:
    """The settings of a sweep by the share of rows that came out well: accepted, where the job says what is, else ok."""
    if len(settings) < 2 or not all(each["rows"] for each in settings):
        return None
    what = "ok" if settings[0]["meet"] is None else "accepted"
    figures = []
    for each in settings:
        good = each["ok"] if each["meet"] is None else each["meet"]
        said = f"{words.share(good / each['rows'])} of {words.count(each['rows'])}"
        last = ((place.rpartition(".")[2], value) for place, value in each["setting"].items())
        name = ", ".join(f"{place}={value}" for place, value in last) or "as the job says"
        figures.append((words.clip(name, 60), good / each["rows"], None, None, said, "in", False))
    best, worst = max(figure[1] for figure in figures), min(figure[1] for figure in figures)
    drawn = sorted(figures, key=lambda figure: -figure[1])[:_SETTINGS] if len(figures) > _SETTINGS else figures
    strong = [(*figure[:6], figure[1] == best > worst) for figure in drawn]
    note = f"The best {_SETTINGS} of {len(figures):,}." if len(drawn) < len(figures) else ""
    return dots(f"Rows {what}, by setting", strong, span=(0.0, 1.0), say=words.share, note=note)


def _autotune(found: Mapping[str, Any] | None) -> Dots | None:
    """The engine settings that were tried, by how fast they are against the engine's own."""
    if not found:
        return None
    figures = []
    for tried in found.get("tried", ()):
        ratio = _ratio(tried)
        if ratio is None:
            continue
        expected, low, high = ratio
        said = f"{expected:.2f}×"
        if (agreement := tried.get("agreement")) is not None and agreement.get("share") is not None:
            said += f", {words.share(agreement['share'])} of its answers are the same"
        verdict = tried.get("verdict") or ("chosen" if tried["name"] == found.get("chosen") else "")
        said += f" ({verdict})" if verdict else ""
        figures.append((tried["name"], expected, low, high, said, _VERDICTS.get(verdict, "grey"), verdict == "chosen"))
    if not figures:
        return None
    lines = [(1.0, "the engine's own")] + ([(found["margin"], "must be above")] if found.get("margin") else [])
    return dots(
        "Speed against the engine's own settings", figures, span=(0.9, 1.1), say=lambda at: f"{at:.3g}×", lines=lines,
        note=str(found.get("said", "")),
    )  # fmt: skip


def _ratio(tried: Mapping[str, Any]) -> tuple[float, float | None, float | None] | None:
    if isinstance(ratio := tried.get("ratio"), Mapping):
        return ratio["expected"], ratio.get("low"), ratio.get("high")
    if (gain := tried.get("gain")) is None:  # as it was written before; the default has none
        return (1.0, None, None) if tried.get("tokens_per_second") and tried.get("verdict") == "default" else None
    noise = 2 * (tried.get("noise") or 0.0) * (1 + gain)
    return 1 + gain, 1 + gain - noise, 1 + gain + noise


def _untried(found: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    """(name, verdict, reason) of the settings that have no figure."""
    tried = (found or {}).get("tried", ())
    return [
        (each["name"], each.get("verdict") or "failed", each.get("reason") or each.get("error") or "")
        for each in tried
        if _ratio(each) is None and each.get("verdict") != "default" and (each.get("reason") or each.get("error"))
    ]


def _kinds_shown(sample: Sample) -> list[str]:
    """Every kind that a shown row ended with, or that an answer of it was sent back for."""
    ended = {record["kind"] for record in sample.records if "kind" in record}
    back = {attempt["kind"] for record in sample.records for attempt in record.get("history", ())}
    return sorted(ended | back)


def _facts(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Nested facts as rows of a table: ``engine.version``, its value."""
    if name == "engine.autotune":
        return  # it has a plot
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _facts(inner, f"{name}.{key}" if name else str(key))
    elif value not in (None, "", [], ()):
        yield name, words.clip(str(value), 2000)


__all__ = ["run_page"]
