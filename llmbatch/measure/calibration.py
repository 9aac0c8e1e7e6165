"""A job in; its survey, with the engine's own sizes and with time and answers measured on a sample of its rows, out."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmbatch.core import words
from llmbatch.core.errors import JobError
from llmbatch.engines.kinds import make_engine
from llmbatch.job.job import Job
from llmbatch.job.recipe import engine_of
from llmbatch.job.swept import recipe_of
from llmbatch.measure.job_survey import Assumptions, survey_job
from llmbatch.measure.speed import Rates, Sample, measure, stratified
from llmbatch.measure.survey import Hours, Survey
from llmbatch.model.characters import Characters
from llmbatch.model.tokenizer import Tokenizer
from llmbatch.sources.opening import open_source


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured; ``hours`` are those of the whole job, the engine's start included."""

    hours: Hours
    rates: Rates
    start_seconds: float

    def as_dict(self) -> dict[str, Any]:
        """As JSON data."""
        prompt, answer = self.rates.per_token()
        return {
            "hours": asdict(self.hours),
            "start_seconds": self.start_seconds,
            "requests": self._sent,
            "answers_unfinished": self.rates.full.unfinished,
            "tokens_per_second": self.rates.full.tokens_per_second,
            "seconds_per_computed_prompt_token": prompt,
            "seconds_per_answer_token": answer,
            "tokens_of_an_answer": self.rates.answer_tokens,
        }

    def sentences(self) -> list[str]:
        """For a person: what the figures rest on, and what to be careful about."""
        rate, start = words.count(self.rates.full.tokens_per_second), words.duration(self.start_seconds)
        said = [
            f"Measured on {words.count(self._sent)} requests: {rate} tokens/s in and out, "
            f"{self.rates.answer_tokens:,.1f} tokens an answer; {start} of the time is the engine's start."
        ]
        if unfinished := self.rates.full.unfinished:
            said.append(
                f"{words.count(unfinished)} answers were not finished in time, and they are the long ones: the time will be "
                "longer than this says. Give more --calibrate-seconds."
            )
        return said

    @property
    def _sent(self) -> int:
        return self.rates.full.sent + self.rates.prefill.sent


def calibrated(
    job: Job, assumed: Assumptions, seconds: float, tell: Callable[[int], None]
) -> tuple[Survey, Tokenizer | Characters, Calibration]:
    """Start the job's engine, survey its input, and run a sample of it for about so many seconds.

    Raises ``UsageError`` before the engine is started for what can be known by then, and ``EngineError``; then the engine's log
    is left for the user to read.
    """
    stages = recipe_of(job)
    open_source(job.input)  # what is wrong with it is said before a model is loaded
    folder = Path(tempfile.mkdtemp(prefix="llmbatch-plan-"))
    log = folder / "engine.log"
    engine = make_engine(job.model_path, engine_of(job, stages), job.chat, log)
    try:
        engine.expect(stages.constraints)
        started = time.monotonic()
        info = engine.start()
        start_seconds = time.monotonic() - started
        sample = Sample()
        survey, tokenizer = survey_job(job, assumed._replace(engine=info), tell, sample)
        rates = measure(engine, stratified(sample.requests), seconds)
    finally:
        engine.stop()
    log.unlink(missing_ok=True)
    folder.rmdir()
    if survey.sent and not rates.full.lengths:
        raise JobError(
            f"no answer was finished in {2 * seconds:g} s, so nothing can be said of time: give more --calibrate-seconds"
        )
    survey.answer_tokens = rates.answer_tokens * survey.sent
    has_cache = info.kv_cache_tokens and info.prefix_caching
    found = rates.seconds(survey.computed if has_cache else survey.prompt_tokens, survey.sent)
    hours = Hours(*((start_seconds + each) / 3600 for each in found))
    return survey, tokenizer, Calibration(hours, rates, start_seconds)
