"""Whole runs for numbers on the real engine, against vLLM's own ``LLM.embed``, ``LLM.classify`` and ``LLM.score``."""

from __future__ import annotations

import importlib.util
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.errors import JobError
from llmbatch.core.types import FailureKind, Prompt, Refusal, Request, RequestKey, Sampling
from llmbatch.engines.feed import Feed
from llmbatch.engines.keeper import EngineKeeper
from llmbatch.job.job import job_from
from llmbatch.runs.session import run_job

pytestmark = pytest.mark.vllm

EVAL = Path(__file__).parents[2] / "eval" / "engines" / "pooling.py"
ARGS = {"enforce_eager": True, "kv_cache_memory_bytes": 1 << 26, "max_num_seqs": 8, "dtype": "float32"}
TEXTS = ["the model reads a row", "Numbers!", "of the batch " * 8, "the model reads a row"]
QUERY, DOCUMENTS = "the corpus", ["no text", "the corpus of the model", "a row and a vector"]

Model = Callable[..., str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Makes an encoder with random weights."""
    if not EVAL.is_file():  # a source distribution has the tests without eval/
        pytest.skip("eval/ is not part of this distribution")
    spec = importlib.util.spec_from_file_location("eval_engines_pooling", EVAL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def model(kind: str, classes: Sequence[str] = ()) -> str:
        return str(module.make_model(tmp_path_factory.mktemp(kind), kind, classes=classes))

    return model


def run(jobs: Any, keeper: EngineKeeper, model: str, rows: list[dict[str, Any]], **sections: Any) -> Any:
    sections = {"prompt": None, "engine": {"name": "vllm", "args": ARGS}, **sections}
    made = jobs.data(jobs.rows(rows), model=model, **sections)
    run_job(job_from({name: each for name, each in made.items() if each is not None}), make=keeper.make)
    return jobs.records()


def llm_of(keeper: EngineKeeper) -> Any:
    engine: Any = keeper._engine
    return engine._llm


def alike(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    """But for what the sums depend on that are computed beside them."""
    return len(ours) == len(theirs) and max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) < 1e-5


def test_vectors_are_those_of_the_library_and_a_text_that_is_too_long_fails_alone(jobs: Any, model: Model) -> None:
    rows = [{"text": text} for text in (*TEXTS, "", "row " * 300)]
    with EngineKeeper() as keeper:
        records = run(jobs, keeper, model("embed"), rows, program={"name": "embed"}, sinks={"formats": ["parquet"]})
        llm = llm_of(keeper)
        assert [record["status"] for record in records] == ["ok"] * 4 + ["failed"] * 2
        assert [record["error"]["kind"] for record in records[4:]] == ["empty_prompt", "too_long"]
        for record, theirs in zip(records, llm.embed(TEXTS, use_tqdm=False), strict=False):
            assert alike(array("f", record["output"]), theirs.outputs.embedding)
            assert record["usage"]["prompt_tokens"] == len(theirs.prompt_token_ids)
        assert jobs.report()["rows"]["folded"] == 1
        assert jobs.report()["engine"]["can"] == ["activation", "cancel", "embed", "ids"]
        # what was loaded for numbers gives no text
        feed = Feed()
        feed.push([Request(RequestKey(0), Prompt(text="a"), Sampling(), token_ids=[5, 6])])
        feed.close()
        engine: Any = keeper._engine
        (refusal,) = next(iter(engine.stream(feed)))
        assert isinstance(refusal, Refusal) and refusal.failure.kind is FailureKind.REFUSED
        assert "loaded to give numbers, and this asks for text" in refusal.failure.message


def test_pairs_and_classes_are_those_of_the_library(jobs: Any, model: Model) -> None:
    rows = [{"query": QUERY, "documents": DOCUMENTS}, {"query": "a " * 10, "documents": ["row " * 300, "b"]}]
    with EngineKeeper() as keeper:
        cross = model("cross", classes=["relevant"])
        ranked, too_long = run(jobs, keeper, cross, rows, program={"name": "rerank"})
        theirs = [each.outputs.score for each in llm_of(keeper).score(QUERY, DOCUMENTS, use_tqdm=False)]
        assert [each["index"] for each in ranked["output"]] == sorted(range(3), key=lambda at: -theirs[at])
        assert alike([each["score"] for each in ranked["output"]], sorted(theirs, reverse=True))
        assert too_long["error"]["kind"] == "too_long"
        assert jobs.report()["engine"]["can"] == ["activation", "cancel", "classify", "ids", "pairs"]
        # which of the two comes first the model is told by more than their places
        turned = [each.outputs.score for each in llm_of(keeper).score(DOCUMENTS, [QUERY] * 3, use_tqdm=False)]
        assert not alike(theirs, turned)
        texts, other = [{"text": text} for text in TEXTS], str(jobs.path / "classes")
        run(jobs, keeper, cross, texts, program={"name": "classify"}, output=other)
        for record, each in zip(jobs.records("classes"), llm_of(keeper).classify(TEXTS, use_tqdm=False), strict=True):
            assert record["output"] == "relevant"
            assert alike(list(record["details"]["probabilities"].values()), each.outputs.probs)


def test_a_model_that_writes_text_gives_vectors_too(jobs: Any) -> None:
    """By conversion, as vLLM does it: the last token's hidden state. Here with an instruction before each text."""
    prompt = (
        "Instruct: find what is said of the same thing in other words, in this language or another.\nQuery: {{ text }}"
    )
    args = {**ARGS, "max_model_len": 256}
    with EngineKeeper() as keeper:
        rows = [{"text": text} for text in TEXTS]
        records = run(
            jobs, keeper, "demo", rows, program={"name": "embed"}, prompt={"path": prompt},
            engine={"name": "vllm", "args": args},
        )  # fmt: skip
        asked = [prompt.replace("{{ text }}", text) for text in TEXTS]
        for record, theirs in zip(records, llm_of(keeper).embed(asked, use_tqdm=False), strict=True):
            assert alike(array("f", record["output"]), theirs.outputs.embedding)
        by_vectors = {"name": "score_pairs", "settings": {"encoder": "bi"}}
        pairs = [{"query": QUERY, "document": document} for document in DOCUMENTS]
        run(
            jobs,
            keeper,
            "demo",
            pairs,
            program=by_vectors,
            engine={"name": "vllm", "args": args},
            output=str(jobs.path / "bi"),
        )
        theirs = [each.outputs.score for each in llm_of(keeper).score(QUERY, DOCUMENTS, use_tqdm=False)]
        assert alike([record["output"] for record in jobs.records("bi")], [float(score) for score in theirs])
    with pytest.raises(JobError, match="has no classification head, which classify needs"):
        run(jobs, keeper, "demo", rows, program={"name": "classify"}, output=str(jobs.path / "other"))
