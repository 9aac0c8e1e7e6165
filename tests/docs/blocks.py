"""A page of Markdown in; its blocks of code out, with what a reader is told of each; and by itself the list of those not run.

    python tests/docs/blocks.py           # how many there are, and which do not run
    python tests/docs/blocks.py --write   # the same into NOT_RUN.md, which a test holds against the pages

A block is run by the test of its page, unless the page says why it cannot be, in a comment right before it that no reader sees:

    <!-- not run: needs two GPUs -->

A block with a title (```yaml title="job.yaml") is a file of that name for the blocks that follow it.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
LIST = Path(__file__).with_name("NOT_RUN.md")
RUN = ("bash", "sh", "python", "yaml", "json")
"""Languages whose blocks are run, or read as what they are."""
SHOWN = ("text", "jinja", "sql", "mermaid", "ini", "html")
"""Those of blocks that show something which nobody types."""
LOOKED_AT = ("pip", "uv", "make")
"""Commands that install or build, of which the test looks at the names of extras and targets alone."""
_NOT_RUN = re.compile(r"<!-- not run: (.+?) -->\s*$", re.DOTALL)
_TITLE = re.compile(r'title="([^"]+)"')
_COMMAND = re.compile(r"^(?:[A-Z_]+=\S+ )*(llmbatch\S*|python|pip|make|sbatch|lm_eval|inspect|vllm|mlserver|\w+)\b")


class Block(NamedTuple):
    """``line`` is that of its first line of code; ``not_run`` the reason, None where it is run."""

    page: str
    line: int
    language: str
    text: str
    title: str | None
    not_run: str | None

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def looked_at(self) -> int:
        """How many of its commands install or build: their names are looked at, and they are not done."""
        return sum(command.split()[0] in LOOKED_AT for command in self.commands)

    @property
    def commands(self) -> list[str]:
        """The command lines of a shell block, comments and what continues a line left out."""
        if self.language not in ("bash", "sh"):
            return []
        joined = self.text.replace("\\\n", " ")
        lines = (line.strip() for line in joined.splitlines())
        return [line for line in lines if line and not line.startswith("#") and _COMMAND.match(line)]


def pages() -> list[str]:
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [path.relative_to(ROOT).as_posix() for path in found]


def blocks_of(page: str) -> Iterator[Block]:
    """The blocks of a page, in their order."""
    before = ""
    for token in MarkdownIt("commonmark").parse((ROOT / page).read_text(encoding="utf-8")):
        if token.type == "html_block":
            before = token.content
        elif token.type in ("fence", "code_block"):
            start = token.map[0] if token.map else 0
            words = token.info.split(maxsplit=1)
            title, reason = _TITLE.search(token.info), _NOT_RUN.search(before)
            yield Block(
                page,
                start + (2 if token.type == "fence" else 1),
                words[0] if words else "",
                token.content,
                title[1] if title else None,
                " ".join(reason[1].split()) if reason else None,
            )
            before = ""
        elif token.content.strip():
            before = ""


def listing() -> str:
    """What is not run, by page, and how much is."""
    every = [block for page in pages() for block in blocks_of(page) if block.language in RUN]
    apart = [block for block in every if block.not_run is not None]
    run = [block for block in every if block.not_run is None]
    looked_at = sum(block.looked_at for block in run)
    commands = sum(len(block.commands) for block in run) - looked_at
    lines = [
        "# Blocks of code in README, CONTRIBUTING and docs that no test runs",
        "",
        "Made by `python tests/docs/blocks.py --write`; a test holds it against the pages.",
        "",
        f"{len(run)} blocks are run, with {commands} commands; of {looked_at} more, which install or build "
        f"({', '.join(LOOKED_AT)}), the names of extras and targets are looked at. {len(apart)} blocks are not run:",
        "",
        "| page | blocks | why |",
        "|---|---:|---|",
    ]
    reasons = Counter((block.page, block.not_run) for block in apart)
    lines += [f"| {page} | {number} | {reason} |" for (page, reason), number in sorted(reasons.items(), key=str)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        LIST.write_text(listing(), encoding="utf-8")
    print(listing())
