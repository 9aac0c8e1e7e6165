"""An engine's settings in; the model out, loaded and on its device, with what its generation config says set apart."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmbatch.core.errors import JobError
from llmbatch.engines.settings import EngineSettings
from llmbatch.engines.transformers.settings import LOADING

# what each request decides for itself; left in the model's generation config the library would take it from there
_OF_REQUESTS = (
    "do_sample", "early_stopping", "eos_token_id", "epsilon_cutoff", "eta_cutoff", "forced_eos_token_id", "length_penalty",
    "max_length", "max_new_tokens", "max_time", "min_length", "min_new_tokens", "min_p", "num_beams", "num_return_sequences",
    "repetition_penalty", "stop_strings", "temperature", "top_h", "top_k", "top_p", "typical_p",
)  # fmt: skip


@dataclass(frozen=True)
class Loaded:
    """A model that answers. ``defaults`` is its own generation config; ``plain`` is that without what requests decide."""

    model: Any
    defaults: Any
    plain: Any
    eos: frozenset[int]
    vocabulary: int
    encoder_decoder: bool
    decoder_start: int  # of a model of encoder and decoder, the id that its answers begin behind
    context_length: int

    @property
    def device(self) -> Any:
        return self.model.device


def check_known(model: str, settings: EngineSettings) -> Any:
    """The model's config. Raises ``JobError`` for one that generates no text, before its weights are looked at."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

    names = ("cache_dir", "code_revision", "local_files_only", "revision", "subfolder")
    given = {name: settings.args[name] for name in names if name in settings.args}
    try:
        config = AutoConfig.from_pretrained(model, trust_remote_code=settings.trust_remote_code, **given)
    except (OSError, ValueError) as error:
        raise JobError(f"model {model!r} cannot be read: {error}") from error
    causal, both, masked = (
        each._model_mapping for each in (AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForMaskedLM)
    )
    kind = type(config)
    if kind not in causal and kind not in both and not getattr(config, "auto_map", None):
        raise JobError(
            f"model {model!r} is of the type {config.model_type!r}, which generates no text in transformers: it has no class of it "
            "for causal or text-to-text language models"
        )
    # an encoder, such as BERT: the library would load it all the same, with a head for tokens that was never trained
    encodes = kind in causal and kind in masked and kind not in both and causal[kind] is not masked[kind]
    if encodes and not getattr(config, "is_decoder", False):
        raise JobError(
            f"model {model!r} is of the type {config.model_type!r}, an encoder, which generates no text (its config does not say "
            "is_decoder): such a model gives numbers, by --engine vllm with --program embed or classify"
        )
    return config


def load(model: str, settings: EngineSettings, context_length: int) -> Loaded:
    """Raises whatever torch and the library raise."""
    import transformers

    config = check_known(model, settings)
    both = bool(getattr(config, "is_encoder_decoder", False))
    cls = transformers.AutoModelForSeq2SeqLM if both else transformers.AutoModelForCausalLM
    given = {name: settings.args[name] for name in LOADING if name in settings.args}
    loaded = cls.from_pretrained(model, trust_remote_code=settings.trust_remote_code, **given)
    if not {"device_map", "quantization_config"} & given.keys():
        loaded = loaded.to(device_of(settings.args))
    loaded.train(False)  # as ``eval()``, which is also the name of what runs text
    for name, path in settings.lora.items():
        loaded.load_adapter(str(Path(path).expanduser()) if Path(path).expanduser().exists() else path, name)
    if settings.lora:
        loaded.disable_adapters()
    defaults = loaded.generation_config
    loaded.generation_config = plain = without_requests(defaults)
    return Loaded(
        loaded,
        defaults,
        plain,
        _ids(defaults.eos_token_id),
        int(loaded.get_output_embeddings().weight.shape[0] if loaded.get_output_embeddings() else config.vocab_size),
        both,
        _decoder_start(defaults, config),
        context_length,
    )


def device_of(args: Mapping[str, Any]) -> str:
    """The device that is asked for, else a GPU where there is one. Raises ``JobError`` for one that torch has not."""
    import torch

    if (name := args.get("device")) is None:
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise JobError(
            f"engine.args.device={name!r}: torch has no such device here: {str(error).splitlines()[0]}"
        ) from error
    return str(name)


def without_requests(defaults: Any) -> Any:
    """A generation config of greedy answers that never end by themselves: where one ends is decided for each."""
    plain = copy.deepcopy(defaults)
    for name in _OF_REQUESTS:
        setattr(plain, name, None)
    pad = next(iter(_ids(plain.pad_token_id)), None)
    plain.pad_token_id = pad if pad is not None else min(_ids(defaults.eos_token_id), default=0)
    plain.do_sample = False
    return plain


def _decoder_start(defaults: Any, config: Any) -> int:
    """As the library finds it."""
    found = (defaults.decoder_start_token_id, getattr(config, "decoder_start_token_id", None), defaults.bos_token_id)
    return next((int(each) for each in found if each is not None), 0)


def _ids(value: Any) -> frozenset[int]:
    if value is None:
        return frozenset()
    return frozenset(int(each) for each in (value if isinstance(value, list | tuple) else [value]) if each >= 0)
