"""Which stop sequence ended an answer is on its record, and in what other systems' files say of it."""

from __future__ import annotations

import json
from typing import Any

from llmbatch.job.job import job_from


def test_a_record_says_which_stop_sequence_ended_its_answer(jobs: Any) -> None:
    rows = jobs.rows(
        [{"id": "a", "text": "one END two"}, {"id": "b", "text": "three"}, {"id": "c", "text": "4 ## END"}]
    )
    jobs.run(job_from(jobs.data(rows, sampling={"stop": ["END", "##"]})))
    found = [(record["output"], record.get("stop_reason")) for record in jobs.records()]
    assert found == [("one ", "END"), ("three", None), ("4 ", "##")]


def test_of_several_answers_it_is_a_list(jobs: Any) -> None:
    rows = jobs.rows([{"id": "a", "text": "one END two"}])
    rules = {"rules": [{"when": {"sample": 1}, "answer": "two"}]}
    jobs.run(job_from(jobs.data(rows, rules, sampling={"stop": ["END"], "n": 2, "temperature": 1})))
    [record] = jobs.records()
    assert (record["output"], record["stop_reason"]) == (["one ", "two"], ["END", None])


def test_files_of_openai_s_form_say_it_as_vllm_s_server_does(jobs: Any) -> None:
    body = {"messages": [{"role": "user", "content": "one END two"}], "stop": ["END"]}
    rows = jobs.rows([json.dumps({"custom_id": "a", "url": "/v1/chat/completions", "body": body})])
    given = {"input": {"format": "openai"}, "sinks": {"layout": {"name": "openai_batch"}}}
    folder = jobs.run(job_from(jobs.data(rows, prompt=None, model="demo", **given))).folder
    [choice] = json.loads((folder / "output" / "output.jsonl").read_text())["response"]["body"]["choices"]
    assert (choice["finish_reason"], choice["stop_reason"], choice["message"]["content"]) == ("stop", "END", "one ")
