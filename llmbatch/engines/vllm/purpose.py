"""Settings, and what a model is to give (text, or numbers of a kind), in; the settings for that out, or why the model cannot.

It is said from the model's config, where that is on this machine, by the rules that vLLM goes by: names of architectures. What the
config does not tell vLLM says once it has loaded the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmbatch.core.errors import JobError
from llmbatch.core.types import Pooling, PoolingTask
from llmbatch.engines.settings import EngineSettings
from llmbatch.model.contents import config_here

_NO_TEXT = (
    "Model",
    "MaskedLM",
    "Classification",
    "RewardModel",
    "TextEncoding",
)  # how the names of those end that give none
_NO_HEAD = ("CausalLM", "LMHeadModel", "ConditionalGeneration", "MaskedLM", "TextEncoding", "EmbeddingModel")
_HEADED = ("ClassificationModel", "RewardModel")
_OTHERWISE = ("convert", "hf_overrides", "model_impl", "tokenizer_mode", "hf_config_path")
"""Arguments under which a model may be another than its config says."""


def settings_for(settings: EngineSettings, model: str, pooling: Pooling | None) -> EngineSettings:
    """The settings for a model that is to give such numbers, or with None text. Raises ``JobError`` where it cannot."""
    runner = settings.args.get("runner", "auto")
    if pooling is None:
        if runner == "pooling":
            raise JobError(
                "engine.args.runner=pooling: the model gives numbers then, and the job's program asks for text: leave it out, or "
                "take a program such as --program embed"
            )
        if not settings.args.keys() & {*_OTHERWISE, "runner"}:
            _see_that_it_writes(model, _config(settings, model))
        return settings
    if runner not in ("auto", "pooling"):
        raise JobError(
            f"engine.args.runner={runner}: the job's program asks for numbers ({pooling.task}): leave it out"
        )
    if not settings.args.keys() & set(_OTHERWISE):
        config = _config(settings, model)
        if pooling.task != "embed":
            _see_that_it_classifies(model, config, pooling.task)
        elif config and pooling.dimensions is not None:
            _see_that_it_shortens(model, config)
    return settings.model_copy(update={"args": {**settings.args, "runner": "pooling"}})


def _see_that_it_writes(model: str, config: Mapping[str, Any]) -> None:
    names = _architectures(config)
    if names and all(name.endswith(_NO_TEXT) for name in names):
        raise JobError(
            f"model {model!r} ({', '.join(names)}) gives numbers, not text: take a model that generates text, or a program that "
            "asks for numbers, such as --program embed"
        )


def _see_that_it_classifies(model: str, config: Mapping[str, Any], task: PoolingTask) -> None:
    names = _architectures(config)
    if names and all(_has_no_head(name) for name in names):
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


def _has_no_head(architecture: str) -> bool:
    bare = architecture.endswith("Model") and not architecture.endswith(_HEADED)
    return bare or architecture.endswith(_NO_HEAD)


def _see_that_it_shortens(model: str, config: Mapping[str, Any]) -> None:
    if not config.get("is_matryoshka") and not config.get("matryoshka_dimensions"):
        raise JobError(
            f"program.settings.dimensions: model {model!r} does not say that its vectors can be shortened (is_matryoshka or "
            "matryoshka_dimensions in its config): leave it out, or, if it was trained for that, give "
            "--set 'engine.args.hf_overrides={is_matryoshka: true}'"
        )


def _architectures(config: Mapping[str, Any]) -> list[str]:
    found = config.get("architectures")
    return [str(name) for name in found] if isinstance(found, list) else []


def _config(settings: EngineSettings, model: str) -> Mapping[str, Any]:
    return config_here(model, settings.args.get("revision"), settings.args.get("download_dir"))


__all__ = ["settings_for"]
