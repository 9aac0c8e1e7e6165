"""A folder in; the demo model as one that thinks before it answers, in it, out.

Two of its special tokens become those that begin and end thinking, which its chats begin with. It never ends that by itself: a
budget of thinking does.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from llmbatch.job.job import DEMO_MODEL


def make_thinking_model(folder: Path) -> str:
    shutil.copytree(DEMO_MODEL, folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        data = json.loads((folder / name).read_text().replace("<|pad|>", "<think>").replace("<|system|>", "</think>"))
        for token in data.get("added_tokens", ()):
            token["special"] = token["id"] > 1  # as in thinking models, whose text shows these two
        if "chat_template" in data:
            data |= {"pad_token": "<|end|>", "additional_special_tokens": ["<|user|>", "<|assistant|>"]}
            data["chat_template"] = data["chat_template"].replace("'<|assistant|>'", "'<|assistant|><think>'")
        (folder / name).write_text(json.dumps(data))
    return str(folder)
