"""What shells are told, and what they make of it: real ones, on a terminal, where they are installed."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from click.testing import CliRunner

from llmbatch.cli import COMMANDS, setting_names
from llmbatch.cli.main import main
from llmbatch.engines import ENGINES
from llmbatch.formats import FORMATS as WIRE_FORMATS
from llmbatch.plan.window import OverflowMode
from llmbatch.programs import PROGRAMS
from llmbatch.prompt.shipped import shipped_prompts
from llmbatch.sources import FORMATS

PATIENCE_SECONDS = 60.0


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with run folders, other folders and files in it, and the cache of nobody else."""
    here = tmp_path / "here"
    for run in ("out", "runs/a", "runs/deep/b", ".hidden"):
        (here / run).mkdir(parents=True)
        (here / run / "run.json").touch()
    (here / "data").mkdir()
    (here / "rows.jsonl").touch()
    monkeypatch.chdir(here)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return here


def completed(*words: str) -> list[str]:
    """What bash is told of a command line whose last word is being typed, each with its type."""
    environment = {
        "_LLMBATCH_COMPLETE": "bash_complete",
        "COMP_WORDS": "\n".join(["llmbatch", *words]),
        "COMP_CWORD": str(len(words)),
    }
    return CliRunner(env=environment).invoke(main, [], prog_name="llmbatch").stdout.split()


def plain(*words: str) -> list[str]:
    return [said.removeprefix("plain,") for said in completed(*words)]


def test_every_command_is_offered() -> None:
    assert plain("") == list(COMMANDS)
    assert plain("st") == ["status"]


def test_options_are_offered() -> None:
    assert sorted(plain("run", "--max-to")) == ["--max-tokens", "--max-total-tokens"]
    assert plain("nothing", "--ver") == ["--version"]
    assert plain("--ver") == ["--version"]


@pytest.mark.parametrize(
    "command", ["status", "show", "audit", "retry-failed", "diff", "compare", "merge", "publish", "report"]
)
def test_where_a_run_folder_is_wanted_those_that_are_there_are_offered(command: str) -> None:
    assert plain(command, "") == ["out", "runs/a", "runs/deep/b"]
    assert plain(command, "runs/d") == ["runs/deep/b"]
    assert plain(command, "./o") == ["./out"]
    assert completed(command, "da") == ["dir,da"]


def line(row_id: object, index: int, status: str) -> str:
    return json.dumps({"id": row_id, "index": index, "status": status, "output": None}) + "\n"


def test_ids_of_a_run_s_rows_are_offered_those_that_are_not_ok_first(folders: Path) -> None:
    lines = [line("b-1", 0, "ok"), line("b-2", 1, "failed"), line('say "x"', 2, "ok"), line(7, 3, "ok")]
    (folders / "out" / "results.jsonl").write_text("".join(lines) + "torn")
    (folders / "out" / "errors.jsonl").write_text(lines[1])
    assert plain("show", "out", "b") == ["b-2", "b-1"]
    assert plain("show", "out", "7") == ["7"]
    assert plain("show", "runs/a", "") == []
    assert plain("show", "nowhere", "") == []


def test_ids_of_a_run_that_goes_on_are_those_of_its_parts(folders: Path) -> None:
    (folders / "out" / "parts").mkdir()
    (folders / "out" / "parts" / "part-00000.jsonl").write_text(line("a", 0, "ok"))
    assert plain("show", "out", "") == ["a"]


