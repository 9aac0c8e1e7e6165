"""Layout ``preference``: a record in, pairs of ``prompt``, ``chosen`` and ``rejected`` out, as preference trainers take them.

A pair is, in this order: the two fields that are named; the best and the worst of several answers by their scores, be they named
or those that ``best_of`` chose from; the answer that was accepted and each attempt before it that was sent back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from llmbatch.core.words import short, type_name
from llmbatch.publishing.asked import Asked, answers, asked
from llmbatch.publishing.base import (
    MISSING,
    Candidate,
    Dropped,
    Example,
    Layout,
    PublishSettings,
    as_text,
    value_at,
)

SAMPLES = "details.samples"
"""Where ``best_of`` says what it chose from: a list of ``output`` and ``score``."""


class _Pair(NamedTuple):
    chosen: str
    rejected: str
    more: Mapping[str, Any]  # scores, or why the one was sent back
    part: int | None = None


def _examples(candidate: Candidate, settings: PublishSettings) -> list[Example] | Dropped:
    prompt = asked(candidate, settings)
    if isinstance(prompt, Dropped):
        return prompt
    if settings.chosen is not None and settings.rejected is not None:
        pairs = _named(candidate, settings.chosen, settings.rejected)
    elif settings.candidates is None and value_at(candidate.fields, SAMPLES) is not MISSING:
        pairs = _scored(candidate, SAMPLES, settings.score or "score", settings.text or "output")
    elif settings.candidates is not None or settings.score is not None:
        pairs = _scored(candidate, settings.candidates or "output", settings.score or "score", settings.text)
    else:
        pairs = _sent_back(candidate, settings)
    if isinstance(pairs, Dropped):
        return pairs
    return [_example(candidate, prompt, pair) for pair in pairs]


def _example(candidate: Candidate, prompt: Asked, pair: _Pair) -> Example:
    chat = not isinstance(prompt, str)
    scores = {name: value for name, value in pair.more.items() if name.startswith("score_")}
    columns = {
        "prompt": list(prompt) if chat else prompt,
        "chosen": _said(pair.chosen, chat),
        "rejected": _said(pair.rejected, chat),
        **scores,
    }
    fields = {**candidate.fields, "chosen": pair.chosen, "rejected": pair.rejected, **pair.more}
    return Example(columns, fields, pair.chosen, pair.part)


def _said(text: str, chat: bool) -> Any:
    return [{"role": "assistant", "content": text}] if chat else text


def _named(candidate: Candidate, chosen: str, rejected: str) -> list[_Pair] | Dropped:
    texts = []
    for path in (chosen, rejected):
        value = value_at(candidate.fields, path)
        if value is MISSING or value is None:
            return _no_pair(candidate, f"there is no {path}")
        texts.append(as_text(value))
    if texts[0] == texts[1]:
        return _no_pair(candidate, f"{chosen} and {rejected} are the same")
    return [_Pair(texts[0], texts[1], {})]


def _scored(candidate: Candidate, path: str, score_at: str, text_at: str | None) -> list[_Pair] | Dropped:
    """The best and the worst; of equal ones the first is the best, the last the worst. One without a score is passed over."""
    listed = value_at(candidate.fields, path)
    if not isinstance(listed, list):
        return _no_pair(candidate, f"{path} is no list of answers: name the field that is, as candidates")
    found = []
    for number, each in enumerate(listed):
        if each is None or (score := value_at(each, score_at)) is None:
            continue
        text = each if text_at is None else value_at(each, text_at)
        if isinstance(score, bool) or not isinstance(score, int | float):
            said = "is not there" if score is MISSING else f"is of type {type_name(score)}"
            return _no_pair(
                candidate, f"{path}.{number}.{score_at} {said}, and a score is a number: name where it is, as score"
            )
        if text is MISSING or text is None:
            return _no_pair(candidate, f"{path}.{number}.{text_at} is not there: name where the text is, as text")
        found.append((score, as_text(text)))
    if len(found) < 2:
        return _no_pair(candidate, f"{path} has {len(found)} answers with a score")
    best = max(found, key=lambda item: item[0])
    worst = min(reversed(found), key=lambda item: item[0])
    if best[0] == worst[0] or best[1] == worst[1]:
        return _no_pair(candidate, f"the answers in {path} all have the score {best[0]}, or are the same")
    return [_Pair(best[1], worst[1], {"score_chosen": float(best[0]), "score_rejected": float(worst[0])})]


def _sent_back(candidate: Candidate, settings: PublishSettings) -> list[_Pair] | Dropped:
    found = answers(candidate, settings)
    if isinstance(found, Dropped):
        return found
    if settings.completion is None and candidate.samples() is None:
        return _no_pair(
            candidate, "it was done in several steps: name the fields with the two answers, as chosen and rejected"
        )
    pairs = [pair for answer in found for pair in _attempts(candidate, answer.text, answer.part or 0)]
    if not pairs:
        return _no_pair(candidate, "none of its answers was sent back")
    return [pair._replace(part=number) for number, pair in enumerate(pairs)] if len(pairs) > 1 else pairs


def _attempts(candidate: Candidate, chosen: str, sample: int) -> Iterator[_Pair]:
    """A pair for each different text that was sent back before an answer was accepted."""
    seen = {chosen}
    for attempt in candidate.fields.get("history") or ():
        text = attempt["text"]
        # of later steps the answers are no answers to the prompt
        if attempt["step"] == 0 and attempt["sample"] == sample and text and not text.isspace() and text not in seen:
            seen.add(text)
            yield _Pair(chosen, text, {"sent_back": attempt["error"]["kind"]})


def _no_pair(candidate: Candidate, why: str) -> Dropped:
    return Dropped("no_pair", f"row {short(candidate.fields['id'])}: {why}")


LAYOUT = Layout(_examples, compared=("input", "chosen", "rejected"), tags=("preference", "dpo"))
