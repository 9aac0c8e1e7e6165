"""Evaluations on the real engine with the demo model: generation, multiple choice by likelihood, perplexity in windows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmbatch.engines.keeper import EngineKeeper
from llmbatch.evals.evaluate import Asked, Evaluated, evaluate
from llmbatch.evals.task import Task, load_task
from llmbatch.job.job import DEMO_MODEL
from llmbatch.programs.perplexity import rolling

pytestmark = pytest.mark.vllm

CONTEXT = 192
ARGS = {
    "enforce_eager": True, "kv_cache_memory_bytes": 1 << 27, "max_num_seqs": 32, "dtype": "float32", "max_model_len": CONTEXT,
}  # fmt: skip


@pytest.fixture(scope="module")
def keeper() -> Iterator[EngineKeeper]:
    with EngineKeeper() as keeper:
        yield keeper


def run(keeper: EngineKeeper, task: Task, output: Path, **asked: Any) -> Evaluated:
    settings = {"engine": {"args": ARGS}}
    return evaluate(task, Asked("demo", output, settings=settings, **asked), make=keeper.make)


def shipped(name: str) -> Task:
    task = load_task(name)
    assert isinstance(task, Task)
    return task


def examples(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "examples.jsonl").read_bytes().splitlines()]


def test_the_demo_model_is_right_where_it_was_trained_to_be(keeper: EngineKeeper, tmp_path: Path) -> None:
    done = run(keeper, shipped("demo-numbers"), tmp_path / "numbers", limit=24)
    assert done.result.exit_code == 0
    assert done.scores is not None
    figure = done.scores.overall.figures["exact_match"]
    assert figure.value is not None and figure.value > 0.9
    assert figure.low is not None and figure.low < figure.value


def test_choices_are_told_by_their_likelihood_as_the_models_own_logits_have_it(
    keeper: EngineKeeper, tmp_path: Path
) -> None:
    output = tmp_path / "choice"
    done = run(keeper, shipped("demo-choice"), output, limit=16)
    assert done.scores is not None
    value = done.scores.overall.figures["choice_accuracy"].value
    assert value is not None and value > 0.9  # one choice of row 6 is the start of the right one, and so likelier
    record = json.loads((output / "results.jsonl").read_text().splitlines()[0])
    line = json.loads((output / "input.jsonl").read_text().splitlines()[0])
    model, tokenizer = loaded()
    messages = [
        {"role": "system", "content": f"Translate to {line['language']}."},
        {"role": "user", "content": line["text"]},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    context = tokenizer(text, add_special_tokens=False)["input_ids"]
    for choice, score in zip(line["choices"], record["details"]["scores"], strict=True):
        whole = tokenizer(text + choice, add_special_tokens=False)["input_ids"]
        assert score["logprob"] == pytest.approx(logprob(model, context, whole[len(context) :]), rel=1e-4, abs=1e-3)


def test_the_perplexity_of_a_text_longer_than_the_context_is_that_of_its_windows(
    keeper: EngineKeeper, tmp_path: Path
) -> None:
    sentences = [
        json.loads(line)["text"] for line in Path(shipped("demo-text").dataset.path).read_text("utf-8").splitlines()
    ]
    texts = [" ".join(sentences[:20]), sentences[21]]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    task = shipped("demo-text").model_copy(
        update={"dataset": shipped("demo-text").dataset.model_copy(update={"path": str(tmp_path / "texts.jsonl")})}
    )
    output = tmp_path / "text"
    assert run(keeper, task, output).result.exit_code == 0
    records = [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]
    model, tokenizer = loaded()
    for text, record in zip(texts, records, strict=True):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        windows = list(rolling(ids, [tokenizer.eos_token_id], CONTEXT))
        assert record["output"]["tokens"] == len(ids)
        assert record["output"]["windows"] == len(windows)
        total = sum(logprob(model, window.context, window.target) for window in windows)
        assert record["output"]["logprob"] == pytest.approx(total, rel=1e-4)
    assert records[0]["output"]["windows"] > 1


def loaded() -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(str(DEMO_MODEL), dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(str(DEMO_MODEL))


def logprob(model: Any, context: Any, target: Any) -> float:
    import torch

    with torch.inference_mode():
        logits = model(torch.tensor([[*context, *target]])).logits[0, len(context) - 1 : -1]
    found = torch.log_softmax(logits, -1)
    return sum(float(found[at, token]) for at, token in enumerate(target))
