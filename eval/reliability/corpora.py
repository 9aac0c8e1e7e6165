"""A folder in; out the inputs and jobs of the chaos runs, which together bring a run into every state that it can be killed in.

A new program, or whatever else changes how a run goes, is one line in ``SCENARIOS``.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from llmbatch.job.job import Job, job_from

ROWS = 240
_DOCUMENTS = 60
_PICTURES = 60
FAILS_ONCE = {"when": {"attempt": 1, "matches": "[05]$"}, "answer": ""}
FAILS_TWICE = {"when": {"attempt": [1, 2], "matches": "7$"}, "answer": ""}
FAILS_ALWAYS = {"when": {"matches": "3[12]$"}, "answer": ""}
_PROMPT = "prompt.yaml"  # of a scenario that writes one
_MANY = 48
"""How many requests the engine answers at a time where a row has several: so that such a run takes no longer than the others."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of run. ``script`` is the scripted engine's; the answer to a row is its text, unless a rule says otherwise."""

    name: str
    script: Mapping[str, Any] = field(default_factory=dict)
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    distinct: int = ROWS
    files: Sequence[str] = (
        "results.jsonl",
        "errors.jsonl",
    )  # files and folders of the run that are the same in every run of it
    faults: Sequence[str] = ()  # fault points that only such a run passes
    write: Callable[[Scenario, Path], None] | None = None  # its own input; None: lines
    ready_made: bool = False  # its rows bring their prompts
    engine: Callable[[float, int], Mapping[str, Any]] | None = (
        None  # (latency, concurrency) -> its own; None: the scripted
    )


def write_input(scenario: Scenario, folder: Path) -> Path:
    """The scenario's input, in which something is broken."""
    (scenario.write or _write_lines)(scenario, folder)
    return folder


def make_job(scenario: Scenario, folder: Path, output: Path, *, latency: float = 0.05, concurrency: int = 12) -> Job:
    """The scenario's job on the input in the folder, each answer taking about ``latency`` seconds."""
    script = folder / "script.yaml"
    timing = {"latency": latency, "jitter": 0.9, "concurrency": concurrency}
    script.write_text(yaml.safe_dump({**timing, **scenario.script}), encoding="utf-8")
    data: dict[str, Any] = {
        "model": "any",
        "prompt": {"path": "Say: {{ text }}"},
        "input": {"path": str(folder / "*.jsonl"), "format": "jsonl"},
        "output": str(output),
        "engine": scenario.engine(latency, concurrency)
        if scenario.engine
        else {"name": "scripted", "script": str(script)},
        "sampling": {"temperature": 0},
    }
    if (folder / "input").is_dir():
        data["input"] = {"path": str(folder / "input")}
    if (folder / _PROMPT).is_file():
        data["prompt"] = {"path": str(folder / _PROMPT)}
    if scenario.ready_made:
        del data["prompt"]
    for name, section in scenario.sections.items():
        data[name] = {**data.get(name, {}), **section}
        if not section:  # requests bring their own prompts
            del data[name]
    data.setdefault("run", {})["grace"] = 0.2
    return job_from(data)


# inputs


