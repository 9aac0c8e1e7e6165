"""The name of a prompt that comes with llmbatch in, its text out. Imports nothing, as a shell asks for the names too."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent.parent
_FOLDERS = (_PACKAGE / "prompts", _PACKAGE.parent / "prompts")  # installed; in a checkout


def shipped_prompts() -> list[str]:
    """The names of the prompts that come with llmbatch, sorted."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def shipped_prompt(name: str) -> str:
    """The file of one of them."""
    return (_folder() / f"{name}.yaml").read_text(encoding="utf-8")


def _folder() -> Path:
    return next((folder for folder in _FOLDERS if folder.is_dir()), _FOLDERS[0])
