"""Layouts of Google's, of mlserver's and Seldon's, and of OpenAI's embeddings, each once on the real vLLM: rows of ``RESULTS.md``.

The examples' own rows are asked; what comes back is to be as the example has it, but for the words of the answers.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1] / "engines"))
from pooling import make_model  # type: ignore[import-not-found]
from shown import EXAMPLES, Shown, tried
from wires import _BATCH, _REAL, LINES, OPENAI, SELDON, _as_expected, _lines, _run, _taken_strictly, _vllm

GOOGLE = "Google"
GEMINI, GEMINI_API = EXAMPLES / "vertex" / "gemini", EXAMPLES / "vertex" / "gemini-api"
_SHORT = (*_REAL, "--max-tokens", "16", "--set", "answer.allow_truncated=true", "--model", "demo")
_WORDS = "*nonempty*"


def results() -> Iterator[Shown]:
    claims: tuple[tuple[str, str, Callable[[Path], str]], ...] = (
        (GOOGLE, "a document of Gemini's on Vertex AI, on the real engine, leaves what the example has", _gemini),
        (GOOGLE, "requests of the Gemini API, on the real engine, are answered as in the example", _gemini_api),
        (SELDON, "V2 lines, on the real engine, are answered as in the example", _v2),
        (SELDON, "raw messages, on the real engine, are answered as in the example", _messages),
        (OPENAI, "embeddings of a real engine are taken by the client's types, strictly", _embeddings),
    )
    with tempfile.TemporaryDirectory(prefix="llmbatch-real-") as name:
        for number, (system, claim, show) in enumerate(claims):
            folder = Path(name) / str(number)
            folder.mkdir()
            yield tried(system, claim, "vLLM", _vllm(), lambda s=show, f=folder: s(f))  # type: ignore[misc]


def _gemini(work: Path) -> str:
    where = ("--asset", f"gs://corpus={GEMINI / 'gcs'}", "--asset", f"gs://corpus/out={work / 'there'}")
    _run(work, "run", str(GEMINI / "job.json"), *where, *_SHORT, "--output", "run", code=3)
    [path] = (work / "there").glob("prediction-model-*/predictions.jsonl")
    expected = GEMINI / "expected" / "prediction-model-TIME" / "predictions.jsonl"
    return _alike(work, path, expected, _candidates)


def _gemini_api(work: Path) -> str:
    layout = ("--set", "sinks.layout.name=gemini_api", "--output", "run")
    _run(work, "run", "--input", str(GEMINI_API / "requests.jsonl"), *_SHORT, *layout, code=3)
    path = work / "run" / "output" / "responses.jsonl"
    return _alike(work, path, GEMINI_API / "expected.jsonl", _candidates)


def _candidates(line: Any) -> str:
    """The answer's text in a line, with ``*`` put in its place; nothing where there is none."""
    if not (candidates := line.get("response", {}).get("candidates")):
        return ""
    [part] = candidates[0]["content"]["parts"]
    said, part["text"] = part["text"], _WORDS
    candidates[0]["finishReason"] = "*"
    return str(said)


def _v2(work: Path) -> str:
    layout = ("--format", "v2", "--set", "sinks.layout.name=v2", "--output", "run")
    lines = [line for line in (LINES / "v2.jsonl").read_text().splitlines() if "BOOM" not in line]
    (work / "rows.jsonl").write_text("".join(line + "\n" for line in lines))
    _run(work, "run", "rows.jsonl", *_SHORT, *layout, code=3)
    return _alike(work, work / "run" / "output" / "output.jsonl", _without_boom(work), _tensor)


def _without_boom(work: Path) -> Path:
    """The expected lines but that of the row that the example's own engine refuses, which a model does not."""
    lines = [line for n, line in enumerate(_lines(LINES / "v2.expected.jsonl")) if n != 2]
    for n, line in enumerate(lines):
        line["parameters"]["batch_index"] = n
    path = work / "expected.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def _tensor(line: Any) -> str:
    if "outputs" not in line:
        return ""
    [tensor] = line["outputs"]
    [said], tensor["data"] = tensor["data"], [_WORDS]
    return str(said)


def _messages(work: Path) -> str:
    layout = ("--format", "seldon", "--set", "input.options.data_type=raw", "--set", "sinks.layout.name=seldon")
    named = ("--set", "sinks.layout.settings.batch_id=batch-1", "--output", "run")
    _run(work, "run", "--input", str(LINES / "v1.raw.txt"), *_SHORT, *layout, *named, code=3)
    return _alike(work, work / "run" / "output" / "output.jsonl", LINES / "v1.raw.expected.txt", _message)


def _message(line: Any) -> str:
    if "data" not in line:
        return ""
    [[said]], line["data"]["ndarray"] = line["data"]["ndarray"], [[_WORDS]]
    return str(said)


def _embeddings(work: Path) -> str:
    model = make_model(work / "model", "embed")
    url, inputs = "/v1/embeddings", ["one text", ["a corpus", "of the vector"], "one text"]
    lines = [
        {"custom_id": f"r{i}", "method": "POST", "url": url, "body": {"model": "demo", "input": each}}
        for i, each in enumerate(inputs)
    ]
    (work / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    engine = ("--program", "embed", "--set", "engine.args.enforce_eager=true", *_BATCH[:2])
    _run(work, "run", "rows.jsonl", "--model", str(model), *engine, "--output", "run")
    count = _taken_strictly(work / "run" / "output", url)
    vectors = [[each["embedding"] for each in body["data"]] for body in _bodies(work)]
    assert [len(each) for each in vectors] == [1, 2, 1] and vectors[0] == vectors[2], vectors
    sizes = {len(vector) for each in vectors for vector in each}
    assert len(sizes) == 1 and all(any(vector) for each in vectors for vector in each), sizes
    return f"{count} lines, {sum(map(len, vectors))} vectors of {sizes.pop()} numbers; the same text, the same vector"


def _bodies(work: Path) -> list[Any]:
    return [line["response"]["body"] for line in _lines(work / "run" / "output" / "output.jsonl")]


def _alike(work: Path, seen: Path, expected: Path, words: Callable[[Any], str]) -> str:
    """Compares them without the words of their answers; says how many lines there are, and the first answer."""
    wanted = _lines(expected)
    answered = sum(bool(words(line)) for line in wanted)
    (work / "wanted.jsonl").write_text("".join(json.dumps(line) + "\n" for line in wanted))
    count = _as_expected(seen, work / "wanted.jsonl")
    return f"{count} lines, {answered} of them answers: {next(filter(None, map(words, _lines(seen))))[:60]!r}"
