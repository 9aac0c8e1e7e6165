"""A model that is not loaded in; whether its config tells that it takes text alone, out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# what the configs of models that see have among their keys, whatever they call it
_SEES = re.compile(r"vision|visual|image|img|pixel|patch|video|multimodal|\bmm_")


def takes_text_alone(model: str, revision: str | None = None) -> bool:
    """Whether a model is known to take no images. Nothing is downloaded: of a model that is not here it is not known."""
    config = _config(model, revision)
    return config is not None and not any(_SEES.search(key) for key in config)


def _config(model: str, revision: str | None) -> Mapping[str, Any] | None:
    """The model's ``config.json``, where it is on this machine."""
    folder = Path(model).expanduser()
    found: Any = folder / "config.json"
    if not folder.is_dir():
        from huggingface_hub import try_to_load_from_cache

        try:
            found = try_to_load_from_cache(model, "config.json", revision=revision)
        except ValueError:  # no name of a model on the hub
            return None
    try:
        config = json.loads(Path(found).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return None
    return config if isinstance(config, dict) else None
