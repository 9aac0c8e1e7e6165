"""What tests of several rooms share: jobs on the scripted engine, run in this process or, where it is to be killed, in one of its
own; and one small run as its events and its report."""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import importlib
import importlib.util
import inspect
import json
import logging
import multiprocessing.util
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, Thread
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import yaml
from hypothesis import HealthCheck, settings

from llmbatch.core import faults
from llmbatch.core.events import EngineReady, Event, Finished, Note, Planned, Sealed, Snapshot, Started
from llmbatch.core.ledger import Ledger
from llmbatch.core.types import Attempt, Failure, FailureKind, Record, RequestKey, Reused, Status, Usage
from llmbatch.engines.scripted.engine import ScriptedEngine
from llmbatch.job.job import Job, job_from
from llmbatch.measure.autotune import autotune
from llmbatch.measure.speed import run_for
from llmbatch.measure.trials import Stand
from llmbatch.report.report import Facts, Report, SessionFacts, build_report
from llmbatch.runs.session import RunResult, run_job

sys.path.insert(0, str(Path(__file__).parent))
import fork_server  # beside this file
from browsing import browser, contrasts, printed, shot, visit  # noqa: F401 - fixtures

del sys.path[0]

# how long an example takes, or takes to be made, depends on the machine and on what else runs on it
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# with pytest-xdist; the suite is the same without
PATIENCE_SECONDS = 120.0
MOST_WORKERS = 8  # whoever has the longest file takes as long however many there are
WORKER_BYTES = 5 << 29  # vLLM imported, an engine in the worker or in processes below it


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """The workers of ``-n auto``: three for each processor that we may use, as far as memory goes round.

    Half of the time that tests take they wait: for answers that take a while, a disk, an engine that is to look dead.
    """
    if os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS"):
        return None  # xdist reads it itself
    return max(1, min(MOST_WORKERS, 3 * usable_processors(), usable_memory() // WORKER_BYTES))


def usable_processors() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = cgroup("cpu.max").partition(" ")
    return min(usable, -(-int(quota) // int(period))) if quota.isdigit() else usable


def usable_memory() -> int:
    free = psutil.virtual_memory().available
    most = cgroup("memory.max")
    return min(free, int(most)) if most.isdigit() else free


def cgroup(name: str) -> str:
    """A limit of the container that this is, if it is one."""
    try:
        return (Path("/sys/fs/cgroup") / name).read_text(encoding="ascii").strip()
    except OSError:
        return ""


def pytest_configure() -> None:
    _set_environment(int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    gc.collect = _collect_but_not_for_vllm


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config, specs: Sequence[Any]) -> None:
    """Workers are forked from one process that has imported, and in a fresh clone compiled, what each would have to."""
    _set_environment(len(specs))
    servers = ForkServers()
    config.add_cleanup(servers.close)
    subprocess.Popen = servers.popen("worker", [fork_server.WORKER])  # type: ignore[misc]


def _set_environment(workers: int) -> None:
    """Beside other workers an engine takes one thread: more would only wait for each other's processor."""
    if workers > 1:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    # With engine.args.enforce_eager vLLM still has single functions compiled, by the machine's C++ compiler: that takes longer than
    # all else that an engine does here. The test of the demo goes without this, and without enforce_eager.
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    os.environ.setdefault(
        "HF_HUB_OFFLINE", "1"
    )  # no test needs a network; where there is none, the hub is tried for half a minute


_collect = gc.collect


def _collect_but_not_for_vllm(generation: int = 2) -> int:
    """While an engine starts and stops vLLM looks eight times through all that was imported, which takes as long as the rest.

    Our own search, once it has stopped, finds what is left of it.
    """
    caller = sys._getframe(1).f_globals.get("__name__", "")
    return 0 if caller.startswith("vllm.") else _collect(generation)


# Tests are handed out by file; of these files first, in this order, and single tests of some of them by themselves: what takes
# longest goes first, so that no worker is left alone with it at the end. The rest goes by its number of tests. But what starts
# vLLM in its worker goes before all others: once a worker has had tests with a bucket, and so Flask, no engine starts there.
LONGEST = (
    "runs/test_chaos.py::test_no_number_of_kills_at_random_moments_loses_doubles_or_changes_a_row",
    "engines/test_vllm_engine.py",
    "engines/test_vllm_process.py::test_an_engine_process_answers_and_is_seen_to_die_when_it_is_killed",
    "engines/test_vllm_replicas.py",
    "engines/openai/test_openai_vllm.py",
    "runs/test_chaos.py::test_a_kill_at_every_fault_point_is_survived",
    "engines/test_vllm_process.py",
    "runs/test_chaos.py::test_a_run_on_vllm_that_is_killed_twice_comes_to_the_same_bytes",
    "docs/test_pages.py",
    "runs/test_tuning.py",
    "demo/test_demo.py",
    "runs/test_session.py",
    "runs/test_map_reduce_in_runs.py",
    "runs/test_chaos.py",
    "engines/test_transformers_models.py",
    "runs/test_ordering.py",
    "engines/test_transformers.py",
    "test_own_programs.py",
    "engines/test_hosted.py",
    "runs/test_overflow_in_runs.py",
    "integrations/test_ray_data.py",
    "plan/test_simulate.py",
    "server/test_batches.py",
    "server/test_aws.py",
    "server/test_google.py",
    "azureml/test_run.py",
    "runs/test_retry_failed.py",
    "evals/test_evaluate.py",
    "engines/openai/test_openai_batch.py",
    "runs/test_programs_in_runs.py",
    "hostile/test_security.py",
    "server/test_page.py",
    "cli/test_plan.py",
    "test_api.py",
    "runs/test_merge.py",
    "runs/test_disk.py",
)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Under xdist the first worker reads the test files before the others do: pytest compiles them, and keeps what it compiled.

    In a fresh clone each would do so, which takes longer than to read them.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    read = None if worker is None else _was_read(session.config)
    end = time.monotonic() + PATIENCE_SECONDS
    while read is not None and worker != "gw0" and not read.exists() and time.monotonic() < end:
        time.sleep(0.1)
    gc.disable()  # nothing of what is made now is garbage, and to look for some takes a quarter of the time
    try:
        return (yield)
    finally:
        gc.enable()
        if read is not None and worker == "gw0":
            read.touch()


def _was_read(config: Any) -> Path:
    """Is there once the first worker has read the test files."""
    return Path(tempfile.gettempdir()) / f"llmbatch-tests-read-{config.workerinput['testrunuid']}"


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """A worker has told all that it has to tell, and ends at once: to take to pieces what it imported takes seconds."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker == "gw0":
        _was_read(config).unlink(missing_ok=True)
    if worker is not None:
        fork_server.leave(None)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Under xdist tests are handed out in this order, by their names: which are the same in every process."""
    for item in items:
        if " at 0x" in item.nodeid:
            raise pytest.UsageError(f"{item.nodeid}: the name of this test is another in each process; give it ids")
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    sizes = Counter(item.path for item in items)
    with_vllm = {item.path for item in items if item.get_closest_marker("vllm") is not None}

    def place(item: pytest.Item) -> tuple[bool, int, int, Path]:
        at = longest(item.nodeid)
        return item.path not in with_vllm, at, -sizes[item.path], item.path

    items.sort(key=place)


def longest(nodeid: str) -> int:
    """The place of a test among those that take longest."""
    name = nodeid.removeprefix("tests/")
    return next((n for n, start in enumerate(LONGEST) if name.startswith(start)), len(LONGEST))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """After the tests of a file what they imported stays too: engines have all that is not so looked through, several times."""
    result = yield
    if "PYTEST_XDIST_WORKER" in os.environ and nextitem is not None and nextitem.path != item.path:
        keep_what_is_there()
    return result


def pytest_collection_finish() -> None:
    """What plans in this process keeps torch from being imported for all tests that come after it, where it is not there yet."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        with contextlib.suppress(ImportError):
            importlib.import_module("torch")
    keep_what_is_there()


def keep_what_is_there() -> None:
    """No search for garbage looks at it any more, and forks of this process share its memory."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            place = longest(nodeid)
            return LONGEST[place] if place < len(LONGEST) else str(super()._split_scope(nodeid))

    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


def _hung_up(connection: socket.socket) -> bool:
    """Whether nobody is at the other end any more."""
    try:
        return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


class ForkServers:
    """Sockets of processes that have imported much already; each is started when it is first asked for (``fork_server.py``)."""

    def __init__(self) -> None:
        self._started: dict[str, tuple[socket.socket, subprocess.Popen[bytes] | psutil.Process]] = {}
        if fork_server.below is not None:  # this process is a fork itself
            self._started["vllm"] = fork_server.below.connection, psutil.Process(fork_server.below.pid)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - what servers say; it would be the output of any test
        self.environment = dict(os.environ)  # before any test changes it: what was imported goes by it

    def of(self, imported: str) -> socket.socket:
        if imported in self._started and _hung_up(self._started[imported][0]):
            connection, ended = self._started.pop(imported)
            connection.close()
            print(f"the fork server of {imported} ended with {ended.wait()}: there is a new one", file=sys.stderr)
            self._said.seek(0)
            print(self._said.read().decode(errors="replace"), file=sys.stderr)
        if imported not in self._started:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            script = Path(__file__).with_name("fork_server.py")
            command = [sys.executable, str(script), str(theirs.fileno()), imported]
            with theirs:
                server = _Popen(
                    command,
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stderr=self._said,
                    env=self.environment,
                )
            self._started[imported] = ours, server
        return self._started[imported][0]

    def popen(self, imported: str, commands: Sequence[Sequence[str]] | None = None) -> type[Forked]:
        """``subprocess.Popen``, whose processes are forked from the one that has imported that: those of such ``commands``."""
        there = {"server": lambda: self.of(imported), "environment_there": self.environment}
        return type("Forked", (Forked,), {**there, "commands": COMMANDS if commands is None else commands})

    def close(self) -> None:
        for connection, server in self._started.values():
            connection.close()
            server.wait()
        self._said.close()


class Forked(subprocess.Popen[Any]):
    """A process of a Python command as any other, but forked from one that has imported much of what it needs.

    Where it is told what only a new process can be told, it is a new one.
    """

    asking = Lock()  # replicas are started by a thread each
    server: Callable[[], socket.socket]
    environment_there: Mapping[str, str]  # of what it is forked from
    commands: Sequence[Sequence[str]]

    def _execute_child(self, *arguments: Any, **named: Any) -> None:
        start = super()._execute_child  # type: ignore[misc]
        given = inspect.signature(start).bind(*arguments, **named).arguments
        environment = dict(os.environ if given["env"] is None else given["env"])
        if not self._can_be_forked([str(argument) for argument in given["args"]], environment, given):
            start(*arguments, **named)
            return
        message = {
            "command": [str(argument) for argument in given["args"]], "environment": environment,
            "folder": str(given["cwd"] or Path.cwd()), "umask": given["umask"], "session": given["start_new_session"],
            "passed": list(given["pass_fds"]),
        }  # fmt: skip
        files = [
            own if given[name] == -1 else given[name] for own, name in enumerate(("p2cread", "c2pwrite", "errwrite"))
        ]
        files += given["pass_fds"]
        with self.asking:
            self.pid = fork_server.forked(type(self).server(), message, files)
        self._child_created = True
        pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(given[name] for name in pipes))  # type: ignore[attr-defined]

    @classmethod
    def _can_be_forked(cls, command: Sequence[str], environment: Mapping[str, str], given: Mapping[str, Any]) -> bool:
        known = command[0] == _PYTHON and (
            command[1:3] in cls.commands or command[1:4] in cls.commands or command[1].endswith(".py")
        )
        there = cls.environment_there
        changed = {name for name in environment.keys() | there.keys() if environment.get(name) != there.get(name)}
        if environment.get("PYTHONPATH") == os.pathsep.join(part or str(Path.cwd()) for part in sys.path):
            changed.discard("PYTHONPATH")  # what is imported is found there as well
        changed -= SET_BY_LIBRARIES
        at_start = any(name.startswith(("PYTHON", "LC_", "LANG", "HF_H", "HF_E", "OMP_")) for name in changed)
        return known and not at_start and sys.platform == "linux" and given["preexec_fn"] is None


_Popen = subprocess.Popen
_PYTHON = sys.executable
COMMANDS = [
    ["-m", "llmbatch.cli"], ["-P", "-m", "llmbatch.cli"], ["-P", "-m", "llmbatch.runs.order_pass"],
    ["-P", "-m", "llmbatch.plan.sorting"],
    ["-P", "-m", "llmbatch.integrations.spark.host"],
    ["-m", "vllm.entrypoints.openai.api_server"],
]  # fmt: skip
SET_BY_LIBRARIES = {"HF_HUB_ENABLE_HF_TRANSFER", "PYTHONBREAKPOINT"}
"""Variables that lm_eval and Ray set in the process that imports them: nothing that a command does goes by them."""
if importlib.util.find_spec("setproctitle") is not None:  # tests find it by its command
    COMMANDS += [["-P", "-m", "llmbatch.engines.worker"], ["-P", "-m", "llmbatch.runs.row_worker"]]


@pytest.fixture(scope="session")
def fork_servers() -> Iterator[ForkServers]:
    servers = ForkServers()
    yield servers
    servers.close()


@pytest.fixture
def forked(fork_servers: ForkServers, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Commands and scripts that the test starts need not import llmbatch, nor vLLM in a test of vLLM.

    That takes longer than most of what they do. That they can be started as anybody would start them, other tests see. With
    ``pytest.mark.forked_from("plan")`` what makes token ids is there as well, and torch cannot be imported.
    """
    mark = request.node.get_closest_marker("forked_from")
    with_vllm = request.node.get_closest_marker("vllm") is not None
    imported = "vllm" if with_vllm else mark.args[0] if mark else "llmbatch"
    monkeypatch.setattr(subprocess, "Popen", fork_servers.popen(imported))
    if with_vllm:  # the processes of its engines are forked as well
        spawned = functools.partial(fork_server.spawned, lambda: fork_servers.of(imported))
        monkeypatch.setattr(multiprocessing.util, "spawnv_passfds", spawned)


@dataclass(slots=True)
class Jobs:
    """Makes jobs in a folder of the test's own, runs them and reads what they left."""

    path: Path
    events: list[Event] = field(default_factory=list)  # of the runs in this process
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def rows(self, rows: Iterable[Mapping[str, Any] | str], name: str = "rows.jsonl") -> Path:
        """An input of these rows; a string is a line as it is."""
        lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
        path = self.path / name
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return path

    def data(self, rows: Path, script: Mapping[str, Any] | None = None, **sections: Any) -> dict[str, Any]:
        """The data of a job over the rows, on an engine with this script. Sections are laid over it: ``run={"window": 8}``."""
        data: dict[str, Any] = {
            "model": "any",
            "prompt": {"path": "{{ text }}"},
            "input": {"path": str(rows)},
            "output": str(self.path / "out"),
            "engine": {"name": "scripted"},
            "sampling": {"temperature": 0},
        }
        if script is not None:
            path = self.path / "script.yaml"
            path.write_text(yaml.safe_dump(dict(script)), encoding="utf-8")
            data["engine"]["script"] = str(path)
        for name, section in sections.items():
            data[name] = {**data.get(name, {}), **section} if isinstance(section, Mapping) else section
        return data

    def job(self, rows: Path, script: Mapping[str, Any] | None = None, **sections: Any) -> Job:
        return job_from(self.data(rows, script, **sections))

    def run(self, job: Job, watch: Callable[[Event], None] = lambda _: None, *, extend: bool = False) -> RunResult:
        return run_job(job, [self.events.append, watch], extend=extend)

    def start(
        self,
        data: Mapping[str, Any],
        *arguments: str,
        command: Sequence[str] = ("-m", "llmbatch.cli"),
        environment: Mapping[str, str] | None = None,
        **popen: Any,
    ) -> subprocess.Popen[str]:
        """The command on a job file, in a process that ends with the test; ``command`` is how Python is told which it is."""
        path = self.path / "job.yaml"
        path.write_text(yaml.safe_dump(dict(data)), encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, *command, "run", str(path), *arguments],
            env={**os.environ, **(environment or {})}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **popen,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def finish(self, data: Mapping[str, Any], *arguments: str, **popen: Any) -> tuple[int, str, str]:
        """The command on a job file, to its end: (exit code, what it printed, what it complained about)."""
        process = self.start(data, *arguments, **popen)
        out, err = process.communicate(timeout=600)
        return process.returncode, out, err

    def killed(self, data: Mapping[str, Any], fault: str) -> None:
        """The job, killed at a fault point."""
        kill_at(fault, lambda: run_job(job_from(data)))

    def results(self, folder: str = "out") -> bytes:
        return (self.path / folder / "results.jsonl").read_bytes()

    def records(self, folder: str = "out") -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.results(folder).splitlines()]

    def report(self, folder: str = "out") -> dict[str, Any]:
        report: dict[str, Any] = json.loads((self.path / folder / "report.json").read_bytes())
        return report

    def notes(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Note)]


def kill_at(fault: str, work: Callable[[], object]) -> None:
    """Do work in a fork of this process, which pays no import, and is killed at a fault point of it as by kill -9."""
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process == 0:
        try:
            faults.aim(fault)
            work()
        finally:
            os._exit(1)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, f"the work did not come to {fault}"


@pytest.fixture(name="kill_at", scope="session")
def kill_at_fixture() -> Callable[[str, Callable[[], object]], None]:
    return kill_at


def texts(count: int, *, distinct: int | None = None) -> Sequence[dict[str, Any]]:
    """So many rows with an id and a text; of the texts only so many are ``distinct``."""
    return [{"id": f"r{i}", "text": f"text {i % (distinct or count)}"} for i in range(count)]


@pytest.fixture
def jobs(tmp_path: Path, forked: None) -> Iterator[Jobs]:
    made = Jobs(tmp_path)
    yield made
    for process in made.processes:
        process.kill()
        process.communicate()


@pytest.fixture
def ten(jobs: Jobs) -> Path:
    """An input of ten rows."""
    return jobs.rows(texts(10))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripted engine and what measures it have a clock of their own, which goes on only as they sleep.

    So no setting looks slower because the machine was busy with something else while it was tried.
    """
    now, lock = 0.0, Lock()

    def sleep(seconds: float) -> None:
        nonlocal now
        with lock:
            now += seconds

    for name in {ScriptedEngine.__module__, run_for.__module__, autotune.__module__, Stand.__module__}:
        monkeypatch.setattr(sys.modules[name], "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))


class FailingS3:
    """An S3 of this process, over HTTP: keeps its requests, and answers those badly for which ``fails`` says how.

    500: with an internal error; "cut": with less than it announces; 403: access is denied. ``fails`` is given a request in words,
    such as ``GET /bucket/key bytes=0-99``.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self.requests: list[str] = []
        self.fails: Callable[[str], int | str | None] = lambda _: None

    def __call__(self, environ: Mapping[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        request = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']} {environ.get('HTTP_RANGE', '')}".strip()
        self.requests.append(request)
        match self.fails(request):
            case 500:
                start("500 Internal Server Error", [("Content-Type", "application/xml")])
                return [b"<Error><Code>InternalError</Code><Message>We encountered an internal error</Message></Error>"]
            case 403:
                start("403 Forbidden", [("Content-Type", "application/xml")])
                if environ["REQUEST_METHOD"] == "HEAD":
                    return []
                return [b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"]
            case "cut":
                start("206 Partial Content", [("Content-Length", "100000")])
                return [b"half"]
        answer: Iterable[bytes] = self._app(environ, start)
        return answer


@dataclass(slots=True)
class Bucket:
    """A bucket of the test's own."""

    server: FailingS3
    client: Any
    name: str

    @property
    def url(self) -> str:
        return f"s3://{self.name}"

    def put(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=content)

    def get(self, key: str) -> bytes:
        content: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return content

    def names(self) -> list[str]:
        return [found["Key"] for found in self.client.list_objects_v2(Bucket=self.name).get("Contents", ())]

    def requests(self, method: str) -> list[str]:
        """The keys of requests of this method, as they came."""
        return [
            request.split(f"/{self.name}/", 1)[1]
            for request in self.server.requests
            if request.startswith(f"{method} /{self.name}/")
        ]


@pytest.fixture(scope="session")
def s3_server() -> Iterator[tuple[FailingS3, str]]:
    """(the server, its URL)."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = FailingS3(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True)  # type: ignore[arg-type]
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield app, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()


@pytest.fixture
def bucket(
    s3_server: tuple[FailingS3, str], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Bucket]:
    """An empty bucket; the environment says where it is, and libraries do not try a request again themselves."""
    import boto3

    server, url = s3_server
    environment = {
        "AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    name = f"bucket-{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:16]}"
    client.create_bucket(Bucket=name)
    yield Bucket(server, client, name)
    server.fails = lambda _: None
    server.requests.clear()


def make_snapshot(**changes: object) -> Snapshot:
    fields: dict[str, object] = {
        "elapsed": 74.0,
        "rows": 1204,
        "rows_total": 10_000,
        "by_status": {"ok": 1180, "invalid": 12, "failed": 12},
        "by_failure": {"schema": 12, "malformed_row": 12},
        "attempts_retried": 40,
        "usage": Usage(10_000, 2_000, 7_000),
        "rows_per_s": 12.3,
        "prompt_tokens_per_s": 12_345.0,
        "completion_tokens_per_s": 3_210.0,
        "in_flight": 256,
        "waiting": 3_100,
        "windows_open": 3,
        "idle_share": 0.004,
        "seconds_left": 2_520.0,
    }
    return Snapshot(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture
def snapshot() -> Snapshot:
    return make_snapshot()


@pytest.fixture
def ledger() -> Ledger:
    """Four rows: two ok, of which one is a duplicate; one invalid after two answers; one that could not be read."""
    ledger = Ledger()
    ledger.add(Record(0, "a", Status.OK, "x", attempts=1, usage=Usage(100, 10, 50)))
    ledger.add(Record(1, "b", Status.OK, "x", attempts=1, usage=Usage(100, 10, 50)), Reused(Usage(100, 10, 50)))
    wrong = Failure(FailureKind.SCHEMA, "'age' is missing [bold]\x1b[31m")
    back = Attempt(RequestKey(2), wrong, Usage(80, 20, 0), text="{}")
    usage = Usage(160, 40, 0)
    ledger.add(
        Record(2, "c", Status.INVALID, attempts=2, usage=usage, wasted=back.usage, failure=wrong, history=(back,))
    )
    ledger.add(Record(3, 3, Status.FAILED, failure=Failure(FailureKind.MALFORMED_ROW, "rows.jsonl:4: not JSON")))
    return ledger


@pytest.fixture
def session(ledger: Ledger) -> SessionFacts:
    return SessionFacts(1, "2025-01-01T00:00:00+00:00", "finished", 30.0, 10.0, 4, ledger.computed, busy_seconds=15.0)


@pytest.fixture
def facts() -> Facts:
    return Facts(
        folder="out/my run",
        job={"digest": "d1", "model": "m", "prompt": "p"},
        input={"path": "rows.jsonl"},
        versions={"llmbatch": "0.1.0"},
        engine={"name": "vllm", "version": "0.32", "model": "m", "device": "cpu"},
        rows_total=4,
        outputs=["results.jsonl"],
    )


@pytest.fixture
def report(ledger: Ledger, session: SessionFacts, facts: Facts) -> Report:
    return build_report(ledger, session, facts)


@pytest.fixture
def events(snapshot: Snapshot, report: Report) -> list[Event]:
    """One event of each kind, in the order of a run."""
    return [
        Started(Path("out/my run"), rows_done=0, session=1),
        EngineReady(10.0, "vllm 0.32 on cpu"),
        Planned(0, 4, 1, 280, ("43% of the prompt tokens will come from the cache",)),
        snapshot,
        Note("warning", "the engine died [once]\x1b[31m"),
        Sealed(0, 4),
        Finished("finished", report),
    ]
