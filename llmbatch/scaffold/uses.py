"""A corpus that was looked at in; the texts of the files that a use of it begins with, comments and all, out."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple

from llmbatch.core.errors import UsageError
from llmbatch.prompt.shipped import shipped_prompt
from llmbatch.scaffold.corpus import Corpus, labels_of
from llmbatch.scaffold.text import about, commented, job_text

_LONG = 20_000  # characters, beyond which a text may not fit a context


class Place(NamedTuple):
    """How the files call the corpus and the model."""

    corpus: str
    model: str


class Files(NamedTuple):
    """Texts by the names of files, and the command that runs them, with what a rehearsal adds to it."""

    texts: dict[str, str]
    command: str
    rehearsal: str = "--engine scripted --max-tokens 100000 --limit 5 --output rehearsal"


def summarize(corpus: Corpus, place: Place) -> Files:
    text = _text(corpus)
    variables = [
        "max_words: 100            # the longest summary, in words",
        'focus: ""                 # what the reader cares about',
    ]
    return _job(corpus, place, "summarize", {"text": text}, variables, _too_long(corpus, text, "summarize-long"))


def translate(corpus: Corpus, place: Place) -> Files:
    text = _text(corpus)
    variables = [
        "target_language: English  # the language to translate into",
        "# glossary: {pull request: demande de fusion}",
        "# style: formal address",
    ]
    return _job(corpus, place, "translate", {"text": text}, variables, _too_long(corpus, text, "translate-document"))


def extract(corpus: Corpus, place: Place) -> Files:
    variables = [
        "schema:                   # a JSON Schema of the answer: put your own fields in its place",
        "  type: object",
        "  properties:",
        "    topic: {type: string, description: What the text is about, in a few words.}",
        "    names: {type: array, items: {type: string}, description: People and organisations that the text names.}",
        '    date: {type: [string, "null"], description: "The day that the text is of, as YYYY-MM-DD."}',
        "  required: [topic, names, date]",
        "  additionalProperties: false",
    ]
    return _job(corpus, place, "extract", {"text": _text(corpus)}, variables)


def classify(corpus: Corpus, place: Place) -> Files:
    question = "question: Which class fits the text best?"
    if corpus.label is None:
        labels = ["labels: [positive, negative, neutral]  # the classes: put your own in their place"]
        return _job(corpus, place, "classify", {"text": _text(corpus)}, [*labels, question])
    known = labels_of(corpus.column(corpus.label))
    labels = [f"labels: {_flow(known)}  # those that were seen in the column {_flow(corpus.label)}"]
    keep = f"keep: {_flow([corpus.label])}  # stands beside each result, to compare"
    return _job(corpus, place, "classify", {"text": _text(corpus)}, [*labels, question], sinks=[keep])


def generate(corpus: Corpus, place: Place) -> Files:
    variables = ["max_pairs: 5              # the most pairs of a question and its answer to write for a text"]
    return _job(corpus, place, "qa-generate", {"text": _text(corpus)}, variables)


def evaluate(corpus: Corpus, place: Place) -> Files:
    """A task for ``llmbatch eval``. Raises ``UsageError`` where no column says what would be right."""
    text, reference = _text(corpus), corpus.reference
    if reference is None:
        names = ", ".join(column.name for column in corpus.columns)
        raise UsageError(
            f"{corpus.path}: an evaluation needs a column with what would be right; name it with --label. Its columns are {names}"
        )
    if not reference.isidentifier():
        raise UsageError(
            f"{corpus.path}: the column {reference!r} with what would be right cannot stand in an expression: rename it to "
            "letters, digits and _"
        )
    fields = _fields({"text": text})
    if corpus.label is None:
        prompt, variables = _ANSWER, []
        metrics = ["metrics: [exact_match]  # others: contains, rouge, bleu, chrf, json_fields, judge_score, ..."]
    else:
        labels = labels_of(corpus.column(reference))
        prompt, variables = shipped_prompt("classify"), [f"  variables: {{labels: {_flow(labels)}}}"]
        metrics = ["metrics: [exact_match, macro_f1]"]
    command = f"llmbatch eval task.yaml --model {shlex.quote(place.model)}"
    rehearsal = "--engine scripted --limit 5 --output rehearsal"
    lines = [
        *commented(about(corpus, [f"{command} {rehearsal}", command])),
        "",
        f"name: {_name(place.corpus)}",
        f"dataset: {{path: {_flow(place.corpus)}}}",
        "prompt:",
        "  path: ./prompt.yaml",
        *(f"  {line}" for line in fields),
        *variables,
        f"references: {_flow(reference)}  # an expression over the row: what would be right, one value or a list",
        "read: text  # how the answer is read from the output: text, choice, number, regex, last_line, ...",
        *metrics,
        "sampling: {temperature: 0}",
        "# few_shot: {number: 3, split: train}",
    ]
    texts = {
        "task.yaml": "\n".join(lines) + "\n",
        "prompt.yaml": _of_prompt("task.yaml", None if corpus.label is None else "classify") + prompt,
    }
    return Files(texts, command, rehearsal)


_ANSWER = """\
name: answer
description: Answer the question that a row holds.
variables:
  text: {type: string, description: The question.}
