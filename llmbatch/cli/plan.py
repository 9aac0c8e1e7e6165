"""``llmbatch plan``: a job in, what it will take out: read from its whole input with the model's tokenizer, without the model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from llmbatch.cli.settings import JobCommand, job_data_of, job_options
from llmbatch.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llmbatch.job import Job
    from llmbatch.plan import Limits
    from llmbatch.plan.survey import Prices, Survey
    from llmbatch.stages import Stages
    from llmbatch.tokenizer import Tokenizer
    from llmbatch.types import Request, Row, RowId

DEFAULT_MAX_NUM_SEQS = 256


class Assumptions(NamedTuple):
    """What is assumed of the engine and the answers, since neither is there to be asked."""

    kv_cache_tokens: int | None
    gpu_memory_gib: float | None
    answer_tokens: int | None


def _prices(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[float, float] | None:
    """``0.2`` or ``0.1,0.4``: the price of prompt tokens, and of answer tokens."""
    if value is None:
        return None
    try:
        prices = [float(part) for part in value.split(",")]
    except ValueError:
        prices = []
    if len(prices) not in (1, 2):
        raise click.BadParameter(f"{value!r} is neither one price nor two (in, out) with a comma between")
    return prices[0], prices[-1]


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
@click.option("--price-per-gpu-hour", type=click.FloatRange(0), metavar="P", help="Needs --tokens-per-second.")
@click.option(
    "--gpus", type=click.IntRange(1), default=1, show_default=True, metavar="N", help="How many are paid for."
)
@click.option("--price-per-million", callback=_prices, metavar="P[,P]", help="Price of a million tokens; in, out.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def plan(
    ctx: click.Context,
    kv_cache_tokens: int | None,
    gpu_memory_gib: float | None,
    answer_tokens: int | None,
    tokens_per_second: float | None,
    price_per_gpu_hour: float | None,
    gpus: int,
    price_per_million: tuple[float, float] | None,
    as_json: bool,
) -> None:
    """Say what a job would take; no model is loaded.

    Reads the whole input with the model's tokenizer: duplicates, rows that do not fit, shared prefixes, and what folding
    and ordering save. With a size of the KV cache it predicts the prefix cache's hit rate; with a speed or a price, time
    and cost.
    """
    if price_per_gpu_hour is not None and tokens_per_second is None:
        raise click.UsageError(
            "--price-per-gpu-hour needs --tokens-per-second, as measured by an earlier run or a benchmark"
        )
    job = _job(ctx)
    from llmbatch.plan.survey import Prices

    prices = Prices(tokens_per_second, price_per_gpu_hour, gpus, price_per_million)
    survey, tokenizer = survey_job(job, Assumptions(kv_cache_tokens, gpu_memory_gib, answer_tokens), as_json)
    if as_json:
        click.echo(json.dumps(_as_dict(survey, tokenizer, prices), ensure_ascii=False))
    else:
        from rich.console import Console

        from llmbatch.cli.plan_view import view

        Console().print(view(survey, advice_of(survey, tokenizer), prices))


def survey_job(job: Job, assumed: Assumptions, quiet: bool = True) -> tuple[Survey, Tokenizer]:
    """Read and plan all of a job's input, window by window. Raises ``UsageError``, or ``ReadError`` where the input fails."""
    from llmbatch.plan.survey import Survey
    from llmbatch.sources import open_source
    from llmbatch.stages import Stages
    from llmbatch.tokenizer import load_tokenizer

    stages = Stages(job)
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
            _add_window(survey, job, stages, tokenizer, rows, assumed.answer_tokens)
            tell(survey.rows)
    return survey, tokenizer


def _job(ctx: click.Context) -> Job:
    """The job of the command line; a plan needs no output folder."""
    from llmbatch.job import job_from

    return job_from({"output": ".", **job_data_of(ctx)})


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
    survey: Survey, job: Job, stages: Stages, tokenizer: Tokenizer, rows: Sequence[Row], answer_tokens: int | None
) -> None:
    from llmbatch.plan import LengthEstimate, plan_window
    from llmbatch.types import Failure

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
    settings = job.plan if stages.foldable else job.plan.model_copy(update={"fold": False})
    survey.add(requests, plan_window(requests, survey.limits, settings, lengths), ids)


def _limits(job: Job, tokenizer: Tokenizer, assumed: Assumptions) -> Limits:
    from llmbatch.plan import Limits

    args = job.engine.args
    longest = args.get("max_model_len")
    return Limits(
        context_length=longest if isinstance(longest, int) and longest > 0 else tokenizer.context_length,
        max_num_seqs=args.get("max_num_seqs") or DEFAULT_MAX_NUM_SEQS,
        kv_cache_tokens=assumed.kv_cache_tokens or _kv_cache_tokens(job, assumed.gpu_memory_gib),
        block_size=args.get("block_size"),
        max_num_batched_tokens=args.get("max_num_batched_tokens"),
    )


def _kv_cache_tokens(job: Job, memory_gib: float | None) -> int | None:
    if memory_gib is None:
        return None
    from llmbatch.plan.memory import GIB, cache_tokens

    config, weights = _config(job), _weight_bytes(job)
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


def _config(job: Job) -> dict[str, Any] | None:
    path = _model_file(job, "config.json")
    return json.loads(path.read_text(encoding="utf-8")) if path is not None else None


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

    from llmbatch.plan.survey import costs

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
