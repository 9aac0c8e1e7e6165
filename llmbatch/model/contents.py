"""A local model or adapter in, a digest of each of its files out; a name on the hub in, the commit that it stands for here out.

Weights are read whole: a model that was trained further, or an adapter that was overwritten in place, may keep its size, its ends
and even its time of modification. They are read once. A digest is remembered in the user's cache folder under all that the file
system says of the file, its time of change included, which no program can set. A file that changed a moment ago is read again the
next time, because its clock may be too coarse to tell what is written to it within that moment.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

from llmbatch.core.errors import JobError, WriteError
from llmbatch.core.files import atomic_write

_READ_BY_ENGINES = frozenset(
    {".bin", ".gguf", ".jinja", ".json", ".model", ".npz", ".pt", ".pth", ".py", ".safetensors", ".tensors", ".tiktoken", ".txt"}
)  # fmt: skip
_LEFT_BY_TRAINING = frozenset(
    {"all_results.json", "eval_results.json", "optimizer.bin", "optimizer.pt", "rng_state.pth", "scaler.pt", "scheduler.bin",
     "scheduler.pt", "train_results.json", "trainer_state.json", "training_args.bin"}
)  # fmt: skip
_BESIDE_A_FILE = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "chat_template.jinja",
)  # fmt: skip
_BLOCK = 16 << 20
_THREADS = min(8, os.cpu_count() or 1)
_REMEMBERED_FROM = 1 << 20  # bytes; smaller files are as fast read as looked up
_SETTLED_SECONDS = 10.0  # more than the coarsest clock of a file system
_COMMIT = re.compile(r"[0-9a-f]{40}")


def contents(place: Path) -> dict[str, str]:
    """Digest by name of the files that an engine may read of a model or adapter, a folder or a single file.

    Raises ``JobError`` for one that cannot be read.
    """
    found: dict[str, str] = {}
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="llmbatch-digest") as pool:
        for path in _files_of(place):
            try:
                found[str(path.relative_to(place if place.is_dir() else place.parent))] = _digest(path, pool)
            except OSError as error:
                raise JobError(f"{path}: cannot be read: {error.strerror or error}") from error
    return found


def commit_of(name: str, revision: str | None = None, cache: str | None = None) -> str | None:
    """The commit of a model on the hub that its name and revision stand for in the local cache; None if nothing of it is there.

    ``cache`` is a cache folder other than the usual one. A revision that is a commit is that commit, here or not.
    """
    from huggingface_hub import constants

    repository, revision = name.partition(":")[0], revision or "main"  # org/name:Q4_K_M is one of its gguf files
    if _COMMIT.fullmatch(revision):
        return revision
    for folder in (cache, constants.HF_HUB_CACHE):
        if folder is None:
            continue
        try:
            ref = Path(folder).expanduser() / f"models--{repository.replace('/', '--')}" / "refs" / revision
            commit = ref.read_text(encoding="ascii").strip()
        except (OSError, ValueError, RuntimeError):  # not there, or no name that the hub could have
            continue
        if _COMMIT.fullmatch(commit):
            return commit
    return None


def config_here(name: str, revision: str | None = None, cache: str | None = None) -> dict[str, Any]:
    """The ``config.json`` of a model, a folder or a name on the hub, as far as it is on this machine; empty where it is not.

    ``cache`` is as for ``commit_of``.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        path = Path(name).expanduser() / "config.json"
        if not path.is_file():
            found = try_to_load_from_cache(name.partition(":")[0], "config.json", cache_dir=cache, revision=revision)
            if not isinstance(found, str):
                return {}
            path = Path(found)
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError, HFValidationError):  # said when the model is loaded
        return {}
    return config if isinstance(config, dict) else {}


def _files_of(place: Path) -> list[Path]:
    """What an engine may read: of a folder its own files, not what training left in it or below it."""
    if not place.is_dir():
        return [path for path in _with_its_neighbours(place) if path.is_file()]
    files = [path for path in place.iterdir() if path.suffix in _READ_BY_ENGINES and not path.name.startswith(".")]
    files += (place / "chat_templates").glob("*.jinja")
    return sorted(path for path in files if path.name not in _LEFT_BY_TRAINING and path.is_file())


def _with_its_neighbours(file: Path) -> Iterator[Path]:
    """A model that is one file, the files that it is split into, and what tokenizers read beside it."""
    split = re.fullmatch(r"(.+)-\d{5}-of-(\d{5})", file.stem)
    yield from sorted(file.parent.glob(f"{_literal(split[1])}-*-of-{split[2]}.gguf")) if split else [file]
    yield from (file.parent / name for name in _BESIDE_A_FILE)


def _literal(text: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", text)


def _digest(path: Path, pool: ThreadPoolExecutor) -> str:
    """Of all that is in the file, or as it was when the same file was read before."""
    path = path.resolve()
    began = time.time()
    with path.open("rb") as file:
        mark = _mark(os.fstat(file.fileno()))
        if mark["size"] < _REMEMBERED_FROM:
            return _read(file, mark["size"], pool)
        if (known := _remembered(path, mark)) is not None:
            return known
        digest = _read(file, mark["size"], pool)
        unchanged = mark == _mark(os.fstat(file.fileno()))
    if unchanged and began - max(mark["mtime_ns"], mark["ctime_ns"]) / 1e9 > _SETTLED_SECONDS:
        _remember(path, mark, digest)
    return digest


def _read(file: BinaryIO, size: int, pool: ThreadPoolExecutor) -> str:
    """The digest of the digests of its blocks, so that several threads can read one file."""
    blocks = pool.map(lambda start: _block(file.fileno(), start), range(0, size, _BLOCK))
    return blake2b(b"".join([f"{size}:".encode(), *blocks]), digest_size=16).hexdigest()


def _block(file: int, start: int) -> bytes:
    digest, end = blake2b(digest_size=32), start + _BLOCK
    while start < end and (some := os.pread(file, end - start, start)):
        digest.update(some)
        start += len(some)
    return digest.digest()


def _mark(stat: os.stat_result) -> dict[str, int]:
    """What changes when a file is replaced or written to. Programs can set the time of modification, not that of change."""
    return {
        "device": stat.st_dev,
        "inode": stat.st_ino,
        "size": stat.st_size,
        "mtime_ns": stat.st_mtime_ns,
        "ctime_ns": stat.st_ctime_ns,
    }


def _remembered(path: Path, mark: dict[str, int]) -> str | None:
    try:
        known = json.loads(_memory_of(path).read_bytes())
        return str(known["digest"]) if known["path"] == str(path) and known["mark"] == mark else None
    except (OSError, RuntimeError, ValueError, KeyError, TypeError):
        return None


def _remember(path: Path, mark: dict[str, int], digest: str) -> None:
    try:
        memory = _memory_of(path)
        memory.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(memory, json.dumps({"path": str(path), "mark": mark, "digest": digest}).encode())
    except (OSError, RuntimeError, WriteError, ValueError):  # it is read again the next time
        return


def _memory_of(path: Path) -> Path:
    """Where the digest of a file is remembered: a file for each, so that runs at the same time do not get in each other's way."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    cache = Path(given) if given.startswith("/") else Path.home() / ".cache"
    return cache / "llmbatch" / "digests" / f"{blake2b(os.fsencode(path), digest_size=16).hexdigest()}.json"


__all__ = ["commit_of", "contents"]
