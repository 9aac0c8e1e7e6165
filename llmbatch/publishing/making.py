"""Runs in, the files of a dataset but for its card out.

The runs are read once. What passes the filters lies on disk until all of it was compared, and is then written, each row into its
split. Memory: a row group for each split, some 80 bytes a row, and nothing else of the rows.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from llmbatch.core.errors import JobError, RunError
from llmbatch.core.files import writing
from llmbatch.core.words import count
from llmbatch.publishing.asked import seen_at
from llmbatch.publishing.base import MISSING, Candidate, Dropped, Example, Layout, PublishSettings, layout_of, value_at
from llmbatch.publishing.card import Counts
from llmbatch.publishing.columns import Columns
from llmbatch.publishing.duplicates import Duplicates, Repeats
from llmbatch.publishing.filters import Filter
from llmbatch.publishing.finished import FinishedRun
from llmbatch.publishing.shards import Shards
from llmbatch.publishing.split import Groups
from llmbatch.publishing.spool import Spool
from llmbatch.publishing.target import ARROW, DATA, DROPPED, WORK

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SEEN_TOGETHER, _SEEN_BYTES = 1000, 16 << 20  # rows whose types are looked at together, and how large they are at most

Tell = Callable[[str], None]
"""Is told now and then how far it is."""


class Making:
    """A dataset in the making: ``read`` the runs, then ``write``, within a ``with`` block. Afterwards its ``counts`` are known."""

    def __init__(self, folder: Path, runs: Sequence[FinishedRun], settings: PublishSettings, tell: Tell) -> None:
        self.counts = Counts()
        self._folder = folder
        self._runs = runs
        self._settings = settings
        self._tell = tell
        self._layout = layout_of(settings.layout)
        self.compared = settings.duplicates_in or _compared(self._layout, runs)
        self._columns = Columns()
        self._waiting: list[Mapping[str, Any]] = []  # rows whose types were not looked at yet
        self._waiting_bytes = 0
        self._first_said: dict[str, str] = {}  # by reason
        self._unseen = set(settings.columns)  # fields that no example had
        self._last: Mapping[str, Any] = {}  # the fields of the last example, for messages
        self._work = folder / WORK
        with writing(folder):
            self._work.mkdir()
            self._dropped = (folder / DROPPED).open("wb")
        self._spool = Spool(self._work / "examples")
        self._duplicates = Duplicates(self._work, settings, self.compared)
        self._groups = Groups(self._work, settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._dropped, self._spool, self._duplicates, self._groups):
            each.close()
        shutil.rmtree(self._work, ignore_errors=True)

    def read(self, keep: Filter) -> None:
        """Make examples of the runs' records and keep those that pass.

        Raises ``JobError`` for a field that none of them has, ``RunError`` where none is left, and what reading a run raises.
        """
        for run in self._runs:
            for candidate in run.candidates():
                self._tell_now_and_then("reading", self.counts.records, None)
                self.counts.records += 1
                for example in self._examples(candidate):
                    if isinstance(example, Dropped):
                        self._drop(_origin(candidate, None), example)
                    elif (why := keep.dropped(example)) is not None:
                        self._drop(_origin(candidate, example.part), why)
                    else:
                        self._keep(candidate, example)
        self._columns.see(self._waiting)
        self.counts.examples = len(self._spool)
        self._check_fields()

    def write(self) -> None:
        """Write the examples that repeat no other, each into its split. Raises ``JobError`` where a split would be empty."""
        self._tell("looking for duplicates")
        repeats = self._duplicates.find()
        sides = self._groups.sides(repeats.of < 0, repeats.links)
        with writing(self._folder):
            (self._folder / DATA).mkdir()
        with ExitStack() as stack:
            shards = [
                Shards(self._folder / DATA, split, self._columns, self._settings.shard_bytes)
                for split in self._settings.splits
            ]
            for each in shards:
                stack.callback(each.close)
            self._write_rows(shards, sides, repeats)
            self.counts.splits = {each.split: each.rows for each in shards}
            self._check_splits()
            files = {each.split: [str(path) for path in each.finish()] for each in shards}
        if self._settings.arrow:
            self._write_arrow(files)

    def types(self) -> dict[str, str]:
        """The type of each column, in words."""
        return {field.name: str(field.type) for field in self._columns.schema()}

    def _examples(self, candidate: Candidate) -> Iterator[Example | Dropped]:
        status = candidate.fields["status"]
        if status not in self._settings.status:
            error = candidate.fields.get("error") or {}
            yield Dropped(f"status {status}", error.get("message", ""))
            return
        examples = self._layout.examples(candidate, self._settings)
        yield from (examples,) if isinstance(examples, Dropped) else examples

    def _keep(self, candidate: Candidate, example: Example) -> None:
        columns = self._as_columns(candidate, example)
        self._waiting_bytes += self._spool.append(_origin(candidate, example.part), columns)
        self._duplicates.add(example, candidate.content)
        self._groups.add(example, candidate)
        self._last = example.fields
        self._waiting.append(columns)
        if len(self._waiting) >= _SEEN_TOGETHER or self._waiting_bytes >= _SEEN_BYTES:
            self._columns.see(self._waiting)
            self._waiting, self._waiting_bytes = [], 0

    def _as_columns(self, candidate: Candidate, example: Example) -> dict[str, Any]:
        """The row as it is published: the layout's columns, where it comes from, and the fields that were asked for."""
        row_id = str(candidate.fields["id"])
        columns: dict[str, Any] = {"id": row_id if example.part is None else f"{row_id}#{example.part}"}
        if len(self._runs) > 1:
            columns["run"] = candidate.fields["run"]
        columns |= {name: value for name, value in example.columns.items() if name != "id"}
        for path in self._settings.columns:
            value = value_at(example.fields, path)
            if value is not MISSING:
                self._unseen.discard(path)
            if path != "id":
                columns[_column(path, columns)] = None if value is MISSING else value
        return columns

    def _write_rows(self, shards: Sequence[Shards], sides: NDArray[Any], repeats: Repeats) -> None:
        for number, (origin, columns, size) in enumerate(self._spool):
            self._tell_now_and_then("writing", number, len(self._spool))
            first = int(repeats.of[number])
            if first < 0:
                shards[sides[number]].append(columns, size)
            elif repeats.near[number]:
                similarity = self._duplicates.similarity(number, first)
                self._drop(origin, Dropped("near_duplicate"), of=self._spool.origin(first), similarity=similarity)
            else:
                self._drop(origin, Dropped("exact_duplicate"), of=self._spool.origin(first))

    def _drop(self, origin: Mapping[str, Any], why: Dropped, **more: Any) -> None:
        self.counts.drop(why.reason)
        self._first_said.setdefault(why.reason, why.message)
        said = {"message": why.message} if why.message else {}
        line = json.dumps({**origin, "reason": why.reason, **said, **more}, ensure_ascii=False)
        with writing(self._folder / DROPPED):
            self._dropped.write(line.encode() + b"\n")

    def _check_fields(self) -> None:
        if not len(self._spool):
            reasons = "; ".join(
                f"{reason}: {count(number)}" + (f" (first: {said})" if (said := self._first_said[reason]) else "")
                for reason, number in self.counts.dropped.items()
            )
            raise RunError(
                f"nothing is left to publish of {count(self.counts.records)} records: {reasons or 'there are none'}"
            )
        for setting, unseen in (
            ("columns", self._unseen),
            ("duplicates_in", self._duplicates.unseen if self._settings.duplicates_in else set()),
            ("group_by", self._groups.unseen),
        ):
            for path in sorted(unseen):
                raise JobError(f"{setting}: no row has {path}; {seen_at(self._last, path)}")

    def _check_splits(self) -> None:
        for split, rows in self.counts.splits.items():
            if not rows:
                raise JobError(
                    f"split: no row falls to {split}, as the {count(self.counts.kept)} rows are in too few groups for these "
                    "shares: give another share or seed, or group_by a field with more values (id: each row by itself)"
                )

    def _write_arrow(self, files: Mapping[str, Sequence[str]]) -> None:
        from datasets import DatasetDict, load_dataset

        self._tell("writing it as load_from_disk reads it")
        with writing(self._folder / ARROW):
            dataset = load_dataset("parquet", data_files=dict(files), cache_dir=str(self._work / "cache"))
            DatasetDict(dataset).save_to_disk(str(self._folder / ARROW))

    def _tell_now_and_then(self, doing: str, done: int, of: int | None) -> None:
        if done % 1000 == 0:
            self._tell(f"{doing}: {count(done)}{f' of {count(of)}' if of is not None else ''} rows")


def _compared(layout: Layout, runs: Sequence[FinishedRun]) -> tuple[str, ...]:
    """By which fields rows are compared, if nothing else is said. Children of a row share its input, so their item counts."""
    if any(run.rows == "children" for run in runs):
        return tuple("item" if path == "input" else path for path in layout.compared)
    return layout.compared


def _origin(candidate: Candidate, part: int | None) -> dict[str, Any]:
    fields = candidate.fields
    found = {"run": fields["run"], "id": fields["id"], "index": fields.get("index")}
    return found if part is None else {**found, "part": part}


def _column(path: str, taken: Mapping[str, Any]) -> str:
    """The name of a column for a field: the last part of its path, or all of it where that is taken."""
    name = path.rpartition(".")[2]
    return path.replace(".", "_") if name in taken or name.isdecimal() else name


__all__ = ["Making", "Tell"]
