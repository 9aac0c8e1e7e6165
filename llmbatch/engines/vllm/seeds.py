"""vLLM's model runner for a CPU in; the same put right: the prompt of a request with a seed may be computed in several steps.

A step that computes part of a prompt draws a token all the same, and throws it away. vLLM then takes the request's random
generator back by what a GPU counts, which those of a CPU have not: the engine dies of "CPU Generator does not use offset" (seen in
0.32). Here the generator's state from before the draw is put back, so that the answer does not depend on how the prompt was cut.
"""

from __future__ import annotations

from typing import Any

from vllm.v1.worker.cpu_model_runner import CPUModelRunner


def put_right(runner: Any) -> None:
    """Make it put generators back. Another vLLM's may be another class, which draws in another way: that is left alone."""
    if type(runner) is CPUModelRunner and hasattr(CPUModelRunner, "_bookkeeping_sync"):
        runner.__class__ = _SeededRunner


class _SeededRunner(CPUModelRunner):  # type: ignore[misc]
    def _sample(self, *arguments: Any, **named: Any) -> Any:
        before = [(generator, generator.get_state()) for generator in self._thrown_away().values()]
        result = super()._sample(*arguments, **named)
        for generator, state in before:
            generator.set_state(state)
        return result

    def _bookkeeping_sync(self, *arguments: Any, **named: Any) -> Any:
        generators, hidden = self.input_batch.generators, self._thrown_away()
        for number in hidden:
            del generators[number]
        try:
            return super()._bookkeeping_sync(*arguments, **named)
        finally:
            generators.update(hidden)

    def _thrown_away(self) -> dict[int, Any]:
        """The generators of requests whose token of this step is thrown away, by their place in the batch."""
        generators = self.input_batch.generators
        if not generators:
            return {}
        mask = self.discard_request_mask.np
        return {number: generator for number, generator in generators.items() if mask[number]}


__all__ = ["put_right"]
