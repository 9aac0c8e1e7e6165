"""What is said of an engine that does not start, where that is the program's own fault; vLLM is not needed for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

UNGUARDED = """
import multiprocessing
from llmbatch.engines.kinds import make_engine
from llmbatch.engines.vllm import trouble
from llmbatch.engines.vllm.log import captured
from llmbatch.job.job import job_from
from llmbatch.runs.session import run_job

def make(model, settings, chat, log):
    engine = make_engine(model, settings, chat, log)

    def start():
        with captured(log):
            core = multiprocessing.get_context("spawn").Process(target=print)
            core.start()
            core.join()
        core = f"Engine core initialization failed. See root cause above. Failed core proc(s): {{'EngineCore': {core.exitcode}}}"
        raise trouble.start_failure(RuntimeError(core), model, log, 0)

    engine.start = start
    return engine

run_job(job_from(%r), make=make)
"""


@pytest.mark.usefixtures("forked")
def test_a_real_script_without_a_guard_is_told_to_have_one(tmp_path: Path) -> None:
    """On a stand-in for vLLM's engine that starts its process as that does, by Python's own means, which run the script again."""
    (tmp_path / "rows.jsonl").write_text('{"text": "one"}\n')
    data = {"model": "any", "prompt": {"path": "{{ text }}"}, "input": {"path": str(tmp_path / "rows.jsonl")}}
    data |= {"output": str(tmp_path / "out"), "engine": {"name": "scripted"}}
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED % data)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'must be under `if __name__ == "__main__":`' in done.stderr.splitlines()[-1]
