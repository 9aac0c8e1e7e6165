from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from llmbatch.cli.main import main
from llmbatch.prompt.shipped import shipped_prompts


def prompts(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["prompts", *arguments])


@pytest.mark.parametrize("arguments", [(), ("list",)])
def test_the_shipped_prompts_are_listed(arguments: tuple[str, ...]) -> None:
    result = prompts(*arguments)
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == shipped_prompts()


def test_a_prompt_s_file_is_shown_as_it_is() -> None:
    result = prompts("show", "translate")
    assert result.exit_code == 0
    assert result.stdout.startswith("name: translate\n")


def test_an_unknown_prompt_is_wrong_usage() -> None:
    result = prompts("show", "tranlate")
    assert result.exit_code == 2
    assert "did you mean 'translate'?" in result.stderr


def test_the_shipped_prompts_and_the_demo_s_pass_the_check() -> None:
    demo = Path(__file__).parents[2] / "llmbatch" / "demo" / "prompts"
    result = prompts("check", *shipped_prompts(), *map(str, sorted(demo.glob("*.yaml"))))
    assert result.exit_code == 0, result.output
    assert result.stderr == ""


FINE = "name: p\nvariables: {text: {}}\ntext: 'Q: {{ text }}'\noutput: {choice: [a, b]}\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: p\n", "a prompt has one of messages"),
        (
            FINE.replace("{text: {}}", "{text: {}, more: {}}"),
            "p.yaml:2:23: the variable 'more' is declared and never used",
        ),
        (FINE.replace("{{ text }}", "{{ txt }}"), "the variable 'txt' is not declared"),
        (FINE + "examples: [{row: {text: x}, output: c}]\n", "p.yaml:5:12: example 1: its output does not pass"),
        (FINE + "examples: [{row: {body: x}, output: a}]\n", "example 1: row 0: the variable 'text' is missing"),
        (FINE + "examples: [{row: {text: x}, variables: {t: x}}]\n", "has no variable 't'"),
        (
            FINE.replace("output: {choice: [a, b]}\n", "examples: [{row: {text: x}, output: [1]}]\n"),
            "its output must be text",
        ),
        (FINE.replace("{choice: [a, b]}", "{regex: '('}"), "p.yaml:4:1: "),
        (FINE.replace("{choice: [a, b]}", "{copy: {feld: text}}"), "unknown key 'copy.feld': did you mean copy.field?"),
        (FINE.replace("{choice: [a, b]}", "{language: xq}"), "answer.language is 'xq', which is no language"),
        (
            FINE.replace("{choice: [a, b]}", "{copy: text}\nexamples: [{row: {text: A B C D E}, output: a b c d e}]"),
            "p.yaml:5:12: example 1: its output does not pass: the answer is its source ('text') over again",
        ),
        (
            FINE.replace("{choice: [a, b]}", "{copy: txt}\nexamples: [{row: {text: A B C D E}, output: a b c d e}]"),
            "example 1: answer.copy needs 'txt', and the row has none",
        ),
    ],
)
def test_what_is_wrong_with_a_prompt_is_said(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    result = prompts("check", str(path), "summarize")
    assert result.exit_code == 2
    assert words in result.stderr
    assert "ok: summarize" in result.stdout


def test_a_prompt_that_keeps_rows_from_sharing_gets_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("name: p\nvariables: {text: {}}\ntext: '{{ text }} " + "Be brief. " * 50 + "'\n")
    result = prompts("check", str(path))
    assert result.exit_code == 0
    assert "warning: " in result.stderr
    assert "500 characters" in result.stderr or "501 characters" in result.stderr


def test_a_program_that_a_file_brings_is_checked_with_the_prompts_of_its_steps(tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    text = (
        "name: two\ndescription: d.\nvariables: {text: {type: string}}\nmessages: [{role: user, content: '{{ text }}'}]\n"
        "program: {name: chain, prompts: {check: {path: 'check {{ main }}', lora: legal}}, settings: {steps: [main, check]}}\n"
    )
    path.write_text(text)
    assert prompts("check", str(path)).exit_code == 0
    path.write_text(text.replace("steps: [main, check]", "steps: [check, main]"))
    result = prompts("check", str(path))
    assert result.exit_code == 2
    assert "steps[0] (check): the prompt check takes 'main', and the step main comes later" in result.stderr