messages:
  - role: system
    content: Answer with the answer and nothing else.
  - role: user
    content: "{{ text }}"
sampling: {temperature: 0, max_tokens: 512}
"""


def _job(
    corpus: Corpus,
    place: Place,
    prompt: str,
    fields: dict[str, str],
    variables: Sequence[str],
    notes: Sequence[str] = (),
    *,
    sinks: Sequence[str] = (),
) -> Files:
    """The job file and the prompt, which is one that comes with llmbatch."""
    text = job_text(
        corpus,
        place.corpus,
        place.model,
        [*_fields(fields), "variables:", *(f"  {line}" for line in variables)],
        notes,
        sinks,
    )
    return Files(
        {"job.yaml": text, "prompt.yaml": _of_prompt("job.yaml", prompt) + shipped_prompt(prompt)},
        "llmbatch run job.yaml",
    )


def _text(corpus: Corpus) -> str:
    if corpus.text is None:
        names = ", ".join(f"{column.name} ({'/'.join(column.types) or 'null'})" for column in corpus.columns)
        raise UsageError(
            f"{corpus.path}: no column holds texts; name the one that is meant with --text. Its columns are {names}"
        )
    return corpus.text


def _fields(fields: dict[str, str]) -> list[str]:
    """Which column a variable comes from, where that has another name."""
    others = {variable: column for variable, column in fields.items() if variable != column}
    if others:
        return [f"fields: {_flow(others)}  # variable: column"]
    return [
        f"# fields: {{{variable}: COLUMN}}  # where the column has another name than the variable"
        for variable in fields
    ]


def _too_long(corpus: Corpus, text: str, instead: str) -> list[str]:
    lengths = corpus.column(text).lengths
    if lengths is None or lengths.longest <= _LONG:
        return []
    return [
        f"The longest text has {lengths.longest:,} characters, perhaps more than a context holds: llmbatch plan tells.",
        f"The prompt {instead} takes texts of any length, in chunks; plan.overflow says what else becomes of one that is too long.",
    ]


def _of_prompt(job: str, name: str | None) -> str:
    origin = f"llmbatch's own prompt {name}, yours to change: " if name else ""
    see = (
        f"`llmbatch render {job} --limit 1` shows what becomes of a row"
        if job == "job.yaml"
        else "`llmbatch show` shows what became of a row"
    )
    return "".join(
        f"# {line}\n"
        for line in (
            f"The prompt that {job} names. {origin}`llmbatch prompts check prompt.yaml` checks it,".replace(
                ". llm", ", llm"
            ),
            f"{see}. What is the same for every row comes first.",
        )
    )


def _name(path: str) -> str:
    stem = path.rstrip("/").rpartition("/")[2].partition(".")[0]
    kept = "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "_-") else "-" for letter in stem
    ).strip("-_")
    return kept or "task"


def _flow(value: Any) -> str:
    """A value as it can stand in YAML: JSON is."""
    return json.dumps(value, ensure_ascii=False)
