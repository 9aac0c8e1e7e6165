"""What a job calls its prompt in; the prompt file's content out, parsed and checked but not yet tied to a job."""

from __future__ import annotations

from typing import NamedTuple

from llmbatch.prompt.document import Document, read_document
from llmbatch.prompt.file import PromptFile, parse_prompt
from llmbatch.prompt.inline import inline_prompt
from llmbatch.prompt.library import read_prompt


class LoadedFile(NamedTuple):
    """A prompt file: its content, where in the file each thing stands, where the file is from, and its text."""

    file: PromptFile
    document: Document
    source: str
    text: str


def load_file(path: str) -> LoadedFile:
    """Read and check a prompt by its path, shipped name or text. Raises ``PromptError``."""
    text, source, name = read_prompt(path)
    if source == "inline":
        return LoadedFile(inline_prompt(text), Document(name, None), source, text)
    document = read_document(text, name)
    return LoadedFile(parse_prompt(document), document, source, text)
