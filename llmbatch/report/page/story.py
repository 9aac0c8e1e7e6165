"""A report in; what happened, in a few sentences, and the four figures that matter, out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from llmbatch.core import words
from llmbatch.core.types import Status
from llmbatch.report.report import Report

_MUCH = 0.05  # a share that is worth a sentence


def money(amount: float) -> str:
    """``1,234.50``, ``0.000012``: small ones keep three digits."""
    if amount >= 1 or amount <= 0:
        return f"{amount:,.2f}"
    return f"{amount:.{2 - math.floor(math.log10(amount))}f}".rstrip("0").rstrip(".")


class Tile(NamedTuple):
    """A figure, what it is, and what more there is to say of it; ``kind`` is its colour's name, empty for none."""

    label: str
    figure: str
    more: str
    kind: str = ""


def tiles(report: Report, seconds: float = 0.0) -> list[Tile]:
    """The four figures: what came out, what did not, how long it took (``seconds``, with killed sessions), what it cost."""
    return [_came_out(report), _did_not(report), _took(report, seconds), _spent(report)]


def _came_out(report: Report) -> Tile:
    rows = report["rows"]
    ok, done = rows["by_status"].get(Status.OK, 0), rows["done"]
    accept = report.get("accept")
    if accept is not None:
        wanted = f" of {words.count(accept['wanted'])} wanted" if accept["wanted"] is not None else ""
        enough = accept["wanted"] is None or accept["accepted"] >= accept["wanted"]
        return Tile(
            "rows accepted", words.count(accept["accepted"]), f"{wanted.strip()} {_of_candidates(report)}".strip(),
            "ok" if enough else "warn",
        )  # fmt: skip
    if not done:
        return Tile("rows ok", "0", "no row is done")
    total = f", {words.count(rows['total'])} in all" if rows["total"] is not None and rows["total"] > done else ""
    more = f"{words.count(ok)} of {words.count(done)} rows{total}"
    return Tile("rows ok", words.share(ok / done), more, "ok" if ok == done else "warn")


def _of_candidates(report: Report) -> str:
    accept = report.get("accept")
    return f"from {words.count(accept['candidates'])} candidates" if accept is not None else ""


def _did_not(report: Report) -> Tile:
    rows = report["rows"]
    bad = rows["done"] - rows["by_status"].get(Status.OK, 0)
    if not bad:
        retried = rows["retried"]
        more = f"{words.count(retried)} took more than one answer" if retried else "every row has its answer"
        return Tile("rows not ok", "0", more, "ok")
    kinds = {kind: failure["rows"] for kind, failure in list(report["failures"].items())[:3]}
    rest = len(report["failures"]) - len(kinds)
    more = words.counts(kinds) + (f" · and {rest} more {'kind' if rest == 1 else 'kinds'}" if rest > 0 else "")
    return Tile("rows not ok", words.count(bad), more, "bad")


def _took(report: Report, known: float) -> Tile:
    seconds, speed = max(report["seconds"]["total"], known), report["speed"]
    parts = [f"{words.count(speed['rows'])} rows/s"] if speed["rows"] is not None else []
    idle = report["sessions"][-1]["idle_share"] if report["sessions"] else None
    if idle is not None:
        parts.append(f"engine idle {words.share(idle)}")
    return Tile("took", words.duration(seconds), " · ".join(parts))


def _spent(report: Report) -> Tile:
    cost, rows = report.get("cost"), report["rows"]
    ok, accept = rows["by_status"].get(Status.OK, 0), report.get("accept")
    good, name = (accept["accepted"], "accepted row") if accept is not None else (ok, "row that is ok")
    if cost is not None:
        each = f"{money(cost / good)} per {name}" if good else ""
        return Tile("cost so far" if report["outcome"] != "finished" else "cost", money(cost), each)
    useful, wasted = report["tokens"]["useful"], report["tokens"]["wasted"]
    computed = sum(part["prompt_tokens"] + part["completion_tokens"] for part in (useful, wasted))
    lost = wasted["prompt_tokens"] + wasted["completion_tokens"]
    each = f"{words.count(computed / good)} per {name}" if good else ""
    share = f"{words.share(lost / computed)} wasted" if computed and lost else ""
    return Tile("tokens", words.count(computed), " · ".join(filter(None, (each, share))))


def story(report: Report, deaths: int = 0) -> list[str]:
    """What else is worth knowing, a sentence each, the most important first.

    ``deaths``: of engines, as far as they were seen; a session that was killed reported none of its own.
    """
    return list(_sentences(report, deaths))


def _sentences(report: Report, deaths: int) -> Iterator[str]:
    rows, tokens = report["rows"], report["tokens"]
    bad = rows["done"] - rows["by_status"].get(Status.OK, 0)
    if report["failures"]:
        kind, failure = next(iter(report["failures"].items()))
        part = "All of them" if failure["rows"] == bad else f"{words.count(failure['rows'])} of them"
        yield f"{part} failed with {kind}, such as row {failure['id']}: {words.one_line(failure['message'], 160).rstrip('.')}."
    wasted, useful = _sum(tokens["wasted"]), _sum(tokens["useful"])
    if wasted and wasted / (wasted + useful) >= _MUCH:
        why = next(iter(report["sent_back"]), None)
        most = f", most of them on answers sent back for {why}" if why else ""
        yield f"{words.share(wasted / (wasted + useful))} of the tokens were wasted{most}."
    if rows["folded"] or rows["cached"]:
        spared = words.counts({"duplicates of another row": rows["folded"], "answers of earlier runs": rows["cached"]})
        yield f"Not asked again: {spared}."
    if (hits := tokens["cache_hit_rate"]) is not None and hits >= _MUCH:
        yield f"{words.share(hits)} of the prompt tokens came from the prefix cache."
    sessions = report["sessions"]
    lost = "; no row was lost" if report["outcome"] == "finished" else ""
    deaths = max(deaths, sum(each["engine_restarts"] for each in sessions))
    if deaths:
        yield f"An engine died {words.count(deaths)} {'time' if deaths == 1 else 'times'}{lost}."
    if (missing := (sessions[-1]["session"] if sessions else 0) - len(sessions)) > 0:
        yield f"{words.count(missing)} earlier {'session was' if missing == 1 else 'sessions were'} killed{lost}."
    if sessions and (idle := sessions[-1]["idle_share"]) is not None and idle >= 0.2:
        yield f"The engine had nothing to do for {words.share(idle)} of the time it was up."


def _sum(part: object) -> int:
    assert isinstance(part, dict)  # noqa: S101 - for the type checker
    return int(part["prompt_tokens"] + part["completion_tokens"])


__all__ = ["Tile", "money", "story", "tiles"]
