"""A Hugging Face dataset in; the same rows in the same order, with typed columns of their answers, out.

llmbatch.huggingface.run(dataset, model=..., prompt=...)            # Dataset, DatasetDict, IterableDataset, IterableDatasetDict
dataset.map(ask := llmbatch.huggingface.Map(model=..., prompt=...), batched=True, features=ask.features(dataset.features))
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import datasets
import pyarrow as pa

from llmbatch.core.errors import JobError
from llmbatch.core.events import Watcher
from llmbatch.engines.keeper import EngineKeeper
from llmbatch.integrations.frames import JobArguments, TableJob
from llmbatch.sources.tables import BATCH, fields_of


def run(
    dataset: Any,
    *,
    output: str | Path | None = None,
    watchers: Sequence[Watcher] = (),
    batch_size: int = 1000,
    **job: Unpack[JobArguments],
) -> Any:
    """Ask for every row of a dataset, or of each of its splits; one engine serves all of them. Gives a dataset of the same kind.

    A row that fails has no output, and an error. Answers by a schema are a struct with its types. With ``output`` a dataset is a
    run in that folder (a split in a folder below it), which the same call goes on with; else nothing is left on disk. A streamed
    dataset is asked as it is read, ``batch_size`` rows at a time, each batch a run of its own. Raises as ``llmbatch.run`` does.
    """
    if isinstance(dataset, datasets.IterableDataset | datasets.IterableDatasetDict):
        if output is not None:
            raise JobError("output: a streamed dataset is asked as it is read, with no run folder: leave it out")
        ask = Map(**job)
        return _each(dataset, lambda _, split: _stream(split, ask, batch_size))
    if not isinstance(dataset, datasets.Dataset | datasets.DatasetDict):
        raise JobError(
            f"a {type(dataset).__name__} is no dataset: give a datasets.Dataset, or llmbatch.generate any rows"
        )
    folder = None if output is None else Path(output).expanduser()
    with EngineKeeper() as keeper:
        table = TableJob(job, keeper if isinstance(dataset, datasets.DatasetDict) else None)
        return _each(dataset, lambda name, split: _whole(split, table, folder and folder / name, watchers))


class Map:
    """For ``dataset.map(ask, batched=True)``: columns of a batch in, the new columns out. Arguments are those of the job.

    One engine is kept between batches, one in each process where there are several. What ``datasets`` keeps of results goes by the
    job with its prompt, so that another one is not taken for it. ``features`` are to be given to ``map``: without them a batch in
    which every row fails has a column without a type.
    """

    def __init__(self, **job: Unpack[JobArguments]) -> None:
        self._arguments = job
        keeper = EngineKeeper()
        self._table = TableJob(job, keeper)
        self.close = weakref.finalize(self, keeper.close)
        """End the engine; it also ends with this object."""

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        columns = {name: batch[name] for name in batch}
        count = len(next(iter(columns.values()), ()))
        rows = (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
        return self._table.answers(rows, count, columns)

    def features(self, features: Mapping[str, Any]) -> datasets.Features:
        """Those of the result, of a dataset with these."""
        return datasets.Features({**features, **_features(self._table)})

    def __reduce__(self) -> tuple[Callable[..., Map], tuple[JobArguments, str]]:
        return _map_of, (self._arguments, self._table.digest)


def _map_of(arguments: JobArguments, _digest: str) -> Map:
    """As it was pickled. The digest is there to be hashed: by it ``datasets`` finds what it has of the same job."""
    return Map(**arguments)


def _each(dataset: Any, work: Callable[[str, Any], Any]) -> Any:
    """The work's result for a dataset, or the splits of one as they were."""
    if not isinstance(dataset, dict):
        return work("", dataset)
    return type(dataset)({name: work(str(name), split) for name, split in dataset.items()})


def _whole(data: Any, table: TableJob, output: Path | None, watchers: Sequence[Watcher]) -> Any:
    answers = table.answers(_rows(data, table.facts.needs), len(data), data.column_names, output, watchers)
    new, whole = datasets.Dataset.from_dict(answers, features=_features(table)), data.with_format(None)
    if len(data):
        result = datasets.concatenate_datasets([whole, new], axis=1, split=data.split)
    else:  # of which the library would drop one
        features = datasets.Features({**data.features, **new.features})
        result = datasets.Dataset.from_dict({name: [] for name in features}, features=features, split=data.split)
    kind = data.format["type"]
    return result if kind is None else result.with_format(kind, **data.format["format_kwargs"])


def _stream(data: Any, ask: Map, batch_size: int) -> Any:
    features = None if data.features is None else ask.features(data.features)
    return data.map(ask, batched=True, batch_size=batch_size, features=features)


def _rows(data: Any, needed: Collection[str]) -> Iterator[Any]:
    """Rows as they are stored, so that no image is decoded; sound and pictures that no prompt names stay where they are."""
    media = [name for name, feature in data.features.items() if hasattr(feature, "decode_example")]
    stored = data.remove_columns([name for name in media if name not in needed]).with_format("arrow")
    for batch in stored.iter(BATCH):
        yield from fields_of(batch)


def _features(table: TableJob) -> datasets.Features:
    return datasets.Features.from_arrow_schema(pa.schema(list(table.types.items())))


__all__ = ["Map", "run"]
