"""The same rows through other clients of the same server: a short script with OpenAI's own client, and datatrove's runner.

Run as a script in the peer's own environment: ``openai_peers.py NAME ROWS.jsonl OUT URL MODEL MAX_TOKENS AT_A_TIME`` prints the
seconds from the first row read to the last answer written.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

PROMPT = "Say it in words: {text}"


def plain(rows: Path, out: Path, url: str, model: str, max_tokens: int, at_a_time: int) -> None:
    """As anyone would write it: a client, a semaphore, gather, a file."""
    from openai import AsyncOpenAI

    async def main() -> None:
        client = AsyncOpenAI(base_url=url, api_key="none", timeout=600)
        slots = asyncio.Semaphore(at_a_time)

        async def ask(row: dict[str, Any]) -> dict[str, Any]:
            async with slots:
                answer = await client.chat.completions.create(
                    model=model, messages=[{"role": "user", "content": PROMPT.format(**row)}],
                    max_tokens=max_tokens, temperature=0,
                )  # fmt: skip
            return {"id": row["id"], "output": answer.choices[0].message.content}

        asked = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
        answers = await asyncio.gather(*map(ask, asked))
        out.write_text("".join(json.dumps(answer) + "\n" for answer in answers), encoding="utf-8")

    asyncio.run(main())


def datatrove(rows: Path, out: Path, url: str, model: str, max_tokens: int, at_a_time: int) -> None:
    """Its inference runner on a server that is there already."""
    from datatrove.data import Document
    from datatrove.pipeline.inference.run_inference import InferenceConfig, InferenceRunner
    from datatrove.pipeline.writers import JsonlWriter

    async def ask(document: Any, generate: Any) -> Any:
        return await generate({"messages": [{"role": "user", "content": PROMPT.format(text=document.text)}]})

    config = InferenceConfig(
        server_type="endpoint", endpoint_url=url.removesuffix("/v1"), model_name_or_path=model, model_max_context=512,
        default_generation_params={"temperature": 0, "max_tokens": max_tokens}, max_concurrent_generations=at_a_time,
        metric_interval=3600,
    )  # fmt: skip
    documents = (Document(text=row["text"], id=str(row["id"])) for row in map(json.loads, rows.open(encoding="utf-8")))
    InferenceRunner(ask, config, JsonlWriter(str(out), compression=None)).run(documents)


def main() -> None:
    name, rows, out, url, model, max_tokens, at_a_time = sys.argv[1:]
    peer = {"plain": plain, "datatrove": datatrove}[name]
    module = {"plain": "openai", "datatrove": "datatrove.pipeline.inference.run_inference"}[name]
    __import__(module)  # not what is measured
    began = time.monotonic()
    peer(Path(rows), Path(out), url, model, int(max_tokens), int(at_a_time))
    print(f"seconds {time.monotonic() - began:.3f}")


if __name__ == "__main__":
    main()
