"""A kind of object store in (``s3``, ``gs``, ``az``); its emulator on this machine, which every client then finds by itself, out.

    with Store("s3", work) as store:
        bucket = store.bucket("corpus-b")
        bucket.put_tree(Path("examples/s3/corpus-b"))
        ...  # whatever reads s3://corpus-b/, in this process or in one that it starts
        store.between.fails = lambda request: 503 if request.startswith("PUT") else None

Inside the block the environment names the emulator as each vendor's own clients expect it. All of them go by way of a small proxy,
which keeps their requests and can refuse some of them. What is put and looked at here goes past it, by the vendor's own client and
never by fsspec, which is what is tried. The emulators: moto of
this environment, and gcp-storage-emulator and azurite of ``make peers``.
"""

from __future__ import annotations

import base64
import http.client
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote

HERE = Path(__file__).parent
sys.path += [str(HERE), str(HERE.parent / "peers")]

from servers import free_port  # noqa: E402 - no packages
from shown import ROOT, Missing, python_of, version_there  # noqa: E402

_START_SECONDS = 60.0
_PAUSE_SECONDS = 0.05
_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "expect", "content-length"}
)


_GOOGLE_NAME = re.compile(rb'"name": *"([^"]+)"')


class Client(Protocol):
    """What a vendor's own client is used for here. Names of objects have no slash in front."""

    def make(self, bucket: str) -> None: ...
    def put(self, bucket: str, name: str, content: bytes) -> None: ...
    def get(self, bucket: str, name: str) -> bytes: ...
    def remove(self, bucket: str, name: str) -> None: ...
    def names(self, bucket: str) -> list[str]: ...


class Kind(NamedTuple):
    """One kind of store. ``command`` starts its emulator on a port, with a folder of its own.

    ``environment`` leads the vendor's clients, and fsspec's, to a URL; ``client`` is such a client.
    """

    scheme: str
    command: Callable[[Path, int], list[str]]
    environment: Callable[[str], Mapping[str, str]]
    client: Callable[[str], Client]
    refusal: Callable[[int], tuple[Mapping[str, str], bytes]]
    version: Callable[[], str]


# --- S3, by moto


def _moto(_work: Path, port: int) -> list[str]:
    return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]


