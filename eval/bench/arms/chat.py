"""``LLM.chat`` on the whole list: what a short script does. Read JSON lines, build messages, chat, write JSON lines.

With vLLM's defaults; or tuned, with the engine arguments that llmbatch chooses and the engine core in this process as there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import shapes

from arms.worker import Task, serve, write_answers


class Chat:
    def __init__(self, settings: dict[str, Any]) -> None:
        args: dict[str, Any] = {"model": str(shapes.MODEL), **settings["engine"]}
        if settings.get("tuned"):
            from llmbatch.engines.settings import EngineSettings
            from llmbatch.engines.vllm.args import engine_args, is_cpu
            from llmbatch.model.tokenizer import ChatSettings

            args = engine_args(str(shapes.MODEL), EngineSettings(args=settings["engine"]), ChatSettings())
            del args[
                "structured_outputs_config"
            ]  # llmbatch fixes JSON's spacing in the grammar; here vLLM's default is that
            if is_cpu():
                os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        from vllm import LLM

        self._llm = LLM(**args)

    def run(self, task: Task) -> Mapping[str, Any]:
        asks = list(shapes.read(task.shape, task.source))
        samplings = _samplings(asks)
        chats: list[Any] = [ask.messages for ask in asks]
        outputs = self._llm.chat(chats, samplings, use_tqdm=False)
        write_answers(
            task.target, [{"id": ask.id, "text": o.outputs[0].text} for ask, o in zip(asks, outputs, strict=True)]
        )
        prompt_tokens = sum(len(o.prompt_token_ids or ()) for o in outputs)
        config = self._llm.llm_engine.vllm_config
        return {
            "answers": "answers.jsonl",
            "hit_rate": sum(o.num_cached_tokens or 0 for o in outputs) / prompt_tokens,
            "prompt_tokens": prompt_tokens,
            "completion_tokens": sum(len(o.outputs[0].token_ids) for o in outputs),
            "engine": {
                "dtype": str(config.model_config.dtype).removeprefix("torch."),
                "block_size": config.cache_config.block_size,
                "max_num_seqs": config.scheduler_config.max_num_seqs,
                "max_num_batched_tokens": config.scheduler_config.max_num_batched_tokens,
                "kv_cache_tokens": getattr(config.cache_config, "kv_cache_size_tokens", None),
                "in_process": os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING") == "0",
            },
        }

    def reset(self) -> None:
        self._llm.reset_prefix_cache()

    def close(self) -> None:
        self._llm.llm_engine.engine_core.shutdown()


def _samplings(asks: list[shapes.Ask]) -> Any:
    """One object where all rows agree, as anyone would write it; else one for each row, shared between equal ones."""
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    made: dict[tuple[int, int], SamplingParams] = {}
    for ask in asks:
        key = (id(ask.sampling), id(ask.schema))
        if key not in made:
            constraint = None if ask.schema is None else StructuredOutputsParams(json=dict(ask.schema))
            made[key] = SamplingParams(**ask.sampling, structured_outputs=constraint)
    if len(made) == 1:
        return next(iter(made.values()))
    return [made[id(ask.sampling), id(ask.schema)] for ask in asks]


if __name__ == "__main__":
    serve(Chat)
