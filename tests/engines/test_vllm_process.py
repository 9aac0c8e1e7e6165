"""The engine in a process of its own: deaths, hangs, and that nothing of it is left whatever dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from llmbatch.core.errors import EngineDied
from llmbatch.core.types import Completion, Constraint, Outcome, Prompt, Request, RequestKey, Sampling
from llmbatch.engines.base import EngineInfo
from llmbatch.engines.feed import Feed
from llmbatch.engines.settings import EngineSettings
from llmbatch.engines.vllm.engine import VllmEngine
from llmbatch.job.job import DEMO_MODEL
from llmbatch.model.tokenizer import ChatSettings

pytestmark = pytest.mark.vllm

ARGS = {"enforce_eager": True, "kv_cache_memory_bytes": 1 << 28, "max_num_seqs": 64, "dtype": "float32"}
SYSTEM = {"role": "system", "content": "Translate to French."}
PROMPT = Prompt(messages=(SYSTEM, {"role": "user", "content": "six hundred and one"}))
SHORT = Sampling((("max_tokens", 20), ("temperature", 0.0)))


def engine_of(log: Path, timeout: float = 600.0) -> VllmEngine:
    return VllmEngine(
        str(DEMO_MODEL), EngineSettings(args=ARGS, in_process=False, timeout=timeout), ChatSettings(), log
    )


def feed_of(engine: VllmEngine, sampling: Sampling, count: int = 4, constraint: Constraint | None = None) -> Feed:
    (ids,) = engine.tokenize([PROMPT])
    feed = Feed()
    feed.push(Request(RequestKey(i), PROMPT, sampling, constraint, token_ids=ids) for i in range(count))  # type: ignore[arg-type]
    feed.close()
    return feed


def answers(engine: VllmEngine, feed: Feed) -> Iterator[Outcome]:
    for outcomes in engine.stream(feed):
        for outcome in outcomes:
            feed.done(outcome.key)
            yield outcome


def alive(pids: tuple[int, ...]) -> list[int]:
    """Those that are still there, after up to two minutes."""
    for _ in range(1200):
        left = [pid for pid in pids if is_running(pid)]
        if not left:
            return []
        time.sleep(0.1)
    return left


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def fall_asleep(info: EngineInfo) -> None:
    """What the engine is asked from now on is in flight until it is woken, however fast it is.

    So nothing is generated yet when it dies here; of one that dies in the middle of answers ``test_vllm_replicas`` tells.
    """
    for pid in info.pids:
        os.kill(pid, signal.SIGSTOP)


def core(info: EngineInfo) -> int:
    """The process that vLLM's engine core runs in: the one that is our own child."""
    return next(pid for pid in info.pids if psutil.Process(pid).ppid() == os.getpid())


def test_an_engine_process_answers_and_is_seen_to_die_when_it_is_killed(tmp_path: Path) -> None:
    engine = engine_of(tmp_path / "engine.log")
    info = engine.start()
    choice = Constraint("choice", '["yes", "no"]')
    for outcome in answers(engine, feed_of(engine, SHORT, constraint=choice)):
        assert isinstance(outcome, Completion)
        assert outcome.text in ("yes", "no")
    first = [outcome.text for outcome in answers(engine, feed_of(engine, SHORT)) if isinstance(outcome, Completion)]
    assert first == ["six cent un"] * 4

    feed = feed_of(engine, SHORT)
    fall_asleep(info)
    stream = engine.stream(feed)
    next(stream)
    os.kill(core(info), signal.SIGKILL)
    with pytest.raises(EngineDied, match="engine process ended"):
        list(stream)
    assert len(feed.in_flight) == 4
    engine.stop()
    assert alive(info.pids) == []