def _write_lines(scenario: Scenario, folder: Path) -> None:
    """Rows in two files, with blank lines, lines that are not JSON, and rows that cannot be rendered among them."""
    lines = list(_lines(scenario))
    for name, part in (("a", lines[: len(lines) // 3]), ("b", lines[len(lines) // 3 :])):
        (folder / f"{name}.jsonl").write_text("".join(line + "\n" for line in part), encoding="utf-8")


def _lines(scenario: Scenario) -> Iterator[str]:
    for i in range(ROWS):
        if i % 37 == 5:
            yield ""
        if i % 41 == 7:
            yield '{"text": cut'
        if i % 59 == 11:
            yield '{"id": "no text"}'
        yield json.dumps({"id": f"row-{i}", "text": f"number {i % scenario.distinct}"})


def _write_gemini(scenario: Scenario, folder: Path) -> None:
    """Requests for Gemini in two files, with lines that are not JSON, and requests without contents among them."""
    for name, numbers in (("a", range(ROWS // 3)), ("b", range(ROWS // 3, ROWS))):
        lines = []
        for i in numbers:
            said = [{"role": "user", "parts": [{"text": f"number {i % scenario.distinct}"}]}]
            request = {"contents": [] if i % 59 == 11 else said, "generationConfig": {"temperature": 0}}
            lines.append('{"request": cut' if i % 41 == 7 else json.dumps({"request": request, "row": i}))
        (folder / f"{name}.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")


_BROKEN_DOCUMENTS = (
    ("empty.txt", b""),
    ("picture.txt", b"\x89PNG\r\n\x1a\n\0\0"),
    ("latin.md", b"caf\xe9"),
    ("no.pdf", b"hello"),
    ("cut.txt.gz", gzip.compress(b"text" * 99, mtime=0)[:-9]),
)


def _write_documents(_scenario: Scenario, folder: Path) -> None:
    """Documents in folders: of forty one is empty, a picture, in no known encoding, no PDF, or cut off."""
    for i in range(ROWS):
        place = folder / "input" / f"{i // 50}"
        place.mkdir(parents=True, exist_ok=True)
        name, content = f"{i:03d}.md", f"# Title {i}\n\nnumber {i}".encode()
        if i % 40 == 9:
            suffix, content = _BROKEN_DOCUMENTS[i // 40 % len(_BROKEN_DOCUMENTS)]
            name = f"{i:03d}-{suffix}"
        (place / name).write_bytes(content)


def _write_long_documents(_scenario: Scenario, folder: Path) -> None:
    """Documents of none to eleven paragraphs under a heading: some are asked as they are, others in chunks."""
    place = folder / "input"
    place.mkdir(parents=True, exist_ok=True)
    for i in range(_DOCUMENTS):
        paragraphs = [
            f"Paragraph {k} says what there is to say, and that it is of number {i + k}" for k in range(i % 12)
        ]
        (place / f"{i:03d}.md").write_text("\n\n".join([f"# Title {i}", *paragraphs]), encoding="utf-8")


def _write_queries(_scenario: Scenario, folder: Path) -> None:
    """Queries with none to four documents each; some documents are blank, and many are the same."""
    (folder / "input").mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "id": f"q{i}",
            "query": f"number {i}",
            "documents": [" " if k + i == 33 else f"of number {(i + k) % 50}" for k in range(i % 5)],
        }
        for i in range(ROWS // 2)
    ]
    lines = [json.dumps(row) for row in rows]
    (folder / "input" / "rows.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def _write_transform_records(scenario: Scenario, folder: Path) -> None:
    """Records of a batch transform, under a prefix of their own: of one of two objects all are sound."""
    lines = [json.dumps({"id": i, "features": {"inputs": f"number {i % scenario.distinct}"}}) for i in range(ROWS)]
    half = ROWS // 2
    lines[half + 3 : half + 5] = ["{cut", '{"id": "no features"}']
    for name, part in (("a", lines[:half]), ("b", lines[half:])):
        (folder / f"{name}.jsonl").write_text("".join(line + "\n" for line in part), encoding="utf-8")


_COUNT = {"type": "function", "function": {"name": "count", "parameters": {"type": "object"}}}
_COUNTS = {
    "when": {"matches": "[2468]$"}, "answer": '<tool_call>{"name": "count", "arguments": {"row": "{text}"}}</tool_call>'
}  # fmt: skip


def _write_tools(scenario: Scenario, folder: Path) -> None:
    """Requests of OpenAI's that offer a tool, in two files: some must call it, and of some it is none."""
    for name, numbers in (("a", range(ROWS // 3)), ("b", range(ROWS // 3, ROWS))):
        lines = []
        for i in numbers:
            said = [{"role": "user", "content": f"number {i % scenario.distinct}"}]
            tools = [{"type": "other"}] if i % 59 == 11 else [_COUNT]
            body = {"messages": said, "tools": tools, "tool_choice": "required" if i % 7 == 3 else "auto"}
            request = {"custom_id": f"r{i}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            lines.append('{"custom_id": cut' if i % 41 == 7 else json.dumps(request))
        (folder / f"{name}.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def _write_invocations(scenario: Scenario, folder: Path) -> None:
    """Bodies of three families, some without an id; of forty one is broken, or one that nothing can be done with."""
    bodies: list[Callable[[str], dict[str, Any]]] = [
        lambda text: {"prompt": text, "max_gen_len": 60},
        lambda text: {"inputText": text, "textGenerationConfig": {"maxTokenCount": 60}},
        lambda text: {"anthropic_version": "x", "max_tokens": 60, "messages": [{"role": "user", "content": text}]},
    ]
    lines = []
    for i in range(ROWS):
        record: dict[str, Any] = {"modelInput": bodies[i % 3](f"number {i % scenario.distinct}")}
        if i % 5:
            record["recordId"] = f"R{i}"
        if i % 40 == 9:
            record["modelInput"] = {"text": "of no family"}
        lines.append(json.dumps(record) if i % 40 != 19 else '{"modelInput": cut')
    for name, part in (("a", lines[:70]), ("b", lines[70:])):
        (folder / f"{name}.jsonl").write_text("".join(line + "\n" for line in part), encoding="utf-8")


def _write_batch(scenario: Scenario, folder: Path) -> None:
    """Requests of OpenAI's four endpoints but embeddings, some with several prompts; of forty one is broken, or cannot be done."""
    bodies: list[tuple[str, Callable[[str], dict[str, Any]]]] = [
        ("/v1/chat/completions", lambda text: {"messages": [{"role": "user", "content": text}]}),
        ("/v1/completions", lambda text: {"prompt": [text, f"again {text}"]}),
        ("/v1/completions", lambda text: {"prompt": list(text.encode()), "n": 2, "seed": 1}),
        ("/v1/responses", lambda text: {"input": text}),
    ]
    lines = []
    for i in range(ROWS):
        url, body = bodies[i % 4]
        request = {"custom_id": f"R{i}", "method": "POST", "url": url, "body": body(f"number {i % scenario.distinct}")}
        if i % 40 == 9:
            request["body"]["temperature"] = "hot"
        lines.append(json.dumps(request) if i % 40 != 19 else '{"custom_id": cut')
    (folder / "a.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def _write_v2(scenario: Scenario, folder: Path) -> None:
    """V2 requests with one prompt or two, blank lines among them; of forty one is broken, or has no prompt."""
    lines = []
    for i in range(ROWS):
        texts = [f"number {i % scenario.distinct}"] * (1 + i % 2)
        tensor = {"name": "text_input", "shape": [len(texts), 1], "datatype": "BYTES", "data": texts}
        if i % 40 == 9:
            tensor["datatype"] = "FP32"
        lines.append(json.dumps({"id": f"R{i}", "inputs": [tensor]}) if i % 40 != 19 else "\n{cut")
    for name, part in (("a", lines[:70]), ("b", lines[70:])):
        (folder / f"{name}.jsonl").write_text("".join(line + "\n" for line in part), encoding="utf-8")


# servers

_STAND_IN_V2 = Path(__file__).parents[1] / "peers" / "stand_in_v2.py"


@cache
def _stand_in_v2(latency: float) -> str:
    """The URL of a stand-in for a V2 server that is busy now and then and loses connections; it ends with this process."""
    options = ["--busy", "7", "--cut", "11", "--bad", "31", "--seconds", str(latency)]
    process = subprocess.Popen(
        [sys.executable, str(_STAND_IN_V2), *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    _RUNNING.append(process)
    return process.stdout.readline().strip()


_RUNNING: list[subprocess.Popen[str]] = []
"""Servers: they end when their standard input does, which is when nobody holds it any more."""


def _v2(latency: float, concurrency: int) -> Mapping[str, Any]:
    url = _stand_in_v2(latency)
    return {"name": "kserve", "urls": url, "served_name": "batched", "batch": 3, "in_flight": concurrency}


_LOOK = """
name: look
variables: {picture: {type: image}, text: {}}
messages: [{role: user, content: "{{ picture }}{{ text }}"}]
"""
_BROKEN_PICTURES = {
    "empty.png": lambda _: b"",
    "cut.png": lambda whole: whole[:45],
    "page.png": lambda _: b"<html>",
    "bomb.png": lambda whole: whole[:16] + b"\0\0\xff\xff" * 2 + whole[24:],  # says that it is very wide and high
}


def _write_pictures(scenario: Scenario, folder: Path) -> None:
    """Rows that name pictures, some of them the same ones in other files; of twenty one is missing, or none that can be used."""
    from PIL import Image

    (folder / _PROMPT).write_text(_LOOK, encoding="utf-8")
    pictures = folder / "pictures"
    pictures.mkdir()
    for i in range(_PICTURES):
        Image.new("RGB", (20 + i % 30, 10), (i % 30, 0, 0)).save(pictures / f"{i}.png")
    whole = (pictures / "0.png").read_bytes()
    for name, broken in _BROKEN_PICTURES.items():
        (pictures / name).write_bytes(broken(whole))
    wrong = ["missing.png", *_BROKEN_PICTURES]
    lines = []
    for i in range(ROWS):
        name = wrong[i // 20 % len(wrong)] if i % 20 == 13 else f"{i % _PICTURES}.png"
        row = {"id": f"row-{i}", "picture": f"pictures/{name}", "text": f"number {i % scenario.distinct}"}
        lines.append(json.dumps(row if i % 59 != 11 else {"id": "no picture"}) + "\n")
    (folder / "rows.jsonl").write_text("".join(lines), encoding="utf-8")


# programs

_GRADE = {
    "type": "object",
    "properties": {"score": {"type": "integer"}},
    "required": ["score"],
    "additionalProperties": False,
}
_CHAIN = {
    "prompts": {
        "grade": {"path": "grade {{ draft }}", "answer": {"schema": _GRADE}, "sampling": {"max_tokens": 60}},
        "revise": "revise {{ draft }}",
    },
    "settings": {
        "steps": [
            {"name": "draft", "prompt": "main"},
            {"repeat": 3, "until": "grade.score >= 4", "steps": ["grade", {"name": "draft", "prompt": "revise"}]},
        ],
        "output": {"score": "grade.score", "text": "draft"},
    },
}
_GRADES = [
    {"when": {"matches": "^grade .*[15]$", "attempt": 1}, "answer": "no JSON"},  # its step tries again
    {"when": {"matches": "^revise .*8$"}, "answer": " "},  # its step fails
    {"when": {"contains": "grade revise"}, "answer": '{"score": 5}'},
    {"when": {"contains": "grade"}, "answer": '{"score": 2}'},
]
_JUDGEMENTS = [
    {"when": {"matches": "^judge.*4$"}, "answer": "none"},  # a judge that never gives a score
    {"when": {"matches": "^judge.*sample 2"}, "answer": "5"},
    {"when": {"contains": "judge"}, "answer": "3"},
    {"when": {"contains": "Say", "sample": 3}, "answer": ""},  # a sample that fails
    {"when": {"contains": "Say"}, "answer": "sample {sample} of {text}"},
]
_LISTS = [
    {"when": {"matches": "^Say.*3$", "step": 0}, "answer": " "},  # a list that does not come
    {"when": {"contains": "Say", "step": 0}, "answer": "1. one?\n2. two of {text}?\n3. one?\n4. four?\n5. five?"},
    {"when": {"contains": "child four"}, "answer": ""},  # a child that fails in each row
]


# the first word of what is asked, so that what is put together gets shorter
_SUMMARIES = [{"when": {"matches": "^(Say|Together)"}, "answer": "row {index} at attempt {attempt}, in few words"}]


def _program(
    name: str,
    rules: Sequence[Mapping[str, Any]],
    section: Mapping[str, Any],
    files: Sequence[str] = (),
    context_length: int = 1_000_000,
    max_tokens: int = 1024,
    die_after: Sequence[int] = (),
    **more: Any,
) -> Scenario:
    """Rows done by a program: ``rules`` answer what it asks, ``section`` is that of the job, ``files`` it writes besides."""
    script = {
        "rules": list(rules), "concurrency": _MANY, "context_length": context_length, "die_after": list(die_after),
    }  # fmt: skip
    sections = {
        "program": {"name": name, **section},
        "sampling": {"temperature": 1, "seed": 3, "max_tokens": max_tokens},
        "retry": {"feedback": False},
        "run": {"window": 24},
    }
    return Scenario(name, script, sections, files=("results.jsonl", "errors.jsonl", *files), **more)


_NO_NUMBERS = {"when": {"matches": "3[12]$"}, "answer": "[0.5, NaN]"}
_TIME = "2026-11-24T13:14:15Z"
_OF_BOTH = {"name": "rerank", "settings": {"encoder": "bi", "top_n": 3}}

_TUNING = {
    "kinds": [], "candidates": {"quick": {"args": {"latency": 0.02}}}, "tolerance": "exact", "requests": 32, "max_time": 6,
}  # fmt: skip

SCENARIOS = (
    Scenario("retries", {"rules": [FAILS_ONCE, FAILS_TWICE, FAILS_ALWAYS]}, {"run": {"window": 16, "windows_open": 3}}),
    Scenario("duplicates", {"rules": [FAILS_ONCE]}, {"run": {"window": 48}, "sinks": {"keep": ["id"]}}, distinct=90),
    Scenario("cut-off", {}, {"run": {"window": 32}, "sampling": {"max_tokens": 6}, "retry": {"max_attempts": 4}}),
    Scenario(
        "samples", {"rules": [FAILS_ONCE]}, {"run": {"window": 24}, "sampling": {"n": 3, "temperature": 1, "seed": 1}}
    ),
    Scenario("engine-deaths", {"rules": [FAILS_ONCE], "die_after": [30, 80, 81]}, {"run": {"window": 40}}),
    Scenario(
        "poison-row", {"rules": [{"when": {"index": 101}, "die": True}]}, {"run": {"window": 20, "windows_open": 2}}
    ),
    Scenario(
        "vectors",
        {"rules": [_NO_NUMBERS], "dimensions": 40, "die_after": [50]},
        {"run": {"window": 32}, "program": {"name": "embed"}, "sinks": {"formats": ["parquet"]}},
        distinct=150,
        files=("results.jsonl", "errors.jsonl", "results.parquet"),
    ),
    Scenario(
        "rerank",
        {"concurrency": _MANY, "die_after": [60]},
        {"run": {"window": 16}, "prompt": {"path": "{{ query }}"}, "program": _OF_BOTH},
        write=_write_queries,
    ),
    Scenario(
        "connections-lost",  # nobody is suspected, so what was in flight is asked again as often as that happens
        {"rules": [{"when": {"index": [31, 90]}, "die": "lost", "times": 3}, FAILS_ONCE]},
        {"run": {"window": 40}},
    ),
    Scenario(
        "no-ids",  # as a server that tokenizes itself, and does not tell how much it takes
        {"rules": [FAILS_ONCE, FAILS_ALWAYS], "no_ids": True, "no_context_length": True, "die_after": [60]},
        {"run": {"window": 32}},
        distinct=150,
    ),
    Scenario(
        "unknown-context",
        {"rules": [FAILS_TWICE], "no_context_length": True},
        {"run": {"window": 32}, "sampling": {"max_tokens": 6}, "retry": {"max_attempts": 4}},
    ),
    Scenario("one-row-windows", {"rules": [FAILS_TWICE]}, {"run": {"window": 1, "windows_open": 6}}),
    Scenario("one-window", {"rules": [FAILS_ONCE]}, {"run": {"window": 1000, "windows_open": 1}}),
    Scenario(
        "replicas", {"rules": [FAILS_ONCE], "die_after": [30, 80, 81]}, {"run": {"window": 40}, "engine": {"replicas": 3}}
    ),
    Scenario(
        "row-workers", {"rules": [FAILS_ONCE, FAILS_TWICE], "die_after": [90]}, {"run": {"window": 24, "workers": 2}}
    ),
    Scenario(
        "accepted rows",  # how many rows besides are done by the time that they are decided differs from run to run
        {"rules": [FAILS_ONCE, FAILS_ALWAYS]},
        {"run": {"window": 24}, "accept": {"rows": 40, "when": "'3' in output or '5' in output", "unique": "output"}},
        distinct=190,
        files=("accepted.jsonl",),
        faults=("temp-written/accepted.jsonl:1", "renamed/accepted.jsonl:1"),
    ),
    Scenario(
        "sweep",
        {"rules": [FAILS_ONCE], "concurrency": _MANY},
        {
            "run": {"window": 30},
            "sweep": {"prompt": ["Say: {{ text }}", "Write: {{ text }}"], "sampling.max_tokens": [6, 50]},
            "retry": {"max_attempts": 2},
        },
    ),
    Scenario(
        "documents",
        {"rules": [FAILS_ONCE]},
        {"run": {"window": 32}, "sinks": {"formats": ["by_file"], "keep": ["path", "title"]}},
        files=("results.jsonl", "errors.jsonl", "results"),
        faults=("folder-away/results:1",),
        write=_write_documents,
    ),
    Scenario(
        "append_row of Azure ML",
        {"rules": [FAILS_ONCE, FAILS_ALWAYS]},
        {"run": {"window": 40}, "sinks": {"layout": {"name": "azure_ml"}}},
        files=("results.jsonl", "errors.jsonl", "output"),
        faults=("folder-away/output:1",),
    ),
    Scenario(
        "Vertex AI's files",
        {"rules": [FAILS_ONCE, FAILS_ALWAYS]},
        {
            "run": {"window": 32},
            "input": {"format": "vertex", "options": {"key_field": "id"}},
            "sinks": {"layout": {"name": "vertex", "settings": {"key_field": "id", "shards": 3, "time": _TIME}}},
        },
        files=("results.jsonl", "output"),
        faults=("folder-away/output:1",),
    ),
    Scenario(
        "Gemini's files",
        {"rules": [FAILS_ONCE, FAILS_ALWAYS], "die_after": [70]},
        {
            "run": {"window": 24},
            "prompt": {},
            "input": {"format": "gemini"},
            "sinks": {"layout": {"name": "gemini", "settings": {"time": _TIME}}},
        },
        files=("results.jsonl", "output"),
        write=_write_gemini,
    ),
    Scenario(
        "a batch of OpenAI's",
        {"rules": [FAILS_ONCE, FAILS_ALWAYS], "concurrency": _MANY, "die_after": [70]},
        {
            "run": {"window": 32},
            "input": {"format": "openai"},
            "sinks": {"layout": {"name": "openai_batch", "settings": {"created": 1}}},
        },
        distinct=150,
        files=("results.jsonl", "errors.jsonl", "output"),
        write=_write_batch,
        ready_made=True,
    ),
    Scenario(
        "tools",
        {"rules": [FAILS_ONCE, _COUNTS]},
        {
            "run": {"window": 32},
            "engine": {"tool_call_parser": "hermes"},
            "input": {"format": "openai"},
            "sinks": {"layout": {"name": "openai_batch", "settings": {"created": 1}}},
        },
        distinct=150,
        files=("results.jsonl", "errors.jsonl", "output"),
        write=_write_tools,
        ready_made=True,
    ),
    Scenario(
        "V2 lines",
        {"rules": [FAILS_ONCE]},
        {"run": {"window": 32}, "input": {"format": "v2"}, "sinks": {"layout": {"name": "v2"}}},
        distinct=150,
        files=("results.jsonl", "errors.jsonl", "output"),
        write=_write_v2,
        ready_made=True,
    ),
    Scenario("a V2 server", sections={"run": {"window": 32}}, engine=_v2),
    Scenario(
        "a batch transform",
        {"rules": [FAILS_ONCE]},
        {
            "run": {"window": 32},
            "input": {"format": "sagemaker", "options": {"input_filter": "$.features", "join": True}},
            "sinks": {"layout": {"name": "sagemaker"}},
        },
        files=("results.jsonl", "errors.jsonl", "output"),
        faults=("folder-away/output:1",),
        write=_write_transform_records,
        ready_made=True,
    ),
    Scenario(
        "an invocation job",
        {"rules": [FAILS_ONCE, FAILS_ALWAYS]},
        {"run": {"window": 32}, "input": {"format": "bedrock"}, "sinks": {"layout": {"name": "bedrock"}}},
        distinct=150,
        files=("results.jsonl", "errors.jsonl", "output"),
        write=_write_invocations,
        ready_made=True,
    ),
    Scenario(
        "an order of the corpus",
        {"rules": [FAILS_ONCE, FAILS_TWICE, FAILS_ALWAYS], "die_after": [90]},
        {"run": {"window": 24, "order": "corpus"}},
        distinct=170,
        faults=(
            "order-block:1", "order-sorted:1", "temp-written/places:1", "renamed/places:1", "order-placed:1",
            "temp-written/order.json:1", "renamed/order.json:1",
        ),
    ),
    Scenario(
        "tuned",  # what is chosen is held to, as answers may depend on it
        {"rules": [FAILS_ONCE]},
        {"run": {"window": 32, "autotune": True, "tuning": _TUNING}},
        faults=("temp-written/autotune.json:1", "renamed/autotune.json:1"),
    ),
    Scenario(
        "images",
        {"rules": [FAILS_ONCE, FAILS_ALWAYS]},
        {"run": {"window": 40}, "engine": {"images": {"workers": 2}}},
        distinct=90,
        write=_write_pictures,
    ),
    _program("score", [FAILS_ONCE], {"settings": {"choices": [" yes", " no", " number 7"]}}, die_after=[90]),
    _program("chain", _GRADES, _CHAIN),
    _program("best_of", _JUDGEMENTS, {"prompts": {"judge": "judge {{ response }}"}, "settings": {"n": 4, "judge": "judge"}}),
    _program(
        "fan_out", _LISTS, {"prompts": {"child": "child {{ item }} of {{ text }}"}, "settings": {"most": 3, "unique": True}},
        files=("children.jsonl",), faults=("temp-written/children.jsonl:1", "renamed/children.jsonl:1"),
    ),
    _program(
        "map_reduce", [FAILS_ONCE, *_SUMMARIES],
        {"prompts": {"reduce": "Together: {{ joined }}"}, "settings": {"chunk": 150, "most": 3}},
        context_length=400, max_tokens=60, write=_write_long_documents,
    ),
    _program(
        "translate", [FAILS_ONCE, FAILS_ALWAYS], {"settings": {"chunk": 160, "context": 0}},
        context_length=4000, write=_write_long_documents,
    ),
)  # fmt: skip
