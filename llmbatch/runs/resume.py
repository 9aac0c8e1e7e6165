"""A run folder in; what earlier sessions left in it, held against the job and the input of now, out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llmbatch.core.ledger import Ledger
from llmbatch.folder.bounds import Bounds
from llmbatch.folder.folder import RunFolder
from llmbatch.folder.input import check_input, has_grown
from llmbatch.folder.order import read_order
from llmbatch.folder.ordered import as_it_lies, what_was_read
from llmbatch.runs.reading import Resume
from llmbatch.sources.base import Source


@dataclass(frozen=True, slots=True)
class Left:
    """What earlier sessions left, and what job and input are now."""

    resume: Resume
    ledger: Ledger  # of the sealed windows
    journals: dict[int, Ledger]  # of the windows of which only journals are there, by number
    answers: int  # of rows that are not finished
    crashes: int  # sessions up to now that were killed, one after another, without getting anywhere
    identity: dict[str, str]
    fingerprint: list[dict[str, Any]]
    grown: bool  # the input is not what it was, and that was accepted

    @property
    def rows(self) -> int:
        """Records that are there."""
        return self.ledger.rows + sum(account.rows for account in self.journals.values())

    @property
    def done(self) -> int:
        """Records and answers that are there."""
        return self.rows + self.answers

    @property
    def last(self) -> Bounds | None:
        """The last window that is known; None where the input went on behind it."""
        last = self.resume.last
        return None if last is not None and last.stop is None and self.grown else last


def what_is_left(
    folder: RunFolder, source: Source, identity: dict[str, str], *, extend: bool, limit: int | None = None
) -> Left:
    """Look at what earlier sessions left, and hold the input, of which ``limit`` rows are to be read, against it.

    Raises ``InputChanged`` and ``FolderError``."""
    parts, manifest = folder.parts, folder.manifest
    parts.tidy()
    sealed, journals = parts.scan()
    metas = {window: parts.meta(window) for window in sorted(sealed)}
    replays = {window: replay for window in sorted(journals) if (replay := parts.replay(window)) is not None}
    if not sealed and not any(replay.lines or replay.outcomes for replay in replays.values()):
        parts.discard(journals)  # nothing was done yet: a corrected job may begin here
        replays = {}
        if manifest is not None:
            manifest.identity, manifest.fingerprint, manifest.came_out = identity, source.fingerprint(), {}
    seen = [(meta.bounds, meta.input_sha256) for meta in metas.values()]
    seen += [(replay.bounds, replay.input_sha256) for replay in replays.values()]
    before = manifest.fingerprint if manifest is not None else None
    read = what_was_read(read_order(folder.path), seen) if seen else []
    fingerprint = check_input(as_it_lies(source), before, read, extend=extend, limit=limit)
    ledger = parts.sum_of(metas.values())
    left = {window: replay.ledger() for window, replay in replays.items()}
    answers = sum(len(outcomes) for replay in replays.values() for outcomes in replay.outcomes.values())
    done = ledger.rows + sum(account.rows for account in left.values()) + answers
    resume = Resume({n: m.bounds for n, m in metas.items()}, {n: r.bounds for n, r in replays.items()})
    grown = before is not None and has_grown(before, fingerprint)
    return Left(resume, ledger, left, answers, folder.crashes(done), identity, fingerprint, grown)
