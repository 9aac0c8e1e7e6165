"""Prompt files: whatever the text, it is a prompt or refused with its place; whatever the row, it is rendered or has a failure."""

from __future__ import annotations

from pathlib import Path

import atheris
from harness import YAML, fuzz, scratch

with atheris.instrument_imports(include=["llmbatch.prompt"]):
    from llmbatch.core.errors import PromptError
    from llmbatch.core.types import Cursor, Failure, Rendered, Row
    from llmbatch.prompt.document import read_document
    from llmbatch.prompt.file import parse_prompt
    from llmbatch.prompt.library import LoadedFile
    from llmbatch.prompt.template import bind

FOLDER = scratch()
PROMPTS = Path(__file__).parents[2] / "prompts"
ROWS = [
    {"text": "{{ 7*7 }}", "language": "French", "n": 10**9, "items": [{"a": "b"}], "label": None},
    {"text": ["x"] * 3, "messages": [{"role": "user", "content": "Hi"}], "shots": [1]},
    {},
]


def target(data: bytes) -> None:
    text = data.decode("utf-8", "ignore")
    # what an author's own loops take is the author's matter, and they would be all that is found here
    if text.count("{%") + text.count("range") > 8:
        return
    try:
        document = read_document(text, "fuzz.yaml")
        prompt = bind(LoadedFile(parse_prompt(document), document, text), {}, {})
    except PromptError:
        return
    for index, values in enumerate(ROWS):
        rendered = prompt.render(Row(index, index, values, Cursor(index)))
        assert isinstance(rendered, Rendered | Failure)
        if isinstance(rendered, Rendered):
            for message in rendered.prompt.messages or ():
                message["content"].encode("utf-8", "strict")


if __name__ == "__main__":
    seeds = [path.read_bytes() for path in sorted(PROMPTS.glob("*.yaml"))]
    seeds += [
        b'name: a\nvariables: {text: {type: string}}\ntext: "{{ text | upper }}{% if n is defined %}{{ n }}{% endif %}"\n',
        b"name: a\nvariables: {items: {type: array}}\n"
        b"messages: [{for: i, in: items, messages: [{role: user, content: '{{ i.a }}'}]}]\n",
        b"name: a\nvariables: {messages: {type: array}}\nmessages_from: messages\nprefill: '{'\nlora: '{{ messages }}'\n",
    ]
    words = [
        "name:", "description:", "variables:", "messages:", "messages_from:", "text:", "prefill:", "sampling:",
        "output:", "examples:", "lora:", "schema:", "choice:", "regex:", "default:", "type: string", "type: array",
        "enum:", "scope: job", "role: user", "content:", "for:", "in:", "{{ text }}", "{% if text %}", "{% endif %}",
        "{% set a = text %}", "{{ text * 9 }}", "| tojson", "| join", "**", "~", "__class__", "|format(", ".format(",
        "loop.index", "&a ", "*a", "!!python/", "<<:", "\u0085", "\ufeff", "? ", "- ", "|-\n", ">-\n",
    ]  # fmt: skip
    fuzz(target, seeds, words, FOLDER, YAML)
