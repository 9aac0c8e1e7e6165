"""What was seen of a corpus in; the commented text of its job file out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from llmbatch.core.words import clip, one_line, share
from llmbatch.scaffold.corpus import Column, Corpus

_COLUMNS = 40  # that a comment lists
_WIDE = 40


def about(corpus: Corpus, commands: Sequence[str]) -> list[str]:
    """Lines on what was seen, and what to type."""
    looked = f"its first {corpus.rows:,} rows" if corpus.more else f"all of its {corpus.rows:,} rows"
    lines = [f"Made by llmbatch init, which looked at {looked}.", ""]
    lines += table(corpus)
    if corpus.broken:
        lines += [
            "",
            f"{len(corpus.broken):,} of these rows cannot be read, and get a record that says so, such as",
            f"  {one_line(corpus.broken[0])}",
        ]
    return [*lines, "", "To try it without a model, and then to run it:", *(f"  {command}" for command in commands)]


def table(corpus: Corpus) -> list[str]:
    """The columns, with what is in them and what they were taken for."""
    head = ("column", "type", "filled", "different", "characters")
    rows = [head, *(_cells(column, corpus) for column in corpus.columns[:_COLUMNS])]
    widths = [max(len(row[place]) for row in rows) for place in range(len(head))]
    taken = {corpus.text: "the text", corpus.id: "the id", corpus.label: "the label"}
    lines = []
    for number, row in enumerate(rows):
        cells = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        guess = taken.get(corpus.columns[number - 1].name) if number else None
        lines.append(f"  {cells}  <- {guess}" if guess else f"  {cells.rstrip()}")
    if len(corpus.columns) > _COLUMNS:
        lines.append(f"  and {len(corpus.columns) - _COLUMNS} more")
    return lines


def _cells(column: Column, corpus: Corpus) -> tuple[str, ...]:
    readable = corpus.rows - len(corpus.broken)
    lengths = "" if column.lengths is None else " / ".join(f"{length:,}" for length in column.lengths)
    return (
        clip(one_line(column.name), _WIDE),
        "/".join(column.types) or "null",
        share(column.filled / readable),
        f"{len(column.values):,}" if column.values else "",
        lengths,
    )


def job_text(
    corpus: Corpus, path: str, model: str, prompt: Sequence[str], notes: Sequence[str], sinks: Sequence[str]
) -> str:
    """A job file for the corpus at ``path``. ``prompt`` and ``sinks`` are lines of these sections."""
    dry = "llmbatch run job.yaml --engine scripted --max-tokens 100000 --limit 5 --output rehearsal"
    commands = ["llmbatch render job.yaml --limit 1", dry, "llmbatch plan job.yaml", "llmbatch run job.yaml"]
    lines = [
        *commented([*about(corpus, commands), *([""] if notes else []), *notes]),
        "",
        f"model: {json.dumps(model, ensure_ascii=False)}  # a name on the Hugging Face hub, a folder, or demo",
        "",
        "prompt:",
        "  path: ./prompt.yaml",
        *(f"  {line}" for line in prompt),
        "",
        "input:",
        f"  path: {json.dumps(path, ensure_ascii=False)}",
        *_id_lines(corpus),
        "  # limit: 100              # only the first rows",
        "",
        "output: ./out              # the run folder; the same command again goes on where a run stopped",
        "",
        "engine:",
        "  name: vllm               # or transformers; openai, kserve: a server; scripted: a rehearsal without a model",
        "  # args: {max_model_len: 8192, gpu_memory_utilization: 0.9}  # vLLM's own arguments by name",
        "  # replicas: auto         # one engine for each GPU",
        "",
        "sampling:                  # goes before the prompt's own",
        "  temperature: 0",
        "  # max_tokens: 512        # the longest answer",
        "",
        "# retry: {max_attempts: 3}  # how often a row is tried whose answer does not do",
        *(
            ["sinks:", *(f"  {line}" for line in sinks)]
            if sinks
            else ["# sinks: {keep: all}       # the row's own columns beside its result"]
        ),
    ]
    return "\n".join(lines) + "\n"


def _id_lines(corpus: Corpus) -> Iterator[str]:
    if corpus.id is None:
        yield "  # id_field: COLUMN         # what names a row; without one it is the row's number, from 0"
    elif corpus.id != "id" and corpus.format != "documents":
        yield f"  id_field: {json.dumps(corpus.id, ensure_ascii=False)}  # what names a row"


def commented(lines: Sequence[str]) -> list[str]:
    return [f"# {line}".rstrip() for line in lines]
