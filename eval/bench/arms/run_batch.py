"""``vllm run-batch``: the functions that the command itself runs, so that its start-up can be told from its work.

The command starts an engine, answers one file and ends; here its engine stays up and answers one file after another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

import shapes

from arms.worker import Task, serve


class RunBatch:
    def __init__(self, settings: dict[str, Any]) -> None:
        from vllm.entrypoints.launchers.api_server.entry import build_async_engine_client
        from vllm.entrypoints.launchers.run_batch import make_arg_parser, validate_run_batch_args
        from vllm.usage.usage_lib import UsageContext
        from vllm.utils.argparse_utils import FlexibleArgumentParser

        options = [f"--{name.replace('_', '-')}={value}" for name, value in settings["engine"].items()]
        files = ["-i", "in.jsonl", "-o", "out.jsonl"]  # set anew for each repetition
        model = ["--model", str(shapes.MODEL), "--served-model-name", "demo"]
        self._args = make_arg_parser(FlexibleArgumentParser()).parse_args([*files, *model, *options])
        validate_run_batch_args(self._args)
        self._loop = asyncio.Runner()
        self._stack = AsyncExitStack()
        client = build_async_engine_client(self._args, usage_context=UsageContext.OPENAI_BATCH_RUNNER)
        self._client = self._loop.run(self._stack.enter_async_context(client))

    def run(self, task: Task) -> Mapping[str, Any]:
        from vllm.entrypoints.launchers.run_batch import run_batch

        self._args.input_file = str(task.requests)
        self._args.output_file = str(task.target / "answers.jsonl")
        self._loop.run(run_batch(self._client, self._args))
        return {"answers": "answers.jsonl"}

    def reset(self) -> None:
        self._loop.run(self._client.reset_prefix_cache())

    def close(self) -> None:
        self._loop.run(self._stack.aclose())
        self._loop.close()


if __name__ == "__main__":
    serve(RunBatch)
