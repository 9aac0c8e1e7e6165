"""An address in; the Ray cluster there out: what of its machines an engine needs, how many there is room for, and actors on them.

Ray places the actors. It is asked for no more than there is room for; what a node that leaves cost is asked for again, and where
as many engines as possible are wanted, nodes that join get theirs.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import llmbatch
from llmbatch.core.errors import EngineError, JobError
from llmbatch.core.imports import extra
from llmbatch.engines.cluster.parcels import Listing, listing_of
from llmbatch.engines.kinds import kind_of
from llmbatch.engines.settings import EngineSettings

T = TypeVar("T")
AUTO = "auto"
_CLIENT = "ray://"
_SECONDS = 60.0  # for what is asked of all nodes
_CONNECT_SECONDS = 10.0
_READY_SECONDS = 60.0  # that a cluster which is being started may take
_GONE_SECONDS = 20.0  # without an answer from the head; Ray itself ends a driver of it after 60
_LOOK_SECONDS = 2.0
_LET_IN = "Copy ~/.ray/auth_token from the cluster's head (or set RAY_AUTH_TOKEN), and run this again with RAY_AUTH_MODE=token"
_CALLS = 4  # of an actor at a time: one hands over, one waits for answers, and one may end it


class Need(NamedTuple):
    """What one engine takes of a node."""

    gpus: int
    cpus: int

    @property
    def said(self) -> str:
        if self.gpus:
            return "an engine of 1 GPU" if self.gpus == 1 else f"an engine of {self.gpus} GPUs on one node"
        return "an engine of 1 processor" if self.cpus == 1 else f"an engine of {self.cpus} processors on one node"

    def fits(self, resources: Mapping[str, float]) -> int:
        """How many of it there is room for."""
        return int(resources.get("GPU", 0) // self.gpus if self.gpus else resources.get("CPU", 0) // self.cpus)


class RayCluster:
    """A cluster that this process has joined, for engines of one kind. Raises ``JobError`` for what will not do.

    ``engines`` is how many to begin with.
    """

    def __init__(self, where: str, settings: EngineSettings, model: str) -> None:
        self._ray = _join(where)
        self.patience = settings.timeout
        self.parcels = tuple(_parcels(settings, model))
        self._grows = settings.replicas == AUTO
        self._nodes: frozenset[str] = frozenset()
        self._spoiled = 0  # places on which an engine did not start, since the nodes last changed
        self._state = threading.Lock()
        self._head = _head(self._ray)
        self._heard_at = time.monotonic()
        self._looked_at = 0.0
        self._answering = True
        self.need = _need(settings, [node["Resources"] for node in self._alive()])
        self._actors = self._ray.remote(
            num_gpus=self.need.gpus, num_cpus=self.need.cpus, max_concurrency=_CALLS, scheduling_strategy="SPREAD"
        )  # fmt: skip
        self.engines = self._begin_with(settings)
        self._same_everywhere(where)

    def actor(self) -> Any:
        from llmbatch.engines.cluster.host import Host

        return self._asked(lambda: self._actors(Host).remote())

    def lacks(self) -> str:
        return self.need.said

    def lives(self, node: str) -> bool:
        try:
            return self._there and any(alive["NodeID"] == node for alive in self._alive())
        except OSError:
            return False

    def end(self, actor: Any) -> None:
        if self._there:
            self._ray.kill(actor)

    def failed(self) -> None:
        with self._state:
            self._spoiled += 1

    def more(self, waiting: int) -> int:
        """How many engines could be added beside ``waiting`` ones without a place. Raises ``EngineError`` where all is gone."""
        try:
            self.see()
            if not self._grows or not self._there:
                return 0
            nodes = frozenset(node["NodeID"] for node in self._alive())
            free = self._asked(self._ray.available_resources)
        except OSError as error:
            raise EngineError(f"{error}. Finished rows are safe; the same command goes on once it is back") from None
        with self._state:
            if nodes != self._nodes:
                self._nodes, self._spoiled = nodes, 0
            spoiled = self._spoiled
        return max(0, self.need.fits(free) - waiting - spoiled)

    def see(self) -> None:
        """Look now and then whether the head answers."""
        with self._state:
            now = time.monotonic()
            if self._answering and now - self._looked_at < _LOOK_SECONDS:
                return
            self._looked_at = now
        self._answering = self._answers()
        if self._answering:
            self._heard_at = time.monotonic()
        elif time.monotonic() - self._heard_at > _GONE_SECONDS:
            raise OSError(f"the Ray cluster is gone: its head ({self._head}) does not answer")

    @property
    def _there(self) -> bool:
        """Whether the head answers at this moment: what is asked of it otherwise blocks until Ray ends this process."""
        self._answering = self._answers()
        return self._answering

    def _answers(self) -> bool:
        return self._ray.is_initialized() and _reaches(self._head, _LOOK_SECONDS)

    def _alive(self) -> list[dict[str, Any]]:
        return [node for node in self._asked(self._ray.nodes) if node["Alive"]]

    def _asked(self, call: Callable[[], T]) -> T:
        """What Ray answers. Raises ``OSError`` where it does not: a client of it raises whatever it came upon."""
        try:
            if not self._ray.is_initialized():  # Ray would start one here
                raise ConnectionError("the connection to it has ended")
            return call()
        except Exception as error:
            details = getattr(error, "details", None)  # of gRPC
            said = (
                str(details()) if callable(details) else (str(error).strip().splitlines() or [type(error).__name__])[0]
            )
            raise OSError(f"the Ray cluster at {self._head} is gone: {said}") from error

    def _begin_with(self, settings: EngineSettings) -> int:
        """How many engines there are at first. Raises ``JobError`` where there are to be more than there can be."""
        most = sum(self.need.fits(node["Resources"]) for node in self._alive())
        if not self._grows:
            if settings.engines > most:
                raise JobError(
                    f"engine.replicas={settings.engines}: the cluster has room for {most} of {self.need.said} "
                    f"({_said(self._alive())}): give --replicas {max(most, 1)}, or auto, which takes what joins later too"
                )
            return settings.engines
        if not most:
            raise JobError(
                f"engine.cluster: no node of the cluster has room for {self.need.said} ({_said(self._alive())})"
            )
        return max(1, min(most, self.need.fits(self._ray.available_resources())))

    def _same_everywhere(self, where: str) -> None:
        """Every node has this version of llmbatch, or is given this one. Raises ``JobError`` for a node that has another."""
        found = _versions(self._ray, self._alive())
        other = [
            f"{machine} has {version}" for machine, version in found if version not in (None, llmbatch.__version__)
        ]
        if other:
            raise JobError(
                f"engine.cluster: this is llmbatch {llmbatch.__version__}, and {', '.join(other)}: install the same version on all "
                "nodes, or none, and each is given this one"
            )
        if any(version is None for _, version in found):
            self._ray.shutdown()
            _connect(self._ray, _address(where), {"py_modules": [str(Path(llmbatch.__file__).parent)]})


def _join(where: str) -> Any:
    """Ray, connected. Raises ``JobError``."""
    # else what Ray says twice, as of a node that died, is said on stdout when the process ends, after all that keeps stdout clean
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    ray = extra("ray", "ray", f"engine.cluster={where}")
    if not ray.is_initialized():
        _connect(ray, _address(where), {})
    return ray


def cluster_here(where: str) -> bool:
    """Whether there is one to join: ``auto`` takes this machine alone where it belongs to none."""
    if where != AUTO:
        return True
    try:
        _join(where)
    except JobError:
        return False
    return True


def _address(where: str) -> str:
    return where if where.startswith(_CLIENT) else os.environ.get("RAY_ADDRESS") or "auto"


def _connect(ray: Any, address: str, environment: Mapping[str, Any]) -> None:
    import logging

    named = address.removeprefix(_CLIENT)
    if address != "auto" and not _reaches(named):
        raise JobError(f"engine.cluster: there is no Ray cluster at {address}: nothing answers there")
    client = address.startswith(_CLIENT)
    options = {"log_to_driver": False, "logging_level": logging.ERROR}
    if client:
        logging.getLogger("ray.client_builder").setLevel(logging.ERROR)  # it says which options it hands on
    else:
        options["configure_logging"] = False
    end = time.monotonic() + (0.0 if address == "auto" else _READY_SECONDS)
    while True:
        try:
            with warnings.catch_warnings(action="ignore"):  # what a client warns of, its error says too
                ray.init(address=address, runtime_env=dict(environment) or None, **options)
            return
        except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
            if _not_let_in(ray, error):
                raise _wants_token(address) from None
            starts = not client or isinstance(
                error, ConnectionAbortedError
            )  # what a client is told where its server was slow
            if starts and time.monotonic() < end and _reaches(named):  # the head may have no node yet
                time.sleep(_LOOK_SECONDS)
                continue
            raise _not_joined(address, error) from None


def _not_let_in(ray: Any, error: BaseException) -> bool:
    """Whether Ray wants a token. Of the error that says so it may hand on no more than the traceback, as text."""
    kind = ray.exceptions.AuthenticationError
    named = f"{kind.__module__}.{kind.__name__}"
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, kind) or named in str(link):
            return True
        link = link.__cause__ or link.__context__
    return False


def _wants_token(address: str) -> JobError:
    where = "this machine's" if address == "auto" else f"at {address}"
    return JobError(
        f"engine.cluster: the Ray cluster {where} lets in only who has its token, and this command {_token_here()}. {_LET_IN}"
    )


def _token_here() -> str:
    """What this process would show a cluster, in words."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        return "shows none (RAY_AUTH_MODE is not token)"
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "shows that of RAY_AUTH_TOKEN"
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    return f"shows that of {path}" if path.is_file() else f"has none (no RAY_AUTH_TOKEN, no file {path})"


