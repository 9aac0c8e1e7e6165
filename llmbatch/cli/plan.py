"""``llmbatch plan``: a job in, what it will take out: read from its whole input with the model's tokenizer, without the model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from llmbatch.cli.settings import JobCommand, job_data_of, job_options, merged
from llmbatch.core.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llmbatch.cli.plan_calibrate import Calibration
    from llmbatch.core.types import Request, Row, RowId
    from llmbatch.engines.base import EngineInfo
    from llmbatch.job.job import Job
    from llmbatch.job.recipe import Recipe
    from llmbatch.measure.speed import Sample
    from llmbatch.measure.survey import Prices, Survey
    from llmbatch.model.tokenizer import Tokenizer
    from llmbatch.plan.order import Capacity

DEFAULT_MAX_NUM_SEQS = 256


class Assumptions(NamedTuple):
    """What is assumed of the engine and the answers, since neither is there to be asked."""

    kv_cache_tokens: int | None
    gpu_memory_gib: float | None
    answer_tokens: int | None
    engine: EngineInfo | None = None  # unless it is there after all


@click.command(cls=JobCommand)
@job_options("Corpus", "Sampling", "Answers")
@click.option("--kv-cache-tokens", type=click.IntRange(1), metavar="N", help="Size of the KV cache, for the hit rate.")
@click.option(
    "--gpu-memory-gib", type=click.FloatRange(0, min_open=True), metavar="G", help="Or the GPU memory it is made from."
)
@click.option("--answer-tokens", type=click.IntRange(1), metavar="N", help="How long an answer is on average.")
@click.option(
    "--tokens-per-second", type=click.FloatRange(0, min_open=True), metavar="N", help="Speed, for time and cost."
)
@click.option("--calibrate", is_flag=True, help="Load the model and measure the speed on a sample of the rows.")
@click.option(
    "--calibrate-seconds",
    type=click.FloatRange(0, min_open=True),
    default=30,
    show_default=True,
    metavar="S",
    help="For about how long; long answers need more.",
)
@click.option("--price-per-gpu-hour", metavar="P", help="Needs --calibrate or --tokens-per-second.")
@click.option(
    "--gpus", type=click.IntRange(1), metavar="N", help="How many are paid for; by default as the engine has."
)
@click.option("--price-per-million", metavar="P[,P]", help="Price of a million tokens; in, out.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def plan(
    ctx: click.Context,
    kv_cache_tokens: int | None,
    gpu_memory_gib: float | None,
    answer_tokens: int | None,
    tokens_per_second: float | None,
    calibrate: bool,
    calibrate_seconds: float,
    price_per_gpu_hour: str | None,
    gpus: int | None,
    price_per_million: str | None,
    as_json: bool,
) -> None:
    """Say what a job would take; without --calibrate no model is loaded.

    Reads the whole input with the model's tokenizer: duplicates, rows that do not fit, shared prefixes, and what folding
    and ordering save. With a size of the KV cache it predicts the prefix cache's hit rate; with a speed or a price, time
    and cost. With --calibrate the model is loaded and answers a sample of the rows, and what it measures takes the place
    of assumptions; answers that would be sent back and asked for again are not foreseen.
    """
    if price_per_gpu_hour is not None and tokens_per_second is None and not calibrate:
        raise click.UsageError(
            "--price-per-gpu-hour needs --calibrate, or --tokens-per-second as measured by an earlier run or a benchmark"
        )
    given = {"price_per_gpu_hour": price_per_gpu_hour, "price_per_million": price_per_million}
    job = _job(ctx, {name: price for name, price in given.items() if price is not None})
    from llmbatch.measure.survey import Prices
    from llmbatch.run.budget import gpus_of

    assumed = Assumptions(kv_cache_tokens, gpu_memory_gib, answer_tokens)
    calibration: Calibration | None = None
    if calibrate:
        from llmbatch.cli.plan_calibrate import calibrated

        survey, tokenizer, calibration = calibrated(job, assumed, calibrate_seconds, as_json)
    else:
        survey, tokenizer = survey_job(job, assumed, as_json)
    prices = Prices(
        tokens_per_second,
        job.run.price_per_gpu_hour,
        gpus or gpus_of(job.engine),
        job.run.price_per_million,
        None if calibration is None else calibration.hours,
    )
    if as_json:
        measured = {} if calibration is None else {"calibration": calibration.as_dict()}
        click.echo(json.dumps({**_as_dict(survey, tokenizer, prices), **measured}, ensure_ascii=False))
    else:
        from rich.console import Console

        from llmbatch.cli.plan_view import view

        sentences = [] if calibration is None else calibration.sentences()
        Console().print(view(survey, advice_of(survey, tokenizer), prices, sentences))


def survey_job(
    job: Job, assumed: Assumptions, quiet: bool = True, sample: Sample | None = None
) -> tuple[Survey, Tokenizer]:
    """Read and plan all of a job's input, window by window. Raises ``UsageError``, or ``ReadError`` where the input fails.

    What would be sent is offered to ``sample``.
    """
    from llmbatch.job.recipe import Recipe
    from llmbatch.measure.survey import Survey
    from llmbatch.model.tokenizer import load_tokenizer
    from llmbatch.sources.base import open_source

    stages = Recipe(job)
    source = open_source(job.input)
    args = job.engine.args
    tokenizer = load_tokenizer(
        job.model_path,
        job.chat,
        tokenizer=args.get("tokenizer"),
        revision=args.get("revision"),
        trust_remote_code=job.engine.trust_remote_code,
        without_torch=True,
    )
    survey = Survey(_limits(job, tokenizer, assumed))
    with _progress(quiet, job.input.path) as tell:
        for rows in _windows(source.rows(), job.run.window, job.run.window_characters):
            sent = _add_window(survey, job, stages, tokenizer, rows, assumed.answer_tokens)
            if sample is not None:
                sample.offer(sent)
            tell(survey.rows)
    return survey, tokenizer


def _job(ctx: click.Context, prices: Mapping[str, str]) -> Job:
    """The job of the command line; a plan needs no output folder."""
    from llmbatch.job.job import job_from

    return job_from(merged({"output": ".", **job_data_of(ctx)}, {"run": prices}))


def _windows(rows: Iterable[Row], size: int, characters: int) -> Iterator[list[Row]]:
    """Rows in windows of at most ``size`` rows, and of about ``characters`` characters of text."""
    window: list[Row] = []
    length = 0
    for row in rows:
        window.append(row)
        length += sum(len(value) for value in row.data.values() if isinstance(value, str)) if row.data else 0
        if len(window) == size or length >= characters:
            yield window
            window, length = [], 0
    if window:
        yield window


def _add_window(
    survey: Survey, job: Job, stages: Recipe, tokenizer: Tokenizer, rows: Sequence[Row], answer_tokens: int | None
) -> Iterator[Request]:
    """Add a window to the survey; returns the requests that it would send."""
    from llmbatch.core.types import Failure
    from llmbatch.plan.lengths import LengthEstimate
    from llmbatch.plan.window import plan_window

    lengths = LengthEstimate()
    if answer_tokens is not None:
        lengths.observe(1, answer_tokens, cut=False)
    asked: list[tuple[Request, RowId]] = []
    for row in rows:
        survey.rows += 1
        rendered = row.failure or stages.render(row)
        if isinstance(rendered, Failure):
            survey.trouble(row.id, rendered)
        else:
            asked.extend((request, row.id) for request in stages.begin(row, rendered).start())
    requests: list[Request] = []
    ids: list[RowId] = []
    encoded = tokenizer.encode([request.prompt for request, _ in asked])
    for (request, row_id), tokens in zip(asked, encoded, strict=True):
        if isinstance(tokens, Failure):
            survey.trouble(row_id, tokens)
        else:
            requests.append(replace(request, token_ids=tokens))
            ids.append(row_id)
    plan = plan_window(requests, survey.limits, job.plan, lengths)
    survey.add(requests, plan, ids)
    return (requests[position] for position in plan.order)


def _limits(job: Job, tokenizer: Tokenizer, assumed: Assumptions) -> Capacity:
    from llmbatch.plan.order import Capacity

    if (info := assumed.engine) is not None:
        return Capacity(
            context_length=info.context_length,
            max_num_seqs=info.max_num_seqs,
            kv_cache_tokens=info.kv_cache_tokens or assumed.kv_cache_tokens,
            block_size=info.block_size,
            max_num_batched_tokens=info.details.get("max_num_batched_tokens"),
        )
    args = job.engine.args
    longest = args.get("max_model_len")
    return Capacity(
        context_length=longest if isinstance(longest, int) and longest > 0 else tokenizer.context_length,
        max_num_seqs=args.get("max_num_seqs") or DEFAULT_MAX_NUM_SEQS,
        kv_cache_tokens=assumed.kv_cache_tokens or _kv_cache_tokens(job, assumed.gpu_memory_gib),
        block_size=args.get("block_size"),
        max_num_batched_tokens=args.get("max_num_batched_tokens"),
    )


def _kv_cache_tokens(job: Job, memory_gib: float | None) -> int | None:
    if memory_gib is None:
        return None
    from llmbatch.model.memory import GIB, cache_tokens
    from llmbatch.model.tokenizer import model_config

    config, weights = model_config(job.model_path, job.engine.args.get("revision")), _weight_bytes(job)
    tokens = cache_tokens(config, weights, memory_gib) if config is not None and weights is not None else None
    if tokens is None:
        raise JobError(
            f"the KV cache of model {job.model!r} cannot be worked out from its files: give --kv-cache-tokens, as vLLM logs it"
        )
    if tokens <= 0:
        raise JobError(
            f"model {job.model!r} has {(weights or 0) / GIB:.1f} GiB of weights, and {memory_gib:g} GiB of GPU memory leave no "
            f"room for a KV cache: give the memory of all GPUs together, or take a smaller or quantized model"
        )
    return tokens


def _weight_bytes(job: Job) -> int | None:
    """The size of the weights: from their index, or the files of a local model; None where neither is there."""
    if index := _model_file(job, "model.safetensors.index.json"):
        size = json.loads(index.read_text(encoding="utf-8")).get("metadata", {}).get("total_size")
        if isinstance(size, int):
            return size
    folder = Path(job.model_path)
    if folder.is_dir():
        return sum(file.stat().st_size for file in folder.glob("*.safetensors")) or None
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        info = HfApi().model_info(job.model_path, revision=job.engine.args.get("revision"), files_metadata=True)
    except (HfHubHTTPError, OSError):
        return None
    files = info.siblings or []
    return sum(file.size or 0 for file in files if file.rfilename.endswith(".safetensors")) or None


def _model_file(job: Job, name: str) -> Path | None:
    from transformers.utils import cached_file

    revision = job.engine.args.get("revision")
    found = cached_file(job.model_path, name, revision=revision, _raise_exceptions_for_missing_entries=False)
    return Path(found) if found else None


def advice_of(survey: Survey, tokenizer: Tokenizer) -> list[str]:
    """The advice of a survey as sentences."""
    sentences = []
    for advice in survey.advice():
        text = tokenizer.decode([survey.sample_tokens(*advice.example, 12)])[0]
        sentences.append(advice.sentence(" ".join(text.split())[:60]))
    if sentence := survey.window_advice():
        sentences.append(sentence)
    return sentences


def _as_dict(survey: Survey, tokenizer: Tokenizer, prices: Prices) -> dict[str, Any]:
    from dataclasses import asdict

    from llmbatch.measure.survey import costs

    return {
        "rows": survey.rows,
        "requests": survey.requests,
        "duplicates": survey.duplicates,
        "not_run": dict(survey.troubles),
        "examples": {
            kind: [{"id": row, "message": text} for row, text in rows] for kind, rows in survey.examples.items()
        },
        "may_be_cut": survey.may_be_cut,
        "prompt_tokens": survey.prompt_tokens,
        "folded_tokens": survey.folded_tokens,
        "longest_prompt": survey.longest,
        "histogram": [asdict(bar) for bar in survey.histogram()],
        "answer_tokens": {"expected": round(survey.answer_tokens), "most": survey.answer_tokens_most},
        "to_compute": {
            "in_input_order": survey.computed_given,
            "as_planned": survey.computed,
            "with_room_for_a_window": survey.computed_least,
        },
        "hit_rate": {
            "in_input_order": survey.hit_rate_given,
            "as_planned": survey.hit_rate,
            "with_room_for_a_window": survey.hit_rate_possible,
        },
        "assumed": asdict(survey.limits),
        "advice": advice_of(survey, tokenizer),
        **costs(survey, prices),
    }


class _progress:  # noqa: N801 - used like a function
    """Says on a terminal's stderr how many rows are read; nothing elsewhere."""

    def __init__(self, quiet: bool, path: str) -> None:
        from rich.console import Console

        console = Console(stderr=True)
        self._status = None if quiet or not console.is_terminal else console.status(f"reading {path}")
        self._path = path

    def __enter__(self) -> Callable[[int], None]:
        if self._status is not None:
            self._status.start()
        return self._tell

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def _tell(self, rows: int) -> None:
        if self._status is not None:
            self._status.update(f"reading {self._path}: {rows:,} rows")
