"""Servers of the V2 protocol asked what they are; what their model takes, and how it is to be asked, out.

What can be found wrong before the first row is found here: no server there, one that speaks something else, a model that it does
not have or has not loaded, names of tensors that are not the model's.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from llmbatch.core.errors import EngineError, JobError
from llmbatch.core.words import excerpt, first_few, near
from llmbatch.engines.http.base import NotSent, Reply, Untrusted
from llmbatch.engines.http.client import Client
from llmbatch.engines.kserve.settings import KserveSettings
from llmbatch.formats.kserve import Model, WireError, error_of, read_index, read_model
from llmbatch.formats.kserve_dialects import DIALECTS, Dialect, dialect_of, repeats_prompt, unfilled

_LOOK_SECONDS = 0.2
_MOST_IN_A_BATCH = 32
_LISTED = 20
_DENIED = (401, 403)


@dataclass(frozen=True, slots=True)
class Served:
    """A model at a server that is ready, and how it is asked."""

    model: Model
    server: str  # name and version
    dialect: str
    generate: bool  # by Triton's generate endpoint, else by infer
    path: str  # of the call for an answer
    input: str
    output: str
    repeats_prompt: bool
    batch: int  # rows in one call, at most

    @property
    def takes(self) -> Dialect:
        """How its inputs are named."""
        return DIALECTS[self.dialect]

    @property
    def version(self) -> str:
        """What its answers depend on besides the model's name."""
        versions = f", model version {self.model.versions[-1]}" if self.model.versions else ""
        return f"{self.server}{versions}"


async def look(client: Client, name: str, settings: KserveSettings) -> tuple[Served, list[str]]:
    """Wait until a model is ready at its servers, and look at it; with the words for those that are not there while others are.

    Raises ``JobError`` or ``EngineError`` where none can be used, or they have different models of that name.
    """
    looks = (_Server(client, url, name, settings).look() for url in settings.urls)
    found = await asyncio.gather(*looks, return_exceptions=True)
    served = [each for each in found if isinstance(each, Served)]
    away = [each for each in found if isinstance(each, NotSent)]
    for each in found:
        if isinstance(each, Untrusted):
            raise JobError(str(each)) from each
        if isinstance(each, BaseException) and not isinstance(each, NotSent):
            raise each
    if not served:
        raise EngineError(f"{'; '.join(map(str, away))}. Is the server up, and engine.urls right?")
    for url, each in zip(settings.urls, found, strict=True):
        if isinstance(each, Served) and each.model != served[0].model:
            raise JobError(
                f"engine.urls: the model {name!r} at {url} is another one than elsewhere: its inputs or versions differ"
            )
    return served[0], [str(each) for each in away]


