"""What MkDocs calls while it builds the site: pages that are made of the code, and files from outside of ``docs``.

Links in the pages are as they work in the repository (``../eval/docs/run.svg``, ``../examples/...``); here they lead to copies.
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path[:0] = [str(HERE), str(ROOT)]

import figures  # noqa: E402
import tables  # noqa: E402

COPIED = (
    "eval/docs/*.svg",
    "eval/docs/*.png",
    "eval/bench/*.svg",
    "examples/*.ipynb",
    "examples/*.py",
    "examples/slurm/*",
)
WHOLE = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
MADE = {
    "reference/commands.md": tables.commands_page,
    "reference/settings.md": tables.settings_page,
    "reference/parts.md": tables.parts_page,
    "reference/tasks.md": tables.tasks_page,
}
PUT_IN = {
    "figures: performance": figures.performance,
    "figures: reliability": figures.reliability,
    "figures: rooms": figures.rooms,
    "table: statuses": tables.statuses,
    "table: kinds": tables.kinds,
}


STYLE = ".md-typeset td code { white-space: nowrap; }\n"


def on_files(files: Files, config: Any) -> Files:
    for name, page in MADE.items():
        files.append(File.generated(config, name, content=page()))
    files.append(File.generated(config, "style.css", content=STYLE))
    for pattern in COPIED:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:  # noqa: ARG001 - MkDocs' signature
    name = page.file.src_uri
    if name in WHOLE:
        markdown = (ROOT / WHOLE[name]).read_text(encoding="utf-8")
    for mark, made in PUT_IN.items():
        markdown = markdown.replace(f"<!-- {mark} -->", made())
    return re.sub(r"\]\(((?:\.\./)*[^)\s:#]+)(#[^)\s]*)?\)", lambda link: _link(link, name), markdown)


def _link(link: re.Match[str], page: str) -> str:
    """A link as the site has it: one that leaves ``docs`` leads to the copy of what it names, one of the root to its page."""
    target, anchor = link[1], link[2] or ""
    folder = posixpath.dirname(page)
    place = posixpath.normpath(posixpath.join("" if page in WHOLE else "docs", folder, target))
    if place.startswith("docs/"):
        place = place.removeprefix("docs/")
    else:
        place = {whole: made for made, whole in WHOLE.items()}.get(place, place)
    return f"]({posixpath.relpath(place, folder or '.')}{anchor})"
