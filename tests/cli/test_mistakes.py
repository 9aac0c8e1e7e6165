"""What ``docs/mistakes.md`` says that is answered, typed and compared."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import sys
from pathlib import Path

import pandas
import pytest
from click.testing import CliRunner
from pydantic import BaseModel

from llmbatch.cli.main import main
from llmbatch.core.errors import LlmbatchError
from llmbatch.engines.vllm.trouble import start_failure

a_hub = importlib.import_module("tests.model_hub").a_hub
PAGE = Path(__file__).parents[2] / "docs" / "mistakes.md"
SHOWN = re.findall(
    r"^```text\n(\$ llmbatch|>>>|vLLM:) (.+)\n(.+)\n```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
)
MISTAKES = [(asked, answer) for who, asked, answer in SHOWN if who == "$ llmbatch"]
IN_PYTHON = [(asked, answer) for who, asked, answer in SHOWN if who == ">>>"]
OF_VLLM = [(asked, answer) for who, asked, answer in SHOWN if who == "vLLM:"]
ROWS = "".join(json.dumps(row) + "\n" for row in ({"id": "a", "text": "one hundred"}, {"id": "b", "text": "twelve"}))
JOB = "model: demo\n{}\ninput: rows.jsonl\noutput: out\n"
FILES = {
    "rows.jsonl": ROWS.encode(),
    "data/a.jsonl": ROWS.encode(),
    "data/b.jsonl": ROWS.encode(),
    "list.json": b'[{"id": "a", "text": "one"},\n {"id": "b", "text": "two"}]\n',
    "lines.txt": b"one\ntwo\n",
    "latin.csv": b"id,text\n1,caf\xe9\n",
    "braces.yaml": JOB.format("prompt: {{ text }}").encode(),
    "tab.yaml": JOB.format("prompt:\n\tpath: summarize").encode(),
    "key.yaml": JOB.format("prompt: summarize\nretry: {max_atempts: 2}").encode(),
}


def llmbatch(line: str) -> tuple[int, str]:
    """(exit code, the last line of what was said)"""
    done = CliRunner().invoke(main, shlex.split(line), prog_name="llmbatch", catch_exceptions=False)
    return done.exit_code, done.stderr.splitlines()[-1] if done.stderr else ""


def test_there_are_twenty_and_more() -> None:
    assert len(MISTAKES) >= 22 and len(IN_PYTHON) >= 8 and len(OF_VLLM) >= 12
    numbers = re.findall(r"^## (\d+)\.", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert numbers == [str(number) for number in range(1, len(SHOWN) + 1)]


@pytest.mark.parametrize(("line", "answer"), MISTAKES, ids=[f"{number}" for number in range(1, len(MISTAKES) + 1)])
def test_a_mistake_is_answered_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, answer: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    if "Qwen/" in line:
        with a_hub(monkeypatch, tmp_path) as hub:
            hub.has("Qwen/Qwen3-8B")
            see(line, answer)
        return
    if answer.startswith("Error: vLLM is not installed"):
        monkeypatch.setitem(sys.modules, "vllm", None)  # so it is
    if " done" in line or " don" in line:
        made = 'run --model demo --engine scripted --prompt "{{ text }}" --input rows.jsonl --output done --quiet'
        assert llmbatch(made) == (0, "")
    see(line, answer)


def see(line: str, answer: str) -> None:
    code, said = llmbatch(line)
    assert code != 0
    assert is_said(answer, said), said


def is_said(answer: str, said: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, answer.split("..."))), said) is not None


class Person(BaseModel):
    age: int


@pytest.mark.parametrize(("line", "answer"), IN_PYTHON, ids=[line[:40] for line, _ in IN_PYTHON])
def test_a_mistake_in_python_is_an_error_as_the_page_says(line: str, answer: str) -> None:
    with pytest.raises(LlmbatchError) as error:
        list(eval(line, {"llmbatch": importlib.import_module("llmbatch"), "pandas": pandas, "Person": Person}))  # noqa: S307 - a line of ours
    assert is_said(answer, f"{type(error.value).__name__}: {error.value}"), error.value


@pytest.mark.parametrize(("said", "answer"), OF_VLLM, ids=[said[:40] for said, _ in OF_VLLM])
@pytest.mark.parametrize("process", ["here", "its own"])
def test_what_vllm_says_where_it_does_not_start_is_said_with_what_to_try(
    tmp_path: Path, process: str, said: str, answer: str
) -> None:
    log, error = tmp_path / "engine.log", RuntimeError(said)
    if process == "its own":
        log.write_text(f"(EngineCore pid=7) ERROR 11-22 [core.py:1] ValueError: {said}\n")
        error = RuntimeError("Engine core initialization failed. See root cause above. Failed core proc(s): {}")
    failure = start_failure(error, "m", log, 0)
    assert f"Error: {failure}".replace("ValueError: ", "", 1) == answer


def test_what_a_prompt_s_text_lacks_is_said_with_the_text_mended() -> None:
    _, said = llmbatch('render --prompt "Summarize this" --input rows.jsonl')
    assert said.endswith("names the row's fields in double braces, as 'Summarize this: {{ text }}'")


def test_of_three_files_in_a_pattern_s_place_the_last_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "abc":
        (tmp_path / f"{name}.jsonl").write_text(ROWS)
    _, said = llmbatch("run --model demo --prompt summarize --output out --input a.jsonl b.jsonl c.jsonl")
    assert said.startswith("Error: Got unexpected extra arguments (c.jsonl). A pattern of several files goes in quotes")
