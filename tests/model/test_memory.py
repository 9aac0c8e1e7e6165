from __future__ import annotations

import pytest

from llmbatch.model.memory import GIB, cache_bytes_per_token, cache_tokens, text_config

LLAMA_8B = {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096}


def test_grouped_heads_of_an_8b_model_take_128_kib_a_token() -> None:
    assert cache_bytes_per_token(LLAMA_8B) == 128 * 1024


def test_a_head_size_of_its_own_counts() -> None:
    assert cache_bytes_per_token({**LLAMA_8B, "head_dim": 64}) == 64 * 1024


def test_latent_attention_keeps_one_vector_a_layer() -> None:
    deepseek = {"num_hidden_layers": 61, "num_attention_heads": 128, "kv_lora_rank": 512, "qk_rope_head_dim": 64}
    assert cache_bytes_per_token(deepseek) == 61 * 576 * 2


def test_layers_with_a_sliding_window_are_left_out() -> None:
    types = ["sliding_attention"] * 24 + ["full_attention"] * 8
    assert cache_bytes_per_token({**LLAMA_8B, "layer_types": types}) == 32 * 1024


def test_a_multimodal_model_nests_its_language_model() -> None:
    assert cache_bytes_per_token({"text_config": LLAMA_8B}) == 128 * 1024
    assert cache_bytes_per_token({"num_hidden_layers": 2, "text_config": LLAMA_8B}) == 128 * 1024


def test_a_nested_language_model_that_is_null_is_none() -> None:
    assert cache_bytes_per_token({**LLAMA_8B, "text_config": None}) == 128 * 1024


def test_a_config_with_the_nested_part_on_top_stays_as_it_is() -> None:
    config = text_config({"model_type": "vision", "vocab_size": 7, "text_config": {"model_type": "llama"}})
    assert (config["model_type"], config["vocab_size"]) == ("llama", 7)
    assert text_config(config) == config


@pytest.mark.parametrize("config", [{}, {"num_hidden_layers": 4}, {"model_type": "mamba"}])
def test_what_it_cannot_read_it_does_not_guess(config: dict[str, object]) -> None:
    assert cache_bytes_per_token(config) is None
    assert cache_tokens(config, GIB, 80) is None


def test_the_cache_is_what_the_weights_leave() -> None:
    tokens = cache_tokens(LLAMA_8B, 16 * GIB, 141)
    assert tokens == pytest.approx(890_000, rel=0.02)


def test_a_model_that_does_not_fit_leaves_nothing() -> None:
    tokens = cache_tokens(LLAMA_8B, 16 * GIB, 16)
    assert tokens is not None
    assert tokens <= 0
