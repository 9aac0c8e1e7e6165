from __future__ import annotations

import json
from typing import Any

import pytest

from llmbatch.core.errors import FolderError, JobError, RunError, UsageError
from llmbatch.publishing.publish import settings_from

ROWS = [
    {"id": "a", "text": "the first of all texts", "topic": "x"},
    {"id": "b", "text": "another one that is longer", "topic": "y"},
]
AN_OBJECT = {"schema": {"type": "object"}}
PROMPT = """
name: p
variables: {text: {}}
messages:
  - {role: system, content: Be brief.}
  - {role: user, content: "Say: {{ text }}"}
"""


@pytest.fixture
def prompt(tmp_path: Any) -> Any:
    (tmp_path / "prompt.yaml").write_text(PROMPT)
    return {"path": str(tmp_path / "prompt.yaml")}


def asked(text: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Say: {text}"}]


def test_a_chat_is_what_the_model_was_asked_and_what_it_answered(run: Any, published: Any, prompt: Any) -> None:
    published(run(ROWS, {"rules": [{"answer": "well"}]}, prompt=prompt))
    assert published.rows() == [
        {"id": row["id"], "messages": [*asked(row["text"]), {"role": "assistant", "content": "well"}]} for row in ROWS
    ]


def test_a_completion_of_a_chat_is_of_messages_and_one_of_text_is_text(run: Any, published: Any, prompt: Any) -> None:
    published(run(ROWS[:1], {"rules": [{"answer": "well"}]}, prompt=prompt), layout="completion")
    (row,) = published.rows()
    assert row["prompt"] == asked(ROWS[0]["text"])
    assert row["completion"] == [{"role": "assistant", "content": "well"}]
    prompt = {"path": str(published.folder.parent / "text.yaml")}
    (published.folder.parent / "text.yaml").write_text('name: t\nvariables: {text: {}}\ntext: "{{ text }} TL;DR"\n')
    published(run(ROWS[:1], {"rules": [{"answer": "well"}]}, name="text", prompt=prompt), layout="completion")
    assert published.rows() == [{"id": "a", "prompt": "the first of all texts TL;DR", "completion": "well"}]


def test_named_fields_take_the_place_of_what_was_asked(run: Any, published: Any) -> None:
    folder = run(ROWS[:1], {"rules": [{"answer": '{"question": "q?", "answers": ["one", "two"]}'}]}, answer=AN_OBJECT)
    published(
        folder, system="input.topic", prompt="output.question", completion="output.answers.1", columns="input.text"
    )
    (row,) = published.rows()
    assert [message["content"] for message in row["messages"]] == ["x", "q?", "two"]
    assert row["text"] == ROWS[0]["text"]
    published(folder, prompt="output.question", completion="output.answers.1", layout="completion")
    assert published.rows() == [{"id": "a", "prompt": "q?", "completion": "two"}]


def test_each_of_several_samples_is_a_row(run: Any, published: Any) -> None:
    published(run(ROWS[:1], sampling={"n": 3, "temperature": 1, "seed": 1}), duplicates="keep")
    assert [row["id"] for row in published.rows()] == ["a#0", "a#1", "a#2"]
    assert published.rows()[0]["messages"][-1]["role"] == "assistant"


def test_of_answers_with_scores_the_best_and_the_worst_are_a_pair(run: Any, published: Any) -> None:
    answer = {"all": [{"say": "fair", "score": 3}, {"say": "poor", "score": 1}, None, {"say": "good", "score": 5}]}
    folder = run(ROWS[:1], {"rules": [{"answer": json.dumps(answer)}]}, answer=AN_OBJECT)
    published(folder, layout="preference", candidates="output.all", text="say")
    (row,) = published.rows()
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == ("good", "poor")
    assert (row["score_chosen"], row["score_rejected"]) == (5, 1)
    assert row["prompt"] == [{"role": "user", "content": ROWS[0]["text"]}]


def test_what_best_of_chose_from_is_a_pair_without_being_named(run: Any, published: Any) -> None:
    folder = run(ROWS[:1])
    record = json.loads((folder / "results.jsonl").read_bytes())
    samples = [{"output": "meh", "score": 1.0}, None, {"output": "great", "score": 2.0}, {"output": "?", "score": None}]
    record["details"] = {"by": "judge", "chosen": 2, "samples": samples}
    (folder / "results.jsonl").write_text(json.dumps(record) + "\n")
    published(folder, layout="preference")
    (row,) = published.rows()
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == ("great", "meh")
    samples[0], samples[2] = ({"output": {"say": say, "of": "me"}, "score": n} for n, say in enumerate(("no", "yes")))
    (folder / "results.jsonl").write_text(json.dumps(record) + "\n")
    published(folder, layout="preference", text="output.say")
    assert published.rows()[0]["chosen"][0]["content"] == "yes"


def test_what_was_sent_back_is_the_worse_one_of_a_pair(run: Any, published: Any) -> None:
    rules = [{"when": {"attempt": 1, "contains": "first"}, "answer": "purple"}, {"answer": "blue"}]
    folder = run(ROWS, {"rules": rules}, answer={"choice": ["blue", "green"]}, retry={"feedback": False})
    done = published(folder, layout="preference", columns="sent_back")
    (row,) = published.rows()
    assert (row["id"], row["chosen"][0]["content"], row["rejected"][0]["content"]) == ("a", "blue", "purple")
    assert row["sent_back"] == "choice"
    assert done.dropped == {"no_pair": 1}


def test_two_fields_are_a_pair(run: Any, published: Any) -> None:
    published(run(ROWS), layout="preference", chosen="output", rejected="input.topic")
    assert [row["rejected"][0]["content"] for row in published.rows()] == ["x", "y"]


def test_raw_has_the_record_and_its_row(run: Any, published: Any) -> None:
    published(run(ROWS), layout="raw")
    (first, _) = published.rows()
    assert (first["id"], first["status"], first["output"]) == ("a", "ok", ROWS[0]["text"])
    assert first["input"] == ROWS[0]
    published(published.folder.parent / "run", layout="raw", columns=["output", "input.topic"])
    assert published.rows()[0] == {"id": "a", "output": ROWS[0]["text"], "topic": "x"}


def test_thinking_stands_beside_the_answer_if_asked_for(run: Any, published: Any) -> None:
    folder = run(ROWS[:1])
    record = json.loads((folder / "results.jsonl").read_bytes())
    (folder / "results.jsonl").write_text(json.dumps({**record, "reasoning": "hm"}) + "\n")
    published(folder, reasoning=True)
    assert published.rows()[0]["messages"][-1] == {
        "role": "assistant", "content": ROWS[0]["text"], "reasoning_content": "hm",
    }  # fmt: skip


def test_children_are_published_before_results_each_with_its_item_as_the_prompt(run: Any, published: Any) -> None:
    folder = run(ROWS)
    lines = [
        {"id": f"{row['id']}/{n}", "index": 2 * i + n, "status": "ok", "output": f"answer {row['id']} {n}",
         "parent": row["id"], "parent_index": i, "number": n, "item": f"question {row['topic']} {n}"}
        for i, row in enumerate(ROWS) for n in range(2)
    ]  # fmt: skip
    (folder / "children.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    published(folder, columns="input.topic")
    assert [(row["id"], row["topic"], row["messages"][0]["content"]) for row in published.rows()] == [
        (line["id"], ROWS[line["parent_index"]]["topic"], line["item"]) for line in lines
    ]
    published(folder, rows="results")
    assert [row["id"] for row in published.rows()] == ["a", "b"]


def test_accepted_rows_are_published_before_all_others(run: Any, published: Any) -> None:
    folder = run(ROWS)
    (folder / "accepted.jsonl").write_bytes((folder / "results.jsonl").read_bytes().splitlines(keepends=True)[1])
    published(folder)
    assert [row["id"] for row in published.rows()] == ["b"]
    with pytest.raises(FolderError, match=r"the run has no children; it has accepted, results"):
        published(folder, rows="children")


def test_rows_that_were_tried_again_with_another_prompt_have_that_prompt(run: Any, published: Any) -> None:
    from llmbatch.runs.retry_failed import retry_failed

    rules = [{"when": {"contains": "Again"}, "answer": "blue"}, {"when": {"contains": "first"}, "answer": "purple"}]
    folder = run(
        ROWS, {"rules": [*rules, {"answer": "green"}]}, answer={"choice": ["blue", "green"]}, retry={"max_attempts": 1}
    )
    retry_failed(folder, {"prompt": {"path": "Again: {{ text }}"}})
    published(folder)
    assert [row["messages"][0]["content"] for row in published.rows()] == [f"Again: {ROWS[0]['text']}", ROWS[1]["text"]]


def test_a_prompt_that_has_changed_is_not_rendered_again(run: Any, published: Any, prompt: Any, tmp_path: Any) -> None:
    folder = run(ROWS, prompt=prompt)
    (tmp_path / "prompt.yaml").write_text(PROMPT.replace("brief", "verbose"))
    with pytest.raises(FolderError, match=r"the prompt is not what the run asked with any more.*name what is to be"):
        published(folder)
    published(folder, layout="raw")
    assert "The prompt has changed since the run" in published.card()


def test_an_input_that_has_changed_is_refused_and_can_be_done_without(run: Any, published: Any, tmp_path: Any) -> None:
    folder = run(ROWS)
    path = tmp_path / "run.jsonl"
    path.write_text(path.read_text().replace("first", "other"))
    with pytest.raises(RunError, match="the input is not what this run began with") as refused:
        published(folder)
    assert "to publish without its input" in refused.value.__notes__[0]
    with pytest.raises(UsageError, match="without the run's input its prompts cannot be rendered again"):
        published(folder, input=False)
    published(folder, input=False, prompt="id")
    assert published.rows()[0]["messages"][0]["content"] == "a"


def test_a_run_that_is_not_finished_is_refused(run: Any, published: Any, tmp_path: Any) -> None:
    with pytest.raises(FolderError, match="no run has begun here"):
        published(tmp_path)
    folder = run(ROWS)
    manifest = json.loads((folder / "run.json").read_bytes())
    manifest["sessions"][-1]["outcome"] = None
    (folder / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(FolderError, match="the run is not finished"):
        published(folder)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"layout": "chats"},
            r"layout: unknown layout \(did you mean 'chat'\?\): known are chat, completion, preference, raw",
        ),
        ({"laiout": "chat"}, "unknown key 'laiout': did you mean layout?"),
        ({"split": {"test": 1.5}}, "split: shares lie between 0 and 1"),
        ({"split": {"train": 0.1}}, "'train' cannot be the name of a split"),
        ({"chosen": "output", "layout": "preference"}, "chosen and rejected name the two answers of a pair"),
        ({"score": "output.score"}, "score is for the preference layout, and the layout is chat"),
        ({"min_chars": 9, "max_chars": 3}, r"min_chars \(9\) is above max_chars \(3\)"),
        ({"status": "fine"}, "status: Input should be 'ok'"),
    ],
)
def test_settings_that_are_wrong_are_named(settings: Any, said: str) -> None:
    with pytest.raises(JobError, match=said):
        settings_from(settings)
