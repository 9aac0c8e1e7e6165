"""Commands as a page has them in; the same commands run here out, with a scripted engine in place of every model that is not here.

``python rehearsal.py SOCKET`` imports what commands import and does a few of them, once, so that what is made at the first use is
there (templates, grammars, modules), and then forks for every command that a shim of the page's shell hands over (``SHIM`` in
``conftest.py``): a run takes a tenth of what it takes without. What is put in place of what:

| a page says | here |
|---|---|
| any engine | its own settings, checked as ever, and the scripted engine behind them, whose samples differ |
| a model on the hub | the demo model's config and tokenizer |
| ``...`` in a command | a prompt, an input, a model and a folder, where the command names none |
| a public data set, in ``eval`` | three made-up rows with its columns |
| ``s3://``, ``gs://``, ``az://`` | the folder ``buckets`` beside the page's files |
| the hub, in ``publish --push-to`` | nothing is sent |
| ``llmbatch serve`` | it goes on in the background once it answers, on a free port |
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import re
import runpy
import signal
import socket
import sys
import tempfile
import time
import traceback
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[2]
SOME_NOT_OK = 3  # the exit code
NONE_OK = "LLMBATCH_DOCS_NONE_OK"  # the variable with the command that may have no row that is ok
SAMPLES = ROOT / "tests" / "evals" / "samples"
IMPORTED = (
    "datasets", "jsonschema_rs", "numpy", "pandas", "pyarrow.parquet", "rich.table", "scipy.stats", "llmbatch.api",
    "llmbatch.cli.run",
    "llmbatch.cli.plan", "llmbatch.cli.evaluate", "llmbatch.cli.publish", "llmbatch.cli.compare", "llmbatch.evals.api",
    "llmbatch.cli.serve", "llmbatch.audit.audit", "transformers.models.auto.tokenization_auto", "llmbatch.server.running",
)  # fmt: skip

DRAWN = [{"when": {"sample": [1, 2, 3]}, "answer": "{text} Put otherwise, for the {sample}. time."}]
"""Samples after the first are other answers, as those that a model draws."""


def stand_in() -> None:
    """Put in place what the docstring above lists. No file of llmbatch is changed, and nothing is checked less."""
    import fsspec
    from fsspec.implementations.local import LocalFileSystem

    from llmbatch import api
    from llmbatch.engines import ENGINES
    from llmbatch.engines.devices import Place
    from llmbatch.engines.kinds import kind_of
    from llmbatch.engines.scripted.engine import ScriptedEngine
    from llmbatch.engines.scripted.script import ScriptedSettings
    from llmbatch.engines.settings import EngineSettings
    from llmbatch.evals import api as evals_api
    from llmbatch.evals import evaluate as evals
    from llmbatch.job.job import DEMO_MODEL, Job
    from llmbatch.publishing import hub

    def make(model: str, engine: EngineSettings, chat: Any, log: Path) -> ScriptedEngine:
        plain = ScriptedSettings(
            name="scripted", in_flight=engine.in_flight, reasoning_parser=engine.reasoning_parser, args={"rules": DRAWN}
        )
        return ScriptedEngine(model, plain, chat, log)

    kinds = ModuleType("rehearsed")
    for name in ENGINES.keys() - {"scripted"}:
        kind = replace(
            kind_of(name), make=make, hosted=False, places=lambda settings, _: [Place()] * settings.engines,
            images=lambda *_: True, pooled=lambda settings, *_: settings,
        )  # fmt: skip
        setattr(kinds, name, kind)
        ENGINES[name] = f"rehearsed:{name}"
    sys.modules["rehearsed"] = kinds

    def model_path(job: Job) -> str:
        return job.model if Path(job.model).is_dir() else str(DEMO_MODEL)

    Job.model_path = property(model_path)  # type: ignore[method-assign,assignment]

    run_task = evals.evaluate

    def on_samples(task: Any, asked: Any, *arguments: Any, **named: Any) -> Any:
        if asked.data is None and (SAMPLES / task.name).is_dir():
            asked = asked._replace(data=SAMPLES / task.name)
        return run_task(task, asked, *arguments, **named)

    evals.evaluate = evals_api.run_task = on_samples

    def push(_folder: Path, repo: str, **_named: Any) -> str:
        return f"https://hub.invalid/datasets/{repo}"

    hub.push = api.push = push

    class Buckets(LocalFileSystem):  # type: ignore[misc]
        protocol = ("s3", "gs", "az")

        def __init__(self, **options: Any) -> None:
            super().__init__(**{**options, "auto_mkdir": True})  # as a bucket has no folders

        @classmethod
        def _strip_protocol(cls, path: Any) -> str:
            plain = re.sub(r"^\w+://", f"{Path.cwd()}/buckets/", str(path))
            return str(LocalFileSystem._strip_protocol(plain))

        def unstrip_protocol(self, name: str) -> str:
            return "s3://" + name.removeprefix(f"{Path.cwd()}/buckets/")

    for protocol in Buckets.protocol:
        fsspec.register_implementation(protocol, Buckets, clobber=True)


def warm_up() -> None:
    """Do the commands that most pages have, for what they leave in memory alone."""
    commands = (
        ["run", "--model", "any", "--prompt", "summarize", "--input", "rows.jsonl", "--output", "out"],
        ["plan", "--model", "any", "--prompt", "{{ text }}", "--input", "rows.jsonl"],
        ["eval", "demo-numbers", "--model", "any", "--limit", "3", "--output", "scores"],
        ["show", "out", "a"],
    )
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w") as nowhere:
        os.chdir(folder)
        Path("rows.jsonl").write_text('{"id": "a", "text": "one"}\n', encoding="utf-8")
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            for argv in commands:
                run("llmbatch", argv)
        os.chdir(here)


def filled_in(argv: list[str]) -> list[str]:
    """The arguments of a command, with what ``...`` stands for."""
    if "..." not in argv:
        return argv
    at = argv.index("...")
    given = {"--model": "demo", "--prompt": "{{ text }}", "--input": "rows.jsonl", "--output": f"run-{os.getpid()}"}
    if argv[0] == "plan":
        del given["--output"]
    more = [part for name, value in given.items() if name not in argv for part in (name, value)]
    return [*argv[:at], *more, *argv[at + 1 :]]


def run(name: str, argv: list[str]) -> int:
    """A command of a page to its end; returns its exit code, which for rows of which only some are not ok is 0."""
    before = set(reports())
    code = run_to_its_end(name, argv)
    if code != SOME_NOT_OK:
        return code
    called = argv[0] if name == "llmbatch" and argv else name
    return 0 if called == os.environ.get(NONE_OK) or has_rows_that_are_ok(set(reports()) - before) else code


def reports() -> Iterator[tuple[Path, bytes]]:
    """Those of all runs below this folder."""
    return ((path, path.read_bytes()) for path in Path.cwd().rglob("report.json"))


def has_rows_that_are_ok(made: set[tuple[Path, bytes]]) -> bool:
    """Whether a run has one, by its report: the scripted engine does not know every answer, but most."""
    found = [json.loads(content) for _, content in made]
    return any(report["rows"]["by_status"].get("ok") for report in found if "rows" in report)


def run_to_its_end(name: str, argv: list[str]) -> int:
    try:
        if name == "llmbatch" and argv[:1] == ["serve"] and "--help" not in argv:
            return serve(argv)
        if name == "llmbatch":
            from llmbatch.cli.main import main

            main(filled_in(argv), prog_name="llmbatch")
        elif name == "python":
            sys.argv = argv[1:] if argv[0] == "-m" else argv
            sys.path.insert(0, str(Path.cwd()))
            if argv[0] == "-m":
                runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(argv[0], run_name="__main__")
        else:
            importlib.import_module(f"read_{name}").read(Path(argv[0]))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def serve(argv: list[str]) -> int:
    """The server in a process of its own, which whoever runs the page ends; back once it answers."""
    port = os.environ["PORT"]
    pid = os.fork()
    if pid == 0:
        from llmbatch.cli.main import main

        log = os.open("serve.log", os.O_CREAT | os.O_WRONLY, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        try:
            main([*argv, "--port", port])
        finally:
            os._exit(1)
    Path("serve.pid").write_text(str(pid))
    for _ in range(600):
        if os.waitpid(pid, os.WNOHANG)[0]:
            break
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return 0
        except OSError:
            time.sleep(0.05)
    print(Path("serve.log").read_text(), file=sys.stderr)
    return 1


def become(message: bytes, files: list[int]) -> int:
    """Be the process of a command, with its folder, environment and streams."""
    asked = json.loads(message)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, (file, name) in enumerate(zip(files, ("stdin", "stdout", "stderr"), strict=True)):
        os.dup2(file, number)
        os.close(file)
        setattr(sys, name, os.fdopen(number, "w" if number else "r", 1 if number == 2 else -1, closefd=False))
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    code = run(asked["name"], asked["argv"])
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # the reader of a pipe is gone
            code = code or 1
    return code


def main(place: str) -> None:
    """Listen until whoever started this goes: its end of stdin is closed then."""
    sys.path.insert(0, str(Path(__file__).parent))
    sys.path.insert(1, str(ROOT / "tests"))
    gc.disable()
    importlib.import_module("fork_server").import_modules(IMPORTED)
    del sys.path[1]
    stand_in()
    warm_up()
    gc.enable()
    gc.collect()
    gc.freeze()  # else each fork looks through, and so copies, all that is there
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(place)
        listener.listen(16)
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            message, files, _, _ = socket.recv_fds(connection, 1 << 20, 3)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            if message == b"end":
                os._exit(0)  # what would be tidied up goes with it
            if os.fork() == 0:
                listener.close()
                code = 1
                try:
                    code = become(message, files)
                finally:
                    connection.send(str(code).encode())
                    os._exit(code)
            connection.close()
            for file in files:
                os.close(file)


if __name__ == "__main__":
    main(sys.argv[1])
