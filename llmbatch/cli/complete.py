"""What was typed so far of a value in; what it may become, for a shell's completion, out.

A shell asks at every press of the key, so what is known from a room's table is read from that alone, and nothing heavy is imported.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import click
from click.shell_completion import CompletionItem

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

_DEPTH = 3  # folders that run folders are looked for in, below what was typed
_LINES = 20_000  # of results that are looked at for ids
_OFFERED = 100  # ids
_LOOKED_AT = 2_000  # entries of folders, at most


def run_folders(_ctx: click.Context, _parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Run folders that begin so, some levels down too; where there is none, any folder."""
    found = sorted(_run_folders(typed))
    return [CompletionItem(path) for path in found] or [CompletionItem(typed, type="dir")]


def folders(_ctx: click.Context, _parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    return [CompletionItem(typed, type="dir")]


def files(_ctx: click.Context, _parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    return [CompletionItem(typed, type="file")]


def row_ids(ctx: click.Context, _parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Ids of rows of the run folder before it that begin so, those that are not ok first; of a large run not all are looked at."""
    from llmbatch.core.errors import FolderError
    from llmbatch.folder.records import head_of, id_of

    found: dict[str, str] = {}
    with contextlib.suppress(FolderError, OSError, ValueError):
        for line in islice(_result_lines(Path(ctx.params["folder"]).expanduser()), _LINES):
            given = json.loads(id_of(line))
            name = given if isinstance(given, str) else json.dumps(given)
            if name.startswith(typed) and name.isprintable():
                found.setdefault(name, head_of(line)[1])
            if len(found) >= _OFFERED:
                break
    return [CompletionItem(name, help=status) for name, status in found.items()]


def _result_lines(folder: Path) -> Iterator[bytes]:
    """Those of rows that are not ok, and then all, as far as a run is."""
    from llmbatch.folder.folder import ERRORS, RESULTS, RunFolder
    from llmbatch.folder.records import part_lines

    files = [file for name in (ERRORS, RESULTS) if (file := folder / name).exists()]
    yield from part_lines(files) if files else RunFolder(folder).record_lines()


def prompts(_ctx: click.Context, _parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Prompts that come along, or else files."""
    from llmbatch.prompt.shipped import shipped_prompts

    return _beginning(typed, shipped_prompts()) or [CompletionItem(typed, type="file")]


def programs(_ctx: click.Context, _parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    from llmbatch.programs import PROGRAMS

    return _beginning(typed, PROGRAMS)


def input_formats(_ctx: click.Context, _parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    from llmbatch.formats import FORMATS as WIRE_FORMATS
    from llmbatch.sources import FORMATS

    return _beginning(typed, {**FORMATS, **WIRE_FORMATS})


def engines(_ctx: click.Context, _parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    from llmbatch.engines import ENGINES

    return _beginning(typed, ENGINES)


def overflow_modes(_ctx: click.Context, _parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    return _beginning(
        typed, ("error", "skip", "truncate-head", "truncate-tail", "truncate-middle", "shrink-output", "chunk")
    )


def settings(_ctx: click.Context, _parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Settings of a job as ``--set`` takes them, with what they are."""
    from llmbatch.cli.setting_names import setting_names

    return [CompletionItem(f"{name}=", help=text) for name, text in setting_names().items() if name.startswith(typed)]


def _beginning(typed: str, known: Iterable[str]) -> list[CompletionItem]:
    return [CompletionItem(name) for name in known if name.startswith(typed)]


def _run_folders(typed: str) -> Iterator[str]:
    """Paths of run folders, written as what was typed is."""
    from llmbatch.folder.folder import MANIFEST

    start, _, name = typed.rpartition("/")
    above = f"{start}/" if "/" in typed else ""
    looked_at = 0
    level = [(above, name)]
    for _ in range(_DEPTH):
        below: list[tuple[str, str]] = []
        for folder, beginning in level:
            for entry in _entries(os.path.expanduser(folder or ".")):  # noqa: PTH111 - it is to be as it was typed
                looked_at += 1
                if looked_at > _LOOKED_AT:
                    return
                if not entry.name.startswith(beginning) or (entry.name.startswith(".") and not beginning):
                    continue
                if not _is_folder(entry):
                    continue
                if os.path.exists(os.path.join(entry.path, MANIFEST)):  # noqa: PTH110, PTH118
                    yield folder + entry.name
                else:
                    below.append((f"{folder}{entry.name}/", ""))
        level = below


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
