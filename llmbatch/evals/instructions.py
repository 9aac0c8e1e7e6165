"""An answer and the name of an instruction in; whether the answer keeps it, out. The names and their arguments are those of IFEval.

They are checked as IFEval's own code does, with two differences: words and sentences are told by regular expressions and not by
NLTK, and a text that is to be English in capital or small letters is looked at for its letters alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from llmbatch.core.imports import extra

Given = Mapping[str, Any]
Keeps = Callable[[str, Given], bool]
"""(answer, the instruction's arguments) -> whether the answer keeps it."""

_SENTENCE = re.compile(r"[^.!?\n]*[^\s.!?][^.!?\n]*(?:[.!?]+(?=\s|$|[\"')\]])|\n|$)")
_HIGHLIGHT = re.compile(r"\*\*[^\n*]*[^\n*\s][^\n*]*\*\*|\*[^\n*]*[^\n*\s][^\n*]*\*")
_OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_MARKS = {"P.P.S": r"\s*p\.\s?p\.\s?s.*$", "P.S.": r"\s*p\.\s?s\..*$"}


def keeps(answer: str, instruction: str, given: Given) -> bool:
    """Whether an answer keeps an instruction. Raises ``KeyError`` for one that is not known."""
    return bool(answer.strip()) and INSTRUCTIONS[instruction](answer, given)


def _is(number: int, relation: str | None, wanted: int) -> bool:
    return number < wanted if relation == "less than" else number >= wanted


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def _existence(answer: str, given: Given) -> bool:
    return all(re.search(word, answer, re.IGNORECASE) for word in given["keywords"])


def _frequency(answer: str, given: Given) -> bool:
    found = len(re.findall(given["keyword"], answer, re.IGNORECASE))
    return _is(found, given.get("relation"), int(given["frequency"]))


def _forbidden(answer: str, given: Given) -> bool:
    return not any(re.search(rf"\b{word}\b", answer, re.IGNORECASE) for word in given["forbidden_words"])


def _letters(answer: str, given: Given) -> bool:
    found = answer.lower().count(str(given["letter"]).lower())
    return _is(found, given.get("let_relation"), int(given["let_frequency"]))


def _language(answer: str, given: Given) -> bool:
    classify = extra("py3langid", "language", "the instruction language:response_language").classify
    return bool(classify(answer)[0] == given["language"])


def _sentences(answer: str, given: Given) -> bool:
    return _is(len(_SENTENCE.findall(answer)), given.get("relation"), int(given["num_sentences"]))


def _number_of_words(answer: str, given: Given) -> bool:
    return _is(len(_words(answer)), given.get("relation"), int(given["num_words"]))


def _paragraphs(answer: str, given: Given) -> bool:
    parts = re.split(r"\s?\*\*\*\s?", answer)
    inner = parts[1:-1] if len(parts) > 2 else []
    return all(part.strip() for part in inner) and sum(bool(part.strip()) for part in parts) == int(
        given["num_paragraphs"]
    )


def _first_word(answer: str, given: Given) -> bool:
    parts = [part.strip() for part in re.split(r"\n\n", answer) if part.strip()]
    nth = int(given["nth_paragraph"])
    if len(parts) != int(given["num_paragraphs"]) or not 1 <= nth <= len(parts):
        return False
    first = re.match(r"[\"']*([^\s.,?!'\"]*)", parts[nth - 1])
    return first is not None and first[1].lower() == str(given["first_word"]).lower()


def _placeholders(answer: str, given: Given) -> bool:
    return len(re.findall(r"\[.*?\]", answer)) >= int(given["num_placeholders"])


def _postscript(answer: str, given: Given) -> bool:
    marker = str(given["postscript_marker"])
    return (
        re.search(_MARKS.get(marker, rf"\s*{re.escape(marker.lower())}.*$"), answer.lower(), re.MULTILINE) is not None
    )


def _bullets(answer: str, given: Given) -> bool:
    return len(re.findall(r"^\s*(?:\*[^*]|-).*$", answer, re.MULTILINE)) == int(given["num_bullets"])


def _highlights(answer: str, given: Given) -> bool:
    return len(_HIGHLIGHT.findall(answer)) >= int(given["num_highlights"])


def _sections(answer: str, given: Given) -> bool:
    mark = re.escape(str(given["section_spliter"]))
    return len(re.split(rf"\s?{mark}\s?\d+\s?", answer)) - 1 >= int(given["num_sections"])


def _json(answer: str, _given: Given) -> bool:
    bare = re.sub(r"^```(?:json)?|```$", "", answer.strip(), flags=re.IGNORECASE).strip()
    try:
        json.loads(bare)
    except (ValueError, RecursionError):
        return False
    return True


def _title(answer: str, _given: Given) -> bool:
    return any(title.strip("<> ") for title in re.findall(r"<<[^\n]+>>", answer))


def _two(answer: str, _given: Given) -> bool:
    parts = answer.split("******")
    said = [part.strip() for part in parts if part.strip()]
    return all(part.strip() for part in parts[1:-1]) and len(said) == 2 and said[0] != said[1]


def _repeats(answer: str, given: Given) -> bool:
    return answer.strip().lower().startswith(str(given["prompt_to_repeat"]).strip().lower())


def _ends(answer: str, given: Given) -> bool:
    return answer.strip().strip('"').lower().endswith(str(given["end_phrase"]).strip().lower())


def _quoted(answer: str, _given: Given) -> bool:
    text = answer.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


def _capital_words(answer: str, given: Given) -> bool:
    found = sum(word.isupper() for word in re.findall(r"\w[\w'-]*", answer))
    return _is(found, given.get("capital_relation"), int(given["capital_frequency"]))


INSTRUCTIONS: dict[str, Keeps] = {
    "keywords:existence": _existence,
    "keywords:frequency": _frequency,
    "keywords:forbidden_words": _forbidden,
    "keywords:letter_frequency": _letters,
    "language:response_language": _language,
    "length_constraints:number_sentences": _sentences,
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:number_words": _number_of_words,
    "length_constraints:nth_paragraph_first_word": _first_word,
    "detectable_content:number_placeholders": _placeholders,
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:constrained_response": lambda answer, _: any(option in answer for option in _OPTIONS),
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _json,
    "detectable_format:title": _title,
    "combination:two_responses": _two,
    "combination:repeat_prompt": _repeats,
    "startend:end_checker": _ends,
    "startend:quotation": _quoted,
    "change_case:capital_word_frequency": _capital_words,
    "change_case:english_capital": lambda answer, _: answer.isupper(),
    "change_case:english_lowercase": lambda answer, _: answer.islower(),
    "punctuation:no_comma": lambda answer, _: "," not in answer,
}

__all__ = ["INSTRUCTIONS", "keeps"]
