"""A folder in; a vision model in it out: Idefics3's shape, two small layers each, random weights, the demo model's tokenizer.

An image becomes tiles, as many as its shape asks for, and a token for each, so that how many tokens a prompt has is known only once
its images are. It answers nonsense, but other nonsense for other images. Few of the models that see run on vLLM without
torchvision, which vLLM for the CPU does not bring; this one does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmbatch.job.job import DEMO_MODEL

TILE = 28  # pixels that a tile is wide and high
_PATCH = 14
_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def make_vision_model(folder: Path) -> None:
    """Write the model, its processor and its tokenizer."""
    import torch
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration

    tokenizer = _tokenizer()
    text = {
        "model_type": "llama", "vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 128,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 1024,
        "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    vision = {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": TILE,
        "patch_size": _PATCH,
    }  # fmt: skip
    image = tokenizer.convert_tokens_to_ids("<image>")
    torch.manual_seed(0)
    model = Idefics3ForConditionalGeneration(
        Idefics3Config(
            text_config=text, vision_config=vision, scale_factor=2, image_token_id=image, tie_word_embeddings=False,
            pad_token_id=tokenizer.pad_token_id, dtype="float32",
        )
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.15)
    model.save_pretrained(folder)
    _processor(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _tokenizer() -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(DEMO_MODEL)
    tiles = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    marks = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *tiles]
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    tokenizer.chat_template = _TEMPLATE
    return tokenizer


def _processor(tokenizer: Any) -> Any:
    from transformers import Idefics3ImageProcessor, Idefics3Processor

    images = Idefics3ImageProcessor(
        size={"longest_edge": 3 * TILE}, max_image_size={"longest_edge": TILE}, do_image_splitting=True
    )
    return Idefics3Processor(images, tokenizer, image_seq_len=1, chat_template=_TEMPLATE)
