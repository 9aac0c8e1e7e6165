"""A server's URL and a model's name in; what the server is, checked before anything is asked of it, out."""

from __future__ import annotations

import asyncio
import difflib
import time
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from llmbatch.core.errors import EngineError, JobError
from llmbatch.core.words import first_few
from llmbatch.engines.http.base import NotSent, Reply
from llmbatch.engines.http.client import Client
from llmbatch.engines.http.retry import Verdict, back_off, retry_after, verdict
from llmbatch.engines.openai.dialect import DIALECTS, OWNERS, Dialect, vllm_dialect
from llmbatch.engines.openai.words import data_of, is_page, words

API = "/v1"
"""What a server's URL usually ends with."""
_SHOWN = 20
_TRIED_AGAIN = (Verdict.PUSHED_BACK, Verdict.AWAY, Verdict.AGAIN)


class Found(NamedTuple):
    """What a server is, as far as it tells."""

    dialect: Dialect
    version: str
    context_length: int | None


def base_of(url: str) -> str:
    """The URL that paths are put behind: with ``/v1`` where no path is given."""
    return url if urlsplit(url).path.strip("/") else f"{url}{API}"


def root_of(url: str) -> str:
    """The URL that a server's other paths are put behind, those beside the API."""
    return url.removesuffix(API)


async def look_at(client: Client, url: str, model: str, wanted: Sequence[str], dialect: str, patience: float) -> Found:
    """Ask a server what it is, and that it has the ``wanted`` models; one that is still starting is waited for.

    Raises ``NotSent`` where it cannot be reached, ``JobError`` for what a person must change, ``EngineError`` for what may pass.
    """
    reply = await _models(client, url, patience)
    listed = data_of(reply)
    models = listed.get("data") if isinstance(listed, dict) else None
    if verdict(reply.status) is not Verdict.ANSWERED or not isinstance(models, list):
        _check_reply(url, reply)
        models = []  # a server without a list
    known = {model["id"]: model for model in models if isinstance(model, dict) and isinstance(model.get("id"), str)}
    for name in wanted:
        if known and name not in known:
            raise JobError(f"{url} has no model {name!r}; it has {_shown(name, list(known))}")
    first = known.get(model, {})
    longest = first.get("max_model_len")
    kind, version = await _kind(client, url, first.get("owned_by"), dialect)
    return Found(kind, version, longest if isinstance(longest, int) and longest > 0 else None)


async def _models(client: Client, url: str, patience: float) -> Reply:
    until, tries = time.monotonic() + patience, 0
    while True:
        reply = await client.get(f"{url}/models")
        tries += 1
        if verdict(reply.status) not in _TRIED_AGAIN:
            return reply
        wait = retry_after(reply.headers, time.time()) or back_off(tries, 1.0)
        if time.monotonic() + wait > until:
            raise EngineError(f"{url} is not ready (status {reply.status}): {words(reply)}")
        await asyncio.sleep(wait)


def _check_reply(url: str, reply: Reply) -> None:
    """Raise for a reply that is not that of a server with OpenAI's API; one without a list of models may be one."""
    meaning = verdict(reply.status)
    if meaning is Verdict.DENIED:
        raise JobError(
            f"{url} denies access (status {reply.status}): {words(reply)}. Put the key into an environment variable, and name that "
            "with engine.key_env"
        )
    if meaning is Verdict.MISPLACED:
        raise JobError(
            f"{url} redirects to {reply.headers.get('location')}: give the server's own URL under engine.urls"
        )
    if is_page(reply) or data_of(reply) is None:
        seen = "an HTML page" if is_page(reply) else "no JSON"
        raise JobError(
            f"{url}/models answers with {seen} (status {reply.status}): this is no server with OpenAI's API. Its URL often ends "
            "with /v1, as in http://localhost:8000/v1"
        )


async def _kind(client: Client, url: str, owner: object, dialect: str) -> tuple[Dialect, str]:
    """(what kind of server it is, its version)."""
    name = dialect if dialect != "auto" else OWNERS.get(str(owner).lower(), "")
    if not name:
        name = "openai" if urlsplit(url).hostname == "api.openai.com" else "other"
    if name != "vllm":
        return DIALECTS[name], name
    try:
        said = data_of(await client.get(f"{root_of(url)}/version"))
    except NotSent:
        said = None
    version = said.get("version") if isinstance(said, dict) else None
    return (vllm_dialect(version), f"vllm {version}") if isinstance(version, str) else (DIALECTS["vllm"], "vllm")


def _shown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=5)
    return first_few([*near, *(each for each in sorted(known) if each not in near)], _SHOWN)


__all__ = ["API", "Found", "base_of", "look_at", "root_of"]
