"""Answers of a model in, the same answers out in a later run: a file that outlives run folders and that several runs may share.

The file is an SQLite database, as SQLite is the embedded store that comes with Python, lets several processes read and write at
once, and survives a kill at any moment. Nothing that happens to it breaks a run: at the first error the cache is off, and
``trouble`` says why. An answer is JSON, with a checksum, so that damage which SQLite does not see is no wrong answer either.
"""

from __future__ import annotations

import json
import sqlite3
import time
from array import array
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import Any

from llmbatch.core.types import Completion, RequestKey, Score, Usage

FORMAT = 1
_APPLICATION = 0x6C6C6D62  # "llmb": which program's file it is
_BUSY_SECONDS = 10.0  # how long another run's writing is waited for
_ASKED_AT_A_TIME = 500
_WRITTEN_AT_A_TIME = 512
_FLUSH_SECONDS = 1.0
_NO_ROW = RequestKey(-1)

_Entry = tuple[bytes, bytes, str]  # key, checksum, answer


class AnswerCache:
    """The answers of one model in a cache file. ``get`` is called from one thread, all else from another.

    ``identity`` is all that decides about an answer besides the request itself: the model, how it is loaded, the engine. Some of it
    is known only once an engine is up; until ``identify`` says it, nothing is found and nothing is kept.
    """

    def __init__(self, path: Path, identity: Mapping[str, str] | None = None) -> None:
        self._path = path
        self._identity = None if identity is None else _digest_of(identity)
        self._reader: sqlite3.Connection | None = None
        self._writer: sqlite3.Connection | None = None
        self._new: list[tuple[bytes, Completion]] = []
        self._flushed = time.monotonic()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="llmbatch-cache")
        self._writing: Future[None] | None = None
        self.trouble: str | None = None  # why it is off
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = _opened(path)
            self._reader = _connected(path)
        except (sqlite3.Error, OSError, ValueError) as error:
            self._off(error)

    def identify(self, identity: Mapping[str, str]) -> None:
        """Say whose answers are to be found and kept from now on."""
        self._identity = _digest_of(identity)

    def remember(self, before: Mapping[str, str], came_out: Mapping[str, str]) -> None:
        """Keep what an engine came out as, for a later run that begins with the same and may need no engine."""
        if self.trouble is None:
            self._executor.submit(self._write_engine, _digest_of(before), json.dumps(dict(came_out)))

    def recall(self, before: Mapping[str, str]) -> dict[str, str] | None:
        """What an engine came out as that began with the same; None where none did."""
        if self._reader is None or self.trouble is not None:
            return None
        try:
            found = self._reader.execute("SELECT came_out FROM engines WHERE key = ?", (_digest_of(before),)).fetchone()
            return None if found is None else {str(k): str(v) for k, v in json.loads(found[0]).items()}
        except (sqlite3.Error, ValueError, TypeError, AttributeError) as error:
            self._off(error)
            return None

    def get(self, digests: Iterable[bytes]) -> dict[bytes, Completion]:
        """The answers that are there, by the digest of their request; their ``key`` is nobody's."""
        if (identity := self._identity) is None:
            return {}
        wanted = {_key(identity, digest): digest for digest in digests}
        keys = list(wanted)
        found: dict[bytes, Completion] = {}
        for start in range(0, len(keys), _ASKED_AT_A_TIME):
            if self._reader is None or self.trouble is not None:
                break
            some = keys[start : start + _ASKED_AT_A_TIME]
            query = f"SELECT key, checksum, answer FROM answers WHERE key IN ({','.join('?' * len(some))})"  # noqa: S608
            try:
                entries: Sequence[_Entry] = self._reader.execute(query, some).fetchall()
            except sqlite3.Error as error:
                self._off(error)
                break
            for key, checksum, answer in entries:
                completion = _read(key, checksum, answer)
                if completion is not None:
                    found[wanted[key]] = completion
        return found

    def put(self, digest: bytes, completion: Completion) -> None:
        """Keep an answer; it is written a little later, in a thread of the cache's own."""
        if self.trouble is None and self._identity is not None:
            self._new.append((_key(self._identity, digest), completion))
            if len(self._new) >= _WRITTEN_AT_A_TIME or time.monotonic() - self._flushed > _FLUSH_SECONDS:
                self.flush()

    def flush(self) -> Future[None] | None:
        """Write what is not written yet, without waiting for it: the future is done once all that was put is in the file."""
        new, self._new, self._flushed = self._new, [], time.monotonic()
        if new and self.trouble is None:
            self._writing = self._executor.submit(self._write, new)
        return self._writing

    def close(self) -> None:
        """Write what is left and close the file. May be called twice."""
        self.flush()
        self._executor.shutdown()
        for connection in (self._reader, self._writer):
            if connection is not None:
                try:
                    connection.close()
                except sqlite3.Error as error:
                    self._off(error)
        self._reader = self._writer = None

    def _write(self, new: Sequence[tuple[bytes, Completion]]) -> None:
        if self._writer is None or self.trouble is not None:
            return
        try:
            with self._writer:  # a transaction
                self._writer.executemany(
                    "INSERT OR REPLACE INTO answers (key, checksum, answer) VALUES (?, ?, ?)",
                    [_entry(key, completion) for key, completion in new],
                )
        except (sqlite3.Error, TypeError, ValueError) as error:
            self._off(error)

    def _write_engine(self, key: bytes, came_out: str) -> None:
        if self._writer is None or self.trouble is not None:
            return
        try:
            with self._writer:
                self._writer.execute("INSERT OR REPLACE INTO engines (key, came_out) VALUES (?, ?)", (key, came_out))
        except sqlite3.Error as error:
            self._off(error)

    def _off(self, error: Exception) -> None:
        if self.trouble is None:
            self.trouble = f"{self._path}: the cache cannot be used ({error}); the run goes on without it"


