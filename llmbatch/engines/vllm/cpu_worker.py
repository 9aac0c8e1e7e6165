"""vLLM's worker for a CPU in; the same out, in which seeds do not kill the engine, compiled models are loaded again, and the cache
takes no time before it is used.

vLLM imports this by its name, in whichever process the worker is to run: nothing else here does.
"""

from __future__ import annotations

from typing import Any

from vllm.v1.worker.cpu_worker import CPUWorker

from llmbatch.engines.vllm import seeds
from llmbatch.engines.vllm.cache_memory import cleared_by_use
from llmbatch.engines.vllm.compiled import loadable


class Worker(CPUWorker):  # type: ignore[misc]
    """See ``seeds``, ``compiled`` and ``cache_memory`` for what is put right."""

    def init_device(self) -> None:
        super().init_device()
        seeds.put_right(self.model_runner)

    def determine_available_memory(self) -> int:
        with loadable():  # the model is compiled when it is warmed up, which is done here
            return int(super().determine_available_memory())

    def initialize_from_config(self, *given: Any, **named: Any) -> Any:
        with cleared_by_use():
            return super().initialize_from_config(*given, **named)


__all__ = ["Worker"]
