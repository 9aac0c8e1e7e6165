"""map_reduce through whole runs: kills, deaths, refusals, odd documents; and the shipped prompt on the real engine."""

from __future__ import annotations

import json
import random
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.types import Outcome, Request
from llmbatch.engines.scripted.engine import ScriptedEngine
from llmbatch.job.job import job_from
from llmbatch.runs.session import run_job

WORDS = (
    "the",
    "committee",
    "met",
    "in",
    "spring",
    "and",
    "voted",
    "on",
    "a",
    "bridge",
    "over",
    "it",
    "near",
    "Pier",
    "4",
)
SLOW = {"latency": 0.15, "jitter": 1.0, "concurrency": 5, "context_length": 1000}
# the first words of what is asked, so that an answer is shorter than its prompt
SHORT = [
    {
        "when": {"matches": "^(About|Together): (?P<said>.{0,1})"},
        "answer": "{index}.{attempt} is a summary of sixty bytes, about",
    }
]


def document(seed: int, sentences: int) -> str:
    rng = random.Random(seed)
    return " ".join(" ".join(rng.choices(WORDS, k=9)).capitalize() + "." for _ in range(sentences))


def summaries(jobs: Any, script: dict[str, Any] | None = None, **sections: Any) -> dict[str, Any]:
    """Documents of 1 to 200 sentences, cut to chunks of some 700 bytes, whose answers are put together."""
    rows = [{"id": f"d{i}", "text": document(i, 1 + (23 * i) % 200)} for i in range(12)]
    program = {"name": "map_reduce", "prompts": {"reduce": "Together: {{ joined }}"}, "settings": {"most": 3}}
    data: dict[str, Any] = jobs.data(
        jobs.rows(rows),
        {"context_length": 1000, "rules": SHORT, **(script or {})},
        prompt={"path": "About: {{ text }}"},
        program=program,
        sampling={"max_tokens": 100},
        **sections,
    )
    return data


def test_documents_are_cut_and_their_answers_put_together_until_one_is_left(jobs: Any) -> None:
    jobs.run(job_from(summaries(jobs)))
    records = jobs.records()
    assert {record["status"] for record in records} == {"ok"}
    for number, record in enumerate(records):
        text = document(number, 1 + (23 * number) % 200)
        chunks, reductions = record["details"]["chunks"], record["details"]["reductions"]
        pieces = [text[chunk["start"] : chunk["end"]] for chunk in chunks]
        assert " ".join(pieces) == text
        assert record["attempts"] == len(chunks) + len(reductions)
        assert record["output"] == f"{number}.1 is a summary of sixty bytes, about"
        assert all(entry["partials"] <= 3 for entry in reductions)
        levels = [entry["level"] for entry in reductions]
        assert levels == sorted(levels)
        assert not reductions or reductions[-1]["chunks"] == [0, len(chunks) - 1]
    assert max(len(record["details"]["chunks"]) for record in records) > 5


@pytest.mark.parametrize(
    ("fault", "window"),
    [("journal-append:1", 100), ("journal-append:6", 100), ("journal-torn:4", 100), ("part-sealed:2", 3)],
)
def test_a_run_that_is_killed_comes_to_the_same_bytes(jobs: Any, fault: str, window: int) -> None:
    """Its answers come in another order than those of the run that is not."""
    rules = [{"when": {"attempt": 1, "contains": "Pier 4"}, "answer": ""}, *SHORT]  # some are tried again
    jobs.run(job_from(summaries(jobs, {"rules": rules}, run={"window": window}, output=str(jobs.path / "whole"))))
    assert any(record.get("history") for record in jobs.records("whole"))
    data = summaries(jobs, {"rules": rules, **SLOW}, run={"window": window})
    killed, _, _ = jobs.finish(data, environment={"LLMBATCH_FAULT": fault})
    assert killed == -9
    code, _, err = jobs.finish(data)
    assert code == 0, err
    assert jobs.results() == jobs.results("whole")


