"""Layout ``chat``: a record in, conversations out, each ``messages`` with system, user and assistant, as SFT trainers take them."""

from __future__ import annotations

from llmbatch.publishing.asked import answer_message, answers, as_messages, asked
from llmbatch.publishing.base import Candidate, Dropped, Example, Layout, PublishSettings


def _examples(candidate: Candidate, settings: PublishSettings) -> list[Example] | Dropped:
    prompt = asked(candidate, settings)
    if isinstance(prompt, Dropped):
        return prompt
    found = answers(candidate, settings)
    if isinstance(found, Dropped):
        return found
    messages = as_messages(prompt)
    return [
        Example(
            {"messages": [*messages, answer_message(answer, settings)]},
            {**candidate.fields, "output": answer.output},
            answer.text,
            answer.part,
        )
        for answer in found
    ]


LAYOUT = Layout(_examples, tags=("sft", "conversational"))
