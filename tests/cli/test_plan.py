from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from llmbatch.job.job import DEMO_MODEL

pytestmark = [pytest.mark.usefixtures("forked"), pytest.mark.forked_from("plan")]

PROMPT = "Document: {{ doc }} Question: {{ q }}"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows that share 20 documents, interleaved; a duplicate, a row without its field, a broken line, a huge row."""
    random = Random(1)

    def text(length: int) -> str:
        return "".join(random.choice("abcdefghijklmnop ") for _ in range(length))

    documents = [text(400) for _ in range(20)]
    rows = [{"id": f"{d}-{q}", "doc": documents[d], "q": text(20)} for q in range(6) for d in range(20)]
    rows += [{**rows[3], "id": "again"}, {"id": "poor", "doc": "x"}, {"id": "huge", "doc": text(9000), "q": "?"}]
    path = tmp_path_factory.mktemp("plan") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n", encoding="utf-8")
    return path


def plan(corpus: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "llmbatch.cli",
        "plan",
        "--model",
        "demo",
        "--prompt",
        PROMPT,
        "--input",
        str(corpus),
    ]
    return subprocess.run([*command, "--temperature", "0", *arguments], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def found(corpus: Path) -> dict[str, object]:
    small = ("--kv-cache-tokens", "4096", "--set", "engine.args.max_num_seqs=4")
    result = plan(corpus, *small, "--tokens-per-second", "1000", "--price-per-gpu-hour", "2", "--json")
    assert result.returncode == 0, result.stderr
    loaded: dict[str, object] = json.loads(result.stdout)
    return loaded


def test_every_row_is_counted(found: dict[str, object]) -> None:
    assert found["not_counted"] is None
    assert found["rows"] == 124
    assert found["requests"] == 122
    assert found["duplicates"] == 1
    assert found["not_run"] == {"prompt": 1, "malformed_row": 1, "too_long": 1}


def test_rows_that_will_not_run_are_named(found: dict[str, dict[str, list[dict[str, object]]]]) -> None:
    assert [row["id"] for row in found["examples"]["too_long"]] == ["huge"]
    assert [row["id"] for row in found["examples"]["prompt"]] == ["poor"]


def test_the_shared_documents_are_seen(found: dict[str, dict[str, float]]) -> None:
    rate = found["hit_rate"]
    assert rate["in_input_order"] < 0.2
    assert rate["as_planned"] > 0.6
    assert found["to_compute"]["as_planned"] < found["to_compute"]["in_input_order"]


def test_time_and_cost_follow_from_speed_and_price(found: dict[str, float]) -> None:
    assert found["cost_gpu"] == pytest.approx(2 * found["hours"])


def test_a_calibration_measures_answers_and_time_on_a_sample(corpus: Path) -> None:
    engine = (
        "--set",
        "engine.name=scripted",
        "--set",
        "engine.args={latency: 0.01, concurrency: 8, context_length: 4096}",
    )
    prices = ("--price-per-gpu-hour", "2", "--price-per-million", "1,3")
    result = plan(corpus, *engine, *prices, "--calibrate", "--calibrate-seconds", "60", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert 0 < found["hours_low"] <= found["hours"] <= found["hours_high"]
    assert found["cost_gpu_high"] == pytest.approx(2 * found["hours_high"])
    assert found["calibration"]["requests"] == 120  # all that would be sent
    assert found["calibration"]["answers_unfinished"] == 0
    assert found["answer_tokens"]["expected"] == round(120 * found["calibration"]["tokens_of_an_answer"])
    assert found["assumed"]["max_num_seqs"] == 8


@pytest.mark.parametrize(
    ("overflow", "said"),
    [
        ("truncate-tail", "truncate-tail takes"),
        ("shrink-output", "max_tokens is lowered by"),
        ("chunk", "they are asked in"),
    ],
)
def test_what_becomes_of_rows_that_are_too_long_is_said(tmp_path: Path, overflow: str, said: str) -> None:
    """The demo model holds 4,096 tokens, and `ab ` has three."""
    rows = tmp_path / "rows.jsonl"
    texts = ["short", "ab " * 1320, "ab " * 1320 + "and more"]
    texts += [] if overflow == "shrink-output" else ["ab " * 5000]
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    arguments = ["--prompt", "{{ text }}", "--max-tokens", "200", "--overflow", overflow]
    printed = plan(rows, *arguments)
    assert printed.returncode == 0, printed.stderr
    assert f"{len(texts) - 1} of {len(texts)} rows are too long: {said}" in " ".join(printed.stdout.split())
    found = json.loads(plan(rows, *arguments, "--json").stdout)
    assert found["not_run"] == {}
    assert found["too_long"]["overflow"] == overflow
    assert found["too_long"]["rows"] == len(texts) - 1
    assert found["requests"] == 1 + found["too_long"]["requests"]


def test_answers_that_take_too_long_to_calibrate_are_a_clear_error(corpus: Path) -> None:
    engine = ("--set", "engine.name=scripted", "--set", "engine.args.latency=600")
    result = plan(corpus, *engine, "--calibrate", "--calibrate-seconds", "0.2")
    assert result.returncode == 2
    assert "give more --calibrate-seconds" in " ".join(result.stderr.split())


@pytest.mark.vllm
def test_a_calibration_runs_on_the_real_engine(corpus: Path) -> None:
    # to compile the model, and a cache of most of the memory, would take most of the time
    small = ("--set", "engine.args.enforce_eager=true", "--set", "engine.args.kv_cache_memory_bytes=268435456")
    result = plan(corpus, *small, "--max-tokens", "8", "--calibrate", "--calibrate-seconds", "60", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert 0 < found["hours_low"] <= found["hours"] <= found["hours_high"]
    assert 0 < found["calibration"]["tokens_of_an_answer"] <= 8
    assert found["assumed"]["kv_cache_tokens"] > 0


def test_the_page_for_a_person_says_the_same(corpus: Path) -> None:
    result = plan(corpus, "--kv-cache-tokens", "4096", "--set", "engine.args.max_num_seqs=4")
    assert result.returncode == 0, result.stderr
    for words in ("rows", "124", "too_long", "huge", "as planned", "saved"):
        assert words in result.stdout


def test_a_question_before_its_document_gets_advice(corpus: Path) -> None:
    result = plan(corpus, "--prompt", "Question: {{ q }} Document: {{ doc }}")
    assert "Advice" in result.stdout


def test_memory_that_cannot_hold_the_model_is_a_clear_error(corpus: Path) -> None:
    result = plan(corpus, "--gpu-memory-gib", "1")
    assert result.returncode == 2
    assert "no room for a KV cache" in " ".join(result.stderr.split())


def test_a_price_by_the_hour_needs_a_speed(corpus: Path) -> None:
    result = plan(corpus, "--price-per-gpu-hour", "2")
    assert result.returncode == 2
    assert "--tokens-per-second" in result.stderr


def test_planning_imports_neither_torch_nor_vllm(corpus: Path) -> None:
    code = (
        "import sys; from llmbatch.cli.main import main; "
        f"main(['plan','--model','demo','--prompt','{{{{doc}}}}','--input',{str(corpus)!r},'--json'], standalone_mode=False); "
        "assert not sys.modules.get('torch') and 'vllm' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_of_a_program_of_several_steps_it_says_what_is_not_counted(corpus: Path) -> None:
    chain = ["--program", "chain", "--set", "program.settings={steps: [main, check]}", "--json"]
    result = plan(corpus, *chain, "--set", "program.prompts={check: 'check {{ main }}'}")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["requests"] == 122
    assert found["not_counted"] == "what a row is asked after the first of its up to 2 steps"


def test_a_hosted_model_without_a_tokenizer_is_planned_by_estimated_tokens(corpus: Path) -> None:
    hosted = ("--set", "engine.name=openai", "--set", "engine.urls=https://api.openai.com/v1", "--model", "gpt-x")
    result = plan(corpus, *hosted, "--price-per-million", "1,4", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert (found["tokens_are_estimated"], found["requests"], found["assumed"]["context_length"]) == (True, 122, None)
    assert 120 * 400 / 4 < found["prompt_tokens"] < 120 * 480 / 4 + 9100 / 4
    assert found["cost_tokens"] > 0
    said = " ".join(plan(corpus, *hosted).stdout.split())
    assert "tokens are estimated: one for each four bytes" in said
    known = plan(corpus, *hosted, "--set", f"engine.tokenizer={DEMO_MODEL}", "--json")
    assert json.loads(known.stdout)["tokens_are_estimated"] is False
