"""vLLM's runner for a CPU in; the same out, in which the prompt of a request with a seed may be computed in several steps.

A step that computes part of a prompt draws a token all the same, and throws it away. vLLM then takes the request's random
generator back by what a GPU counts, which those of a CPU have not: the engine dies of "CPU Generator does not use offset" (seen in
0.32). Here the generator's state from before the draw is put back, so that the answer does not depend on how the prompt was cut.
"""

from __future__ import annotations

import functools
from typing import Any

_DONE = "_llmbatch_rewinds"


def rewind_on_cpu() -> None:
    """Change the runner in this process, once. An engine core in a process of its own is not reached."""
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    if _DONE in vars(CPUModelRunner) or not hasattr(CPUModelRunner, "_bookkeeping_sync"):
        return
    sample, keep_books = CPUModelRunner._sample, CPUModelRunner._bookkeeping_sync

    @functools.wraps(sample)
    def sampled(self: Any, *arguments: Any, **named: Any) -> Any:
        before = [(generator, generator.get_state()) for generator in _thrown_away(self).values()]
        result = sample(self, *arguments, **named)
        for generator, state in before:
            generator.set_state(state)
        return result

    @functools.wraps(keep_books)
    def kept_books(self: Any, *arguments: Any, **named: Any) -> Any:
        generators, hidden = self.input_batch.generators, _thrown_away(self)
        for number in hidden:
            del generators[number]
        try:
            return keep_books(self, *arguments, **named)
        finally:
            generators.update(hidden)

    CPUModelRunner._sample, CPUModelRunner._bookkeeping_sync = sampled, kept_books
    setattr(CPUModelRunner, _DONE, True)


def _thrown_away(runner: Any) -> dict[int, Any]:
    """The generators of requests whose token of this step is thrown away, by their place in the batch."""
    generators = runner.input_batch.generators
    if not generators:
        return {}
    mask = runner.discard_request_mask.np
    return {number: generator for number, generator in generators.items() if mask[number]}
