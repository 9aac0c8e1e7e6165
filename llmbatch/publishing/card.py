"""What a dataset was made of and what was left out in; its card, ``README.md`` as the hub has it, out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from llmbatch.core.words import count, first_few, one_line
from llmbatch.publishing.base import PublishSettings, layout_of

UNKNOWN = "unknown"
"""What the hub calls a licence that nobody has named."""

REPORTS = "reports"
"""The folder beside the card with the pages of the runs, where they are published."""

_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"),
          (10**8, "10M<n<100M"), (10**9, "100M<n<1B"))  # fmt: skip
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


@dataclass(slots=True)
class Counts:
    """What became of the records. ``examples`` are rows of the dataset, before duplicates are dropped."""

    records: int = 0
    examples: int = 0
    splits: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)  # by reason; records or examples

    def drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    @property
    def kept(self) -> int:
        return sum(self.splits.values())

    def as_dict(self) -> dict[str, Any]:
        return {
            "records": self.records,
            "examples": self.examples,
            "kept": self.kept,
            "splits": self.splits,
            "dropped": self.dropped,
        }


def card(
    title: str,
    settings: PublishSettings,
    counts: Counts,
    runs: Sequence[Mapping[str, Any]],
    compared: Sequence[str],
    columns: Mapping[str, str],
) -> str:
    """The text of the card. ``compared`` are the fields by which rows were compared; ``columns`` name their types."""
    front = yaml.safe_dump(_front(title, settings, counts), sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{front}---\n\n" + "\n".join(_body(title, settings, counts, runs, compared, columns)) + "\n"


def _front(title: str, settings: PublishSettings, counts: Counts) -> dict[str, Any]:
    files = [{"split": name, "path": f"data/{name}-*.parquet"} for name in counts.splits]
    size = next((name for limit, name in _SIZES if counts.kept < limit), "n>1T" if counts.kept >= 10**12 else "1B<n<1T")
    return {
        "license": settings.license or UNKNOWN,
        **({"language": list(settings.language)} if settings.language else {}),
        "pretty_name": title,
        "size_categories": [size],
        "task_categories": ["text-generation"],
        "tags": ["synthetic", "llmbatch", *layout_of(settings.layout).tags],
        "configs": [{"config_name": "default", "data_files": files}],
    }


def _body(
    title: str,
    settings: PublishSettings,
    counts: Counts,
    runs: Sequence[Mapping[str, Any]],
    compared: Sequence[str],
    columns: Mapping[str, str],
) -> Iterator[str]:
    models = sorted({run["model"] for run in runs})
    yield f"# {title}\n"
    yield f"Written by {_listed(map(_linked, models))} and put together by llmbatch.\n"
    yield from _licence(settings)
    yield "## Rows\n"
    yield f"Layout `{settings.layout}`.\n"
    yield from _table(("column", "type"), ((f"`{name}`", f"`{kind}`") for name, kind in columns.items()))
    yield from _table(("split", "rows"), ((f"`{name}`", count(rows)) for name, rows in counts.splits.items()))
    if settings.split:
        by = _listed(f"`{path}`" for path in settings.group_by)
        yield (
            f"Rows {f'with the same {by}' if by else 'that come from the same row of the input'} are in one split, and so are "
            f"near-duplicates; a hash with seed {settings.seed} decides which split that is.\n"
        )
    yield from _selection(settings, counts, compared)
    for run in runs:
        yield from _run(run)
        if settings.report:
            yield f"How it went: [{run['run']}.html]({REPORTS}/{run['run']}.html).\n"


def _licence(settings: PublishSettings) -> Iterator[str]:
    yield "## Licence\n"
    if settings.license:
        yield f"`{settings.license}`\n"
    else:
        yield "Unknown: whoever published this named none. Ask before you use it; the model's own licence may bind it too.\n"


def _selection(settings: PublishSettings, counts: Counts, compared: Sequence[str]) -> Iterator[str]:
    yield "## What was left out\n"
    came = [("records of the runs", counts.records), ("rows that met every condition", counts.examples)]
    yield from _table(
        ("what", "how many"), ((name, count(number)) for name, number in [*came, ("rows that stayed", counts.kept)])
    )
    yield from _table(("left out", "how many"), ((_code(why), count(number)) for why, number in counts.dropped.items()))
    by = _listed(f"`{path}`" for path in compared)
    if settings.duplicates == "keep":
        yield "Duplicates were kept.\n"
    elif settings.duplicates == "exact":
        yield f"Of rows that are equal in {by} the first one stayed.\n"
    else:
        yield (
            f"Of rows that are equal or nearly so in {by} the first one stayed: near are those whose pieces of three words have an "
            f"estimated Jaccard similarity of {settings.similarity} or more (MinHash).\n"
        )


def _run(run: Mapping[str, Any]) -> Iterator[str]:
    yield f"## Run `{run['run']}`\n"
    yield from _table(("", ""), ((name, value) for name, value in _facts_shown(run) if value))
    for prompt in run["prompts"]:
        yield f"### Prompt `{prompt['prompt']}`\n"
        yield f"Digest `{prompt['digest']}`.\n"
        if prompt.get("text"):
            fence = _fence(prompt["text"])
            yield f"{fence}yaml\n{prompt['text'].rstrip()}\n{fence}\n"
        if prompt.get("variables"):
            yield f"With {_shown(prompt['variables'])}.\n"
        if prompt.get("note"):
            yield f"{prompt['note'][0].upper()}{prompt['note'][1:]}.\n"
    if run.get("refusals"):
        yield "### Records without an answer that did\n"
        yield from _table(("reason", "records"), ((f"`{kind}`", count(rows)) for kind, rows in run["refusals"].items()))
    if run.get("sent_back"):
        yield "### Answers that were sent back\n"
        yield from _table(("reason", "answers"), ((f"`{kind}`", count(n)) for kind, n in run["sent_back"].items()))


def _facts_shown(run: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "model", _linked(run["model"])
    yield "commit", f"`{run['commit']}`" if run["commit"] else ""
    if weights := run["weights"]:
        yield (
            "weights",
            f"`{weights['digest']}`, a digest over {first_few(weights['files'], 3)}",
        )
    yield "adapters", _listed(f"`{name}`: {place}" for name, place in run["adapters"].items())
    yield "engine", str(run["engine"] or "")
    yield "engine settings", _shown(run["engine_settings"])
    yield "sampling", _shown(run["sampling"])
    yield "answers held to", _shown({name: value for name, value in run["answer"].items() if value})
    yield "program", _listed(filter(None, (f"`{run['program']}`", _shown(run["program_settings"]))))
    yield "published from", f"`{run['rows_of']}`"
    yield "rows of the run", _listed(f"{count(number)} {status}" for status, number in run.get("rows", {}).items())
    yield "input", first_few(run["input"], 8, lambda name: f"`{name}`")
    yield "begun", run["began"]
    yield "versions", _listed(f"{name} {version}" for name, version in run.get("versions", {}).items())
    for retry in run.get("retries", ()):
        yield "rows tried again", f"with {_shown(retry)}" if retry else "with the same settings"


def _table(head: tuple[str, str], rows: Any) -> Iterator[str]:
    lines = [f"| {name} | {_cell(value)} |" for name, value in rows]
    if lines:
        yield "\n".join([f"| {head[0]} | {head[1]} |", "|---|---|", *lines]) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _code(text: str) -> str:
    return f"`{one_line(text).replace('|', chr(92) + '|').replace('`', chr(39))}`"


def _shown(values: Mapping[str, Any]) -> str:
    return _listed(
        f"{name} {_code(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))}"
        for name, value in values.items()
    )


def _listed(parts: Any) -> str:
    return ", ".join(parts)


def _linked(model: str) -> str:
    return f"[{model}](https://huggingface.co/{model})" if _HUB_NAME.fullmatch(model) else f"`{model}`"


def _fence(text: str) -> str:
    """A fence that no line of the text ends."""
    longest = max((len(found) for found in re.findall(r"`+", text)), default=0)
    return "`" * max(3, longest + 1)
