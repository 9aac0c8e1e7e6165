"""A command of llmbatch in; when the steps of its start began and ended, in seconds since its process started, out as JSON.

    python eval/bench/phases.py FILE BEGAN run --model demo ...

BEGAN is ``time.time()`` from before the process was started. A step is a function of ours or of vLLM: it is wrapped when its module
is imported, so that nothing is imported for the sake of this.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.util
import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

STEPS: dict[str, dict[str, str]] = {
    "llmbatch.cli.settings": {"job_of": "the job is read"},
    "llmbatch.runs.assembly": {"Assembly.__init__": "the run is put together"},
    "llmbatch.runs.reading": {"Reading._read_new": "a window is read and rendered", "Reading._plan": "it is planned"},
    "llmbatch.runs.finish": {"finish": "results and report are written"},
    "llmbatch.engines.supervised": {"Supervised.start": "the engine starts"},
    "llmbatch.engines.vllm.args": {"engine_args": "engine: arguments"},
    "llmbatch.engines.vllm.engine": {
        "VllmEngine._prepare": "engine: prepared (imports, arguments, tokenizer)",
        "VllmEngine._make_encoder": "engine: tokenizer, held against vLLM's renderer",
        "VllmEngine._ready": "engine: put together",
        "VllmEngine.stop": "the engine ends",
    },
    "llmbatch.folder.parts": {"Parts.append": "finished rows go to disk"},
    "vllm.engine.arg_utils": {"EngineArgs.create_engine_config": "vLLM: configuration"},
    "vllm.v1.engine.llm_engine": {"LLMEngine.__init__": "vLLM: LLMEngine"},
    "vllm.v1.engine.core": {
        "EngineCore.__init__": "vLLM: engine core",
        "EngineCore._initialize_kv_caches": "vLLM: KV cache and compilation",
        "EngineCore.step": "vLLM: a step",
        "freeze_gc_heap": "vLLM: collects garbage",
    },
    "vllm.v1.worker.gpu_worker": {"Worker.load_model": "vLLM: the model is loaded"},
    "vllm.v1.worker.cpu_worker": {"CPUWorker.init_device": "vLLM: device and model runner"},
    "vllm.v1.worker.cpu_model_runner": {
        "CPUModelRunner.warming_up_model": "vLLM: warm-up (compiles, or loads what was compiled)",
        "CPUModelRunner.initialize_kv_cache": "vLLM: KV cache is allocated",
    },
    "vllm.v1.structured_output": {"StructuredOutputManager.__init__": "vLLM: structured output"},
}
"""Module -> what of it is wrapped, and what a person calls that."""

_ONCE = ("vLLM: a step", "finished rows go to disk")  # the first time tells all


class Recorder:
    """What began and ended when."""

    def __init__(self, began: float) -> None:
        self._began = began
        self.spans: list[dict[str, Any]] = []

    def wrapped(self, title: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            if title in _ONCE and any(span["title"] == title for span in self.spans):
                return function(*arguments, **named)
            span: dict[str, Any] = {"title": title, "thread": threading.current_thread().name, "begin": self._now()}
            self.spans.append(span)
            try:
                return function(*arguments, **named)
            finally:
                span["end"] = self._now()

        return call

    def mark(self, title: str) -> None:
        now = self._now()
        self.spans.append({"title": title, "thread": threading.current_thread().name, "begin": now, "end": now})

    def _now(self) -> float:
        return time.time() - self._began


class Wrapping(importlib.abc.MetaPathFinder):
    """Wraps the steps of a module right after it was imported."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._finding: set[str] = set()

    def find_spec(
        self, name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in STEPS or name in self._finding:
            return None
        self._finding.add(name)
        spec = importlib.util.find_spec(name)
        self._finding.discard(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            for path, title in STEPS[name].items():
                self._wrap(module, path, title)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec

    def _wrap(self, owner: Any, path: str, title: str) -> None:
        *outer, name = path.split(".")
        for each in outer:
            owner = getattr(owner, each, None)
        if (function := getattr(owner, name, None)) is not None:  # other versions of vLLM have other steps
            setattr(owner, name, self._recorder.wrapped(title, function))


def main(file: str, began: str, *command: str) -> None:
    recorder = Recorder(float(began))
    recorder.mark("Python is up")
    sys.meta_path.insert(0, Wrapping(recorder))
    from llmbatch.cli.main import main as llmbatch

    recorder.mark("llmbatch's command line is imported")
    try:
        llmbatch(list(command))
    finally:
        recorder.mark("the command is at its end")
        Path(file).write_text(json.dumps(recorder.spans), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
