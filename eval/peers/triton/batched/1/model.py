"""Stands in for a model that answers several prompts of a request at once, inside a real Triton: each prompt is its own answer.

One prompt with BOOM in it has the whole request refused.
"""

import time

import triton_python_backend_utils as pb

SECONDS = 0.01


class TritonPythonModel:
    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        time.sleep(SECONDS)
        prompts = pb.get_input_tensor_by_name(request, "text_input").as_numpy().reshape(-1)
        if any(b"BOOM" in prompt for prompt in prompts):
            return pb.InferenceResponse(error=pb.TritonError("the model says no"))
        return pb.InferenceResponse([pb.Tensor("text_output", prompts.reshape(-1, 1))])
