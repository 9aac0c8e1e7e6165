from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from llmbatch.job.job import job_from
from llmbatch.sinks.base import SinkSettings

NO_PREDICTION = {"when": {"matches": "broken"}, "fail": "it broke"}


def run(jobs: Any, path: Path, options: dict[str, Any], settings: dict[str, Any], prompt: Any = None) -> Path:
    """The folder of the predictions of a job over some instances, which a custom model got."""
    sinks = {"layout": {"name": "vertex", "settings": {**options, **settings}}}
    data = jobs.data(path, {"rules": [NO_PREDICTION]}, sinks=sinks, input={"format": "vertex", "options": options})
    if prompt is None:
        del data["prompt"]
    else:
        data["prompt"] = {"path": prompt}
    [folder] = (jobs.run(job_from(data)).folder / "output").iterdir()
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_predictions_are_in_so_many_shards_one_after_another(jobs: Any) -> None:
    texts = [f"broken {i}" if i in (1, 5) else f"text {i}" for i in range(7)]
    folder = run(
        jobs,
        jobs.rows([json.dumps(text) for text in texts]),
        {},
        {"shards": 3, "model": "a/My Model@2", "time": "2026-11-24T13:14:15Z"},
    )
    assert folder.name == "prediction-My-Model-2-2026-11-24T13:14:15.000Z"
    shards = [f"{number:05d}-of-00003" for number in range(3)]
    good = [[line["instance"] for line in lines(folder / f"prediction.results-{shard}")] for shard in shards]
    bad = [[line["instance"] for line in lines(folder / f"prediction.errors_stats-{shard}")] for shard in shards]
    assert good == [["text 0", "text 2"], ["text 3", "text 4"], ["text 6"]]
    assert bad == [["broken 1"], ["broken 5"], []]
    assert len(list(folder.iterdir())) == 6


def test_a_line_that_is_no_json_is_among_the_errors_with_its_place(jobs: Any) -> None:
    folder = run(jobs, jobs.rows(['"fine"', "{cut"]), {}, {})
    [error] = lines(folder / "prediction.errors_stats-00000-of-00001")
    assert error["instance"] is None
    assert error["error"]["code"] == 3
    assert "rows.jsonl:2: not JSON" in error["error"]["message"]


def test_csv_comes_back_with_its_columns(jobs: Any) -> None:
    path = jobs.path / "in.csv"
    path.write_text('name,note\nfirst,"a, b"\nbroken,x\nsecond,"say ""hi"""\nthird\n')
    folder = run(jobs, path, {"instances": "csv"}, {"predictions": "csv"}, prompt="{{ name }}: {{ note }}")
    with (folder / "prediction.results-00000-of-00001").open(newline="") as stream:
        assert list(csv.reader(stream)) == [
            ["name", "note", "prediction"],
            ["first", "a, b", "first: a, b"],
            ["second", 'say "hi"', 'second: say "hi"'],
        ]
    with (folder / "prediction.errors_stats-00000-of-00001").open(newline="") as stream:
        head, broken, short = csv.reader(stream)
    assert head == ["name", "note", "error_code", "error_message"]
    assert broken[:3] == ["broken", "x", "13"]
    assert short[:3] == ["", "", "3"]


def test_csv_files_with_other_columns_have_all_of_them(jobs: Any) -> None:
    (jobs.path / "a.csv").write_text("prompt\nfirst\n")
    (jobs.path / "b.csv").write_text("prompt,note\nsecond,n\n")
    folder = run(jobs, jobs.path / "*.csv", {"instances": "csv"}, {"predictions": "csv"})
    text = (folder / "prediction.results-00000-of-00001").read_text()
    assert text == "prompt,note,prediction\nfirst,,first\nsecond,n,second\n"


def test_csv_of_instances_with_a_key_has_that_alone(jobs: Any) -> None:
    path = jobs.rows([{"k": "a", "prompt": "one"}, {"k": "b", "prompt": "broken"}])
    folder = run(jobs, path, {"key_field": "k"}, {"predictions": "csv"})
    assert (folder / "prediction.results-00000-of-00001").read_text() == "key,prediction\na,one\n"
    assert (
        (folder / "prediction.errors_stats-00000-of-00001")
        .read_text()
        .startswith("key,error_code,error_message\nb,13,")
    )


def test_parameters_of_the_job_hold_where_an_instance_does_not_say_otherwise(jobs: Any) -> None:
    path = jobs.rows(['"eleven more"', {"prompt": "eleven more", "max_tokens": 6}, {"text": "eleven more"}])
    options = {"parameters": {"max_tokens": 3}}
    sinks = {"layout": {"name": "vertex", "settings": {"rich": True}}}
    data = jobs.data(
        path, sinks=sinks, input={"format": "vertex", "options": options}, answer={"allow_truncated": True}
    )
    [folder] = (jobs.run(job_from(data)).folder / "output").iterdir()
    said = [line["prediction"] for line in lines(folder / "prediction.results-00000-of-00001")]
    assert [(each["text"], each["finish_reason"]) for each in said] == [
        ("ele", "length"), ("eleven", "length"), ("ele", "length"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"predictions": "csv"}, "predictions can be csv where the instances are, or have a key_field"),
        ({"shards": 0}, "settings.shards"),
        ({"errors": "loud"}, "settings.errors"),
        ({"shard": 1}, "the settings of vertex are"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        SinkSettings(layout={"name": "vertex", "settings": settings})
