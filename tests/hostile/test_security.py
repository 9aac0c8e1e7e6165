"""What SECURITY.md promises, seen to be true: rows, requests and answers are data, and nothing more."""

from __future__ import annotations

import ast
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import llmbatch
from llmbatch.core.errors import JobError, LlmbatchError, PromptError
from llmbatch.job.job import DEMO_MODEL, job_from
from llmbatch.runs.session import run_job

pytestmark = pytest.mark.usefixtures("forked")

PACKAGE = Path(llmbatch.__file__).parent
SECRET = "hf_kQz7WvThisIsNoRealTokenButLooksLikeOne"  # noqa: S105
ENVIRONMENT = dict.fromkeys(("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY"), SECRET)
GOOD = {"text": "fine", "n": 1}


def lines(*rows: dict[str, Any]) -> list[bytes]:
    return [json.dumps(row).encode() for row in rows]


def command(*arguments: str | Path, umask: int | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "llmbatch.cli", *map(str, arguments)],
        env={**os.environ, **environment}, umask=-1 if umask is None else umask, capture_output=True, text=True, check=False,
    )  # fmt: skip


def small_run(folder: Path, *more: str) -> list[str | Path]:
    (folder / "rows.jsonl").write_bytes(b"\n".join(lines(GOOD, {"text": 5}, GOOD)) + b"\n{\n")
    return [
        "run", "--model", "any", "--engine", "scripted", "--prompt", "Say: {{ text }}", "--input", folder / "rows.jsonl",
        "--output", folder / "out", "--set", "sinks.formats=[parquet,openai]", *more,
    ]  # fmt: skip


# templates: the author writes them, rows fill them


@pytest.mark.parametrize(
    "template",
    [
        "{{ text * n }}",
        "{{ [text] * n }}",
        "{{ n ** n }}",
        "{{ 2 ** n }}",
        "{{ n * n * n * n }}{% for i in range(n) %}{{ text }}{% endfor %}",
        "{{ text.ljust(n) }}",
        "{{ text.zfill(n) }}",
        "{{ '%*d' % (n, 1) }}",
        "{{ text.format(n) }}",
        "{{ ('{:>' ~ n ~ '}').format(1) }}",
        "{{ text.__class__ }}",
        "{{ text.encode.__self__.__class__.__mro__ }}",
        "{{ n.__class__.__base__.__subclasses__() }}",
        "{{ (text | attr('__class__')) }}",
        "{{ range.__globals__ }}",
        "{{ text[n] }}",
    ],
)
def test_a_row_can_neither_walk_nor_blow_up_the_authors_template(hostile: Any, template: str) -> None:
    rows = [GOOD, {"text": "x" * 1000, "n": 10**12}, {"text": "{{ n }}", "n": 10**300}, GOOD]
    records = hostile.lines(lines(*rows), prompt=template + "{{ text }}{{ n }}")
    assert [record["status"] for record in records[1:3]] == ["failed", "failed"]
    assert {record["error"]["kind"] for record in records[1:3]} == {"prompt"}
    assert all(len(record["error"]["message"]) < 1000 for record in records[1:3])


def test_an_object_in_a_row_has_no_methods_for_a_template(hostile: Any) -> None:
    rows = [{"text": "a", "x": {"items": 1, "keys": 2, "__class__": 3, "pop": 4}}]
    (record,) = hostile.lines(
        lines(*rows), prompt="{{ x.items }} {{ x.keys }} {{ x.pop }} {{ x['__class__'] }} {{ text }}"
    )
    assert record["output"] == "1 2 4 3 a"


@pytest.mark.parametrize("template", ["{% include '/etc/passwd' %}", "{% import 'os' as os %}", "{% extends 'x' %}"])
def test_a_prompt_reads_no_other_file(hostile: Any, template: str) -> None:
    with pytest.raises(PromptError, match="a prompt is one file"):
        hostile.lines(lines(GOOD), prompt=template + "{{ text }}")


# requests: whoever writes the request file is not the author of the job