@pytest.mark.usefixtures("forked")
def test_an_engine_that_shows_no_sign_of_life_is_killed_after_the_timeout(tmp_path: Path) -> None:
    engine = engine_of(tmp_path / "engine.log", timeout=3.0)
    info = engine.start()
    feed = feed_of(engine, SHORT)
    fall_asleep(info)
    with pytest.raises(EngineDied, match="no sign of life"):
        list(engine.stream(feed))
    assert len(feed.in_flight) == 4
    assert alive(info.pids) == []
    engine.stop()


RUN = """
import sys
from pathlib import Path
from llmbatch.engines.settings import EngineSettings
from llmbatch.model.tokenizer import ChatSettings
from llmbatch.engines.vllm.engine import VllmEngine
from llmbatch.job.job import DEMO_MODEL

if __name__ == "__main__":
    args = {"enforce_eager": True, "kv_cache_memory_bytes": 1 << 28}
    engine = VllmEngine(str(DEMO_MODEL), EngineSettings(args=args, in_process=False), ChatSettings(), Path(sys.argv[1]))
    print(*engine.start().pids, flush=True)
    sys.stdin.read()
"""


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("loading", [False, True])
def test_a_run_that_is_killed_leaves_no_process_behind(tmp_path: Path, loading: bool) -> None:
    script = tmp_path / "run.py"
    script.write_text(RUN)
    run = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "engine.log")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    if loading:
        while not (children := _engine_processes(run.pid)):
            time.sleep(0.1)
            assert run.poll() is None
        time.sleep(0.5)
        pids = tuple(children)
    else:
        pids = tuple(map(int, run.stdout.readline().split()))
    assert pids
    run.kill()
    run.wait()
    assert alive(pids) == []


ASLEEP = """
import os
import signal

from llmbatch.cli.main import main
from llmbatch.engines.vllm.engine import VllmEngine

start = VllmEngine.start


def fall_asleep(engine):
    info = start(engine)
    for pid in info.pids:
        os.kill(pid, signal.SIGSTOP)
    return info


if __name__ == "__main__":
    VllmEngine.start = fall_asleep
    main()
"""
"""The command, but its engine sleeps once it has started."""


def heard(process: subprocess.Popen[str], wanted: Callable[[dict[str, Any]], bool]) -> None:
    """Wait until the run tells of such an event."""
    assert process.stdout is not None
    for line in process.stdout:
        if wanted(json.loads(line)):
            return
    pytest.fail(f"the run ended without: {process.communicate()[1]}")


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("again", [False, True])
def test_a_ctrl_c_of_the_terminal_lets_what_is_in_flight_finish_and_a_second_one_ends_it(
    jobs: Any, again: bool
) -> None:
    rows = jobs.rows([{"text": f"{count} hundred and one"} for count in ("two", "three", "four", "five")])
    engine = {"name": "vllm", "args": ARGS, "in_process": False}
    data = jobs.data(rows, model="demo", engine=engine, sampling={"max_tokens": 20}, run={"grace": 600})
    script = jobs.path / "asleep.py"
    script.write_text(ASLEEP)
    process = jobs.start(data, "--json", command=[str(script)], start_new_session=True)
    heard(process, lambda event: event["event"] == "snapshot" and event["in_flight"] == 4)
    pids = tuple(child.pid for child in psutil.Process(process.pid).children(recursive=True))
    os.killpg(process.pid, signal.SIGINT)
    heard(process, lambda event: "4 requests in flight get 600 s" in event.get("message", ""))
    if again:
        os.killpg(process.pid, signal.SIGINT)
    else:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    process.communicate(timeout=300)
    assert process.returncode == 130
    assert alive(pids) == []
    assert (jobs.report()["outcome"], jobs.report()["rows"]["done"]) == ("stopped", 0 if again else 4)


def _engine_processes(pid: int) -> list[int]:
    """Children that were spawned with multiprocessing; vLLM gives them another title soon."""
    try:
        children = [(child.pid, " ".join(child.cmdline())) for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
    return [child for child, command in children if "spawn_main" in command or command.startswith("VLLM::")]
