"""Layout ``completion``: a record in, pairs of ``prompt`` and ``completion`` out: of messages for a chat, else of text."""

from __future__ import annotations

from llmbatch.publishing.asked import answer_message, answers, asked
from llmbatch.publishing.base import Candidate, Dropped, Example, Layout, PublishSettings


def _examples(candidate: Candidate, settings: PublishSettings) -> list[Example] | Dropped:
    prompt = asked(candidate, settings)
    if isinstance(prompt, Dropped):
        return prompt
    found = answers(candidate, settings)
    if isinstance(found, Dropped):
        return found
    chat = not isinstance(prompt, str)
    return [
        Example(
            {
                "prompt": list(prompt) if chat else prompt,
                "completion": [answer_message(answer, settings)] if chat else answer.text,
            },
            {**candidate.fields, "output": answer.output},
            answer.text,
            answer.part,
        )
        for answer in found
    ]


LAYOUT = Layout(_examples, tags=("sft", "prompt-completion"))
