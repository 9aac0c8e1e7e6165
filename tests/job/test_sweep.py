from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmbatch.core.errors import JobError, PromptError
from llmbatch.core.types import Cursor, Failure, Row
from llmbatch.job.identity import identity_of
from llmbatch.job.job import Job, job_from, load_job_data
from llmbatch.job.swept import recipe_of

PROMPT = """
name: NAME
description: d
variables: {text: {type: string}, style: {type: string, default: plain}}
messages: [{role: user, content: "NAME {{ style }} {{ text }}"}]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "rows.jsonl").write_text('{"id": "r0", "text": "zero"}\n{"id": "r1", "text": "one"}\n')
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(PROMPT.replace("NAME", name))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def swept(sweep: Any, **sections: Any) -> Job:
    return job_from(
        {"model": "m", "prompt": "a.yaml", "input": "rows.jsonl", "output": "out", "sweep": sweep, **sections}
    )


def asked(job: Job, rows: int) -> list[tuple[str, dict[str, Any]]]:
    """The text and the sampling of the first rows."""
    recipe, found = recipe_of(job), []
    for index in range(rows):
        settled = recipe.settled(Row(index, f"r#{index}", {"text": "x"}, Cursor(index)))
        assert not isinstance(settled, Failure)
        found.append((str((settled.prompt.messages or ())[0]["content"]), dict(settled.sampling)))
    return found


def test_a_grid_is_every_combination_in_order_and_rows_take_turns(folder: Path) -> None:
    job = swept({"prompt": ["a.yaml", "b.yaml"], "sampling.temperature": [0, 0.7], "prompt.variables.style": ["x"]})
    assert job.input.repeat == 4
    found = [(text, sampling["temperature"]) for text, sampling in asked(job, 5)]
    assert found == [("a x x", 0), ("a x x", 0.7), ("b x x", 0), ("b x x", 0.7), ("a x x", 0)]


def test_settings_may_be_listed_one_by_one_and_nested_keys_are_places_too(folder: Path) -> None:
    job = swept([{"prompt": "b.yaml", "sampling": {"top_p": 0.5}}, {"prompt": {"variables": {"style": "brief"}}}])
    (first, one), (second, two) = asked(job, 2)
    assert (first, one["top_p"]) == ("b plain x", 0.5)
    assert second == "a brief x"
    assert "top_p" not in two
    nested = swept({"sampling": {"temperature": [0, 1]}})
    assert asked(nested, 2) == asked(swept({"grid": {"sampling.temperature": [0, 1]}}), 2)


def test_an_adapter_may_be_swept(folder: Path) -> None:
    engine = {"name": "scripted", "lora": {"x": "org/x"}}
    job = swept({"lora": ["x", None]}, engine=engine)
    rendered = [recipe_of(job)._of(row)._main.ask(row) for row in (Row(i, i, {"text": "t"}, Cursor(i)) for i in (0, 1))]
    assert [getattr(ask, "lora", "?") for ask in rendered] == ["x", None]
    with pytest.raises(JobError, match=r'"lora": "y".*engine.lora has x'):
        recipe_of(swept({"lora": ["x", "y"]}, engine=engine))


def test_paths_of_prompts_in_a_sweep_are_relative_to_the_job_file_and_move_with_it(folder: Path) -> None:
    (folder / "jobs").mkdir()
    file = folder / "jobs" / "job.yaml"
    file.write_text(
        "model: m\ninput: ../rows.jsonl\noutput: out\nsweep: {prompt: [../a.yaml, 'Say {{ text }}', translate]}\n"
    )
    job = job_from(load_job_data(file))
    assert job.sweep is not None
    assert list(job.sweep.grid["prompt"]) == [str(folder / "jobs" / ".." / "a.yaml"), "Say {{ text }}", "translate"]
    inside = job_from(
        {**job.data(), "sweep": {"prompt": [str(folder / "a.yaml"), "Say {{ text }}"]}, "input": "rows.jsonl"}
    )
    inside.to_yaml(folder)
    assert "a.yaml" in inside.to_yaml(folder)
    assert str(folder / "a.yaml") not in inside.to_yaml(folder)


def test_every_value_of_a_sweep_and_the_texts_of_its_prompts_belong_to_the_identity(folder: Path) -> None:
    def identity(sweep: Any) -> dict[str, str]:
        job = swept(sweep)
        return {**identity_of(job), **recipe_of(job).identity()}

    sweep = {"prompt": ["a.yaml", "b.yaml"], "sampling.temperature": [0, 1]}
    before = identity(sweep)
    assert before == identity({"grid": sweep, "max_rows": 5})
    assert before != identity({**sweep, "sampling.temperature": [0, 1.5]})
    assert before != identity({**sweep, "prompt": ["b.yaml", "a.yaml"]})
    (folder / "b.yaml").write_text(PROMPT.replace("NAME", "b").replace("{{ text }}", "{{ text }}!"))
    assert before != identity(sweep)
    many = {"sampling.seed": list(range(500))}
    assert identity(many) != identity({"sampling.seed": list(range(1, 501))})
    assert sum(map(len, identity(many).values())) < 10_000


@pytest.mark.parametrize(
    ("sweep", "words"),
    [
        ({f"prompt.variables.v{i}": list(range(10)) for i in range(10)}, r"makes 10,000,000,000 settings \(10 x 10"),
        ({"engine.name": ["a", "b"]}, "cannot be swept"),
        ({"samplin": {"top_p": [1]}}, "'samplin' cannot be swept"),
        ({"sampling.top_p": [0.5, 1, 0.5]}, "has 0.5 twice"),
        ([{"sampling.top_p": 1}, {"sampling.top_p": 1}], "twice"),
        ({"sampling.top_p": []}, "has no value"),
        ({"grid": {"sampling.top_p": [1]}, "settings": [{"sampling.top_p": 1}]}, "not both"),
        ({}, "is a grid"),
        ([], "is a grid"),
        (3, "sweep"),
    ],
)
def test_a_sweep_that_explodes_or_makes_no_sense_is_refused(folder: Path, sweep: Any, words: str) -> None:
    with pytest.raises(JobError, match=words):
        swept(sweep)


@pytest.mark.parametrize(
    ("sweep", "words"),
    [
        ({"sampling.temperatur": [0, 1]}, r'"sampling.temperatur": 0.*did you mean \'temperature\''),
        ({"sampling.temperature": [0, -1]}, r"temperature.*at least 0"),
        ({"prompt.variables.stile": ["x"]}, "no variable 'stile'"),
        ({"prompt": ["a.yaml", "none.yaml"]}, r"none\.yaml"),
    ],
)
def test_a_wrong_value_is_found_before_anything_is_begun(folder: Path, sweep: Any, words: str) -> None:
    with pytest.raises((JobError, PromptError), match=words):
        recipe_of(swept(sweep))


def test_how_often_rows_come_is_the_sweeps_to_say(folder: Path) -> None:
    sweep = {"sampling.temperature": [0, 1]}
    assert swept(sweep, input={"path": "rows.jsonl", "repeat": 2}).input.repeat == 2
    with pytest.raises(JobError, match=r"input\.repeat is 3"):
        swept(sweep, input={"path": "rows.jsonl", "repeat": 3})


def test_prompts_for_text_and_for_numbers_are_no_sweep(jobs: Any) -> None:
    head = "text: '{{ text }}'\nvariables: {text: {type: string}}\n"
    (jobs.path / "one.yaml").write_text(f"name: one\n{head}")
    (jobs.path / "other.yaml").write_text(f"name: other\n{head}program: {{name: embed}}\n")
    prompts = [str(jobs.path / name) for name in ("one.yaml", "other.yaml")]
    data = jobs.data(jobs.rows([{"text": "a"}]), sweep={"prompt": prompts})
    del data["prompt"]
    with pytest.raises(JobError, match=r"different things \(single, embed\)"):
        recipe_of(job_from(data))
