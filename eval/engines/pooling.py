"""What numbers for many texts take: rows a second, memory, and a run that is killed half-way; as JSON beside this file.

    pooling.py [--texts N] [--dimensions N] [--real N]

100,000 texts on the scripted engine, whose vectors cost next to nothing, so that the figures are those of llmbatch; and 2,000 on
vLLM with an encoder whose weights are random. Each run is a process of its own, whose largest memory the kernel tells.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
FIGURES = HERE / "pooling.json"
TEXTS, DIMENSIONS, REAL = 100_000, 1024, 2_000
_WORDS = (
    "corpus",
    "vector",
    "of",
    "the",
    "model",
    "batch",
    "engine",
    "reads",
    "a",
    "row",
    "and",
    "gives",
    "numbers",
    "no",
    "text",
)
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def main(texts: int = TEXTS, dimensions: int = DIMENSIONS, real: int = REAL) -> None:
    """Measure, and write the figures."""
    from run import made_with

    figures: dict[str, Any] = {**made_with(), "processors": len(os.sched_getaffinity(0))}
    with tempfile.TemporaryDirectory(prefix="llmbatch-pooling-") as name:
        folder = Path(name)
        scripted = {"name": "scripted", "args": {"dimensions": dimensions}}
        figures["scripted"] = measured(folder / "scripted", texts, "any", scripted)
        if real and find_spec("vllm") is None:
            figures["vllm"] = "vLLM is not installed"
        elif real:
            model = make_model(folder / "model", "embed", hidden=384, layers=6)
            figures["vllm"] = measured(folder / "vllm", real, str(model), {"name": "vllm"})
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def report(figures: Mapping[str, Any]) -> list[str]:
    """The figures in words."""
    lines = [
        "## Numbers for many texts\n",
        f"On {figures['processors']} processors; a killed run is ended by SIGKILL when half of its rows are there, and finished by "
        "the same command.\n",
        "| engine | texts | numbers each | rows/s | memory, MiB | results, MB | bytes after the kill | rows done twice |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in ("scripted", "vllm"):
        one = figures.get(name)
        if isinstance(one, Mapping):
            same = "the same" if one["same_bytes"] else "OTHERS"
            lines.append(
                f"| {name} | {one['rows']:,} | {one['dimensions']:,} | {one['rows_per_s']:,.0f} | {one['memory_mib']:,.0f} | "
                f"{one['results_mb']:,.0f} | {same} | {one['rows_twice']} |"
            )
        elif one:
            lines.append(f"| {name} | not shown: {one} |" + " |" * 6)
    return lines


def measured(folder: Path, rows: int, model: str, engine: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of one engine: an undisturbed run, and one that is killed when half of its rows are there."""
    folder.mkdir()
    corpus = folder / "corpus.jsonl"
    corpus.write_text("".join(_lines(rows)), encoding="utf-8")
    whole, killed = folder / "whole", folder / "killed"
    process = _start(folder, corpus, whole, model, engine)
    memory = _ended(process)
    said = json.loads((whole / "report.json").read_text(encoding="utf-8"))
    process = _start(folder, corpus, killed, model, engine)
    while process.poll() is None and _done(killed) < rows / 2:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = _done(killed)
    _ended(_start(folder, corpus, killed, model, engine))
    again = json.loads((killed / "report.json").read_text(encoding="utf-8"))["sessions"][-1]["rows"]
    results = whole / "results.jsonl"
    with results.open(encoding="utf-8") as stream:
        first = json.loads(stream.readline())["output"]
    return {
        "rows": rows,
        "ok": said["rows"]["by_status"]["ok"],
        "dimensions": len(first),
        "rows_per_s": said["speed"]["rows"],
        "idle_share": said["sessions"][-1]["idle_share"],
        "memory_mib": memory / 1024,
        "results_mb": results.stat().st_size / 1e6,
        "done_at_the_kill": before,
        "rows_twice": before + again - rows,
        "same_bytes": _digest(results) == _digest(killed / "results.jsonl"),
    }


def _lines(rows: int) -> Iterator[str]:
    rng = random.Random(3)
    for number in range(rows):
        words = " ".join(rng.choices(_WORDS, k=rng.randint(8, 40)))
        yield json.dumps({"id": number, "text": f"{words} {number}"}) + "\n"


def _start(folder: Path, corpus: Path, output: Path, model: str, engine: Mapping[str, Any]) -> subprocess.Popen[bytes]:
    job = {"model": model, "program": {"name": "embed"}, "input": str(corpus), "output": str(output), "engine": engine}
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job), encoding="utf-8")
    return subprocess.Popen([sys.executable, "-m", "llmbatch.cli", "run", str(path), "--quiet"])


def _ended(process: subprocess.Popen[bytes]) -> int:
    """KiB that it had at most, without the processes below it. Raises ``RuntimeError`` where it failed."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"llmbatch run ended with {process.returncode}")
    return usage.ru_maxrss


def _done(output: Path) -> int:
    """Rows whose record is on disk: lines of sealed parts, and entries of journals behind their header."""
    count = 0
    for path in (output / "parts").glob("part-*.j*"):
        try:
            lines = sum(block.count(b"\n") for block in _blocks(path))
        except OSError:  # sealed this moment
            continue
        if path.suffix == ".jsonl":
            count += lines
        elif not path.with_suffix(".jsonl").exists():
            count += max(0, lines - 1)
    return count


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    for block in _blocks(path):
        found.update(block)
    return found.hexdigest()


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            yield block


def make_model(
    folder: Path, kind: str, *, classes: Sequence[str] = (), hidden: int = 64, layers: int = 2, seed: int = 7
) -> Path:
    """A BERT with random weights, and a tokenizer of its own: one that gives vectors (``embed``), or sorts into ``classes``."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    alphabet = [chr(code) for code in range(33, 127)]
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=list(_SPECIAL), initial_alphabet=alphabet)
    tokenizer.train_from_iterator([" ".join(_WORDS)], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]",
        mask_token="[MASK]", model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip
    fast.save_pretrained(folder)
    torch.manual_seed(seed)
    labels = {"id2label": dict(enumerate(classes)), "label2id": {name: number for number, name in enumerate(classes)}}
    config = BertConfig(
        vocab_size=len(fast), hidden_size=hidden, intermediate_size=4 * hidden, num_hidden_layers=layers,
        num_attention_heads=hidden // 32, max_position_embeddings=256, initializer_range=0.2, dtype="float32",
        **(labels if classes else {}),
    )  # fmt: skip
    made = BertModel(config) if kind == "embed" else BertForSequenceClassification(config)
    made.to(torch.float32).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--texts", type=int, default=TEXTS, help="on the scripted engine")
    parser.add_argument("--dimensions", type=int, default=DIMENSIONS, help="of its vectors")
    parser.add_argument("--real", type=int, default=REAL, help="texts on vLLM; 0 leaves it out")
    asked = parser.parse_args()
    main(asked.texts, asked.dimensions, asked.real)
    print("\n".join(report(json.loads(FIGURES.read_text(encoding="utf-8")))))
