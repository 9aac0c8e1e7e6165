"""A model's config and a GPU's memory in -> how many tokens its KV cache will hold, out. An estimate; the engine measures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

GIB = 2**30
_CACHE_BYTES = 2  # a number in the cache: on a GPU vLLM runs float32 models in 16 bits too
_UTILIZATION = 0.9  # vLLM's default share of the GPU's memory, close enough in all its versions
_RESERVED = 2 * GIB  # activations and CUDA graphs


def cache_bytes_per_token(config: Mapping[str, Any]) -> int | None:
    """Bytes that one token takes in the KV cache, over all layers; None for an architecture that this cannot read.

    Layers with a sliding window or a recurrent state are left out: what they hold does not grow with the tokens.
    """
    text = text_config(config)
    layers = text.get("num_hidden_layers", text.get("n_layer"))
    heads = text.get("num_attention_heads", text.get("n_head"))
    if isinstance(types := text.get("layer_types"), list):
        layers = sum(1 for kind in types if kind == "full_attention")
    if not isinstance(layers, int) or not layers:
        return None
    if isinstance(
        latent := text.get("kv_lora_rank"), int
    ):  # multi-head latent attention keeps one vector for all heads
        return int(layers * (latent + text.get("qk_rope_head_dim", 0)) * _CACHE_BYTES)
    if not isinstance(heads, int) or not heads:
        return None
    width = text.get("head_dim") or text.get("hidden_size", text.get("n_embd", 0)) // heads
    return int(layers * 2 * (text.get("num_key_value_heads") or heads) * width * _CACHE_BYTES) or None


def cache_tokens(config: Mapping[str, Any], weight_bytes: int, memory_gib: float) -> int | None:
    """Tokens that the KV cache holds beside the weights on GPUs with so much memory together; None if it cannot tell.

    0 or less means that the model does not fit.
    """
    per_token = cache_bytes_per_token(config)
    if per_token is None:
        return None
    return int((memory_gib * GIB * _UTILIZATION - weight_bytes - _RESERVED) // per_token)


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A config with its language model's part on top; a multimodal model nests that. Doing it again changes nothing."""
    nested = config.get("text_config")
    return {**config, **nested} if isinstance(nested, Mapping) else config