def test_a_session_that_goes_on_asks_only_what_it_does_not_have(jobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs.run(job_from(summaries(jobs, plan={"fold": False}, output=str(jobs.path / "whole"))))
    asked = sum(record["attempts"] for record in jobs.records("whole"))
    data = summaries(jobs, SLOW, plan={"fold": False})
    killed, _, _ = jobs.finish(data, environment={"LLMBATCH_FAULT": "journal-append:4"})
    assert killed == -9
    journal = next((jobs.path / "out" / "parts").glob("*.journal")).read_text()
    known = [json.loads(line) for line in journal.splitlines()[1:]]
    have = sum(entry["record"]["attempts"] if "record" in entry else 1 for entry in known)
    finished = {entry["record"]["index"] for entry in known if "record" in entry}
    have -= sum("outcome" in entry and entry["outcome"]["key"][0] in finished for entry in known)
    assert have > 5
    answers = []
    answer = ScriptedEngine._answer

    def counted(self: ScriptedEngine, request: Request) -> Outcome:
        answers.append(request.key)
        return answer(self, request)

    monkeypatch.setattr(ScriptedEngine, "_answer", counted)
    run_job(job_from(data))
    assert len(answers) == asked - have
    assert jobs.results() == jobs.results("whole")


def test_deaths_of_the_engine_change_nothing(jobs: Any) -> None:
    jobs.run(job_from(summaries(jobs, output=str(jobs.path / "whole"))))
    jobs.run(job_from(summaries(jobs, {"die_after": [9, 31], "concurrency": 4})))
    assert jobs.results() == jobs.results("whole")


def test_answers_that_are_cut_off_are_gone_on_from_and_fit_all_the_same(jobs: Any) -> None:
    """Twice as long as planned, so that fewer of them are put together."""
    long = [{"when": {"matches": "^About: "}, "answer": "y" * 180}, *SHORT]
    data = summaries(jobs, {"rules": long})
    data["program"]["settings"] = {}
    jobs.run(job_from(data))
    records = [record for record in jobs.records() if len(record["details"]["chunks"]) > 1]
    assert {record["status"] for record in records} == {"ok"}
    assert max(entry["partials"] for record in records for entry in record["details"]["reductions"]) == 4
    assert any(record["attempts"] > 1 + len(record["details"]["chunks"]) for record in records)


def test_odd_documents_have_records_of_their_own(jobs: Any) -> None:
    rows = [
        '{"id": "empty", "text": ""}',
        '{"id": "blank", "text": " \\n "}',
        '{"id": "null", "text": null}',
        "no JSON",
    ]
    rows += ['{"id": "number", "text": 7}', '{"id": "none"}', json.dumps({"id": "good", "text": document(1, 40)})]
    data = summaries(jobs)
    jobs.run(job_from({**data, "input": {"path": str(jobs.rows(rows, "odd.jsonl"))}}))
    records = jobs.records()
    statuses = [(record["id"], record["status"], record.get("error", {}).get("kind")) for record in records]
    assert statuses == [
        ("empty", "failed", "empty_prompt"),
        ("blank", "failed", "empty_prompt"),
        ("null", "failed", "prompt"),
        (3, "failed", "malformed_row"),
        ("number", "ok", None),
        ("none", "failed", "prompt"),
        ("good", "ok", None),
    ]
    assert "details" not in records[4], "what is no text is asked about as it is"


def test_a_document_of_one_line_of_ten_megabytes_has_its_summary(jobs: Any) -> None:
    line = document(3, 1000)
    long = (line + " ") * (10_000_000 // len(line))
    script = {"context_length": 100_000, "rules": SHORT}
    jobs.run(job_from({**summaries(jobs, script), "input": {"path": str(jobs.rows([{"text": long}], "long.jsonl"))}}))
    (record,) = jobs.records()
    chunks = record["details"]["chunks"]
    assert record["status"] == "ok"
    assert 100 < len(chunks) < 200
    assert (chunks[0]["start"], chunks[-1]["end"]) == (0, len(long.rstrip()))
    assert all(after["start"] - before["end"] == 1 for before, after in pairwise(chunks))


def test_what_is_wrong_is_said_before_anything_is_read(jobs: Any) -> None:
    data = summaries(jobs)
    data["program"]["prompts"] = {"reduce": "Together: {{ text }}"}
    code, _, err = jobs.finish(data)
    assert code == 2
    assert "the prompt reduce takes 'text', the whole document" in err and "{text: joined}" in err
    data["program"]["prompts"] = {}
    code, _, err = jobs.finish(data)
    assert code == 2 and "asks with a prompt 'reduce', and the job has main" in err
    assert not (jobs.path / "out").exists()


def test_the_plan_counts_the_chunks_and_says_what_it_does_not_count(jobs: Any) -> None:
    import subprocess

    rows = jobs.rows([{"id": "d", "text": document(1, 300)}])
    command = [sys.executable, "-m", "llmbatch.cli", "plan", "--model", "demo", "--input", str(rows)]
    done = subprocess.run([*command, "--prompt", "summarize-long"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Not counted: what puts answers about chunks together" in done.stdout


# the real engine

DEMO = {
    "args": {
        "dtype": "float32", "enforce_eager": True, "enable_prefix_caching": False, "max_num_seqs": 64,
        "kv_cache_memory_bytes": 1 << 28,
    },
}  # fmt: skip


@pytest.mark.vllm
def test_the_shipped_prompt_summarizes_a_folder_with_the_model_that_comes_along(jobs: Any) -> None:
    """In form: of its words it knows only numbers. What is asked fits the context beside an answer as long as it may be."""
    folder = jobs.path / "papers"
    folder.mkdir()
    for number, sentences in enumerate((3, 150, 400)):
        (folder / f"{number}.txt").write_text(document(number, sentences))
    (folder / "empty.txt").write_text(" \n")
    data = {
        "model": "demo", "prompt": "summarize-long", "input": str(folder), "output": str(jobs.path / "out"),
        "engine": DEMO, "answer": {"allow_truncated": True, "allow_empty": True}, "sampling": {"max_tokens": 100},
    }  # fmt: skip
    jobs.run(job_from(data))
    *records, empty = jobs.records()
    assert (empty["id"], empty["status"]) == ("empty.txt", "failed")
    for number, record in enumerate(records):
        assert (record["id"], record["status"]) == (f"{number}.txt", "ok")
        chunks, reductions = record["details"]["chunks"], record["details"]["reductions"]
        text = (folder / record["id"]).read_text()
        assert " ".join(text[chunk["start"] : chunk["end"]] for chunk in chunks) == text
        used = [entry["usage"]["prompt_tokens"] for entry in (*chunks, *reductions)]
        assert max(used) + 100 <= 4096
        assert sum(used) == record["usage"]["prompt_tokens"]
    assert [bool(record["details"]["reductions"]) for record in records] == [False, True, True]
    assert max(entry["usage"]["prompt_tokens"] for entry in records[2]["details"]["chunks"]) > 3000


@pytest.mark.vllm
@pytest.mark.usefixtures("forked")
def test_a_run_on_vllm_that_is_killed_comes_to_the_same_bytes(jobs: Any) -> None:
    """Translated, which the model can: its answers are not all the same."""
    prompt = Path(__file__).parents[2] / "llmbatch" / "demo" / "prompts" / "translate-number.yaml"
    numbers = ["forty-two", "two hundred", "ninety", "one thousand and six", "seven", "three hundred and twelve"]
    rng = random.Random(4)
    rows = [{"text": ". ".join(rng.choices(numbers, k=count))} for count in (2, 40, 25, 3, 70, 12)]
    lenient = {"allow_truncated": True, "allow_empty": True}
    reduce = {
        "path": str(prompt),
        "fields": {"text": "joined"},
        "variables": {"language": "German"},
        "answer": {**lenient},
    }
    program = {
        "name": "map_reduce",
        "prompts": {"reduce": reduce},
        "settings": {"chunk": 30, "whole": False, "most": 3},
    }
    data = {
        "model": "demo", "prompt": str(prompt), "input": str(jobs.rows(rows)), "program": program, "engine": DEMO,
        "answer": lenient, "sampling": {"max_tokens": 24}, "run": {"window": 2},  # each has a journal of its own
    }  # fmt: skip
    killed, _, err = jobs.finish(
        {**data, "output": str(jobs.path / "out")}, environment={"LLMBATCH_FAULT": "journal-append:2"}
    )
    assert killed == -9, err
    code, _, err = jobs.finish({**data, "output": str(jobs.path / "out")})
    assert code == 0, err
    code, _, err = jobs.finish({**data, "output": str(jobs.path / "whole")})
    assert code == 0, err
    assert jobs.results() == jobs.results("whole")
    assert max(entry["level"] for entry in jobs.records()[4]["details"]["reductions"]) >= 2
