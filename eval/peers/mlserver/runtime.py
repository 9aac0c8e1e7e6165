"""A runtime for a real mlserver: each prompt is its own answer; one with BOOM in it has its whole request refused."""

import asyncio

from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest, InferenceResponse

SECONDS = 0.02  # so that a server can be killed in the middle


class Echo(MLModel):
    async def load(self) -> bool:
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        await asyncio.sleep(SECONDS)
        texts = StringCodec.decode_input(payload.inputs[0])
        if any("BOOM" in text for text in texts):
            raise InferenceError("the model says no")
        return InferenceResponse(
            id=payload.id, model_name=self.name, outputs=[StringCodec.encode_output("text_output", texts)]
        )
