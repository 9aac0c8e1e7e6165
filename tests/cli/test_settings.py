from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from llmbatch.cli.settings import FLAGS, JobCommand, job_data_of, job_options, overrides_of, parsed_value, put
from llmbatch.job.job import Job, job_from

SEEN: list[dict[str, Any]] = []


@click.command(cls=JobCommand)
@job_options(*FLAGS)
@click.option("--extend", is_flag=True, help="The command's own flag.")
@click.pass_context
def command(ctx: click.Context, extend: bool) -> None:
    SEEN.append(job_data_of(ctx))


@click.command(cls=JobCommand)
@job_options("Sampling", job_file=False)
@click.pass_context
def overriding(ctx: click.Context) -> None:
    SEEN.append(overrides_of(ctx))


def invoke(*arguments: str, of: click.Command = command) -> Result:
    return CliRunner().invoke(of, arguments)


def data_of(*arguments: str, of: click.Command = command) -> dict[str, Any]:
    result = invoke(*arguments, of=of)
    assert result.exit_code == 0, result.output
    return SEEN.pop()


def test_a_flag_sets_its_setting_and_what_is_not_given_is_not_set() -> None:
    assert data_of() == {}
    assert data_of("--model", "m", "--prompt", "summarize", "--input", "a.jsonl", "--max-tokens", "8") == {
        "model": "m",
        "prompt": {"path": "summarize"},
        "input": {"path": "a.jsonl"},
        "sampling": {"max_tokens": 8},
    }


def test_every_flag_names_a_setting_that_a_job_has() -> None:
    for flag in (flag for flags in FLAGS.values() for flag in flags):
        models: tuple[Any, ...] = (Job,)
        for key in () if flag.setting.startswith("sampling.") else flag.setting.split("."):
            fields = [field for part in models for field in getattr(part, "model_fields", {}).items()]
            found = [field.annotation for name, field in fields if key in (name, field.alias)]
            assert found, f"{flag.name} names {flag.setting}, which no job has"
            models = (found[0], *getattr(found[0], "__args__", ()))


def test_a_command_line_with_every_kind_of_value_is_a_job() -> None:
    data = data_of(
        "--model", "m", "--prompt", "p.yaml", "--input", "a.jsonl", "--output", "out", "--engine", "scripted",
        "--temperature", "0.5", "--choice", "yes, no", "--keep", "a,b", "--max-failures", "5%", "--max-time", "8h",
        "--engine-timeout", "60", "--var", "language=fr", "--map", "text=body", "--set", "engine.args.latency=0.5",
    )  # fmt: skip
    job = job_from(data)
    assert job.answer is not None
    assert job.answer.choice == ("yes", "no")
    assert job.run.max_time == 8 * 3600
    assert job.run.max_failures == "5%"
    assert job.engine.args == {"latency": 0.5}
    assert job.prompt is not None
    assert job.prompt.variables == {"language": "fr"}
    assert job.prompt.fields == {"text": "body"}


def test_flags_override_the_job_file_and_leave_the_rest_of_it(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(
        "model: m\nprompt: summarize\ninput: {path: a.jsonl, limit: 5}\nsampling: {seed: 1, max_tokens: 8}\n"
    )
    data = data_of(str(job), "--max-tokens", "16", "--input", "b.jsonl", "--var", "style=short")
    assert data["sampling"] == {"seed": 1, "max_tokens": 16}
    assert data["input"] == {"path": "b.jsonl", "limit": 5}
    assert data["prompt"] == {"path": "summarize", "variables": {"style": "short"}}


def test_a_setting_given_by_set_goes_over_its_flag() -> None:
    assert data_of("--set", "sampling.seed=2", "--seed", "1") == {"sampling": {"seed": 2}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8", 8), ("1e-3", 0.001), ("0.5", 0.5), ("true", True), ("null", None), ("", None), ("fr", "fr"),
        ("a: b", {"a": "b"}),
        ("[a, b]", ["a", "b"]), ("[yes, no]", ["yes", "no"]), ("on", "on"), ("[12:30, 010]", ["12:30", "010"]),
        ("~", None), (" ", None), ('["a"]', ["a"]), ("{a: 1}", {"a": 1}), ("/data/x=y", "/data/x=y"),
    ],
)  # fmt: skip
def test_the_value_of_a_setting_is_yaml(text: str, value: object) -> None:
    assert parsed_value(text) == value
    assert data_of("--set", f"sampling.x={text}") == {"sampling": {"x": value}}


@pytest.mark.parametrize("text", ["seed", "=1", "sampling.=1", ".seed=1", "a..b=1"])
def test_a_setting_without_name_and_value_is_wrong_usage(text: str) -> None:
    result = invoke("--set", text)
    assert result.exit_code == 2
    assert f"--set takes SECTION.KEY=VALUE, not {text!r}" in result.output


def test_a_value_that_is_not_yaml_is_wrong_usage() -> None:
    result = invoke("--set", "sampling.stop=[a")
    assert result.exit_code == 2
    assert "'[a' is not YAML" in result.output


def test_a_key_below_a_plain_value_is_wrong_usage() -> None:
    result = invoke("--model", "m", "--set", "model.name=x")
    assert result.exit_code == 2
    assert "model is 'm', not a section" in result.output


def test_a_variable_is_text_whatever_it_looks_like() -> None:
    assert data_of("--var", "year=2024", "--var", "a=b=c", "--var", "e=") == {
        "prompt": {"variables": {"year": "2024", "a": "b=c", "e": ""}}
    }


def test_a_number_that_is_none_is_wrong_usage() -> None:
    result = invoke("--limit", "many")
    assert result.exit_code == 2
    assert "--limit" in result.output


def test_a_mistyped_flag_is_refused_with_the_near_one() -> None:
    result = invoke("--max-token", "5")
    assert result.exit_code == 2
    assert "--max-tokens" in result.output


def test_a_job_file_that_is_not_there_is_named() -> None:
    result = invoke("nowhere.yaml")
    assert "nowhere.yaml: there is no such job file" in str(result.exception)


def test_overrides_hold_what_the_command_line_gives_alone() -> None:
    assert data_of("--seed", "1", "--set", "retry.max_attempts=5", of=overriding) == {
        "sampling": {"seed": 1},
        "retry": {"max_attempts": 5},
    }


def test_the_help_lists_each_flag_under_its_heading() -> None:
    text = invoke("--help").output
    places = [text.index(f"{heading}:") for heading in (*FLAGS, "Anything else", "Options")]
    assert places == sorted(places)
    for flags in FLAGS.values():
        assert all(flag.name in text for flag in flags)


def test_a_shorthand_becomes_a_section_when_one_of_its_keys_is_set() -> None:
    data: dict[str, Any] = {"prompt": "summarize"}
    put(data, "prompt.variables", {"a": 1})
    assert data == {"prompt": {"path": "summarize", "variables": {"a": 1}}}
