"""A run's folder in; engine settings without a speculation that stopped to pay in an earlier session of the run, out."""

from __future__ import annotations

import json

from llmbatch.core.digest import short_digest
from llmbatch.core.events import Note, Watcher
from llmbatch.engines.base import Speculation
from llmbatch.engines.kinds import kind_of
from llmbatch.engines.settings import EngineSettings
from llmbatch.folder.folder import RunFolder

_FELL_BACK = "fell_back"  # of a session in the manifest: the arguments of the engines that were made anew without


class Guessing:
    """Of one session: keeps for later ones that all engines fell back, also where it is killed afterwards."""

    def __init__(self, folder: RunFolder, tell: Watcher) -> None:
        self._folder = folder
        self._tell = tell
        self._fallen = {session[_FELL_BACK] for session in folder.sessions if _FELL_BACK in session}
        self._about = ""
        self._said = False

    def settings(self, settings: EngineSettings) -> EngineSettings:
        """What the engines are to be made with."""
        plain = kind_of(settings.name).unspeculating(settings)
        if plain is None:
            return settings
        self._about = short_digest(json.dumps(settings.args, sort_keys=True, default=str))
        if self._about not in self._fallen:
            return settings
        if not self._said:
            said = (
                "in an earlier session of this run too little of what speculation guessed was right: it goes on without"
            )
            self._tell(Note("info", said))
        self._said = True
        return plain

    def see(self, speculation: Speculation | None) -> None:
        """An engine is up, for the first time or again."""
        if speculation is None or speculation.fell_back < speculation.engines or self._about in self._fallen:
            return
        self._fallen.add(self._about)
        self._folder.mark_session(**{_FELL_BACK: self._about})


__all__ = ["Guessing"]
