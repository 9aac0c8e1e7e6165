"""Which engines can be made here, and which of them really start, with the model that comes along."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import ValidationError

from llmbatch.core.errors import JobError
from llmbatch.core.imports import environment
from llmbatch.core.words import duration, one_line
from llmbatch.doctor.base import Finding
from llmbatch.doctor.software import version_of
from llmbatch.engines import ENGINES
from llmbatch.engines.kinds import EngineKind, kind_of
from llmbatch.job.job import DEMO_MODEL
from llmbatch.model.tokenizer import ChatSettings

_SECONDS = 900.0
_TAIL = 6  # lines of an engine's log


def engines() -> Iterator[Finding]:
    """Each engine: whether it could be made. Where no engine that loads a model can, that is wrong."""
    local = 0
    for name in ENGINES:
        kind = kind_of(name)
        problem = _not_made(name, kind)
        called = f"engine {name}"
        if problem is not None:
            yield Finding(called, "note", *problem)
        else:
            local += _loads_a_model(kind)
            installed = [f"{package} {version}" for package in kind.packages if (version := version_of(package))]
            yield Finding(called, "ok", ", ".join(installed) or "comes with llmbatch")
    if not local:
        yield Finding(
            "engines",
            "warning",
            "none that loads a model is installed here: there are servers, or the scripted engine for a rehearsal",
            "pip install 'llmbatch[gpu]' for an NVIDIA GPU, for a CPU see docs/install.md",
        )


def startable() -> list[str]:
    """The engines that load a model themselves, and can be made here."""
    kinds = {name: kind_of(name) for name in ENGINES}
    return [name for name, kind in kinds.items() if _loads_a_model(kind) and _not_made(name, kind) is None]


def start(names: Sequence[str]) -> Iterator[Finding]:
    """Run one row with the model that comes along on each engine, in a process of its own."""
    for name in names:
        with TemporaryDirectory(prefix="llmbatch-doctor-") as folder:
            yield _start(name, Path(folder))
    if not names:
        yield Finding(
            "start",
            "wrong",
            "there is no engine to start",
            "pip install 'llmbatch[gpu]' for an NVIDIA GPU, for a CPU see docs/install.md",
        )


def _loads_a_model(kind: EngineKind) -> bool:
    """Not one that only names a server, and not the scripted one, whose answers depend on no package."""
    return bool(kind.packages)


def _not_made(name: str, kind: EngineKind) -> tuple[str, str] | None:
    """Why an engine could not be made, and what to try."""
    try:
        settings = kind.settings.model_validate({"name": name})
        with TemporaryDirectory(prefix="llmbatch-doctor-") as folder:
            kind.make(str(DEMO_MODEL), settings, ChatSettings(), Path(folder) / "engine.log")
    except ValidationError as error:
        return one_line(error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")), ""
    except JobError as error:
        seen, _, advice = str(error).partition(": ")
        return (seen, advice) if advice.startswith("pip ") else (one_line(str(error)), "")
    except ImportError as error:
        return f"cannot be imported: {error}", "reinstall it; its versions may not fit each other"
    return None


def _start(name: str, folder: Path) -> Finding:
    called = f"start {name}"
    rows = folder / "rows.jsonl"
    rows.write_text('{"text": "one hundred"}\n', encoding="utf-8")
    command = [
        sys.executable, "-P", "-m", "llmbatch.cli", "run", "--model", "demo", "--prompt", "Say: {{ text }}", "--input", str(rows),
        "--engine", name, "--output", str(folder / "out"), "--max-tokens", "4", "--set", "answer.allow_truncated=true", "--quiet",
    ]  # fmt: skip
    if args := kind_of(name).quick:
        command += ["--set", f"engine.args={json.dumps(dict(args))}"]
    began = time.monotonic()
    try:
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Finding(
            called,
            "wrong",
            f"no answer within {duration(_SECONDS)}",
            f"llmbatch demo --engine {name}, and look at its engine.log",
        )
    if done.returncode == 0:
        return Finding(called, "ok", f"started and answered in {duration(time.monotonic() - began)}")
    said = done.stderr.strip() or _tail(folder / "out" / "engine.log") or f"exit code {done.returncode}"
    return Finding(
        called, "wrong", one_line(said, 600), f"llmbatch demo --engine {name} --debug, and look at its engine.log"
    )


def _tail(log: Path) -> str:
    try:
        return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:])
    except OSError:
        return ""
