from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from llmbatch.core.settings import Counts, IsPath, marked
from llmbatch.job.job import Job, job_from


class Inner(BaseModel):
    file: Annotated[str | None, IsPath(), Counts.CONTENT] = Field(None, alias="where")
    speed: Annotated[int, Counts.NOTHING] = Field(1, ge=1)
    plain: str = ""


class Outer(BaseModel):
    output: Annotated[str, IsPath()]
    inner: Inner | None = None


def test_the_marks_of_settings_and_of_their_sections_are_found_by_the_keys_of_a_job_file() -> None:
    assert [each.place for each in marked(Outer, IsPath)] == ["output", "inner.where"]
    assert [each.place for each in marked(Outer, Counts.CONTENT)] == ["inner.where"]
    assert [each.place for each in marked(Outer, Counts.NOTHING)] == ["inner.speed"]


def test_the_value_of_a_marked_setting_is_none_where_its_section_is_not_there() -> None:
    (setting,) = marked(Outer, Counts.CONTENT)
    assert setting.value_in(Outer(output="x", inner=Inner(where="a"))) == "a"
    assert setting.value_in(Outer(output="x")) is None


def test_these_settings_of_a_job_are_paths() -> None:
    assert {each.place for each in marked(Job, IsPath)} == {
        "model", "prompt.path", "input.path", "output", "engine.script", "engine.lora", "chat.template", "answer.schema",
        "answer.grammar", "reuse.cache", "run.rows", "program.prompts.*.path", "program.prompts.*.answer.schema",
        "program.prompts.*.answer.grammar", "answer.glossary.terms", "program.prompts.*.answer.glossary.terms",
        "input.draw.*.items_of", "input.more", "run.tuning.draft", "sinks.to",
    }  # fmt: skip


def test_of_these_files_the_content_counts() -> None:
    assert {each.place for each in marked(Job, Counts.CONTENT)} == {
        "engine.script", "chat.template", "answer.schema", "answer.grammar", "answer.glossary.terms", "run.rows",
        "program.prompts.*.answer.schema", "program.prompts.*.answer.grammar", "program.prompts.*.answer.glossary.terms",
    }  # fmt: skip


def test_a_mark_changes_nothing_of_what_a_setting_takes() -> None:
    data = {"model": "m", "input": "a.jsonl", "output": "out", "answer": {"schema": {"type": "object"}}}
    job = job_from(data)
    assert job.answer is not None
    assert job.answer.json_schema == {"type": "object"}
