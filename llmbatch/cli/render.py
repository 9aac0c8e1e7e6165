"""``llmbatch render``: a job in, the requests that its rows become out, as OpenAI-batch JSON lines; no model is loaded.

Memory does not grow with the input. A row that has no prompt is named on stderr and makes the exit code 3.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from llmbatch.cli.settings import JobCommand, job_data_of, job_options
from llmbatch.core.types import Failure

if TYPE_CHECKING:
    from llmbatch.core.types import Rendered, Row
    from llmbatch.job.job import Job
    from llmbatch.model.tokenizer import Tokenizer

    Outcome = tuple[Row, Rendered | Failure]
    Counted = tuple[Row, Rendered | Failure, int | None]

SHOWN = 10  # failed rows that are named one by one
_BATCH = 256  # rows tokenized together
_encode = json.JSONEncoder(ensure_ascii=False).encode


@click.command(cls=JobCommand)
@job_options("Corpus", "Sampling", "Answers")
@click.option("--output", "target", default="-", metavar="FILE", help="Where to write the requests; - is stdout.")
@click.option("--tokens", is_flag=True, help="Add each request's number of prompt tokens; needs the model's tokenizer.")
@click.pass_context
def render(ctx: click.Context, target: str, tokens: bool) -> None:
    """Write the requests that a job's rows become, one line of JSON each, in the OpenAI batch format.

    The lines are what `vllm run-batch` takes, and what `llmbatch run` takes as --input. Exit code 3 if a row has no
    prompt.
    """
    from llmbatch.formats.base import wire_format
    from llmbatch.job.job import job_from
    from llmbatch.job.swept import recipe_of
    from llmbatch.sources.opening import open_source
    from llmbatch.sources.shard import rows_in

    data = job_data_of(ctx)
    model = data.get("model")
    if tokens and model is None:
        raise click.UsageError("--tokens needs --model: the tokens are counted by its tokenizer")
    job = job_from({"model": "none", **data, "output": "-"})  # render needs no model, and writes no run folder
    if job.input.endless:
        raise click.UsageError("rows are drawn without an end: give --limit N to see the requests of the first ones")
    recipe, write = recipe_of(job), wire_format("openai").write
    if recipe.pooling is not None and not recipe.gives_vectors:
        raise click.UsageError(
            f"the program {recipe.program.name} asks for numbers, and the requests that are written here are for text or vectors"
        )
    source = open_source(job.input)
    tokenizer = _tokenizer(job) if tokens else None
    rendered = ((row, recipe.settled(row)) for row in rows_in(source.rows(), job.input.slice))
    tally = _Tally()
    with _writing(target) as stream:
        for row, result, count in _counted(rendered, tokenizer):
            if isinstance(result, Failure):
                tally.failed(result)
            else:
                line = write(row.id, result, model)
                if count is not None:
                    line["prompt_tokens"] = count
                stream.write(f"{_encode(line)}\n".encode())
                tally.written(count)
    tally.sum_up(tokens)
    if recipe.later:
        click.echo(f"not written, since it depends on answers: {recipe.later}", err=True)
    if tally.failures:
        ctx.exit(3)


class _Tally:
    """Counts rows and tokens, and names the first rows that failed on stderr."""

    def __init__(self) -> None:
        self.requests = self.tokens = self.failures = 0

    def written(self, tokens: int | None) -> None:
        self.requests += 1
        self.tokens += tokens or 0

    def failed(self, failure: Failure) -> None:
        self.failures += 1
        if self.failures <= SHOWN:
            click.echo(f"no request: {failure.message}", err=True)

    def sum_up(self, tokens: bool) -> None:
        if self.failures > SHOWN:
            click.echo(f"no request for {self.failures - SHOWN} more rows", err=True)
        if tokens:
            click.echo(f"{self.requests} requests, {self.tokens} prompt tokens", err=True)


def _tokenizer(job: Job) -> Tokenizer:
    from llmbatch.model.tokenizer import load_tokenizer

    return load_tokenizer(job.model_path, job.chat, without_torch=True)


def _counted(rendered: Iterator[Outcome], tokenizer: Tokenizer | None) -> Iterator[Counted]:
    """The same rows in the same order, with the number of prompt tokens where there is a tokenizer."""
    if tokenizer is None:
        for row, result in rendered:
            yield row, result, None
        return
    while batch := list(islice(rendered, _BATCH)):
        yield from _with_tokens(batch, tokenizer)


def _with_tokens(batch: Iterable[Outcome], tokenizer: Tokenizer) -> Iterator[Counted]:
    ids = iter(tokenizer.encode([result.prompt for _, result in batch if not isinstance(result, Failure)]))
    for row, result in batch:
        if isinstance(result, Failure):
            yield row, result, None
            continue
        encoded = next(ids)
        if isinstance(encoded, Failure):
            yield row, encoded, None
        else:
            yield row, result, len(encoded)


@contextlib.contextmanager
def _writing(target: str) -> Iterator[BinaryIO]:
    from llmbatch.core.files import atomic

    if target == "-":
        stream = sys.stdout.buffer
        yield stream
        stream.flush()
    else:
        with atomic(Path(target)) as stream:
            yield stream
