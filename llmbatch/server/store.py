"""Files and batches of a server, on disk: their metadata in SQLite, their content beside it. What is said to be there stays there.

    DIR/server.sqlite        files and batches, one row each
    DIR/files/ID             the content of a file, whole
    DIR/uploads/             files that are still coming in; emptied at the start
    DIR/batches/ID/          a batch: its input, and its run folder
    DIR/lock                 which server has DIR

A file's content is there before its row is, and goes after it: what lies there without a row was not finished, and goes at the next
start. A batch's folder goes with the last of its files, and of one that has none here, as its results are in a bucket, some time
after its end: nobody can delete it.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from llmbatch.core.errors import FolderError, ReadError, WriteError
from llmbatch.core.faults import point
from llmbatch.core.files import fsync_folder, writing
from llmbatch.folder.lock import Lock

MIGRATIONS = (
    """
    create table files (
        number integer primary key autoincrement, id text not null unique, owner text not null, purpose text not null,
        filename text not null, bytes integer not null, created integer not null, expires integer
    );
    create index files_of_owner on files (owner, number);
    create table batches (
        number integer primary key autoincrement, id text not null unique, owner text not null, front text not null,
        state text not null, created integer not null, expires integer, priority integer not null, weight real not null,
        given text not null, facts text not null
    );
    create index batches_of_owner on batches (owner, front, number);
    create index batches_in_state on batches (state);
    """,
)
"""Each brings the database one version further; ``user_version`` says how many were done. None is ever changed."""

ENDED = ("completed", "failed", "expired", "cancelled")
_KEPT_SECONDS = 30 * 86400  # that the folder of a batch without files here is kept after its end


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file. Times are in Unix seconds."""

    id: str
    owner: str
    purpose: str
    filename: str
    bytes: int
    created: int
    expires: int | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What came out about a batch so far. ``times`` has when it came into each state; ``errors`` are why it failed.

    ``rows`` is how many its input has; ``done`` and ``failed`` count lines of answers and of errors once it is over.
    """

    times: Mapping[str, int] = field(default_factory=dict)
    errors: list[dict[str, Any]] = field(default_factory=list)
    model: str | None = None
    rows: int = 0
    done: int = 0
    failed: int = 0
    results: Mapping[str, str] = field(default_factory=dict)  # ids of their files, by their role
    usage: Mapping[str, int] | None = None
    ending: str | None = None  # the state that it is brought to, once nothing more of it is run


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch. ``given`` is what its front was given and alone understands; ``expires``: when it ends, done or not."""

    id: str
    owner: str
    front: str
    created: int
    expires: int | None
    given: Mapping[str, Any]
    state: str = "validating"
    priority: int = 0
    weight: float = 1.0
    facts: Facts = Facts()

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def given_up(self) -> bool:
        """Whether it failed before its results were there, and not by what it asks for: it may be taken up again."""
        why = [error["code"] for error in self.facts.errors]
        return self.state == "failed" and bool(self.facts.rows) and not self.facts.results and why == ["server_error"]


def new_id(prefix: str) -> str:
    return f"{prefix}{secrets.token_hex(12)}"


class OwnerFull(Exception):
    """An owner's files would be larger than they may be."""


