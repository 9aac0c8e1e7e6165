"""datatrove's ``InferenceRunner`` on a ``vllm serve``, which is kept up between repetitions; documents out by its ``JsonlWriter``.

The runner would start a server for every pipeline, by a command of its own; here it asks one that is there, so that its start-up
can be told from its work. As many requests are under way as its own default has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import shapes
from datatrove.data import Document  # type: ignore[import-not-found, unused-ignore]
from datatrove.pipeline.inference.run_inference import (  # type: ignore[import-not-found, unused-ignore]
    InferenceConfig,
    InferenceRunner,
)
from datatrove.pipeline.writers import JsonlWriter  # type: ignore[import-not-found, unused-ignore]

from arms.server import Server
from arms.worker import Task, serve


class Datatrove:
    def __init__(self, settings: dict[str, Any]) -> None:
        self._server = Server(settings["python"], settings["engine"])

    def run(self, task: Task) -> Mapping[str, Any]:
        config = InferenceConfig(
            server_type="endpoint", endpoint_url=self._server.url, model_name_or_path="demo", model_max_context=4096,
            metric_interval=3600,
        )  # fmt: skip
        writer = JsonlWriter(str(task.target / "answers"), compression=None)
        InferenceRunner(_ask, config, writer).run(_documents(task))
        return {"answers": "answers"}

    def reset(self) -> None:
        self._server.reset()

    def close(self) -> None:
        self._server.close()


def _documents(task: Task) -> Iterator[Any]:
    for ask in shapes.read(task.shape, task.source):
        sampling = dict(ask.sampling)
        if ask.schema is not None:
            sampling["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": ask.schema},
            }
        yield Document(text="", id=ask.id, metadata={"messages": ask.messages, "sampling": sampling})


async def _ask(document: Any, generate: Any) -> Any:
    """A document's answer becomes its text."""
    answer = await generate({"messages": document.metadata.pop("messages"), **document.metadata.pop("sampling")})
    document.text = answer.text
    return answer  # documents without any result are not written


if __name__ == "__main__":
    serve(Datatrove)