def _not_joined(address: str, error: Exception) -> JobError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    said = (lines[-1] if isinstance(error, ConnectionAbortedError) else lines[0]).strip().rstrip(".")
    if address == "auto":
        return JobError(
            f"engine.cluster: this machine belongs to no Ray cluster: {said}. Start one (ray start --head, and ray start "
            "--address=HEAD on the others), or name its head: --cluster ray://HOST:10001"
        )
    if isinstance(error, ConnectionAbortedError):
        return JobError(
            f"engine.cluster: the client server at {address} could not begin: {said}. Try again, or see its log"
        )
    if address.startswith(_CLIENT) and isinstance(error, ConnectionError):
        return JobError(
            f"engine.cluster: what answers at {address} lets no client of Ray in ({said}). Is it the port of the client server "
            "(10001, or ray start --ray-client-server-port), and grpcio installed where the head is? If the cluster wants a token: "
            f"this command {_token_here()}. {_LET_IN}"
        )
    return JobError(
        f"engine.cluster: the Ray cluster at {address} cannot be joined: {said}. Is it that cluster's address, and are the "
        "versions of Ray and Python the same here and there?"
    )


def _reaches(address: str, seconds: float = _CONNECT_SECONDS) -> bool:
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        return False
    try:
        socket.create_connection((host.strip("[]"), int(port)), seconds).close()
    except OSError:
        return False
    return True