def test_of_very_many_ids_some_are_offered(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmbatch.cli.complete._OFFERED", 3)
    (folders / "out" / "results.jsonl").write_text("".join(line(f"r{at}", at, "ok") for at in range(9)))
    assert plain("show", "out", "r") == ["r0", "r1", "r2"]


def test_where_there_are_very_many_files_the_search_ends(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmbatch.cli.complete._LOOKED_AT", 5)  # the entries of this folder
    assert plain("status", "") == ["out"]


@pytest.mark.parametrize(
    ("option", "known"),
    [
        ("--program", list(PROGRAMS)),
        ("--format", list({**FORMATS, **WIRE_FORMATS})),
        ("--engine", list(ENGINES)),
        ("--prompt", shipped_prompts()),
    ],
)
def test_names_that_a_table_knows_are_offered(option: str, known: list[str]) -> None:
    assert plain("run", option, "") == known
    assert plain("run", "--model", "demo", option, known[-1][:3]) == [
        name for name in known if name.startswith(known[-1][:3])
    ]


def test_the_modes_of_overflow_are_those_of_the_setting() -> None:
    assert plain("plan", "--overflow", "") == list(get_args(OverflowMode))


@pytest.mark.parametrize(("option", "kind"), [("--input", "file"), ("--output", "dir"), ("--cache", "file")])
def test_a_place_is_left_to_the_shell(option: str, kind: str) -> None:
    assert completed("run", option, "da") == [f"{kind},da"]


def test_settings_are_offered_with_the_equals_sign_that_follows() -> None:
    assert plain("run", "--set", "retry.max_a") == ["retry.max_attempts="]
    assert plain("run", "--set", "sampling.top_") == ["sampling.top_p=", "sampling.top_k="]
    assert {"engine.args=", "input.id_field=", "answer.schema=", "accept.unique.similarity="} <= set(
        plain("run", "--set", "")
    )


def test_every_setting_of_a_job_is_one_that_set_takes() -> None:
    """A section has no value of its own, and ``answer.schema`` is how the file calls it."""
    names = dict(setting_names.read_settings())
    assert {"model", "prompt.path", "run.window", "sinks.keep"} <= names.keys()
    assert not {"prompt", "input", "engine", "run", "sampling.", "answer.json_schema"} & names.keys()


def test_settings_are_read_once_and_again_when_llmbatch_is_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = setting_names.setting_names()
    kept = tmp_path / "cache" / "llmbatch" / "settings.json"
    kept.write_text(json.dumps({**json.loads(kept.read_bytes()), "settings": {"a.b": "kept"}}))
    assert setting_names.setting_names() == {"a.b": "kept"}
    monkeypatch.setattr(setting_names, "_mark", lambda: "another")
    assert setting_names.setting_names() == first
    kept.write_text("{")
    assert setting_names.setting_names() == first


def test_where_nothing_can_be_kept_settings_are_read_each_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert "model" in setting_names.setting_names()


@pytest.mark.parametrize("words", [("st",), ("status", ""), ("run", "--program", ""), ("run", "--prompt", "")])
def test_what_a_shell_asks_for_imports_nothing_heavy(words: tuple[str, ...]) -> None:
    code = (
        "import sys\nfrom llmbatch.cli.main import main\n"
        "try:\n    main([], prog_name='llmbatch')\nexcept SystemExit:\n    pass\n"
        "print(*({'pydantic', 'rich', 'yaml', 'jinja2', 'transformers', 'vllm', 'torch'} & sys.modules.keys()), file=sys.stderr)\n"
    )
    environment = {
        **os.environ, "_LLMBATCH_COMPLETE": "bash_complete", "COMP_WORDS": "\n".join(["llmbatch", *words]),
        "COMP_CWORD": str(len(words)),
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stderr.split() == []
    assert done.stdout.startswith("plain,")


# in the shells themselves

SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'bind -x \'"\\C-g": printf "<%s>\\n" "$READLINE_LINE"\''),
    "zsh": (
        ["zsh", "-f", "-i"],
        "autoload -U compinit; compinit -u; told() { print -r -- \"<$BUFFER>\" }; zle -N told; bindkey '^G' told",
    ),
    "fish": (["fish", "--no-config", "-i"], 'bind \\cg \'echo "<"(commandline)">"\''),
}
"""How each is started, and what has it tell, at Ctrl-G, the line as it stands."""


@pytest.fixture(params=SHELLS)
def press(request: pytest.FixtureRequest, folders: Path, tmp_path: Path) -> Iterator[Any]:
    """Types a line into a shell that has our completion, presses Tab, and gives the line as it then stands."""
    command, binding = SHELLS[request.param]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "llmbatch").write_text(f'#!/bin/sh\nexec {sys.executable} -m llmbatch.cli "$@"\n')
    (programs / "llmbatch").chmod(0o755)
    script = subprocess.run(
        [programs / "llmbatch", "completion", command[0]], capture_output=True, text=True, check=True
    )
    (tmp_path / "script").write_text(script.stdout)
    environment = {
        **os.environ, "HOME": str(tmp_path), "PATH": f"{programs}:{os.environ['PATH']}", "TERM": "xterm", "INPUTRC": "/dev/null",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }  # fmt: skip
    shell, screen = pty.fork()  # the terminal is its own, as fish wants it
    if shell == 0:
        os.chdir(folders)
        os.execvpe(command[0], command, environment)  # noqa: S606
    seen = ""

    def until(pattern: str) -> str:
        nonlocal seen
        while not (found := re.search(pattern, seen)):
            assert select.select([screen], [], [], PATIENCE_SECONDS)[0], f"there is no {pattern} in {seen!r}"
            seen += os.read(screen, 1 << 16).decode(errors="replace")
        seen = seen[found.end() :]
        return found[1]

    def press(line: str) -> str:
        os.write(screen, f"{line}\t".encode())
        os.write(screen, b"\x07")
        said = until("<(llmbatch[^>\n]*)>")
        os.write(screen, b"\x15")  # an empty line again
        return said

    os.write(screen, f"{binding}\nsource {tmp_path / 'script'}\necho rea''dy\n".encode())
    until("(ready)")
    yield press
    os.kill(shell, signal.SIGKILL)
    os.waitpid(shell, 0)
    os.close(screen)


def test_a_shell_completes_commands_options_names_folders_and_settings(press: Any) -> None:
    assert press("llmbatch aud") == "llmbatch audit "
    assert press("llmbatch run --max-c") == "llmbatch run --max-cost "
    assert press("llmbatch run --program map") == "llmbatch run --program map_reduce "
    assert press("llmbatch status runs/d") == "llmbatch status runs/deep/b "
    assert press("llmbatch run --set retry.max_a") == "llmbatch run --set retry.max_attempts="