def request(**body: Any) -> dict[str, Any]:
    return {
        "custom_id": "r",
        "body": {"messages": [{"role": "user", "content": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!"}], **body},
    }


@pytest.mark.parametrize(
    "body",
    [
        {"guided_json": "os:system"},
        {"guided_json": "/etc/passwd"},
        {"guided_json": {"$ref": "file:///etc/passwd"}},
        {"guided_json": {"$ref": "http://127.0.0.1:1/schema"}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": "os:system"}}},
        {"response_format": {"type": "reject", "reject": ["os:system"]}},
        {"guided_grammar": "/etc/passwd"},
        {"guided_regex": "(?=a)"},
        {"guided_regex": "a{1000000000}"},
        {"logits_processors": ["os:system"]},
        {"chat_template": "{{ ''.__class__ }}"},
        {"chat_template_kwargs": {"x": "y"}},
        {"tools": [{"type": "function"}]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}
            ]
        },
        {"extra_args": {"x": 1}},
    ],
    ids=str,
)
def test_a_request_neither_reads_nor_imports_nor_runs_anything(hostile: Any, body: dict[str, Any]) -> None:
    good = request()
    records = hostile.lines(lines(good, request(**body), good), prompt=None, input={"format": "requests"})
    assert [record["status"] for record in records] == ["ok", "failed", "ok"]
    assert records[1]["error"]["kind"] in ("prompt", "image")
    assert "root:" not in records[1]["error"]["message"]


def test_an_expression_in_a_request_cannot_hang_the_run(hostile: Any) -> None:
    bad = request(guided_regex="(a+)+b")
    (record,) = hostile.lines(lines(bad), prompt=None, input={"format": "requests"}, answer={"constrained": False})
    assert record["status"] == "invalid"


# code


_RUNS_PROGRAMS = "evals/launcher.py"
"""Is a process of its own, in which what a model wrote runs if a person allows that: see ``evals/sandbox.py``."""


def test_the_package_neither_pickles_nor_runs_text() -> None:
    forbidden_modules = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "code", "codeop"}
    forbidden_calls = {"eval", "exec", "compile", "__import__", "system", "popen", "unsafe_load", "full_load"}
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: set[str] = set()
            if isinstance(node, ast.Import):
                names = {alias.name.partition(".")[0] for alias in node.names} & forbidden_modules
            elif isinstance(node, ast.ImportFrom):
                names = {str(node.module).partition(".")[0]} & forbidden_modules
            elif isinstance(node, ast.Call):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                of = getattr(node.func, "value", None)
                is_re = isinstance(of, ast.Name) and of.id in {"re", "regex"}
                names = {called} & forbidden_calls if not is_re else set()
                names |= {"shell=True" for keyword in node.keywords if keyword.arg == "shell"}
            if path.relative_to(PACKAGE).as_posix() == _RUNS_PROGRAMS:
                names -= {"compile", "exec"}
            found += [f"{path.relative_to(PACKAGE)}:{node.lineno}: {name}" for name in names]  # type: ignore[attr-defined]
    assert found == []


def test_yaml_is_only_ever_read_by_the_safe_loader() -> None:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        found += re.findall(
            r"yaml\.(?:load|load_all|full_load\w*|unsafe_load\w*|Loader|FullLoader|UnsafeLoader)\b", text
        )
    assert found == []


TAGGED = "!!python/object/apply:os.system ['touch {0}']"


@pytest.mark.parametrize("place", ["job", "prompt", "script", "setting"])
def test_a_tag_in_yaml_runs_nothing(tmp_path: Path, place: str) -> None:
    touched = tmp_path / "touched"
    tag = TAGGED.format(touched)
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "tagged.yaml").write_text(f"name: {tag}\nmodel: {tag}\nrules: {tag}\n")
    tagged = str(tmp_path / "tagged.yaml")
    arguments: dict[str, list[str]] = {
        "job": ["run", tagged],
        "prompt": [*map(str, small_run(tmp_path)), "--prompt", tagged],
        "script": [*map(str, small_run(tmp_path)), "--set", f"engine.script={tagged}"],
        "setting": [*map(str, small_run(tmp_path)), "--set", f"sampling.stop={tag}"],
    }
    done = command(*arguments[place])
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert not touched.exists()


def test_remote_code_is_off_by_default() -> None:
    data = {"model": "m", "prompt": "{{ text }}", "input": "x", "output": "y"}
    assert job_from(data).engine.trust_remote_code is False
    with pytest.raises(JobError):
        job_from({**data, "engine": {"trust_remote_code": "sure"}})


@pytest.mark.vllm
def test_remote_code_is_allowed_to_the_engine_only_where_the_job_says_so() -> None:
    from llmbatch.engines.settings import EngineSettings
    from llmbatch.engines.vllm.args import engine_args
    from llmbatch.model.tokenizer import ChatSettings

    model = str(DEMO_MODEL)  # one that is here: for another its configuration would be asked of the hub
    assert engine_args(model, EngineSettings(), ChatSettings())["trust_remote_code"] is False
    assert engine_args(model, EngineSettings(trust_remote_code=True), ChatSettings())["trust_remote_code"] is True
    with pytest.raises(JobError, match=r"has a setting of its own: engine\.trust_remote_code"):
        engine_args(model, EngineSettings(args={"trust_remote_code": True}), ChatSettings())


