"""The V2 (open inference) protocol, as Triton and mlserver speak it: health, the model's metadata, and inference requests.

Their clients' binary data is read; answers are JSON, which these clients take as well. An error is ``{"error": text}``.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from llmbatch import __version__
from llmbatch.formats.base import wire_format
from llmbatch.formats.kserve import FINISH_REASON, TEXT_INPUT, TEXT_OUTPUT, TOKENS_IN, TOKENS_OUT, WireError
from llmbatch.formats.kserve_binary import read_body
from llmbatch.formats.outcome import Error
from llmbatch.formats.v2 import reply_of
from llmbatch.server.bodies import beside
from llmbatch.server.errors import ApiError
from llmbatch.server.fronts.synchronous import Synchronous
from llmbatch.server.server import Server
from llmbatch.sources.jsonl import json_value

_LENGTH = re.compile(r"[0-9]{1,12}")
_JSON_LENGTH = "inference-header-content-length"
_INPUTS = (
    (TEXT_INPUT, "BYTES"),
    ("sampling_parameters", "BYTES"),
    ("exclude_input_in_output", "BOOL"),  # which it always is, and some clients look whether that can be said
    *((f"return_{name}", "BOOL") for name in (FINISH_REASON, TOKENS_IN, TOKENS_OUT)),
)
_OUTPUTS = ((TEXT_OUTPUT, "BYTES"), (FINISH_REASON, "BYTES"), (TOKENS_IN, "UINT32"), (TOKENS_OUT, "UINT32"))
_PATHS = ("/v2/models/{model:path}/versions/{version}", "/v2/models/{model:path}")


def _version(version: str) -> str:
    """That of the model: any is taken."""
    return version


class V2Front(Synchronous):
    """The front. Of each model there is one version, which is called 1; any is taken."""

    name = "v2"
    prefixes = ("/v2",)

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._format = wire_format("v2")

    def routes(self) -> APIRouter:
        router = APIRouter()

        @router.get("/v2")
        async def server() -> dict[str, Any]:
            """What this is."""
            return {"name": "llmbatch", "version": __version__, "extensions": ["binary_tensor_data"]}

        @router.get("/v2/health/live", response_class=Response)
        @router.get("/v2/health/ready", response_class=Response)
        async def health() -> Response:
            """Whether requests are taken: the engine is started with the first one."""
            return Response()

        for path in _PATHS:
            self._of_model(router, path)
        return router

    def _of_model(self, router: APIRouter, path: str) -> None:
        versioned = "version" in path
        said: Any = {"dependencies": [Depends(_version)] if versioned else []}

        @router.get(f"{path}/ready", response_class=Response, operation_id=f"v2_ready_{versioned}", **said)
        async def ready(model: str) -> Response:
            """Whether there is such a model."""
            self.model(model)
            return Response()

        @router.post(f"{path}/infer", operation_id=f"v2_infer_{versioned}", **said)
        async def infer(request: Request, model: str) -> Response:
            """Answer prompts."""
            return await self._infer(request, self.model(model))

        @router.get(path, operation_id=f"v2_metadata_{versioned}", **said)
        async def metadata(model: str) -> dict[str, Any]:
            """What a model takes and gives."""
            tensors = (
                [{"name": name, "datatype": datatype, "shape": [-1]} for name, datatype in each]
                for each in (_INPUTS, _OUTPUTS)
            )
            inputs, outputs = tensors
            return {
                "name": self.model(model),
                "versions": ["1"],
                "platform": "llmbatch",
                "inputs": inputs,
                "outputs": outputs,
            }

    async def _infer(self, request: Request, model: str) -> Response:
        length = request.headers.get(_JSON_LENGTH)
        if length is not None and _LENGTH.fullmatch(length) is None:
            raise ApiError(400, "the header Inference-Header-Content-Length is to be a number of bytes")
        try:
            body = await request.body()
            read = partial(read_body, body, None if length is None else int(length), loads=json_value)
            row = await beside(len(body), read)
        except WireError as error:
            raise ApiError(400, str(error)) from error
        problem = self._format.problem(row)
        if problem is not None:
            raise ApiError(400, problem)
        answered = await self.answered(request, self._format.read(row, self.settings.models), row, model)
        reply = reply_of(answered, strict=False)
        if isinstance(reply, Error):
            raise ApiError(reply.code.http, reply.message, code=reply.kind)
        return JSONResponse({"model_version": "1", **reply})

    def refusal(self, error: ApiError) -> Response:
        return JSONResponse({"error": error.message}, error.status)
