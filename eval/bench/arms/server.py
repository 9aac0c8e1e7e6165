"""Engine settings in; vLLM's server of the benchmark's own environment out, for peers that ask one and have no vLLM."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Mapping
from http import HTTPStatus
from http.client import HTTPConnection
from typing import Any

import shapes

_POLL_SECONDS = 0.2


class Server:
    """Serves the demo model as ``demo`` below ``url``, which ends without ``/v1``."""

    def __init__(self, python: str, engine: Mapping[str, Any]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        options = [f"--{name.replace('_', '-')}={value}" for name, value in engine.items()]
        self._process = subprocess.Popen(
            [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(shapes.MODEL), "--served-model-name", "demo",
             "--host", "127.0.0.1", "--port", str(self._port), "--disable-uvicorn-access-log", *options],
            env={**os.environ, "VLLM_SERVER_DEV_MODE": "1"},  # which has the address that empties the prefix cache
        )  # fmt: skip
        while not self._ready():
            if (code := self._process.poll()) is not None:
                raise RuntimeError(f"vllm serve ended with exit code {code} before it was ready")
            time.sleep(_POLL_SECONDS)

    def reset(self) -> None:
        """Forget what the prefix cache holds."""
        self._call("POST", "/reset_prefix_cache", 30)

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ready(self) -> bool:
        try:
            self._call("GET", "/health", 5)
        except OSError:
            return False
        return True

    def _call(self, method: str, path: str, timeout: float) -> None:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=timeout)
        try:
            connection.request(method, path)
            status = connection.getresponse().status
        finally:
            connection.close()
        if status != HTTPStatus.OK:
            raise OSError(f"{method} {path}: vllm serve answers {status}")