def _head(ray: Any) -> str:
    """Where the head listens, for clients where this process is one."""
    from ray.util.client import ray as client

    if client.is_connected():
        return str(client.get_context().client_worker._conn_str)
    return str(ray.get_runtime_context().gcs_address)


def _need(settings: EngineSettings, nodes: list[Mapping[str, float]]) -> Need:
    """GPUs where the cluster has any; else a node's processors, shared among as many engines as are asked for."""
    gpus = max((int(node.get("GPU", 0)) for node in nodes), default=0)
    if gpus:
        each = max(1, kind_of(settings.name).devices(settings))
        if each > gpus:
            raise JobError(
                f"engine.cluster: one engine needs {each} GPUs of one node, and no node has more than {gpus}: lower "
                "tensor_parallel_size or pipeline_parallel_size"
            )
        return Need(each, 1)
    cpus = [int(node.get("CPU", 0)) for node in nodes if node.get("CPU", 0) >= 1]
    if not cpus:
        return Need(0, 1)
    share = min(cpus) if settings.replicas == AUTO else min(min(cpus), sum(cpus) // settings.engines)
    return Need(0, max(1, share))


def _said(nodes: list[dict[str, Any]]) -> str:
    """What there is, in words."""
    gpus = sum(int(node["Resources"].get("GPU", 0)) for node in nodes)
    cpus = sum(int(node["Resources"].get("CPU", 0)) for node in nodes)
    return f"{len(nodes)} node{'s' * (len(nodes) != 1)} with {gpus} GPUs and {cpus} processors"


def _versions(ray: Any, nodes: list[dict[str, Any]]) -> list[tuple[str, str | None]]:
    """(machine, its version of llmbatch) of each node; ``None`` where it has none."""

    def version() -> str | None:
        try:
            import llmbatch
        except ImportError:
            return None
        return llmbatch.__version__

    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = ray.remote(version)
    asked = {
        there.options(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(): node
        for node in nodes
    }
    done, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_SECONDS)
    found: list[tuple[str, str | None]] = []
    for reference in done:
        try:
            found.append((asked[reference]["NodeManagerHostname"], ray.get(reference)))
        except ray.exceptions.RayError:
            continue  # the node has left, or its engine will say what is wrong
    return found


def _parcels(settings: EngineSettings, model: str) -> Iterable[Listing]:
    """What of this machine's files the engine is given by name."""
    named = [each.place for each in kind_of(settings.name).models(settings, model)]
    if settings.script is not None:
        named.append(settings.script)
    for name in dict.fromkeys(named):
        place = Path(name).expanduser()
        if place.exists():
            found = listing_of(place)
            yield found._replace(place=name) if str(place) == name else found


__all__ = ["AUTO", "RayCluster", "cluster_here"]