class _Server:
    """One server, asked for one model."""

    def __init__(self, client: Client, url: str, name: str, settings: KserveSettings) -> None:
        self._client = client
        self._url = url
        self._name = name
        self._settings = settings
        self._place = f"v2/models/{quote(name, safe='')}"
        if settings.version is not None:
            self._place += f"/versions/{quote(settings.version, safe='')}"

    async def look(self) -> Served:
        """Raises ``NotSent`` where nothing answers."""
        settings = self._settings
        await self._wait_ready()
        metadata, config = await self._get(self._place), await self._ask(f"{self._place}/config")
        try:
            model = read_model(_json(metadata), _json(config) if config.status == 200 else None)
        except WireError as error:
            raise EngineError(
                f"{self._url} describes the model {self._name!r} as the V2 protocol has it not: {error}"
            ) from error
        named = dialect_of(model) if settings.dialect == "auto" else settings.dialect
        try:
            input_, output = model.prompt_input(settings.input), model.answer_output(settings.output)
        except WireError as error:
            raise JobError(f"model {self._name!r} at {self._url}: {error}") from error
        self._check_inputs(model, DIALECTS[named], input_)
        generate = self._generates(model)
        repeats = settings.repeats_prompt
        if repeats is None:
            repeats = repeats_prompt(DIALECTS[named], model)
        batch = 1 if generate else self._batch(model, DIALECTS[named])
        path = f"{self._place}/{'generate' if generate else 'infer'}"
        return Served(model, await self._server(), named, generate, path, input_, output, repeats, batch)

    def _check_inputs(self, model: Model, dialect: Dialect, prompt: str) -> None:
        """Raises ``JobError`` for values of inputs that the model does not have, and for inputs that nothing fills."""
        given = self._settings.inputs
        if model.inputs and (unknown := [name for name in given if name not in model.inputs]):
            raise JobError(
                f"engine.inputs: the model {self._name!r} at {self._url} has no {', '.join(unknown)}; it has "
                f"{', '.join(model.inputs)}"
            )
        if missing := unfilled(dialect, model, {prompt, *given}, self._settings.parameters):
            raise JobError(
                f"the model {self._name!r} at {self._url} requires {', '.join(missing)}, which no setting goes to: give a "
                "value for all rows under engine.inputs, or name it under engine.parameters"
            )

    async def _wait_ready(self) -> None:
        """Raises ``JobError`` for a model that is not there, ``EngineError`` for one that does not get ready in time."""
        end = time.monotonic() + self._settings.ready_within
        while True:
            ready = await self._get("v2/health/ready")
            self._check_protocol(ready)
            state = f"status {ready.status}"
            if ready.status == 200:
                of_model = await self._get(f"{self._place}/ready")
                if of_model.status == 200:
                    return
                state = await self._state(of_model)
            if time.monotonic() >= end:
                raise EngineError(
                    f"{self._url} was not ready within {self._settings.ready_within:g} s ({state}): see the server's log; "
                    "engine.ready_within gives it longer"
                )
            await asyncio.sleep(_LOOK_SECONDS)

    def _check_protocol(self, ready: Reply) -> None:
        """Raises ``EngineError`` for an answer that is not of the protocol."""
        if ready.status == 404 or 300 <= ready.status < 400 or ready.body.lstrip().startswith(b"<"):
            raise EngineError(
                f"{self._url} answers, but does not speak the V2 protocol (at /v2/health/ready status {ready.status}, "
                f"{excerpt(ready.body)!r}): check engine.urls, which end before /v2. OpenAI's protocol is spoken by --engine openai"
            )

    async def _state(self, of_model: Reply) -> str:
        """How it stands with a model that is not ready. Raises ``JobError`` where the server does not have it."""
        name, url = self._name, self._url
        listed = await self._client.post(f"{url}/v2/repository/index", b"{}")
        models = read_index(_json(listed)) if listed.status == 200 else {}
        if name in models and models[name] == "READY" and self._settings.version is not None:
            raise JobError(
                f"{url} has no version {self._settings.version!r} of the model {name!r} ready: leave engine.version out for the "
                "latest"
            )
        if name in models:
            return f"the model {name!r} is {models[name] or 'not ready'}"
        if not models and of_model.status != 404:
            return f"the model {name!r}: {error_of(_json(of_model)) or f'status {of_model.status}'}"
        known = sorted(models)
        has = f"it has {first_few(known, _LISTED)}" if known else "it lists none"
        raise JobError(
            f"{url} has no model {name!r}{near(name, known)}: {has}. Its name there is the job's model, or engine.served_name"
        )

    def _generates(self, model: Model) -> bool:
        protocol = self._settings.protocol
        if protocol == "v2" and model.decoupled:
            raise JobError(
                f"engine.protocol=v2: the model {model.name!r} is decoupled: its answers come by the generate endpoint alone, so "
                "leave it out"
            )
        return model.decoupled if protocol == "auto" else protocol == "generate"

    def _batch(self, model: Model, dialect: Dialect) -> int:
        given = self._settings.batch
        if given is None:
            return 1 if dialect.batches_itself else max(1, min(model.most, _MOST_IN_A_BATCH))
        if 0 < model.most < given:
            raise JobError(
                f"engine.batch={given}: the model {model.name!r} at {self._url} takes at most {model.most} in a request"
            )
        return given

    async def _server(self) -> str:
        told = _json(await self._ask("v2"))
        if not isinstance(told, dict) or not isinstance(told.get("name"), str):
            return "V2 server"
        return f"{told['name']} {told.get('version', '')}".strip()

    async def _ask(self, path: str) -> Reply:
        return await self._client.get(f"{self._url}/{path}")

    async def _get(self, path: str) -> Reply:
        """What nothing goes on without. Raises ``JobError`` where access is denied."""
        reply = await self._ask(path)
        if reply.status in _DENIED:
            raise JobError(
                f"{self._url} denies access (status {reply.status}): {error_of(_json(reply)) or 'it does not say why'}. Put the "
                "key into an environment variable, and name that with engine.key_env"
            )
        return reply


def _json(reply: Reply) -> Any:
    try:
        return json.loads(reply.body)
    except ValueError:
        return None


__all__ = ["Served", "look"]
