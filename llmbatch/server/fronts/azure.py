"""Azure OpenAI's files and batches, for its clients: paths below ``/openai``, the key in the header ``api-key``.

What is otherwise than at OpenAI: endpoints and URLs are written without ``/v1``, a batch goes on behind its window, and there is
always a file of errors.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from llmbatch.formats.openai.format import CHAT, COMPLETIONS, EMBEDDINGS
from llmbatch.server.bodies import JsonObject
from llmbatch.server.fronts.openai import OpenAIFront
from llmbatch.server.fronts.openai_live import STREAMED


class AzureFront(OpenAIFront):
    """The front. ``api-version`` may be any, also in the paths that have a version of their own."""

    name = "azure"
    prefixes = ("/openai/", "/openai/v1/")
    expires = False
    always_error_file = True

    def routes(self) -> APIRouter:
        router = super().routes()
        for endpoint in (CHAT, COMPLETIONS, EMBEDDINGS):
            self._deployment(router, endpoint)
        return router

    def _deployment(self, router: APIRouter, endpoint: str) -> None:
        """A live endpoint whose path names the model."""

        @router.post(f"/openai/deployments/{{deployment:path}}{endpoint.removeprefix('/v1')}", responses=STREAMED)
        async def deployed(request: Request, deployment: str, body: JsonObject) -> Response:
            """Answer with the model that the path names."""
            return await self.live.answer(request, endpoint, {**body, "model": deployment})