def _aws(url: str) -> Mapping[str, str]:
    # the region by its variable: s3fs sends one that it is given as a constraint, which S3 refuses for us-east-1
    return {
        "AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "emulated", "AWS_SECRET_ACCESS_KEY": "emulated",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip


class _Boto:
    def __init__(self, url: str) -> None:
        import boto3

        self._s3 = boto3.client(
            "s3",
            endpoint_url=url,
            aws_access_key_id="emulated",
            aws_secret_access_key="emulated",
            region_name="us-east-1",
        )

    def make(self, bucket: str) -> None:
        self._s3.create_bucket(Bucket=bucket)

    def put(self, bucket: str, name: str, content: bytes) -> None:
        self._s3.put_object(Bucket=bucket, Key=name, Body=content)

    def get(self, bucket: str, name: str) -> bytes:
        content: bytes = self._s3.get_object(Bucket=bucket, Key=name)["Body"].read()
        return content

    def remove(self, bucket: str, name: str) -> None:
        self._s3.delete_object(Bucket=bucket, Key=name)

    def names(self, bucket: str) -> list[str]:
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return sorted(found["Key"] for page in pages for found in page.get("Contents", ()))


def _aws_refusal(code: int) -> tuple[Mapping[str, str], bytes]:
    said = {403: ("AccessDenied", "Access Denied"), 503: ("SlowDown", "Please reduce your request rate.")}
    name, message = said.get(code, ("InternalError", "We encountered an internal error."))
    return {
        "Content-Type": "application/xml"
    }, f"<Error><Code>{name}</Code><Message>{message}</Message></Error>".encode()


# --- Google, by gcp-storage-emulator


def _gcp(_work: Path, port: int) -> list[str]:
    program = python_of("gcs").parent / "gcp-storage-emulator"
    return [str(program), "start", "--host", "127.0.0.1", "--port", str(port), "--in-memory"]


def _google(url: str) -> Mapping[str, str]:
    # the look-up by gRPC of what kind a bucket is waits a minute for an emulator that has no gRPC
    return {
        "STORAGE_EMULATOR_HOST": url,
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        "GOOGLE_CLOUD_PROJECT": "emulated",
    }


class _GoogleStorage:
    def __init__(self, url: str) -> None:
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage

        self._client = storage.Client(
            project="emulated", credentials=AnonymousCredentials(), client_options={"api_endpoint": url}
        )

    def make(self, bucket: str) -> None:
        self._client.create_bucket(bucket)

    def put(self, bucket: str, name: str, content: bytes) -> None:
        self._client.bucket(bucket).blob(name).upload_from_string(content, content_type="application/octet-stream")

    def get(self, bucket: str, name: str) -> bytes:
        content: bytes = self._client.bucket(bucket).blob(name).download_as_bytes()
        return content

    def remove(self, bucket: str, name: str) -> None:
        self._client.bucket(bucket).blob(name).delete()

    def names(self, bucket: str) -> list[str]:
        return sorted(blob.name for blob in self._client.list_blobs(bucket))


def _google_refusal(code: int) -> tuple[Mapping[str, str], bytes]:
    said = {
        401: "Anonymous caller does not have storage.objects.get access to the Google Cloud Storage object.",
        403: "The caller does not have storage.objects access", 503: "Backend Error",
    }  # fmt: skip
    message = said.get(code, "Internal error")
    return {"Content-Type": "application/json"}, f'{{"error": {{"code": {code}, "message": "{message}"}}}}'.encode()


# --- Azure, by azurite

_ACCOUNT = "emulated"
_ACCOUNT_KEY = base64.b64encode(
    secrets.token_bytes(64)
).decode()  # azurite looks at signatures; nothing else knows this key


def _azurite(work: Path, port: int) -> list[str]:
    program = ROOT / ".venv-azurite" / "node_modules" / ".bin" / "azurite-blob"
    if not program.exists():
        raise Missing(".venv-azurite is not there: make peers, which needs npm for it")
    return [
        "env", f"AZURITE_ACCOUNTS={_ACCOUNT}:{_ACCOUNT_KEY}", str(program), "--blobHost", "127.0.0.1", "--blobPort",
        str(port), "--location", str(work), "--silent", "--skipApiVersionCheck", "--disableTelemetry",
    ]  # fmt: skip


def _azure(url: str) -> Mapping[str, str]:
    parts = {
        "DefaultEndpointsProtocol": "http", "AccountName": _ACCOUNT, "AccountKey": _ACCOUNT_KEY,
        "BlobEndpoint": f"{url}/{_ACCOUNT}",
    }  # fmt: skip
    return {"AZURE_STORAGE_CONNECTION_STRING": "".join(f"{name}={value};" for name, value in parts.items())}


class _Blobs:
    def __init__(self, url: str) -> None:
        from azure.storage.blob import BlobServiceClient

        self._service = BlobServiceClient.from_connection_string(_azure(url)["AZURE_STORAGE_CONNECTION_STRING"])

    def make(self, bucket: str) -> None:
        self._service.create_container(bucket)

    def put(self, bucket: str, name: str, content: bytes) -> None:
        self._service.get_blob_client(bucket, name).upload_blob(content, overwrite=True)

    def get(self, bucket: str, name: str) -> bytes:
        content: bytes = self._service.get_blob_client(bucket, name).download_blob().readall()
        return content

    def remove(self, bucket: str, name: str) -> None:
        self._service.get_blob_client(bucket, name).delete_blob()

    def names(self, bucket: str) -> list[str]:
        return sorted(self._service.get_container_client(bucket).list_blob_names())


def _azure_refusal(code: int) -> tuple[Mapping[str, str], bytes]:
    name = {403: "AuthorizationPermissionMismatch", 503: "ServerBusy"}.get(code, "InternalError")
    body = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{name}</Code><Message>{name}</Message></Error>'
    return {"Content-Type": "application/xml", "x-ms-error-code": name}, body.encode()


def _azurite_version() -> str:
    package = ROOT / ".venv-azurite" / "node_modules" / "azurite"
    told = subprocess.run(
        ["node", "-p", f"require({str(package / 'package.json')!r}).version"],
        check=True,
        capture_output=True,
        text=True,
    )
    return told.stdout.strip()


KINDS: Mapping[str, Kind] = {
    "s3": Kind(
        "s3", _moto, _aws, _Boto, _aws_refusal, lambda: f"moto {version('moto')}, s3fs {version('s3fs')}"
    ),
    "gs": Kind(
        "gs", _gcp, _google, _GoogleStorage, _google_refusal,
        lambda: f"gcp-storage-emulator {version_there('gcs', 'gcp-storage-emulator')}, gcsfs {version('gcsfs')}",
    ),
    "az": Kind(
        "az", _azurite, _azure, _Blobs, _azure_refusal, lambda: f"azurite {_azurite_version()}, adlfs {version('adlfs')}"
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket, or a container as Azure has it."""

    url: str
    name: str
    client: Client

    def put(self, name: str, content: bytes) -> None:
        self.client.put(self.name, name, content)

    def get(self, name: str) -> bytes:
        return self.client.get(self.name, name)

    def remove(self, name: str) -> None:
        self.client.remove(self.name, name)

    def names(self, prefix: str = "") -> list[str]:
        """Of all objects, or of those below a prefix; sorted."""
        return [name for name in self.client.names(self.name) if name.startswith(prefix)]

    def put_tree(self, folder: Path, prefix: str = "") -> None:
        """Every file below a folder, as an object of its name there."""
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            self.put(prefix + path.relative_to(folder).as_posix(), path.read_bytes())

    def tree(self, prefix: str = "") -> dict[str, bytes]:
        """Every object below a prefix, by its name behind that."""
        return {name.removeprefix(prefix): self.get(name) for name in self.names(prefix)}


class Between:
    """A proxy before a server: keeps requests in words, such as ``GET /bucket/key?x=y bytes=0-99``, and refuses some.

    ``fails`` says of a request with which code it is refused, or ``"cut"`` where only half of the answer is to come; it is
    also where a test does what is to happen in the middle.
    """

    def __init__(self, port: int, refusal: Callable[[int], tuple[Mapping[str, str], bytes]]) -> None:
        self.requests: list[str] = []
        self.fails: Callable[[str], int | str | None] = lambda _: None
        self._upstream = port
        self._refusal = refusal
        between = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except OSError:  # a client that was killed
                    self.close_connection = True

            def log_message(self, *_: Any) -> None:
                pass

        for method in ("GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"):
            setattr(Handler, f"do_{method}", lambda handler: between._answer(handler))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = _body_of(handler)
        span = handler.headers.get("Range") or handler.headers.get("x-ms-range") or ""
        named = _GOOGLE_NAME.search(body[:4096]) if "/upload/" in handler.path else None  # Google's has it in its body
        request = " ".join([handler.command, unquote(handler.path), span, named[1].decode() if named else ""]).strip()
        self.requests.append(request)
        how = self.fails(request)
        if isinstance(how, int):
            headers, content = self._refusal(how)
            _reply(handler, how, [*headers.items()], content)
            return
        connection = http.client.HTTPConnection("127.0.0.1", self._upstream, timeout=120)
        try:
            connection.putrequest(handler.command, handler.path, skip_host=True, skip_accept_encoding=True)
            for name, value in handler.headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            _reply(handler, answer.status, answer.getheaders(), answer.read(), cut=how == "cut")
        except (OSError, http.client.HTTPException):  # the emulator is gone
            handler.close_connection = True
        finally:
            connection.close()


def _body_of(handler: BaseHTTPRequestHandler) -> bytes:
    if handler.headers.get("Transfer-Encoding", "").lower() != "chunked":
        return handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
    pieces = []
    while size := int(handler.rfile.readline().partition(b";")[0], 16):
        pieces.append(handler.rfile.read(size))
        handler.rfile.readline()
    while handler.rfile.readline().strip():
        pass
    return b"".join(pieces)


def _reply(
    handler: BaseHTTPRequestHandler, code: int, headers: list[tuple[str, str]], content: bytes, *, cut: bool = False
) -> None:
    head = handler.command == "HEAD"
    handler.send_response_only(code)
    for name, value in headers:
        if name.lower() not in _HOP_BY_HOP or (head and name.lower() == "content-length"):
            handler.send_header(name, value)
    if not head and code not in (204, 304):
        handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    if not head:
        handler.wfile.write(content[: len(content) // 2] if cut else content)
    handler.close_connection = handler.close_connection or cut


class Store:
    """An emulator and the environment that leads to it, for as long as the block lasts. ``work`` gets its log and its data."""

    def __init__(self, kind: str, work: Path) -> None:
        """Raises ``Missing`` where its environment, or a client's package, is not there."""
        self._kind = KINDS[kind]
        self.scheme = self._kind.scheme
        self.log = work / f"{kind}.log"
        self._port = free_port()
        data = work / f"{kind}-data"
        data.mkdir(parents=True, exist_ok=True)
        self._command = self._kind.command(data, self._port)
        self._process: subprocess.Popen[bytes] | None = None
        self._before: dict[str, str | None] = {}

    def __enter__(self) -> Store:
        self.start()
        self.between = Between(self._port, self._kind.refusal)
        try:
            self.client = self._kind.client(f"http://127.0.0.1:{self._port}")
        except ImportError as error:
            self.__exit__()
            raise Missing(f"{error}: pip install 'llmbatch[remote]'") from error
        self.environment = {
            **self._kind.environment(self.between.url),
            "no_proxy": "127.0.0.1",
            "NO_PROXY": "127.0.0.1",
        }
        self._before = {name: os.environ.get(name) for name in self.environment}
        os.environ.update(self.environment)
        _forget_connections()
        return self

    def __exit__(self, *exception: object) -> None:
        for name, value in self._before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        _forget_connections()
        self.between.close()
        self.kill()

    def bucket(self, name: str) -> Bucket:
        """A new bucket."""
        self.client.make(name)
        return Bucket(f"{self.scheme}://{name}", name, self.client)

    def version(self) -> str:
        return self._kind.version()

    def start(self) -> None:
        """Start the emulator, on the same port as before."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
                return
            except OSError:
                time.sleep(_PAUSE_SECONDS)
        tail = self.log.read_text(errors="replace")[-2000:]
        self.kill()
        raise RuntimeError(f"{self.log.name}: the emulator did not come up:\n{tail}")

    def kill(self) -> None:
        """Kill -9 the emulator; what moto and Google's have is in memory, and gone."""
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        self._process = None


def _forget_connections() -> None:
    """fsspec keeps a connection for each set of settings, and the environment is none of them."""
    import fsspec

    for scheme in ("s3", "gs", "abfs"):
        if (known := fsspec.registry.get(scheme)) is not None:
            known.clear_instance_cache()
