from __future__ import annotations

import importlib
import py_compile
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import llmbatch
from llmbatch.cli import COMMANDS
from llmbatch.cli.main import LazyGroup, main
from llmbatch.core.errors import LlmbatchError, RunError, Stopped, UsageError

HEAVY = {"pydantic", "rich", "jinja2", "torch", "vllm", "transformers", "datasets", "pyarrow", "yaml", "numpy"}


def modules_after(*arguments: str) -> set[str]:
    """The top-level modules that a command line has imported when it ends, in a process of its own."""
    script = (
        "import sys, atexit\n"
        "atexit.register(lambda: print(*{m.partition('.')[0] for m in sys.modules}, file=sys.stderr))\n"
        "from llmbatch.cli.main import main\n"
        f"main({list(arguments)!r}, prog_name='llmbatch')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_help_and_version_import_nothing_heavy(argument: str) -> None:
    assert modules_after(argument) & HEAVY == set()


@pytest.mark.parametrize("name", ["run", "render", "plan", "status", "show"])
def test_the_help_of_a_command_imports_neither_torch_nor_vllm(name: str) -> None:
    assert modules_after(name, "--help") & {"torch", "vllm", "transformers", "datasets"} == set()


def test_help_lists_every_command_with_what_it_does() -> None:
    text = CliRunner().invoke(main, ["--help"]).output
    for name, (_, line) in COMMANDS.items():
        assert name in text
        assert line in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_where_the_table_says_and_has_help(name: str) -> None:
    module, attribute = COMMANDS[name][0].split(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    assert command.name == name
    assert CliRunner().invoke(main, [name, "--help"]).exit_code == 0


def test_version_is_the_packages() -> None:
    assert CliRunner().invoke(main, ["--version"]).output.strip() == f"llmbatch, version {llmbatch.__version__}"


def test_a_mistyped_command_is_refused_with_the_near_one() -> None:
    result = CliRunner().invoke(main, ["rum"])
    assert result.exit_code == 2
    assert "No such command 'rum'. Did you mean 'run'?" in result.output


def test_a_mistyped_flag_is_refused_with_the_near_one() -> None:
    result = CliRunner().invoke(main, ["run", "--promt", "x"])
    assert result.exit_code == 2
    assert "--prompt" in result.output


def test_a_run_without_settings_says_what_is_missing() -> None:
    result = CliRunner().invoke(main, ["run"])
    assert result.exit_code == 2
    assert result.output.startswith("Error: ")
    assert "--model" in result.output
    assert "--output" in result.output


def test_with_debug_an_error_is_raised_with_its_traceback() -> None:
    for arguments, environment in (
        (["--debug", "run"], {}),
        (["run", "--debug"], {}),
        (["run"], {"LLMBATCH_DEBUG": "1"}),
    ):
        assert isinstance(CliRunner(env=environment).invoke(main, arguments).exception, UsageError)


@click.command()
@click.argument("number", type=int)
def fail(number: int) -> None:
    errors: list[BaseException] = [
        RunError("the disk is full\x1b[31m"),
        UsageError("no such file"),
        Stopped("stopped"),
        KeyboardInterrupt(),
    ]
    error = errors[number]
    if isinstance(error, LlmbatchError):
        error.add_note("to go on: x")
    raise error


class OneCommand(LazyGroup):
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        return fail


@pytest.mark.parametrize(
    ("number", "code", "output"),
    [
        (0, 1, "Error: the disk is full\\x1b[31m\nto go on: x\n"),
        (1, 2, "Error: no such file\nto go on: x\n"),
        (2, 130, "stopped\nto go on: x\n"),
        (3, 130, "stopped\n"),
    ],
)
def test_an_error_is_told_in_words_and_becomes_its_exit_code(number: int, code: int, output: str) -> None:
    result = CliRunner().invoke(OneCommand(), ["fail", str(number)])
    assert (result.exit_code, result.stderr, result.stdout) == (code, output, "")


def test_a_compiled_module_that_is_cut_off_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python leaves it where the disk was full."""
    source = tmp_path / "cut_off_command.py"
    source.write_text("import click\ncommand = click.Command('x')\n")
    compiled = Path(py_compile.compile(str(source), doraise=True) or "")
    compiled.write_bytes(compiled.read_bytes()[:40])
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(COMMANDS, "cut", ("cut_off_command", ""))
    result = CliRunner().invoke(main, ["cut"])
    assert result.exit_code == 1
    assert f"{compiled} is cut off" in result.stderr


def test_an_input_that_ends_too_early_is_a_fault_with_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def end() -> None:
        raise EOFError

    monkeypatch.setattr(LazyGroup, "get_command", lambda *_: click.Command("x", callback=end))
    result = CliRunner().invoke(main, ["x"])
    assert isinstance(result.exception, RuntimeError)
    assert isinstance(result.exception.__cause__, EOFError)