class Store:
    """Raises ``WriteError`` and ``ReadError`` for what cannot be written or read. May be called from any thread."""

    def __init__(self, folder: Path) -> None:
        """Raises ``Locked`` while another server has the folder, and ``FolderError`` for one of a newer version."""
        self.folder = folder
        with writing(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # what people ask is nobody else's on this machine
            for name in ("files", "uploads", "batches"):
                (folder / name).mkdir(exist_ok=True)
        self._lock = Lock(folder / "lock")
        self.taken = self._lock.acquire()
        try:
            self._writer, self._reader = self._connect(), self._connect()
            self._writing, self._reading = threading.RLock(), threading.Lock()
            self._migrate()
            self._tidy()
        except BaseException:
            self._lock.release()
            raise

    def close(self) -> None:
        with self._writing, self._reading:
            self._writer.close()
            self._reader.close()
        self._lock.release()

    # Where things lie.

    def content(self, file_id: str) -> Path:
        return self.folder / "files" / file_id

    def upload(self, file_id: str) -> Path:
        """Where a file lies as long as it comes in."""
        return self.folder / "uploads" / file_id

    def batch_folder(self, batch_id: str) -> Path:
        return self.folder / "batches" / batch_id

    def run_folder(self, batch_id: str) -> Path:
        return self.batch_folder(batch_id) / "run"

    def input(self, batch_id: str) -> Path:
        """The input of a batch: it stays as it is, also where the file that it came in is deleted."""
        return self.batch_folder(batch_id) / "input.jsonl"

    # Files.

    def keep(self, file: StoredFile, most: int | None = None) -> None:
        """Take in a file that lies whole and synced at ``upload``.

        Raises ``OwnerFull`` where its owner would have more than ``most`` bytes then.
        """
        place = self.content(file.id)
        with writing(place):
            self.upload(file.id).replace(place)
        try:
            fsync_folder(place.parent)
            point("file-stored")
            with self._write() as db:
                (stored,) = db.execute(_STORED, {"owner": file.owner}).fetchone()
                if most is not None and stored + file.bytes > most:
                    raise OwnerFull
                _insert_files(db, [file])
        except BaseException:
            self._unlink(place)  # nobody would find it, and the disk may be full
            raise

    def stored(self, owner: str | None = None) -> int:
        """How many bytes an owner's files have, or all files."""
        return int(self._read(_STORED, {"owner": owner})[0][0])

    def file(self, file_id: str, owner: str) -> StoredFile | None:
        rows = self._read("select * from files where id = ? and owner = ?", (file_id, owner))
        found = _file(rows[0]) if rows else None
        return None if found is not None and found.expires is not None and found.expires <= time.time() else found

    def files(
        self, owner: str, *, purpose: str | None, after: str | None, limit: int, descending: bool
    ) -> list[StoredFile]:
        """A page of an owner's files, the newest first if ``descending``, from behind ``after`` on."""
        sign, order = ("<", "desc") if descending else (">", "asc")
        rows = self._read(
            f"select * from files where owner = :owner and (:purpose is null or purpose = :purpose) "  # noqa: S608 - our own words
            f"and (expires is null or expires > :now) and (:after is null or number {sign} "
            f"(select number from files where id = :after and owner = :owner)) order by number {order} limit :limit",
            {"owner": owner, "purpose": purpose, "after": after, "limit": limit, "now": time.time()},
        )
        return list(map(_file, rows))

    def remove_file(self, file_id: str, owner: str) -> bool:
        """Whether it was there. With the last file of a batch that is over, its run folder goes too."""
        with self._write() as db:
            gone = db.execute("delete from files where id = ? and owner = ?", (file_id, owner)).rowcount > 0
        if gone:
            self._unlink(self.content(file_id))
            self._remove_unreachable(file_id)
        return gone

    def remove_expired(self) -> None:
        rows = self._read("select * from files where expires <= ?", (time.time(),))
        for file in map(_file, rows):
            self.remove_file(file.id, file.owner)
        marks = ", ".join("?" * len(ENDED))
        long_ago = time.time() - _KEPT_SECONDS
        old = self._read(f"select * from batches where created < ? and state in ({marks})", (long_ago, *ENDED))  # noqa: S608
        for batch in map(_batch, (row for row in old if self.batch_folder(row[1]).is_dir())):
            if max(batch.facts.times.values(), default=0) < long_ago and not self._files_of(batch):
                shutil.rmtree(self.batch_folder(batch.id), ignore_errors=True)

    # Batches.

    def add_batch(self, batch: Batch, source: Path | None = None) -> None:
        """Take in a batch, with its input where it has one: whole or not at all.

        Raises ``FileNotFoundError`` where ``source`` was deleted meanwhile.
        """
        folder = self.batch_folder(batch.id)
        with writing(folder):
            folder.mkdir()
        try:
            self._fill(folder, batch, source)
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)  # else a batch of the same name could not be made again
            if source is not None and isinstance(error.__cause__, FileNotFoundError):
                raise FileNotFoundError(source) from error
            raise

    def _fill(self, folder: Path, batch: Batch, source: Path | None) -> None:
        if source is not None:
            with writing(self.input(batch.id)):
                _link(source, self.input(batch.id))
        fsync_folder(folder)
        fsync_folder(self.folder / "batches")
        point("batch-folder-made")
        with self._write() as db:
            values = asdict(batch)
            values |= {"given": json.dumps(values["given"]), "facts": json.dumps(values["facts"])}
            db.execute(_INSERT_BATCH, values)
        point("batch-created")

    def batch(self, batch_id: str, owner: str | None = None) -> Batch | None:
        """A batch; with an owner only if it is its own."""
        rows = self._read(
            "select * from batches where id = :id and (:owner is null or owner = :owner)",
            {"id": batch_id, "owner": owner},
        )
        return _batch(rows[0]) if rows else None

    def batches(self, owner: str, *, front: str | None, after: str | None, limit: int) -> list[Batch]:
        """A page of an owner's batches, the newest first, from behind ``after`` on."""
        rows = self._read(
            "select * from batches where owner = :owner and (:front is null or front = :front) and (:after is null or number < "
            "(select number from batches where id = :after and owner = :owner)) order by number desc limit :limit",
            {"owner": owner, "front": front, "after": after, "limit": limit},
        )
        return list(map(_batch, rows))

    def unfinished(self) -> list[Batch]:
        """In the order in which they came."""
        marks = ", ".join("?" * len(ENDED))
        rows = self._read(f"select * from batches where state not in ({marks}) order by number", ENDED)  # noqa: S608
        return list(map(_batch, rows))

    def counts(self) -> dict[str, int]:
        """How many batches are in which state."""
        return dict(self._read("select state, count(*) from batches group by state", ()))

    def change(
        self,
        batch_id: str,
        state: str | None = None,
        *,
        only: tuple[str, ...] = (),
        files: Iterable[StoredFile] = (),
        **facts: Any,
    ) -> Batch:
        """Bring a batch into a state, with what came out and the files of its results, at once or not at all.

        Without a state it stays in the one that it is in. With ``only`` all of it stays as it is where it is in none of these.
        Returns it as it then is.
        """
        with self._write() as db:
            (row,) = db.execute("select * from batches where id = ?", (batch_id,)).fetchall()
            batch = _batch(row)
            if only and batch.state not in only:
                return batch
            times = dict(batch.facts.times)
            if state is None or state == batch.state:
                state = batch.state
            else:
                times[state] = int(time.time())
            if state not in ENDED:  # one that is taken up again is not over
                times = {name: time_ for name, time_ in times.items() if name not in ENDED}
            batch = replace(batch, state=state, facts=replace(batch.facts, times=times, **facts))
            _insert_files(db, files)
            db.execute(
                "update batches set state = ?, facts = ? where id = ?",
                (batch.state, json.dumps(asdict(batch.facts)), batch_id),
            )
        return batch

    # Its own matters.

    def _connect(self) -> sqlite3.Connection:
        path = self.folder / "server.sqlite"
        try:
            connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)
            connection.execute("pragma journal_mode = wal")
            connection.execute("pragma synchronous = full")
        except sqlite3.Error as error:
            raise FolderError(f"{path}: cannot be used as the server's store: {error}") from error
        return connection

    def _migrate(self) -> None:
        (version,) = self._writer.execute("pragma user_version").fetchone()
        if version > len(MIGRATIONS):
            raise FolderError(
                f"{self.folder}: was written by a newer llmbatch (version {version} of the store, this knows {len(MIGRATIONS)}): "
                "upgrade llmbatch, or give another --data"
            )
        for number, script in enumerate(MIGRATIONS[version:], version + 1):
            self._writer.executescript(f"begin; {script} pragma user_version = {number}; commit;")

    def _tidy(self) -> None:
        """Remove what a killed server left half done: uploads, contents and folders without a row."""
        for leftover in (self.folder / "uploads").iterdir():
            self._unlink(leftover)
        files = {name for (name,) in self._read("select id from files", ())}
        for content in (self.folder / "files").iterdir():
            if content.name not in files:
                self._unlink(content)
        batches = {name for (name,) in self._read("select id from batches", ())}
        for folder in (self.folder / "batches").iterdir():
            if folder.name not in batches:
                shutil.rmtree(folder, ignore_errors=True)

    def _remove_unreachable(self, file_id: str) -> None:
        """Whoever deletes input and results of a batch wants nothing of them to stay."""
        rows = self._read(
            "select * from batches where instr(given, ?) or instr(facts, ?)", (json.dumps(file_id), json.dumps(file_id))
        )
        for batch in map(_batch, rows):
            if batch.ended and not self._files_of(batch):
                shutil.rmtree(self.batch_folder(batch.id), ignore_errors=True)

    def _files_of(self, batch: Batch) -> bool:
        """Whether its input or one of its results is a file here."""
        named = {*batch.facts.results.values(), *(v for v in batch.given.values() if isinstance(v, str))}
        return any(self.file(name, batch.owner) for name in named)

    def _unlink(self, path: Path) -> None:
        with writing(path):
            path.unlink(missing_ok=True)

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._writing:
            try:
                self._writer.execute("begin immediate")
                yield self._writer
                self._writer.execute("commit")
            except BaseException as error:
                if self._writer.in_transaction:
                    self._writer.execute("rollback")
                if isinstance(error, sqlite3.OperationalError):
                    raise WriteError(
                        f"{self.folder / 'server.sqlite'}: {error}; free some space, or repair it"
                    ) from error
                raise

    def _read(self, query: str, values: Any) -> list[Any]:
        with self._reading:
            try:
                return self._reader.execute(query, values).fetchall()
            except sqlite3.OperationalError as error:
                raise ReadError(f"{self.folder / 'server.sqlite'}: {error}") from error


