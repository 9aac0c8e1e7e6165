"""Requests of another tool, as token ids, in; an answer or a likelihood for each, in their order, out.

Each batch is a run in a folder of its own, named by what is asked: the same batch again goes on where the last run of it ended, or
finds it finished. Batches share a cache of answers besides, so that a batch which only begins like an earlier one, or has some
requests more, asks only for what is new. One engine serves them all.
"""

from __future__ import annotations

import json
import tempfile
from array import array
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from llmbatch.core.check import Verdict
from llmbatch.core.errors import JobError, RunError, Stopped
from llmbatch.core.files import atomic_write
from llmbatch.core.types import Constraint, Prompt, Record, Sampling, Score, Status
from llmbatch.engines.keeper import EngineKeeper
from llmbatch.engines.kinds import ModelFacts, TokenizerSource, kind_of
from llmbatch.folder.folder import ERRORS, read_results
from llmbatch.job.identity import identity_of, model_identity
from llmbatch.job.job import Job, job_from
from llmbatch.model.tokenizer import context_length
from llmbatch.programs.base import Ask, Incomplete, Program, ProgramKind, RowAsk
from llmbatch.runs.session import run_job
from llmbatch.watch.watching import watching

_SAMPLINGS_KEPT = 4096
_FAILED_SHOWN = 3


class Asked(NamedTuple):
    """One request. ``text`` is what the ids stand for, for a person who looks into the run folder; ``said`` is whose it is.

    ``target`` are the ids of a continuation whose likelihood is asked for; without it an answer is, drawn as ``sampling`` says, by
    the names of vLLM's ``SamplingParams``.
    """

    said: str
    text: str
    ids: Sequence[int]
    target: Sequence[int] | None = None
    sampling: Mapping[str, Any] | None = None
    seed: int | None = None

    def row(self) -> dict[str, Any]:
        """The request as a row of a run."""
        given = {"target": self.target, "sampling": self.sampling, "seed": self.seed}
        row = {"of": self.said, "text": self.text, "ids": list(self.ids)}
        return {**row, **{key: value for key, value in given.items() if value is not None}}


class _Anything:
    """A check that every answer passes: the other tool judges them."""

    constraint: Constraint | None = None

    def __call__(self, text: str, row: Mapping[str, Any] | None = None, *, cut_off: bool = False) -> Verdict:  # noqa: ARG002
        return Verdict(text, None)


_ANYTHING = _Anything()


def _given(row: RowAsk) -> Program:
    data = row.row.data
    target = data.get("target")
    answer = yield Ask(
        Prompt(text=data["text"]),
        _sampling(json.dumps(data.get("sampling") or {}, sort_keys=True)),
        seed=data.get("seed"),
        token_ids=array("I", data["ids"]),
        target=None if target is None else "",
        target_ids=() if target is None else array("I", target),
        check=_ANYTHING,
    )
    if answer is None:
        return Incomplete()
    return list(answer.value) if isinstance(answer.value, Score) else answer.value


GIVEN = ProgramKind(shape=_given, prompts=lambda _settings: (), keeps_row=False)
"""The program of such a run: it asks with the ids of the row."""


@lru_cache(maxsize=_SAMPLINGS_KEPT)
def _sampling(text: str) -> Sampling:
    """Equal settings are one object, as the engine's loop wants it."""
    settings = json.loads(text)
    return Sampling(tuple(sorted((k, tuple(v) if isinstance(v, list) else v) for k, v in settings.items())))


class Batches:
    """The batches of one model. ``output`` is the folder that their run folders and the cache are in; without one nothing stays.

    Made without an engine being started; that happens with the first batch that is not known already.
    """

    def __init__(self, model: str, engine: Mapping[str, Any], output: Path | None) -> None:
        self._temporary = None if output is not None else tempfile.TemporaryDirectory(prefix="llmbatch-")
        self._output = Path(self._temporary.name) if self._temporary is not None else Path(output or ".").expanduser()
        self._stays = output is not None
        self._model = model
        self._engine = dict(engine)
        self._keeper = EngineKeeper()
        self._job = self._job_of("batch")  # says what is wrong with model and engine
        self._identity = json.dumps(model_identity(identity_of(self._job)), sort_keys=True)

    @property
    def model_path(self) -> str:
        """What the engine is given as its model."""
        return self._job.model_path

    @property
    def tokenizer(self) -> TokenizerSource:
        """Where the tokenizer comes from, where it is not the model's own."""
        return kind_of(self._job.engine.name).tokenizer(self._job.engine)

    @property
    def context_length(self) -> int:
        """Tokens of prompt and answer together, as the engine's arguments and the model's config have it."""
        length = context_length(self.model_path, self.tokenizer.revision)
        limits = kind_of(self._job.engine.name).limits(self._job.engine, ModelFacts(self.model_path, length))
        return limits.context_length or length

    def prove(self) -> None:
        """Have the engine look at its arguments and its model, before it is started. Raises ``JobError`` for what is wrong."""
        self._output.mkdir(parents=True, exist_ok=True)
        job = self._job
        engine = self._keeper.make_any(self.model_path, job.engine, job.chat, self._output / "engine.log")
        if engine.tokenize(()) is None:
            raise JobError(f"engine {job.engine.name}: it takes no token ids, and these requests are token ids")

    def run(self, kind: str, asked: Sequence[Asked]) -> list[Any]:
        """An answer's text for each request, or its ``Score``. Raises ``RunError`` where one has none, and ``Stopped``."""
        if not asked:
            return []
        content = b"".join(_lines(asked))
        name = f"{kind}-{blake2b(content, digest_size=8, key=_key(self._identity)).hexdigest()}"
        rows = self._output / f"{name}.jsonl"
        if not rows.exists():
            rows.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(rows, content)
        job = self._job_of(name)
        with watching() as watcher:
            result = run_job(job, [watcher], make=self._keeper.make_any)
        if result.outcome != "finished":
            raise Stopped(f"{result.report['error'] or 'the run was stopped'}; the same command goes on from here")
        return _values(list(read_results(result.folder)), asked, result.folder)

    def close(self) -> None:
        """End the engine; of batches without an output folder nothing is left."""
        self._keeper.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    def _job_of(self, name: str) -> Job:
        reuse = {"cache": self._output / "answers.cache"} if self._stays else {}
        return job_from(
            {
                "model": self._model,
                "prompt": {"path": "{{ text }}"},
                "input": {"path": self._output / f"{name}.jsonl", "format": "jsonl"},
                "output": self._output / name,
                "program": {"name": f"{__name__}:GIVEN"},
                "engine": self._engine,
                "reuse": reuse,
                "run": {"page": self._stays},
            }
        )


def _lines(asked: Sequence[Asked]) -> Iterator[bytes]:
    for each in asked:
        yield json.dumps(each.row(), ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"


def _key(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=32).digest()


def _values(records: Sequence[Record], asked: Sequence[Asked], folder: Path) -> list[Any]:
    failed = [record for record in records if record.status is not Status.OK]
    if failed:
        shown = [
            f"{asked[record.index].said}: {record.failure.message}"
            for record in failed[:_FAILED_SHOWN]
            if record.failure
        ]
        raise RunError(
            f"{len(failed):,} of {len(records):,} requests have no answer, so there is no score: {'; '.join(shown)}. "
            f"All of them are in {folder / ERRORS}"
        )
    return [
        record.output if each.target is None else Score(*record.output)
        for record, each in zip(records, asked, strict=True)
    ]


__all__ = ["GIVEN", "Asked", "Batches"]
