"""The rules on answers through whole runs on the scripted engine: sent back, tried again by kind, ok or invalid at the end."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.errors import FolderError, JobError
from llmbatch.job.identity import identity_of
from llmbatch.job.job import job_from
from llmbatch.job.recipe import Recipe

ENGLISH = "The meeting was moved to Thursday because the room was taken."
GERMAN = "Das Treffen wurde auf Donnerstag verlegt, weil der Raum belegt war."
RULES: dict[str, tuple[Any, str, str, str]] = {
    # setting, source, an answer that is sent back, one that passes
    "language": ("de", ENGLISH, "It was moved to Thursday, as someone had taken the room.", GERMAN),
    "copy": ({"field": "text", "most": 0.5}, ENGLISH, ENGLISH, GERMAN),
    "length_ratio": ({"field": "text", "least": 0.5, "most": 2}, ENGLISH, "Verlegt.", GERMAN),
    "markup": ("text", "# Hi {name}", "Hallo Name", "# Hallo {name}"),
    "glossary": ({"field": "text", "terms": {"room": "Raum"}}, ENGLISH, GERMAN.replace("Raum", "Saal"), GERMAN),
    "repetition": (True, ENGLISH, "und dann noch einmal " * 9, GERMAN),
}


@pytest.mark.parametrize("rule", RULES)
def test_an_answer_that_breaks_a_rule_is_tried_again_and_the_reason_is_told(jobs: Any, rule: str) -> None:
    setting, source, bad, good = RULES[rule]
    rows = jobs.rows([{"id": "mends", "text": source}, {"id": "never", "text": source + " "}])
    script = {
        "rules": [
            {"when": {"index": 0, "attempt": 2}, "answer": good},
            {"answer": bad},
        ]
    }
    jobs.run(jobs.job(rows, script, answer={rule: setting}))
    mends, never = jobs.records()
    assert (mends["status"], mends["output"], mends["attempts"]) == ("ok", good, 2)
    assert [each["error"]["kind"] for each in mends["history"]] == [rule]
    assert (never["status"], never["attempts"], never["error"]["kind"]) == ("invalid", 3, rule)
    assert never["raw"] == bad
    assert jobs.report()["failures"][rule]["rows"] == 1


def test_the_model_is_shown_why_its_answer_was_sent_back_but_for_loops(jobs: Any) -> None:
    rows = jobs.rows([{"text": ENGLISH}])
    answers = {"rules": [{"when": {"attempt": 1}, "answer": ENGLISH}]}  # then the echo of what it is told
    jobs.run(jobs.job(rows, answers, answer={"copy": "text"}))
    assert jobs.records()[0]["output"] == (
        "That answer was not accepted: the answer is its source ('text') over again, word for word\n"
        "Give the corrected answer only."
    )
    looping = {"rules": [{"when": {"attempt": 1}, "answer": "und so weiter und " * 9}]}
    jobs.run(jobs.job(rows, looping, answer={"repetition": True}, output=str(jobs.path / "loops")))
    assert jobs.records("loops")[0]["output"] == ENGLISH, "the same prompt with another seed"


def test_what_the_engine_stopped_as_a_loop_is_judged_as_one(jobs: Any) -> None:
    rows = jobs.rows([{"text": "a"}, {"text": "b"}])
    stopped = {"answer": "so so so so", "finish_reason": "repetition"}
    script = {"rules": [{"when": {"index": 0, "attempt": 1}, **stopped}, {"when": {"index": 1}, **stopped}]}
    jobs.run(jobs.job(rows, script, answer={"repetition": True}))
    mends, never = jobs.records()
    assert (mends["status"], mends["history"][0]["error"]["kind"]) == ("ok", "repetition")
    assert (never["status"], never["finish_reason"]) == ("invalid", "repetition")
    assert never["error"] == {
        "kind": "repetition",
        "message": "the answer repeats itself, so the engine stopped it; it ends with 'so so so so'",
    }


def test_a_row_without_what_a_rule_needs_fails_before_anything_is_asked(jobs: Any) -> None:
    rows = jobs.rows(
        [{"id": "a", "text": "x", "to": "de"}, {"id": "b", "text": "x"}, {"id": "c", "text": "x", "to": "??"}]
    )
    jobs.run(jobs.job(rows, answer={"language": {"field": "to"}}))
    fine, missing, unknown = jobs.records()
    assert (fine["status"], missing["status"], missing["attempts"]) == ("ok", "failed", 0)
    assert missing["error"] == {
        "kind": "prompt",
        "message": "row 'b': answer.language needs 'to', and the row has none; the row's fields are 'id', 'text'",
    }
    assert "'to' is '??', which is no language" in unknown["error"]["message"]


PROMPT = """name: translate
variables:
  text: {type: string}
  target: {type: string, scope: job}
  words: {type: object, default: {}, scope: job}
messages: [{role: user, content: "{{ text }} to {{ target }} {{ words | length }}"}]
output:
  language: {field: target}
  copy: text
  glossary: {field: text, terms: terms.csv}
