"""What the sinks are given at the end of a run: its records, and beside each the row of the input."""

from __future__ import annotations

import json
from typing import Any

from llmbatch.runs.retry_failed import retry_failed

OPENAI = {"sinks": {"formats": ["openai"]}}
HARD = {"rules": [{"when": {"contains": "hard"}, "answer": ""}]}


def lines(jobs: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (jobs.path / "out" / "results.openai.jsonl").read_bytes().splitlines()]


def chat(text: str, **body: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **body}


def requests(jobs: Any, *bodies: dict[str, Any], **sections: Any) -> Any:
    rows = jobs.rows([{"custom_id": f"q{i}", "body": body} for i, body in enumerate(bodies)])
    return jobs.job(rows, sections.pop("script", None), prompt=None, input={"path": str(rows)}, **OPENAI, **sections)


def test_a_request_s_own_n_gives_as_many_choices(jobs: Any) -> None:
    jobs.run(requests(jobs, chat("a", n=2), chat("b")))
    choices = [[c["message"]["content"] for c in line["response"]["body"]["choices"]] for line in lines(jobs)]
    assert choices == [["a", "a"], ["b"]]


def test_a_text_request_gives_a_text_completion_and_its_neighbour_a_chat_completion(jobs: Any) -> None:
    jobs.run(requests(jobs, chat("a"), {"prompt": "b"}))
    bodies = [line["response"]["body"] for line in lines(jobs)]
    assert [(body["object"], body["id"]) for body in bodies] == [
        ("chat.completion", "chatcmpl-0"),
        ("text_completion", "cmpl-1"),
    ]
    assert bodies[1]["choices"][0]["text"] == "b"


def test_a_job_whose_prompt_is_text_gives_text_completions(jobs: Any) -> None:
    prompt = jobs.path / "prompt.yaml"
    prompt.write_text("name: p\nvariables: {text: {}}\ntext: '{{ text }}'\n")
    jobs.run(jobs.job(jobs.rows([{"id": "a", "text": "x"}]), prompt=str(prompt), **OPENAI))
    assert [line["response"]["body"]["object"] for line in lines(jobs)] == ["text_completion"]


def test_malformed_rows_and_retries_keep_their_rows_beside_them(jobs: Any) -> None:
    rows = jobs.rows(
        [{"custom_id": "a", "body": chat("hard", n=2)}, "{broken", {"custom_id": "c", "body": {"prompt": "x"}}]
    )
    jobs.run(jobs.job(rows, HARD, prompt=None, input={"path": str(rows)}, retry={"max_attempts": 1}, **OPENAI))
    assert [line["error"] and line["error"]["code"] for line in lines(jobs)] == ["empty", "malformed_row", None]
    script = jobs.path / "better.yaml"
    script.write_text("{}")
    retry_failed(jobs.path / "out", {"engine": {"script": str(script)}})
    first, second, third = lines(jobs)
    assert [choice["message"]["content"] for choice in first["response"]["body"]["choices"]] == ["hard", "hard"]
    assert second["error"]["code"] == "malformed_row"
    assert third["response"]["body"]["object"] == "text_completion"


def test_where_only_some_rows_are_run_each_has_its_own_beside_it(jobs: Any) -> None:
    some = jobs.path / "some.rows"
    some.write_text("1\n3\n")
    bodies = [chat(str(i), n=i + 1) for i in range(5)]
    jobs.run(requests(jobs, *bodies, run={"rows": str(some), "window": 2}))
    choices = {line["custom_id"]: len(line["response"]["body"]["choices"]) for line in lines(jobs)}
    assert choices == {"q1": 2, "q3": 4}
