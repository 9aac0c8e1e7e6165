"""Documents translated in chunks through whole runs: checks by chunk, kills, deaths, bad rows on the scripted engine; real vLLM."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from llmbatch.audit.audit import audit
from llmbatch.core.errors import JobError
from llmbatch.job.job import job_from

REPOSITORY = Path(__file__).resolve().parents[2]
NUMBERS = REPOSITORY / "llmbatch" / "demo" / "prompts" / "translate-number.yaml"
SETTINGS = {"markup": "markdown", "chunk": 60, "context": 30}


@pytest.fixture
def prompt(jobs: Any) -> str:
    """A prompt whose last message is the chunk, so that the scripted engine's echo is its translation."""
    path = jobs.path / "prompt.yaml"
    path.write_text(
        "name: p\ndescription: d\n"
        'variables: {text: {type: string}, before: {type: string, default: ""}}\n'
        'messages: [{role: system, content: "after: {{ before }}"}, {role: user, content: "{{ text }}"}]\n'
    )
    return str(path)


def document(number: int) -> str:
    """Markdown of some paragraphs that no other document has."""
    newline = "\r\n" if number % 2 else "\n"
    parts = [
        "---\nname: x\n---",
        f"# Heading {number}",
        "Figures:",
        "12,000",
        f"- item one of {number}\n  * item two",
        "```\ncode\n```",
    ]
    parts += [
        f"Paragraph {paragraph} of document {number}. " + "It has words. " * (paragraph % 4)
        for paragraph in range(number)
    ]
    return "\n\n".join(parts).replace("\n", newline) + newline


def data(
    jobs: Any, prompt: str, documents: int = 12, script: Mapping[str, Any] | None = None, **sections: Any
) -> dict[str, Any]:
    rows = jobs.rows({"id": f"d{number}", "text": document(number)} for number in range(documents))
    settings = {**SETTINGS, **sections.pop("settings", {})}
    made: dict[str, Any] = jobs.data(
        rows, script, prompt={"path": prompt}, program={"name": "translate", "settings": settings}, **sections
    )
    return made


# Some chunks fail together and are asked one by one, some answers are sent back once, one paragraph is never translated.
MANY = "\n\n".join(["more", "paragraphs", "than", "any", "chunk", "has", "here"])
RULES = [
    {"when": {"contains": "Paragraph 7 of document 9"}, "answer": " "},
    {"when": {"contains": "Heading 5"}, "answer": "# Heading 5"},
    {"when": {"step": 0, "attempt": 1, "index": [3, 6]}, "answer": MANY},
    {"when": {"step": 0, "attempt": 2, "index": 3}, "answer": "# Kopf 3\n\nZahlen:\n\n- eins\n  * zwei"},
]


def test_documents_come_out_as_they_went_in_where_the_model_changes_nothing(jobs: Any, prompt: str) -> None:
    jobs.run(job_from(data(jobs, prompt)))
    records = jobs.records()
    assert [record["output"] for record in records] == [document(number) for number in range(12)]
    assert {record["status"] for record in records} == {"ok"}
    assert [record["details"]["kept"] for record in records] == [3] * 12
    assert records[11]["attempts"] == len(records[11]["details"]["chunks"]) > 5


def test_a_chunk_is_tried_again_then_its_paragraphs_and_the_row_tells_what_is_missing(jobs: Any, prompt: str) -> None:
    jobs.run(job_from(data(jobs, prompt, script={"rules": RULES})))
    records = jobs.records()
    assert [record["id"] for record in records if record["status"] != "ok"] == ["d9"]
    assert records[9]["status"] == "invalid"
    failed = [each for chunk in records[9]["details"]["chunks"] for each in chunk.get("failed", ())]
    assert [document(9)[each["start"] : each["end"]][:25] for each in failed] == ["Paragraph 7 of document 9"]
    start, end = failed[0]["start"], failed[0]["end"]
    assert records[9]["output"] == document(9)[:start] + document(9)[end:]
    assert f"characters {start:,} to {end:,}" in records[9]["error"]["message"]
    assert [chunk["one_by_one"] for chunk in records[5]["details"]["chunks"][:1]] == [True]
    assert records[5]["output"] == document(5)
    assert [each["error"]["kind"] for each in records[3]["history"]] == ["markup"]
    assert records[3]["output"].startswith("---\r\nname: x\r\n---\r\n\r\n# Kopf 3\r\n\r\nZahlen:\r\n\r\n12,000")