"""


def test_a_prompt_file_may_ask_for_rules_on_its_variables_with_paths_beside_it(jobs: Any) -> None:
    """Variables have their values from the job, from another field, or by default; the rules see these too."""
    (jobs.path / "prompts").mkdir()
    (jobs.path / "prompts" / "p.yaml").write_text(PROMPT)
    terms = jobs.path / "prompts" / "terms.csv"
    terms.write_text("room,Raum\n")
    rows = jobs.rows([{"id": i, "body": f"{ENGLISH} {i}"} for i in range(3)])
    script = {
        "rules": [
            {"when": {"index": 0}, "answer": GERMAN},
            {"when": {"index": 1}, "answer": ENGLISH},
            {"when": {"index": 2}, "answer": GERMAN.replace("Raum", "Saal")},
        ]
    }
    prompt = {
        "path": str(jobs.path / "prompts" / "p.yaml"),
        "variables": {"target": "German"},
        "fields": {"text": "body"},
    }
    job = jobs.job(rows, script, prompt=prompt)
    jobs.run(job)
    assert [record.get("error", {}).get("kind") for record in jobs.records()] == [None, "copy", "glossary"]
    before = Recipe(job).identity()
    terms.write_text("room,Saal\n")
    assert Recipe(job).identity() != before, "what the glossary says belongs to the job's identity"
    jobs.run(jobs.job(rows, script, prompt=prompt, answer={"glossary": {"field": "text", "terms": {"room": "Raum"}}},
                      output=str(jobs.path / "own")))  # fmt: skip
    assert jobs.records("own")[2]["error"]["kind"] == "glossary", "the job's rule goes before the prompt's"


def test_a_mistake_in_a_prompt_files_rules_is_told_with_its_place(jobs: Any, ten: Path) -> None:
    (jobs.path / "p.yaml").write_text(
        "name: p\nvariables: {text: {}}\ntext: '{{ text }}'\noutput: {copy: {field: text, most: 3}}\n"
    )
    with pytest.raises(JobError, match=r"p: output: copy\.most: Input should be less than or equal to 1"):
        Recipe(jobs.job(ten, prompt={"path": str(jobs.path / "p.yaml")}))


STEPS = '''
from llmbatch.programs.base import Incomplete


def by_halves(row):
    """Each half of the text by itself, with the rules of the step's own prompt against that half."""
    halves = row.row.data["text"].split("|")
    answers = yield [row.ask("half", part=half) for half in halves]
    return Incomplete() if None in answers else [answer.value for answer in answers]
'''


def test_each_step_of_a_program_is_held_against_what_it_was_asked_with(
    jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"steps_{abs(hash(str(jobs.path))):x}"
    (jobs.path / f"{name}.py").write_text(STEPS)
    monkeypatch.chdir(jobs.path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    half = {"path": "Half: {{ part }}", "answer": {"length_ratio": {"field": "part", "least": 1, "most": 1}}}
    rows = jobs.rows([{"text": "abc|de"}])
    script = {
        "rules": [
            {"when": {"step": 0, "attempt": 1}, "answer": "ab"},
            {"when": {"step": 0}, "answer": "ABC"},
            {"when": {"step": 1}, "answer": "DE"},
        ]
    }
    job = jobs.job(rows, script, program={"name": f"{name}:by_halves", "prompts": {"half": half}})
    jobs.run(job)
    (record,) = jobs.records()
    assert (record["status"], record["output"], record["attempts"]) == ("ok", ["ABC", "DE"], 3)
    assert "too short: 2 characters for the 3 of its source ('part')" in record["history"][0]["error"]["message"]


def test_the_content_of_a_glossary_belongs_to_the_identity_and_where_it_lies_does_not(jobs: Any, ten: Path) -> None:
    def with_terms(path: Path) -> Any:
        return jobs.job(ten, answer={"glossary": {"field": "text", "terms": str(path)}})

    first, second = jobs.path / "a.csv", jobs.path / "b.csv"
    first.write_text("bank,Bank\n")
    second.write_text("bank,Bank\n")
    assert identity_of(with_terms(first)) == identity_of(with_terms(second))
    jobs.run(with_terms(first))
    first.write_text("bank,Ufer\n")
    with pytest.raises(FolderError, match=r"answer\.glossary\.terms \(content\)"):
        jobs.run(with_terms(first))


@pytest.mark.parametrize("fault", ["journal-append:2", "part-sealed:1"])
def test_a_run_with_rules_that_is_killed_comes_to_the_same_bytes(jobs: Any, fault: str) -> None:
    rows = jobs.rows([{"id": i, "text": f"{ENGLISH} ({i})"} for i in range(24)])
    script = {
        "latency": 0.02,
        "concurrency": 4,
        "rules": [
            {"when": {"attempt": 1, "matches": "[02468]\\)"}, "answer": "{text}"},
            {"when": {"attempt": 2}, "answer": "und so weiter und so", "finish_reason": "repetition"},
            {"answer": GERMAN},
        ],
    }
    answer = {"copy": "text", "language": "de", "repetition": True}
    data = jobs.data(rows, script, answer=answer, run={"window": 8})
    jobs.run(job_from({**data, "output": str(jobs.path / "whole")}))
    jobs.killed(data, fault)
    assert jobs.finish(data)[0] == 0
    assert jobs.results() == jobs.results("whole")
    assert {record["status"] for record in jobs.records()} == {"ok"}


def test_terms_of_json_answers_are_looked_at_in_their_part(jobs: Any) -> None:
    schema = {"type": "object", "properties": {"german": {"type": "string"}, "note": {"type": "string"}}}
    rows = jobs.rows([{"text": ENGLISH}])
    bad, good = ({"german": text, "note": ENGLISH} for text in (ENGLISH, GERMAN))
    script = {"rules": [{"when": {"attempt": 1}, "answer": json.dumps(bad)}, {"answer": json.dumps(good)}]}
    jobs.run(jobs.job(rows, script, answer={"schema": schema, "language": {"is": "de", "part": "german"}}))
    (record,) = jobs.records()
    assert (record["status"], record["output"], record["attempts"]) == ("ok", good, 2)
