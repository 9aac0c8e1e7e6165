"""pandas and polars: ``df.llmbatch.run`` on the demo model against ``llmbatch run`` on the same rows."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))
from shown import Shown, tried, version_of

import llmbatch
from llmbatch.job.job import DEMO_MODEL

_CORPUS = DEMO_MODEL.parent / "corpus" / "numbers.jsonl"
_JOB: dict[str, Any] = {
    "model": "demo", "prompt": "translate-number", "sampling": {"temperature": 0},
    "engine": {"name": "transformers", "args": {"page_size": 32, "num_blocks": 64, "max_batch_tokens": 256, "device": "cpu"}},
}  # fmt: skip
_ROWS = 20


def results() -> Iterator[Shown]:
    """The rows of this part."""
    for name, show in (("pandas", _pandas), ("polars", _polars)):
        claim = "df.llmbatch.run gives the texts that `llmbatch run` gives, row by row"
        try:
            number = version_of(name)
        except Exception as missing:
            yield Shown(name, claim, name, "", None, str(missing))
            continue
        yield tried(name, claim, f"{name} and transformers on the demo model", number, show)


def _rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in _CORPUS.read_bytes().splitlines()[:_ROWS]]


def _job() -> dict[str, Any]:
    prompt = DEMO_MODEL.parent / "prompts" / "translate-number.yaml"
    return {**_JOB, "prompt": str(prompt)}


def _expected() -> list[Any]:
    with tempfile.TemporaryDirectory() as folder:
        return [record.output for record in llmbatch.run(input=_rows(), output=Path(folder) / "out", **_job())]


def _pandas() -> str:
    import pandas as pd

    import llmbatch.pandas  # noqa: F401 - registers the accessor

    rows = _rows()
    index = pd.MultiIndex.from_arrays(
        [[row["language"] for row in rows], [0] * len(rows)]
    )  # with labels that come again
    found = pd.DataFrame(rows, index=index).llmbatch.run(**_job())
    assert found["output"].tolist() == _expected()
    assert found.index.equals(index)
    return f"{len(found)} rows; an index of two levels with repeated labels is kept"


def _polars() -> str:
    import polars as pl

    import llmbatch.polars  # noqa: F401 - registers the namespace

    found = pl.DataFrame(_rows()).llmbatch.run(**_job())
    assert found["output"].to_list() == _expected()
    return f"{found.height} rows"
