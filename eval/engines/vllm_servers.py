"""vLLM's own servers with models that give numbers, see images or think, against the same models in vLLM in this process.

    vllm_servers.py [--rows N] [--parts vectors,pairs,images,thinking]

A part starts a server with a small model made here with random weights, runs a job over it by the openai engine, and the same job
by the vllm engine, and holds the records against each other. ``images`` has two servers with one model, and rows whose image is
broken or there twice. Writes ``vllm_servers.json`` beside this file, part by part.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from openai_server import vllm_server
from pooling import make_model
from run import made_with

from llmbatch.job.job import job_from
from llmbatch.runs.session import run_job

HERE = Path(__file__).parent
FIGURES = HERE / "vllm_servers.json"
TESTS = HERE.parents[1] / "tests"
SMALL = {"dtype": "float32", "enforce_eager": True, "max_num_seqs": 16, "kv_cache_memory_bytes": 1 << 27}
CLOSE = 1e-4  # of numbers: what sums depend on that are computed beside them
BUDGET = 4  # tokens of thinking


def job_over(
    urls: Sequence[str] | None, model: str, folder: Path, rows: Sequence[Mapping[str, Any]], **sections: Any
) -> list[dict[str, Any]]:
    """The records of a job on vLLM's servers at these URLs, or with none in this process."""
    name = "served" if urls else "own"
    place = folder / "rows.jsonl"
    place.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    own = {"name": "vllm", "args": {**SMALL, **sections.pop("args", {})}, **sections.pop("own", {})}
    served = {"name": "openai", "urls": list(urls or ()), "served_name": "tiny", **sections.pop("served", {})}
    output = folder / name
    run_job(
        job_from(
            {
                "model": model, "input": {"path": str(place)}, "output": str(output), "engine": served if urls else own,
                "retry": {"max_attempts": 1}, **sections,
            }
        )
    )  # fmt: skip
    return [json.loads(line) for line in (output / "results.jsonl").read_text(encoding="utf-8").splitlines()]


