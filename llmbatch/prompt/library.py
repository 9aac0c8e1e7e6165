"""What a job calls its prompt in (a shipped name, a path, or the text itself); its text and origin, parsed and checked, out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from llmbatch.core.errors import PromptError
from llmbatch.core.sandbox import used_variables
from llmbatch.core.words import near
from llmbatch.prompt.document import Document, read_document
from llmbatch.prompt.file import MessageSpec, PromptFile, VariableSpec, parse_prompt
from llmbatch.prompt.shipped import shipped_prompt, shipped_prompts

_SHIPPED_NAME = re.compile(r"[a-z0-9-]+")


class PromptText(NamedTuple):
    """A prompt's text. ``source`` is a path, ``shipped:NAME`` or ``inline``; ``name`` is how messages call it."""

    text: str
    source: str
    name: str


def read_prompt(path: str) -> PromptText:
    """The text of the prompt that ``path`` names: with ``{{`` or ``{%`` in it, it is the text.

    A bare name is a shipped prompt's, so a file of one's own needs its ``.yaml`` or a folder. Raises ``PromptError``.
    """
    if "{{" in path or "{%" in path:
        return PromptText(path, "inline", "inline prompt")
    if _SHIPPED_NAME.fullmatch(path) and path in shipped_prompts():
        return PromptText(shipped_prompt(path), f"shipped:{path}", f"{path}.yaml")
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise PromptError(_not_found(path)) from None
    except UnicodeDecodeError as error:
        raise PromptError(f"{path}: a prompt file is UTF-8 text: byte {error.start} is not") from error
    except (OSError, ValueError) as error:
        raise PromptError(f"{path}: the prompt file cannot be read: {error}") from error
    return PromptText(text, path, path)


class LoadedFile(NamedTuple):
    """A prompt file: its content, where in the file each thing stands, and its text."""

    file: PromptFile
    document: Document
    text: str


def load_file(path: str, *, chat: bool = True) -> LoadedFile:
    """Read and check a prompt by its path, shipped name or text; ``chat`` is as for ``inline_prompt``. Raises ``PromptError``."""
    text, source, name = read_prompt(path)
    if source == "inline":
        return LoadedFile(inline_prompt(text, chat=chat), Document(name, None), text)
    document = read_document(text, name)
    return LoadedFile(parse_prompt(document), document, text)


def inline_prompt(text: str, *, chat: bool = True) -> PromptFile:
    """One user message with this text, or without ``chat`` the text itself; its variables are required and of any type.

    Raises ``PromptError``.
    """
    variables = {name: VariableSpec(type="any") for name in used_variables(text, "inline prompt")}
    if not chat:
        return PromptFile(name="inline", variables=variables, text=text)
    return PromptFile(name="inline", variables=variables, messages=[MessageSpec(role="user", content=text)])


def _not_found(path: str) -> str:
    shipped = shipped_prompts()
    listed = f"the shipped prompts are {', '.join(shipped)}"
    return f"no prompt file and no shipped prompt is called {path!r}{near(path, shipped)}; {listed}"
