"""vLLM's ``performance_mode=throughput``: twice its own batch sizes, and kernels and graphs for many requests at a time."""

from __future__ import annotations

from collections.abc import Iterable

from llmbatch.engines.kinds import Around, Candidate
from llmbatch.engines.settings import EngineSettings
from llmbatch.engines.vllm.candidates.base import left_out, on_cpu, set_by_the_job, with_args

_KIND = "performance mode"
_NAME = "performance_mode"


def candidates(settings: EngineSettings, around: Around) -> Iterable[Candidate]:
    if given := set_by_the_job(_KIND, settings, _NAME):
        return given
    if on_cpu(around):
        why = "on a CPU it would change nothing but the batch sizes, which are set and tried by themselves"
        return [left_out(_KIND, _NAME, why)]
    if "performance_mode" not in _known():
        return [left_out(_KIND, _NAME, "the installed vLLM does not have it")]
    return [Candidate(f"{_NAME}=throughput", with_args(settings, {_NAME: "throughput"}), _KIND, exact=False)]


def _known() -> set[str]:
    from dataclasses import fields

    from vllm.engine.arg_utils import EngineArgs

    return {field.name for field in fields(EngineArgs)}
