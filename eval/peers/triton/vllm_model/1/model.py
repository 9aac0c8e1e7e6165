"""Stands in for a language model inside a real Triton: the tensors of its vLLM backend, and the prompt as the answer.

Its tokens are words. A prompt with BOOM in it is refused. It takes its time, so that a server can be killed in the middle.
"""

import json
import time

import numpy as np
import triton_python_backend_utils as pb

SECONDS = 0.003


def _value(request, name):
    tensor = pb.get_input_tensor_by_name(request, name)
    return None if tensor is None else tensor.as_numpy().reshape(-1)[0]


def _texts(*values):
    return np.array([value.encode() for value in values], dtype=object)


class TritonPythonModel:
    def initialize(self, args):
        self.decoupled = pb.using_decoupled_model_transaction_policy(json.loads(args["model_config"]))

    def execute(self, requests):
        if not self.decoupled:
            return [self._answer(request) for request in requests]
        for request in requests:
            sender = request.get_response_sender()
            sender.send(self._answer(request))
            sender.send(flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        return None

    def _answer(self, request):
        time.sleep(SECONDS)
        prompt = _value(request, "text_input").decode()
        if "BOOM" in prompt:
            return pb.InferenceResponse(error=pb.TritonError("the model says no"))
        given = _value(request, "sampling_parameters")
        most = json.loads(given).get("max_tokens", 16) if given is not None else 16
        words = prompt.split(" ")
        text = " ".join(words[:most])
        outputs = [
            pb.Tensor("text_output", _texts(text if _value(request, "exclude_input_in_output") else prompt + text))
        ]
        if _value(request, "return_finish_reason"):
            outputs.append(pb.Tensor("finish_reason", _texts("stop" if len(words) <= most else "length")))
        for name, count in (("num_input_tokens", len(words)), ("num_output_tokens", min(len(words), most))):
            if _value(request, f"return_{name}"):
                outputs.append(pb.Tensor(name, np.array([count], dtype=np.uint32)))
        return pb.InferenceResponse(outputs)
