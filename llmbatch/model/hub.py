"""A model's name in; nothing out where it can be had, here or on the Hugging Face hub, or else why not, in plain words.

It is asked before an engine is imported, which takes half a minute, and only of a model that is not on this machine. The hub's
own answer is one request for the head of a small file: whoever may read that may read the weights.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from llmbatch.core.errors import EngineError, JobError
from llmbatch.core.settings import is_named_as_path, is_there
from llmbatch.core.words import near, one_line
from llmbatch.model.contents import commit_of

_NAME = re.compile(r"(?:[\w-][\w.-]*/)?[\w-][\w.-]*")
_FILE = "config.json"  # of nearly every model; for one without, the hub's answer says that the rest is there
_PREFIX = "models--"  # of the folders of models in the hub library's cache
_FOUND = 20  # names that the hub is asked for, to find a near one
_TOKEN = "hf auth login, or HF_TOKEN in the environment"  # noqa: S105 - what to do to have one


@cache
def see_model(setting: str, place: str, revision: str | None = None, folder: str | None = None) -> None:
    """See that a model, adapter or tokenizer can be had; ``setting`` names it, ``folder`` is that of downloads.

    Raises ``JobError`` for a name that stands for nothing, or for what is not given to whoever asks; ``EngineError`` where the hub
    cannot be reached, which another time may be otherwise. What could be had is not asked for again.
    """
    if is_there(place):
        return
    name, said = (
        place.partition(":")[0],
        f"{setting} {place!r}",
    )  # what vLLM takes a file of many by stands after a colon
    if is_named_as_path(place) or not _NAME.fullmatch(name):
        raise JobError(
            f"{said}: there is no such folder, and it is no hub name such as Qwen/Qwen3-8B; looked in {Path.cwd()}"
        )
    if _is_here(name, revision, folder):
        return
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise JobError(
            f"{said} is not on this machine{_near_here(name, folder)}, and nothing is downloaded, as HF_HUB_OFFLINE is set: "
            "unset it, or give a model that is here"
        )
    _ask(said, name, revision, folder)


def _is_here(name: str, revision: str | None, folder: str | None) -> bool:
    """Whether something of it is, so that the name is right and was open to whoever asked."""
    from huggingface_hub import constants

    commit, at = commit_of(name, revision, folder), f"{_PREFIX}{name.replace('/', '--')}"
    caches = [Path(cache).expanduser() for cache in (folder, constants.HF_HUB_CACHE) if cache is not None]
    return commit is not None and any((cache / at / "snapshots" / commit).is_dir() for cache in caches)


def _ask(said: str, name: str, revision: str | None, folder: str | None) -> None:
    """Ask the hub for the head of a file of the model. Raises as ``see_model``."""
    from huggingface_hub import constants, errors, get_hf_file_metadata, hf_hub_url

    hub, no_answer = constants.ENDPOINT, errors.HfHubHTTPError.__bases__[0]  # the base of what its HTTP library raises
    try:
        get_hf_file_metadata(hf_hub_url(name, _FILE, revision=revision, endpoint=hub))
    except errors.EntryNotFoundError:
        return  # the model is there, without that file
    except errors.HFValidationError as error:
        raise JobError(f"{said} is no name that a model on the hub can have: {one_line(str(error), 200)}") from error
    except errors.GatedRepoError as error:
        raise JobError(
            f"{said} is given only to those who have agreed to its terms: do so on {hub}/{name}, and "
            + (
                "wait until you are let in; the token that is set is of an account that is not"
                if _has_token()
                else f"give the token of that account ({_TOKEN}): none is set"
            )
        ) from error
    except errors.RevisionNotFoundError as error:
        raise JobError(
            f"{said} has no revision {revision!r} on {hub}: give a branch, a tag or a commit of it"
        ) from error
    except errors.RepositoryNotFoundError as error:
        private = "which the token that is set does not open" if _has_token() else f"which needs a token ({_TOKEN})"
        raise JobError(
            f"{said} is neither on this machine nor on {hub}{_near(name, folder)}: check the name, or it is a private one, "
            f"{private}"
        ) from error
    except errors.HfHubHTTPError as error:
        _refused(said, hub, error)
    except (OSError, no_answer) as error:
        raise EngineError(
            f"{said} is not on this machine, and {hub} cannot be reached: {one_line(str(error) or repr(error), 200)}. "
            "Try again, or give a folder with the model"
        ) from error


def _refused(said: str, hub: str, error: Any) -> None:
    """For any other answer of the hub. What may be otherwise in a moment is left to the engine, which asks several times."""
    status = getattr(error.response, "status_code", None)
    if status == 401:
        raise JobError(
            f"{said}: {hub} does not know the token that is set: give another ({_TOKEN}), or none"
        ) from error
    if status == 403:
        raise JobError(f"{said}: {hub} does not give it to you: {one_line(str(error), 200)}") from error


def _has_token() -> bool:
    from huggingface_hub import get_token

    return get_token() is not None


def _near(name: str, folder: str | None) -> str:
    """A near name, of a model that is here or that the hub finds by the last part of the name."""
    if found := _near_here(name, folder):
        return found
    from huggingface_hub import HfApi

    with contextlib.suppress(Exception):  # a courtesy
        return near(name, [model.id for model in HfApi().list_models(search=name.rpartition("/")[2], limit=_FOUND)])
    return ""


def _near_here(name: str, folder: str | None) -> str:
    return near(name, ["demo", *_names_here(folder)])


def _names_here(folder: str | None) -> Iterator[str]:
    from huggingface_hub import constants

    with contextlib.suppress(OSError):
        for entry in os.scandir(folder or constants.HF_HUB_CACHE):
            if entry.name.startswith(_PREFIX):
                yield entry.name.removeprefix(_PREFIX).replace("--", "/")


__all__ = ["see_model"]
