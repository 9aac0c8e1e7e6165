"""Records in, the report of a run out: the content of ``report.json``.

``Report`` is the schema of ``report.json``. Times are seconds, dates are ISO 8601 with the zone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypedDict

from llmbatch.core.events import Replica
from llmbatch.core.ledger import Ledger
from llmbatch.core.types import RowId, Status, Usage

REPORT_VERSION = 1

RunOutcome = Literal["finished", "stopped", "broken"]


class Tokens(TypedDict):
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int  # the part of prompt_tokens that the prefix cache spared


class TokenReport(TypedDict):
    """``total`` = ``useful`` + ``wasted`` + ``folded``; the engine computed ``useful`` + ``wasted``."""

    total: Tokens  # the sum over the records
    useful: Tokens  # gave an ok row its output
    wasted: Tokens  # answers that were sent back, and rows that did not end ok
    folded: (
        Tokens  # of answers that were computed for an equal request: of another row, or of an earlier run (the cache)
    )
    cache_hit_rate: float | None  # of the prompt tokens computed, the share that came from the prefix cache


class RowReport(TypedDict):
    total: int | None  # rows of the input; None as long as it was not read to its end
    done: int
    by_status: dict[str, int]  # every status, also those with no row
    retried: int  # rows that took more than one answer
    folded: int  # rows that shared the answer of a row with the same request
    cached: int  # rows with an answer from the cache of earlier runs


class FailureReport(TypedDict):
    """The rows that ended with one kind of failure, with the first of them as an example."""

    rows: int
    index: int
    id: RowId
    message: str


class SentBackReport(TypedDict):
    """The answers that did not do for one reason, whatever became of their rows, and the tokens wasted on them."""

    answers: int
    tokens: Tokens


class FellReport(TypedDict):
    """The candidates that were not accepted for one reason, with the first of them as an example."""

    rows: int
    index: int
    id: RowId
    message: str  # may be empty, where the reason says it all


class AcceptCounts(TypedDict):
    """What became of the candidates: the rows of a job that says which rows are accepted."""

    wanted: int | None
    accepted: int
    candidates: int  # up to the last that was needed; as far as they are decided
    surplus: int  # asked besides
    rate: float | None  # accepted of the candidates
    fell: dict[str, FellReport]  # by reason, the most frequent first


class CostReport(TypedDict):
    """What one accepted row took on average, all that was asked counted."""

    prompt_tokens: float
    completion_tokens: float
    seconds: float
    cost: float | None


class AcceptReport(AcceptCounts):
    per_accepted: CostReport | None  # None where none is


class SettingReport(TypedDict):
    """The rows that were run under one setting of a sweep."""

    setting: dict[str, Any]
    rows: int
    ok: int
    meet: int | None  # of them, those that meet the conditions of accept; None where there are none
    prompt_tokens: int
    completion_tokens: int


class TimeReport(TypedDict):
    start_up: float  # until the engine was ready
    running: float  # in which an engine was up
    total: float  # those two, and what came before, between and after


class SpeedReport(TypedDict):
    """Per second of ``running``; tokens are those that the engine computed. ``None`` where nothing ran."""

    rows: float | None
    prompt_tokens: float | None
    completion_tokens: float | None


class NoteReport(TypedDict):
    level: Literal["info", "warning", "error"]
    message: str


class ReplicaReport(TypedDict):
    """What one of several engines did in a session."""

    replica: int  # counted from 0
    seconds: float  # in which it was up
    busy_share: float | None  # of them, the share in which it had work
    tokens: Tokens  # answered, by its own count
    speed: SpeedReport  # tokens per second of ``seconds``
    cache_hit_rate: float | None
    deaths: int
    left_out: bool  # it died and could not be restarted


class SessionReport(TypedDict):
    """One start of the command."""

    session: int  # counted from 1
    started_at: str
    outcome: RunOutcome
    seconds: TimeReport
    rows: int  # records that it added
    tokens: Tokens  # answered by the engine, by its own count
    speed: SpeedReport
    idle_share: float | None  # share of the running time in which the engine had nothing to do
    engine_restarts: int
    replicas: NotRequired[list[ReplicaReport]]  # where there were several engines


class Counts(TypedDict):
    """What a report says of the records."""

    rows: RowReport
    failures: dict[str, FailureReport]  # by kind, the most frequent first
    sent_back: dict[str, SentBackReport]  # by kind, the most wasteful first
    attempts: int
    tokens: TokenReport


class LayoutReport(TypedDict):
    name: str
    failure: str | None  # why its system would call the job failed


class ChildrenReport(TypedDict):
    """What became of the items that rows were fanned out to."""

    by_status: dict[str, int]  # every status, also those with no child
    repeated: int  # items that became no child, as their row had them before
    left_out: int  # and those beyond the most that a row may have


class Report(Counts):
    """The content of ``report.json``."""

    llmbatch_report: int  # version of this schema
    outcome: RunOutcome
    exit_code: int
    error: str | None  # why it is broken or stopped
    folder: str
    seconds: TimeReport  # over all sessions
    speed: SpeedReport  # over all sessions
    cost: float | None  # over all sessions, killed ones too, by the job's prices; None where it has none
    gpu_hours: float | None  # of them, where they have a price; of a cluster's engines only while they were up
    accept: NotRequired[AcceptReport | None]  # where the job says which rows are accepted
    settings: NotRequired[list[SettingReport]]  # of a sweep, once it is finished
    engine: dict[str, Any] | None  # what the engine says of itself; None where none was started
    job: dict[str, Any]  # digest, model, prompt
    input: dict[str, Any]  # fingerprint
    versions: dict[str, str]
    notes: list[NoteReport]
    outputs: list[str]  # names of the files of results in the folder
    children: ChildrenReport | None  # of the rows; None where the program makes none
    layout: LayoutReport | None  # of the files laid out as another system does; None where none are
    sessions: list[SessionReport]


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """What one start of the command did, as a runner saw it; ``start_up_seconds`` is ``None`` if no engine came up."""

    number: int
    started_at: str
    outcome: RunOutcome
    total_seconds: float
    start_up_seconds: float | None
    rows: int
    engine_tokens: Usage
    busy_seconds: float = 0.0  # in which the engine had work
    ready_seconds: float | None = None  # in which an engine was up; None: all after the start-up
    engine_restarts: int = 0
    replicas: Sequence[Replica] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a report states besides counts; plain JSON data."""

    folder: str
    job: Mapping[str, Any]
    input: Mapping[str, Any]
    versions: Mapping[str, str]
    engine: Mapping[str, Any] | None = None
    rows_total: int | None = None
    notes: Sequence[NoteReport] = ()
    outputs: Sequence[str] = ()
    cost: float | None = None
    gpu_hours: float | None = None
    children: Mapping[str, int] | None = None  # counts by status, and of items that became none
    layout: LayoutReport | None = None
    accept: AcceptCounts | None = None
    settings: Sequence[SettingReport] = ()


