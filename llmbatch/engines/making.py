"""An engine's settings in; what makes each of a run's engines out: in its place, in a process of its own where it needs one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from llmbatch.core.types import Constraint
from llmbatch.engines.base import Engine, EngineFactory
from llmbatch.engines.cluster.link import in_cluster
from llmbatch.engines.cluster.ray_cluster import RayCluster, cluster_here
from llmbatch.engines.devices import Place, this_machine
from llmbatch.engines.hosted import Hosting, hosted
from llmbatch.engines.kinds import is_hosted, kind_of, make_engine, resolved
from llmbatch.engines.replicas import More
from llmbatch.engines.settings import EngineSettings
from llmbatch.model.tokenizer import ChatSettings


class Maker:
    """Makes the engines of one model, by their numbers from 0. Each writes a log of its own to ``folder``.

    ``settings`` are those given, with ``auto`` replicas as a number. Raises ``JobError`` where the machine has not the devices.
    """

    def __init__(
        self,
        model: str,
        settings: EngineSettings,
        chat: ChatSettings,
        folder: Path,
        *,
        make: EngineFactory = make_engine,
        expect: Iterable[Constraint] = (),
    ) -> None:
        self._cluster = _joined(settings, model)
        if self._cluster is None:
            settings = settings.model_copy(update={"cluster": None})
            self.settings = settings if settings.replicas == 1 else resolved(settings, this_machine())
        else:
            self.settings = settings.model_copy(update={"replicas": self._cluster.engines})
        self._model = model
        self._chat = chat
        self._folder = folder
        self._make = make
        self._expect = tuple(expect)
        self._placed: dict[tuple[int, int], list[Place]] = {}
        self._places(self.settings)

    def __call__(self, settings: EngineSettings, number: int = 0) -> Engine:
        """An engine that is not started. Its settings may be others than those given: smaller ones, or faster ones.

        Raises ``JobError`` where these ask for more engines, or larger ones, than the machine has the devices for.
        """
        alone = settings.engines == 1 and self._cluster is None
        log = self._folder / ("engine.log" if alone else f"engine-{number}.log")
        engine = self._make(self._model, settings, self._chat, log)
        if self._cluster is not None:
            engine = in_cluster(engine, Hosting(self._model, settings, self._chat, log), self._cluster)
        elif is_hosted(settings):
            engine = hosted(engine, Hosting(self._model, settings, self._chat, log, self._places(settings)[number]))
        engine.expect(self._expect)
        return engine

    def _places(self, settings: EngineSettings) -> list[Place]:
        """Where each of so many engines of this size runs."""
        if settings.engines == 1 or self._cluster is not None:
            return [Place()]
        kind = kind_of(settings.name)
        size = settings.engines, kind.devices(settings)
        if size not in self._placed:
            self._placed[size] = kind.places(settings, this_machine())
        return self._placed[size]

    @property
    def more(self) -> More | None:
        """Of a cluster: how many engines could be added."""
        return None if self._cluster is None else self._cluster.more


def _joined(settings: EngineSettings, model: str) -> RayCluster | None:
    """The cluster that the settings name. Raises ``JobError`` where that is not there, or will not do."""
    if settings.cluster is None or not cluster_here(settings.cluster):
        return None
    return RayCluster(settings.cluster, settings, model)


__all__ = ["Maker"]
