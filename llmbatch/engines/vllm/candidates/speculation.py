"""Tokens guessed ahead, and checked together: from the text so far (n-gram, suffix), or by a small model that the job names.

Greedy answers are the same but for rounding: the model itself decides about every token, in batches of another shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import Any

from llmbatch.core.settings import is_named_as_path, is_there
from llmbatch.engines.kinds import Around, Candidate
from llmbatch.engines.settings import EngineSettings
from llmbatch.engines.vllm.candidates.base import left_out, on_cpu, set_by_the_job, with_args

_KIND = "speculation"
_CONFIG = "speculative_config"
_NGRAM = {"num_speculative_tokens": 4, "prompt_lookup_max": 4, "prompt_lookup_min": 2}
_SUFFIX = {"method": "suffix", "num_speculative_tokens": 16}
_DRAFT = {"method": "draft_model", "num_speculative_tokens": 4}


def candidates(settings: EngineSettings, around: Around) -> Iterable[Candidate]:
    if given := set_by_the_job(_KIND, settings, _CONFIG):
        return given
    if settings.args.get("runner") == "pooling":
        return [left_out(_KIND, _KIND, "the model gives numbers, no tokens one after another")]
    return list(_methods(settings, around))


def _methods(settings: EngineSettings, around: Around) -> Iterator[Candidate]:
    yield _with(settings, "n-gram", {"method": "ngram", **_NGRAM})
    if not on_cpu(around):
        yield _with(settings, "n-gram on the GPU", {"method": "ngram_gpu", **_NGRAM})
    if find_spec("arctic_inference") is None:
        yield left_out(
            _KIND, "suffix", "it needs arctic-inference, which is not installed: pip install arctic-inference"
        )
    else:
        yield _with(settings, "suffix", _SUFFIX)
    if around.draft is None:
        yield left_out(_KIND, "draft model", "none is named: give one with --draft-model (run.tuning.draft)")
    elif is_named_as_path(around.draft) and not is_there(around.draft):
        yield left_out(_KIND, "draft model", f"{around.draft}: there is no such folder")
    else:
        yield _with(settings, f"draft model {around.draft}", {**_DRAFT, "model": around.draft})


def _with(settings: EngineSettings, name: str, config: dict[str, Any]) -> Candidate:
    return Candidate(f"speculation: {name}", with_args(settings, {_CONFIG: config}), _KIND, exact=False)


def unspeculating(settings: EngineSettings) -> EngineSettings | None:
    """The settings without it; None where they do not ask for it."""
    if settings.args.get(_CONFIG) is None:
        return None
    args = {name: value for name, value in settings.args.items() if name != _CONFIG}
    return settings.model_copy(update={"args": args})