# files


NAMES = re.compile(
    r"out(/parts(/part-\d{5}\.(jsonl|meta\.json))?|/(job\.yaml|run\.json|report\.(json|html)|(progress|timeline)\.json|errors\.jsonl"
    r"|results\.(jsonl|parquet|openai\.jsonl)))?"
)


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0o002])
def test_files_and_folders_are_made_with_the_users_umask(tmp_path: Path, umask: int) -> None:
    done = command(*small_run(tmp_path), umask=umask)
    assert done.returncode == 3, done.stderr
    made = [tmp_path / "out", *(tmp_path / "out").rglob("*")]
    assert len(made) > 8
    for path in made:
        expected = (0o777 if path.is_dir() else 0o666) & ~umask
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


def test_no_name_of_a_file_comes_from_a_row(tmp_path: Path) -> None:
    run = small_run(tmp_path, "--keep", "all")
    ids = ["../../escape", "/tmp/escape", "a/b", "results.jsonl", "parts", "\n", "x" * 300, "CON", "-"]  # noqa: S108
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(lines(*({"id": name, "text": name, name: name} for name in ids))))
    assert command(*run).returncode == 3  # a line break alone is no prompt
    made = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.name != "rows.jsonl")
    assert [name for name in made if not NAMES.fullmatch(name)] == []


# secrets


def texts_under(folder: Path) -> str:
    return "".join(path.read_bytes().decode("utf-8", "replace") for path in folder.rglob("*") if path.is_file())


def test_secrets_of_the_environment_are_written_nowhere(tmp_path: Path) -> None:
    done = command(*small_run(tmp_path), "--json", **ENVIRONMENT)
    assert done.returncode == 3
    assert SECRET not in done.stdout + done.stderr + texts_under(tmp_path)
    for more in (["status"], ["audit"], ["retry-failed"], ["show"]):
        said = command(*more, tmp_path / "out", *(["0"] if more == ["show"] else []), **ENVIRONMENT)
        assert SECRET not in said.stdout + said.stderr
    assert SECRET not in texts_under(tmp_path)


@pytest.mark.vllm
def test_secrets_of_the_environment_are_not_in_the_engines_log(tmp_path: Path) -> None:
    run = [str(argument).replace("scripted", "vllm").replace("any", "demo") for argument in small_run(tmp_path)]
    small = ("--set", "engine.args.enforce_eager=true", "--set", "engine.args.kv_cache_memory_bytes=268435456")
    done = command(*run, "--max-tokens", "4", *small, **ENVIRONMENT)
    assert done.returncode in {0, 3}, done.stderr
    assert (tmp_path / "out" / "engine.log").stat().st_size > 0
    assert SECRET not in done.stdout + done.stderr + texts_under(tmp_path)


def test_a_secret_in_a_job_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    done = command(*small_run(tmp_path), "--set", f"engine.args.hf_token={SECRET}")
    assert done.returncode == 2
    assert "a secret has no place in a job" in done.stderr
    assert SECRET not in done.stderr
    assert not (tmp_path / "out").exists()


# the terminal


def test_what_rows_and_answers_hold_cannot_command_the_terminal(tmp_path: Path) -> None:
    evil = "\x1b[2J\x1b]0;owned\x07\x9b31m\r\x08evil"
    run = small_run(tmp_path, "--choice", "a,b", "--max-attempts", "1")
    (tmp_path / "rows.jsonl").write_bytes(
        b"\n".join(lines({"id": evil, "text": evil}, {"id": "b", "text": [evil]}, {evil: 1}))
    )
    (tmp_path / "script.yaml").write_text(json.dumps({"rules": [{"answer": evil}]}))
    done = [command(*run, "--set", f"engine.script={tmp_path / 'script.yaml'}")]
    done += [command("show", tmp_path / "out", name) for name in (evil, "b", "2")]
    done += [command("status", tmp_path / "out"), command("audit", tmp_path / "out")]
    for one in done:
        said = one.stdout + one.stderr
        assert said != ""
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", said), repr(said)


# refused jobs leave no traceback, whatever they hold


def test_errors_that_we_raise_are_ours(tmp_path: Path) -> None:
    for broken in (
        {"prompt": "{{ text"},
        {"answer": {"schema": "no_such:Model"}},
        {"input": "nowhere.jsonl"},
        {"engine": {"name": "x"}},
    ):
        data = {
            "model": "m",
            "prompt": "{{ text }}",
            "input": str(tmp_path),
            "output": str(tmp_path / "o"),
            "engine": {"name": "scripted"},
            **broken,
        }
        with pytest.raises(LlmbatchError):
            run_job(job_from(data))
