"""``llmbatch plan``: a job in, what it will take out: read from its whole input with the model's tokenizer, without the model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from llmbatch.cli.settings import JobCommand, job_data_of, job_options
from llmbatch.core.merge import merged

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llmbatch.job.job import Job
    from llmbatch.measure.calibration import Calibration
    from llmbatch.measure.survey import Prices, Survey
    from llmbatch.model.characters import Characters
    from llmbatch.model.tokenizer import Tokenizer


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
@click.option("--price-per-million", metavar="P[,P[,P]]", help="Price of a million tokens; in, out, cached in.")
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
    and ordering save. Where the tokenizer of a hosted model is not to be had, tokens are estimated. With a size of the KV
    cache it predicts the prefix cache's hit rate; with a speed or a price, time and cost. With --calibrate the model is
    loaded and answers a sample of the rows, and what it measures takes the place of assumptions; answers that would be sent
    back and asked for again are not foreseen. Of a program of several steps the first requests of each row are counted,
    since the others depend on answers.
    """
    if price_per_gpu_hour is not None and tokens_per_second is None and not calibrate:
        raise click.UsageError(
            "--price-per-gpu-hour needs --calibrate, or --tokens-per-second as measured by an earlier run or a benchmark"
        )
    given = {"price_per_gpu_hour": price_per_gpu_hour, "price_per_million": price_per_million}
    job = _job(ctx, {name: price for name, price in given.items() if price is not None})
    from llmbatch.measure.job_survey import Assumptions, advice_of, survey_job
    from llmbatch.measure.order_gain import fields_first, foreseen_of
    from llmbatch.measure.survey import Prices
    from llmbatch.runs.budget import gpus_of

    assumed = Assumptions(kv_cache_tokens, gpu_memory_gib, answer_tokens)
    calibration: Calibration | None = None
    if calibrate:
        from llmbatch.measure.calibration import calibrated

        with _progress(as_json, job.input.name) as tell:
            survey, tokenizer, calibration = calibrated(job, assumed, calibrate_seconds, tell)
    else:
        with _progress(as_json, job.input.name) as tell:
            survey, tokenizer = survey_job(job, assumed, tell)
    order, fields = foreseen_of(job), fields_first(job)
    prices = Prices(
        tokens_per_second,
        job.run.price_per_gpu_hour,
        gpus or gpus_of(job.engine).number,
        job.run.price_per_million,
        None if calibration is None else calibration.hours,
    )
    if as_json:
        measured = {} if calibration is None else {"calibration": calibration.as_dict()}
        measured |= {} if order is None else {"order": order[1]}
        measured |= {} if fields is None else {"fields": fields[1]}
        click.echo(
            json.dumps({**_as_dict(survey, tokenizer, prices, job.plan.overflow), **measured}, ensure_ascii=False)
        )
    else:
        from rich.console import Console

        from llmbatch.cli.plan_view import too_long_sentences, view

        sentences = [] if calibration is None else calibration.sentences()
        sentences += too_long_sentences(survey, job.plan.overflow)
        sentences += [said[0] for said in (order, fields) if said is not None]
        if _is_estimate(tokenizer):
            sentences.append(
                f"The tokenizer of model {job.model!r} is not to be had here, so tokens are estimated: one for each four bytes of "
                "text. Where another model counts as it does, name that with --set engine.tokenizer=MODEL."
            )
        if job.accept is not None and job.accept.rows is not None:
            what = "as many rows, were all of them accepted" if job.input.endless else "all of the input"
            sentences.append(
                f"The run ends when {job.accept.rows:,} rows are accepted; this is what {what} would take."
            )
        Console().print(view(survey, advice_of(survey, tokenizer), prices, sentences))


def _job(ctx: click.Context, prices: Mapping[str, str]) -> Job:
    """The job of the command line; a plan needs no output folder."""
    from llmbatch.job.job import job_from

    return job_from(merged({"output": ".", **job_data_of(ctx)}, {"run": prices}))


def _is_estimate(tokenizer: Tokenizer | Characters) -> bool:
    from llmbatch.model.characters import Characters

    return isinstance(tokenizer, Characters)


def _as_dict(survey: Survey, tokenizer: Tokenizer | Characters, prices: Prices, overflow: str) -> dict[str, Any]:
    from dataclasses import asdict

    from llmbatch.measure.job_survey import advice_of
    from llmbatch.measure.survey import costs

    return {
        "rows": survey.rows,
        "tokens_are_estimated": _is_estimate(tokenizer),
        "requests": survey.requests,
        "with_images": survey.with_images,
        "not_counted": survey.not_counted or None,
        "duplicates": survey.duplicates,
        "not_run": dict(survey.troubles),
        "examples": {
            kind: [{"id": row, "message": text} for row, text in rows] for kind, rows in survey.examples.items()
        },
        "may_be_cut": survey.may_be_cut,
        "too_long": {"overflow": overflow, **survey.too_long._asdict()},
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
