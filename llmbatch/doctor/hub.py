"""Where models from the Hugging Face hub are kept, and whether there is a token, which is never shown."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from llmbatch.core.words import count
from llmbatch.doctor.base import Finding

_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def cache_folder() -> Path:
    """Where downloaded models lie, as the hub's library has it."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def hub() -> Iterator[Finding]:
    folder = cache_folder()
    try:
        models = sum(entry.name.startswith("models--") for entry in os.scandir(folder))
        seen = f"{count(models)} models in {folder}"
    except OSError:
        seen = f"none yet; they will lie in {folder}"
    yield Finding("models", "ok", f"{seen} (HF_HOME sets where)")
    from huggingface_hub import get_token

    if get_token():
        yield Finding("hub token", "ok", "there is one")
    else:
        yield Finding(
            "hub token",
            "note",
            "there is none; models that ask for consent need one",
            "hf auth login, or HF_TOKEN in the environment",
        )
    offline = [name for name in _OFFLINE if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")]
    if offline:
        yield Finding(
            "hub",
            "note",
            f"{' and '.join(offline)} is set: nothing is downloaded",
            f"unset {' '.join(offline)} to download models",
        )