def test_the_model_is_told_how_many_paragraphs_are_wanted(jobs: Any, prompt: str) -> None:
    rules = [{"when": {"attempt": 1}, "answer": "one"}, {"when": {"attempt": 2}, "answer": "{text}"}]
    rows = jobs.rows([{"text": "one\n\ntwo"}])
    program = {"name": "translate"}
    jobs.run(jobs.job(rows, {"rules": rules}, prompt={"path": prompt}, program=program, retry={"max_attempts": 2}))
    (_, second, *_) = jobs.records()[0]["history"]
    assert "the answer has 1 paragraph, and the text has 2 paragraphs: translate each by itself" in second["text"]


def test_a_glossary_and_other_rules_hold_an_answer_against_its_own_chunk(jobs: Any, prompt: str) -> None:
    rows = jobs.rows([{"text": "The bank.\n\nThe {tree} is here.\n\nNothing."}])
    rules = [
        {"when": {"contains": "bank", "attempt": 1}, "answer": "Das Ufer."},
        {"when": {"contains": "bank"}, "answer": "Die Bank."},
        {"when": {"contains": "tree", "attempt": 1}, "answer": "Der Baum ist hier."},
        {"when": {"contains": "tree"}, "answer": "Der {tree} ist hier."},
        {"when": {"contains": "Nothing"}, "answer": "Nichts."},
    ]
    answer = {"glossary": {"field": "text", "terms": {"bank": "Bank", "money": "Geld"}}, "markup": "text"}
    program = {"name": "translate", "settings": {"paragraphs": 1}}
    jobs.run(jobs.job(rows, {"rules": rules}, prompt={"path": prompt}, program=program, answer=answer))
    (record,) = jobs.records()
    assert record["output"] == "Die Bank.\n\nDer {tree} ist hier.\n\nNichts."
    assert [each["error"]["kind"] for each in record["history"]] == ["glossary", "markup"]


@pytest.mark.parametrize(
    ("fault", "window"),
    [("journal-append:1", 100), ("journal-append:4", 100), ("journal-torn", 100), ("part-sealed:2", 3)],
)
def test_a_run_that_is_killed_comes_to_the_same_bytes(jobs: Any, prompt: str, fault: str, window: int) -> None:
    run = {"run": {"window": window}}
    jobs.run(job_from(data(jobs, prompt, script={"rules": RULES}, output=str(jobs.path / "whole"), **run)))
    slow = {"rules": RULES, "latency": 0.05, "concurrency": 4}
    job = data(jobs, prompt, script=slow, **run)
    killed, _, _ = jobs.finish(job, environment={"LLMBATCH_FAULT": fault})
    assert killed == -9
    code, _, err = jobs.finish(job)
    assert code == 3, err
    assert jobs.results() == jobs.results("whole")
    assert audit(jobs.path / "out").ok


def test_deaths_of_the_engine_change_nothing(jobs: Any, prompt: str) -> None:
    jobs.run(job_from(data(jobs, prompt, script={"rules": RULES}, output=str(jobs.path / "whole"))))
    deaths = {"rules": RULES, "die_after": [5, 31, 60], "concurrency": 5}
    jobs.run(job_from(data(jobs, prompt, script=deaths)))
    assert jobs.results() == jobs.results("whole")


def test_bad_documents_have_records_of_their_own_among_good_ones(jobs: Any, prompt: str) -> None:
    long = "word and more " * 70_000  # a line of a million characters
    bad = ['{"text": ""}', '{"text": " \\n "}', '{"body": "one"}', "no JSON"]
    rows = jobs.rows(['{"text": "one"}', *bad, json.dumps({"text": long}), '{"text": "12"}'])
    program = {"name": "translate", "settings": {"context": 20}}
    jobs.run(jobs.job(rows, prompt={"path": prompt}, program=program))
    records = jobs.records()
    kinds = [record.get("error", {}).get("kind") for record in records]
    assert kinds == [None, "empty_prompt", "empty_prompt", "prompt", "malformed_row", None, None]
    assert records[5]["output"] == long
    assert (records[6]["output"], records[6]["attempts"]) == ("12", 0)


