"""Settings, and what a model is to give (text, or numbers of a kind), in; the settings for that out, or why the model cannot.

It is said from the model's config, where that is on this machine, by the rules that vLLM goes by: names of architectures. What the
config does not tell vLLM says once it has loaded the model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llmbatch.core.errors import JobError
from llmbatch.core.types import PoolingTask
from llmbatch.engines.base import EngineSettings

_CLASSIFIERS = ("Classification", "ClassificationModel", "RewardModel", "RewardModeling", "Ranking", "Reranker")
_NO_TEXT = (
    "Model",
    "MaskedLM",
    "Classification",
    "RewardModel",
    "TextEncoding",
)  # how the names of those end that give none
_NO_HEAD = ("CausalLM", "LMHeadModel", "ConditionalGeneration", "MaskedLM", "Model", "TextEncoding")
_OTHERWISE = ("convert", "hf_overrides", "model_impl", "tokenizer_mode", "hf_config_path")
"""Arguments under which a model may be another than its config says."""


def settings_for(settings: EngineSettings, model: str, task: PoolingTask | None) -> EngineSettings:
    """The settings for a model that is to give such numbers, or with None text. Raises ``JobError`` where it cannot."""
    runner = settings.args.get("runner", "auto")
    if task is None:
        if runner == "pooling":
            raise JobError(
                "engine.args.runner=pooling: the model gives numbers then, and the job's program asks for text: leave it out, or "
                "take a program such as --program embed"
            )
        if not settings.args.keys() & {*_OTHERWISE, "runner"}:
            _see_that_it_writes(model)
        return settings
    if runner not in ("auto", "pooling"):
        raise JobError(f"engine.args.runner={runner}: the job's program asks for numbers ({task}): leave it out")
    if task != "embed" and not settings.args.keys() & set(_OTHERWISE):
        _see_that_it_classifies(model, task)
    return settings.model_copy(update={"args": {**settings.args, "runner": "pooling"}})


def _see_that_it_writes(model: str) -> None:
    names = _architectures(model)
    if names and all(name.endswith(_NO_TEXT) for name in names):
        raise JobError(
            f"model {model!r} ({', '.join(names)}) gives numbers, not text: take a model that generates text, or a program that "
            "asks for numbers, such as --program embed"
        )


def _see_that_it_classifies(model: str, task: PoolingTask) -> None:
    config = _config(model)
    names = _architectures(model)
    if names and all(name.endswith(_NO_HEAD) and not name.endswith(_CLASSIFIERS) for name in names):
        instead = (
            "; program.settings.encoder=bi compares the vectors of the two texts instead" if task == "pairs" else ""
        )
        raise JobError(
            f"model {model!r} ({', '.join(names)}) has no classification head, which {task} needs: take a model that has one"
            f"{instead}; one that gets it by engine.args.convert or hf_overrides is not held to this"
        )
    classes = len(config.get("id2label") or (0, 1))
    if task == "pairs" and classes != 1 and any(name.endswith("ForSequenceClassification") for name in names):
        raise JobError(
            f"model {model!r} has {classes} classes, and a model that scores pairs has one: take a cross-encoder or reranker"
        )


def _architectures(model: str) -> list[str]:
    found = _config(model).get("architectures")
    return [str(name) for name in found] if isinstance(found, list) else []


def _config(model: str) -> dict[str, Any]:
    """The config of a model in a folder; empty where there is none, which is said when the model is loaded."""
    try:
        found = json.loads((Path(model).expanduser() / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError):
        return {}
    return found if isinstance(found, dict) else {}


__all__ = ["settings_for"]
