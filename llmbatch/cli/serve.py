"""``llmbatch serve``: a model in, a server of the batch APIs on it out, until it is told to stop."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmbatch.cli.settings import JobCommand, assets_of, job_data_of, job_options, put

if TYPE_CHECKING:
    from llmbatch.server.settings import ServerSettings

_BYTES = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def _bytes(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    """``10G`` as bytes."""
    if text is None:
        return None
    number, unit = (text[:-1], text[-1].lower()) if text[-1:].lower() in _BYTES else (text, "")
    if not number.isdecimal() or not int(number):
        raise click.BadParameter(f"is a number of bytes, or such as 500M or 10G, not {text!r}")
    return int(number) * _BYTES.get(unit, 1)


@click.command(cls=JobCommand)
@job_options()
@click.option("--model", metavar="MODEL", help="The model: a folder or a name on the hub.")
@click.option("--engine", metavar="ENGINE", help="vllm, another engine, or scripted: no model.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where it listens; others need --api-key-file.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any that is free.")
@click.option(
    "--data", type=click.Path(path_type=Path), default=Path("llmbatch-data"), show_default=True, metavar="DIR",
    help="Where files and batches are kept.",
)  # fmt: skip
@click.option("--api-key-file", type=click.Path(path_type=Path), metavar="FILE", help="Lines of NAME KEY.")
@click.option("--model-name", multiple=True, metavar="NAME", help="What requests call the model. Can be repeated.")
@click.option("--idle", type=click.FloatRange(0), default=300.0, show_default=True, metavar="S",
              help="End the engine after so many seconds without work; 0: never.")  # fmt: skip
@click.option(
    "--max-bytes", callback=_bytes, default="20G", show_default=True, metavar="N", help="Of an uploaded file."
)
@click.option("--max-lines", type=click.IntRange(1), default=50_000, show_default=True, metavar="N", help="Of a batch.")
@click.option("--sessions", type=click.IntRange(1), default=8, show_default=True, metavar="N",
              help="Batches that run at a time, on the one engine.")  # fmt: skip
@click.option("--verbose", is_flag=True, help="Log every request, those that only look too; never what is in one.")
@click.pass_context
def serve(ctx: click.Context, /, verbose: bool, **given: Any) -> None:
    """Serve the batch APIs of OpenAI, Azure, AWS and Google on one model, and live requests beside them.

    Files and batches are kept in a folder; a server that was stopped or killed goes on with every batch. A job file, or
    --set, gives what holds for all batches: engine, chat, sampling, retry, plan.
    """
    settings = _settings(ctx, given)
    from llmbatch.core.imports import extra

    for module in ("fastapi", "httptools", "uvicorn", "python_multipart", "prometheus_client"):
        extra(module, "server", "llmbatch serve")
    from llmbatch.server.running import open_server
    from llmbatch.server.serve import listen, serve

    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(message)s",
    )
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("llmbatch").setLevel(logging.DEBUG if verbose else logging.INFO)
    listener = listen(settings)
    with listener, open_server(settings) as server:
        serve(server, listener, lambda said: click.echo(said))


def _settings(ctx: click.Context, given: dict[str, Any]) -> ServerSettings:
    """Raises ``UsageError`` for whatever can be known to be wrong before the server is there."""
    from llmbatch.server.keys import Keys
    from llmbatch.server.settings import ServerSettings

    data = job_data_of(ctx)
    for option, setting in (("model", "model"), ("engine", "engine.name")):
        if given[option] is not None:
            put(data, setting, given[option])
    key_file = given["api_key_file"]
    settings = ServerSettings(
        job=data,
        data=given["data"].expanduser().absolute(),
        host=given["host"],
        port=given["port"],
        keys=Keys() if key_file is None else Keys.read(key_file),
        names=given["model_name"],
        assets=assets_of(ctx),
        idle=given["idle"],
        max_bytes=given["max_bytes"],
        max_lines=given["max_lines"],
        sessions=given["sessions"],
    )
    settings.prove()
    return settings