def build_report(
    ledger: Ledger,
    session: SessionFacts,
    facts: Facts,
    *,
    earlier: Sequence[SessionReport] = (),
    error: str | None = None,
) -> Report:
    """The report of a run after one of its sessions; ``earlier`` are the ``sessions`` of its report until now."""
    return report_of(ledger, [*earlier, _session_report(session)], facts, error=error)


def report_of(ledger: Ledger, sessions: Sequence[SessionReport], facts: Facts, *, error: str | None = None) -> Report:
    """The report of a run after these sessions, the last of which says how it stands."""
    outcome = sessions[-1]["outcome"]
    seconds = _sum_times([each["seconds"] for each in sessions])
    accept = None if facts.accept is None else accept_report(facts.accept, ledger, seconds["total"], facts.cost)
    return {
        "llmbatch_report": REPORT_VERSION,
        "outcome": outcome,
        "exit_code": exit_code(outcome, ledger, facts.accept, facts.layout),
        "error": error,
        "folder": facts.folder,
        **counts_of(ledger, rows_total=facts.rows_total),
        "seconds": seconds,
        "speed": _speed(sum(each["rows"] for each in sessions), _sum_tokens(sessions), seconds["running"]),
        "cost": facts.cost,
        "gpu_hours": facts.gpu_hours,
        "accept": accept,
        "settings": list(facts.settings),
        "engine": dict(facts.engine) if facts.engine is not None else None,
        "job": dict(facts.job),
        "input": dict(facts.input),
        "versions": dict(facts.versions),
        "notes": list(facts.notes),
        "outputs": list(facts.outputs),
        "children": None if facts.children is None else children_report(facts.children),
        "layout": facts.layout,
        "sessions": list(sessions),
    }


def children_report(counts: Mapping[str, int]) -> ChildrenReport:
    """What a report says of children, of what their sink counted."""
    return {
        "by_status": every_status(counts),
        "repeated": counts.get("repeated", 0),
        "left_out": counts.get("left_out", 0),
    }


