"""Azure OpenAI's files and batches, for its clients: paths below ``/openai``, the key in the header ``api-key``.

What is otherwise than at OpenAI: endpoints and URLs are written without ``/v1``, a batch goes on behind its window, and there is
always a file of errors.
"""

from __future__ import annotations

from llmbatch.server.fronts.openai import OpenAIFront


class AzureFront(OpenAIFront):
    """The front. ``api-version`` may be any, also in the paths that have a version of their own."""

    name = "azure"
    prefixes = ("/openai/", "/openai/v1/")
    expires = False
    always_error_file = True
