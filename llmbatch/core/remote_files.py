"""A URL that fsspec knows in; its file system, or all bytes of its file, out. Nothing else of llmbatch knows fsspec.

Credentials and endpoints come from where the libraries look for them (``AWS_ENDPOINT_URL``, ``FSSPEC_S3_...``,
``~/.config/fsspec``), and from a job's ``storage_options``.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from llmbatch.core.errors import UsageError

_NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


class RemoteError(OSError):
    """What a library for remote files raised that is no ``OSError``, in its own words."""


def file_system(url: str, options: Mapping[str, Any], error: type[UsageError]) -> tuple[Any, str]:
    """(fsspec's file system, the URL's path in it). Raises ``error`` where there is none for it."""
    import fsspec

    logging.getLogger("gcsfs").setLevel(
        logging.CRITICAL
    )  # it prints the traceback of each try; what it raises says it all
    if "STORAGE_EMULATOR_HOST" in os.environ:  # gcsfs would ask by gRPC what kind a bucket is, and wait a minute
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    try:
        files, path = fsspec.url_to_fs(url, **options)
    except ImportError as missing:
        raise error(f"{url}: {missing}; pip install 'llmbatch[remote]', or what else has this protocol") from missing
    except Exception as wrong:  # whatever a library says of its own settings
        said = " ".join(str(wrong).split()) or type(wrong).__name__
        raise error(
            f"{url}: cannot be used: {said}; look at the URL, its storage_options and the credentials in the environment"
        ) from wrong
    return files, path


def protocols(files: Any) -> Sequence[str]:
    return (files.protocol,) if isinstance(files.protocol, str) else files.protocol


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn what libraries raise into an ``OSError``; many do so themselves."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        if getattr(error, "status_code", None) in (401, 403):  # Azure's; of others it is an OSError that says so
            raise PermissionError(" ".join(str(error).split())) from error
        raise RemoteError(f"{type(error).__name__}: {' '.join(str(error).split())}") from error


def is_http(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def read_whole(url: str, most: int) -> bytes:
    """The bytes of a file, of a longer one its first ``most``. Raises ``OSError``; ``UsageError`` for a URL that nothing reads."""
    files, path = file_system(url, _NO_OPTIONS, UsageError)
    with translated():
        if not is_http(url):
            return bytes(files.cat_file(path, start=0, end=min(most, int(files.info(path)["size"]))))
        # as it comes: a server need not say how much it is, nor give a part of it
        with files.open(path, "rb", block_size=0, size=None) as file:
            pieces: list[bytes] = []
            while most > 0 and (piece := file.read(most)):
                pieces.append(piece)
                most -= len(piece)
            return b"".join(pieces)