def every_status(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts by status, with those of which there are none."""
    return {status.value: counts.get(status, 0) for status in Status}


def accept_report(counts: AcceptCounts, ledger: Ledger, seconds: float, cost: float | None) -> AcceptReport:
    """What became of the candidates, and what an accepted row took of all tokens, seconds and money."""
    per: CostReport | None = None
    if accepted := counts["accepted"]:
        computed = ledger.computed
        per = {
            "prompt_tokens": computed.prompt_tokens / accepted,
            "completion_tokens": computed.completion_tokens / accepted,
            "seconds": seconds / accepted,
            "cost": None if cost is None else cost / accepted,
        }
    return {**counts, "per_accepted": per}


def counts_of(ledger: Ledger, *, rows_total: int | None) -> Counts:
    """What a report says of the records that a ledger counted."""
    return {
        "rows": {
            "total": rows_total,
            "done": ledger.rows,
            "by_status": every_status(ledger.by_status),
            "retried": ledger.rows_retried,
            "folded": ledger.rows_folded,
            "cached": ledger.rows_cached,
        },
        "failures": _failures(ledger),
        "sent_back": _sent_back(ledger),
        "attempts": ledger.attempts,
        "tokens": _tokens_report(ledger),
    }


def exit_code(
    outcome: RunOutcome, ledger: Ledger, accept: AcceptCounts | None = None, layout: LayoutReport | None = None
) -> int:
    """The command's exit code: 0 every row ok, 3 finished and some are not, 130 stopped, 1 broken.

    Where so many accepted rows are wanted, 0 says that they are there, and 3 that the input ended before. 3 also where the system
    whose files are laid out would call the job failed: its output is not all there, be the rows ok or not.
    """
    if outcome == "finished":
        if layout is not None and layout["failure"] is not None:
            return 3
        if accept is not None and accept["wanted"] is not None:
            return 0 if accept["accepted"] == accept["wanted"] else 3
        return 0 if ledger.by_status.get(Status.OK, 0) == ledger.rows else 3
    return 130 if outcome == "stopped" else 1


def _failures(ledger: Ledger) -> dict[str, FailureReport]:
    kinds = sorted(ledger.by_failure, key=lambda kind: (-ledger.by_failure[kind], kind))
    return {str(kind): _failure(ledger, kind) for kind in kinds}


def _failure(ledger: Ledger, kind: str) -> FailureReport:
    example = ledger.examples[kind]
    return {"rows": ledger.by_failure[kind], "index": example.index, "id": example.id, "message": example.message}


def _sent_back(ledger: Ledger) -> dict[str, SentBackReport]:
    tokens = {kind: ledger.sent_back_tokens.get(kind, Usage()) for kind in ledger.sent_back}
    kinds = sorted(tokens, key=lambda kind: (-tokens[kind].prompt_tokens - tokens[kind].completion_tokens, kind))
    return {str(kind): {"answers": ledger.sent_back[kind], "tokens": _tokens(tokens[kind])} for kind in kinds}


def _tokens(usage: Usage) -> Tokens:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_tokens": usage.cached_tokens,
    }


def _tokens_report(ledger: Ledger) -> TokenReport:
    computed = ledger.computed
    return {
        "total": _tokens(ledger.total),
        "useful": _tokens(ledger.useful),
        "wasted": _tokens(ledger.wasted),
        "folded": _tokens(ledger.folded),
        "cache_hit_rate": computed.cached_tokens / computed.prompt_tokens if computed.prompt_tokens else None,
    }


def _session_report(session: SessionFacts) -> SessionReport:
    start_up = session.total_seconds if session.start_up_seconds is None else session.start_up_seconds
    running = max(0.0, session.total_seconds - start_up) if session.ready_seconds is None else session.ready_seconds
    report: SessionReport = {
        "session": session.number,
        "started_at": session.started_at,
        "outcome": session.outcome,
        "seconds": {"start_up": start_up, "running": running, "total": session.total_seconds},
        "rows": session.rows,
        "tokens": _tokens(session.engine_tokens),
        "speed": _speed(session.rows, session.engine_tokens, running),
        "idle_share": min(1.0, max(0.0, 1 - session.busy_seconds / running)) if running else None,
        "engine_restarts": session.engine_restarts,
    }
    if session.replicas:
        report["replicas"] = [_replica(each) for each in session.replicas]
    return report


def _replica(replica: Replica) -> ReplicaReport:
    usage = replica.usage
    speed = _speed(0, usage, replica.ready_seconds)
    return {
        "replica": replica.number,
        "seconds": replica.ready_seconds,
        "busy_share": replica.busy_share,
        "tokens": _tokens(usage),
        "speed": {**speed, "rows": None},
        "cache_hit_rate": usage.cached_tokens / usage.prompt_tokens if usage.prompt_tokens else None,
        "deaths": replica.deaths,
        "left_out": replica.state == "left out",
    }


def _speed(rows: int, tokens: Usage, running: float) -> SpeedReport:
    if not running:
        return {"rows": None, "prompt_tokens": None, "completion_tokens": None}
    return {
        "rows": rows / running,
        "prompt_tokens": tokens.prompt_tokens / running,
        "completion_tokens": tokens.completion_tokens / running,
    }


def _sum_times(times: Sequence[TimeReport]) -> TimeReport:
    return {
        "start_up": sum(each["start_up"] for each in times),
        "running": sum(each["running"] for each in times),
        "total": sum(each["total"] for each in times),
    }


def _sum_tokens(sessions: Sequence[SessionReport]) -> Usage:
    return sum((Usage(**each["tokens"]) for each in sessions), Usage())