def _digest_of(identity: Mapping[str, str]) -> bytes:
    return blake2b(json.dumps([FORMAT, sorted(identity.items())]).encode(), digest_size=32).digest()


def _key(identity: bytes, digest: bytes) -> bytes:
    return blake2b(digest, digest_size=16, key=identity).digest()


def _connected(path: Path) -> sqlite3.Connection:
    # made in one thread, used in one other
    return sqlite3.connect(path, timeout=_BUSY_SECONDS, check_same_thread=False)


def _opened(path: Path) -> sqlite3.Connection:
    """A connection to a cache file, which is made if need be. Raises ``ValueError`` for a file that is something else."""
    connection = _connected(path)
    try:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if (application, version) != (_APPLICATION, FORMAT):
            if application == _APPLICATION:
                raise ValueError(f"its format is {version}, and this llmbatch knows {FORMAT}: give another file")
            if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise ValueError("it is another program's database: give another file")
        connection.execute("PRAGMA journal_mode=WAL")  # readers do not wait for a writer
        connection.execute("PRAGMA synchronous=NORMAL")  # a power cut may cost the last answers, and never the file
        with connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, checksum BLOB NOT NULL, answer TEXT NOT NULL)"
            )
            connection.execute("CREATE TABLE IF NOT EXISTS engines (key BLOB PRIMARY KEY, came_out TEXT NOT NULL)")
            connection.execute(f"PRAGMA application_id={_APPLICATION}")
            connection.execute(f"PRAGMA user_version={FORMAT}")
    except BaseException:
        connection.close()
        raise
    return connection


def _entry(key: bytes, completion: Completion) -> _Entry:
    usage = completion.usage
    answer = json.dumps(
        {
            "text": completion.text,
            "finish_reason": completion.finish_reason,
            "usage": usage.as_dict(),
            "token_ids": list(completion.token_ids),
            "reasoning": completion.reasoning,
            "stop_reason": completion.stop_reason,
            "logprobs": completion.logprobs,
            **({} if completion.score is None else {"score": list(completion.score)}),
            **({} if (numbers := completion.numbers) is None else {"numbers": b64encode(numbers.tobytes()).decode()}),
            **({} if completion.tool_calls is None else {"tool_calls": completion.tool_calls}),
        },
        separators=(",", ":"),
    )
    return key, _checksum(key, answer), answer


def _read(key: bytes, checksum: bytes, answer: str) -> Completion | None:
    """The answer of an entry; ``None`` for one that is damaged, and then it is computed again."""
    try:
        if _checksum(key, answer) != checksum:
            return None
        body: dict[str, Any] = json.loads(answer)
        body["usage"] = Usage(**body["usage"])
        body["score"] = Score(*body["score"]) if "score" in body else None
        body["numbers"] = array("f", b64decode(body["numbers"], validate=True)) if "numbers" in body else None
        return Completion(_NO_ROW, **body, reused_from="cache")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _checksum(key: bytes, answer: str) -> bytes:
    return blake2b(answer.encode(), digest_size=8, key=key).digest()


__all__ = ["FORMAT", "AnswerCache"]
