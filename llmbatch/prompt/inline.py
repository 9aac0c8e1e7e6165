"""The text of a prompt, given in place of a file, in; the same as a prompt file's content out."""

from __future__ import annotations

from llmbatch.prompt.file import MessageSpec, PromptFile, VariableSpec
from llmbatch.prompt.sandbox import used_variables


def inline_prompt(text: str) -> PromptFile:
    """One user message with this text; the variables that it uses are required and of any type.

    Raises ``PromptError``.
    """
    variables = {name: VariableSpec(type="any") for name in used_variables(text, "inline prompt")}
    return PromptFile(name="inline", variables=variables, messages=[MessageSpec(role="user", content=text)])
