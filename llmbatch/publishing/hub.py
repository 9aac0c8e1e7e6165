"""A published dataset in; the same on the Hugging Face hub out, in one commit: all of it or nothing.

The token is the hub's client's: HF_TOKEN, or that of ``hf auth login``. The one place where the client's errors become ours.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmbatch.core.errors import JobError, PushError
from llmbatch.publishing.target import ARROW, DROPPED, PROVENANCE, is_provenance

_LOCAL = (DROPPED, f"{ARROW}/")
"""What is for whoever published it, and not for the hub."""
_OWN = {".gitattributes"}  # what the hub itself puts into a new repository


def check_name(repo: str) -> None:
    """Raises ``JobError`` for what cannot be the name of a dataset on the hub."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise JobError(f"push_to: {error}") from None
    if repo.count("/") != 1:
        raise JobError(f"push_to: {repo!r} is to be owner/name")


def push(folder: Path, repo: str, *, private: bool | None = None) -> str:
    """Put the dataset on the hub; returns the address of the commit. A repository that is not there is made.

    What an earlier publication has there and this one has not goes with the same commit. Raises ``PushError``, also where something
    else is there.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    check_name(repo)
    api = HfApi(library_name="llmbatch")
    with _explained(api, folder, repo), _bars_on_terminals_only():
        api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
        info = api.repo_info(repo, repo_type="dataset")
        there = {file.rfilename for file in info.siblings or ()} - _OWN
        earlier = _earlier(api, repo, there, info.sha)
        # not upload_folder: for a large folder that makes several commits
        files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
        added: list[Any] = [
            CommitOperationAdd(name, str(path)) for name, path in files.items() if not name.startswith(_LOCAL)
        ]
        names = {operation.path_in_repo for operation in added}
        removed = [CommitOperationDelete(name) for name in sorted(earlier & there - names)]
        commit = api.create_commit(
            repo,
            [*added, *removed],
            repo_type="dataset",
            commit_message="Publish with llmbatch",
            parent_commit=info.sha,
        )
    return str(commit.commit_url)


def _earlier(api: Any, repo: str, there: set[str], revision: str | None) -> set[str]:
    """The files of the earlier publication in the repository. Raises ``PushError`` where it holds something else."""
    if not there:
        return set()
    provenance = None
    if PROVENANCE in there:
        with tempfile.TemporaryDirectory(prefix="llmbatch-") as cache:
            path = api.hf_hub_download(repo, PROVENANCE, repo_type="dataset", revision=revision, cache_dir=cache)
            provenance = is_provenance(Path(path).read_bytes())
    if provenance is None:
        raise PushError(
            f"{repo}: the dataset on the hub was not published by llmbatch (it has {', '.join(sorted(there)[:3])}), so nothing was "
            "pushed: give another name, or empty it first"
        )
    return set(provenance["files"])


@contextlib.contextmanager
def _bars_on_terminals_only() -> Iterator[None]:
    """The client shows how far an upload is, also where nobody looks at it."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    quiet = not sys.stderr.isatty() and not are_progress_bars_disabled()
    if quiet:
        disable_progress_bars()
    try:
        yield
    finally:
        if quiet:
            enable_progress_bars()


@contextlib.contextmanager
def _explained(api: Any, folder: Path, repo: str) -> Iterator[None]:
    from huggingface_hub.errors import HfHubHTTPError

    no_answer = HfHubHTTPError.__bases__[0]  # the base of all that the client's HTTP library raises
    safe = f"The dataset is whole in {folder}, and the same command pushes it: one commit, all of it or nothing"
    try:
        yield
    except PushError:
        raise
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        raise PushError(f"{repo}: {_refusal(status, api.endpoint, _said(error))}. {safe}") from error
    except (ConnectionError, no_answer) as error:
        raise PushError(f"{repo}: the hub cannot be reached at {api.endpoint}: {_said(error)}. {safe}") from error
    except Exception as error:  # the client and its uploader in Rust have many more, of no common base
        raise PushError(f"{repo}: pushing it to {api.endpoint} failed: {_said(error)}. {safe}") from error


def _refusal(status: int | None, endpoint: str, said: str) -> str:
    if status == 401:
        return f"{endpoint} does not know who asks (401): log in with `hf auth login`, or set HF_TOKEN to a token that may write"
    if status == 403:
        return (
            f"{endpoint} does not let this token write there (403): take one with write access to it. It said: {said}"
        )
    if status == 412:
        return "somebody else changed the dataset on the hub meanwhile (412)"
    return f"{endpoint} refused it ({status}): {said}"


def _said(error: BaseException) -> str:
    """The innermost of what was said: the client wraps what went wrong with a file."""
    while error.__cause__ is not None and type(error) is RuntimeError:
        error = error.__cause__
    text = getattr(error, "server_message", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:300].rstrip(".")
