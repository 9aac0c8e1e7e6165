"""A program of one's own: each number in three languages, and the one that came out shortest.

    python examples/own_program.py

A program is a generator function. It yields what it asks, is sent the checked answers, and returns the row's value. All rows are in
one running batch; retries, the journal and resuming work for every request. Run again, the same script goes on where it stopped.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import llmbatch
from llmbatch import Complete, Incomplete, Program, RowAsk

PROMPT = Path(llmbatch.__file__).parent / "demo" / "prompts" / "translate-number.yaml"
LANGUAGES = ("French", "German", "Spanish")


def shortest(row: RowAsk) -> Program:
    # a list is asked at the same time; what is given here goes before the row's own fields
    answers = yield [row.ask(language=language) for language in LANGUAGES]
    if None in answers:  # every attempt of one failed: the row is not ok, and says why
        return Incomplete()
    words = {language: answer.value for language, answer in zip(LANGUAGES, answers, strict=True)}
    return Complete(min(words.values(), key=len), details={"words": words})


def main(output: str = "numbers", **sections: Any) -> llmbatch.Run:
    rows = [{"text": "forty-two"}, {"text": "two hundred and eighty-one"}, {"text": "one thousand"}]
    return llmbatch.run(model="demo", prompt=PROMPT, program=shortest, input=rows, output=output, **sections)


if __name__ == "__main__":
    for record in main(*sys.argv[1:]):
        print(record.output, record.details)