_STORED = "select coalesce(sum(bytes), 0) from files where :owner is null or owner = :owner"
_INSERT_BATCH = (
    "insert into batches (id, owner, front, state, created, expires, priority, weight, given, facts) "
    "values (:id, :owner, :front, :state, :created, :expires, :priority, :weight, :given, :facts)"
)


def _insert_files(db: sqlite3.Connection, files: Iterable[StoredFile]) -> None:
    """A file that is there already is the same one: results are written again after a kill."""
    db.executemany(
        "insert or ignore into files (id, owner, purpose, filename, bytes, created, expires) "
        "values (:id, :owner, :purpose, :filename, :bytes, :created, :expires)",
        [asdict(file) for file in files],
    )


def _file(row: tuple[Any, ...]) -> StoredFile:
    return StoredFile(*row[1:])


def _batch(row: tuple[Any, ...]) -> Batch:
    _, batch_id, owner, front, state, created, expires, priority, weight, given, facts = row
    return Batch(
        batch_id, owner, front, created, expires, json.loads(given), state, priority, weight, Facts(**json.loads(facts))
    )


def _link(source: Path, place: Path) -> None:
    """The same content under a second name: it takes no room, and stays where the first one is removed."""
    try:
        os.link(source, place)
    except OSError:  # a file system without hard links
        with source.open("rb") as whole, place.open("xb") as copy:
            shutil.copyfileobj(whole, copy)
            copy.flush()
            os.fsync(copy.fileno())


__all__ = ["ENDED", "Batch", "Facts", "OwnerFull", "Store", "StoredFile", "new_id"]