def compared(served: Sequence[Mapping[str, Any]], own: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many records there are, and of how many what came out is the same on both sides."""
    return {
        "rows": len(own),
        "ok": sum(record["status"] in ("ok", "truncated") for record in served),
        "failed": {record["id"]: record["error"]["kind"] for record in served if record["status"] == "failed"},
        "same": sum(alike(came(one), came(other)) for one, other in zip(served, own, strict=True)),
        "same_prompt_tokens": sum(
            one["usage"]["prompt_tokens"] == other["usage"]["prompt_tokens"]
            for one, other in zip(served, own, strict=True)
        ),
    }


def came(record: Mapping[str, Any]) -> list[Any]:
    failed = record["error"]["kind"] if record["status"] == "failed" else None
    return [failed, record["output"], record.get("raw"), record.get("reasoning"), record.get("details")]


def alike(one: Any, other: Any) -> bool:
    """Equal, but for a little where they are numbers."""
    if isinstance(one, float) and isinstance(other, float | int):
        return abs(one - other) < CLOSE
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(value, other[name]) for name, value in one.items())
    return bool(one == other)


def vectors(folder: Path, count: int) -> dict[str, Any]:
    """``embed`` at a pooling server, as its model has vectors and without their being made as long as 1."""
    model = str(make_model(folder / "model", "embed"))
    rows = [{"id": i, "text": f"the model reads row {i} " * (1 + i % 5)} for i in range(count)]
    rows.append({"id": "long", "text": "row " * 400})
    found = {}
    with vllm_server(folder, model, SMALL) as url:
        for name, settings in (("as_it_is", {}), ("not_normalized", {"normalize": False})):
            place = folder / name
            place.mkdir()
            program = {"name": "embed", "settings": settings}
            served = job_over([url], model, place, rows, program=program)
            found[name] = compared(served, job_over(None, model, place, rows, program=program))
    return found


def pairs(folder: Path, count: int) -> dict[str, Any]:
    """``classify``, ``score_pairs`` and ``rerank`` at a server with a cross-encoder."""
    model = str(make_model(folder / "model", "cross", classes=["relevant"]))
    rows = [
        {
            "id": i, "text": f"of the batch {i}", "query": f"the corpus {i % 7}", "document": f"no text {i}",
            "documents": ["the corpus of the model", f"a row {i} and a vector", "no"],
        }
        for i in range(count)
    ]  # fmt: skip
    found = {}
    with vllm_server(folder, model, SMALL) as url:
        for name in ("classify", "score_pairs", "rerank"):
            place = folder / name
            place.mkdir()
            named = {"classes": ["relevant"]} if name == "classify" else {}
            served = job_over([url], model, place, rows, program={"name": name}, served=named)
            found[name] = compared(served, job_over(None, model, place, rows, program={"name": name}))
    return found


def images(folder: Path, count: int) -> dict[str, Any]:
    """Images of a prompt's variable over two servers; one is broken, one is not there, some are there twice."""
    from PIL import Image

    sys.path.insert(0, str(TESTS))
    from tiny_vision import make_vision_model

    model = folder / "model"
    make_vision_model(model)
    for number in range(count // 2):
        Image.effect_noise((40 + number, 30), 80).convert("RGB").save(folder / f"{number}.png")
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:200])
    names = [f"{number % (count // 2)}.png" for number in range(count)]
    rows = [{"id": i, "picture": str(folder / name)} for i, name in enumerate([*names, "cut.png", "none.png"])]
    (folder / "look.yaml").write_text(
        "name: look\nvariables: {picture: {type: image}}\nmessages: [{role: user, content: 'See {{ picture }}'}]\n"
    )
    sections = {
        "prompt": {"path": str(folder / "look.yaml")},
        "sampling": {"temperature": 0, "max_tokens": 12, "ignore_eos": True},
    }
    args = {**SMALL, "max_model_len": 512}
    with contextlib.ExitStack() as stack:
        places = [folder / name for name in ("one", "other")]
        for place in places:
            place.mkdir()
        urls = [stack.enter_context(vllm_server(place, str(model), args)) for place in places]
        served = job_over(urls, str(model), folder, rows, args=args, **sections)
        asked = [answered(url) for url in urls]
    found = compared(served, job_over(None, str(model), folder, rows, args=args, **sections))
    return {**found, "different_images": count // 2, "answered_by_each": asked}


def answered(url: str) -> int:
    """Requests that a server has answered, by its own count."""
    with urlopen(f"{url.removesuffix('/v1')}/metrics", timeout=60) as metrics:  # noqa: S310 - our own server
        counts = re.findall(r"^vllm:request_success_total\{[^}]*\} (\S+)$", metrics.read().decode(), re.MULTILINE)
    return int(sum(map(float, counts)))


def thinking(folder: Path, count: int) -> dict[str, Any]:
    """A model that thinks, at a server with a reasoning parser: what it thought is the record's ``reasoning`` alone."""
    sys.path.insert(0, str(TESTS))
    from tiny_thinking import make_thinking_model

    model = make_thinking_model(folder / "model")
    rows = [{"id": i, "text": f"{i} hundred"} for i in range(count)]
    sampling = {"temperature": 0, "max_tokens": 12, "ignore_eos": True, "thinking_token_budget": BUDGET}
    sections = {"prompt": {"path": "{{ text }}"}, "sampling": sampling}
    args = {**SMALL, "max_model_len": 512}
    with vllm_server(folder, model, args, "--reasoning-parser", "deepseek_r1") as url:
        served = job_over([url], model, folder, rows, **sections)
    own = job_over(None, model, folder, rows, args=args, own={"reasoning_parser": "deepseek_r1"}, **sections)
    return {**compared(served, own), "with_reasoning": sum(bool(record.get("reasoning")) for record in served)}


PARTS: Mapping[str, Callable[[Path, int], dict[str, Any]]] = {
    "vectors": vectors, "pairs": pairs, "images": images, "thinking": thinking,
}  # fmt: skip


def report(figures: Mapping[str, Any]) -> list[str]:
    """The figures in words."""
    lines = [
        "## vLLM's servers: numbers, images at two URLs, thinking",
        "",
        "The same job by the openai engine on vLLM's own server and by the vllm engine; small models with random weights. Records "
        f"are the same where what came out is, numbers within {CLOSE:g}.",
        "",
        "| part | rows | answered | failed | the same | as many prompt tokens |",
        "|---|---|---|---|---|---|",
    ]
    for name, part in figures.items():
        for what, one in [(name, part), *((f"{name}, {key}", each) for key, each in part.items())]:
            if isinstance(one, Mapping) and "same" in one:
                failed = ", ".join(f"{row}: {kind}" for row, kind in one["failed"].items()) or "none"
                lines.append(
                    f"| {what} | {one['rows']:,} | {one['ok']:,} | {failed} | {one['same']:,} | {one['same_prompt_tokens']:,} |"
                )
    if seen := figures.get("images"):
        lines += [
            "",
            f"Of {seen['different_images']} different images the two servers answered {seen['answered_by_each']}: equal bytes are "
            "asked once.",
        ]
    if thought := figures.get("thinking"):
        lines += [
            "",
            f"{thought['with_reasoning']} of {thought['rows']} records have what the model thought as ``reasoning``.",
        ]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=60)
    parser.add_argument("--parts", default=",".join(PARTS))
    given = parser.parse_args()
    figures = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
    for name in given.parts.split(","):
        with tempfile.TemporaryDirectory(prefix="llmbatch-servers-") as path:
            began = time.monotonic()
            run = partial(PARTS[name], Path(path), given.rows)
            figures[name] = {**made_with(), **run(), "seconds_of_it_all": round(time.monotonic() - began, 1)}
        FIGURES.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        print(name, json.dumps(figures[name], indent=1), flush=True)


if __name__ == "__main__":
    main()