def test_a_folder_of_documents_is_read_by_what_they_are(jobs: Any, prompt: str) -> None:
    folder = jobs.path / "docs"
    folder.mkdir()
    (folder / "a.md").write_text("# one\n\n- two\n- three\n")
    (folder / "b.txt").write_text("# one\n\n- two\n- three\n")
    (folder / "c.txt").write_text("\n\n")
    program = {"name": "translate", "settings": {"paragraphs": 1}}
    jobs.run(job_from(jobs.data(folder, prompt={"path": prompt}, program=program)))
    markdown, text, empty = jobs.records()
    assert (len(markdown["details"]["chunks"]), len(text["details"]["chunks"])) == (3, 2)
    assert markdown["output"] == text["output"] == "# one\n\n- two\n- three\n"
    assert empty["status"] == "failed"


def test_the_shipped_prompt_is_a_whole_program_with_its_checks(jobs: Any) -> None:
    rows = jobs.rows([{"text": "The bank is **closed**.\n\nSee {place}."}])
    rules = [
        {"when": {"contains": "bank", "attempt": 1}, "answer": "Die Bank ist zu.\n\nSiehe {ort}."},
        {"when": {"contains": "<text>", "attempt": 2}, "answer": "never"},
        {"answer": "Die Bank ist **zu**.\n\nSiehe {place}."},
    ]
    variables = {"target_language": "German", "glossary": {"bank": "Bank"}}
    prompt = {"path": "translate-document", "variables": variables}
    jobs.run(jobs.job(rows, {"rules": rules}, prompt=prompt))
    (record,) = jobs.records()
    assert record["output"] == "Die Bank ist **zu**.\n\nSiehe {place}."
    assert "{place}" in record["history"][0]["error"]["message"]


def test_what_the_prompt_lacks_is_said_before_the_start(jobs: Any) -> None:
    rows = jobs.rows([{"text": "one"}])
    program = {"name": "translate", "settings": {"field": "body"}}
    with pytest.raises(
        JobError, match=r"the program translate: the prompt does not take 'body'.*but text: name its field"
    ):
        jobs.run(jobs.job(rows, program=program))


# the real engine


@pytest.mark.vllm
def test_the_demo_model_translates_a_document_of_numbers_line_by_line(jobs: Any) -> None:
    text = "# Forty-two\n\nseven\r\none hundred\n\n- nine thousand and one\n  * 12\n\n```\nzero\n```\n".replace(
        "Forty", "forty"
    )
    rows = jobs.rows([{"text": text, "language": language} for language in ("German", "French")])
    settings = {
        "markup": "markdown",
        "lines": True,
        "marks": False,
    }  # the model knows no marks, and one number at a time
    job = jobs.job(
        rows,
        model="demo",
        prompt={"path": str(NUMBERS)},
        engine={"name": "vllm", "args": {"enforce_eager": True, "max_num_seqs": 16, "kv_cache_memory_bytes": 1 << 27}},
        sampling={"max_tokens": 128},
        answer={"glossary": {"field": "text", "terms": {"seven": ["sieben", "sept"]}}},
        program={"name": "translate", "settings": settings},
    )
    jobs.run(job)
    german, french = jobs.records()
    assert german["output"] == (
        "# zweiundvierzig\n\nsieben\r\neinhundert\n\n- neuntausendeins\n  * 12\n\n```\nzero\n```\n"
    )
    assert french["output"] == "# quarante-deux\n\nsept\r\ncent\n\n- neuf mille un\n  * 12\n\n```\nzero\n```\n"
    assert [record["details"]["kept"] for record in (german, french)] == [2, 2]
    (chunk,) = german["details"]["chunks"]
    assert (chunk["paragraphs"], chunk["one_by_one"]) == (4, True), "four at a time are too many for it"
