"""The V2 (open inference) protocol with Triton's generate extension, for tritonclient, ``mlserver infer`` and others: ``/v2``."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.responses import Response

from llmbatch import __version__
from llmbatch.core.errors import EngineError
from llmbatch.core.types import Outcome, Piece, Refusal
from llmbatch.core.words import clip
from llmbatch.formats.outcome import code_of
from llmbatch.formats.v2 import line_of
from llmbatch.server.errors import ApiError
from llmbatch.server.fronts.asking import Asking, unavailable
from llmbatch.server.fronts.v2_binary import read_body
from llmbatch.server.server import Server

_INPUTS = (("text_input", "BYTES", [-1]), ("sampling_parameters", "BYTES", [1]))
_OUTPUTS = (
    ("text_output", "BYTES", [-1]), ("finish_reason", "BYTES", [-1]), ("num_input_tokens", "UINT32", [1]),
    ("num_output_tokens", "UINT32", [-1]),
)  # fmt: skip


class V2Front:
    """The front. Its calls are answered at once; it has no batches."""

    name = "v2"
    prefixes = ("/v2",)

    def __init__(self, server: Server) -> None:
        self._server = server
        self._asking = Asking(server)

    def uploads(self, path: str) -> bool:  # noqa: ARG002 - none is
        return False

    def refusal(self, error: ApiError) -> Response:
        return JSONResponse({"error": error.message}, error.status)

    def routes(self) -> APIRouter:
        router = APIRouter(tags=[self.name])
        self._about(router)
        for path in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            self._of_model(router, path)
        return router

    def _about(self, router: APIRouter) -> None:
        @router.get("/v2")
        async def server() -> Response:
            """What this server is."""
            return JSONResponse(
                {"name": "llmbatch", "version": __version__, "extensions": ["generate", "binary_tensor_data"]}
            )

        @router.get("/v2/health/live", response_class=Response)
        async def live() -> Response:
            """Whether it answers."""
            return Response()

        @router.get("/v2/health/ready", response_class=Response)
        async def ready() -> Response:
            """Whether it takes requests: the engine starts with the first."""
            return Response()

    def _of_model(self, router: APIRouter, path: str) -> None:
        @router.get(path)
        async def metadata(model: str) -> Response:
            """What goes into the model, and comes out."""
            self._see(model)
            tensors = {
                key: [{"name": name, "datatype": kind, "shape": shape} for name, kind, shape in each]
                for key, each in (("inputs", _INPUTS), ("outputs", _OUTPUTS))
            }
            return JSONResponse({"name": model, "versions": ["1"], "platform": "llmbatch", **tensors})

        @router.get(f"{path}/ready", response_class=Response)
        async def model_ready(model: str) -> Response:
            """Whether the model is served."""
            self._see(model)
            return Response()

        @router.post(f"{path}/infer", responses=_FAILS, openapi_extra=_INFER)
        async def infer(request: Request, model: str) -> Response:
            """Answer the prompts of a request."""
            self._see(model)
            body = read_body(await request.body(), request.headers.get("inference-header-content-length"))
            return JSONResponse(await self._answer(request, model, body))

        @router.post(f"{path}/generate", responses=_FAILS)
        async def generate(request: Request, model: str, body: Annotated[dict[str, Any], Body()]) -> Response:
            """Answer one prompt."""
            self._see(model)
            (output, *_) = (await self._answer(request, model, _as_infer(body)))["outputs"]
            return JSONResponse({"model_name": model, "model_version": "1", "text_output": output["data"][0]})

        @router.post(
            f"{path}/generate_stream",
            responses={**_FAILS, 200: {"content": {"text/event-stream": {}}, "description": "Events"}},
        )
        async def generate_stream(model: str, body: Annotated[dict[str, Any], Body()]) -> Response:
            """Answer one prompt, piece by piece."""
            self._see(model)
            return await self._streamed(model, _as_infer(body))

    async def _answer(self, request: Request, model: str, body: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(body.get("inputs"), list):
            raise ApiError(400, "[request id: <id_unknown>] a request has a list of inputs")
        answered = await self._asking.ask(request, self._server.answering_for("v2"), body, model)
        line = line_of(answered, strict=False)
        if "error" in line:
            raise ApiError(
                code_of((answered.record.get("error") or {"kind": "engine"})["kind"]).http, line["error"]["msg"]
            )
        return {"model_name": model, "model_version": "1", "id": line["id"], "outputs": line["outputs"]}

    async def _streamed(self, model: str, body: Mapping[str, Any]) -> Response:
        items = self._server.answering_for("v2").stream(body)
        self._asking.begin()
        try:
            first = await anext(items, None)
        except EngineError as error:
            self._asking.end()
            raise unavailable(error) from error
        except BaseException:
            self._asking.end()
            raise
        if first is None or isinstance(first, Refusal):
            self._asking.end()
            raise ApiError(400, "there is no answer" if first is None else first.failure.message)
        return StreamingResponse(self._events(model, first, items), media_type="text/event-stream")

    async def _events(
        self, model: str, first: Piece | Outcome, items: AsyncIterator[Piece | Outcome]
    ) -> AsyncIterator[bytes]:
        def event(text: str) -> bytes:
            said = {"model_name": model, "model_version": "1", "text_output": text}
            return b"data: " + json.dumps(said).encode() + b"\n\n"

        try:
            if isinstance(first, Piece):
                yield event(first.text)
            async for item in items:
                if isinstance(item, Piece):
                    yield event(item.text)
                elif isinstance(item, Refusal):
                    yield b"data: " + json.dumps({"error": item.failure.message}).encode() + b"\n\n"
        except EngineError:
            yield b'data: {"error": "the engine failed in the middle of the answer"}\n\n'
        finally:
            self._asking.end()

    def _see(self, model: str) -> None:
        if model not in self._server.settings.models:
            raise ApiError(404, f"Request for unknown model: '{clip(model, 100)}' is not found")


def _as_infer(body: Mapping[str, Any]) -> dict[str, Any]:
    """A body of the generate extension as an inference request: what is beside the prompt are parameters. Raises ``ApiError``."""
    parameters = body.get("parameters") or {}
    if not isinstance(body.get("text_input"), str) or not isinstance(parameters, Mapping):
        raise ApiError(400, "[request id: <id_unknown>] text_input must be a text, and parameters an object")
    own = {key: value for key, value in body.items() if key not in ("id", "text_input", "parameters")}
    values = {key: value for key, value in {**parameters, **own}.items() if key != "stream"}
    text = {"name": "text_input", "shape": [1], "datatype": "BYTES", "data": [body["text_input"]]}
    return {"inputs": [text], "parameters": values}


_FAILS: dict[int | str, dict[str, Any]] = {
    code: {"description": said}
    for code, said in {
        422: "The answer does not pass a check", 429: "Too many at a time", 499: "The client went away",
        500: "The engine failed", 503: "The engine is not to be had",
    }.items()
}  # fmt: skip
_INFER = {
    "requestBody": {
        "required": True, "content": {"application/json": {"schema": {"type": "object", "required": ["inputs"]}}},
    }
}  # fmt: skip
"""The body may be JSON with tensors in binary form behind it, so it is not FastAPI that reads it."""
