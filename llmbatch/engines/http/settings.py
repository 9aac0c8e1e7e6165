"""A job's engine section in; what of it an engine behind HTTP servers takes, checked, out."""

from __future__ import annotations

import os
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from llmbatch.core.errors import JobError
from llmbatch.core.settings import Counts, IsPath
from llmbatch.engines.settings import EngineSettings

# of EngineSettings, with what they are for
_NOT_HERE = {
    "script": "engine.script is for the scripted engine alone",
    "in_process": "engine.in_process: the model runs in its server",
    "hosted": "engine.hosted: the model runs in its server",
    "in_flight_tokens": "engine.in_flight_tokens: a server gives no token ids to count; engine.in_flight counts requests",
    "trust_remote_code": "engine.trust_remote_code: the model runs in its server, which is told so there",
}


class HttpSettings(EngineSettings):
    """What engines behind HTTP servers have in common. A server's URLs change no answer, nor does how it is asked."""

    urls: Annotated[list[str], Counts.NOTHING] = Field(
        default_factory=list,
        description="the server's URL; several: servers with the same model, which share the requests",
    )
    key_env: Annotated[str | None, Counts.NOTHING] = Field(
        None, description="the environment variable that holds the key; the key itself has no place in a job"
    )
    request_timeout: Annotated[float | None, Counts.NOTHING] = Field(
        None,
        gt=0,
        description="seconds that one request may take, its wait in the server included; by default engine.timeout",
    )
    ca_file: Annotated[str | None, IsPath(), Counts.NOTHING] = Field(
        None, description="certificates (PEM) to trust besides the system's, of a server with a certificate of its own"
    )

    @field_validator("urls", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("urls")
    @classmethod
    def _are_urls(cls, urls: list[str]) -> list[str]:
        for url in urls:
            if problem := _url_problem(url):
                raise ValueError(f"{url!r} {problem}")
        plain = [url.rstrip("/") for url in urls]
        if twice := next((url for url in plain if plain.count(url) > 1), None):
            raise ValueError(f"{twice!r} is there twice")
        return plain

    @model_validator(mode="after")
    def _of_this_engine(self) -> HttpSettings:
        for name, problem in _NOT_HERE.items():
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{problem}: take it out")
        if self.replicas != 1:
            raise ValueError("engine.replicas: several servers are given by their URLs, under engine.urls")
        return self


def named_key(name: str) -> str:
    """The key in an environment variable. Raises ``JobError`` where there is none, or what HTTP cannot send."""
    key = os.environ.get(name, "").strip()
    if not key:
        raise JobError(f"engine.key_env: the environment variable {name} is not set, and is to hold the server's key")
    if not key.isascii() or not key.isprintable():
        raise JobError(
            f"engine.key_env: the environment variable {name} holds what is no key: characters that HTTP cannot send"
        )
    return key


def _url_problem(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        return f"is no URL: {error}"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "is no URL of a server: it begins with http:// or https://, and names a host"
    if parts.username or parts.password:  # no ValueError: its message would say it
        raise JobError(
            "engine.urls: a URL holds a name or password, which has no place in a job: give a key with engine.key_env"
        )
    if parts.query or parts.fragment:  # which may be a key
        raise JobError("engine.urls: a URL has a query or fragment, and a server's URL ends with its path")
    return None
